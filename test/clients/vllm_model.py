"""vllm_model.py: what the checks of vLLM share: its own model (or MTP draft), which its own DefaultModelLoader fills.

What cannot exist without a GPU is replaced: CUDA streams and events, the backend of experts in NVFP4 (vLLM's own
emulation), and what a client replaces besides."""

import os

os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
import tempfile

import torch
from checks import Nothing, poison

torch.set_num_threads(1)
torch.cuda.Stream = torch.cuda.Event = Nothing

import vllm.model_executor.layers.quantization.modelopt as modelopt
from vllm.config import (CacheConfig, DeviceConfig, LoadConfig, ModelConfig, ParallelConfig, SchedulerConfig,
                         SpeculativeConfig, VllmConfig, set_current_vllm_config)
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.layers.fused_moe.experts.nvfp4_emulation_moe import Nvfp4QuantizationEmulationTritonExperts
from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

modelopt.select_nvfp4_moe_backend = lambda **k: (NvFp4MoeBackend.EMULATION, Nvfp4QuantizationEmulationTritonExperts)


def build(folder, draft, make, change=lambda config: None):
    """The configuration, that of the model to load, and the model, make(the two), with its parameters, of which none
    is loaded. change(config.json's content) may change it before."""
    mc = ModelConfig(model=folder, dtype="bfloat16", enforce_eager=True, max_model_len=512, skip_tokenizer_init=True)
    change(mc.hf_config)
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
        model = make(config, mc)
        torch.set_default_dtype(usual)
    return config, mc, model


def load(config, mc, model):
    poison(model)
    with set_current_vllm_config(config):
        DefaultModelLoader(config.load_config).load_weights(model, mc)
