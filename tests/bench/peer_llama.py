"""Rates of llama.cpp: peer_llama.py GGUF THREADS PROMPT_TOKENS NEW_TOKENS BATCH

Prints a JSON object: tokens a second of evaluating a prompt, of decoding one sequence, and of decoding BATCH sequences together.
"""
import json
import sys
import time

import llama_cpp as l

path, threads, prompt, new, batch = sys.argv[1], *map(int, sys.argv[2:])
l.llama_backend_init()
silent = l.llama_log_callback(lambda *_: None)
l.llama_log_set(silent, None)
model = l.llama_model_load_from_file(path.encode(), l.llama_model_default_params())
params = l.llama_context_default_params()
params.n_ctx = 16384
params.n_batch = params.n_ubatch = 512
params.n_threads = params.n_threads_batch = threads
params.n_seq_max = batch
context = l.llama_init_from_model(model, params)
space = l.llama_batch_init(512, 0, 1)


def run(tokens):  # tokens: (id, position, sequence, whether logits are wanted)
    for i, (token, position, sequence, wanted) in enumerate(tokens):
        space.token[i], space.pos[i], space.n_seq_id[i], space.logits[i] = token, position, 1, wanted
        space.seq_id[i][0] = sequence
    space.n_tokens = len(tokens)
    if l.llama_decode(context, space):
        raise SystemExit("llama_decode failed")
    l.llama_get_logits(context)


def rates():
    l.llama_memory_clear(l.llama_get_memory(context), True)
    start = time.perf_counter()
    run([(100 + i, i, 0, i == prompt - 1) for i in range(prompt)])
    evaluated = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(new):
        run([(200 + i, prompt + i, 0, True)])
    decoded = time.perf_counter() - start
    l.llama_memory_clear(l.llama_get_memory(context), True)
    run([(100 + i, i, s, i == 31) for s in range(batch) for i in range(32)])
    start = time.perf_counter()
    for i in range(new // 2):
        run([(200 + i, 32 + i, s, True) for s in range(batch)])
    return prompt / evaluated, new / decoded, batch * (new // 2) / (time.perf_counter() - start)


rates()  # warm-up: pages of the file, threads
best = [max(r) for r in zip(rates(), rates())]
print(json.dumps(dict(zip(("prompt", "decode", "batch"), best))))
