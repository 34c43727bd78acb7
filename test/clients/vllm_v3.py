"""vllm_v3.py CASE...: vLLM's own DefaultModelLoader loads a checkpoint of V3's family into vLLM's own model (or its
MTP draft), whose parameters were all poisoned before. Each must then hold the bytes of the checkpoint; and what vLLM
dequantizes, after it has fused and merged scales, must be what nvfp4-unpack gives.

What cannot exist without a GPU is replaced: CUDA streams and events, the choice of kernels (vLLM's own emulation of
NVFP4; none for FP8 and for V3.2's attention), and native rounding to FP8."""

import os

os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
import tempfile

import torch
from checks import each_case, say, tensors, verdict, version
from v3_checks import FUSED, Checkpoint, differing


class Nothing:
    """A stream, an event, or a kernel that does nothing."""

    def __init__(self, *a, **k): pass
    def __getattr__(self, name): return lambda *a, **k: None


torch.set_num_threads(1)
torch.cuda.Stream = torch.cuda.Event = Nothing

import vllm.model_executor.layers.attention.mla_attention as mla
import vllm.model_executor.layers.quantization.modelopt as modelopt
import vllm.model_executor.layers.quantization.utils.w8a8_utils as w8a8
from vllm.config import (CacheConfig, DeviceConfig, LoadConfig, ModelConfig, ParallelConfig, SchedulerConfig,
                         SpeculativeConfig, VllmConfig, set_current_vllm_config)
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.kernels.linear.nvfp4.base import NvFp4LinearLayerConfig
from vllm.model_executor.kernels.linear.nvfp4.emulation import EmulationNvFp4LinearKernel
from vllm.model_executor.layers.fused_moe.experts.nvfp4_emulation_moe import Nvfp4QuantizationEmulationTritonExperts
from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models.registry import ModelRegistry
from vllm.models.deepseek_v32.nvidia.model import DeepseekV32ForCausalLM
from vllm.models.deepseek_v32.nvidia.mtp import DeepseekV32MTP

modelopt.select_nvfp4_moe_backend = lambda **k: (NvFp4MoeBackend.EMULATION, Nvfp4QuantizationEmulationTritonExperts)
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
    """The configuration, that of the model to load, and the model with its parameters, of which none is loaded."""
    mc = ModelConfig(model=folder, dtype="bfloat16", enforce_eager=True, max_model_len=512, skip_tokenizer_init=True)
    config = VllmConfig(
        model_config=mc, device_config=DeviceConfig(device="cpu"), load_config=LoadConfig(),
        parallel_config=ParallelConfig(), cache_config=CacheConfig(block_size=256),
        scheduler_config=SchedulerConfig(max_num_batched_tokens=512, max_num_seqs=4, max_model_len=512,
                                         is_encoder_decoder=False))
    if draft:  # as --speculative-config '{"method": "mtp", "num_speculative_tokens": 1}'
        config.speculative_config = SpeculativeConfig(method="mtp", num_speculative_tokens=1, target_model_config=mc,
                                                      target_parallel_config=config.parallel_config)
        mc = config.speculative_config.draft_model_config
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, "file://" + tempfile.mktemp(), 0, "gloo")
        initialize_model_parallel(1, 1)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        model = initialize_model(config, model_config=mc)
        torch.set_default_dtype(usual)
    return config, mc, model


def load(config, mc, model):
    for p in model.parameters():
        p.data.view(-1).view(torch.uint8).fill_(0xFF)
    with set_current_vllm_config(config):
        DefaultModelLoader(config.load_config).load_weights(model, mc)


def renamed(name):
    return name.replace(".mtp_block", "").replace(".routed_experts", "")


def skipped(draft):
    """Scales of the KV cache; and a draft's copies of the trunk's embeddings and head."""
    return lambda name: ".mla_attn." in name or ".attn." in name or (
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
        wrong = differing(checkpoint, list(model.named_parameters()), renamed, skipped(draft))
        count, values = finish(config, model, tensors(unpacked))
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    left = checkpoint.left()
    say(True, f"{type(model).__name__}: {len(list(model.parameters()))} parameters, {type(config.quant_config).__name__}, "
              f"{count} quantized modules")
    wrong = wrong or values
    if wrong or left:
        verdict("loads silently wrong", f"{len(wrong)} parameters differ, {len(left)} tensors are not used: "
                                        f"{(wrong + left)[0]}")
    else:
        verdict("loads", "each parameter holds the checkpoint's bytes"
                + ("; dequantized, it has nvfp4-unpack's values" if count else ""))


version("vllm")
each_case(check)
