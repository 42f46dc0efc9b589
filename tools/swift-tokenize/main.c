#include "tokenize.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "store/hub.h"
#include "text/template_format.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tokenize_options o = {.out = "-",
                             .train_on = SW_TRAIN_ASSISTANT,
                             .pack_window = 4096,
                             .end_token = true,
                             .max_record = 64 << 20,
                             .dedup_memory = 256 << 20,
                             .dedup_threshold = 0.8};

static const char *const train_on_names[] = {"all", "assistant", "last", NULL};
static const char *const truncate_names[] = {"drop", "left", "right", "split", NULL};
static const char *const input_names[] = {"auto", "jsonl", "json", "csv", "text", NULL};
static const char *const unit_names[] = {"line", "paragraph", "file", NULL};
static const char *const mix_names[] = {"concat", "once", "first", "all", NULL};
static const char *const strategy_names[] = {"binpack", "sequential", "wrapped", NULL};
static const char *const dedup_names[] = {"none", "exact", "near", NULL};
static const char *const list_kinds[] = {"table", "json", "man", NULL};
static const char *const utf8_names[] = {"fail", "replace", NULL};

static const sw_opt options[] = {
    SW_GROUP("Model"),
    SW_STR('m', "model", &o.model, "M",
           "folder, GGUF file, tokenizer.json or hub id whose tokenizer and chat template to use"),
    SW_STR('t', "template", &o.template_source, "T",
           "chat template: a file of Jinja, or the name of a built-in one; without it, the model's own, else that of its family"),
    SW_STR(0, "agent-template", &o.agent, "NAME",
           "how a built-in template writes tools, calls and results; without it, the template's own way"),
    SW_FLAG(0, "list-templates", &o.list_templates, "print the built-in templates, a line each: name, agent template, end of an answer"),
    SW_CHOICE(0, "list-as", &o.list_as, list_kinds,
              "with --list-templates: lines with tabs, JSON Lines with all pieces of each, or a manual page"),
    SW_GROUP("Input"),
    SW_CHOICE('f', "format", &o.format, sw_format_names,
              "what the records are; auto looks at the fields of each record (see Data formats in the manual)"),
    SW_CHOICE(0, "input-kind", &o.input_kind, input_names,
              "what the files are; auto goes by the name's ending, then by the first byte"),
    SW_CHOICE(0, "text-unit", &o.text_unit, unit_names, "what of a plain text file makes one record"),
    SW_CHOICE(0, "task", &o.task, sw_task_names,
              "what the records are for; auto goes by their fields (see Tasks in the manual)"),
    SW_STR(0, "labels", &o.labels, "N|NAMES",
           "the classes of texts (--task classify) or words: how many, or their names with commas between; without it, those of the model's "
           "config.json"),
    SW_LIST(0, "map", &o.map, "OLD=NEW",
            "rename a column before anything else looks at it; OLD= leaves it out; may be repeated"),
    SW_LIST(0, "carry", &o.carry, "COLUMN", "hand a column on as it is, * all of them; may be repeated"),
    SW_CHOICE(0, "mix", &o.mix, mix_names,
              "several files: one after the other, or interleaved by chance, each record once, until the first file "
              "has ended, or "
              "until all have ended once while those that end earlier begin again"),
    SW_STR(0, "system", &o.system, "TEXT", "system message for conversations that bring none"),
    SW_LIST(0, "fill", &o.fill, "NAME=VALUE", "replace each {{NAME}} in the data by VALUE; may be repeated"),
    SW_I64(0, "skip-bad", &o.skip_bad, 0, 9007199254740992.0, "N",
           "leave out up to N bad records, with a warning each, instead of stopping at the first"),
    SW_SIZE(0, "max-record", &o.max_record, "SIZE",
            "longest row of a file, at most 1 GiB; a longer one is a bad record"),
    SW_CHOICE(0, "utf8-errors", &o.utf8_errors, utf8_names,
              "bytes that are no UTF-8: make the record a bad one, or become U+FFFD"),
    SW_CHOICE(0, "dedup", &o.dedup, dedup_names,
              "leave out records that came before: exactly the same, or nearly the same words (see Duplicates in the "
              "manual)"),
    SW_F64(0, "dedup-threshold", &o.dedup_threshold, 0.5, 1, "SIMILARITY",
           "Jaccard similarity from which on records are nearly the same"),
    SW_SIZE(0, "dedup-memory", &o.dedup_memory, "SIZE",
            "memory for what came before; the oldest is forgotten where it is full"),
    SW_I64(0, "limit", &o.limit, 0, 9007199254740992.0, "N", "stop after N records; 0 is all"),
    SW_GROUP("Records"),
    SW_CHOICE(
        0, "train-on", &o.train_on, train_on_names,
        "which tokens of a conversation are labels: all but the first, the assistant's turns with their end-of-turn "
        "token, or the last such turn"),
    SW_STR(0, "loss-scale", &o.loss_scale, "SPEC",
           "weights of parts of an answer: default, last_round or all, then presets or JSON files, joined by + (see Loss scales)"),
    SW_FLAG(0, "end-token", &o.end_token, "end plain texts and completions with the tokenizer's end token"),
    SW_I64('L', "max-length", &o.max_length, 0, 2147483647.0, "N", "longest record in tokens; 0 is no limit"),
    SW_CHOICE(
        0, "truncate", &o.truncate, truncate_names,
        "what happens to a longer one: leave it out, cut its beginning (left) or its end (right), or split it into "
        "several"),
    SW_FLAG('p', "packing", &o.packing, "pack several documents into each record"),
    SW_I64(0, "packing-length", &o.packing_length, 0, 2147483647.0, "N", "tokens of a pack; 0 is --max-length"),
    SW_CHOICE(
        0, "packing-strategy", &o.packing_strategy, strategy_names,
        "whole documents where they fit best, whole documents in order, or all documents joined and cut into blocks of "
        "--packing-length, as pre-training does"),
    SW_I64(0, "pack-window", &o.pack_window, 1, 1000000, "N", "documents that are packed together"),
    SW_GROUP("Output"),
    SW_STR('o', "out", &o.out, "FILE", "shard to write; - is standard output"),
    SW_F64(0, "val-split", &o.val_split, 0, 0.999, "SHARE",
           "put this share of the records, chosen by their content and --seed, into --val-out instead"),
    SW_STR(0, "val-out", &o.val_out, "FILE", "shard for validation"),
    SW_I64(0, "shard-tokens", &o.shard_tokens, 0, 9007199254740992.0, "N",
           "--out is a folder, which gets a shard for about every N tokens; 0 is one file"),
    SW_FLAG(0, "resume", &o.resume, "go on with the folder of --shard-tokens where an earlier run stopped"),
    SW_STR(
        0, "stats", &o.stats, "FILE",
        "write how long the records are and what the files held: JSON, or a plot where the name ends in .svg or .png"),
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
    {"Three parts of one file and one of another, without what is there twice",
     "swift-tokenize --model M --mix once --dedup near --out train.shard chat.jsonl:3 code.jsonl.gz:1"},
    {"Preference pairs; prompts for GRPO with what the reward needs",
     "swift-tokenize --model M --task preference --out dpo.shard pairs.jsonl && swift-tokenize --model M --task prompt "
     "--out "
     "grpo.shard math.jsonl"},
    {"Blocks for pre-training from many files, in shards; the same command goes on after a stop",
     "swift-tokenize --model M --packing --packing-strategy wrapped --packing-length 4096 --shard-tokens 100000000 "
     "--resume --out "
     "shards corpus/*.txt.zst"},
    {"How long the records are, as a picture",
     "swift-tokenize --model M --stats lengths.svg train.jsonl > train.shard"},
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
    if (sw_option_given("list-as") && !o.list_templates)
        return sw_usage("--list-as needs --list-templates");
    if (o.inspect || o.list_templates)
        return 0;
    if (!o.model)
        return sw_usage("--model is needed: its tokenizer makes the tokens");
    bool wrapped = o.packing_strategy == PACK_WRAPPED;
    if (!o.packing_length)
        o.packing_length = o.max_length;
    if (o.packing && !o.packing_length)
        return sw_usage("--packing needs --packing-length or --max-length, the size of a pack");
    if (!o.packing && (sw_option_given("packing-length") || sw_option_given("pack-window") || o.packing_strategy))
        return sw_usage("--packing-length, --packing-strategy and --pack-window need --packing");
    if (o.packing && !wrapped && !o.max_length)
        o.max_length = o.packing_length;
    if (o.packing && !wrapped && o.max_length > o.packing_length)
        return sw_usage("--max-length %lld does not fit into --packing-length %lld", (long long)o.max_length,
                        (long long)o.packing_length);
    if (o.packing && (o.task > SW_TASK_SFT))
        return sw_usage("--packing is for texts and conversations alone, not for --task %s", sw_task_names[o.task]);
    if (o.labels && o.task != SW_TASK_CLASSIFY && o.task != SW_TASK_TAG)
        return sw_usage("--labels names the classes of --task classify or tag");
    if (o.max_record < 1024)
        return sw_usage("--max-record is at least 1K");
    if (o.resume && !o.shard_tokens)
        return sw_usage("--resume goes on with a folder of shards; it needs --shard-tokens");
    if (o.shard_tokens && (!strcmp(o.out, "-") || o.val_split > 0 || o.stats))
        return sw_usage("--shard-tokens needs a folder as --out, and goes neither with --val-split nor with --stats");
    if (o.resume && o.dedup)
        return sw_usage("--resume cannot know what came before; it does not go with --dedup");
    if ((sw_option_given("dedup-threshold") && o.dedup != DEDUP_NEAR) || (sw_option_given("dedup-memory") && !o.dedup))
        return sw_usage("--dedup-threshold needs --dedup near, and --dedup-memory needs --dedup");
    if (sw_option_given("truncate") && !o.max_length)
        return sw_usage("--truncate needs --max-length");
    if ((o.val_split > 0) != (o.val_out != NULL))
        return sw_usage("--val-split and --val-out need each other");
    if (o.val_out && !strcmp(o.val_out, o.out))
        return sw_usage("--out and --val-out are the same file");
    sw_dataset_options d = {.fill = &o.fill, .map = &o.map};
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

/* The template, or none where the model has none and may not need one. */
static int load_template(const sw_tokenizer *t, sw_template **m)
{
    bool plain = o.format == SW_FORMAT_TEXT || o.format == SW_FORMAT_COMPLETION, own = sw_tokenizer_chat_template(t);
    bool needed = o.template_source || o.agent || (own && !plain);
    *m = NULL;
    if (plain && !needed)
        return 0;
    if (o.agent && (o.template_source ? !sw_chat_format_find(o.template_source) : own))
        return sw_usage("--agent-template needs a built-in --template: other templates write tools their own way");
    char *path = sw_tokenizer_path(o.model), *family = path ? sw_template_family_of(path) : NULL;
    free(path);
    *m = sw_template_choose(t, &(sw_template_choice){o.template_source, o.agent, family});
    free(family);
    if (!*m && needed)
        return -1;
    if (!*m)
        sw_error_clear(); /* the first conversation will say that there is none */
    else if (!own && !o.template_source)
        sw_info("%s has no chat template; %s is taken, as its family's", o.model, sw_template_name(*m));
    return 0;
}

/* --loss-scale may name what --train-on does, in other words. */
static int load_scale(sw_loss_scale **scale)
{
    char base;
    *scale = o.loss_scale ? sw_loss_scale_load(o.loss_scale, &base) : NULL;
    if (!*scale)
        return o.loss_scale ? -1 : 0;
    int wanted = base == 'a' ? SW_TRAIN_ALL : base == 'l' ? SW_TRAIN_LAST : base ? SW_TRAIN_ASSISTANT : o.train_on;
    if (sw_option_given("train-on") && wanted != o.train_on)
        return sw_usage("--loss-scale %s and --train-on %s contradict each other", o.loss_scale, train_on_names[o.train_on]);
    o.train_on = wanted;
    return 0;
}

/* What the model's configuration says: whether an encoder reads what it is asked, and the classes, unless --labels does. A tokenizer alone
 * says nothing. */
static int read_config(bool *encoder, sw_tags *tags)
{
    char *folder = sw_tokenizer_path(o.model), *path = folder ? sw_path_join(folder, "config.json") : NULL;
    int rc = folder ? 0 : -1;
    *encoder = false;
    if (!rc && sw_is_file(path)) {
        cJSON *config = sw_json_load(path);
        rc = !config || sw_json_bool(config, "is_encoder_decoder", false, encoder) || (!o.labels && sw_tags_read(tags, config, 0)) ? sw_fail_in("%s", path) : 0;
        cJSON_Delete(config);
    }
    if (!rc && o.labels && sw_tags_parse(tags, o.labels))
        rc = sw_fail_in("--labels");
    free(folder);
    free(path);
    if (!rc && *encoder && (o.truncate == TRUNCATE_SPLIT || o.packing_strategy == PACK_WRAPPED))
        return sw_usage("--truncate split and --packing-strategy wrapped: %s has an encoder; a part of an answer has no prompt to read", o.model);
    if (!rc && *encoder && o.train_on == SW_TRAIN_ALL)
        return sw_usage("--train-on all: %s has an encoder, which reads the prompt; only what the decoder writes is learnt", o.model);
    return rc;
}

static int tokenize(const sw_tokenizer *t, int n, char **operands)
{
    tokenize_job job = {.o = &o, .tokenizer = t, .end_token = -1};
    job.dataset = (sw_dataset_options){.format = (sw_format)o.format,
                                       .system = o.system,
                                       .fill = &o.fill,
                                       .map = &o.map,
                                       .carry = &o.carry,
                                       .task = (sw_task)o.task,
                                       .bare_texts = !o.template_source};
    sw_template *m = NULL;
    sw_loss_scale *scale = NULL;
    int rc = load_template(t, &m);
    rc = rc ? rc : load_scale(&scale);
    rc = rc ? rc : read_config(&job.encoder, &job.tags);
    cJSON *classes = sw_tags_names(&job.tags);
    job.classes = classes;
    job.dataset.classes = job.tags.n ? &job.tags : NULL;
    job.dataset.only_classes = o.labels;
    if (!rc) {
        job.template = m;
        job.scale = scale;
        job.end_token = m ? sw_template_end_token(m) : -1;
        job.takes = sw_template_used(m);
        rc = tokenize_run(&job, n, operands);
    }
    sw_template_free(m);
    sw_loss_scale_free(scale);
    sw_tags_free(&job.tags);
    cJSON_Delete(classes);
    return rc;
}

static int body(int n, char **operands)
{
    int status = check_usage();
    if (status)
        return status;
    if (o.list_templates)
        return tokenize_list_templates(o.list_as);
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
