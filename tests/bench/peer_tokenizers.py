"""Bytes a second of other tokenizers in one thread. Prints a JSON object.

peer_tokenizers.py TOKENIZER_JSON TEXT         Hugging Face tokenizers: of time, and of processor time
peer_tokenizers.py --others FOLDER TOKENIZER_JSON TEXT
                                               of processor time, the best of several rounds as ours is: tiktoken
                                               (ranks.tiktoken.xz with ranks.json, or GPT-2's merges), bpe-qwen (for
                                               Qwen 2) and sentencepiece (tokenizer.model), for what the folder has
"""
import base64
import json
import lzma
import os
import pathlib
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
ROUNDS = 3


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


def byte_of():
    """The byte that each character of a byte-level vocabulary stands for."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def tiktoken_of(folder, file):
    """Ranks beside the vocabulary, or those that GPT-2's merges say."""
    import tiktoken
    if (folder / "ranks.tiktoken.xz").exists():
        rows = (row.split() for row in lzma.open(folder / "ranks.tiktoken.xz").read().splitlines() if row)
        about = json.load(open(folder / "ranks.json", encoding="utf-8"))
        ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
        return tiktoken.Encoding("bench", pat_str=about["pattern"], special_tokens=about["special_tokens"], mergeable_ranks=ranks)
    if folder.name != "gpt-2":
        return None
    from tiktoken_ext.openai_public import r50k_pat_str
    merges, byte = json.load(open(file, encoding="utf-8"))["model"]["merges"], byte_of()
    ranks = {bytes([b]): b for b in range(256)}
    for merge in merges:
        ranks[bytes(byte[c] for c in "".join(merge.split(" ") if isinstance(merge, str) else merge))] = len(ranks)
    return tiktoken.Encoding("bench", pat_str=r50k_pat_str, special_tokens={}, mergeable_ranks=ranks)


def bpe_qwen_of(folder, file):
    if folder.name != "qwen2":
        return None
    import contextlib

    with contextlib.redirect_stdout(sys.stderr):
        from bpe_qwen import bpe_qwen
    model = json.load(open(file, encoding="utf-8"))["model"]
    with tempfile.TemporaryDirectory() as d:
        json.dump(model["vocab"], open(f"{d}/vocab.json", "w", encoding="utf-8"), ensure_ascii=False)
        with open(f"{d}/merges.txt", "w", encoding="utf-8") as out:
            for merge in model["merges"]:
                print(merge if isinstance(merge, str) else " ".join(merge), file=out)
        return bpe_qwen.QwenTokenizer(d)


def others(folder, file, text):
    lines, size = read(text)
    folder, rates = pathlib.Path(folder), {}

    def timed(name, encode):
        for _ in range(ROUNDS):
            cpu = time.process_time()
            for line in lines:
                encode(line)
            rates[name] = max(rates.get(name, 0), size / (time.process_time() - cpu))
    if encoding := tiktoken_of(folder, file):
        timed("tiktoken", encoding.encode_ordinary)
    if encoding := bpe_qwen_of(folder, file):
        timed("bpe-qwen", encoding.encode_regular)
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
