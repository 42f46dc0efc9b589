#!/usr/bin/env python3
"""More golden cases as make_llm.py makes them: classes of transformers that it doesn't have, and families that were published
with code of their own on the hub: blocks of transformers where they are the same, and modules written here from the published
code where they are not.

Usage: as make_llm.py's (--out llm --only hub_yuan ...; --verify llm, which finds the two cases of Ling different: one has a
bias without a gradient, the other a head whose norms have none).
"""
import math
import sys

import torch
import torch.nn.functional as F

import make_llm as g
from make_llm import Renamed, case, cat, fixed_theta, hub_common, llama_like, llama_names, same


def mha(d, **kw):
    return dict(dict(num_key_value_heads=d.heads, intermediate_size=d.inter - 6, rope_parameters=fixed_theta()), **kw)


# ---- BlueLM: a LayerNorm behind the embedding, and another rule for the frequencies
class NormedEmbedding(torch.nn.Module):
    def __init__(self, old, eps):
        super().__init__()
        self.embed, self.norm = old, torch.nn.LayerNorm(old.embedding_dim, eps=eps)

    def forward(self, ids):
        return self.norm(self.embed(ids))


BLUE = dict(factor=16.0, power=0.3)


def use_bluelm(model, d):
    model.model.embed_tokens = NormedEmbedding(model.model.embed_tokens, model.config.rms_norm_eps)
    rotary, half = model.model.rotary_emb, d.head_dim // 2
    a = math.log(BLUE["factor"]) / half ** BLUE["power"]
    i = torch.arange(half, dtype=torch.float64)
    rotary.inv_freq = (10000.0 ** (-i / half) / torch.exp(a * (i + 1) ** BLUE["power"])).float()


def bluelm_table(cfg):
    rows = [r for r in llama_names(cfg) if "embed_tokens" not in r[0]]
    return rows + [same("model.embed_tokens.weight", "model.embed_tokens.embed.weight")] + [
        same(f"model.embed_layer_norm.{k}", f"model.embed_tokens.norm.{k}") for k in ("weight", "bias")]


# ---- mixtures
class Expert(torch.nn.Module):
    """act(gate x) * up x, through down; or one matrix for gate and up."""

    def __init__(self, hidden, inter, names=("gate_proj", "up_proj", "down_proj"), act=F.silu, packed=False):
        super().__init__()
        self.names, self.act, self.packed = names, act, packed
        setattr(self, names[0], torch.nn.Linear(hidden, inter * (2 if packed else 1), bias=False))
        if not packed:
            setattr(self, names[1], torch.nn.Linear(hidden, inter, bias=False))
        setattr(self, names[2], torch.nn.Linear(inter, hidden, bias=False))

    def forward(self, x):
        gate = getattr(self, self.names[0])(x)
        gate, up = gate.chunk(2, -1) if self.packed else (gate, getattr(self, self.names[1])(x))
        return getattr(self, self.names[2])(self.act(gate) * up)


class SigmoidGate(torch.nn.Module):
    """Ling 2: sigmoid scores, a bias for the choice, the best groups by the sum of their two best."""

    def __init__(self, hidden, experts, top, groups, top_groups, scale):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(experts, hidden))
        self.register_buffer("expert_bias", torch.zeros(experts))
        self.top, self.groups, self.top_groups, self.scale = top, groups, top_groups, scale

    def forward(self, x):
        scores = torch.sigmoid(x @ self.weight.T)
        choice = scores + self.expert_bias
        best = choice.unflatten(-1, (self.groups, -1)).topk(2, -1).values.sum(-1).topk(self.top_groups, -1).indices
        keep = torch.zeros(*choice.shape[:-1], self.groups, dtype=torch.bool).scatter(-1, best, True)
        choice = choice.unflatten(-1, (self.groups, -1)).masked_fill(~keep.unsqueeze(-1), -math.inf).flatten(-2)
        index = choice.topk(self.top, -1).indices
        weight = scores.gather(-1, index)
        return weight / (weight.sum(-1, keepdim=True) + 1e-20) * self.scale, index


class SoftmaxGate(torch.nn.Module):
    def __init__(self, hidden, experts, top, renormalise):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(experts, hidden))
        self.top, self.renormalise = top, renormalise

    def logits(self, x):
        return x @ self.weight.T

    def forward(self, x):
        weight, index = self.logits(x).softmax(-1).topk(self.top, -1)
        return (weight / weight.sum(-1, keepdim=True) if self.renormalise else weight), index


class AttendingGate(SoftmaxGate):
    """Yuan 2 M32: a query, a key and a value an expert; softmax over the experts' products."""

    def __init__(self, hidden, experts, top, renormalise):
        super().__init__(hidden, experts, top, renormalise)
        del self.weight
        for n in ("query", "key", "value"):
            setattr(self, n, torch.nn.Linear(hidden, experts, bias=False))

    def logits(self, x):
        q, k, v = (getattr(self, n)(x).unsqueeze(-1) for n in ("query", "key", "value"))
        return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).squeeze(-1)


class Moe(torch.nn.Module):
    def __init__(self, gate, experts, shared=None):
        super().__init__()
        self.gate, self.experts, self.shared_experts = gate, torch.nn.ModuleList(experts), shared

    def forward(self, x):
        weight, index = self.gate(x)
        y = self.shared_experts(x) if self.shared_experts is not None else torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            y = y + expert(x) * (weight * (index == e)).sum(-1, keepdim=True)
        return y


def moe_rows(cfg, at, first, experts, parts, gate=("gate.weight",), shared=True, rename=lambda n: n):
    rows = []
    for i in range(first, cfg.num_hidden_layers):
        a = f"model.layers.{i}.mlp."
        names = list(gate) + [f"experts.{e}.{p}.weight" for e in range(experts) for p in parts]
        names += [f"shared_experts.{p}.weight" for p in parts] if shared else []
        rows += [same(f"model.layers.{i}.{at}" + rename(n), a + n) for n in names]
    return rows


def without_mlp(rows, first=0):
    return [r for r in rows if ".mlp." not in r[0] or int(r[0].split(".")[2]) < first]


PLAIN = ("gate_proj", "up_proj", "down_proj")


def use_moe(make, first=0):
    def prepare(model, d):
        for layer in list(model.model.layers)[first:]:
            layer.mlp = make(d)
    return prepare


def ling_table(first, experts, gate, norms):
    def table(cfg):
        hd, h, kv = g.head_sizes(cfg)
        rows = []
        for r in without_mlp(llama_names(cfg), first):
            if ".self_attn." in r[0] or "embed_tokens" in r[0] or r[0] == "lm_head.weight":
                continue
            rows.append(r)
        rows.append(same("model.word_embeddings.weight", "model.embed_tokens.weight"))
        rows.append(same("lm_head.weight", "lm_head.weight"))
        for i in range(cfg.num_hidden_layers):
            a, n = f"model.layers.{i}.attention.", f"model.layers.{i}.self_attn."
            rows += [cat(a + "query_key_value.weight", g.qkv(i), [h * hd, kv * hd, kv * hd]), same(a + "dense.weight", n + "o_proj.weight")]
            if norms:
                rows += [same(a + "query_layernorm.weight", n + "q_norm.weight"), same(a + "key_layernorm.weight", n + "k_norm.weight")]
        return rows + moe_rows(cfg, "mlp.", first, experts, PLAIN, gate)
    return table


class UnitColumns(torch.nn.Linear):
    def forward(self, x):
        norm = self.weight.norm(p=2, dim=0, keepdim=True).detach() + 1e-7
        return F.linear(x, self.weight / norm)


def use_ling1(model, d):
    use_moe(lambda d: Moe(SoftmaxGate(d.hidden, 4, 2, True), [Expert(d.hidden, 8) for _ in range(4)], Expert(d.hidden, 16)))(model, d)
    model.lm_head = UnitColumns(d.hidden, d.vocab, bias=False)


def use_ling2(model, d):
    use_moe(lambda d: Moe(SigmoidGate(d.hidden, 8, 3, 4, 2, 2.5), [Expert(d.hidden, 8) for _ in range(8)], Expert(d.hidden, 8)), 1)(model, d)


class Ling2(Renamed):
    """expert_bias is a buffer: it is written to the file, and no gradient belongs to it."""

    def write(self, c, d, variant, seed, folder, distinct):
        super().write(c, d, variant, seed, folder, distinct)
        path = f"{folder}/model.safetensors"
        tensors = g.load_file(path)
        for name, b in g.build_model(c, d, seed).named_buffers():
            if name.endswith("expert_bias"):
                tensors[name] = b.clone()
        g.save_file(tensors, path, metadata={"format": "pt"})


# ---- Ling 2.5: lightning attention that turns, among latent attention
class TurnedLightning(torch.nn.Module):
    """A sum over earlier tokens, each weighted by its product with the query and a power of its head's decay."""

    def __init__(self, hidden, heads, d, groups, layer, layers, eps):
        super().__init__()
        inner = heads * d
        self.query_key_value = torch.nn.Linear(hidden, 3 * inner, bias=True)
        self.query_layernorm, self.key_layernorm = torch.nn.RMSNorm(d, eps=eps), torch.nn.RMSNorm(d, eps=eps)
        self.g_norm = torch.nn.RMSNorm(inner, eps=eps)
        self.g_proj, self.dense = torch.nn.Linear(hidden, inner, bias=False), torch.nn.Linear(inner, hidden, bias=True)
        self.heads, self.d, self.groups, self.layer, self.eps = heads, d, groups, layer, eps
        self.part = 1 - (layer - 1) / (layers - 1) + 1e-5

    def forward(self, hidden_states, position_embeddings=None, past_key_values=None, **unused):
        b, t, _ = hidden_states.shape
        q, k, v = (u.unflatten(-1, (self.heads, self.d)).transpose(1, 2) for u in self.query_key_value(hidden_states).chunk(3, -1))
        cos, sin = (u.unsqueeze(1) for u in position_embeddings)
        q, k = turn(self.query_layernorm(q), cos, sin), turn(self.key_layernorm(k), cos, sin)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer)
        i, j = torch.arange(k.shape[2])[-t:].view(-1, 1), torch.arange(k.shape[2]).view(1, -1)
        slope = torch.tensor([g.alibi_slopes(self.heads)], dtype=q.dtype).view(-1, 1, 1) * self.part
        weight = torch.where(i >= j, torch.exp(-slope * (i - j)), 0)
        y = ((q @ k.transpose(2, 3)) * self.d ** -0.5 * weight @ v).transpose(1, 2).reshape(b, t, self.groups, -1)
        y = (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)).flatten(-2) * self.g_norm.weight
        return self.dense(y * torch.sigmoid(self.g_proj(hidden_states))), None


def use_ling25(model, d):
    layers = model.model.layers
    for i in (0, 1):
        layers[i].self_attn = TurnedLightning(d.hidden, d.heads, 8, 2, i, len(layers), d.eps)
    use_moe(lambda d: Moe(SigmoidGate(d.hidden, 6, 3, 3, 2, 2.5), [Expert(d.hidden, 4) for _ in range(6)], Expert(d.hidden, 4)), 1)(model, d)


def ling25_table(cfg):
    rows = [same("model.word_embeddings.weight", "model.embed_tokens.weight"), same("model.norm.weight"), same("lm_head.weight")]
    for i in range(cfg.num_hidden_layers):
        a = f"model.layers.{i}."
        rows += [same(a + n + ".weight") for n in ("input_layernorm", "post_attention_layernorm")]
        if i in (0, 1):
            names = ("query_key_value.weight", "query_key_value.bias", "query_layernorm.weight", "key_layernorm.weight", "g_norm.weight",
                     "g_proj.weight", "dense.weight", "dense.bias")
            rows += [same(f"{a}attention.{n}", f"{a}self_attn.{n}") for n in names]
        else:
            latents = ("q_a_proj.weight", "q_a_proj.bias", "q_a_layernorm.weight", "q_b_proj.weight", "kv_a_proj_with_mqa.weight",
                       "kv_a_proj_with_mqa.bias", "kv_a_layernorm.weight", "kv_b_proj.weight")
            rows += [same(f"{a}attention.{n}", f"{a}self_attn.{n}") for n in latents]
            rows += [same(f"{a}attention.dense.{n}", f"{a}self_attn.o_proj.{n}") for n in ("weight", "bias")]
    rows += [same(f"model.layers.0.mlp.{n}.weight") for n in PLAIN]
    return rows + moe_rows(cfg, "mlp.", 1, 6, PLAIN)


def grok_table(cfg):
    plus = lambda hub, native: (hub, [native], lambda t: 1 + t[0], lambda t: [t - 1])  # noqa: E731
    rows = [same("model.embed_tokens.weight"), plus("model.norm.scale", "model.norm.weight"),
            ("lm_head.weight", ["lm_head.weight"], lambda t: t[0] * 2, lambda t: [t / 2])]
    for i in range(cfg.num_hidden_layers):
        a = f"model.layers.{i}."
        rows += [same(a + f"attn.{n}_proj.weight", a + f"self_attn.{n}_proj.weight") for n in "qkvo"]
        rows += [plus(a + f"{h}.scale", a + f"{n}.weight") for h, n in (
            ("pre_attn_norm", "input_layernorm"), ("post_attn_norm", "post_attention_layernorm"),
            ("pre_moe_norm", "pre_feedforward_layernorm"), ("post_moe_norm", "post_feedforward_layernorm"))]
    return rows + moe_rows(cfg, "moe_block.", 0, 4, ("linear", "linear_v", "linear_1"), shared=False)


# ---- attention that is given the token before
class Remembering(torch.nn.Module):
    """Keeps what earlier calls with the same cache were given, so that decoding with a cache sees the token before."""

    def seen(self, x, cache):
        if cache is None:
            return x
        old = getattr(self, "old", None)
        x = x if cache.get_seq_length(self.layer) == 0 or old is None else torch.cat([old, x], 1)
        self.old = x.detach()
        return x


def shifted(x):
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


def turn(x, cos, sin):
    w = cos.shape[-1]
    x, rest = x[..., :w], x[..., w:]
    return torch.cat([x * cos + torch.cat([-x[..., w // 2:], x[..., : w // 2]], -1) * sin, rest], -1)


def attend(q, k, v, mask, scale, window=None):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    s = q @ k.transpose(2, 3) * scale
    if mask is not None:
        s = s + mask
    if window:
        i, j = torch.arange(s.shape[2]).view(-1, 1) + s.shape[3] - s.shape[2], torch.arange(s.shape[3]).view(1, -1)
        s = s.masked_fill(i - j >= window, -math.inf)
    return s.softmax(-1) @ v


class YuanAttention(Remembering):
    def __init__(self, hidden, heads, inner, layer):
        super().__init__()
        for n in ("q_proj", "k_proj", "v_proj"):
            setattr(self, n, torch.nn.Linear(hidden, inner, bias=False))
        self.o_proj = torch.nn.Linear(inner, hidden, bias=False)
        self.lf_gate = torch.nn.Module()
        self.lf_gate.conv1 = torch.nn.Conv2d(hidden, hidden // 2, (2, 1))
        self.lf_gate.conv2 = torch.nn.Conv2d(hidden // 2, hidden, (2, 1))
        self.lf_gate.output_layernorm = torch.nn.RMSNorm(hidden, eps=1e-6)
        self.heads, self.layer = heads, layer

    def conv(self, m, x):
        return m(F.pad(x.transpose(1, 2).unsqueeze(-1), (0, 0, 1, 0))).squeeze(-1).transpose(1, 2)

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None, past_key_values=None, **unused):
        b, t, _ = hidden_states.shape
        x = self.seen(hidden_states, past_key_values)
        f = self.lf_gate.output_layernorm(self.conv(self.lf_gate.conv2, self.conv(self.lf_gate.conv1, x)) + x)[:, -t:]
        both = torch.cat([self.q_proj(f), self.k_proj(f)], -1).view(b, t, self.heads, -1)
        q, k = (p.transpose(1, 2) for p in both.chunk(2, -1))
        v = self.v_proj(hidden_states).view(b, t, self.heads, -1).transpose(1, 2)
        cos, sin = (p.unsqueeze(1) for p in position_embeddings)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer)
        y = attend(q, k, v, attention_mask, q.shape[-1] ** -0.5)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1)), None


def use_yuan(inner, moe):
    def prepare(model, d):
        for i, layer in enumerate(model.model.layers):
            layer.self_attn = YuanAttention(d.hidden, d.heads, inner(d), i)
            if moe:
                layer.mlp = Moe(AttendingGate(d.hidden, 4, 2, True), [Expert(d.hidden, 8, ("w1", None, "w2"), packed=True) for _ in range(4)])
    return prepare


def yuan_table(moe):
    def table(cfg):
        rows = []
        for r in llama_names(cfg):
            swap = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
            part = r[0].split(".")[-2]
            if ".mlp." in r[0]:
                if not moe:
                    rows.append(same(r[0].replace(part, swap.get(part, part)), r[0]))
            else:
                rows.append(r)
        for i in range(cfg.num_hidden_layers):
            a = f"model.layers.{i}.self_attn.lf_gate."
            rows += [same(a + n) for n in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "output_layernorm.weight")]
        if moe:
            rows += moe_rows(cfg, "mlp.", 0, 4, ("w1", "w2"), [f"gate.{n}.weight" for n in ("query", "key", "value")], False)
        return rows
    return table


class MixedAttention(Remembering):
    def __init__(self, hidden, heads, kv, window, layer):
        super().__init__()
        self.heads, self.kv, self.window, self.layer, self.d = heads, kv, window, layer, hidden // heads
        self.W_pack = torch.nn.Linear(hidden, (heads + 2 * kv) * self.d, bias=False)
        self.o_proj = torch.nn.Linear(hidden, hidden, bias=False)
        self.conv_k = torch.nn.Parameter(torch.zeros(1, 1, kv, 1, 2))
        self.conv_v = torch.nn.Parameter(torch.zeros(1, 1, kv, 1, 2))

    def mix(self, x, w):
        w = w.view(1, 1, self.kv, 1, 2)
        x = x.unflatten(-1, (self.kv, self.d))
        return F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1] * w[..., 0] + x * w[..., 1]

    def forward(self, hidden_states, attention_mask=None, position_ids=None, past_key_values=None, **unused):
        b, t, _ = hidden_states.shape
        x = self.W_pack(self.seen(hidden_states, past_key_values))
        q, k, v = x.split([self.heads * self.d, self.kv * self.d, self.kv * self.d], -1)
        q = q[:, -t:].view(b, t, self.heads, self.d).transpose(1, 2)
        k, v = self.mix(k, self.conv_k)[:, -t:].transpose(1, 2), self.mix(v, self.conv_v)[:, -t:].transpose(1, 2)
        angle = position_ids.unsqueeze(-1).to(x.dtype) * 10000.0 ** (-torch.arange(0, self.d, 2, dtype=x.dtype) / self.d)
        angle = torch.cat([angle, angle], -1).unsqueeze(1)
        q, k = turn(q, angle.cos(), angle.sin()), turn(k, angle.cos(), angle.sin())
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer)
        y = attend(q, k, v, attention_mask, self.d ** -0.5, self.window)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1)), None


class UnitRows(torch.nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight))


def sliding_heads(hidden, heads):
    return (2 * heads, 2) if hidden // heads % 4 == 0 else (heads // 2, 1)


def use_m1(model, d):
    for i, layer in enumerate(model.model.layers):
        heads, kv = sliding_heads(d.hidden, d.heads) if i % 2 else (d.heads, d.kv)
        layer.self_attn = MixedAttention(d.hidden, heads, kv, 4 if i % 2 else None, i)
    model.lm_head = UnitRows(d.hidden, d.vocab, bias=False)


def m1_table(cfg):
    rows = [r for r in llama_names(cfg) if "_proj" not in r[0] or ".mlp." in r[0] or "o_proj" in r[0]]
    return rows + [same(f"model.layers.{i}.self_attn.{n}") for i in range(cfg.num_hidden_layers) for n in ("W_pack.weight", "conv_k", "conv_v")]


# ---- Phi-3-small
class BlockAttention(torch.nn.Module):
    def __init__(self, d, layer, o):
        super().__init__()
        self.heads, self.kv, self.layer, self.o = d.heads, d.kv, layer, o
        self.query_key_value = torch.nn.Linear(d.hidden, (d.heads + 2 * d.kv) * d.head_dim)
        self.dense = torch.nn.Linear(d.heads * d.head_dim, d.hidden)

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None, past_key_values=None, **unused):
        b, t, _ = hidden_states.shape
        group = self.heads // self.kv
        qkv = self.query_key_value(hidden_states).view(b, t, self.kv, group + 2, -1)
        q, k, v = qkv[:, :, :, :-2].flatten(2, 3).transpose(1, 2), qkv[:, :, :, -2].transpose(1, 2), qkv[:, :, :, -1].transpose(1, 2)
        cos, sin = (p.unsqueeze(1) for p in position_embeddings)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer)
        mask = attention_mask
        if self.o:
            i, j = torch.arange(k.shape[2] - t, k.shape[2]).view(1, -1, 1) // self.o["size"], torch.arange(k.shape[2]).view(1, 1, -1) // self.o["size"]
            h = torch.arange(1, self.heads + 1).view(-1, 1, 1)
            keep = (i - j < self.o["local"]) | ((j + h) % self.o["stride"] == 0)
            mask = torch.zeros(keep.shape, dtype=q.dtype).masked_fill(~keep, -1e30) + (mask if mask is not None else 0)
        y = attend(q, k, v, mask, 0.75 / q.shape[-1])
        return self.dense(y.transpose(1, 2).reshape(b, t, -1)), None


class Turns(torch.nn.Module):
    def __init__(self, hidden, inter, limit):
        super().__init__()
        self.up_proj, self.down_proj, self.limit = torch.nn.Linear(hidden, 2 * inter), torch.nn.Linear(inter, hidden), limit

    def forward(self, x):
        y = self.up_proj(x)
        gate, up = y[..., ::2].clamp(max=self.limit), y[..., 1::2].clamp(-self.limit, self.limit)
        return self.down_proj(gate * torch.sigmoid(1.702 * gate) * (up + 1))


class Scaled(torch.nn.Module):
    def __init__(self, old, scale):
        super().__init__()
        self.embed, self.scale = old, scale

    def forward(self, ids):
        return self.embed(ids) * self.scale


BLOCKS = dict(size=2, local=2, stride=3)


def use_phi3small(model, d):
    for i, layer in enumerate(model.model.layers):
        layer.self_attn = BlockAttention(d, i, None if (i + 1) % 2 == 0 else BLOCKS)
        layer.mlp = Turns(d.hidden, d.inter, 0.8)
        layer.input_layernorm, layer.post_attention_layernorm = (torch.nn.LayerNorm(d.hidden, eps=d.eps) for _ in range(2))
    model.model.norm = torch.nn.LayerNorm(d.hidden, eps=d.eps)
    model.model.embed_tokens = Scaled(model.model.embed_tokens, 3.0)


def phi3small_table(cfg):
    wb = ("weight", "bias")
    rows = [same("model.embed_tokens.weight", "model.embed_tokens.embed.weight"),
            ("lm_head.weight", ["lm_head.weight"], lambda t: t[0] * 4, lambda t: [t / 4])]
    rows += [same(f"model.final_layernorm.{k}", f"model.norm.{k}") for k in wb]
    for i in range(cfg.num_hidden_layers):
        rows += [same(f"model.layers.{i}.{n}.{k}") for n in ("self_attn.query_key_value", "self_attn.dense", "mlp.up_proj", "mlp.down_proj",
                                                           "input_layernorm", "post_attention_layernorm") for k in wb]
    return rows


def exaone_table(cfg):
    rows = [same("transformer.wte.weight", "model.embed_tokens.weight"), same("transformer.ln_f.weight", "model.norm.weight"), same("lm_head.weight")]
    for i in range(cfg.num_hidden_layers):
        rows += [same(f"transformer.h.{i}.{theirs}.weight", f"model.layers.{i}.{ours}.weight") for theirs, ours in (
            ("ln_1", "input_layernorm"), ("ln_2", "post_attention_layernorm"), ("attn.attention.q_proj", "self_attn.q_proj"),
            ("attn.attention.k_proj", "self_attn.k_proj"), ("attn.attention.v_proj", "self_attn.v_proj"), ("attn.attention.out_proj", "self_attn.o_proj"),
            ("mlp.c_fc_0", "mlp.gate_proj"), ("mlp.c_fc_1", "mlp.up_proj"), ("mlp.c_proj", "mlp.down_proj"))]
    return rows


def define_names():
    """What transformers computes, under the names and the fields of the hub."""
    llama = "LlamaForCausalLM of transformers, same names"
    case("hub_skywork", "Llama", "Llama names", "Skywork-13B", mha, renamed=Renamed(
        llama_names, lambda c, d: hub_common(c, d, "SkyworkForCausalLM", "skywork", **llama_like(c), num_key_value_heads=c.num_key_value_heads,
                                             rope_theta=10000.0, rope_scaling=None), llama))
    case("hub_internlm3", "Llama", "qkv_bias and bias, dynamic NTK, T longer than max_position_embeddings", "InternLM3-8B",
         lambda d: dict(attention_bias=True, mlp_bias=True, max_position_embeddings=10, rope_parameters=g.rope(d, "dynamic", factor=6.0)),
         renamed=Renamed(lambda c: llama_names(c, biases=("q_proj", "k_proj", "v_proj", "o_proj")) + [
             same(f"model.layers.{i}.mlp.{n}.bias") for i in range(c.num_hidden_layers) for n in PLAIN],
             lambda c, d: hub_common(c, d, "InternLM3ForCausalLM", "internlm3", **llama_like(c), num_key_value_heads=c.num_key_value_heads, qkv_bias=True,
                                     bias=True, head_dim=c.head_dim, rope_theta=d.theta, rope_scaling=dict(rope_type="dynamic", factor=6.0)), llama))
    case("hub_iquestcoder", "Llama", "Llama names", "IQuest-Coder-V1", renamed=Renamed(
        llama_names, lambda c, d: hub_common(c, d, "IQuestCoderForCausalLM", "iquestcoder", **llama_like(c), num_key_value_heads=c.num_key_value_heads,
                                             head_dim=c.head_dim, rope_theta=d.theta, rope_scaling=None, clip_qkv=None, use_sliding_window=False), llama))
    case("hub_mimo", "Qwen2", "Qwen 2 names (layers that guess further tokens are left out)", "MiMo-7B", lambda d: dict(tie_word_embeddings=False),
         renamed=Renamed(lambda c: llama_names(c, biases=("q_proj", "k_proj", "v_proj")), lambda c, d: hub_common(
             c, d, "MiMoForCausalLM", "mimo", **llama_like(c), num_key_value_heads=c.num_key_value_heads, rope_theta=d.theta, num_nextn_predict_layers=1,
             use_sliding_window=False, max_window_layers=c.num_hidden_layers), "Qwen2ForCausalLM of transformers, same names"))
    case("hub_exaone", "Llama", "names of GPT-Neo with a gate", "EXAONE 3, 3.5 and Deep", renamed=Renamed(
        exaone_table, lambda c, d: hub_common(
            c, d, "ExaoneForCausalLM", "exaone", hidden_size=c.hidden_size, num_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads,
            num_key_value_heads=c.num_key_value_heads, head_dim=c.head_dim, intermediate_size=c.intermediate_size, activation_function="silu",
            layer_norm_epsilon=c.rms_norm_eps, rope_theta=d.theta, rope_scaling=None, attention_dropout=0.0, embed_dropout=0.0),
        "LlamaForCausalLM of transformers, renamed"))
    case("hub_index", "Llama", "Llama names, norm_head: lm_head rows divided by their L2 norm", "Index-1.9B", mha, renamed=Renamed(
        lambda c: [r for r in llama_names(c) if r[0] != "lm_head.weight"] + [
            ("lm_head.weight", ["lm_head.weight"], lambda t: t[0], lambda t: [torch.nn.functional.normalize(t)])],
        lambda c, d: hub_common(c, d, "IndexForCausalLM", "index", **llama_like(c), num_key_value_heads=c.num_key_value_heads, norm_head=1), llama))
    case("hub_pangu", "Llama", "Llama names, biases of attention by \"bias\"", "openPangu-Embedded-7B", lambda d: dict(attention_bias=True),
         renamed=Renamed(lambda c: llama_names(c, biases=("q_proj", "k_proj", "v_proj", "o_proj")), lambda c, d: hub_common(
             c, d, "PanguEmbeddedForCausalLM", "PanguEmbedded", **llama_like(c), num_key_value_heads=c.num_key_value_heads, bias=True,
             rope_theta=d.theta), llama))
    case("hub_telechat2", "Llama", "as hub_telechat with grouped keys", "TeleChat2-3B/7B/35B/115B",
         lambda d: dict(intermediate_size=d.inter - 6, attention_bias=True, mlp_bias=True, rope_parameters=fixed_theta()),
         renamed=Renamed(g.telechat_table, lambda c, d: hub_common(
             c, d, "TeleChat2ForCausalLM", "telechat", hidden_size=c.hidden_size, n_layer=c.num_hidden_layers, n_head=c.num_attention_heads,
             num_key_value_heads=c.num_key_value_heads, ffn_hidden_size=c.intermediate_size, layer_norm_epsilon=c.rms_norm_eps, hidden_dropout=0.0,
             attention_dropout=0.0, apply_residual_connection_post_layernorm=False, embed_layernorm=False, base_seqlen=8192, training_seqlen=8192,
             logn=False, flash_attn=False), "LlamaForCausalLM of transformers, renamed and packed",
             zero=r"(q_proj|k_proj|v_proj|gate_proj|up_proj)\.bias"))


def define_newer():
    """Classes of transformers that make_llm.py does not have."""
    case("ministral", "Ministral", "window by layer_types", "Ministral-8B", lambda d: dict(head_dim=d.head_dim, sliding_window=d.window, layer_types=[
        "sliding_attention" if i % 2 else "full_attention" for i in range(d.layers)]))
    case("jais2", "Jais2", "LayerNorm, relu squared without a gate, biases everywhere", "Jais-2-8B")
    case("nanochat", "NanoChat", "norms without weights, one behind the embedding, qk-norm after a rotation the other way, softcap", "nanochat-d32")
    case("hyperclovax", "HyperCLOVAX", "norms on both sides, multipliers", "HyperCLOVA X SEED Think", lambda d: dict(
        embedding_multiplier=3.0, residual_multiplier=0.7, attention_multiplier=0.3, logits_scaling=0.5))
    case("granite_swa", "GraniteSWA", "sinks, windows, a base of rotation a layer", "Granite 4 with windows", lambda d: dict(
        embedding_multiplier=3.0, residual_multiplier=0.7, attention_multiplier=0.3, logits_scaling=2.0, sliding_window=d.window, num_hidden_layers=5,
        layer_rope_theta=[500.0, 0, 2000.0, 500.0, 0]))
    case("granitemoe_swa", "GraniteMoeSWA", "as granite_swa with experts", "Granite 4 MoE with windows", lambda d: dict(
        embedding_multiplier=3.0, residual_multiplier=0.7, attention_multiplier=0.3, logits_scaling=2.0, sliding_window=d.window,
        shared_intermediate_size=12, intermediate_size=8))
    case("mellum", "Mellum", "windows and rotations by layer_types, qk-norm, experts, a dense layer", "Mellum 2", lambda d: dict(
        sliding_window=d.window, layer_types=["full_attention" if i % 2 else "sliding_attention" for i in range(d.layers)],
        mlp_layer_types=["sparse" if i else "dense" for i in range(d.layers)], num_local_experts=4, num_experts_per_tok=2,
        rope_parameters=dict(full_attention=g.rope(d, "yarn", factor=4.0, original_max_position_embeddings=16), sliding_attention=fixed_theta(300.0))))
    case("afmoe", "Afmoe", "gated attention, norms on both sides, whole layers that do not turn, sigmoid router with a bias of the choice",
         "Trinity Nano, Trinity Mini", lambda d: dict(sliding_window=d.window, num_experts=4, num_shared_experts=2, num_dense_layers=1, route_scale=1.7,
                                                    mup_enabled=True, layer_types=["full_attention" if i % 2 else "sliding_attention" for i in range(d.layers)]))


def define():
    define_names()
    define_newer()
    ours = "Llama blocks of transformers with modules written from the published code"
    case("hub_bluelm", "Llama", "LayerNorm behind the embedding, ntkmixed frequencies", "BlueLM-7B, also 32K", mha, renamed=Renamed(
        bluelm_table, lambda c, d: hub_common(c, d, "BlueLMForCausalLM", "BlueLM", **llama_like(c), use_stable_embedding=True, rope_theta=10000.0,
                                              rope_scaling=dict(type="ntkmixed", **BLUE)), ours, prepare=use_bluelm))
    case("hub_xverse_moe", "Llama", "softmax router, not renormalised, shared experts", "XVERSE-MoE-A4.2B", lambda d: mha(d, intermediate_size=8),
         renamed=Renamed(
             lambda c: without_mlp(llama_names(c)) + moe_rows(c, "mlp.", 0, 4, PLAIN, rename=lambda n: n.replace("gate.weight", "router.weight") if n == "gate.weight" else n),
             lambda c, d: hub_common(c, d, "XverseForCausalLM", "xverse", **llama_like(c), num_experts=4, moe_top_k=2, num_shared_experts=2),
             ours, prepare=use_moe(lambda d: Moe(SoftmaxGate(d.hidden, 4, 2, False), [Expert(d.hidden, 8) for _ in range(4)], Expert(d.hidden, 16)))))
    case("hub_bailing_moe", "Llama", "packed query_key_value, renormalised softmax router, shared experts, head of unit columns", "Ling-lite, Ling-plus",
         renamed=Renamed(ling_table(0, 4, ("gate.weight",), False), lambda c, d: hub_common(
             c, d, "BailingMoeForCausalLM", "bailing_moe", **llama_like(c), num_key_value_heads=c.num_key_value_heads, moe_intermediate_size=8,
             num_experts=4, num_experts_per_tok=2, num_shared_experts=2, norm_topk_prob=True, norm_head=True, norm_softmax=False, use_bias=False,
             use_qkv_bias=False, first_k_dense_replace=0, rope_theta=d.theta, rope_scaling=None), ours, prepare=use_ling1))
    case("hub_bailing_moe_v2", "Glm4Moe", "packed query_key_value, qk-norm, half rotary, sigmoid router with groups and a bias of the choice, dense first layer",
         "Ling-mini-2.0, Ring-mini-2.0", lambda d: dict(head_dim=8, use_qk_norm=True, n_routed_experts=4, n_group=1, topk_group=1, n_shared_experts=1),
         renamed=Ling2(ling_table(1, 8, ("gate.weight",), True), lambda c, d: hub_common(
             c, d, "BailingMoeV2ForCausalLM", "bailing_moe_v2", **llama_like(c), num_key_value_heads=c.num_key_value_heads,
             head_dim=g.head_sizes(c)[0], moe_intermediate_size=8, num_experts=8, num_experts_per_tok=3, num_shared_experts=1, n_group=4, topk_group=2, norm_topk_prob=True,
             routed_scaling_factor=2.5, score_function="sigmoid", moe_router_enable_expert_bias=True, norm_head=False, use_bias=False, use_qkv_bias=False,
             use_qk_norm=True, partial_rotary_factor=0.5, first_k_dense_replace=1, num_nextn_predict_layers=0, rope_theta=d.theta, rope_scaling=None),
             "Glm4MoeForCausalLM of transformers, renamed and packed, with a mixture written from the published code", prepare=use_ling2))
    case("hub_bailing_moe_v2_5", "DeepseekV3", "lightning attention with turned and normed heads and a norm in groups, latent attention as the last layer of a group "
         "and in what is no whole group", "Ling-2.5-1T, Ring-2.5-1T", lambda d: dict(
             num_hidden_layers=4, kv_lora_rank=8, q_lora_rank=6, qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=8, num_key_value_heads=d.heads,
             attention_bias=True, n_routed_experts=4, n_group=1, topk_group=1, n_shared_experts=1, first_k_dense_replace=1, intermediate_size=12,
             vocab_size=48), pad_side="right",
         renamed=Ling2(ling25_table, lambda c, d: hub_common(
             c, d, "BailingMoeV2_5ForCausalLM", "bailing_hybrid", **{**llama_like(c), "intermediate_size": 12}, num_key_value_heads=c.num_key_value_heads,
             head_dim=8, moe_intermediate_size=4, num_experts=6, num_experts_per_tok=3, num_shared_experts=1, n_group=3, topk_group=2,
             routed_scaling_factor=2.5, score_function="sigmoid", moe_router_enable_expert_bias=True, use_bias=True, use_qkv_bias=True,
             use_qk_norm=True, partial_rotary_factor=0.5, first_k_dense_replace=1, num_nextn_predict_layers=0, rope_theta=d.theta, rope_scaling=None,
             layer_group_size=3, group_norm_size=2, linear_silu=False, kv_lora_rank=8, q_lora_rank=6, qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=8,
             rope_interleave=True), "DeepseekV3ForCausalLM of transformers, renamed, with lightning attention and a mixture written from the published code",
             prepare=use_ling25))
    case("hub_grok", "Gemma2", "four norms with a plain scale, softcap of the scores, multipliers, GELU experts whose weights are not renormalised", "Grok-1",
         lambda d: dict(attn_logit_softcapping=30.0, final_logit_softcapping=None, query_pre_attn_scalar=d.head_dim, tie_word_embeddings=False,
                        sliding_window=64, layer_types=["full_attention"] * d.layers, rope_parameters=fixed_theta()),
         renamed=Renamed(grok_table, lambda c, d: hub_common(
             c, d, "Grok1ModelForCausalLM", "grok-1", **{**llama_like(c), "intermediate_size": 12, "hidden_act": "gelu"}, num_key_value_heads=c.num_key_value_heads,
             **({"head_dim": c.head_dim} if c.head_dim * c.num_attention_heads != c.hidden_size else {}), num_experts=4, num_experts_per_tok=2,
             attn_output_multiplier=c.head_dim ** -0.5, max_attn_value=30.0, embedding_multiplier_scale=math.sqrt(c.hidden_size), output_multiplier_scale=0.5),
             "Gemma2ForCausalLM of transformers, renamed, with a mixture written from the published code",
             prepare=use_moe(lambda d: Moe(SoftmaxGate(d.hidden, 4, 2, False), [Expert(d.hidden, 12, ("linear", "linear_v", "linear_1"), F.gelu) for _ in range(4)]))))
    case("hub_phi3small", "Llama", "block-sparse attention by head, gegelu whose gate and up take turns, LayerNorm, scales of muP",
         "Phi-3-small-8k, Phi-3-small-128k", lambda d: dict(rope_parameters=g.rope(d)), pad_side="right", renamed=Renamed(
             phi3small_table, lambda c, d: hub_common(
                 c, d, "Phi3SmallForCausalLM", "phi3small", hidden_size=c.hidden_size, ff_intermediate_size=c.intermediate_size,
                 num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads, num_key_value_heads=c.num_key_value_heads,
                 hidden_act="gegelu", gegelu_limit=0.8, layer_norm_epsilon=d.eps, max_position_embeddings=64, mup_use_scaling=True,
                 mup_attn_multiplier=0.75, mup_embedding_multiplier=3.0, mup_width_multiplier=4.0, rope_embedding_base=d.theta, rope_position_scale=1.0,
                 rope_scaling=None, blocksparse_homo_head_pattern=False, blocksparse_block_size=BLOCKS["size"],
                 blocksparse_num_local_blocks=BLOCKS["local"], blocksparse_vert_stride=BLOCKS["stride"], dense_attention_every_n_layers=2), ours,
             prepare=use_phi3small))
    case("hub_yuan", "Llama", "localized filtering: two dense causal convolutions before queries and keys, whose halves are mixed; up and gate change places",
         "Yuan2-2B/51B/102B", mha, pad_side="right", renamed=Renamed(yuan_table(False), lambda c, d: hub_common(
             c, d, "YuanForCausalLM", "yuan", **llama_like(c), causal_mask=True, use_flash_attention=False, reset_attention_mask=True), ours,
             prepare=use_yuan(lambda d: d.hidden, False)))
    case("hub_yuan_moe", "Llama", "wider heads of which half turns, a router that attends, packed experts", "Yuan2-M32", mha, pad_side="right",
         renamed=Renamed(yuan_table(True), lambda c, d: hub_common(
             c, d, "YuanForCausalLM", "yuan", **llama_like(c), causal_mask=True, use_flash_attention=False, attention_projection_size=2 * c.hidden_size,
             use_moe=True, moe_config=dict(moe_num_experts=4, moe_top_k=2, norm_topk_prob=True, gated_linear_unit=True, ffn_hidden_size=8)), ours,
             prepare=use_yuan(lambda d: 2 * d.hidden, True)))
    case("hub_baichuan_m1", "Llama", "keys and values mixed with those before, sliding layers with other heads, rows of unit length in the head",
         "Baichuan-M1-14B", lambda d: mha(d, num_key_value_heads=d.kv), pad_side="right", renamed=Renamed(m1_table, lambda c, d: hub_common(
             c, d, "BaichuanM1ForCausalLM", "baichuan_m1", **llama_like(c), num_key_value_heads=c.num_key_value_heads, rope_theta=10000.0,
             sliding_window=4, sliding_window_layers=list(range(1, c.num_hidden_layers, 2)), conv_window=2,
             **dict(zip(("num_swa_attention_heads", "num_swa_key_value_heads"), sliding_heads(c.hidden_size, c.num_attention_heads)))), ours,
             prepare=use_m1))


if __name__ == "__main__":
    sys.exit(g.main(define))
