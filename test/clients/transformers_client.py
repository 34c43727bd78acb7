"""transformers_client.py CASE...: AutoConfig, AutoTokenizer and GenerationConfig of the folder, and
AutoModelForCausalLM, which must take every weight of an unquantized checkpoint and leave none uninitialized."""

import pathlib

import torch
from checks import each_case, say, verdict, version
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

SOURCE = pathlib.Path("test/data/v4-nano/ckpt")
TEXT = "The king said: int main(void) { return 0; } 漢字 🙂"


def check(folder, unpacked, draft):
    quantized = (pathlib.Path(folder) / "hf_quant_config.json").exists()
    config = AutoConfig.from_pretrained(folder)
    say((getattr(config, "quantization_config", None) is not None) == quantized, f"AutoConfig: {type(config).__name__}")
    ids = [AutoTokenizer.from_pretrained(d)(TEXT)["input_ids"] for d in (folder, SOURCE)]
    say(ids[0] == ids[1], "AutoTokenizer gives the ids that it gives for the source")
    generation = [GenerationConfig.from_pretrained(d).to_dict() for d in (folder, SOURCE)]
    say(generation[0] == generation[1], "GenerationConfig is the source's")
    try:
        _, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    wrong = [name for key in ("missing_keys", "mismatched_keys", "error_msgs") for name in told.get(key) or ()]
    if wrong:
        verdict("loads silently wrong", f"{len(wrong)} weights are not the checkpoint's: {wrong[0]}")
    else:
        verdict("loads", "no weight is missing, and none of another shape")


torch.set_num_threads(1)
version("transformers")
each_case(check)
