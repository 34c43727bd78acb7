"""gpu-peer.py: what a GPU does through PyTorch, beside which test/bench/gpu-bench sets its times.

Prints Markdown: a page-locked copy to the GPU, a large BF16 product, and the routed experts of a layer of
V4-Pro (384 of 3 x 3072 x 7168, six for each of 65,536 tokens), expert by expert: dequantized from MXFP4
and multiplied, as Model Optimizer's examples/deepseek/deepseek_v4/ptq.py does it, once through F32 and
once with pairs of codes looked up in a table of BF16. Seconds are the best of several runs."""

import torch

EXPERTS, TOP_K, HIDDEN, INTER, TOKENS, BLOCK = 384, 6, 7168, 3072, 128 * 512, 32
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def best(job, runs=5):
    """Seconds of the fastest run, by the GPU's clock; the first one warms up."""
    seconds = []
    for _ in range(runs + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        job()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return min(seconds[1:])


def through_f32(packed, scale):
    value = torch.tensor(E2M1, device="cuda")
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1).long()
    blocks = value[codes].view(packed.shape[0], -1, BLOCK)
    return (blocks * torch.exp2(scale.float() - 127)[..., None]).flatten(1).bfloat16()


PAIRS = torch.tensor([[E2M1[i & 15], E2M1[i >> 4]] for i in range(256)], dtype=torch.bfloat16, device="cuda")


def by_table(packed, scale):
    blocks = PAIRS[packed.int()].view(packed.shape[0], -1, BLOCK)
    return (blocks * torch.exp2(scale.bfloat16() - 127)[..., None]).flatten(1)


def matrix(rows, cols):
    packed = torch.randint(0, 256, (rows, cols // 2), dtype=torch.uint8, device="cuda")
    scale = torch.randint(118, 123, (rows, cols // BLOCK), dtype=torch.uint8, device="cuda")
    return packed, scale


def layer(weights, x, rows, dequantize):
    y = torch.zeros_like(x)
    for (w1, w2, w3), mine in zip(weights, rows):
        mine_x = x[mine]
        gate = mine_x @ dequantize(*w1).T
        up = mine_x @ dequantize(*w3).T
        y.index_add_(0, mine, (torch.nn.functional.silu(gate) * up) @ dequantize(*w2).T)


def main():
    torch.manual_seed(1)
    host = torch.empty(4 << 30, dtype=torch.uint8).pin_memory()
    there = torch.empty_like(host, device="cuda")
    seconds = best(lambda: there.copy_(host, non_blocking=True))
    print(f"- {torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    print(f"- a page-locked copy of 4 GiB to the GPU: {host.numel() / seconds / 1e9:.1f} GB/s")
    del host, there
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    print(f"- a BF16 product of 8192^3: {2 * 8192**3 / best(lambda: a @ b) / 1e12:.0f} TFLOP/s")
    weights = [
        (matrix(INTER, HIDDEN), matrix(HIDDEN, INTER), matrix(INTER, HIDDEN)) for _ in range(EXPERTS)
    ]
    x = torch.randn(TOKENS, HIDDEN, device="cuda", dtype=torch.bfloat16)
    rows = [torch.randperm(TOKENS, device="cuda")[: TOKENS * TOP_K // EXPERTS] for _ in weights]
    for name, dequantize in ("through F32", through_f32), ("by a table of BF16", by_table):
        seconds = best(lambda: layer(weights, x, rows, dequantize), runs=3)
        print(f"- routed experts of a layer, expert by expert, {name}: {seconds:.3f} s")


main()
