"""peer.py CHECKPOINT: how fast Model Optimizer's own functions are on this machine's processors.

Runs them, as its examples/deepseek/deepseek_v4/quantize_to_nvfp4.py does, on an FP8 and on an MXFP4
matrix of a DeepSeek-V4 checkpoint, in memory. Prints a line for each job: its name, and how many
elements are done in a second, the median of several runs, on two threads.
test/bench/run calls it, and sets up what it needs."""

import statistics
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

from modelopt.torch.quantization.qtensor import FP8QTensor, MXFP4QTensor, NVFP4QTensor

RUNS = 3
MODULES = ["layers.0.attn.wq_a", "layers.0.ffn.experts.0.w1"]


def load(folder):
    """(weight, scale) of each of MODULES."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as shard:
            for name in shard.keys():
                if name.rsplit(".", 1)[0] in MODULES:
                    found[name] = shard.get_tensor(name)
    return [(found[f"{m}.weight"], found[f"{m}.scale"]) for m in MODULES]


def report(name, elements, job):
    """job() handles that many elements; the first run, which also warms up, does not count."""
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    print(f"{name}\t{elements / statistics.median(seconds[1:]):.0f}", flush=True)


def fp8_to_bf16(weight, scale):
    tensor = FP8QTensor(weight.shape, torch.bfloat16, weight)
    return tensor.dequantize(scale=scale.float(), block_sizes={0: 128, 1: 128})


def mxfp4_to_bf16(weight, scale):
    shape = (weight.shape[0], 2 * weight.shape[1])
    tensor = MXFP4QTensor(torch.Size(shape), torch.bfloat16, weight.view(torch.uint8))
    return tensor.dequantize(scale=scale.view(torch.uint8), block_sizes={-1: 32})


def bf16_to_nvfp4(weight, scale_2):
    return NVFP4QTensor.quantize(weight, 16, None, scale_2)


def cast(weight, scale):
    """What the example's lossless cast comes to: the scales from MXFP4's, the codes quantized."""
    exponent = scale.view(torch.uint8).to(torch.int32) - 127
    top = exponent.max()
    block = torch.exp2((exponent - top + 8).float()).clamp(2**-9, 448).to(torch.float8_e4m3fn)
    scale_2 = torch.exp2((top - 8).float())
    block = block.repeat_interleave(2, dim=-1)
    return NVFP4QTensor.quantize(mxfp4_to_bf16(weight, scale), 16, block, scale_2)


def nvfp4_to_bf16(packed):
    tensor, scale, scale_2 = packed
    return tensor.dequantize(scale=scale, double_scale=scale_2, block_sizes={-1: 16})


def main():
    torch.set_num_threads(2)
    fp8, mxfp4 = load(sys.argv[1])
    bf16 = mxfp4_to_bf16(*mxfp4)
    scale_2 = bf16.abs().max().float() / (6 * 448)
    fp8_scale_2 = fp8_to_bf16(*fp8).abs().max().float() / (6 * 448)
    packed = bf16_to_nvfp4(bf16, scale_2)

    fp8_elements, elements = fp8[0].numel(), bf16.numel()
    report("fp8-dequant", fp8_elements, lambda: fp8_to_bf16(*fp8))
    report("mxfp4-unpack", elements, lambda: mxfp4_to_bf16(*mxfp4))
    report("nvfp4-unpack", elements, lambda: nvfp4_to_bf16(packed))
    report("pack-bf16", elements, lambda: bf16_to_nvfp4(bf16, scale_2))
    report("pack-fp8", fp8_elements, lambda: bf16_to_nvfp4(fp8_to_bf16(*fp8), fp8_scale_2))
    report("pack-mxfp4", elements, lambda: bf16_to_nvfp4(mxfp4_to_bf16(*mxfp4), scale_2))
    report("cast-scales", elements, lambda: cast(*mxfp4))


main()
