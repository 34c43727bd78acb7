"""v3.py: the checkpoints of V3's family for check.py: what the pipelines make of the fixtures v3-nano and v32-nano,
and copies with one fault each."""

import json
import pathlib

import torch
from faults import Copy, not_a_number

FIXTURES = pathlib.Path("../shared/fixtures")
PLAIN = {"default": (), "experts": ("--experts-only",), "mla nvfp4": ("--mla", "nvfp4"), "mla fp8": ("--mla", "fp8")}
DUMPS = {"mla nvfp4": "amax-mla-nvfp4-deq", "mla fp8": "amax-mla-fp8-deq"}


def shared_recipe(work):
    """The recipe mla-nvfp4, whose fused matrices share their scales."""
    recipe = json.loads(pathlib.Path("pipelines/recipes/deepseek_v3/mla-nvfp4.json").read_text())
    recipe["name"] = "mla-nvfp4-shared"
    del recipe["separate_scales"]
    path = work / "mla-nvfp4-shared.json"
    path.write_text(json.dumps(recipe))
    return path


def made(work):
    """{name: (the command that makes it, the folder)}; empty without the fixtures."""
    commands = {}
    for model in ("v3", "v32"):
        source = FIXTURES / f"{model}-nano"
        if not source.is_dir():
            continue
        for name, options in PLAIN.items():
            dump = source / "golden" / DUMPS.get(name, "amax-deq")
            commands[f"{model}, {name}"] = ["v3-nvfp4", *options, "--amax", dump, source / "ckpt"]
        commands[f"{model}, bf16"] = ["v3-bf16", source / "ckpt"]
    if commands:
        source = FIXTURES / "v3-nano"
        commands["v3, mla nvfp4, shared scales"] = ["v3-nvfp4", "--recipe", shared_recipe(work), "--amax",
                                                    source / "golden/amax-mla-nvfp4-deq", source / "ckpt"]
    return {name: (command, work / name.replace(", ", "-").replace(" ", "-")) for name, command in commands.items()}


EXPERT = "model.layers.2.mlp.experts.3."
SHARED = "model.layers.2.mlp.shared_experts."
WO = "model.layers.2.self_attn.o_proj."


def tensor(name, change):
    return lambda c: c.edit(lambda t: t.update({name: change(t[name])}), name)


def without(name):
    return lambda c: c.edit(lambda t: [t.pop(k) for k in list(t) if k.startswith(name)], name)


def ignore(change):
    def edit(c):
        for name, keys in (("config.json", ("quantization_config", "ignore")),
                           ("hf_quant_config.json", ("quantization", "exclude_modules"))):
            path = c.folder / name
            config = json.loads(path.read_text())
            change(config[keys[0]][keys[1]])
            path.write_text(json.dumps(config, indent=2))
    return edit


FAULTS = {  # of "v3, default"
    "v3, an expert's gate and up with other second-level scales": tensor(EXPERT + "up_proj.weight_scale_2", lambda x: x * 4),
    "v3, shared experts' gate and up with other second-level scales": tensor(SHARED + "up_proj.weight_scale_2", lambda x: x * 4),
    "v3, an expert's gate and up with other input scales": tensor(EXPERT + "up_proj.input_scale", lambda x: x * 4),
    "v3, no expert": without(EXPERT),
    "v3, no second-level scale of o_proj": without(WO + "weight_scale_2"),
    "v3, no block scales of o_proj": lambda c: c.edit(lambda t: t.pop(WO + "weight_scale"), WO + "weight_scale"),
    "v3, a block scale of o_proj that is NaN": tensor(WO + "weight_scale", not_a_number),
    "v3, block scales as U8": tensor(EXPERT + "gate_proj.weight_scale", lambda x: x.view(torch.uint8)),
    "v3, ignore without lm_head": ignore(lambda entries: entries.remove("lm_head")),
    "v3, ignore without the drafts": ignore(lambda entries: entries.remove("model.layers.3*")),
    "v3, ignore with experts": ignore(lambda entries: entries.append("model.layers.2.mlp.experts*")),
    "v3, ignore with a part of a name": ignore(lambda entries: entries.append("model.layers.2.mlp.exp")),
    "v3, an unknown quant_algo": lambda c: c.config(lambda q: q.update(quant_algo="NVFP5")),
}


def plant(work, good):
    """{fault: (folder, unpacked)}"""
    planted = {}
    for i, (name, fault) in enumerate(FAULTS.items()):
        planted[name] = work / f"v3-fault-{i}", good[1]
        fault(Copy(good[0], planted[name][0]))
    return planted
