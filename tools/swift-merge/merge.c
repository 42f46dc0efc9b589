#include "merge.h"

#include "adapter/tuner.h"
#include "base/fileio.h"
#include "base/memory.h"
#include "base/option.h"
#include "model/model_chat.h"
#include "model/new_head.h"
#include "store/checkpoint.h"
#include "text/template.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const char history[] = "swift-merge.json";

/* What the result was made of. */
static int write_history(const merge_request *r, const char *dir)
{
    cJSON *o = cJSON_CreateObject(), *list = cJSON_CreateArray();
    cJSON_AddStringToObject(o, "program", "swift-merge " SW_VERSION);
    cJSON_AddStringToObject(o, "command", sw_command_line());
    cJSON_AddItemToObject(o, "adapters", list);
    int rc = 0;
    for (size_t i = 0; i < r->n_adapters && !rc; i++) {
        sw_digest d;
        char *path = sw_tuned_values(r->adapters[i]);
        rc = sw_digest_file(path, &d);
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "path", r->adapters[i]);
        cJSON_AddStringToObject(one, "xxh128", rc ? "" : d.hex);
        cJSON_AddItemToArray(list, one);
        free(path);
    }
    rc = rc ? rc : sw_save_json(dir, history, o);
    cJSON_Delete(o);
    return rc;
}

/* The template that the last adapter with one was trained with, and its end token, become the merged model's. */
static int write_chat(const merge_request *r, const sw_model *m, const char *dir)
{
    char *path = NULL;
    for (size_t i = r->n_adapters; i-- > 0 && !path;) {
        path = sw_path_join(r->adapters[i], "chat_template.jinja");
        if (!sw_is_file(path)) {
            free(path);
            path = NULL;
        }
    }
    if (!path)
        return 0;
    sw_buf text = {0};
    sw_tokenizer *t = m->checkpoint->gguf ? sw_tokenizer_from_gguf(m->checkpoint->gguf) : sw_tokenizer_load(m->checkpoint->path);
    sw_template *tmpl = t && !sw_read_file(path, &text) ? sw_template_from_text(t, path, text.at, text.n) : NULL;
    int rc = tmpl ? sw_save_chat(m, t, dir, text.at, sw_template_end_token(tmpl), true) : -1;
    if (tmpl)
        sw_template_free(tmpl);
    if (t)
        sw_tokenizer_free(t);
    sw_buf_free(&text);
    free(path);
    return rc;
}

/* The folder is replaced as a whole, so what it holds must be of an earlier merge. */
static int check_out(const char *out)
{
    char *mark = sw_path_join(out, history);
    DIR *d = sw_is_file(mark) ? NULL : opendir(out);
    int rc = 0;
    for (struct dirent *e; d && !rc && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            rc = sw_fail("%s: holds files that are not of an earlier merge (%s); name a new or an empty folder", out, e->d_name);
    if (d)
        closedir(d);
    free(mark);
    return rc;
}

static int write_folder(const merge_request *r, const sw_model *m, const sw_modules *modules, sw_save_report *report)
{
    sw_outdir dir;
    if (sw_outdir_begin(&dir, r->out))
        return -1;
    if (sw_model_save(m, modules, dir.temporary, &r->save, report) || write_chat(r, m, dir.temporary) || write_history(r, dir.temporary)) {
        sw_outdir_abort(&dir);
        return -1;
    }
    return sw_outdir_commit(&dir);
}

int merge_run(const merge_request *r, sw_save_report *report)
{
    if (check_out(r->out))
        return -1;
    sw_device *d = sw_device_open("cpu");
    sw_model *m = d ? sw_model_load_under(r->model, d, SW_DTYPE_COUNT, r->adapters, r->n_adapters) : NULL;
    sw_modules modules = {0};
    sw_tuned **tuned = SW_NEW_ARRAY(sw_tuned *, r->n_adapters);
    int rc = m ? 0 : -1;
    if (m)
        modules = sw_model_modules(m);
    for (size_t i = 0; i < r->n_adapters && !rc; i++) {
        tuned[i] = sw_tuner_attach_folder(&modules, r->adapters[i]);
        rc = tuned[i] ? 0 : -1;
    }
    rc = rc || sw_model_check_new(m) ? -1 : write_folder(r, m, &modules, report);
    free(modules.at);
    sw_model_free(m);
    for (size_t i = 0; i < r->n_adapters; i++)
        sw_tuned_free(tuned[i]);
    free(tuned);
    if (d)
        d->close(d);
    return rc;
}
