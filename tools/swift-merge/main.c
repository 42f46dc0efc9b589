/* swift-merge: adapters into their base, one tensor at a time; a Hugging Face folder comes out. */
#include "base/fileio.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/option.h"
#include "base/threads.h"
#include "merge.h"
#include "store/hub.h"

#include <stdlib.h>
#include <string.h>

static const char *model, *out;
static sw_strings adapters;
static int64_t max_shard = (int64_t)5 << 30;
static int dtype;
static const char *const dtypes[] = {"auto", "f32", "bf16", "f16", NULL};

static const sw_opt options[] = {
    SW_GROUP("Merging"),
    SW_STR('m', "model", &model, "MODEL", "the base: a folder in Hugging Face layout, a GGUF file, or a hub id: see swift-checkpoint(7)"),
    SW_LIST('a', "adapter", &adapters, "DIR", "a PEFT folder to merge in; may be given several times, the effects add up"),
    SW_STR('o', "out", &out, "DIR", "folder to write"),
    SW_CHOICE(0, "dtype", &dtype, dtypes, "type of the weights written; auto keeps the base's, and takes bf16 for a quantised base"),
    SW_SIZE(0, "max-shard-size", &max_shard, "BYTES",
            "largest file when the base gives no file names (a GGUF base); 0 is one file. A folder's own files are kept"),
    SW_COMMON_OPTS_UNSEEDED,
    SW_OPT_END};

static const sw_example examples[] = {
    {"merge a LoRA into its base", "swift-merge --model base --adapter out --out merged"},
    {"turn a GGUF file with an adapter into a Hugging Face folder in f16", "swift-merge --model base.gguf --adapter out --dtype f16 --out merged"},
    {0}};

static const sw_program program = {"swift-merge", "merge adapters into a base model", "", options, examples};

static int body(int n, char **operands)
{
    static const sw_dtype types[] = {SW_DTYPE_COUNT, SW_F32, SW_BF16, SW_F16};
    if (n)
        return sw_usage("'%s' is one word too many", operands[0]);
    if (!model || !out)
        return sw_usage("--%s is needed", model ? "out" : "model");
    if (sw_model_paths(adapters.at, adapters.n))
        return -1;
    sw_interrupt_install();
    merge_request r = {model, out, adapters.at, adapters.n, {types[dtype], (size_t)max_shard, sw_interrupted}};
    sw_save_report report;
    if (merge_run(&r, &report))
        return -1;
    char bytes[32];
    sw_info("%s: %zu tensors, %s; %zu changed by %zu adapter%s", out, report.tensors, sw_human_bytes((double)report.bytes, bytes), report.changed,
            adapters.n, adapters.n == 1 ? "" : "s");
    return SW_EXIT_OK;
}

int main(int argc, char **argv)
{
    sw_threads_wait_briefly(argv);
    return sw_main(&program, argc, argv, body);
}
