"""v3_checks.py: what the checks of V3's family share: which of a checkpoint's tensors an engine's parameter is made
of, by a mapping of our own."""

import json
import pathlib

import torch
from checks import Lacks, raw, tensors

FUSED = {  # an engine's module: the checkpoint's
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "wk_weights_proj": ("wk", "weights_proj"),
}


class Checkpoint:
    def __init__(self, folder, draft):
        self.tensor = tensors(folder)
        self.config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        self.mtp = f"model.layers.{self.config['num_hidden_layers']}."
        self.draft, self.used = draft, set()

    def take(self, name):
        if name not in self.tensor:
            raise Lacks(f"the checkpoint has no {name}")
        self.used.add(name)
        return self.tensor[name]

    def experts(self, path, which, kind):
        """All experts' tensors stacked: w13 (gate, then up) or w2."""
        def stack(matrix):
            parts = [self.take(f"{path}.{e}.{matrix}.{kind}") for e in range(self.config["n_routed_experts"])]
            if len({x.dtype for x in parts}) > 1:
                raise Lacks(f"the checkpoint has several dtypes of {path}.*.{matrix}.{kind}")
            return torch.stack(parts)

        if which == "w2":
            return stack("down_proj")
        gate, up = stack("gate_proj"), stack("up_proj")
        return torch.stack([gate, up], 1) if gate.dim() == 1 else torch.cat([gate, up], 1)

    def parameter(self, name):
        """The bytes that an engine's parameter is to hold; its name is the checkpoint's but for what is fused."""
        path, experts, rest = name.partition(".experts.w")
        if experts:
            which, _, kind = ("w" + rest).partition("_")
            return raw(self.experts(path + ".experts", which, kind))
        module, _, kind = name.rpartition(".")
        parent, _, last = module.rpartition(".")
        parts = FUSED.get(last, (last,))
        return torch.cat([raw(self.take(".".join(filter(None, (parent, part, kind))))) for part in parts])

    def left(self):
        """Tensors of this part of the model, trunk or draft, that no parameter took. A draft has copies of the
        trunk's embeddings and head, which engines do not read."""
        copies = (self.mtp + "embed_tokens.weight", self.mtp + "shared_head.head.weight")
        return [n for n in self.tensor
                if n not in self.used and n.startswith(self.mtp) == self.draft and n not in copies]


def holder(checkpoint, renamed):
    """For differing(): does a parameter hold the checkpoint's bytes? renamed(name) is the checkpoint's name for it."""
    return lambda name, p: torch.equal(raw(p.data), checkpoint.parameter(renamed(name)))
