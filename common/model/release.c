#include "model/release.h"

#include "base/json.h"

#include <string.h>

static const sw_release releases[] = {
#define CHECKED(family, cases)
#define REWRITTEN(family, cases)
#define MODEL(family, kind, id) {id, family, SW_RELEASE_##kind},
#include "model/models.def"
#undef CHECKED
#undef REWRITTEN
#undef MODEL
};

static const struct {
    const char *family, *cases;
    bool rewritten;
} checked[] = {
#define CHECKED(family, cases) {family, cases, false},
#define REWRITTEN(family, cases) {family, cases, true},
#define MODEL(family, kind, id)
#include "model/models.def"
#undef CHECKED
#undef REWRITTEN
#undef MODEL
};

const sw_release *sw_release_at(size_t i) { return i < SW_COUNT(releases) ? &releases[i] : NULL; }

static const char *cases_of(const sw_family *f, bool rewritten)
{
    for (size_t i = 0; i < SW_COUNT(checked); i++)
        if (!strcmp(checked[i].family, f->name) && checked[i].rewritten == rewritten)
            return checked[i].cases;
    return NULL;
}

const char *sw_family_checked(const sw_family *f) { return cases_of(f, false); }
const char *sw_family_rewritten(const sw_family *f) { return cases_of(f, true); }

const char *sw_release_kind_name(sw_release_kind k)
{
    static const char *const names[SW_RELEASE_KINDS] = {"plain", "fp8", "mxfp4", "gptq", "awq", "aqlm", "bnb"};
    return names[k];
}

/* What each method writes in place of a matrix, so that whoever has such a folder knows what they have. */
static const struct {
    const char *method, *name, *layout;
} unread[] = {{"gptq", "GPTQ", "packed integers with zeros and scales a group (qweight, qzeros, scales, g_idx)"},
              {"awq", "AWQ", "packed integers with zeros and scales a group (qweight, qzeros, scales)"},
              {"aqlm", "AQLM", "codes of additive codebooks (codes, codebooks, scales)"},
              {"bitsandbytes", "bitsandbytes", "blocks of 4 or 8 bits with scales (quant_state, SCB)"},
              {"fp8", "FP8", "8-bit floats with a scale a block (weight_scale_inv)"},
              {"fbgemm_fp8", "FBGEMM FP8", "8-bit floats with a scale a row (weight_scale)"},
              {"mxfp4", "MXFP4", "4-bit floats with a scale a block (blocks, scales)"}};

int sw_release_check(const cJSON *config, const char *where)
{
    const cJSON *q = sw_json_get(config, "quantization_config");
    const char *method;
    if (!q)
        return 0;
    if (!cJSON_IsObject(q))
        return sw_fail("%s: \"quantization_config\": an object is needed, not %s", where, sw_json_kind(q));
    if (sw_json_str(q, "quant_method", "", &method))
        return sw_fail_in("%s: \"quantization_config\"", where);
    for (size_t i = 0; i < SW_COUNT(unread); i++)
        if (!strcmp(unread[i].method, method))
            return sw_fail("%s: the matrices are in the layout of %s, %s, which is not read here; take the release in bf16 or f16, "
                           "or a GGUF file",
                           where, unread[i].name, unread[i].layout);
    return sw_fail("%s: \"quantization_config\": the layout of '%s' is not read here; take the release in bf16 or f16, or a GGUF file", where,
                   *method ? method : "a quantised model without a quant_method");
}
