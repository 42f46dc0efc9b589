"""Training with PyTorch (LoRA: with PEFT) on given batches of token ids.

peer_train.py BASE ADAPTER BATCHES DTYPE LR THREADS [DEVICE [HOW]]: BASE is a Hugging Face folder; ADAPTER the folder of a fresh adapter,
made when it is not there, so that both sides begin alike, or `full` for every weight in f32 under autocast; BATCHES JSON: a list of
updates, each a list of [ids, labels]. AdamW with betas 0.9 and 0.95, weight decay 0.1, clipping at 1, a constant rate. HOW: words with
commas between: `liger` for its kernels, `checkpoint` for recomputation. Prints a JSON object: seconds and loss of each update, tokens,
peak memory (of the GPU where DEVICE is one).
"""
import json
import resource
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

base, adapter, batches, dtype, lr, threads = sys.argv[1:7]
device = sys.argv[7] if len(sys.argv) > 7 else "cpu"
how = sys.argv[8].split(",") if len(sys.argv) > 8 else []
torch.set_num_threads(int(threads))
torch.manual_seed(0)
bf16, full, cuda = dtype == "bf16", adapter == "full", device.startswith("cuda")
if "liger" in how:
    import liger_kernel.transformers as liger
    kind = AutoConfig.from_pretrained(base).model_type
    getattr(liger, f"apply_liger_kernel_to_{kind}")()
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if bf16 and not full else torch.float32,
                                             attn_implementation="sdpa", **({"device_map": device} if cuda else {}))
if "checkpoint" in how:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
model.config.use_cache = False
if not full:
    from peft import LoraConfig, PeftModel, get_peft_model
    try:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except (OSError, ValueError):
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
        model.save_pretrained(adapter)
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=float(lr), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=cuda)
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
    given = dict(input_ids=ids.to(device), labels=labels.to(device))
    if not bool(mask.all()): # without one, attention takes its fast path for causal sequences
        given["attention_mask"] = mask.to(device)
    with torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(**given).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    seconds.append(time.perf_counter() - start)
    tokens.append(int(mask.sum()))
memory = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"loss": losses, "seconds": seconds, "tokens": tokens, "memory": memory}))
