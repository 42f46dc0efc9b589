/* Shared libraries that are opened when something first needs them. */
#ifndef SW_BASE_LIBRARY_H
#define SW_BASE_LIBRARY_H

#include "base/error.h"

#include <stddef.h>

typedef struct sw_library_function {
    const char *name;
    void *to; /* a pointer to the pointer that shall have it */
} sw_library_function;

typedef struct sw_library {
    const char *name;         /* for messages: "libcurl" */
    const char *need;         /* "downloads need libcurl" */
    const char *files[4];     /* names to try in turn; NULL after the last */
    const sw_library_function *functions;
    size_t count;
} sw_library;

/* Opens the first of the files that is there and finds all functions. The library stays open. -1 with what is missing. */
int sw_library_load(const sw_library *l) SW_MUST_CHECK;

#endif
