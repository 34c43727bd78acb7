"""sglang_client.py CASE...: SGLang's own loader loads the checkpoint into SGLang's own model (or
its NextN draft), whose parameters were all poisoned before. Each must then hold the checkpoint's values, and
SGLang's dequantization of the experts must give those of nvfp4-unpack.

Replaced, since no forward pass runs: CUDA streams and events, rotary tables, the question whether this is a
Blackwell."""

import logging
import re
import tempfile
import types

logging.disable(logging.WARNING)
import torch
from checks import FUSED, Checkpoint, Lacks, each_case, judge, raw, tensors, verdict, version


class Nothing:
    """A stream or an event that does nothing."""

    def __init__(self, *a, **k): pass
    def __getattr__(self, name): return lambda *a, **k: None


torch.set_num_threads(1)
torch.cuda.Stream = torch.cuda.Event = Nothing

import sglang.srt.layers.quantization.modelopt_quant as modelopt_quant
import sglang.srt.models.registry  # takes long: once here, not in each case
import sglang.srt.weight_cache.daemon as daemon
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.layers.quantization.dequantization import dequantize_nvfp4
from sglang.srt.model_loader import loader
from sglang.srt.server_args import ServerArgs

modelopt_quant.get_platform = lambda: types.SimpleNamespace(is_blackwell=True)


def build(folder, draft):
    """Model configuration, load configuration, and the model, in the order of SGLang's own weight daemon."""
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
    import sglang.srt.models.deepseek_v4 as v4
    v4.get_rope_wrapper = lambda *a, **k: torch.nn.Identity()
    lc = LoadConfig()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = loader._initialize_model(mc, lc, loader._get_quantization_config(mc, lc))
    torch.set_default_dtype(usual)
    return mc, lc, model


def load(mc, lc, model):
    for p in model.parameters():
        p.data.view(-1).view(torch.uint8).fill_(0xFF)
    model._prewarm_mhc_kernels = lambda: None
    model.load_weights(loader.DefaultModelLoader(lc)._get_all_weights(mc, model))


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


def wrong_parameters(model, checkpoint, up_first):
    wrong = []
    for name, p in model.named_parameters():
        if name.endswith(("attn_mqa.k_scale", "attn_mqa.v_scale")):
            continue  # of the KV cache: not in the checkpoint
        if checkpoint.draft and ("embed_tokens" in name or "lm_head" in name):
            continue  # the trunk's
        try:
            if not holds(p, name, wanted(checkpoint, name), up_first):
                wrong.append(name)
        except Lacks as why:
            wrong.append(f"{name}: {why}")
    return wrong


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
        mc, lc, model = build(folder, draft)
        load(mc, lc, model)
    except Exception as e:
        return verdict("refuses", f"{type(e).__name__}: {e}")
    method = (model.model.decoder if draft else model.model.layers[0]).mlp.experts.quant_method
    name = type(method).__name__
    checkpoint = Checkpoint(folder, draft, mc.hf_config.n_routed_experts, "NvFp4" not in name)
    wrong = wrong_parameters(model, checkpoint, getattr(method, "load_up_proj_weight_first", False))
    dequantized = "NvFp4" in name and not draft
    if dequantized and not wrong:
        wrong = wrong_experts(checkpoint, tensors(unpacked))
    judge(len(list(model.parameters())), wrong, checkpoint.left(), f"holds the checkpoint's values; experts: {name}"
          + (", which dequantizes to nvfp4-unpack's values" if dequantized else ""))


version("sglang")
each_case(check)
