"""faults.py: copies of an NVFP4 checkpoint, each with one fault, and otherwise of the same values. Engines notice some
of the faults; st-verify must say of each what they do."""

import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

EXPERT = "layers.2.ffn.experts.3."


class Copy:
    def __init__(self, folder, out):
        self.folder = pathlib.Path(out)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(folder, self.folder)
        self.index = json.loads((self.folder / "model.safetensors.index.json").read_text())

    def edit(self, change, of=EXPERT):
        """change(tensors of a shard), for each that has tensors whose names begin with `of`"""
        for shard in {v for k, v in self.index["weight_map"].items() if k.startswith(of)}:
            t = {k: x.clone() for k, x in load_file(self.folder / shard).items()}
            change(t)
            save_file(t, self.folder / shard, metadata={"format": "pt"})
            kept = {k: v for k, v in self.index["weight_map"].items() if v != shard}
            self.index["weight_map"] = kept | dict.fromkeys(t, shard)
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(self.index))

    def config(self, change):
        path = self.folder / "config.json"
        config = json.loads(path.read_text())
        change(config["quantization_config"])
        path.write_text(json.dumps(config, indent=2))


def without(*ends):
    return lambda c: c.edit(lambda t: [t.pop(k) for k in list(t) if k.startswith(EXPERT) and k.endswith(ends)])


def with_tensor(name, make):
    return lambda c: c.edit(lambda t: t.update({EXPERT + name: make(t[EXPERT + name])}))


def not_a_number(scale):
    codes = scale.view(torch.uint8)
    codes.view(-1)[0] = 0x7F
    return codes.view(scale.dtype)


def mxfp4_scale(t):
    rows, blocks = t.pop(EXPERT + "w1.weight_scale").shape
    t[EXPERT + "w1.scale"] = torch.full((rows, blocks // 2), 122, dtype=torch.uint8).view(torch.float8_e8m0fnu)


def other_scale_2(t):
    """The same values, from other scales than those of w1."""
    t[EXPERT + "w3.weight_scale_2"] *= 4
    blocks = t[EXPERT + "w3.weight_scale"]
    quarter = (blocks.float() / 4).to(blocks.dtype)
    assert torch.equal(quarter.float() * 4, blocks.float())
    t[EXPERT + "w3.weight_scale"] = quarter


FAULTS = {
    "no input scale": without("w1.input_scale"),
    "no expert": without(""),
    "w1 and w3 with other second-level scales": lambda c: c.edit(other_scale_2),
    "w1 and w3 with other input scales": with_tensor("w1.input_scale", lambda x: x * 2),
    "scales of shape [1]": lambda c: c.edit(lambda t: t.update(
        {name: x.reshape(1) for name, x in t.items() if name.startswith(EXPERT) and not x.dim()})),
    "block scales as U8": with_tensor("w1.weight_scale", lambda x: x.view(torch.uint8)),
    "an E8M0 scale in place of E4M3": lambda c: c.edit(mxfp4_scale),
    "a block scale that is NaN": with_tensor("w1.weight_scale", not_a_number),
    "no hf_quant_config.json": lambda c: (c.folder / "hf_quant_config.json").unlink(),
    "no moe_quant_algo": lambda c: c.config(lambda q: q.pop("moe_quant_algo")),
    "no group_size": lambda c: c.config(lambda q: q.pop("group_size")),
    "no quant_algo": lambda c: c.config(lambda q: q.pop("quant_algo")),
    "quant_method modelopt": lambda c: c.config(lambda q: q.update(quant_method="modelopt")),
    "experts in ignored_layers": lambda c: c.config(lambda q: q.update(ignored_layers=["model.layers.2.ffn.experts"])),
}
