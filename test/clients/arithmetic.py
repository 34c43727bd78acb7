"""arithmetic.py NVFP4 BF16 TOKENS WORK: one expert layer on the hidden states that it really gets, by vLLM's
emulation of its kernels and by st-eval --arithmetic engine: the layer's largest input scales, and the router's
weight after w2. NVFP4 and BF16 are the same checkpoint's folders. The hidden states are transformers'.

The two differ in two things. Activations: st-eval divides by a block's scale, as Model Optimizer does, and rounds
ties to even. vLLM's emulation multiplies by F32 reciprocals (its kernels by approximate ones): of the quotients that
lie halfway between two codes, some land on one side, some on the other. Weights of the router: the emulation
multiplies w2's F32 sums by them and rounds once to BF16, st-eval rounds before, too. Nothing else may differ."""

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
HALFWAY = torch.tensor([.25, .75, 1.25, 1.75, 2.5, 3.5, 5], dtype=torch.double)  # between two codes of E2M1
ROUNDING = 2**-8  # of BF16


def inputs(folder, ids):
    """What the layer's experts get: rows, and each row's experts and their weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    seen = []
    model.model.layers[LAYER].mlp.experts.register_forward_pre_hook(lambda module, args: seen.append(args))
    with torch.inference_mode():
        model(ids)
    x, expert, weight = seen[0]
    return x.bfloat16(), expert, weight.float()


def by_vllm(x, scale):
    return ref_nvfp4_quant_dequant(x, 1 / torch.tensor([scale]), BLOCK)


def by_model_optimizer(x, scale):
    codes, scales, scale_2 = NVFP4QTensor.quantize(x, BLOCK, None, torch.tensor(scale), try_tensorrt=False)
    return codes.dequantize(dtype=x.dtype, scale=scales, double_scale=scale_2, block_sizes={-1: BLOCK})


def near(x, y):
    """Equal, but for the four roundings to F32 that vLLM's quotients go through."""
    return (x - y).abs() <= 4 * 2**-24 * y


def ties(x, scale):
    """Which activations lie halfway between two codes, or in a block whose scale does."""
    blocks, scale = x.double().view(len(x), -1, BLOCK).abs(), torch.tensor(scale).double()
    quotient = blocks.amax(-1) / 6 / scale
    codes = quotient / torch.exp2(quotient.clamp(min=2**-6).log2().floor() - 3)  # one apart, and whole: E4M3's
    of_scale = near(codes, codes.floor() + .5)
    unit = NVFP4QTensor.quantize(x, BLOCK, None, scale.float(), try_tensorrt=False)[1].double().view(of_scale.shape)
    of_code = near((blocks / (unit * scale)[..., None])[..., None], HALFWAY).any(-1)
    return (of_code | of_scale[..., None]).view(x.shape)


class Rounding:
    """A way to round activations, which counts how often vLLM's does otherwise."""

    def __init__(self, how):
        self.how, self.all, self.ties, self.other, self.no_ties = how, 0, 0, 0, 0

    def __call__(self, x, scale):
        """Also says in which rows vLLM's emulation rounds otherwise."""
        tie, other = ties(x, scale), by_vllm(x, scale) != by_model_optimizer(x, scale)
        self.all += x.numel()
        self.ties += tie.sum().item()
        self.other += other.sum().item()
        self.no_ties += (other & ~tie).sum().item()
        return self.how(x, scale), other.any(1)


def product(x, w):
    """Sums in F64: the order of F32's does not matter."""
    return F.linear(x.double(), w.double()).float()


def round_once(y, weight):
    return (weight * y).bfloat16().float()


def round_twice(y, weight):
    return (weight * y.bfloat16().float()).bfloat16().float()


class Experts:
    def __init__(self, folder):
        self.config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        path = f"layers.{LAYER}.ffn.experts."
        self.tensor = {k.removeprefix(path): x for k, x in tensors(folder).items() if k.startswith(path)}
        self.count, self.limit = self.config["n_routed_experts"], float(self.config["swiglu_limit"])

    def weight(self, e, w):
        codes, scale, scale_2 = (self.tensor[f"{e}.{w}.{kind}"] for kind in ("weight", "weight_scale", "weight_scale_2"))
        return dequantize_to_dtype(codes, scale, scale_2, torch.bfloat16, BLOCK, swizzle=False)

    def scale(self, *ws):
        return max(self.tensor[f"{e}.{w}.input_scale"].item() for e in range(self.count) for w in ws)

    def hidden(self, e, x):
        gate, up = (product(x, self.weight(e, w)).bfloat16().float() for w in ("w1", "w3"))
        return F.silu(gate.clamp(max=self.limit)) * up.clamp(-self.limit, self.limit)

    def run(self, x, expert, weight, quantize, weigh=round_once):
        """The layer's output in vLLM's order of operations, and the rows in which `quantize` differs from vLLM's."""
        y, other = torch.zeros(x.shape), torch.zeros(len(x), dtype=torch.bool)
        for e in range(self.count):
            row, k = torch.where(expert == e)
            if len(row):
                a, other_a = quantize(x[row], self.scale("w1", "w3"))
                h, other_h = quantize(self.hidden(e, a).bfloat16(), self.scale("w2"))
                y.index_add_(0, row, weigh(product(h, self.weight(e, "w2")), weight[row, k, None]))
                other[row] |= other_a | other_h
        return y, other

    def run_as_model(self, x, expert, weight):
        """The output by the model's own arithmetic: each expert's scales, and the router's weight before w2."""
        y = torch.zeros(x.shape)
        for e in range(self.count):
            row, k = torch.where(expert == e)
            if len(row):
                s1, s2 = (max(self.tensor[f"{e}.{w}.input_scale"].item() for w in ws) for ws in (("w1", "w3"), ("w2",)))
                h = weight[row, k, None] * self.hidden(e, by_model_optimizer(x[row], s1))
                y.index_add_(0, row, product(by_model_optimizer(h.bfloat16(), s2), self.weight(e, "w2")))
        return y


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
    x, expert, weight = inputs(bf16, load_file(tokens)["input_ids"].long()[:2])
    experts, rounding = Experts(nvfp4), Rounding(by_vllm)
    ours = by_st_eval(experts, x, expert, weight, work)
    twin, _ = experts.run(x, expert, weight, Rounding(by_model_optimizer), round_twice)
    vllm, other = experts.run(x, expert, weight, rounding)
    plain, _ = experts.run(x, expert, weight, lambda x, scale: (x, torch.zeros(len(x), dtype=torch.bool)))
    apart = (ours - vllm).norm(dim=1) / vllm.norm(dim=1)
    what = f"layer {LAYER}, {len(x)} tokens: "
    say(torch.equal(ours, twin), f"{what}st-eval's output is bit for bit that of vLLM's order of operations, with "
        "Model Optimizer's rounding of activations, and w2's output rounded to BF16 before the router's weight, too"
        + ("" if torch.equal(ours, twin) else f": {(ours != twin).sum().item()} values differ"))
    say(rounding.no_ties == 0, f"{what}of {rounding.all} activations, vLLM's emulation rounds {rounding.other} otherwise, "
        f"of which {rounding.no_ties} are not among the {rounding.ties} that lie halfway between two codes")
    say(apart[~other].max().item() <= ROUNDING, f"{what}st-eval's output is at most {apart[~other].max().item():.4f} (relative) "
        f"from vLLM's emulation in the {(~other).sum().item()} tokens that have none of these; on average "
        f"{apart[other].mean().item():.3f} in the others")
    lost = error(vllm, plain)
    say(error(ours, vllm) <= lost / 5, f"{what}all together, st-eval is {error(ours, vllm):.4f} from vLLM's emulation; "
        f"quantized activations cost {lost:.4f} by vLLM, {error(ours, plain):.4f} by st-eval")
    away = error(ours, experts.run_as_model(x, expert, weight))
    say(away > lost / 2, f"{what}the model's own arithmetic is another, {away:.4f} away")


torch.set_num_threads(1)
main()
