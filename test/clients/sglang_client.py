"""sglang_client.py CASE...: SGLang's own loader loads the checkpoint into SGLang's own model (or
its NextN draft), whose parameters were all poisoned before. Each must then hold the checkpoint's values, and
SGLang's dequantization of the experts must give those of nvfp4-unpack.

Replaced besides what sglang_model.py replaces: rotary tables."""

import re

import torch
from checks import FUSED, Checkpoint, differing, each_case, judge, raw, tensors, verdict, version
from sglang_model import build, load

import sglang.srt.models.registry  # takes long: once here, not in each case
from sglang.srt.layers.quantization.dequantization import dequantize_nvfp4


def without_rope():
    import sglang.srt.models.deepseek_v4 as v4
    v4.get_rope_wrapper = lambda *a, **k: torch.nn.Identity()


def wanted(checkpoint, name):
    """What SGLang's parameter of that name is to hold."""
    name = name.removeprefix("model.")
    if name.startswith("lm_head"):
        return checkpoint.take("head.weight")
    if name.startswith("embed_tokens"):
        return checkpoint.take("embed.weight")
    if checkpoint.draft:
        name = "mtp.0." + name.removeprefix("decoder.").replace("shared_head.norm", "norm")
    for theirs, ours in (("self_attn", "attn"), ("mlp", "ffn"), ("input_layernorm", "attn_norm"),
                         ("post_attention_layernorm", "ffn_norm"), ("e_score_correction_bias", "bias"),
                         ("topk.tid2eid", "gate.tid2eid"), ("shared_experts.down_proj", "shared_experts.w2")):
        name = name.replace(theirs, ours)
    found = checkpoint.expert_parameter(name)
    if found is None:
        name = name.replace("weight_scale_inv", "scale")
        fused = FUSED | {"attn.wqkv_a": ("attn.wq_a", "attn.wkv"),
                         "compressor.wkv_gate": ("compressor.wkv", "compressor.wgate")}
        for whole, parts in fused.items():
            if whole in name:
                return torch.cat([checkpoint.take(name.replace(whole, part)) for part in parts])
        return checkpoint.take(name)
    return found


def holds(p, name, want, up_first):
    x = p.data
    bits = {torch.uint8, torch.int8, torch.float8_e8m0fnu}
    if "experts.w13_" in name and want.dim() == 3 and up_first:  # as the TensorRT-LLM kernels want it
        half = want.shape[1] // 2
        want = torch.cat([want[:, half:], want[:, :half]], 1)
    if x.dtype == want.dtype or {x.dtype, want.dtype} <= bits:
        x, want = raw(x), raw(want)
    else:  # FP8 block scales become F32 there
        x, want = x.double().view(-1), want.double().view(-1)
    if name.endswith("compressor.ape"):  # its two halves change places
        x, want = x.sort().values, want.sort().values
    return x.shape == want.shape and torch.equal(x, want)


def skipped(draft):
    """Scales of the KV cache, which are not in the checkpoint; and a draft's embeddings and head, which are the
    trunk's."""
    return lambda name: name.endswith(("attn_mqa.k_scale", "attn_mqa.v_scale")) or (
        draft and ("embed_tokens" in name or "lm_head" in name))


def wrong_experts(checkpoint, unpacked):
    """Matrices that SGLang dequantizes to other values than UNPACKED has, under w1's second-level scale for w3."""
    wrong = []
    for name, scale_2 in checkpoint.tensor.items():
        found = re.match(r"(layers\..*\.ffn\.experts\.\d+\.)(w[123])\.weight_scale_2$", name)
        if found:
            path, w = found.groups()
            shared = checkpoint.tensor[path + "w1.weight_scale_2"] if w == "w3" else scale_2
            made = dequantize_nvfp4(checkpoint.tensor[f"{path}{w}.weight"], checkpoint.tensor[f"{path}{w}.weight_scale"],
                                    shared, torch.bfloat16)
            if not torch.equal(made, unpacked[f"{path}{w}.weight"]):
                wrong.append(f"{path}{w}: dequantized, it is not what nvfp4-unpack gives")
    return wrong


def check(folder, unpacked, draft):
    try:
        mc, lc, model = build(folder, draft, without_rope)
        model._prewarm_mhc_kernels = lambda: None
        load(mc, lc, model)
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    method = (model.model.decoder if draft else model.model.layers[0]).mlp.experts.quant_method
    name = type(method).__name__
    checkpoint = Checkpoint(folder, draft, mc.hf_config.n_routed_experts, "NvFp4" not in name)
    up_first = getattr(method, "load_up_proj_weight_first", False)
    wrong = differing(model, skipped(draft), lambda name, p: holds(p, name, wanted(checkpoint, name), up_first))
    dequantized = "NvFp4" in name and not draft
    if dequantized and not wrong:
        wrong = wrong_experts(checkpoint, tensors(unpacked))
    judge(len(list(model.parameters())), wrong, checkpoint.left(), f"holds the checkpoint's values; experts: {name}"
          + (", which dequantizes to nvfp4-unpack's values" if dequantized else ""))


version("sglang")
each_case(check)
