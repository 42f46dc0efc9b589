"""Bytes a second of other tokenizers in one thread. Prints a JSON object.

peer_tokenizers.py TOKENIZER_JSON TEXT         Hugging Face tokenizers: of time, and of processor time
peer_tokenizers.py --others FOLDER TEXT        tiktoken (ranks.tiktoken.xz, ranks.json) and sentencepiece (tokenizer.model),
                                               of processor time, for what of these the folder has
"""
import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def read(path):
    lines = open(path, encoding="utf-8").read().splitlines()
    return lines, sum(len(line.encode()) + 1 for line in lines)


def hugging_face(file, text):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(file)
    lines, size = read(text)
    start, cpu = time.perf_counter(), time.process_time()
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch_fast(lines, add_special_tokens=False))
    print(json.dumps({"bytes_per_second": size / (time.perf_counter() - start), "tokens": tokens,
                      "bytes_per_processor_second": size / (time.process_time() - cpu)}))


def others(folder, text):
    lines, size = read(text)
    folder, rates = pathlib.Path(folder), {}

    def timed(name, encode):
        cpu = time.process_time()
        for line in lines:
            encode(line)
        rates[name] = size / (time.process_time() - cpu)
    if (folder / "ranks.tiktoken.xz").exists():
        import base64
        import lzma

        import tiktoken
        rows = (row.split() for row in lzma.open(folder / "ranks.tiktoken.xz").read().splitlines() if row)
        about = json.load(open(folder / "ranks.json", encoding="utf-8"))
        encoding = tiktoken.Encoding("bench", pat_str=about["pattern"], special_tokens=about["special_tokens"],
                                     mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in rows})
        timed("tiktoken", encoding.encode_ordinary)
    model = next((m for m in (folder / "tokenizer.model", folder.parent / "spm-llama2/tokenizer.model")
                  if m.exists() and (m.parent == folder or folder.name == "llama-spm")), None)
    if model:
        import sentencepiece
        timed("sentencepiece", sentencepiece.SentencePieceProcessor(model_file=str(model)).encode)
    print(json.dumps(rates))


if sys.argv[1] == "--others":
    others(*sys.argv[2:])
else:
    hugging_face(*sys.argv[1:])
