"""arithmetic.py NVFP4 BF16 TOKENS WORK: one expert layer on the hidden states that it really gets, by vLLM's
emulation of its kernels and by st-eval --arithmetic engine: the layer's largest input scales, and the router's
weight after w2. NVFP4 and BF16 are the same checkpoint's folders. The hidden states are transformers'.

vLLM's emulation divides by multiplying with rounded reciprocals, so that some activations get the code beside
Model Optimizer's, which are st-eval's. With Model Optimizer's rounding in vLLM's order of operations, only the
order of sums is left to differ."""

import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
import numpy
import torch
import torch.nn.functional as F
from checks import say, tensors
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import (dequantize_to_dtype,
                                                                                 ref_nvfp4_quant_dequant)

LAYER, BLOCK = 2, 16  # routed by scores; the blocks of NVFP4


def inputs(folder, ids):
    """What the layer's experts get: rows, and each row's experts and their weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    seen = []
    model.model.layers[LAYER].mlp.experts.register_forward_pre_hook(lambda module, args: seen.append(args))
    with torch.inference_mode():
        model(ids)
    x, expert, weight = seen[0]
    return x.bfloat16(), expert, weight.float()


class Experts:
    def __init__(self, folder):
        self.config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        path = f"layers.{LAYER}.ffn.experts."
        self.tensor = {k.removeprefix(path): x for k, x in tensors(folder).items() if k.startswith(path)}
        self.count, self.limit = self.config["n_routed_experts"], float(self.config["swiglu_limit"])

    def weight(self, e, w):
        codes, scale, scale_2 = (self.tensor[f"{e}.{w}.{kind}"] for kind in ("weight", "weight_scale", "weight_scale_2"))
        return dequantize_to_dtype(codes, scale, scale_2, torch.bfloat16, BLOCK, swizzle=False)

    def scale(self, e, *ws):
        return max(self.tensor[f"{e}.{w}.input_scale"].item() for w in ws)

    def hidden(self, e, x):
        gate, up = (F.linear(x, self.weight(e, w)).float() for w in ("w1", "w3"))
        return F.silu(gate.clamp(max=self.limit)) * up.clamp(-self.limit, self.limit)

    def run(self, x, expert, weight, quantize, after=True, largest=True):
        """The layer's output; `quantize` rounds activations under an input scale."""
        y = torch.zeros(x.shape)
        most = [max(self.scale(e, *ws) for e in range(self.count)) for ws in (("w1", "w3"), ("w2",))]
        for e in range(self.count):
            row, k = torch.where(expert == e)
            if not len(row):
                continue
            s1, s2 = most if largest else (self.scale(e, "w1", "w3"), self.scale(e, "w2"))
            share = weight[row, k, None]
            h = self.hidden(e, quantize(x[row], s1))
            h = (h if after else share * h).bfloat16()
            out = F.linear(quantize(h, s2), self.weight(e, "w2")).float()
            y.index_add_(0, row, share * out if after else out)
        return y


def by_vllm(x, scale):
    return ref_nvfp4_quant_dequant(x, 1 / torch.tensor([scale]), BLOCK)


def by_model_optimizer(x, scale):
    codes, scales, scale_2 = NVFP4QTensor.quantize(x, BLOCK, None, torch.tensor(scale), try_tensorrt=False)
    return codes.dequantize(dtype=x.dtype, scale=scales, double_scale=scale_2, block_sizes={-1: BLOCK})


def by_st_eval(experts, x, expert, weight, work):
    names = {"w1": "a", "w3": "b", "w2": "c"}  # see expert-layer.c
    matrices = {f"expert.{e}.{names[w]}.{kind}": t for k, t in experts.tensor.items() for e, w, kind in [k.split(".", 2)]}
    save_file(matrices, work / "experts.safetensors")
    save_file({"x": x.contiguous(), "expert": expert.int().contiguous(), "weight": weight.contiguous()},
              work / "rows.safetensors")
    inner = experts.tensor["0.w1.weight"].shape[0]
    out = subprocess.run(["bin/test/expert-layer", work / "experts.safetensors", work / "rows.safetensors",
                          str(experts.count), str(inner), str(experts.limit)], check=True, capture_output=True).stdout
    return torch.from_numpy(numpy.frombuffer(out, dtype=numpy.float32).copy()).view(x.shape)


def error(a, b):
    return ((a - b).norm() / b.norm()).item()


def main():
    nvfp4, bf16, tokens, work = map(pathlib.Path, sys.argv[1:5])
    ids = load_file(tokens)["input_ids"].long()[:2]
    x, expert, weight = inputs(bf16, ids)
    experts = Experts(nvfp4)
    ours = by_st_eval(experts, x, expert, weight, work)
    plain = experts.run(x, expert, weight, lambda x, scale: x)
    vllm = experts.run(x, expert, weight, by_vllm)
    rounded = experts.run(x, expert, weight, by_model_optimizer)
    model = experts.run(x, expert, weight, by_model_optimizer, after=False, largest=False)
    scale = max(experts.scale(e, "w1", "w3") for e in range(experts.count))
    other = (by_vllm(x, scale) != by_model_optimizer(x, scale)).float().mean().item()
    lost = error(vllm, plain)
    what = f"layer {LAYER}, {len(x)} tokens, relative to the output"
    say(error(ours, rounded) <= 2e-3, f"{what}: st-eval is {error(ours, rounded):.5f} from vLLM's order of operations "
                                      "with Model Optimizer's rounding")
    say(error(ours, vllm) <= lost / 5 and other <= 5e-3,
        f"{what}: st-eval is {error(ours, vllm):.4f} from vLLM's emulation, which rounds {100 * other:.2f} % of the "
        f"activations otherwise; rounding costs {lost:.4f} by vLLM, {error(ours, plain):.4f} by st-eval")
    say(error(ours, model) > lost / 2, f"{what}: the model's own arithmetic is another, {error(ours, model):.4f} away")


torch.set_num_threads(1)
main()
