"""Causal attention of one sequence by PyTorch's scaled_dot_product_attention, in bf16, with the kernel that it chooses.

peer_attention.py DEVICE TOKENS HEADS KEY_HEADS WIDTH prints a JSON object: seconds of the forward and of the backward pass.
"""
import json
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

device, (tokens, heads, key_heads, width) = sys.argv[1], map(int, sys.argv[2:6])
torch.manual_seed(0)


def drawn(n):
    return torch.randn(1, n, tokens, width, dtype=torch.bfloat16, device=device, requires_grad=True)


q, k, v = drawn(heads), drawn(key_heads), drawn(key_heads)


def sync():
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(f, warm=3, times=20):
    for i in range(-warm, times):
        if i == 0:
            sync()
            start = time.perf_counter()
        f()
    sync()
    return (time.perf_counter() - start) / times


def forward():
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


out = forward()
grad = torch.randn_like(out)
print(json.dumps({"forward": seconds(forward), "backward": seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))}))
