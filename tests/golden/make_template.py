#!/usr/bin/env python3
"""Makes the golden of built-in chat formats: make_template.py --reference DIR --out DIR

DIR of --reference holds templates.jsonl and agent_templates.jsonl, a census of ms-swift's formats with worked examples of
its agent formats. Conversations are put together here in Python from those rows, by the rules that the census states; the
golden holds what each format and each agent format must render. tokenizer.json is one token a byte, with <s> and </s>."""
import argparse, json, os

AGENT_HOME = {  # a format whose marks the examples of an agent format were made with
    "hermes": "qwen2_5", "hunyuan_hermes": "qwen2_5", "qwen3_coder": "qwen2_5", "qwen3_5": "qwen2_5", "minicpm5": "qwen2_5",
    "llama3": "llama3", "llama4": "llama4", "deepseek_v3_1": "deepseek_v3_1", "deepseek_v4": "deepseek_v4", "seed_oss": "seed_oss",
    "minimax_m2": "minimax_m2", "minimax_m3": "minimax_m3_vl", "gemma4": "gemma4", "youtu": "youtu_llm", "kimi_k25": "kimi_k25",
    "kimi_k3": "kimi_k3", "hy_v3": "hy_v3", "hy_v3_preview": "hy_v3_preview", "chatglm4": "chatglm4", "glm4": "glm4",
    "glm4_5": "glm4_5", "glm4_7": "glm4_7", "glm5_1": "glm5_1", "mistral": "mistral_2512"}
BOS, EOS = "<s>", "</s>"


def dumps(o):
    return json.dumps(o, ensure_ascii=False, separators=(",", ":"))


def byte_names():
    plain, other, names = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256)), 0, {}
    for i in range(256):
        names[i] = chr(i if i in plain else 256 + other)
        other += i not in plain
    return names


VOCABULARY = byte_names()


class Unrenderable(Exception):
    pass


def text(pieces, system="", query="", round_=0):
    out = ""
    for p in pieces:
        if isinstance(p, str):
            p = p.replace("{{SYSTEM}}", "\0S").replace("{{system}}", "\0S").replace("{{QUERY}}", "\0Q")
            p = p.replace("{{ROUND0}}", str(round_)).replace("{{ROUND1}}", str(round_ + 1))
            out += p.replace("\0S", system).replace("\0Q", query)
            continue
        for x in p:
            if isinstance(x, int):
                if x not in VOCABULARY:
                    raise Unrenderable("which this vocabulary does not have")
                out += VOCABULARY[x]
                continue
            out += {"bos_token_id": BOS, "eos_token_id": EOS, "user_token_id": "<_user>", "bot_token_id": "<_bot>"}[x]
    return out


def think_marks(row):
    if row["name"] in ("gemma4", "diffusion_gemma"):
        return "<|channel>thought\n", "<channel|>"
    if row["name"] == "kimi_k3":
        return "<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"
    t = (row.get("thinking_prefix") or "").strip()
    return (t, t.replace("<", "</")) if t.startswith("<") else ("<think>", "</think>")


def rewrapped(s):
    s = s.strip()
    if "</think>" in s and "<think>" in s:
        before, _, after = s.partition("</think>")
        s = "<think>\n" + before.rstrip("\n").rsplit("<think>", 1)[-1].lstrip("\n").strip() + "\n</think>\n\n" + after.lstrip("\n")
    return s


def ernie_response(s):
    if "<response>" in s:
        return s
    if "</think>" not in s:
        return "<response>\n" + s + "\n</response>\n"
    s = s.replace("</think>", "</think>\n\n<response>\n") + "\n</response>"
    return s if "<think>\n" in s else s.replace("<think>", "<think>\n")


def kimi_k3_channels(s):
    a, b, c = "<|open|>think<|sep|>", "<|close|>think<|sep|>", "<|open|>response<|sep|>"
    if s.startswith(a):
        return s
    thought, found, answer = s[7:].partition("</think>") if s.startswith("<think>") else ("", "x", s)
    return a + thought + (b + c + answer + "<|close|>response<|sep|>" if found else "")


XHIGH = ("Reasoning effort is set to xhigh. Please think carefully through the task, validate key assumptions, consider plausible "
         "alternatives, and prioritize correctness, consistency, and clarity in the final answer.")
M3 = ("Your model version is MiniMax-M3, developed by MiniMax. Knowledge cutoff: January 2026. Founded in early 2022, MiniMax is a global AI "
      "foundation model company committed to advancing the frontiers of AI towards AGI.\n\n<thinking_instructions>\nYou have a thinking "
      "capability that allows you to reason step by step before responding. When thinking is enabled, wrap your reasoning in "
      "<mm:think></mm:think> tags before your response. When thinking is disabled, begin your response directly after the </mm:think> prefix. "
      "When thinking is adaptive, decide on your own whether to think for the current turn.\nCurrent thinking mode: disabled. Do not output any "
      "thinking process.\n</thinking_instructions>[e~[\n]~b]developer\n")
SEED = ("You are an intelligent assistant that can answer questions in one step without the need for reasoning and thinking, that is, your "
        "thinking budget is 0. Next, please skip the thinking process and directly start answering the user's questions.\n")
SEED_ANSWER = ("<seed:think><seed:cot_budget_reflect>The current thinking budget is 0, so I will directly start answering the question."
               "</seed:cot_budget_reflect>\n</seed:think>")
# What ms-swift's template classes do beside their rows ("code_hooks"): to every text, to the system text, to an answer.
TEXT = {**{n: lambda s, role: s.strip("\n") if role == "assistant" else s for n in ("gemma3_text", "gemma3_vision", "gemma3n")},
        **{n: lambda s, role: rewrapped(s) if role == "assistant" else s.strip() for n in ("qwen3_5", "qwen3_8", "ovis_ocr2", "qwen3_5_emb")}}
SYSTEM = {
    "gemma4": lambda s, on: ("<|think|>\n" if on else "") + s, "diffusion_gemma": lambda s, on: ("<|think|>\n" if on else "") + s,
    "glm5_2": lambda s, on: (s if not on else "Reasoning Effort: Max" + ("<|system|>" + s if s else "")),
    "qwen3_8": lambda s, on: s if not on else XHIGH + ("\n\n" + s if s else ""),
    "hy_v3": lambda s, on: s + "<｜reasoning_mode:opensource｜>reasoning_effort:" + ("high" if on else "no_think"),
    "hy_v3_preview": lambda s, on: s + "<｜reasoning_mode｜>reasoning_effort:" + ("high" if on else "no_think"),
    "kimi_k25": lambda s, on: s if not s or "<|im_middle|>" in s else "system<|im_middle|>" + s,
    "kimi_k3": lambda s, on: s if not s or "<|sep|>" in s else 'role="system"<|sep|>' + s,
}
SYSTEM["minimax_m3_vl"] = lambda s, on: M3 + s
SYSTEM["seed_oss"] = lambda s, on: (s + "<seed:eos><seed:bos>system\n" if s else "") + SEED
ANSWER = {"seed_oss": lambda s: SEED_ANSWER + s, "ernie_thinking": ernie_response, "kimi_k3": kimi_k3_channels}
NEWLINE = ("glm4", "chatglm4", "codegeex4", "glm4_5", "glm4_z1_rumination")  # no line end where the model begins, nor before a call
TODAY = ("gpt_oss", "internvl3_5_gpt", "muse_glimmer")  # these write the date


def render(row, messages, generate, tools_system=None, calls=None, results=None):
    """messages: (role, text); role call: the calls of the example; role result: its results, rendered."""
    system = row["default_system"]
    if messages[0][0] == "system":
        system, messages = messages[0][1], messages[1:]
    name, head = (row["name"], "") if row["source"] == "HEAD" else ("", "")
    messages = [(r, TEXT[name](t, r) if name in TEXT and r != "call" else t) for r, t in messages]
    if name.startswith("gemma3") and system:
        head, system = system + "\n\n", None
    elif name in TEXT and system:
        system = TEXT[name](system, "system")
    if tools_system is not None:
        system = tools_system(system or "")
        if name in ("hy_v3", "hy_v3_preview"):
            mark = ":opensource" if name == "hy_v3" else ""
            call = "you should print </tool_calls" + mark + ">"
            system = system.replace(call, call + "<｜reasoning_mode" + mark + "｜>reasoning_effort:high")
    if name in SYSTEM and not (tools_system is not None and name.startswith("hy_v3")):
        system = SYSTEM[name](system or "", bool(row.get("is_thinking")))
    old_nemo = row["source"] != "HEAD" and any("{{SYSTEM}}" in p for p in row["prompt"] if isinstance(p, str))
    prompt, system_prompt = row["prompt"], row.get("system_prompt")
    if old_nemo:
        prompt, system_prompt = prompt[1:], prompt
    if system and row["system_prefix"] is None and not system_prompt:
        raise Unrenderable("no place for a system text")
    out = BOS if row["auto_add_bos"] else ""
    out += text(row["system_prefix"] if system and row["system_prefix"] is not None else row["prefix"], system or "")
    last_user = max(i for i, m in enumerate(messages) if m[0] == "user")
    if row["chat_sep"] is None:
        messages, last_user = messages[last_user:], 0
    opening, closing = think_marks(row)
    no_thinking, round_ = row.get("non_thinking_prefix") or "", 0
    thinks = row.get("is_thinking") and name != "minimax_m3_vl"  # which does not think unless told to
    tail = ((row.get("thinking_prefix") or "") if thinks else no_thinking) if generate else ""
    if generate and name == "seed_oss":
        tail += "<seed:think><seed:cot_budget_reflect>"
    if name in NEWLINE and tail.endswith("<think></think>\n"):
        tail = tail[:-1]
    for i, (role, content) in enumerate(messages):
        bare = name in NEWLINE and (i + 1 < len(messages) and messages[i + 1][0] == "call" or i + 1 == len(messages) and generate and not tail)
        after = messages[i - 1][0] if i else ""
        if role == "user":
            turn = text(system_prompt if system_prompt and system and i == last_user else prompt, system or "", head + content, round_)
            out += turn[:-1] if bare and turn.endswith("<|assistant|>\n") else turn
            round_, head = round_ + 1, ""
        elif role == "result":
            out += "".join(results)
        else:
            answer = calls if role == "call" else ANSWER[name](content) if name in ANSWER else content
            if role == "call" and name in ("kimi_k3", "seed_oss"):
                answer = ANSWER[name]("") + calls
            unmarked = name == "youtu_llm" and any(m[0] in ("assistant", "call") for m in messages[i + 1:])  # the last answer only
            if no_thinking and not unmarked and not (row.get("non_thinking_prefix_only_after_user") and after == "result"):
                if not answer.startswith(opening) and not answer.startswith(no_thinking):
                    answer = no_thinking + answer
            if row.get("is_thinking") and not row.get("preserve_thinking") and name != "kimi_k3" and i < last_user and closing in answer:
                if name == "hunyuan":
                    answer = answer.split("<answer>")[-1].rstrip().removesuffix("</answer>").strip()
                else:
                    answer = answer.split(closing)[-1].strip()
                answer = row["history_thinking_prefix"] + answer
            following = messages[i + 1][0] if i + 1 < len(messages) else ""
            out += answer
            if following == "user":
                out += text(row["chat_sep"])
            elif not following:
                end = text(row["suffix"])
                if not answer.endswith(tuple([end.strip()] if end.strip() else []) + tuple(row["stop_words"])):
                    out += end
    return out + tail


def cases(rows, agents):
    S, U1, A1, U2, A2 = ("system", "Be {brief}."), ("user", "q1 é"), ("assistant", "a1"), ("user", "q2\n"), ("assistant", "a2")
    thought = lambda r, t: ("assistant", think_marks(r)[0] + "\nhm\n" + think_marks(r)[1] + "\n\n" + t)
    seen = set()
    for row in rows:
        name = row["name"] + ("@2.3" if row["name"] in seen else "")
        seen.add(name)
        talks = [([S, U1, A1, U2, A2], False), ([U1, A1, U2], True)]
        if row.get("is_thinking"):
            talks.append(([U1, thought(row, "a1"), U2, thought(row, "a2")], False))
        for messages, generate in talks:
            case = {"template": name, "add_generation_prompt": generate, "messages": [{"role": r, "content": c} for r, c in messages]}
            try:
                yield {**case, "rendered": render(row, messages, generate)}
            except Unrenderable as e:
                yield {**case, "error": str(e)}
    by_name = {r["name"]: r for r in rows if r["source"] == "HEAD"}
    for a in agents:
        row = by_name[AGENT_HOME.get(a["name"], "chatml")]
        results = a["responses_out"]
        if results is None:  # mistral's calls end as its answers do, and are not ended twice
            results = [text(row["prompt"], "", "".join(
                ("\n" if i else "") + "[TOOL_RESULTS]" + json.dumps({"content": r}) + "[/TOOL_RESULTS]" for i, r in enumerate(a["responses_in"])))]
        names = [c["name"] for c in a["calls_in"]]
        talk = [("system", a["example_system_in"]), ("user", "QUERY"), ("call", ""), ("result", ""), ("assistant", "done")]
        if a["user_out"]:
            talk[1] = ("user", a["user_out"])
        try:
            out = render(row, talk, False, lambda s: a["system_out"], a["calls_out"], results)
        except Unrenderable as e:
            raise SystemExit("%s: %s" % (a["name"], e))
        for k in ("gemma4", "kimi_k25"):  # names and ids that the example's results do not have
            if a["name"] == k:
                names = []
        messages = [{"role": "system", "content": "SYSTEM"}, {"role": "user", "content": "QUERY"},
                    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": c} for c in a["calls_in"]]}]
        for i, r in enumerate(a["responses_in"]):
            messages.append({"role": "tool", "content": r, **({"name": names[i]} if names else {})})
        messages.append({"role": "assistant", "content": "done"})
        yield {"template": row["name"], "agent": a["name"], "add_generation_prompt": False, "tools": [a["example_tool"]],
               "messages": messages, "rendered": out, "calls_text": a["calls_out"], "calls": a["calls_in"]}


def tokenizer(path):
    vocab = {name: i for i, name in VOCABULARY.items()}
    added = [{"id": 256 + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, t in enumerate([BOS, EOS])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {BOS: {"id": BOS, "ids": [256], "tokens": [BOS]}}}
    with open(path, "w", encoding="utf-8") as f:
        f.write(dumps({"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": level, "post_processor": post,
                       "decoder": level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--reference", required=True)
    ap.add_argument("--out", required=True)
    o = ap.parse_args()
    read = lambda name: [json.loads(l) for l in open(os.path.join(o.reference, name), encoding="utf-8")]
    rows, agents = read("templates.jsonl"), read("agent_templates.jsonl")
    rows = [r for r in rows if r["name"] not in TODAY and "23 Nov 2026" not in dumps(r) and "2026-11-23" not in dumps(r)]  # today's date is in them
    os.makedirs(o.out, exist_ok=True)
    tokenizer(os.path.join(o.out, "tokenizer.json"))
    with open(os.path.join(o.out, "tokenizer_config.json"), "w") as f:
        f.write(dumps({"bos_token": BOS, "eos_token": EOS}))
    n = 0
    with open(os.path.join(o.out, "cases.jsonl"), "w", encoding="utf-8", newline="\n") as f:
        for c in cases(rows, agents):
            f.write(dumps(c) + "\n")
            n += 1
    print(n, "cases")


if __name__ == "__main__":
    main()
