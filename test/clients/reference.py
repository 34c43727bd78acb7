"""reference.py SCRIPT WORK: altered copies of the test checkpoint through Model Optimizer's quantize_to_nvfp4.py
(SCRIPT) and through v4-experts: every tensor, config and index must be equal.

All routed experts get random codes, every 16th of them -0, and scales that are narrow, wide (out of the cast's
window), at both ends of E8M0, zero, or of blocks that are all zero; some experts have no input amax, some no weight
amax, some one that is too small. Another copy also has a matrix all of whose scale bytes are zero."""

import json
import pathlib
import random
import re
import shutil
import subprocess
import sys

import torch
from checks import same, say, tell, tensors
from safetensors.torch import load_file, save_file

SOURCE = pathlib.Path("test/data/v4-nano/ckpt")
DUMP = "amax_dict_rank0-mp1.pt"
E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])
KINDS = ("narrow", "edge", "wide", "zeros", "low", "high", "blank")


def alter_matrix(kind, rows, blocks, pick):
    """Codes and E8M0 bytes; pick(low, high, shape) draws integers."""
    codes = pick(0, 256, (rows, blocks * 16)).to(torch.uint8)
    base = int(pick(110, 126, (1,)))
    shape = (rows, blocks)
    scale = {"narrow": lambda: base + pick(-3, 4, shape), "edge": lambda: base - pick(0, 20, shape),
             "wide": lambda: base - pick(0, 60, shape), "low": lambda: pick(0, 14, shape),
             "zeros": lambda: torch.where(pick(0, 8, shape) == 0, 0, base + pick(-3, 4, shape)),
             "high": lambda: pick(225, 252, shape), "blank": lambda: base + pick(-9, 1, shape)}[kind]()
    if kind == "blank":
        for code in (0, 0x88):
            codes.view(rows, blocks, 16)[pick(0, 4, shape) == 0] = code
    return codes, scale.clamp(0, 252).to(torch.uint8)


def largest(codes, scale):
    rows, blocks = scale.shape
    values = torch.stack([E2M1[(codes & 7).long()], E2M1[(codes >> 4 & 7).long()]], -1).view(rows, blocks, 32)
    return (values.double() * torch.exp2(scale.double() - 127)[..., None]).max().item()


def alter(out, seed, zero):
    """OUT/ckpt, another checkpoint, and OUT/amax, a calibration of it."""
    generator = torch.Generator().manual_seed(seed)
    random.seed(seed)
    pick = lambda low, high, shape: torch.randint(low, high, shape, generator=generator)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(SOURCE, out / "ckpt", ignore=shutil.ignore_patterns("*.safetensors"))
    amax = torch.load(SOURCE.parent / "golden/amax" / DUMP, weights_only=True)
    kinds = {}
    for path in sorted(SOURCE.glob("*.safetensors")):
        t = load_file(path)
        for name in sorted(n for n in t if re.match(r"layers\.\d+\.ffn\.experts\.\d+\.w[123]\.weight$", n)):
            module = name.removesuffix(".weight")
            scale = t[module + ".scale"]
            kind = kinds.setdefault(module.rsplit(".", 1)[0], random.choice(KINDS))
            codes, exponents = alter_matrix(kind, *scale.shape, pick)
            if zero and module == "layers.1.ffn.experts.5.w2":
                exponents = torch.zeros_like(exponents)
            t[name], t[module + ".scale"] = codes.view(t[name].dtype), exponents.view(scale.dtype)
            key = module + "_weight_quantizer._amax"
            amax[key] = torch.tensor(max(largest(codes, exponents), 1e-38) * random.choice([1, 1, 1, .5, 1.37]),
                                     dtype=torch.bfloat16)
            if random.random() < .1:
                del amax[key]
        save_file(t, out / "ckpt" / path.name, metadata={"format": "pt"})
    for key in [k for k in amax if "_input_" in k]:
        amax[key] = (amax[key].float() * random.uniform(.1, 9)).to(torch.bfloat16)
    for layer in range(4):
        for expert in random.sample(range(16), 3):
            for w in ("w1", "w2", "w3"):
                amax.pop(f"layers.{layer}.ffn.experts.{expert}.{w}_input_quantizer._amax", None)
    (out / "amax").mkdir()
    torch.save(amax, out / "amax" / DUMP)


def made(what, command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        say(False, f"{what} failed: {done.stderr.strip()[-200:]}")
    return not done.returncode


def compare(what, theirs, ours):
    x, y = tensors(theirs), tensors(ours)
    differ = [name for name in x.keys() | y.keys() if name not in x or name not in y or not same(x[name], y[name])]
    say(not differ, f"{what}: {len(x)} tensors" + (f", of which {len(differ)} differ, first {min(differ)}" if differ else ""))
    for name in ("config.json", "hf_quant_config.json", "model.safetensors.index.json"):
        a, b = (json.loads((folder / name).read_text()) for folder in (theirs, ours))
        a.get("metadata", {}).pop("total_size", None)  # the reference leaves the source's
        b.get("metadata", {}).pop("total_size", None)
        say(a == b, f"{what}: {name}")


def main():
    script, work = sys.argv[1], pathlib.Path(sys.argv[2])
    git = ["git", "-C", pathlib.Path(script).parent, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    tell(versions={"NVIDIA/Model-Optimizer": commit or "not a Git checkout"})
    for seed, zero in ((1, False), (2, False), (3, True)):
        alter(work / "altered", seed, zero)
        common = ["--amax", work / "altered/amax", "--fallback", "projection-max", "-q", "--overwrite"]
        for kind, theirs, ours in (("cast", ["--cast_mxfp4_to_nvfp4"], ["--zero", "positive"]), ("requantized", [], ["--lossy"])):
            what = f"altered checkpoint {seed}{', with an all-zero matrix' if zero else ''}, {kind}"
            shutil.rmtree(work / "theirs", ignore_errors=True)
            if made(f"{what}: quantize_to_nvfp4.py",
                    [sys.executable, script, "--amax_path", work / "altered/amax", "--source_ckpt", work / "altered/ckpt",
                     "--output_ckpt", work / "theirs", *theirs]) and \
               made(f"{what}: v4-experts", ["pipelines/v4-experts", *common, *ours, work / "altered/ckpt", work / "ours"]):
                compare(what, work / "theirs", work / "ours")


torch.set_num_threads(1)
main()
