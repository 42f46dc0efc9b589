"""Random models of each kind of family, and how fast transformers runs them.

peer_model.py make KIND FOLDER writes one of about 100 million parameters; peer_model.py run FOLDER TOKENS DECODED BATCH THREADS
prints what build/bench/model prints of it, in bf16, with the cache that the family has.
"""
import json
import sys
import time

import torch
import transformers as t

COMMON = dict(vocab_size=32768, hidden_size=768, tie_word_embeddings=True, dtype="bfloat16")
HEADS = dict(num_attention_heads=12, num_key_value_heads=4, head_dim=64)
KINDS = {
    "dense": lambda: t.LlamaConfig(**COMMON, **HEADS, num_hidden_layers=12, intermediate_size=2048),
    "experts": lambda: t.Qwen3MoeConfig(**COMMON, **HEADS, num_hidden_layers=6, intermediate_size=2048, moe_intermediate_size=512,
                                        num_experts=16, num_experts_per_tok=4, decoder_sparse_step=1, mlp_only_layers=[]),
    "latent attention, experts": lambda: t.DeepseekV3Config(
        **COMMON, num_hidden_layers=6, num_attention_heads=12, num_key_value_heads=12, intermediate_size=2048, moe_intermediate_size=384,
        n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=2, n_shared_experts=1, first_k_dense_replace=1, q_lora_rank=384,
        kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64),
    "mamba": lambda: t.MambaConfig(**COMMON, num_hidden_layers=20, state_size=16, expand=2, conv_kernel=4, time_step_rank=48),
    "mamba 2": lambda: t.Mamba2Config(**COMMON, num_hidden_layers=20, state_size=128, expand=2, head_dim=64, num_heads=24, n_groups=1),
    "gated delta rule": lambda: t.Qwen3_5TextConfig(
        **COMMON, **HEADS, num_hidden_layers=12, intermediate_size=2048, linear_num_key_heads=6, linear_num_value_heads=12,
        linear_key_head_dim=128, linear_value_head_dim=128),
    "gated linear recurrence": lambda: t.RecurrentGemmaConfig(
        **{**COMMON, "num_attention_heads": 12}, num_hidden_layers=12, intermediate_size=4096, lru_width=768, attention_window_size=2048),
    "short convolution": lambda: t.Lfm2Config(**COMMON, num_attention_heads=12, num_key_value_heads=4, num_hidden_layers=12,
                                              intermediate_size=3072, full_attn_idxs=[2, 5, 8, 11]),
    "encoder": lambda: t.BertConfig(vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                                    dtype="bfloat16"),
}


def make(kind, folder):
    torch.manual_seed(0)
    config = KINDS[kind]()
    cls = t.AutoModelForMaskedLM if kind == "encoder" else t.AutoModelForCausalLM
    cls.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def now():
    """Of the processor where there is one thread: the same on a machine that others use."""
    return time.perf_counter() if torch.get_num_threads() > 1 else time.process_time()


def best(rounds, f, tokens):
    rates = []
    for _ in range(rounds):
        start = now()
        f()
        rates.append(tokens / (now() - start))
    return max(rates)


def run(folder, tokens, decoded, batch, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = t.AutoConfig.from_pretrained(folder)
    encoder = config.model_type == "bert"
    cls = t.AutoModelForMaskedLM if encoder else t.AutoModelForCausalLM
    model = cls.from_pretrained(folder, dtype=torch.bfloat16)
    ids = torch.randint(config.vocab_size, (batch, tokens))
    out = {"decode": 0}
    with torch.inference_mode():
        if encoder:
            out["prompt"] = best(3, lambda: model(input_ids=ids), batch * tokens)
        else:
            model.generation_config.eos_token_id = None
            new = lambda n: model.generate(ids[:1], max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
            out["prompt"] = best(3, lambda: new(1), tokens)
            rates = []
            for _ in range(2):
                start = now()
                new(1)
                middle = now()
                new(decoded + 1)
                rates.append(decoded / (now() - middle - (middle - start)))
            out["decode"] = max(rates)
    model.train()

    def step():
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
    out["step"] = best(2, step, batch * tokens)
    print(json.dumps(out))


if sys.argv[1] == "make":
    make(*sys.argv[2:])
else:
    run(sys.argv[2], *map(int, sys.argv[3:]))
