"""Bytes a second of Hugging Face tokenizers in one thread: peer_tokenizers.py TOKENIZER_JSON TEXT. Prints a JSON object."""
import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402

tokenizer = Tokenizer.from_file(sys.argv[1])
lines = open(sys.argv[2], encoding="utf-8").read().splitlines()
size = sum(len(line.encode()) for line in lines)
start = time.perf_counter()
tokens = sum(len(e.ids) for e in tokenizer.encode_batch_fast(lines, add_special_tokens=False))
print(json.dumps({"bytes_per_second": size / (time.perf_counter() - start), "tokens": tokens}))
