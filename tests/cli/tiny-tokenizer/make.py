#!/usr/bin/env python3
"""Writes the tokenizer that the tests of programs use: byte-level BPE with 256 bytes, a few merges and the special
tokens of ChatML, so that its tokens can be told by heart."""
import json, os

here = os.path.dirname(os.path.abspath(__file__))

# the printable stand-ins of bytes, as byte-level BPE vocabularies write them
plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
chars = {b: chr(b) for b in plain}
for n, b in enumerate(b for b in range(256) if b not in plain):
    chars[b] = chr(256 + n)

vocab = {chars[b]: b for b in range(256)}
merges = []
for word in ("the", "and", "\u0120the", "\u0120and", "user", "assistant", "system", "hello", "\u0120world"):
    left = word[0]
    for c in word[1:]:
        pair = [left, c]
        left += c
        if pair not in merges:
            merges.append(pair)
        vocab.setdefault(left, len(vocab))
specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
added = []
for s in specials:
    added.append({"id": len(vocab), "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                  "normalized": False, "special": True})
    vocab[s] = len(vocab)
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
tokenizer = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
    "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
              "vocab": vocab, "merges": merges},
}
template = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": "<|endoftext|>",
          "pad_token": "<|endoftext|>", "add_bos_token": False, "model_max_length": 4096, "chat_template": template}
for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
    with open(os.path.join(here, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1 if name != "tokenizer.json" else None)
        f.write("\n")
