"""transformers_model.py: what the checks of transformers share: the model that AutoModelForCausalLM makes."""

import torch
from checks import verdict
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)


def loaded(folder, dtype):
    """The model of a folder, and the verdict: it must take every weight of an unquantized checkpoint and leave none
    uninitialized. None if it does not."""
    try:
        model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    wrong = [name for key in ("missing_keys", "mismatched_keys", "error_msgs") for name in told.get(key) or ()]
    if wrong:
        return verdict("loads silently wrong", f"{len(wrong)} weights are not the checkpoint's: {wrong[0]}")
    verdict("loads", "no weight is missing, and none of another shape")
    return model
