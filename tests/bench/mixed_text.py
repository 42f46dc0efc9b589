#!/usr/bin/env python3
"""Text of several sorts for the tokenizer benchmark, the same for the same size: English prose, program text, and Chinese, in
words of Zipf's frequencies. mixed_text.py MEGABYTES > FILE; a line is a paragraph, a function, or a few sentences."""
import random
import sys

ENGLISH = ("the of and to a in is that it was for on are as with they at be this from have or by one had not but what all were when we there can an "
           "your which their said if do will each about how up out them then she many some so these would other into has more her two like him see "
           "time could no make than first been its who now people my made over did down only way find use may water long little very after words "
           "called just where most know get through back much before go good new write our used me man too any day same right look think also around "
           "another came come work three word must because does part even place well such here take why things help put years different away again "
           "government international responsibility understanding temperature particularly communication nevertheless environment approximately "
           "mathematics consequence photograph laboratory experiment significant development organisation independent characteristic").split()
NAMES = ("i j n k x y data count index buffer length value result node left right next head size offset parser token stream config options state "
         "request response handler context error message table column row key item items total").split()
CHINESE = ("的 一 是 不 了 在 人 有 我 他 这 个 们 中 来 上 大 为 和 国 地 到 以 说 时 要 就 出 会 可 也 你 对 生 能 而 子 那 得 于 着 下 自 之 年 过 发 后 作 里 "
           "我们 他们 没有 可以 自己 知道 时候 什么 因为 现在 问题 工作 已经 这样 社会 经济 发展 中国 世界 技术 学习 研究 系统 数据 语言 模型 训练 计算机 "
           "人工智能 机器 城市 生活 文化 历史 教育 科学 朋友 孩子 老师 学生 公司 市场 政府 国家 国际 环境 方法 结果").split()


def pick(r, words):
    return words[min(int(r.paretovariate(0.9)) - 1, len(words) - 1)] if r.random() < 0.7 else r.choice(words)


def sentence(r):
    words = [pick(r, ENGLISH) for _ in range(r.randint(5, 24))]
    if r.random() < 0.2:
        words[r.randrange(len(words))] = f"{r.randint(1, 99999)}"
    if r.random() < 0.15:
        words[r.randrange(len(words))] = r.choice(["don't", "it's", "we'll", "they're", "I've"])
    return (" ".join(words)).capitalize() + r.choice([".", ".", ".", "?", "!", ";"])


def code(r):
    a, b, c = (pick(r, NAMES) for _ in range(3))
    return r.choice([
        f"    for (int {a} = 0; {a} < {b}->{c}; {a}++) {{ {b}->{c}[{a}] += {r.randint(0, 255)}; }}",
        f"def {a}_{b}(self, {c}=None):    return [{b} for {b} in self.{a} if {b} is not {c}]",
        f"if (!{a} || {b}_init(&{c}, sizeof({a})) != 0) return -E{a.upper()};    /* {sentence(r)} */",
        f"\t\tconst {a} = await fetch(`https://example.org/{b}/${{{c}}}?page={r.randint(1, 50)}`);",
        f"SELECT {a}, COUNT(*) AS {b} FROM {c}s WHERE {a} >= {r.random():.4f} GROUP BY {a} ORDER BY {b} DESC LIMIT {r.randint(1, 100)};",
        f"    self.{a}.{b}[\"{c}\"] = {{\"{a}\": {r.randint(0, 10**6)}, \"{b}\": \"{c}-{r.randint(0, 99)}\"}}"])


def chinese(r):
    return "，".join("".join(pick(r, CHINESE) for _ in range(r.randint(3, 10))) for _ in range(r.randint(1, 4))) + "。"


def main():
    r, size, want = random.Random(1), 0, float(sys.argv[1]) * 1e6
    while size < want:
        part = r.choice([lambda: " ".join(sentence(r) for _ in range(4)), lambda: code(r), lambda: "".join(chinese(r) for _ in range(4))])()
        size += len(part.encode()) + 1
        print(part)


if __name__ == "__main__":
    main()
