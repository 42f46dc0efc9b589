/* swift-train: shards in, an adapter or a model out. */
#include "base/fileio.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "store/hub.h"
#include "train.h"

#include <math.h>
#include <omp.h>
#include <string.h>
#include <unistd.h>

enum { AUTO = -1 };

static train_options o = {
    .dropout = AUTO, .mask_share = TRAIN_MASK_SHARE, .tuner = "lora", .schedule = "cosine", .optimizer = "adamw", .lora_r = 8, .lora_alpha = 32, .batch = 4, .accumulate = 1,
    .epochs = 1, .lr = AUTO, .warmup = 0.03, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1,
    .keep = 2, .bucket = 16 << 20, .shuffle_buffer = 10000, .log_steps = 1, .shuffle = true,
};

static const char *const dtypes[] = {"auto", "f32", "bf16", NULL};
static const char *const problems[] = {"auto", "single", "multi", "regression", NULL};
static const char *const tasks[] = {"classify", "tag", NULL};
static const char *const shares[] = {"none", "optimizer", "gradients", "parameters", NULL}; /* sw_share_stage */
static const char *const save_dtypes[] = {"auto", "f32", "bf16", "f16", NULL};

static const sw_opt options[] = {
    SW_GROUP("Model"),
    SW_STR('m', "model", &o.model, "MODEL", "the base: a folder in Hugging Face layout, a GGUF file, or a hub id: see swift-checkpoint(7)"),
    SW_CHOICE(0, "dtype", &o.dtype, dtypes, "type of activations and products; auto is bf16 where the device is faster with it, else f32"),
    SW_FLAG(0, "dequantise", &o.dequantise, "keep a quantised base in --dtype in memory: faster, and more memory"),
    SW_FLAG(0, "recompute", &o.recompute, "run each block again in the backward pass instead of keeping its activations"),
    SW_SIZE(0, "max-memory", &o.max_memory, "BYTES", "fail rather than use more for weights, states and activations; 0 is no limit"),
    SW_GROUP("Tuner"),
    SW_STR('t', "tuner", &o.tuner, "NAME", "what is trained: lora, or full (every weight)"),
    SW_I64(0, "lora-r", &o.lora_r, 1, 65536, "N", "rank of the LoRA matrices"),
    SW_F64(0, "lora-alpha", &o.lora_alpha, 1e-6, 1e6, "X", "LoRA's scale: its effect is multiplied by alpha / r"),
    SW_F64(0, "dropout", &o.dropout, AUTO, 0.999, "P", "dropout of the model itself, in all places where its family has some, and of no layers; -1 is what its "
           "configuration says"),
    SW_F64(0, "lora-dropout", &o.lora_dropout, 0, 0.999, "P", "dropout of LoRA's input"),
    SW_FLAG(0, "rslora", &o.rslora, "scale by alpha / sqrt(r) instead"),
    SW_LIST(0, "target-modules", &o.target_modules, "NAME",
            "module to tune by the end of its name (q_proj), or all-linear, or re:EXPRESSION for whole paths; may be repeated; "
            "without it, all-linear"),
    SW_LIST(0, "modules-to-save", &o.modules_to_save, "NAME", "module to train whole beside the adapter (embed_tokens, lm_head); may be repeated"),
    SW_STR('a', "adapter", &o.adapter, "DIR", "start from this PEFT folder, under its own configuration instead of the options above"),
    SW_CHOICE(0, "problem", &o.problem, problems, "what the labels of a classifier's records are: one class, several, or values; auto is what the "
              "model's configuration says, else values where it has one score and one class where it has more"),
    SW_STR(0, "labels", &o.labels, "N|NAMES", "give a base that has none a new head for so many classes, or for these, with commas between: see Heads "
           "for classes in the manual"),
    SW_CHOICE(0, "task", &o.task, tasks, "what a new head (--labels) is for: classes of whole texts, or of words"),
    SW_F64(0, "mask-share", &o.mask_share, 0, 1, "X", "share of the words of a text that a masked language model is to guess"),
    SW_GROUP("Batches"),
    SW_I64('b', "batch", &o.batch, 1, 1000000, "N", "records that a process runs at once"),
    SW_I64(0, "accumulate", &o.accumulate, 1, 1000000, "N", "batches to an update, of all ranks together. The split of the same records does not change the result"),
    SW_F64('e', "epochs", &o.epochs, 0, 1e9, "N", "passes over the data; may be a fraction"),
    SW_I64(0, "max-steps", &o.max_steps, 0, 1e15, "N", "end after N updates, over as many epochs as that takes unless --epochs is given; 0 is no limit. A pipe is then read once: see Order of the data in the manual"),
    SW_FLAG(0, "shuffle", &o.shuffle, "take the records of each epoch in random order, by --seed"),
    SW_I64(0, "shuffle-buffer", &o.shuffle_buffer, 1, 1e9, "N", "records among which a pipe that is read once is shuffled"),
    SW_GROUP("Optimiser"),
    SW_STR(0, "optimizer", &o.optimizer, "NAME", "adamw"),
    SW_F64(0, "lr", &o.lr, AUTO, 1e6, "X", "learning rate; -1 is 1e-4 for adapters and 1e-5 for whole models"),
    SW_STR(0, "schedule", &o.schedule, "NAME", "course of the learning rate: linear, cosine or constant"),
    SW_F64(0, "warmup", &o.warmup, 0, 1e15, "N", "updates over which the rate rises from 0; below 1, a share of all updates"),
    SW_F64(0, "weight-decay", &o.weight_decay, 0, 1e6, "X", "decoupled weight decay of matrices"),
    SW_FLAG(0, "decay-all", &o.decay_all, "decay norms and biases too"),
    SW_F64(0, "beta1", &o.beta1, 0, 1, "X", "decay of the first moment"),
    SW_F64(0, "beta2", &o.beta2, 0, 1, "X", "decay of the second moment"),
    SW_F64(0, "eps", &o.eps, 1e-30, 1, "X", "added to the root of the second moment"),
    SW_F64(0, "clip", &o.clip, 0, 1e30, "X", "largest norm of the gradient; 0 does not clip"),
    SW_F64(0, "label-smoothing", &o.label_smoothing, 0, 0.999, "X", "share of each label that is spread over the vocabulary"),
    SW_GROUP("Evaluation"),
    SW_LIST(0, "val", &o.val, "SHARD", "validation shard; may be repeated"),
    SW_I64(0, "eval-steps", &o.eval_steps, 0, 1e15, "N", "evaluate every N updates; 0 is at the end of each epoch"),
    SW_FLAG(0, "eval-first", &o.eval_first, "evaluate before the first update too"),
    SW_I64(0, "early-stop", &o.early_stop, 0, 1e9, "N",
           "stop after N evaluations without a lower loss; the result is then the best step's. 0 does not stop"),
    SW_GROUP("Ranks"),
    SW_CHOICE(0, "shard", &o.share, shares, "what the ranks of mpirun or srun divide among them instead of each holding all: the states of the "
              "optimiser, and gradients, and the trained parameters too"),
    SW_SIZE(0, "bucket", &o.bucket, "BYTES", "size of the pieces in which ranks exchange gradients, each as soon as it is final"),
    SW_GROUP("Output"),
    SW_STR('o', "out", &o.out, "DIR", "folder for the result, its checkpoints, metrics and plot"),
    SW_CHOICE(0, "save-dtype", &o.save_dtype, save_dtypes, "type of the weights written; auto is f32 for adapters and the base's type for whole models"),
    SW_I64(0, "save-steps", &o.save_steps, 0, 1e15, "N", "write a checkpoint every N updates; 0 is at the end of each epoch"),
    SW_F64(0, "save-minutes", &o.save_minutes, 0, 1e9, "N", "and after N minutes without one; 0 does not"),
    SW_I64(0, "keep", &o.keep, 0, 1e9, "N", "checkpoints to keep, the newest; 0 keeps all"),
    SW_FLAG(0, "resume", &o.resume, "go on from the newest checkpoint of --out, to the same bits as without a stop; begins where there is none"),
    SW_FLAG(0, "overwrite", &o.overwrite, "remove the checkpoints of an earlier run from --out and begin anew"),
    SW_STR(0, "metrics", &o.metrics, "FILE", "write the metrics here too; - is standard output. DIR/metrics.jsonl always has them"),
    SW_I64(0, "log-steps", &o.log_steps, 1, 1e9, "N", "a record of metrics every N updates"),
    SW_STR(0, "plot", &o.plot, "FILE", "plot of the metrics, .svg or .png, drawn at the end and on SIGUSR1; none draws none; without it, DIR/plot.svg"),
    SW_FLAG(0, "estimate", &o.estimate, "train nothing: print parameters, memory and time that the run would take"),
    SW_DEVICE_OPT,
    SW_COMMON_OPTS,
    SW_OPT_END,
};

static const sw_example examples[] = {
    {"Tune a LoRA on a stream of records", "swift-tokenize --model M train.jsonl | swift-train --model M --out out"},
    {"From shards, with validation and early stop",
     "swift-train --model M --epochs 3 --val val.shard --eval-steps 100 --early-stop 3 --out out train.shard"},
    {"Train every weight of a small model in f32", "swift-train --model M --tuner full --dtype f32 --lr 2e-5 --out out train.shard"},
    {"A classifier of three classes over a base that has none", "swift-tokenize --model M --task classify --labels bad,fair,good train.jsonl "
     "| swift-train --model M --labels bad,fair,good --out out"},
    {"Go on after a stop or a kill", "swift-train --model M --resume --out out train.shard"},
    {"On four processes that share optimiser and gradients", "mpirun -n 4 swift-train --model M --tuner full --shard gradients --batch 2 "
     "--accumulate 4 --out out train.shard"},
    {"See what it would take", "swift-train --model M --estimate train.shard"},
    {0},
};

static const sw_program program = {
    .name = "swift-train",
    .summary = "fine-tune a language model on token shards",
    .operands = "[SHARD...]",
    .opts = options,
    .examples = examples,
};

/* Whether an option is given. The options saved by an earlier run, read by --config, have all of them: there only those count that
 * are not as they are without being given. */
static bool is_given(const char *name, bool other) { return other || (!sw_common_opts.config && sw_option_given(name)); }

/* An option given that shapes a new adapter, or NULL. */
static const char *lora_option(const train_options *plain)
{
    const struct {
        const char *name;
        bool other;
    } shaping[] = {{"lora-r", o.lora_r != plain->lora_r},
                   {"lora-alpha", o.lora_alpha != plain->lora_alpha},
                   {"lora-dropout", o.lora_dropout != plain->lora_dropout},
                   {"rslora", o.rslora},
                   {"target-modules", o.target_modules.n},
                   {"modules-to-save", o.modules_to_save.n}};
    for (size_t i = 0; i < SW_COUNT(shaping); i++)
        if (is_given(shaping[i].name, shaping[i].other))
            return shaping[i].name;
    return NULL;
}

static int check_usage(const train_options *plain)
{
    if (!o.model)
        return sw_usage("--model is needed");
    if (!o.out && !o.estimate)
        return sw_usage("--out is needed: a folder for the result");
    if (o.resume && o.overwrite)
        return sw_usage("--resume and --overwrite exclude each other");
    if (strcmp(o.tuner, "lora") && strcmp(o.tuner, "full"))
        return sw_usage("--tuner '%s' is not known; known are lora and full", o.tuner);
    if (o.adapter && !strcmp(o.tuner, "full"))
        return sw_usage("--adapter and --tuner full exclude each other; merge the adapter first (swift-merge)");
    const char *shaped = lora_option(plain);
    if (shaped && !strcmp(o.tuner, "full"))
        return sw_usage("--%s is for --tuner lora; --tuner full trains every weight", shaped);
    if (shaped && o.adapter)
        return sw_usage("--%s and --adapter exclude each other; the adapter keeps its own configuration", shaped);
    if (!o.labels && is_given("task", o.task != plain->task))
        return sw_usage("--task says what the new head of --labels is for, which is not given");
    if (o.labels && o.adapter)
        return sw_usage("--labels and --adapter exclude each other; the adapter brings the head that it was trained with");
    if (o.dropout != AUTO && !(o.dropout >= 0))
        return sw_usage("--dropout %g is negative", o.dropout);
    if (o.lr != AUTO && !(o.lr >= 0))
        return sw_usage("--lr %g is negative", o.lr);
    if (o.beta1 >= 1 || o.beta2 >= 1)
        return sw_usage("--beta1 and --beta2 must be below 1");
    if (o.max_steps && !sw_option_given("epochs"))
        o.epochs = INFINITY;
    if (!(o.epochs > 0))
        return sw_usage("--epochs must be more than 0");
    if ((o.early_stop || o.eval_steps || o.eval_first) && !o.val.n)
        return sw_usage("--early-stop, --eval-steps and --eval-first need --val");
    if (o.plot && strcmp(o.plot, "none") && !sw_ends_with(o.plot, ".svg") && !sw_ends_with(o.plot, ".png"))
        return sw_usage("--plot %s: the name must end in .svg or .png", o.plot);
    if (o.lr == AUTO)
        o.lr = strcmp(o.tuner, "full") ? 1e-4 : 1e-5;
    if (!sw_schedule_find(o.schedule) || !sw_optimizer_find(o.optimizer))
        return sw_usage("%s", sw_error());
    return 0;
}

static int prepare_out(void)
{
    if (sw_mkdirs(o.out) || sw_lock_dir(o.out))
        return -1;
    if (!o.resume && !o.overwrite && snapshot_any(o.out))
        return sw_fail("%s: holds checkpoints of an earlier run; --resume goes on with it, --overwrite begins anew", o.out);
    return sw_sweep_temporaries(o.out) || (o.overwrite && snapshot_remove_all(o.out)) ? -1 : 0;
}

/* Ranks on one machine share its cores, unless their launcher has given each some of its own. */
static void share_cores(const sw_comm *c)
{
    int here = omp_get_num_procs();
    if (!sw_common_opts.threads && c->local_ranks > 1 && here == (int)sysconf(_SC_NPROCESSORS_ONLN))
        omp_set_num_threads(here > c->local_ranks ? here / c->local_ranks : 1);
}

static train_options plain; /* what the options are where none is given */
static sw_comm *comm;
static bool entered;

static int train(int n, char **shards)
{
    if (!o.estimate && sw_comm_agree(comm, comm->rank ? 0 : prepare_out()))
        return -1;
    share_cores(comm);
    o.program = &program;
    sw_interrupt_install();
    if (o.adapter && sw_model_paths(&o.adapter, 1))
        return -1;
    train_run r;
    int rc = train_open(&r, &o, comm, n, shards);
    if (!rc)
        rc = o.estimate ? train_estimate(&r) : train_loop(&r);
    if (rc < 0 && comm->ranks > 1 && !comm->agreed) {
        /* The others do not know, and wait for this rank in what comes next. */
        sw_log_mute(false);
        sw_complain("rank %d: %s", comm->rank, sw_error());
        sw_comm_abort(comm, SW_EXIT_FAILED);
    }
    train_close(&r);
    return rc;
}

static int body(int n, char **shards)
{
    entered = true;
    if (!comm || sw_comm_agree(comm, 0))
        return -1;
    int status = check_usage(&plain);
    if (!status && o.estimate && comm->ranks > 1)
        status = sw_usage("--estimate is for one process");
    return status ? status : train(n, shards);
}

int main(int argc, char **argv)
{
    sw_threads_wait_briefly(argv);
    plain = o;
    int rank = sw_comm_launched_rank();
    sw_log_mute(rank > 0); /* what all ranks find wrong is said once */
    comm = sw_comm_open();
    int status = sw_main(&program, argc, argv, body);
    if (comm && !entered && status && !sw_comm_agree(comm, -1)) /* wrong usage here, perhaps not on all */
        status = SW_EXIT_USAGE;
    if (!comm && rank > 0)
        sleep(1); /* launchers end all when one has failed: not before rank 0 has said why */
    sw_comm_close(comm);
    return status;
}
