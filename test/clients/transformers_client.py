"""transformers_client.py CASE...: AutoConfig, AutoTokenizer and GenerationConfig of the folder, and
AutoModelForCausalLM, which must take every weight of an unquantized checkpoint and leave none uninitialized, and
give its tokens the losses that st-eval gives them."""

import pathlib
import subprocess
import tarfile
import tempfile

import numpy
import torch
from checks import each_case, say, version
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers_model import loaded

SOURCE = pathlib.Path("test/data/v4-nano/ckpt")
TOKENS = SOURCE.parent / "golden/eval-ids.safetensors"
SAMPLES = 8
TEXT = "The king said: int main(void) { return 0; } 漢字 🙂"


def losses(model):
    """Of each token but the first of a sample, F64."""
    found = []
    with torch.inference_mode():
        for ids in load_file(TOKENS)["input_ids"].long()[:SAMPLES].split(4):
            logits = model.eval()(ids).logits[:, :-1].float()
            found.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"))
    return torch.cat(found).double()


def losses_by_st_eval(folder):
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["bin/st-eval", "-q", "--tokens", TOKENS, "--samples", str(SAMPLES), "--save", f"{work}/run.ts",
                        folder], check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(f"{work}/run.ts") as run:
            return torch.from_numpy(numpy.frombuffer(run.extractfile("nll").read(), numpy.float32).copy()).double()


def compare_losses(folder, model):
    """The two compute in BF16, but not the same: they may differ by what F32 in its place changes, twice."""
    theirs, ours = losses(model), losses_by_st_eval(folder)
    noise = (theirs - losses(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))).abs().median()
    apart = theirs - ours
    mean, deviation = apart.mean(), apart.std() / len(apart)**.5
    say(mean.abs() <= 3 * deviation and apart.abs().median() <= 2 * noise,
        f"{len(ours)} tokens' mean loss is {theirs.mean():.4f}, by st-eval {ours.mean():.4f} (standard error of the "
        f"difference {deviation:.4f}); the median token's differs by {apart.abs().median():.4f}, and by {noise:.4f} if "
        "transformers computes in F32")


def check(folder, unpacked, draft):
    quantized = (pathlib.Path(folder) / "hf_quant_config.json").exists()
    config = AutoConfig.from_pretrained(folder)
    say((getattr(config, "quantization_config", None) is not None) == quantized, f"AutoConfig: {type(config).__name__}")
    ids = [AutoTokenizer.from_pretrained(d)(TEXT)["input_ids"] for d in (folder, SOURCE)]
    say(ids[0] == ids[1], "AutoTokenizer gives the ids that it gives for the source")
    generation = [GenerationConfig.from_pretrained(d).to_dict() for d in (folder, SOURCE)]
    say(generation[0] == generation[1], "GenerationConfig is the source's")
    model = loaded(folder, torch.bfloat16)
    if model:
        compare_losses(folder, model)


version("transformers")
each_case(check)
