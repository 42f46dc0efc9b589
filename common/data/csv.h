/* A row of CSV (RFC 4180) as a JSON object of strings; empty fields are left out. */
#ifndef SW_DATA_CSV_H
#define SW_DATA_CSV_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stddef.h>

typedef struct sw_csv {
    char separator;
    struct { /* names of the columns */
        char **at;
        size_t n, cap;
    } names;
} sw_csv;

int sw_csv_header(sw_csv *c, const char *at, size_t n) SW_MUST_CHECK;
/* Messages say which column. Caller frees. */
cJSON *sw_csv_row(const sw_csv *c, const char *at, size_t n) SW_MUST_CHECK;
void sw_csv_free(sw_csv *c);

#endif
