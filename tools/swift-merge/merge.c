#include "merge.h"

#include "adapter/tuner.h"
#include "base/fileio.h"
#include "base/memory.h"
#include "base/option.h"

#include <stdlib.h>

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
        char *path = sw_path_join(r->adapters[i], "adapter_model.safetensors");
        rc = sw_digest_file(path, &d);
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "path", r->adapters[i]);
        cJSON_AddStringToObject(one, "xxh128", rc ? "" : d.hex);
        cJSON_AddItemToArray(list, one);
        free(path);
    }
    rc = rc ? rc : sw_save_json(dir, "swift-merge.json", o);
    cJSON_Delete(o);
    return rc;
}

static int write_folder(const merge_request *r, const sw_model *m, const sw_modules *modules, sw_save_report *report)
{
    sw_outdir dir;
    if (sw_outdir_begin(&dir, r->out))
        return -1;
    if (sw_model_save(m, modules, dir.temporary, &r->save, report) || write_history(r, dir.temporary)) {
        sw_outdir_abort(&dir);
        return -1;
    }
    return sw_outdir_commit(&dir);
}

int merge_run(const merge_request *r, sw_save_report *report)
{
    sw_device *d = sw_device_open("cpu");
    sw_model *m = d ? sw_model_load(r->model, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT}) : NULL;
    sw_modules modules = {0};
    sw_tuned **tuned = SW_NEW_ARRAY(sw_tuned *, r->n_adapters);
    int rc = m ? 0 : -1;
    if (m)
        modules = sw_model_modules(m);
    for (size_t i = 0; i < r->n_adapters && !rc; i++) {
        tuned[i] = sw_tuner_attach_folder(&modules, r->adapters[i]);
        rc = tuned[i] ? 0 : -1;
    }
    rc = rc ? rc : write_folder(r, m, &modules, report);
    free(modules.at);
    sw_model_free(m);
    for (size_t i = 0; i < r->n_adapters; i++)
        sw_tuned_free(tuned[i]);
    free(tuned);
    if (d)
        d->close(d);
    return rc;
}
