"""vllm_client.py CASE...: vLLM's own DefaultModelLoader loads the checkpoint into vLLM's own
model (or its MTP draft), whose parameters were all poisoned before. Each must then hold the bytes of the
checkpoint, and its experts, dequantized by vLLM, the values that nvfp4-unpack gives.

Replaced besides what vllm_model.py replaces: the choice of kernels for FP8 linears (none runs), of the backend for
experts in MXFP4 (vLLM's own emulation), and the attention's class."""

import re

import torch
import vllm_model
from checks import FUSED, Checkpoint, differing, each_case, judge, raw, tensors, verdict, version
from vllm_model import load, set_current_vllm_config

import vllm.model_executor.kernels.linear as linear
import vllm.model_executor.layers.quantization.mxfp4 as mxfp4
import vllm.models.deepseek_v4.nvidia.model as nvidia
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend, backend_to_kernel_cls
from vllm.models.deepseek_v4.cpu.cpu_sparse import DeepseekV4CPUAttention

linear.choose_scaled_mm_linear_kernel = lambda *a, **k: linear.TritonFp8BlockScaledMMKernel
mxfp4.select_deepseek_v4_mxfp4_moe_backend = lambda *a, **k: (Mxfp4MoeBackend.EMULATION,
                                                              backend_to_kernel_cls(Mxfp4MoeBackend.EMULATION)[0])
nvidia._select_dsv4_attn_cls = lambda config: DeepseekV4CPUAttention


class AnyWidth(int):
    """The test model's index_head_dim is 64; vLLM's kernels, which do not run here, have 128."""
    __eq__ = lambda a, b: b in (64, 128)
    __hash__ = int.__hash__


def any_width(config):
    if config.index_head_dim == 64:
        config.index_head_dim = AnyWidth(64)


def build(folder, draft):
    def make(config, mc):
        if not draft:
            return nvidia.DeepseekV4ForCausalLM(vllm_config=config)
        import vllm.models.deepseek_v4.nvidia.mtp as mtp
        return mtp.DeepSeekV4MTP(vllm_config=config)
    return vllm_model.build(folder, draft, make, any_width)


def wanted(checkpoint, name):
    """What vLLM's parameter of that name is to hold."""
    name = name.removeprefix("model.").replace(".routed_experts", "")
    if name.startswith("lm_head"):
        return checkpoint.take("head.weight")
    if name.startswith("embed_tokens"):
        return checkpoint.take("embed.weight")
    if checkpoint.draft:
        name = re.sub(r"^layers\.\d+\.(mtp_block\.)?", "mtp.0.", name).replace("shared_head.norm", "norm")
    for ours, theirs in (("scale", "weight_scale_inv"), ("bias", "e_score_correction_bias"),
                         ("shared_experts.w2", "shared_experts.down_proj")):
        name = name.replace(theirs, ours)
    found = checkpoint.expert_parameter(name)
    if found is None:
        found = checkpoint.fused_parameter(name, FUSED | {
            "attn.fused_wqa_wkv": ("attn.wq_a", "attn.wkv"),
            "compressor.fused_wkv_wgate": ("compressor.wkv", "compressor.wgate")})
    return checkpoint.take(name) if found is None else found


def holds(parameter, name, want):
    x = parameter.data
    if name.endswith("tid2eid"):
        return torch.equal(x.long(), want.long())
    x = raw(x)
    if name.endswith("attn_sink"):  # padded
        x = x[:want.numel() * want.element_size()]
    return torch.equal(x, raw(want))


def skipped(draft):
    """A draft's embeddings and head are the trunk's."""
    return lambda name: draft and ("embed_tokens" in name or name.endswith("shared_head.head.weight"))


def wrong_experts(config, model, unpacked):
    """Layers whose experts vLLM dequantizes to other values than UNPACKED has; -0 is 0.
    vLLM then takes one scale of activations for all experts of a layer: the largest."""
    wrong, count = [], range(config.model_config.hf_config.n_routed_experts)
    with set_current_vllm_config(config):
        for i, layer in enumerate(model.model.layers):
            experts = layer.ffn.experts.routed_experts
            method = experts.quant_method
            path = f"layers.{i}.ffn.experts."
            up = torch.stack([torch.cat([unpacked[f"{path}{e}.{w}.weight"] for w in ("w1", "w3")]) for e in count])
            down = torch.stack([unpacked[f"{path}{e}.w2.weight"] for e in count])
            scale_2 = experts.w13_weight_scale_2.clone()  # of w1 and of w3
            w13, w2 = method.dequantize_weight(experts)
            scales = [experts.w13_input_scale.max().clone(), experts.w2_input_scale.max().clone()]
            method.process_weights_after_loading(experts)
            made = method.moe_quant_config
            ok = torch.equal(w13, up) and torch.equal(w2, down)
            ok = ok and all(torch.equal(experts.w13_weight_scale_2.view(-1), scale_2[:, i]) for i in (0, 1))
            for scale, inverse in zip(scales, (made.a1_gscale, made.a2_gscale)):
                ok = ok and torch.allclose(1 / inverse, scale, rtol=1e-6)
            if not ok:
                wrong.append(f"layers.{i}: its experts, dequantized, or their scales are not the checkpoint's")
    return wrong


def check(folder, unpacked, draft):
    try:
        config, mc, model = build(folder, draft)
        load(config, mc, model)
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    moe = model.model.layers[str(config.model_config.hf_config.num_hidden_layers)].mtp_block if draft \
        else model.model.layers[0]
    methods = {type(m.quant_method).__name__ for m in moe.ffn.experts.modules() if hasattr(m, "quant_method")}
    method = next(m for m in methods if "MoE" in m)
    checkpoint = Checkpoint(folder, draft, config.model_config.hf_config.n_routed_experts, method == "Mxfp4MoEMethod")
    wrong = differing(model, skipped(draft), lambda name, p: holds(p, name, wanted(checkpoint, name)))
    dequantized = "NvFp4" in method and not draft
    if dequantized and not wrong:
        wrong = wrong_experts(config, model, tensors(unpacked))
    judge(len(list(model.parameters())), wrong, checkpoint.left(), f"holds the checkpoint's bytes; experts: {method}"
          + (", which dequantizes to nvfp4-unpack's values" if dequantized else ""))


version("vllm")
each_case(check)
