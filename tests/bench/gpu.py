"""The part of tests/bench/run for GPUs: random models in known shapes, training and decoding, beside PyTorch on the same GPU.

SHAPES="llama-3-8b qwen2.5-7b" names others than all; PARTS=train,decode leaves attention alone out; TRAIN="lora-1x4096 full-4x4096" some
runs of training only; GPU_PEERS=PyTorch leaves Liger's kernels out. What a GPU can do is from its data sheet, for bf16 without sparsity.
"""
import json
import os
import statistics
import subprocess
import sys
import threading

import random_model

PUBLISHED = {"H100 80GB HBM3": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "H100 PCIe": (756e12, 2.0e12), "A100-SXM": (312e12, 2.04e12),
             "GH200": (989e12, 4.0e12), "B200": (2250e12, 8e12), "RTX 4090": (165e12, 1.01e12), "L40": (181e12, 0.86e12)}
# Shape, tuner, records in a batch and tokens in a record.
TRAINED = [("llama-3-8b", "lora", 1, 4096), ("llama-3-8b", "lora", 2, 4096), ("qwen2.5-7b", "lora", 1, 4096),
           ("smollm2-135m", "lora", 4, 4096), ("smollm2-135m", "full", 4, 4096), ("qwen2.5-1.5b", "full", 2, 4096)]


PEERS = {"PyTorch": "", "Liger": "liger"} # and how peer_train.py runs them
PARTS = ["train", "decode", "attention"]
# Tokens, heads, heads of keys, width: of the three trained most.
ATTENTION = [(4096, 32, 8, 128), (4096, 28, 4, 128), (4096, 9, 3, 64)]


def named(variable, known):
    """What a variable of the environment names, words apart, of what there is."""
    names = os.environ.get(variable, "").split()
    wrong = [x for x in names if x not in known]
    if wrong:
        sys.exit(f"bench: {variable}: there is no {wrong[0]}: {', '.join(known)}")
    return names


def asked(what):
    """What nvidia-smi says of the GPUs, a line each."""
    try:
        return subprocess.run(["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"bench: nvidia-smi, which says what the GPU is: {e}")


class Watch:
    """The most memory that the GPU had in use, all processes together, less what was used before."""
    def used(self):
        return max(float(x) for x in asked("memory.used").split()) * 2**20

    def __enter__(self):
        self.base, self.most, self.stop = self.used(), 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        while not self.stop.wait(0.2):
            self.most = max(self.most, self.used() - self.base)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class Gpu:
    def __init__(self, bench, call):
        self.b, self.o, self.t, self.call = bench, bench.o, bench.t, call
        self.name = asked("name").splitlines()[0].strip()
        self.flops, self.bytes = next((v for k, v in PUBLISHED.items() if k in self.name), (float("nan"),) * 2)
        self.shapes = named("SHAPES", list(random_model.SHAPES)) or list(random_model.SHAPES)
        self.wanted = named("TRAIN", [f"{tuner}-{batch}x{length}" for _, tuner, batch, length in TRAINED])
        self.peers = named("GPU_PEERS", PEERS) or PEERS
        print(json.dumps({"name": "gpu", "is": self.name, "bf16_flops": self.flops, "read_bytes": self.bytes}), flush=True)

    def folder(self, shape):
        return self.b.made(f"gpu-{shape}", lambda out: random_model.make(shape, out, self.b.hf["bf16"]))

    def train_one(self, shape, tuner, batch, length):
        folder, b = self.folder(shape), self.b
        config = random_model.SHAPES[shape]
        text, steps = b.work / "long.txt", self.o.steps
        if not text.exists():
            text.write_text(" ".join((r["question"] + " " + r["answer"]).replace("\n", " ") for r in map(json.loads, open(b.text()))))
        shard, batches, _ = b.batches(f"gpu-{batch}x{length}", ["--format", "text", "--text-unit", "file", "--truncate", "split", "-L", length,
                                                                text], batch, steps)
        name = f"{shape}, {tuner}, {batch} x {length}"

        def ours():
            with Watch() as w:
                updates, _, start = b.our_training(shard, None, "bf16", 1e-5, batch, steps, folder, tuner)
            print(json.dumps({"name": name, "who": "swift", "loss": [u["loss"] for u in updates],
                              "tokens_per_second": [u["tokens_per_second"] for u in updates]}), flush=True)
            self.t.sample(name, "swift", statistics.median(u["tokens_per_second"] for u in updates[2:]))
            self.t.sample(f"{name}: memory", "swift", w.most / 2**30)

        def peer(who, how):
            def once():
                try:
                    with Watch() as w:
                        r = b.peer("peer_train.py", folder, "full" if tuner == "full" else b.work / f"gpu-adapter-{shape}", batches, "bf16", 1e-5,
                                   self.o.threads, "cuda", how)
                except SystemExit as e: # out of memory, or not installed
                    print(json.dumps({"name": name, "who": who, "failed": str(e)[-300:]}), flush=True)
                    return
                print(json.dumps({"name": name, "who": who, "loss": r["loss"], "seconds": r["seconds"], "allocated": r["memory"] / 2**30}), flush=True)
                self.t.sample(name, who, statistics.median(t / s for t, s in list(zip(r["tokens"], r["seconds"]))[2:]))
                self.t.sample(f"{name}: memory", who, w.most / 2**30)
            return once
        peers = {who: PEERS[who] for who in self.peers} if self.o.peers else {}
        b.turns(ours, *(peer(who, how) for who, how in peers.items()))
        rate = statistics.median(self.t.samples[name, "swift"])
        weights, attention = random_model.operations(config, length)
        # Backward: of products the gradient of the input, and with `full` of the weight; of attention both.
        each = weights * (3 if tuner == "full" else 2) + attention * 3
        for who in peers or [None]:
            self.t.row(name, "tokens/s", "1.3x, 55 %", who, f"{100 * rate * each / self.flops:.0f} % of {self.flops / 1e12:.0f} TFLOP/s")
            self.t.row(f"{name}: memory", "GiB", "", who)

    def decode_one(self, shape, tokens=4096, new=128, batch=32):
        folder, b = self.folder(shape), self.b
        files = {}
        for name, numbers, n, times in (("prompt", tokens // 3, 1, 2), ("decode", 20, new, 2), ("batch", 20, new, batch)):
            files[name] = b.work / f"gpu-{name}.jsonl"
            files[name].write_text("".join(json.dumps({"prompt": " ".join(str(i + j) for i in range(1, numbers)), "max_tokens": n}) + "\n"
                                           for j in range(times))) # no two begin alike

        def ours():
            def run(name, *more):
                return [json.loads(x) for x in self.call([b.bin / "swift-infer", "-q", "--timing", "--device", self.o.device, "-m", folder, *more,
                                                          files[name]])[0].splitlines()]
            first, second = run("prompt", "-b", 1)
            self.prompt = second["prompt_tokens"]
            self.t.sample(f"{shape}: prompt", "swift", second["prompt_tokens"] / (second["first_token_seconds"] - first["first_token_seconds"]))
            r = run("decode", "-b", 1)[1] # as the peer: the first has warmed up
            self.t.sample(f"{shape}: decode", "swift", (r["completion_tokens"] - 1) / (r["seconds"] - r["first_token_seconds"]))
            rs = run("batch", "-b", batch)
            took = max(r["seconds"] for r in rs) - max(r["first_token_seconds"] for r in rs)
            self.t.sample(f"{shape}: batch of {batch}", "swift", sum(r["completion_tokens"] - 1 for r in rs) / took)

        def peer():
            r = b.peer("peer_generate.py", folder, "cuda", self.prompt, new, batch)
            for name, key in (("prompt", "prompt"), ("decode", "decode"), (f"batch of {batch}", "batch")):
                self.t.sample(f"{shape}: {name}", "transformers", r[key])
        b.turns(ours, *([peer] if self.o.peers else []))
        c = random_model.SHAPES[shape]
        read = random_model.operations(c, 0)[0] # two bytes a weight, as many as operations
        rate = statistics.median(self.t.samples[f"{shape}: decode", "swift"])
        self.t.row(f"{shape}: prompt", "tokens/s", "", "transformers")
        self.t.row(f"{shape}: decode", "tokens/s", "80 %", "transformers", f"{100 * rate * read / self.bytes:.0f} % of {self.bytes / 1e12:.2f} TB/s")
        self.t.row(f"{shape}: batch of {batch}", "tokens/s", "", "transformers")

    def attention_one(self, shape, name):
        tokens, heads, _, width = shape
        operations = 2 * tokens * tokens * heads * width # of two products, half of each

        def ours(warpgroups):
            return json.loads(self.call([self.b.work / "attention", self.o.device, *shape],
                                        env={**os.environ, "SWIFT_WARPGROUPS": warpgroups})[0])
        kinds = {"swift": lambda: ours("1"), "mma.sync": lambda: ours("0")} # the first where the GPU has such
        if self.o.peers:
            kinds["PyTorch"] = lambda: self.b.peer("peer_attention.py", self.o.device, *shape)

        def measured(who):
            r = kinds[who]()
            for way, more in (("forward", 1), ("backward", 2.5)):
                self.t.sample(f"{name} {way}", who, operations * more / r[way] / 1e12)
        self.b.turns(*((lambda who=who: measured(who)) for who in kinds))
        for way in ("forward", "backward"):
            for who in list(kinds)[1:]:
                self.t.row(f"{name} {way}", "TFLOP/s", "", who)

    def attention(self):
        for shape in ATTENTION:
            tokens, heads, key_heads, width = shape
            self.attention_one(shape, f"attention, {tokens} causal tokens, {heads} heads of {width} over {key_heads}:")

    def train(self):
        for shape, tuner, batch, length in TRAINED:
            if shape in self.shapes and (not self.wanted or f"{tuner}-{batch}x{length}" in self.wanted):
                self.train_one(shape, tuner, batch, length)

    def decode(self):
        for shape in self.shapes:
            self.decode_one(shape)
