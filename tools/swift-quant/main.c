#include "quant_gguf.h"

#include "base/fileio.h"
#include "base/interrupt.h"
#include "base/threads.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *model, *out, *report;
    int type;
    sw_strings keep;
} o;

static const sw_opt options[] = {
    SW_GROUP("Input"),
    SW_STR('m', "model", &o.model, "M", "the model: a folder in Hugging Face layout, a GGUF file, or a hub id: see swift-checkpoint(7)"),
    SW_GROUP("Output"),
    SW_STR('o', "out", &o.out, "FILE", "GGUF file to write; - is standard output"),
    SW_CHOICE('t', "type", &o.type, quant_recipe_names,
              "what the matrices become. The types _s, _m and _l are mixtures that give more bits to the tensors that suffer most; "
              "vectors and norms stay f32, and rows that are no whole blocks get the next type that fits"),
    SW_LIST('k', "keep", &o.keep, "PATTERN=TYPE",
            "give matrices whose GGUF name matches PATTERN (* and ? as in the shell) this TYPE instead; may be repeated, the "
            "first that matches counts"),
    SW_STR(0, "report", &o.report, "FILE", "write a JSON line a tensor (bytes, types, error) here instead of a table to "
           "standard error"),
    SW_COMMON_OPTS_UNSEEDED,
    SW_OPT_END,
};

static const sw_example examples[] = {
    {"Quantise a fine-tuned model for llama.cpp", "swift-quant --model merged --type q4_k_m --out merged-q4_k_m.gguf"},
    {"Requantise a GGUF file, the head in eight bits, and look for the tensors that suffer",
     "swift-quant -m big.gguf -t q4_0 --keep 'output.weight=q8_0' -o small.gguf --report - | sort -t: -k8 -g | tail"},
    {0},
};

static const sw_program program = {
    .name = "swift-quant",
    .summary = "quantise the weights of a language model",
    .operands = "",
    .opts = options,
    .examples = examples,
};

static int check_usage(int n, char **operands)
{
    if (n)
        return sw_usage("%s: what is that? The model is given by --model", operands[0]);
    if (!o.model)
        return sw_usage("--model is needed");
    if (!o.out)
        return sw_usage("--out is needed: the GGUF file to write");
    if (o.report && !strcmp(o.report, o.out))
        return sw_usage("--out and --report are the same");
    return quant_check_keep(&o.keep) ? sw_usage("%s", sw_error()) : 0;
}

/* Fails where an output (NULL: none) is a file that the model is read from. Other GGUF files in a model's folder are none of its. */
static int spares_model(const char *out, const sw_checkpoint *c)
{
    if (c->gguf)
        return sw_out_spares(out, sw_gguf_path(c->gguf));
    DIR *d = opendir(c->path);
    int rc = d ? 0 : sw_fail_errno("%s", c->path);
    for (struct dirent *e; !rc && (e = readdir(d));) {
        char *file = sw_path_join(c->path, e->d_name);
        rc = sw_ends_with(file, ".gguf") ? 0 : sw_out_spares(out, file);
        free(file);
    }
    if (d)
        closedir(d);
    return rc;
}

static int body(int n, char **operands)
{
    int status = check_usage(n, operands);
    if (status)
        return status;
    sw_interrupt_install();
    if (!strcmp(o.out, "-") && isatty(STDOUT_FILENO))
        return sw_fail("a model is binary and standard output is a terminal; give --out FILE");
    sw_checkpoint *c = sw_checkpoint_open(o.model);
    if (!c)
        return -1;
    if (spares_model(o.out, c) || spares_model(o.report, c)) {
        sw_checkpoint_close(c);
        return -1;
    }
    quant_job job = {.recipe = &quant_recipes[o.type], .keep = o.keep, .out = o.out, .report = o.report};
    sw_gguf_writer *w = sw_gguf_writer_new();
    int rc = c->gguf ? quant_from_gguf(&job, c->gguf, w) : quant_from_folder(&job, c, w);
    if (!rc)
        rc = quant_write(&job, w);
    else
        sw_gguf_writer_abort(w);
    quant_job_free(&job);
    sw_checkpoint_close(c);
    return rc;
}

int main(int argc, char **argv)
{
    sw_threads_wait_briefly(argv);
    return sw_main(&program, argc, argv, body);
}
