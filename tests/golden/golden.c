#include "golden.h"

#include "base/fileio.h"
#include "base/strbuf.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KINDS(X)                                                                                                    \
    X(tokenizer) X(jinja) X(chat_template) X(template) X(loss_mask) X(quant) X(llm) X(tuner) X(optimizer) X(loss)

#define DECLARE(name) extern const golden_kind golden_##name __attribute__((weak));
KINDS(DECLARE)
#define ROW(name) &golden_##name,
static const golden_kind *const kinds[] = {KINDS(ROW)};

const char *golden_device = "cpu";

int golden_has(const char *dir, const char *file)
{
    char *p = sw_path_join(dir, file);
    int yes = sw_is_file(p);
    free(p);
    return yes;
}

double golden_max_diff(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst))
            worst = isnan(d) ? INFINITY : d;
    }
    return worst;
}

/* Folders that serve cases and are none. */
static int serves(const char *name)
{
    return !strcmp(name, "base") || !strcmp(name, "data") || !strcmp(name, "models") || !strcmp(name, "templates") ||
           name[0] == '.';
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void collect(const golden_kind *k, const char *path, golden_cases *out, int depth)
{
    if (k->is_case(path)) {
        SW_PUSH(*out, sw_strdup(path));
        return;
    }
    DIR *d = depth < 4 ? opendir(path) : NULL;
    if (!d)
        return;
    golden_cases names = {0};
    for (struct dirent *e; (e = readdir(d));)
        if (!serves(e->d_name))
            SW_PUSH(names, sw_strdup(e->d_name));
    closedir(d);
    qsort(names.at, names.n, sizeof *names.at, by_name);
    for (size_t i = 0; i < names.n; i++) {
        char *child = sw_path_join(path, names.at[i]);
        if (sw_is_dir(child)) {
            collect(k, child, out, depth + 1);
        } else if (k->file_suffix && sw_ends_with(child, k->file_suffix)) {
            child[strlen(child) - strlen(k->file_suffix)] = 0;
            if (k->is_case(child))
                SW_PUSH(*out, sw_strdup(child));
        }
        free(child);
        free(names.at[i]);
    }
    free(names.at);
}

int main(int argc, char **argv)
{
    const golden_kind *k = NULL;
    for (size_t i = 0; argc > 1 && i < SW_COUNT(kinds); i++)
        if (kinds[i] && !strcmp(kinds[i]->name, argv[1]))
            k = kinds[i];
    golden_cases cases = {0};
    for (int i = 2; k && i < argc; i++) {
        if (!strcmp(argv[i], "--device") && i + 1 < argc) {
            golden_device = argv[++i];
            continue;
        }
        size_t before = cases.n;
        char *path = sw_strdup(argv[i]);
        for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
            path[n - 1] = 0;
        collect(k, path, &cases, 0);
        free(path);
        if (cases.n == before) {
            fprintf(stderr, "golden: %s: holds no case of kind %s\n", argv[i], k->name);
            return 2;
        }
    }
    if (!k || !cases.n) {
        fprintf(stderr, "usage: golden KIND [--device NAME] DIR...\nkinds:");
        for (size_t i = 0; i < SW_COUNT(kinds); i++)
            if (kinds[i])
                fprintf(stderr, " %s", kinds[i]->name);
        fputc('\n', stderr);
        return 2;
    }
    size_t passed = 0;
    for (size_t i = 0; i < cases.n; i++) {
        double worst = 0;
        sw_error_clear();
        int bad = k->run(cases.at[i], &worst);
        const char *slash = strrchr(cases.at[i], '/');
        const char *name = slash ? slash + 1 : cases.at[i];
        if (bad)
            printf("FAIL %s %.3g: %s\n", name, worst, sw_error());
        else
            printf("ok %s %.3g\n", name, worst);
        fflush(stdout);
        passed += !bad;
        free(cases.at[i]);
    }
    printf("%zu passed, %zu failed\n", passed, cases.n - passed);
    free(cases.at);
    return passed < cases.n;
}
