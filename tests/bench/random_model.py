"""Random weights in the shape of a known model, of bf16, in a Hugging Face folder: random_model.py SHAPE FOLDER [TOKENIZERS]

TOKENIZERS is a folder whose tokenizer files are copied. Needs nothing but Python, and writes as fast as the disk takes it: one
block of normal numbers, over and over, of a length that no row's divides.
"""
import array
import json
import pathlib
import random
import shutil
import struct
import sys

LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", rms_norm_eps=1e-5, torch_dtype="bfloat16")
QWEN = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_act="silu", rms_norm_eps=1e-6, torch_dtype="bfloat16")
SHAPES = {
    "smollm2-135m": dict(LLAMA, vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                         num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100000.0, tie_word_embeddings=True),
    "qwen2.5-1.5b": dict(QWEN, vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                         num_key_value_heads=2, max_position_embeddings=32768, rope_theta=1000000.0, tie_word_embeddings=True),
    "qwen2.5-7b": dict(QWEN, vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                       num_key_value_heads=4, max_position_embeddings=32768, rope_theta=1000000.0, tie_word_embeddings=False),
    "llama-3-8b": dict(LLAMA, vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                       num_key_value_heads=8, max_position_embeddings=8192, rope_theta=500000.0, tie_word_embeddings=False),
}


def tensors(c):
    """Names and shapes, in the order of the file."""
    d, f, kv = c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * (c["hidden_size"] // c["num_attention_heads"])
    yield "model.embed_tokens.weight", [c["vocab_size"], d]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, rows in (("q_proj", d), ("k_proj", kv), ("v_proj", kv)):
            yield f"{at}self_attn.{name}.weight", [rows, d]
            if c["model_type"] == "qwen2":
                yield f"{at}self_attn.{name}.bias", [rows]
        yield f"{at}self_attn.o_proj.weight", [d, d]
        yield f"{at}mlp.gate_proj.weight", [f, d]
        yield f"{at}mlp.up_proj.weight", [f, d]
        yield f"{at}mlp.down_proj.weight", [d, f]
        yield f"{at}input_layernorm.weight", [d]
        yield f"{at}post_attention_layernorm.weight", [d]
    yield "model.norm.weight", [d]
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", [c["vocab_size"], d]


def operations(c, tokens):
    """Of multiplications and additions for each token's way forward in a sequence of so many: of products with weights, and of attention,
    whose queries see half of the sequence on average."""
    weights = sum(s[0] * s[1] for n, s in tensors(c) if len(s) == 2 and "embed_tokens" not in n)
    if c["tie_word_embeddings"]:
        weights += c["vocab_size"] * c["hidden_size"]
    return 2 * weights, 2 * c["num_hidden_layers"] * c["hidden_size"] * tokens


def make(shape, folder, tokenizers=None):
    c, folder = SHAPES[shape], pathlib.Path(folder)
    folder.mkdir(parents=True)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, size in tensors(c):
        n = 2
        for s in size:
            n *= s
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = random.Random(1)
    floats = array.array("f", (numbers.gauss(0, 0.02) for _ in range(1000003)))
    upper = bytearray(2 * len(floats))
    whole = floats.tobytes() # little-endian: the upper half of each is a bf16
    upper[0::2], upper[1::2] = whole[2::4], whole[3::4]
    block = memoryview(bytes(upper) * 8)
    with open(folder / "model.safetensors", "wb", buffering=0) as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, _ in tensors(c):
            first, end = header[name]["data_offsets"]
            if name.endswith("norm.weight"):
                f.write(b"\x80\x3f" * ((end - first) // 2))
                continue
            while first < end:
                first += f.write(block[: min(len(block), end - first)])
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
        if tokenizers and (pathlib.Path(tokenizers) / name).exists():
            shutil.copy(pathlib.Path(tokenizers) / name, folder / name)


if __name__ == "__main__":
    make(*sys.argv[1:])
