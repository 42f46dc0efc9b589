/* swift-infer: answers, samples and scores from a model. */
#include "base/interrupt.h"
#include "base/threads.h"
#include "infer.h"
#include "model/model_list.h"
#include "store/hub.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static infer_settings set = {.sampling = {.top_p = 1, .repetition_penalty = 1}, .max_tokens = 512, .batch = 8, .samples = 1, .context = 8192,
                             .skip_special = true};
static int dtype;
static bool list_models;
static int list_as;
static const char *const dtypes[] = {"auto", "f32", "bf16", NULL};
enum { AS_TABLE, AS_JSON, AS_MAN };
static const char *const list_kinds[] = {"table", "json", "man", NULL};

static const sw_opt options[] = {
    SW_GROUP("Model"),
    SW_STR('m', "model", &set.model, "MODEL", "a folder in Hugging Face layout, a GGUF file, or a hub id: see swift-checkpoint(7)"),
    SW_LIST('a', "adapter", &set.adapters, "DIR", "a PEFT folder to hang on the model, unmerged; may be given several times"),
    SW_STR(0, "template", &set.template_source, "NAME|FILE",
           "chat template: a built-in name or a Jinja file; without it the one saved with the adapter, else the model's own, else its family's"),
    SW_STR(0, "agent-template", &set.agent, "NAME", "how the template writes tools and their calls; without it the template's own way"),
    SW_CHOICE(0, "dtype", &dtype, dtypes, "type to compute in; auto takes bf16 where the processor has it, and whole numbers for tokens that meet quantised weights"),
    SW_FLAG(0, "list-models", &list_models, "print the families of models, a line each; swift-models(7) has the same"),
    SW_CHOICE(0, "list-as", &list_as, list_kinds, "with --list-models: lines with tabs (columns on a terminal), JSON Lines, or a manual page"),
    SW_GROUP("Generation"),
    SW_I64('n', "max-tokens", &set.max_tokens, 0, 1 << 24, "N", "tokens of an answer at most"),
    SW_I64(0, "context", &set.context, 2, 1 << 24, "N", "tokens of prompt and answer at most; a model that has learned its places, as GPT-2 has, ends where they do"),
    SW_F64('t', "temperature", &set.sampling.temperature, 0, 100, "X", "0 takes the most likely token each time"),
    SW_I64(0, "top-k", &set.sampling.top_k, 0, 1 << 30, "N", "draw from the N most likely tokens; 0 is all"),
    SW_F64(0, "top-p", &set.sampling.top_p, 1e-6, 1, "X", "draw from the most likely tokens that together have probability X"),
    SW_F64(0, "min-p", &set.sampling.min_p, 0, 1, "X", "draw from tokens with at least X times the best one's probability"),
    SW_F64(0, "repetition-penalty", &set.sampling.repetition_penalty, 1e-3, 100, "X", "divide the logits of tokens seen by X"),
    SW_F64(0, "presence-penalty", &set.sampling.presence_penalty, -100, 100, "X", "take X off the logits of tokens generated so far"),
    SW_F64(0, "frequency-penalty", &set.sampling.frequency_penalty, -100, 100, "X", "the same, times how often they were generated"),
    SW_LIST(0, "stop", &set.stop, "TEXT", "end an answer before TEXT; may be given several times"),
    SW_I64(0, "samples", &set.samples, 1, 1024, "N", "answers a record; each draws other numbers"),
    SW_I64('b', "batch", &set.batch, 1, 4096, "N", "sequences decoded together"),
    SW_GROUP("Input and output"),
    SW_FLAG('c', "chat", &set.chat, "talk on the terminal; on when input and output are one and no file is named"),
    SW_STR(0, "system", &set.system, "TEXT", "system prompt of conversations that bring none"),
    SW_FLAG(0, "score", &set.score, "generate nothing: each record must bring continuations, which are scored (records that do always are)"),
    SW_FLAG(0, "embed", &set.embed, "print the embedding of each text; on for models without a head"),
    SW_FLAG(0, "logprobs", &set.logprobs, "log-probability of each token of the answer, or of the continuation"),
    SW_FLAG(0, "timing", &set.timing, "seconds to the first and to the last token of each answer (the output is then not reproducible)"),
    SW_FLAG(0, "skip-special", &set.skip_special, "leave special tokens out of the text"),
    SW_I64(0, "skip-bad", &set.skip_bad, 0, 1000000000, "N", "leave out up to N bad records instead of stopping at the first"),
    SW_DEVICE_OPT,
    SW_COMMON_OPTS,
    SW_OPT_END};

static const sw_example examples[] = {
    {"talk to a model with an adapter", "swift-infer --model base --adapter out"},
    {"answer a file of prompts", "swift-infer --model base prompts.jsonl > answers.jsonl"},
    {"one question", "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Who are you?\"}]}' | swift-infer --model base"},
    {"log-likelihood of choices",
     "echo '{\"prompt\": \"The sky is\", \"continuations\": [\" blue\", \" loud\"]}' | swift-infer --model base --score"},
    {"families that read what a config.json calls qwen2", "swift-infer --list-models | grep qwen2"},
    {0}};

static const sw_program program = {"swift-infer", "generate text, or score it, with a model", "[FILE...]", options, examples};

static int print_models(void)
{
    sw_buf b = {0};
    if (list_as == AS_JSON)
        sw_model_list_json(&b);
    else if (list_as == AS_MAN)
        sw_model_list_man(&b);
    else
        sw_model_list_table(&b, isatty(1));
    int rc = fwrite(b.at, 1, b.n, stdout) == b.n ? 0 : sw_fail_errno("standard output: write");
    sw_buf_free(&b);
    return rc;
}

static int body(int n, char **files)
{
    static const sw_dtype types[] = {SW_DTYPE_COUNT, SW_F32, SW_BF16};
    if (sw_option_given("list-as") && !list_models)
        return sw_usage("--list-as needs --list-models");
    if (list_models)
        return print_models();
    if (!set.model)
        return sw_usage("--model is needed");
    set.compute = types[dtype];
    set.sampling.seed = (uint64_t)sw_common_opts.seed;
    if (!sw_option_given("chat"))
        set.chat = !n && isatty(0) && isatty(1);
    if (set.chat + set.score + set.embed > 1)
        return sw_usage("--chat, --score and --embed exclude each other");
    static const char *const of_files[] = {"samples", "logprobs", "timing", "skip-bad"};
    for (size_t i = 0; set.chat && i < SW_COUNT(of_files); i++)
        if (sw_option_given(of_files[i]))
            return sw_usage("--%s is for records, not for a conversation", of_files[i]);
    if (set.chat && n)
        return sw_usage("--chat reads no file; '%s' is one word too many", files[0]);
    sw_interrupt_install();
    if (set.chat)
        set.batch = 1;
    if (sw_model_paths(set.adapters.at, set.adapters.n))
        return -1;
    infer_session s;
    int rc = infer_open(&s, &set);
    if (!rc)
        rc = set.chat ? infer_chat(&s) : infer_batch(&s, files, n);
    infer_close(&s);
    return rc;
}

int main(int argc, char **argv)
{
    sw_threads_wait_briefly(argv);
    return sw_main(&program, argc, argv, body);
}
