"""libraries_client.py CASE...: the files of a folder as libraries read them: safetensors, huggingface_hub,
fastsafetensors and runai-model-streamer; and its NVFP4 matrices as Model Optimizer and compressed-tensors
dequantize them, against nvfp4-unpack."""

import logging
import pathlib
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import torch
from checks import each_case, same, say, tensors, version
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.entrypoints.convert.converters.modelopt_nvfp4 import ModelOptNvfp4Converter
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.quant_scheme import NVFP4
from fastsafetensors import SafeTensorsFileLoader, SingleGroup
from huggingface_hub.hf_api import get_local_safetensors_metadata
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from runai_model_streamer import SafetensorsStreamer
from safetensors import safe_open
from safetensors.torch import load_file


def by_hub(folder, files, want):
    names = {}
    for path in files:
        with safe_open(path, "pt") as shard:
            names |= dict.fromkeys(shard.keys(), path.name)
    told = get_local_safetensors_metadata(folder)
    size = sum(x.numel() * x.element_size() for x in want.values())
    say(told.weight_map == names and told.metadata["total_size"] == size,
        f"huggingface_hub: {len(names)} names and total_size of the index are true")


def by_fastsafetensors(files, want):
    loader = SafeTensorsFileLoader(SingleGroup(), torch.device("cpu"), nogds=True)
    loader.add_filenames({0: [str(path) for path in files]})
    found = loader.copy_files_to_device()
    say(all(same(found.get_tensor(name), x) for name, x in want.items()), f"fastsafetensors: {len(want)} tensors are equal")
    found.close()
    loader.close()


def by_runai(files, want):
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(path) for path in files])
        found = [name for name, x in streamer.get_tensors() if same(x, want[name])]
    say(sorted(found) == sorted(want), f"runai-model-streamer: {len(want)} tensors are equal")


def steps(x, y):
    """How many values of BF16 lie between those of x and y, at most; -0 is 0."""
    order = [torch.where(b < 0, -32768 - b, b) for b in (t.contiguous().view(torch.int16).int() for t in (x, y))]
    return (order[0] - order[1]).abs().max().item()


def dequantized(files, have, plain):
    modules = [name.removesuffix(".weight_scale_2") for name in have if name.endswith(".weight_scale_2")]
    scheme = QuantizationScheme(**NVFP4, targets=["Linear"])
    converter = ModelOptNvfp4Converter(targets=[f"re:^{name}$" for name in modules])
    packed = converter.validate(dict(have))
    by_shard = [name for path in files for name in converter.validate(load_file(path))]
    bits = worst = 0
    for name in modules:
        w, s, s2 = (have[f"{name}.{kind}"] for kind in ("weight", "weight_scale", "weight_scale_2"))
        want = plain[f"{name}.weight"]
        made = NVFP4QTensor(torch.Size((w.shape[0], 2 * w.shape[1])), torch.bfloat16, w).dequantize(
            dtype=torch.bfloat16, scale=s, double_scale=s2, block_sizes={-1: 16})
        bits += (made.view(torch.int16) != want.view(torch.int16)).sum().item()
        made = NVFP4PackedCompressor.decompress(
            {"weight_packed": packed[f"{name}.weight_packed"], "weight_scale": packed[f"{name}.weight_scale"],
             "weight_global_scale": packed[f"{name}.weight_global_scale"]}, scheme)["weight"]
        worst = max(worst, steps(made, want))
    say(bits == 0, f"Model Optimizer's NVFP4QTensor: {len(modules)} matrices, bits that differ: {bits}")
    say(sorted(by_shard) == sorted(packed), f"compressed-tensors: its converter takes {len(files)} shards, whole and one by one")
    say(worst <= 1, "compressed-tensors: values are " + (f"at most {worst} step of BF16 away: its scale_2 is a rounded "
                                                         "reciprocal" if worst else "equal"))


def check(folder, unpacked, draft):
    folder = pathlib.Path(folder)
    files, want = sorted(folder.glob("*.safetensors")), tensors(folder)
    by_hub(folder, files, want)
    by_fastsafetensors(files, want)
    by_runai(files, want)
    if any(name.endswith(".weight_scale_2") for name in want):
        dequantized(files, want, tensors(unpacked))


torch.set_num_threads(1)
version("safetensors", "huggingface_hub", "fastsafetensors", "runai-model-streamer", "nvidia-modelopt", "compressed-tensors")
each_case(check)
