"""sglang_v3.py CASE...: SGLang's own loader loads a checkpoint of V3's family into SGLang's own model (or its NextN
draft), whose parameters were all poisoned before. Each must then hold the checkpoint's bytes; and what SGLang
dequantizes under the scales that it merges must be what nvfp4-unpack gives.

Replaced besides what sglang_model.py replaces: rotary tables, and more questions for a GPU's kind."""

import torch
from checks import differing, each_case, judge, tensors, verdict, version
from sglang_model import build, load
from v3_checks import FUSED as THEIRS
from v3_checks import Checkpoint, holder

torch.cuda.get_device_capability = lambda *a: (10, 0)

import sglang.srt.layers.attention.dsa.dsa_indexer as dsa_indexer
import sglang.srt.models.deepseek_v2 as deepseek_v2
from sglang.srt.layers.quantization.dequantization import dequantize_nvfp4

deepseek_v2.get_rope_wrapper = dsa_indexer.get_rope_wrapper = lambda *a, **k: torch.nn.Identity()
dsa_indexer._is_cuda, dsa_indexer.resolve_num_sms = True, lambda *a, **k: 1  # its wk and weights_proj are fused there
FUSED = THEIRS | {"fused_qkv_a_proj_with_mqa": THEIRS["fused_qkv_a_proj"]}


class OneScale(Checkpoint):
    """A fused product that has one scale for all its parts holds the first one's."""

    def parameter(self, name):
        held = super().parameter(name)
        return held[:4] if "fused_qkv_a_proj" in name and name.endswith(("scale", "scale_2")) and len(held) == 8 else held


def renamer(checkpoint):
    def renamed(name):
        name = name.replace("fused_qkv_a_proj_with_mqa", "fused_qkv_a_proj")
        if not checkpoint.draft:
            return name
        return checkpoint.mtp + name.removeprefix("model.").removeprefix("decoder.")
    return renamed


def skipped(draft):
    """Scales of the KV cache, what is derived later; and the trunk's embeddings and head, which a draft shares."""
    return lambda name: name.endswith(("k_scale", "v_scale", "swizzled")) or (
        draft and ("embed_tokens" in name or "lm_head" in name))


def wrong_linear(name, module, unpacked):
    """Under the scale that process_weights_after_loading() makes of its parts'."""
    parent, _, last = name.rpartition(".")
    want = torch.cat([unpacked[f"{parent}.{part}.weight"] for part in FUSED.get(last, (last,))])
    if module.weight.dtype == torch.uint8:
        made = dequantize_nvfp4(module.weight, module.weight_scale, module.weight_scale_2.max(), torch.bfloat16)
        return not torch.equal(made, want)
    made = module.weight.float() * module.weight_scale.max()  # FP8
    return not torch.equal(made.bfloat16(), want)


def wrong_experts(name, module, unpacked, up_first):
    """Under gate's second-level scale for up."""
    scale_2, wrong = module.w13_weight_scale_2[:, 0], False
    for e in range(module.w2_weight.shape[0]):
        parts = ("up_proj", "gate_proj") if up_first else ("gate_proj", "up_proj")
        up = torch.cat([unpacked[f"{name}.{e}.{part}.weight"] for part in parts])
        made = dequantize_nvfp4(module.w13_weight[e], module.w13_weight_scale[e], scale_2[e], torch.bfloat16)
        down = dequantize_nvfp4(module.w2_weight[e], module.w2_weight_scale[e], module.w2_weight_scale_2[e], torch.bfloat16)
        wrong |= not (torch.equal(made, up) and torch.equal(down, unpacked[f"{name}.{e}.down_proj.weight"]))
    return wrong


def wrong_values(model, renamed, shared, unpacked):
    """The number of quantized modules, and those that SGLang dequantizes to other values than UNPACKED has."""
    count, wrong = 0, []
    for name, module in model.named_modules():
        kind = type(getattr(module, "quant_method", None)).__name__
        if shared(name):
            continue
        if kind == "ModelOptNvFp4FusedMoEMethod":
            differs = wrong_experts(renamed(name), module, unpacked, module.quant_method.load_up_proj_weight_first)
        elif kind in ("ModelOptFp4LinearMethod", "ModelOptFp8LinearMethod"):
            differs = wrong_linear(renamed(name), module, unpacked)
        else:
            continue
        count += 1
        wrong += [f"{name}, dequantized"] * differs
    return count, wrong


def check(folder, unpacked, draft):
    try:
        mc, lc, model = build(folder, draft)
        load(mc, lc, model)
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    checkpoint = OneScale(folder, draft)
    renamed = renamer(checkpoint)
    wrong = differing(model, skipped(draft), holder(checkpoint, renamed))
    count, values = wrong_values(model, renamed, skipped(draft), tensors(unpacked))
    judge(len(list(model.parameters())), wrong or values, checkpoint.left(), f"of {type(model).__name__} holds the "
          f"checkpoint's bytes; {count} modules are quantized" + (", and dequantize to its values" if count else ""))


version("sglang")
each_case(check)
