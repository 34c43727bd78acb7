"""transformers_v3.py CASE...: AutoConfig of the folder, and AutoModelForCausalLM, which must take every weight of an
unquantized checkpoint; and, in F32, must predict the fixture's tokens as well as st-eval says."""

import json
import pathlib
import subprocess

import torch
from checks import each_case, say, version
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers_model import loaded
from v3 import FIXTURES


def loss(model, ids):
    """Mean negative log-likelihood of all predicted tokens."""
    with torch.no_grad():
        logits = torch.cat([model(row[None]).logits[:, :-1].double() for row in ids])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()


def st_eval(folder, tokens):
    command = ["bin/st-eval", "-q", "--arithmetic", "model", "--json", "--tokens", tokens, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)["mean_nll"]


def check(folder, unpacked, draft):
    config = AutoConfig.from_pretrained(folder)
    say(config.model_type in type(config).model_type, f"AutoConfig: {type(config).__name__}")
    model = loaded(folder, torch.float32)
    if not model:
        return
    tokens = FIXTURES / pathlib.Path(folder).name.partition("-")[0].join(("", "-nano/golden/eval-ids.safetensors"))
    theirs = loss(model, load_file(tokens)["input_ids"].long())
    ours = st_eval(folder, tokens)
    say(abs(theirs - ours) <= 0.005, f"{type(model).__name__} in F32: mean loss {theirs:.4f}; st-eval's: {ours:.4f}")


version("transformers")
each_case(check)
