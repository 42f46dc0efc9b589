"""Greedy text with transformers: peer_generate.py FOLDER DEVICE PROMPT NEW BATCH

In bf16, with its sdpa attention. Prints a JSON object of tokens a second: prompt (PROMPT tokens of one sequence), decode (NEW tokens of
one sequence), batch (of BATCH sequences together).
"""
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM

folder, device = sys.argv[1:3]
prompt, new, batch = map(int, sys.argv[3:6])
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa", device_map=device).eval()
model.generation_config.eos_token_id = None
torch.manual_seed(1)


def seconds(ids, n):
    torch.cuda.synchronize()
    start = time.perf_counter()
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
    torch.cuda.synchronize()
    return time.perf_counter() - start


out = {}
with torch.inference_mode():
    long, short = (torch.randint(model.config.vocab_size, (1, n), device=device) for n in (prompt, 64))
    seconds(long, 1), seconds(short, 4) # warm
    out["prompt"] = prompt / min(seconds(long, 1) for _ in range(2))
    for name, ids in (("decode", short), ("batch", short.repeat(batch, 1))):
        out[name] = len(ids) * new / (seconds(ids, new + 1) - seconds(ids, 1))
print(json.dumps(out))
