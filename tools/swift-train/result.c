#include "train.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/model_chat.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Name of the file that makes a folder loadable: put in place last. */
static const char *config_name(const train_run *r) { return r->tuned ? "adapter_config.json" : "config.json"; }

/* How the folder was made. */
static int write_history(const train_run *r, const char *dir)
{
    const sw_shard_info *info = feed_info(r->feed);
    cJSON *o = cJSON_CreateObject(), *data = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "program", "swift-train " SW_VERSION);
    cJSON_AddStringToObject(o, "command", sw_command_line());
    cJSON_AddItemToObject(o, "options", sw_options_json(r->o->program));
    cJSON_AddStringToObject(o, "device", r->device->description);
    cJSON_AddNumberToObject(o, "step", (double)r->state.step);
    cJSON_AddNumberToObject(o, "tokens", r->state.tokens);
    cJSON_AddStringToObject(data, "digest", feed_digest(r->feed).hex);
    cJSON_AddStringToObject(data, "tokenizer", info->tokenizer_digest);
    cJSON_AddStringToObject(data, "command", info->command_line);
    cJSON_AddItemToObject(o, "data", data);
    int rc = sw_save_json(dir, "swift-train.json", o);
    cJSON_Delete(o);
    return rc;
}

/* The chat template of conversations that are classified. */
static int save_template(const train_run *r, const char *dir)
{
    const char *text = feed_info(r->feed)->template_text;
    char *path = sw_path_join(dir, "chat_template.jinja");
    int rc = text ? sw_write_file(path, text, strlen(text)) : 0;
    free(path);
    return rc;
}

int result_write(const train_run *r, const char *dir)
{
    static const sw_dtype types[] = {SW_DTYPE_COUNT, SW_F32, SW_BF16, SW_F16};
    sw_dtype type = types[r->o->save_dtype];
    sw_save_report report;
    if (r->tuned ? sw_tuned_save(r->tuned, dir, type == SW_DTYPE_COUNT ? SW_F32 : type)
                 : sw_model_save(r->model, &r->modules, dir, &(sw_save_options){.dtype = type, .max_shard = (size_t)5 << 30}, &report))
        return -1;
    if (r->tuned && sw_model_save_head(r->model, dir))
        return -1;
    if (r->objective != &sw_objective_sft) /* nothing is generated */
        return save_template(r, dir) || write_history(r, dir) ? -1 : 0;
    return sw_save_chat(r->model, r->tokenizer, dir, feed_info(r->feed)->template_text, r->end_token, !r->tuned) || write_history(r, dir) ? -1 : 0;
}

static int write_folder(const train_run *r, const char *path)
{
    sw_outdir dir;
    if (sw_outdir_begin(&dir, path))
        return -1;
    if (result_write(r, dir.temporary)) {
        sw_outdir_abort(&dir);
        return -1;
    }
    return sw_outdir_commit(&dir);
}

/* Rank 0 writes, with the values that the others hold. */
static int write_together(train_run *r, int (*write)(const train_run *r, bool best), bool best)
{
    int rc = parallel_collect_master(&r->parallel) || (!r->comm->rank && write(r, best)) || sw_comm_barrier(r->comm) ? -1 : 0;
    parallel_release_master(&r->parallel);
    return rc;
}

static int write_best(const train_run *r, bool best)
{
    (void)best;
    char *path = sw_path_join(r->o->out, "best");
    int rc = write_folder(r, path);
    free(path);
    return rc;
}

int result_save_best(train_run *r) { return write_together(r, write_best, true); }

/* Moves the files of a finished folder into --out; the configuration goes away first and comes last, so that nothing
 * loads a mixture. link: leave them in the folder too. */
static int move_files(const train_run *r, const char *from, bool keep)
{
    char *last = sw_path_join(r->o->out, config_name(r));
    int rc = unlink(last) && sw_is_file(last) ? sw_fail_errno("%s: cannot be replaced", last) : 0;
    for (int round = 0; round < 2 && !rc; round++) {
        DIR *d = opendir(from);
        if (!d)
            rc = sw_fail_errno("%s", from);
        for (struct dirent *e; !rc && (e = readdir(d));) {
            if (e->d_name[0] == '.' || (strcmp(e->d_name, config_name(r)) == 0) != (round == 1))
                continue;
            char *a = sw_path_join(from, e->d_name), *b = sw_path_join(r->o->out, e->d_name);
            char *step = sw_strfmt("%s.tmp.%ld", b, (long)getpid());
            if (keep) { /* a second name of the same file, or a copy where the file system has none */
                unlink(step);
                if (link(a, step)) {
                    sw_mapping m = {0};
                    rc = sw_map_file(a, &m) || sw_write_file(step, m.at, m.n) ? -1 : 0;
                    sw_unmap_file(&m);
                }
            }
            if (!rc && rename(keep ? step : a, b))
                rc = sw_fail_errno("%s: cannot be put in place", b);
            free(a);
            free(b);
            free(step);
        }
        if (d)
            closedir(d);
    }
    free(last);
    return rc ? rc : sw_sync_dir(r->o->out);
}

static int write_result(const train_run *r, bool best)
{
    char *from = sw_path_join(r->o->out, best ? "best" : "result");
    sw_outdir dir = {0};
    int rc = best ? move_files(r, from, true) : sw_outdir_begin(&dir, from);
    if (!best && !rc) {
        rc = result_write(r, dir.temporary) || move_files(r, dir.temporary, false) ? -1 : 0;
        sw_outdir_abort(&dir);
    }
    free(from);
    return rc;
}

int result_finish(train_run *r, bool best) { return write_together(r, write_result, best); }
