#include "model/model_list.h"

#include "base/option.h"
#include "kernels/tensor.h"
#include "model/gguf_map.h"
#include "model/release.h"

#include <stdio.h>
#include <string.h>

static void put_names(sw_buf *out, const char *const *names, const char *between)
{
    for (const char *const *n = names; n && *n; n++)
        sw_buf_printf(out, "%s%s", n == names ? "" : between, *n);
}

static int count_models(const sw_family *f)
{
    const sw_release *r;
    int n = 0;
    for (size_t i = 0; (r = sw_release_at(i)); i++)
        n += !strcmp(r->family, f->name);
    return n;
}

/* ---- table */

enum { COLUMNS = 5 };
static const char *const headings[COLUMNS] = {"FAMILY", "MODEL TYPES", "ARCHITECTURES", "CHECKED BY", "MODELS"};
/* Columns for people end here; what is longer is cut, except in the last two. */
static const int widths[COLUMNS] = {20, 28, 44, 0, 0};

static void put_cell(sw_buf *out, int column, const char *text, bool aligned)
{
    if (!aligned) {
        sw_buf_printf(out, "%s%s", column ? "\t" : "", text);
    } else if (column == COLUMNS - 2) { /* the last two change places: a number is narrow */
        sw_buf_printf(out, "%s", text);
    } else if (column == COLUMNS - 1) {
        sw_buf_printf(out, "%6s  ", text);
    } else {
        int n = (int)strlen(text), most = widths[column] - 2;
        sw_buf_printf(out, "%-*.*s%s", n > most ? most - 2 : widths[column], n > most ? most - 2 : n, text, n > most ? "..  " : "");
    }
}

static void put_row(sw_buf *out, const char *const cells[COLUMNS], bool aligned)
{
    static const int as_is[COLUMNS] = {0, 1, 2, 3, 4}, for_people[COLUMNS] = {0, 1, 2, 4, 3};
    for (int k = 0; k < COLUMNS; k++) {
        int column = (aligned ? for_people : as_is)[k];
        put_cell(out, column, cells[column], aligned);
    }
    sw_buf_putc(out, '\n');
}

void sw_model_list_table(sw_buf *out, bool aligned)
{
    const sw_family *f;
    size_t families = 0, models = 0;
    if (aligned)
        put_row(out, headings, true);
    for (; (f = sw_family_at(families)); families++) {
        sw_buf types = {0}, architectures = {0};
        char number[16];
        put_names(&types, f->model_types, " ");
        put_names(&architectures, f->architectures, " ");
        snprintf(number, sizeof number, "%d", count_models(f));
        const char *checked = sw_family_checked(f);
        if (!checked)
            checked = sw_family_rewritten(f) ? "unverified (written twice)" : "unverified";
        put_row(out, (const char *const[COLUMNS]){f->name, types.n ? types.at : "-", architectures.at, checked, number}, aligned);
        sw_buf_free(&types);
        sw_buf_free(&architectures);
    }
    while (sw_release_at(models))
        models++;
    if (aligned)
        sw_buf_printf(out, "%zu families; %zu published models are known to use them (--list-as json names them)\n", families, models);
}

/* ---- JSON Lines */

static void put_json_strings(sw_buf *out, const char *key, const char *const *names)
{
    sw_buf_printf(out, ",\"%s\":[", key);
    for (const char *const *n = names; n && *n; n++) {
        sw_buf_puts(out, n == names ? "" : ",");
        sw_buf_json(out, *n, strlen(*n));
    }
    sw_buf_putc(out, ']');
}

static void put_json_words(sw_buf *out, const char *key, const char *words)
{
    sw_buf_printf(out, ",\"%s\":[", key);
    for (const char *w = words; w && *w; w += strspn(w, " ")) {
        size_t n = strcspn(w, " ");
        sw_buf_puts(out, w == words ? "" : ",");
        sw_buf_json(out, w, n);
        w += n;
    }
    sw_buf_putc(out, ']');
}

/* Architectures that GGUF files of a family name. */
static void gguf_names(sw_buf *out, const sw_family *f)
{
    const sw_gguf_kind *k, *other;
    for (size_t i = 0; (k = sw_gguf_kind_at(i)); i++) {
        size_t j = 0; /* the first row of this architecture */
        while ((other = sw_gguf_kind_at(j)) != k && (strcmp(other->family, f->name) || strcmp(other->arch, k->arch)))
            j++;
        if (!strcmp(k->family, f->name) && other == k)
            sw_buf_printf(out, "%s%s", out->n ? ", " : "", k->arch);
    }
}

/* What weights may be: floats in every file, blocks where GGUF files are read. */
static void put_weights(sw_buf *out, bool blocks, const char *before, const char *between)
{
    for (int t = 0, n = 0; t < SW_DTYPE_COUNT; t++) {
        bool floats = t == SW_F32 || t == SW_F16 || t == SW_BF16 || t == SW_F8_E4M3 || t == SW_F8_E5M2;
        if (floats || (blocks && sw_is_quantised((sw_dtype)t)))
            sw_buf_printf(out, "%s%s%s%s", n++ ? between : "", before, sw_dtypes[t].name, before);
    }
}

static void put_tuners(sw_buf *out, const char *before, const char *between)
{
    const sw_tuner *t;
    sw_buf_printf(out, "%sfull%s", before, before);
    for (size_t i = 0; (t = sw_tuner_at(i)); i++)
        sw_buf_printf(out, "%s%s%s%s", between, before, t->name, before);
}

void sw_model_list_json(sw_buf *out)
{
    const sw_family *f;
    for (size_t i = 0; (f = sw_family_at(i)); i++) {
        sw_buf_puts(out, "{\"family\":");
        sw_buf_json(out, f->name, strlen(f->name));
        put_json_strings(out, "architectures", f->architectures);
        put_json_strings(out, "model_types", f->model_types);
        sw_buf_puts(out, ",\"tuners\":[");
        put_tuners(out, "\"", ",");
        sw_buf_puts(out, "],\"weights\":[");
        sw_buf blocks = {0};
        gguf_names(&blocks, f);
        put_weights(out, blocks.n > 0, "\"", ",");
        sw_buf_free(&blocks);
        sw_buf_putc(out, ']');
        put_json_words(out, "checked_by", sw_family_checked(f));
        put_json_words(out, "written_twice", sw_family_rewritten(f));
        sw_buf_puts(out, ",\"models\":[");
        const sw_release *r;
        bool first = true;
        for (size_t k = 0; (r = sw_release_at(k)); k++) {
            if (strcmp(r->family, f->name))
                continue;
            sw_buf_puts(out, first ? "{\"id\":" : ",{\"id\":");
            sw_buf_json(out, r->id, strlen(r->id));
            sw_buf_printf(out, ",\"weights\":\"%s\"}", sw_release_kind_name(r->kind));
            first = false;
        }
        sw_buf_puts(out, "]}\n");
    }
}

/* ---- manual page */

static void man_list(sw_buf *out, const char *label, const char *text)
{
    if (!*text)
        return;
    sw_buf_printf(out, "%s: ", label);
    sw_mdoc_text(out, text);
    sw_buf_puts(out, ".\n");
}

static void man_models(sw_buf *out, const sw_family *f)
{
    const sw_release *r;
    for (int k = 0; k < SW_RELEASE_KINDS; k++) {
        sw_buf ids = {0};
        for (size_t i = 0; (r = sw_release_at(i)); i++)
            if (!strcmp(r->family, f->name) && (int)r->kind == k)
                sw_buf_printf(&ids, "%s%s", ids.n ? ",\n" : "", r->id);
        if (ids.n) {
            char label[32];
            snprintf(label, sizeof label, "%s%s%s", k ? "In " : "Models", k ? sw_release_kind_name((sw_release_kind)k) : "",
                     sw_release_is_read((sw_release_kind)k) ? "" : ", not read");
            sw_buf_puts(out, ".br\n");
            man_list(out, label, ids.at);
        }
        sw_buf_free(&ids);
    }
}

static void man_family(sw_buf *out, const sw_family *f)
{
    sw_buf b = {0};
    sw_buf_puts(out, ".It Cm ");
    sw_mdoc_text(out, f->name);
    sw_buf_putc(out, '\n');
    put_names(&b, f->architectures, ", ");
    man_list(out, "Architectures", b.at);
    sw_buf_clear(&b);
    put_names(&b, f->model_types, ", ");
    sw_buf_puts(out, f->model_types && *f->model_types ? ".br\n" : "");
    man_list(out, "Model types", b.n ? b.at : "");
    const char *checked = sw_family_checked(f), *rewritten = sw_family_rewritten(f);
    sw_buf_puts(out, ".br\n");
    if (checked || !rewritten)
        man_list(out, "Checked by", checked ? checked : "nothing, built from the published code");
    if (rewritten)
        man_list(out, "Written twice", rewritten);
    sw_buf_clear(&b);
    gguf_names(&b, f);
    if (b.n) {
        sw_buf_puts(out, ".br\n");
        man_list(out, "GGUF", b.at);
    }
    man_models(out, f);
    sw_buf_free(&b);
}

void sw_model_list_man(sw_buf *out)
{
    const sw_family *f;
    size_t families = 0, models = 0;
    while (sw_family_at(families))
        families++;
    while (sw_release_at(models))
        models++;
    sw_buf_puts(out, ".\\\" Made by swift-infer --list-models --list-as man (make lists).\n"
                     ".Dd November 26, 2026\n.Dt SWIFT-MODELS 7\n.Os\n.Sh NAME\n.Nm swift-models\n.Nd language models that the programs know\n"
                     ".Sh DESCRIPTION\n");
    sw_buf_printf(out, "There are %zu families, and %zu published models are known to use one.\n", families, models);
    sw_buf_puts(out, "Which family reads a folder is decided by\n.Ql architectures\nof its\n.Pa config.json ,\nor by\n.Ql model_type\n"
                     "where that is missing; another model that says the same is read, too.\n"
                     "Vision and audio parts are not among these.\n.Pp\n"
                     "Tuners of every family:\n");
    put_tuners(out, "", ", ");
    sw_buf_puts(out, ".\nWeights in a folder may be\n");
    put_weights(out, false, "", ", ");
    sw_buf_puts(out, ".\nWhere a family says GGUF, files of that architecture are read, with weights in any of\n");
    put_weights(out, true, "", ", ");
    sw_buf_puts(out, ".\n.Pp\nReleases whose matrices are packed otherwise are named as not read: their family is known, and the release in\n"
                     "bf16 or a GGUF file serves instead.\n.Pp\n"
                     "What a family is checked by are cases of\n.Pa tests/golden/make_llm.py\nand\n.Pa make_hub.py :\n"
                     "numbers of another implementation, which the family gives, too.\n"
                     "Where there is no other implementation that still runs, the published code was written a second time, in Python, and\n"
                     "the family gives the numbers of that.\n.Sh FAMILIES\n.Bl -tag -width Ds\n");
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        man_family(out, f);
    sw_buf_puts(out, ".El\n.Sh SEE ALSO\n.Xr swift-infer 1 ,\n.Xr swift-train 1 ,\n.Xr swift-checkpoint 7 ,\n.Xr swift-templates 7\n");
}
