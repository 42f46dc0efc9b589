#include "tokenize.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "store/hub.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tokenize_options o = {.out = "-", .train_on = SW_TRAIN_ASSISTANT, .pack_window = 4096, .end_token = true};

static const char *const train_on_names[] = {"all", "assistant", "last", NULL};
static const char *const truncate_names[] = {"drop", "left", "right", "split", NULL};
static const char *const input_names[] = {"auto", "jsonl", "json", "csv", "text", NULL};
static const char *const unit_names[] = {"line", "paragraph", "file", NULL};

static const sw_opt options[] = {
    SW_GROUP("Model"),
    SW_STR('m', "model", &o.model, "M", "folder, GGUF file, tokenizer.json or hub id whose tokenizer and chat template to use"),
    SW_STR('t', "template", &o.template_source, "T",
           "chat template: a file of Jinja, or the name of a built-in one; without it, the model's own"),
    SW_GROUP("Input"),
    SW_CHOICE('f', "format", &o.format, sw_format_names,
              "what the records are; auto looks at the fields of each record (see Data formats in the manual)"),
    SW_CHOICE(0, "input-kind", &o.input_kind, input_names,
              "what the files are; auto goes by the name's ending, then by the first byte"),
    SW_CHOICE(0, "text-unit", &o.text_unit, unit_names, "what of a plain text file makes one record"),
    SW_STR(0, "system", &o.system, "TEXT", "system message for conversations that bring none"),
    SW_LIST(0, "fill", &o.fill, "NAME=VALUE", "replace each {{NAME}} in the data by VALUE; may be repeated"),
    SW_I64(0, "skip-bad", &o.skip_bad, 0, 9007199254740992.0, "N",
           "leave out up to N bad records, with a warning each, instead of stopping at the first"),
    SW_I64(0, "limit", &o.limit, 0, 9007199254740992.0, "N", "stop after N records; 0 is all"),
    SW_GROUP("Records"),
    SW_CHOICE(
        0, "train-on", &o.train_on, train_on_names,
        "which tokens of a conversation are labels: all but the first, the assistant's turns with their end-of-turn "
        "token, or the last such turn"),
    SW_FLAG(0, "end-token", &o.end_token, "end plain texts and completions with the tokenizer's end token"),
    SW_I64('L', "max-length", &o.max_length, 0, 2147483647.0, "N", "longest record in tokens; 0 is no limit"),
    SW_CHOICE(
        0, "truncate", &o.truncate, truncate_names,
        "what happens to a longer one: leave it out, cut its beginning (left) or its end (right), or split it into "
        "several"),
    SW_FLAG('p', "packing", &o.packing, "pack several documents into each record, up to --max-length"),
    SW_I64(0, "pack-window", &o.pack_window, 1, 1000000, "N", "documents that are packed together"),
    SW_GROUP("Output"),
    SW_STR('o', "out", &o.out, "FILE", "shard to write; - is standard output"),
    SW_F64(0, "val-split", &o.val_split, 0, 0.999, "SHARE",
           "put this share of the records, chosen by their content and --seed, into --val-out instead"),
    SW_STR(0, "val-out", &o.val_out, "FILE", "shard for validation"),
    SW_FLAG(0, "inspect", &o.inspect, "print the records of shards, a line a token, with the text if --model is given"),
    SW_COMMON_OPTS,
    SW_OPT_END,
};

static const sw_example examples[] = {
    {"Tokenise conversations and train on them",
     "swift-tokenize --model M train.jsonl | swift-train --model M --tuner lora --out out"},
    {"Make shards once, with a twentieth for validation",
     "swift-tokenize --model M --max-length 2048 --packing --val-split 0.05 --val-out val.shard --out train.shard "
     "*.jsonl"},
    {"See what the model will see", "swift-tokenize --inspect --model M --limit 2 train.shard | less"},
    {0},
};

const sw_program swift_tokenize = {
    .name = "swift-tokenize",
    .summary = "turn training data into token shards",
    .operands = "[FILE...]",
    .opts = options,
    .examples = examples,
};

static int check_usage(void)
{
    if (o.inspect)
        return 0;
    if (!o.model)
        return sw_usage("--model is needed: its tokenizer makes the tokens");
    if (o.packing && !o.max_length)
        return sw_usage("--packing needs --max-length, the size of a pack");
    if (sw_option_given("truncate") && !o.max_length)
        return sw_usage("--truncate needs --max-length");
    if ((o.val_split > 0) != (o.val_out != NULL))
        return sw_usage("--val-split and --val-out need each other");
    if (o.val_out && !strcmp(o.val_out, o.out))
        return sw_usage("--out and --val-out are the same file");
    sw_dataset_options d = {.fill = &o.fill};
    return sw_dataset_check(&d) ? sw_usage("%s", sw_error()) : 0;
}

/* A terminal is asked before anything is read. */
static int check_terminal(void)
{
    if (!o.inspect && !strcmp(o.out, "-") && isatty(STDOUT_FILENO))
        return sw_fail(
            "a shard is binary and standard output is a terminal; give --out FILE, or a pipe to swift-train");
    return 0;
}

static int tokenize(const sw_tokenizer *t, int n, char **operands)
{
    bool plain = o.format == SW_FORMAT_TEXT || o.format == SW_FORMAT_COMPLETION;
    tokenize_job job = {.o = &o, .tokenizer = t, .end_token = -1};
    job.dataset = (sw_dataset_options){.format = (sw_format)o.format, .system = o.system, .fill = &o.fill};
    sw_template *m = NULL;
    if (o.template_source || (!plain && sw_tokenizer_chat_template(t))) {
        m = sw_template_load(t, o.template_source);
        if (!m)
            return -1;
        job.template = m;
        job.end_token = sw_template_end_token(m);
    }
    int rc = tokenize_run(&job, n, operands);
    sw_template_free(m);
    return rc;
}

static int body(int n, char **operands)
{
    int status = check_usage();
    if (status)
        return status;
    sw_interrupt_install();
    if (check_terminal())
        return -1;
    sw_tokenizer *t = NULL;
    if (o.model) {
        char *path = sw_tokenizer_path(o.model);
        t = path ? sw_tokenizer_load(path) : NULL;
        free(path);
        if (!t)
            return -1;
    }
    int rc = o.inspect ? tokenize_inspect(&o, t, n, operands) : tokenize(t, n, operands);
    sw_tokenizer_free(t);
    return rc;
}

int main(int argc, char **argv) { return sw_main(&swift_tokenize, argc, argv, body); }
