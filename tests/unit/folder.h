/* A folder for a test program's files: made before its tests, removed after them
 * (cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove)). */
#ifndef SW_TESTS_FOLDER_H
#define SW_TESTS_FOLDER_H

#include "base/fileio.h"

#include <stdio.h>
#include <stdlib.h>

static char dir[] = "/tmp/swift-test-XXXXXX";

/* The path of a file in it, until the next call. */
static inline char *in(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static inline int sw_folder_make(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static inline int sw_folder_remove(void **state)
{
    (void)state;
    return sw_remove_tree(dir);
}

#endif
