/* The runner of golden cases: build/tests/golden KIND [--device D] DIR...
 * A kind is one file golden_KIND.c and one line in golden.c. */
#ifndef SW_GOLDEN_H
#define SW_GOLDEN_H

#include "base/error.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <stddef.h>

/* Paths of cases, found under what the user named. */
typedef struct golden_cases {
    char **at;
    size_t n, cap;
} golden_cases;

typedef struct golden_kind {
    const char *name;
    /* Whether path itself is a case (a folder, or "X" with X.json beside it). Folders that are none are searched. */
    int (*is_case)(const char *path);
    /* 0 passed; -1 failed, with sw_error(). *worst: the largest difference seen (relative to nothing). */
    int (*run)(const char *path, double *worst);
    /* Cases inside a folder that are files and no folders: a suffix such as ".json", or NULL. */
    const char *file_suffix;
} golden_kind;

/* Device chosen by --device ("cpu" when not given). */
extern const char *golden_device;

int golden_has(const char *dir, const char *file);
/* Largest |a-b|; a NaN in either gives infinity. */
double golden_max_diff(const float *a, const float *b, size_t n);

#endif
