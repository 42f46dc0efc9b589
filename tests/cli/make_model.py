"""Writes a tiny Llama with random weights and the tiny tokenizer into a folder: make_model.py FOLDER [--vocab N] [--bf16]
[--scale X]. Standard library only."""
import json, os, random, shutil, struct, sys

out, arguments = sys.argv[1], sys.argv[2:]
vocab = int(arguments[arguments.index("--vocab") + 1]) if "--vocab" in arguments else 296
scale = float(arguments[arguments.index("--scale") + 1]) if "--scale" in arguments else 1.0
bf16 = "--bf16" in arguments
hidden, layers, heads, kv, mlp = 64, 2, 4, 2, 96
rng = random.Random(1)
here = os.path.dirname(os.path.abspath(__file__))
os.makedirs(out, exist_ok=True)
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(os.path.join(here, "tiny-tokenizer", name), out)
json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
           "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": mlp, "vocab_size": vocab,
           "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
           "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": 291, "torch_dtype": "bfloat16" if bf16 else "float32"},
          open(os.path.join(out, "config.json"), "w"))

head = hidden // heads
tensors = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
for i in range(layers):
    p = f"model.layers.{i}."
    tensors |= {p + "self_attn.q_proj.weight": (hidden, hidden), p + "self_attn.k_proj.weight": (kv * head, hidden),
                p + "self_attn.v_proj.weight": (kv * head, hidden), p + "self_attn.o_proj.weight": (hidden, hidden),
                p + "mlp.gate_proj.weight": (mlp, hidden), p + "mlp.up_proj.weight": (mlp, hidden),
                p + "mlp.down_proj.weight": (hidden, mlp), p + "input_layernorm.weight": (hidden,),
                p + "post_attention_layernorm.weight": (hidden,)}

header, body = {}, bytearray()
for name, shape in tensors.items():
    n = shape[0] * (shape[1] if len(shape) > 1 else 1)
    values = [1.0] * n if len(shape) == 1 else [rng.gauss(0, scale / hidden ** 0.5) for _ in range(n)]
    raw = struct.pack(f"<{n}f", *values)
    if bf16:
        raw = b"".join(raw[4 * i + 2:4 * i + 4] for i in range(n))
    header[name] = {"dtype": "BF16" if bf16 else "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
    body += raw
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(os.path.join(out, "model.safetensors"), "wb").write(struct.pack("<Q", len(text)) + text + body)
