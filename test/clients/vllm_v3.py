"""vllm_v3.py CASE...: vLLM's own DefaultModelLoader loads a checkpoint of V3's family into vLLM's own model (or its
MTP draft), whose parameters were all poisoned before. Each must then hold the bytes of the checkpoint; and what vLLM
dequantizes, after it has fused and merged scales, must be what nvfp4-unpack gives.

Replaced besides what vllm_model.py replaces: the choice of kernels (vLLM's own emulation of NVFP4; none for FP8 and for
V3.2's attention), and native rounding to FP8."""

import torch
import vllm_model
from checks import Nothing, differing, each_case, judge, tensors, verdict, version
from v3_checks import FUSED, Checkpoint, holder
from vllm_model import load, modelopt, set_current_vllm_config

import vllm.model_executor.layers.attention.mla_attention as mla
import vllm.model_executor.layers.quantization.utils.w8a8_utils as w8a8
from vllm.model_executor.kernels.linear.nvfp4.base import NvFp4LinearLayerConfig
from vllm.model_executor.kernels.linear.nvfp4.emulation import EmulationNvFp4LinearKernel
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models.registry import ModelRegistry
from vllm.models.deepseek_v32.nvidia.model import DeepseekV32ForCausalLM
from vllm.models.deepseek_v32.nvidia.mtp import DeepseekV32MTP

modelopt.init_nvfp4_linear_kernel = lambda **k: EmulationNvFp4LinearKernel(NvFp4LinearLayerConfig())
modelopt.init_fp8_linear_kernel = lambda **k: Nothing()
w8a8.ops.scaled_fp8_quant = lambda x, scale: ((x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale)
ModelRegistry.register_model("DeepseekV32ForCausalLM", DeepseekV32ForCausalLM)  # those of CUDA
ModelRegistry.register_model("DeepseekV32MTPModel", DeepseekV32MTP)


class NoKernels:
    """An attention backend for V3.2, which has none on a CPU; and its implementation."""

    is_mla = staticmethod(lambda: True)
    get_name = staticmethod(lambda: "NONE")
    get_impl_cls = staticmethod(lambda: NoKernels)
    is_sparse, dcp_world_size = True, 1
    supports_dense_mha_prefill = supports_quant_query_input = False
    def __init__(self, *a, **k): pass


usual_backend = mla.get_attn_backend
mla.get_attn_backend = lambda *a, **k: NoKernels if k.get("use_sparse") else usual_backend(*a, **k)


def build(folder, draft):
    return vllm_model.build(folder, draft, lambda config, mc: initialize_model(config, model_config=mc))


def renamed(name):
    return name.replace(".mtp_block", "").replace(".routed_experts", "")


def skipped(draft):
    """Scales of the KV cache; and a draft's copies of the trunk's embeddings and head."""
    return lambda name: name.endswith(("q_scale", "k_scale", "v_scale", "prob_scale")) or (
        draft and ("embed_tokens" in name or name.endswith("shared_head.head.weight")))


def wrong_linear(name, module, unpacked):
    parent, _, last = name.rpartition(".")
    want = torch.cat([unpacked[f"{parent}.{part}.weight"] for part in FUSED.get(last, (last,))])
    if not hasattr(module, "weight_global_scale"):  # FP8: rounded anew where its parts had other scales
        made = (module.weight.t().float() * module.weight_scale).bfloat16()
        return not torch.allclose(made.float(), want.float(), rtol=1 / 14, atol=float(module.weight_scale) / 512)
    made = dequantize_to_dtype(module.weight, module.weight_scale, module.weight_global_scale, torch.bfloat16,
                               block_size=16, swizzle=False)
    return not torch.equal(made, want)


def wrong_experts(name, module, scale_2, w13, w2, unpacked):
    """-0 is 0."""
    count = range(w2.shape[0])
    up = torch.stack([torch.cat([unpacked[f"{name}.{e}.{w}.weight"] for w in ("gate_proj", "up_proj")]) for e in count])
    down = torch.stack([unpacked[f"{name}.{e}.down_proj.weight"] for e in count])
    shared = all(torch.equal(module.w13_weight_scale_2.view(-1), scale_2[:, i]) for i in (0, 1))
    return not (shared and torch.equal(w13, up) and torch.equal(w2, down))


def finish(config, model, unpacked):
    """Let vLLM make of the loaded parameters what it computes with. The number of its quantized modules, and those
    which it then dequantizes to other values than UNPACKED has."""
    count, wrong = 0, []
    with set_current_vllm_config(config):
        for name, module in model.named_modules():
            method, name = getattr(module, "quant_method", None), renamed(name)
            if isinstance(method, modelopt.ModelOptNvFp4FusedMoE):
                scale_2, dequantized = module.w13_weight_scale_2.clone(), method.dequantize_weight(module)
                method.process_weights_after_loading(module)
                differs = wrong_experts(name, module, scale_2, *dequantized, unpacked)
            elif isinstance(method, modelopt.ModelOptLinearMethod):
                method.process_weights_after_loading(module)
                differs = wrong_linear(name, module, unpacked)
            else:
                continue
            count += 1
            wrong += [f"{name}, dequantized"] * differs
    return count, wrong


def check(folder, unpacked, draft):
    try:
        config, mc, model = build(folder, draft)
        load(config, mc, model)
        checkpoint = Checkpoint(folder, draft)
        wrong = differing(model, skipped(draft), holder(checkpoint, renamed))
        count, values = finish(config, model, tensors(unpacked))
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    judge(len(list(model.parameters())), wrong or values, checkpoint.left(), f"of {type(model).__name__} holds the "
          f"checkpoint's bytes; {count} modules are quantized" + (", and dequantize to its values" if count else ""))


version("vllm")
each_case(check)
