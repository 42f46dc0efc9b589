#include "model/release.h"

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

bool sw_release_is_read(sw_release_kind k) { return k == SW_RELEASE_PLAIN || k == SW_RELEASE_FP8 || k == SW_RELEASE_MXFP4; }
