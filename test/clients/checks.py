"""checks.py: what the checks of all clients share. Each runs in a process of its own and prints lines that
check.py reads among the client's messages."""

import json
import os
import pathlib
import re
import sys
import traceback

import torch
from safetensors.torch import load_file

MARK = "CHECK "


def tell(**message):
    """A line of its own, whatever a client's progress bar has left."""
    print("\n" + MARK + json.dumps(message), flush=True)


def say(ok, what):
    """A check that passed or failed."""
    tell(ok=bool(ok), what=what)


def version(*names):
    """The client's releases, for the report."""
    from importlib.metadata import version as of
    tell(versions={name: of(name) for name in names})


def verdict(name, why=""):
    """What the client makes of a checkpoint, in st-verify's words: loads, refuses, loads silently wrong."""
    tell(verdict=name, why=why)


def each_case(check):
    """For each case on the command line, NAME=FOLDER,UNPACKED or NAME=FOLDER,UNPACKED,draft, run
    check(FOLDER, UNPACKED, draft?) in a process of its own: clients keep things for the whole process, and take
    long to import. UNPACKED is the same checkpoint in BF16."""
    for case in sys.argv[1:]:
        name, _, places = case.partition("=")
        folder, unpacked, *draft = places.split(",")
        tell(case=name)
        child = os.fork()
        if not child:
            status = 1
            try:
                check(folder, unpacked, bool(draft))
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        if os.waitpid(child, 0)[1]:
            say(False, f"{name}: the check itself failed")


def tensors(folder):
    """All tensors of a checkpoint's folder, by name."""
    return {name: x for path in sorted(pathlib.Path(folder).glob("*.safetensors")) for name, x in load_file(path).items()}


def raw(x):
    """A tensor's bytes."""
    return x.contiguous().reshape(-1).view(torch.uint8)


def same(x, y):
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(raw(x), raw(y))


class Nothing:
    """A CUDA stream, an event, or a kernel that does nothing."""

    def __init__(self, *a, **k): pass
    def __getattr__(self, name): return lambda *a, **k: None


def poison(model):
    """Fill all parameters with a value that no checkpoint has."""
    for p in model.parameters():
        p.data.view(-1).view(torch.uint8).fill_(0xFF)


class Lacks(Exception):
    """What a parameter needs and the checkpoint does not have."""


class Checkpoint:
    """The tensors that an engine's parameter is made of, by a mapping of our own."""

    def __init__(self, folder, draft, experts, mxfp4):
        self.tensor = tensors(folder)
        self.draft, self.experts, self.mxfp4 = draft, experts, mxfp4
        self.used = set()

    def take(self, name):
        if self.mxfp4 and name not in self.tensor:
            name = name.replace("weight_scale_inv", "scale").replace("weight_scale", "scale")
        if name not in self.tensor:
            raise Lacks(f"the checkpoint has no {name}")
        self.used.add(name)
        return self.tensor[name]

    def expert_parameter(self, name):
        """layers.N.ffn.experts.w13_KIND or w2_KIND: all experts' tensors stacked; None for other names."""
        found = re.match(r"(.*\.ffn\.experts)\.(w13|w2)_(.*)", name)
        if not found:
            return None
        path, which, kind = found.groups()

        def stack(w):
            parts = [self.take(f"{path}.{e}.{w}.{kind}") for e in range(self.experts)]
            if len({x.dtype for x in parts}) > 1:
                raise Lacks(f"the checkpoint has several dtypes of {path}.*.{w}.{kind}")
            return torch.stack([x.reshape(()) if x.numel() == 1 else x for x in parts])

        if which == "w2":
            return stack("w2")
        gate, up = stack("w1"), stack("w3")
        return torch.stack([gate, up], 1) if gate.dim() == 1 else torch.cat([gate, up], 1)

    def fused_parameter(self, name, fused):
        """One that holds several tensors, one after the other; None for other names."""
        for whole, parts in fused.items():
            if whole in name:
                return torch.cat([raw(self.take(name.replace(whole, part))) for part in parts])
        return None

    def left(self):
        """Tensors of this part of the model, trunk or draft, that no parameter took."""
        return [n for n in self.tensor if n not in self.used and n.startswith("mtp.") == self.draft]


def differing(model, skipped, holds):
    """Parameters of a model, by name, for which holds(name, parameter) is not true, or for which the checkpoint lacks
    something; skipped(name): it holds none of the checkpoint's."""
    wrong = []
    for name, p in model.named_parameters():
        if skipped(name):
            continue
        try:
            if not holds(name, p):
                wrong.append(name)
        except Lacks as why:
            wrong.append(f"{name}: {why}")
    return wrong


def judge(count, wrong, unused, right):
    """The verdict about a model of `count` parameters: which are wrong, what of the checkpoint is not used; RIGHT, if
    nothing is."""
    if wrong:
        verdict("loads silently wrong", f"{len(wrong)} of {count} parameters: {wrong[0]}")
    elif unused:
        verdict("loads silently wrong", f"{len(unused)} tensors are not used: {unused[0]}")
    else:
        verdict("loads", f"each of {count} parameters {right}")


FUSED = {"shared_experts.gate_up_proj": ("shared_experts.w1", "shared_experts.w3")}
