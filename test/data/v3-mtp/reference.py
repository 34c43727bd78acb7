#!/usr/bin/env python3
"""Mean losses of DeepSeek-V3's dense layers and of multi-token prediction (MTP), in float64.

reference.py CHECKPOINT IDS [before]: the small BF16 checkpoint of v3_mtp_checkpoint() in
../../bats/v3.bash, and its ids. With "before", MTP's blocks take the hidden states before the norm
that precedes logits, as the released models do not.

Source of the formulas: DeepSeek-V3's technical report, 2.1.1 and 2.2."""
import json
import struct
import sys

import numpy as np


def load(path):
    raw = open(path, "rb").read()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, entry in json.loads(raw[8:begin]).items():
        first, end = (begin + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(raw[first:end], "<u2").astype(np.uint32) << 16
            value = bits.view(np.float32).astype(np.float64)
        else:
            value = np.frombuffer(raw[first:end], "<i4")
        tensors[name] = value.reshape(entry["shape"])
    return tensors


folder, ids, before = sys.argv[1], load(sys.argv[2])["input_ids"], sys.argv[3:] == ["before"]
weight = load(folder + "/model.safetensors")
config = json.load(open(folder + "/config.json"))
heads, rope = config["num_attention_heads"], config["qk_rope_head_dim"]
nope, value_dim = config["qk_nope_head_dim"], config["v_head_dim"]


def norm(x, name):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weight[name]


def apply(x, name):
    return x @ weight[name].T


def rotate(x):
    """Each pair of columns 2i, 2i + 1, by the row's position; x is [tokens, ..., rope]."""
    speed = config["rope_theta"] ** (-np.arange(0, rope, 2) / rope)
    turn = np.exp(1j * np.arange(len(x))[:, None] * speed)
    turn = turn.reshape([len(x)] + [1] * (x.ndim - 2) + [rope // 2])
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def attention(x, prefix):
    tokens = len(x)
    q = apply(norm(apply(x, prefix + "q_a_proj.weight"), prefix + "q_a_layernorm.weight"),
              prefix + "q_b_proj.weight").reshape(tokens, heads, nope + rope)
    kv = apply(x, prefix + "kv_a_proj_with_mqa.weight")
    k_rope = rotate(kv[:, -rope:])
    kv = apply(norm(kv[:, :-rope], prefix + "kv_a_layernorm.weight"),
               prefix + "kv_b_proj.weight").reshape(tokens, heads, nope + value_dim)
    score = np.einsum("thd,shd->hts", q[..., :nope], kv[..., :nope])
    score += np.einsum("thd,sd->hts", rotate(q[..., nope:]), k_rope)
    score = np.exp(score / np.sqrt(nope + rope)) * np.tril(np.ones((tokens, tokens)))
    score /= score.sum(-1, keepdims=True)
    y = np.einsum("hts,shd->thd", score, kv[..., nope:])
    return apply(y.reshape(tokens, -1), prefix + "o_proj.weight")


def block(x, number):
    prefix = f"model.layers.{number}."
    x = x + attention(norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn.")
    y = norm(x, prefix + "post_attention_layernorm.weight")
    gate, up = (apply(y, prefix + f"mlp.{name}_proj.weight") for name in ("gate", "up"))
    return x + apply(gate / (1 + np.exp(-gate)) * up, prefix + "mlp.down_proj.weight")


def losses(normed, targets):
    logits = apply(normed[: len(targets)], "lm_head.weight")
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(targets)), targets]


nll = [[] for _ in range(1 + config["num_nextn_predict_layers"])]
for row in ids:
    embedding = weight["model.embed_tokens.weight"][row]
    hidden = block(embedding, 0)
    normed = norm(hidden, "model.norm.weight")
    nll[0].extend(losses(normed, row[1:]))
    for i in range(1, len(nll)):
        prefix = f"model.layers.{i}."
        states = (hidden if before else normed)[:-1]
        both = np.concatenate([norm(embedding[i:], prefix + "enorm.weight"),
                               norm(states, prefix + "hnorm.weight")], -1)
        hidden = block(apply(both, prefix + "eh_proj.weight"), i)
        normed = norm(hidden, prefix + "shared_head.norm.weight")
        nll[i].extend(losses(normed, row[i + 1 :]))
print(*(f"{np.mean(values):.5f}" for values in nll))
