#include "model/family.h"

#include "model/wrapper.h"

#include <stdio.h>
#include <string.h>

#define SW_FAMILY_FILE(name) extern const sw_family sw_family_##name[];
#include "model/family_list.h"
#undef SW_FAMILY_FILE

static const sw_family *const files[] = {
#define SW_FAMILY_FILE(name) sw_family_##name,
#include "model/family_list.h"
#undef SW_FAMILY_FILE
};

const sw_family *sw_family_at(size_t i)
{
    for (size_t k = 0; k < SW_COUNT(files); k++)
        for (const sw_family *f = files[k]; f->name; f++)
            if (i-- == 0)
                return f;
    return NULL;
}

/* ---- names */

/* What our names are in Llama's files and most others, where the two differ. */
static const sw_rename usual[] = {{"attn_norm", "input_layernorm"},
                                  {"attn_post_norm", "post_attention_layernorm"},
                                  {"mlp_norm", "post_attention_layernorm"},
                                  {"mlp_post_norm", "post_feedforward_layernorm"},
                                  {0}};

static const sw_rename *match(const sw_rename *table, const char *ours)
{
    const sw_rename *best = NULL;
    size_t most = 0;
    for (; table && table->ours; table++) {
        size_t n = strlen(table->ours);
        if (strncmp(table->ours, ours, n) || n <= most)
            continue;
        /* Whole, or followed by ".weight" and the like; a beginning says so by ending with a point. */
        if (ours[n] == 0 || ours[n] == '.' || table->ours[n - 1] == '.') {
            best = table;
            most = n;
        }
    }
    return best;
}

static void rename_into(const sw_rename *names, const char *ours, char out[SW_NAME_MAX])
{
    const sw_rename *r = match(names, ours);
    if (!r)
        r = match(usual, ours);
    if (r)
        snprintf(out, SW_NAME_MAX, "%s%s", r->theirs, ours + strlen(r->ours));
    else
        snprintf(out, SW_NAME_MAX, "%s", ours);
}

char *sw_file_name(const sw_spec *s, int64_t layer, const char *ours, char out[SW_NAME_MAX])
{
    char blocks[SW_NAME_MAX], rest[SW_NAME_MAX];
    if (layer < 0) {
        bool words = s->task == SW_TASK_TOKENS && s->family->words_score && sw_starts_with(ours, "score") && (!ours[5] || ours[5] == '.');
        if (words)
            snprintf(out, SW_NAME_MAX, "%s%s", s->family->words_score, ours + strlen("score"));
        else
            rename_into(s->names, ours, out);
        sw_wrapper_name(s->wrapper, out, SW_NAME_MAX);
        return out;
    }
    bool encoder = layer < s->encoder_layers;
    const sw_rename *names = encoder ? s->encoder_names : s->names;
    rename_into(names, "model.layers", blocks);
    sw_wrapper_name(s->wrapper, blocks, sizeof blocks);
    rename_into(names, ours, rest);
    if (*rest == '/') { /* whole: all layers have it in common */
        snprintf(out, SW_NAME_MAX, "%s", rest + 1);
        return out;
    }
    snprintf(out, SW_NAME_MAX, "%.80s.%d.%.90s", blocks, (int)(encoder ? layer : layer - s->encoder_layers), rest);
    return out;
}

/* The first files of BERT call a norm's weight gamma and its bias beta; a head that is tied stores its bias beside itself; GPT-2
 * and its kin call a head over tokens otherwise than one over texts. */
const sw_entry *sw_file_find(const sw_checkpoint *c, const char *name)
{
    static const char *const older[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}, {"decoder.bias", "bias"},
                                           {"score.weight", "classifier.weight"}, {"score.bias", "classifier.bias"}};
    const sw_entry *e = sw_wrapper_find(c, name);
    for (size_t i = 0; !e && i < SW_COUNT(older); i++) {
        char old[SW_NAME_MAX + 16];
        if (!sw_ends_with(name, older[i][0]))
            continue;
        snprintf(old, sizeof old, "%.*s%s", (int)(strlen(name) - strlen(older[i][0])), name, older[i][1]);
        e = sw_wrapper_find(c, old);
    }
    return e;
}
