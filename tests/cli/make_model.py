"""Writes a tiny Llama with random weights and the tiny tokenizer into a folder: make_model.py FOLDER [--vocab N] [--bf16]
[--scale X] [--wide] [--experts N] [--t5]. --wide: rows of whole blocks of 256. --experts: a mixture of N, of which a token has 2. --t5: an encoder and a decoder instead, whose tokenizer ends each text. Standard library only."""
import json, os, random, shutil, struct, sys

out, arguments = sys.argv[1], sys.argv[2:]
vocab = int(arguments[arguments.index("--vocab") + 1]) if "--vocab" in arguments else 296
scale = float(arguments[arguments.index("--scale") + 1]) if "--scale" in arguments else 1.0
bf16, t5 = "--bf16" in arguments, "--t5" in arguments
hidden, layers, heads, kv, mlp = (256, 2, 4, 2, 512) if "--wide" in arguments else (64, 2, 4, 2, 96)
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

if "--experts" in arguments:
    experts = int(arguments[arguments.index("--experts") + 1])
    path = os.path.join(out, "config.json")
    config = json.load(open(path)) | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": experts,
                                      "num_experts_per_tok": 2}
    json.dump(config, open(path, "w"))
    tensors = {name: shape for name, shape in tensors.items() if ".mlp." not in name}
    for i in range(layers):
        p = f"model.layers.{i}.block_sparse_moe."
        tensors[p + "gate.weight"] = (experts, hidden)
        for e in range(experts):
            tensors |= {f"{p}experts.{e}.{n}.weight": s for n, s in {"w1": (mlp, hidden), "w2": (hidden, mlp), "w3": (mlp, hidden)}.items()}

if t5:
    json.dump({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": hidden, "num_layers": layers,
               "num_decoder_layers": layers, "num_heads": heads, "d_kv": head, "d_ff": mlp, "vocab_size": vocab, "feed_forward_proj": "gated-gelu",
               "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1,
               "is_encoder_decoder": True, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 291, "torch_dtype": "float32"},
              open(os.path.join(out, "config.json"), "w"))
    path = os.path.join(out, "tokenizer.json")
    tokenizer = json.load(open(path, encoding="utf-8"))
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}], "pair": [], "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [291], "tokens": ["<|endoftext|>"]}}}
    json.dump(tokenizer, open(path, "w", encoding="utf-8"), ensure_ascii=False)
    tensors = {"shared.weight": (vocab, hidden)}
    for stack, parts in (("encoder", ["SelfAttention", "DenseReluDense"]), ("decoder", ["SelfAttention", "EncDecAttention", "DenseReluDense"])):
        tensors[stack + ".final_layer_norm.weight"] = (hidden,)
        tensors[stack + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (8, heads)
        for i in range(layers):
            for k, part in enumerate(parts):
                p = f"{stack}.block.{i}.layer.{k}."
                shapes = {"wi_0": (mlp, hidden), "wi_1": (mlp, hidden), "wo": (hidden, mlp)} if part == "DenseReluDense" else dict.fromkeys("qkvo", (hidden, hidden))
                tensors |= {f"{p}{part}.{n}.weight": s for n, s in shapes.items()} | {p + "layer_norm.weight": (hidden,)}

header, body = {}, bytearray()
for name, shape in tensors.items():
    n = shape[0] * (shape[1] if len(shape) > 1 else 1)
    values = [1.0] * n if len(shape) == 1 else [rng.gauss(0, scale if name == "shared.weight" else scale / hidden ** 0.5) for _ in range(n)]
    raw = struct.pack(f"<{n}f", *values)
    if bf16:
        raw = b"".join(raw[4 * i + 2:4 * i + 4] for i in range(n))
    header[name] = {"dtype": "BF16" if bf16 else "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
    body += raw
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(os.path.join(out, "model.safetensors"), "wb").write(struct.pack("<Q", len(text)) + text + body)
