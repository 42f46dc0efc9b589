"""LoRA training with PyTorch and PEFT on given batches of token ids.

peer_train.py BASE ADAPTER BATCHES DTYPE LR THREADS: BASE is a Hugging Face folder; ADAPTER the folder of a fresh adapter, made when
it is not there, so that both sides begin alike; BATCHES JSON: a list of updates, each a list of [ids, labels]. AdamW with betas
0.9 and 0.95, weight decay 0.1, clipping at 1, a constant rate. Prints a JSON object: seconds and loss of each update, tokens, peak memory.
"""
import json
import resource
import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

base, adapter, batches, dtype, lr, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(0)
bf16 = dtype == "bf16"
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if bf16 else torch.float32)
try:
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
except (OSError, ValueError):
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.save_pretrained(adapter)
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=float(lr), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
losses, seconds, tokens = [], [], []
for batch in json.load(open(batches)):
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), -100)
    for i, (x, y) in enumerate(batch):
        ids[i, : len(x)] = torch.tensor(x)
        labels[i, : len(y)] = torch.tensor(y)
        mask[i, : len(x)] = 1
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    seconds.append(time.perf_counter() - start)
    tokens.append(int(mask.sum()))
print(json.dumps({"loss": losses, "seconds": seconds, "tokens": tokens,
                  "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
