/* The tasks that come with the program, each the text of a task file. */
#include "eval.h"

/* The preprocessor makes the JSON text a string: what stands here is what `swift-eval tasks NAME` prints. */
#define TASK(...) #__VA_ARGS__

// clang-format off
const char *const eval_builtin_tasks[] = {
TASK({
    "name": "gsm8k",
    "summary": "grade-school mathematics: the number after ####, or the last number of the answer",
    "needs": ["question", "answer"],
    "chat": true,
    "input": "{% if chat %}{{ question }}{% else %}Question: {{ question }}\nAnswer:{% endif %}",
    "output": "{{ answer }}",
    "answer": "{{ answer }}",
    "answer_extract": "####\\s*(\\S.*)$",
    "max_tokens": 512,
    "stop": ["Question:", "\n\n\n"],
    "score": "match",
    "metrics": [
        {"name": "strict-match", "extract": {"regex": "####\\s*([-+−]?\\$?(?:[0-9][0-9,]*(?:\\.[0-9]+)?|\\.[0-9]+))", "which": "first"}, "normalise": ["number"]},
        {"name": "flexible-extract", "extract": "(?:(?<![0-9)])[-−])?\\$?(?:[0-9][0-9,]*(?:\\.[0-9]+)?|\\.[0-9]+)", "normalise": ["number"]}
    ]
}),
TASK({
    "name": "bbh",
    "summary": "BIG-Bench Hard: the exact answer, after reasoning; every file is a group",
    "rows": "examples",
    "needs": ["input", "target"],
    "group": "{{ file }}",
    "chat": true,
    "input": "Q: {{ input }}\nA: Let's think step by step. End with \"So the answer is\" and the answer.",
    "output": "{% if rationale %}{{ rationale }} {% endif %}So the answer is {{ target }}.",
    "answer": "{{ target }}",
    "max_tokens": 1024,
    "stop": ["\n\nQ:", "\nQ: "],
    "score": "match",
    "metrics": [
        {"name": "strict-match", "extract": {"regex": "the answer is:?\\s+(.+?)\\s*\\.?\\s*(?:\\n|$)", "which": "first"}, "normalise": ["whitespace"]},
        {"name": "flexible-extract", "normalise": ["case", "whitespace", "number", "letter"], "extract": [
            {"when": "^\\([A-Z]\\)$", "regex": "(?i)answer(?: is|:)?:?\\s*\\*{0,2}\\(?([A-Z])\\b"},
            {"when": "^\\([A-Z]\\)$", "regex": "\\(([A-Z])\\)"},
            {"when": "^-?[0-9]+$", "regex": "[-−]?[0-9][0-9,]*(?:\\.[0-9]+)?"},
            {"when": "(?i)^(yes|no)$", "regex": "(?i)\\b(yes|no)\\b"},
            {"when": "(?i)^(true|false)$", "regex": "(?i)\\b(true|false)\\b"},
            {"when": "(?i)^(in)?valid$", "regex": "(?i)\\b((?:in)?valid)\\b"},
            {"regex": "(?i)the answer is:?\\*{0,2}:?\\s+\\*{0,2}(.+?)\\s*\\.?\\*{0,2}\\s*\\.?\\s*(?:\\n|$)"},
            {"regex": "(?s)^.*$", "which": "first"}
        ]}
    ]
}),
TASK({
    "name": "exact",
    "summary": "the whole answer is the right one: records with messages, prompt or query, and an answer",
    "needs": ["messages|prompt|query|question", "answer|response|last"],
    "messages": "messages",
    "chat": true,
    "input": "{% if query is defined %}{{ query }}{% elif prompt is defined %}{{ prompt }}{% else %}{{ question }}{% endif %}",
    "output": "{% if answer is defined %}{{ answer }}{% elif response is defined %}{{ response }}{% else %}{{ last }}{% endif %}",
    "answer": "{% set right = answer if answer is defined else response if response is defined else last %}{% if right is string or right is number %}{{ right }}{% else %}{{ raise_exception('the right answer is a text or a number; a task of your own can say which part of a list or an object it is') }}{% endif %}",
    "max_tokens": 256,
    "score": "match",
    "metrics": [{"name": "exact-match"}]
}),
TASK({
    "name": "choice",
    "summary": "the choice with the highest log-probability, as it is (acc) or by its length (acc_norm)",
    "needs": ["question", "choices", "answer"],
    "choices": "choices",
    "input": "Question: {{ question }}\nAnswer:",
    "output": "{{ choice }}",
    "continuation": " {{ choice }}",
    "answer": "{{ answer }}",
    "score": "choice"
}),
TASK({
    "name": "perplexity",
    "summary": "how well texts are predicted: token and word perplexity, bits a byte",
    "needs": ["text"],
    "text": "text",
    "input": "{{ prefix }}",
    "score": "perplexity",
    "part_bytes": 6000,
    "context_bytes": 2000
}),
NULL};
