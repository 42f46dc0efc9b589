/* Conversations to ids and labels. Lines of method "trl" go through the chat template's generation blocks, lines of method
 * "swift" through templates cut in pieces. Tokenizers are folders beside the case's: ../tokenizer/NAME. */
#include "golden_text.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/template_format.h"
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

typedef struct state {
    const char *dir;
    char *tokenizer_name, *template_name;
    sw_tokenizer *tokenizer;
    sw_template *template;
    sw_encoder *encoder;
    cJSON *pieces; /* swift_templates.json */
} state;

static int load_tokenizer(state *s, const char *name)
{
    if (s->tokenizer_name && !strcmp(s->tokenizer_name, name))
        return s->tokenizer ? 0 : -1;
    sw_template_free(s->template);
    sw_encoder_free(s->encoder);
    sw_tokenizer_free(s->tokenizer);
    free(s->tokenizer_name);
    free(s->template_name);
    s->template = NULL;
    s->encoder = NULL;
    s->template_name = NULL;
    s->tokenizer_name = sw_strdup(name);
    char *folder = sw_strfmt("%s/../tokenizer/%s", s->dir, name);
    sw_buf text = {0}, config = {0};
    s->tokenizer = golden_slurp(folder, "tokenizer.json", &text) || golden_slurp(folder, "tokenizer_config.json", &config)
                       ? NULL
                       : sw_tokenizer_from_json(text.at, text.n, config.at, config.n);
    if (s->tokenizer)
        s->encoder = sw_encoder_new(s->tokenizer);
    else
        sw_fail_in("%s", folder);
    free(folder);
    sw_buf_free(&text);
    sw_buf_free(&config);
    return s->tokenizer ? 0 : -1;
}

static int load_template(state *s, const char *name)
{
    if (s->template_name && !strcmp(s->template_name, name))
        return s->template ? 0 : -1;
    sw_template_free(s->template);
    free(s->template_name);
    s->template_name = sw_strdup(name);
    char *file = sw_strfmt("%s/templates/%s.jinja", s->dir, name);
    s->template = sw_template_load(s->tokenizer, file);
    free(file);
    return s->template ? 0 : -1;
}

/* ["text", ["bos_token_id"]] as a text with marks; NULL for null. */
static char *join(const cJSON *list)
{
    sw_buf b = {0};
    if (!cJSON_IsArray(list))
        return NULL;
    sw_buf_puts(&b, "");
    for (const cJSON *p = list->child; p; p = p->next)
        for (const cJSON *one = cJSON_IsArray(p) ? p->child : p; one; one = cJSON_IsArray(p) ? one->next : NULL)
            if (one == p)
                sw_buf_puts(&b, one->valuestring);
            else if (cJSON_IsNumber(one))
                sw_buf_printf(&b, "{{ID:%.0f}}", one->valuedouble);
            else
                sw_buf_puts(&b, !strcmp(one->valuestring, "bos_token_id") ? "{{BOS}}" : "{{EOS}}");
    return sw_buf_take(&b);
}

/* A template that the golden gives in pieces, as a built-in format would be loaded. */
static int load_pieces(state *s, const char *name)
{
    const cJSON *given = sw_json_get(s->pieces, name);
    const char *system;
    bool bos;
    if (!given || sw_json_str(given, "default_system", NULL, &system) || sw_json_bool(given, "auto_bos", false, &bos))
        return sw_fail_in("template %s in pieces", name);
    char *p[] = {join(sw_json_get(given, "prefix")), join(sw_json_get(given, "system_prefix")), join(sw_json_get(given, "prompt")),
                 join(sw_json_get(given, "chat_sep")), join(sw_json_get(given, "suffix"))};
    sw_chat_pieces pieces = {p[0], p[1], p[2], NULL, p[3], p[4]};
    sw_chat_format f = {.name = name, .pieces = &pieces, .system = system, .flags = bos ? SW_CHAT_ADD_BOS : 0};
    sw_buf text = {0};
    sw_template_free(s->template);
    free(s->template_name);
    s->template_name = NULL;
    s->template = NULL;
    if (!sw_chat_format_to_jinja(&f, NULL, s->tokenizer, &text))
        s->template = sw_template_from_text(s->tokenizer, name, text.at, text.n);
    sw_buf_free(&text);
    for (size_t i = 0; i < SW_COUNT(p); i++)
        free(p[i]);
    return s->template ? 0 : -1;
}

static int compare(const cJSON *line, const char *label, const sw_ids *ids, const sw_weights *weights)
{
    const cJSON *id = sw_json_get(line, "ids"), *mask = sw_json_get(line, "mask");
    size_t n = (size_t)cJSON_GetArraySize(id), i = 0;
    id = id->child;
    mask = mask->child;
    if (n != ids->n || n != weights->n)
        return sw_fail("%s: %zu ids, not %zu", label, ids->n, n);
    for (; id && mask; id = id->next, mask = mask->next, i++) {
        if (ids->at[i] != (int32_t)id->valuedouble)
            return sw_fail("%s: id %zu is %d, not %g", label, i, ids->at[i], id->valuedouble);
        if (weights->at[i] != (float)mask->valuedouble)
            return sw_fail("%s: the weight of token %zu of %zu is %g, not %g", label, i, n, weights->at[i], mask->valuedouble);
    }
    return 0;
}

static int one(const cJSON *line, void *state_)
{
    state *s = state_;
    const char *template, *tokenizer, *method;
    if (sw_json_str(line, "template", "", &template) || sw_json_str(line, "tokenizer", "", &tokenizer) ||
        sw_json_str(line, "method", "", &method) || load_tokenizer(s, tokenizer))
        return -1;
    const cJSON *messages = sw_json_get(line, "messages"), *kwargs = sw_json_get(line, "kwargs");
    sw_ids ids = {0};
    sw_weights weights = {0};
    int bad = !strcmp(method, "swift") ? load_pieces(s, template) : load_template(s, template);
    bad = bad || sw_template_encode(s->template, s->encoder, messages, NULL, kwargs, SW_TRAIN_ASSISTANT, NULL, &ids, &weights);
    char *label = sw_strfmt("%s, %s, %s", template, tokenizer, method);
    bad = bad ? sw_fail_in("%s", label) : compare(line, label, &ids, &weights);
    free(label);
    free(ids.at);
    free(weights.at);
    return bad;
}

static int run(const char *dir, double *worst)
{
    (void)worst;
    state s = {.dir = dir};
    char *path = sw_path_join(dir, "swift_templates.json");
    if (sw_is_file(path) && !(s.pieces = sw_json_load(path))) {
        free(path);
        return -1;
    }
    free(path);
    int bad = golden_each_line(dir, one, &s);
    sw_template_free(s.template);
    sw_encoder_free(s.encoder);
    sw_tokenizer_free(s.tokenizer);
    free(s.tokenizer_name);
    free(s.template_name);
    cJSON_Delete(s.pieces);
    return bad;
}

const golden_kind golden_loss_mask = {"loss_mask", golden_is_lines, run, NULL};
