"""Greedy text of llama.cpp: peer_text.py GGUF THREADS TOKENS PROMPTS.jsonl

Reads records with "prompt", prints a line of JSON with "text" for each: what llama.cpp continues it with, taking the most likely token
each time. Keys and values are kept in f32, and flash attention is off: it moves log-probabilities by 1e-3.
"""
import ctypes
import json
import sys

import llama_cpp as l
import numpy as np

path, threads, new, prompts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
l.llama_backend_init()
silent = l.llama_log_callback(lambda *_: None)
l.llama_log_set(silent, None)
model = l.llama_model_load_from_file(path.encode(), l.llama_model_default_params())
vocab = l.llama_model_get_vocab(model)
params = l.llama_context_default_params()
params.n_ctx = 2048
params.n_batch = params.n_ubatch = 512
params.n_threads = params.n_threads_batch = threads
params.type_k = params.type_v = 0  # GGML_TYPE_F32
params.flash_attn_type = 0
context = l.llama_init_from_model(model, params)
room = ctypes.create_string_buffer(256)


def decode(ids):
    array = (l.llama_token * len(ids))(*ids)
    if l.llama_decode(context, l.llama_batch_get_one(array, len(ids))):
        raise SystemExit("llama_decode failed")
    logits = l.llama_get_logits_ith(context, -1)
    return int(np.argmax(np.ctypeslib.as_array(logits, shape=(l.llama_vocab_n_tokens(vocab),))))


for line in open(prompts):
    text = json.loads(line)["prompt"].encode()
    ids = (l.llama_token * (len(text) + 8))()
    n = l.llama_tokenize(vocab, text, len(text), ids, len(ids), True, False)
    l.llama_memory_clear(l.llama_get_memory(context), True)
    token, out = decode(ids[:n]), b""
    for i in range(new):
        if l.llama_vocab_is_eog(vocab, token):
            break
        length = l.llama_token_to_piece(vocab, token, room, len(room), 0, True)
        out += room.raw[:length]
        if i + 1 < new:
            token = decode([token])
    print(json.dumps({"prompt_tokens": n, "text": out.decode(errors="replace")}))
