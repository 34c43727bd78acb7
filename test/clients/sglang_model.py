"""sglang_model.py: what the checks of SGLang share: its own model (or NextN draft), which its own loader fills.

Replaced, since no forward pass runs: CUDA streams and events, the question whether this is a Blackwell, and what a
client replaces besides."""

import logging
import tempfile
import types

logging.disable(logging.WARNING)
import torch
from checks import Nothing, poison

torch.set_num_threads(1)
torch.cuda.Stream = torch.cuda.Event = Nothing

import sglang.srt.layers.quantization.modelopt_quant as modelopt_quant
import sglang.srt.weight_cache.daemon as daemon
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.model_loader import loader
from sglang.srt.server_args import ServerArgs

modelopt_quant.get_platform = lambda: types.SimpleNamespace(is_blackwell=True)


def build(folder, draft, replace=lambda: None):
    """Model configuration, load configuration, and the model, in the order of SGLang's own weight daemon. replace() is
    called when nothing but the model is left to make."""
    args = ServerArgs(model_path=folder, device="cpu")
    daemon.publish(args, role="weight_cache_daemon",
                   ranks=daemon.SpawnRanks(world_rank=daemon.spawn_world_rank(args, tp_rank=0, pp_rank=0), gpu_id=0))
    from sglang.srt.layers.moe import initialize_moe_config
    initialize_moe_config()
    mc = ModelConfig(model_path=folder, is_draft_model=draft)
    from sglang.srt.distributed.parallel_state import init_distributed_environment, initialize_model_parallel
    init_distributed_environment(backend="gloo", world_size=1, rank=0, local_rank=0,
                                 distributed_init_method="file://" + tempfile.mktemp())
    initialize_model_parallel()
    from sglang.srt.layers.dp_attention import init_dp_gathered_buffer, initialize_dp_attention
    initialize_dp_attention(args)
    init_dp_gathered_buffer(mc)
    replace()
    lc = LoadConfig()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = loader._initialize_model(mc, lc, loader._get_quantization_config(mc, lc))
    torch.set_default_dtype(usual)
    return mc, lc, model


def load(mc, lc, model):
    poison(model)
    model.load_weights(loader.DefaultModelLoader(lc)._get_all_weights(mc, model))
