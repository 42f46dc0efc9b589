/* Several data files as one stream of rows: one after the other or interleaved by chance, whole, or samples of them.
 *
 * A file is given as PATH[#COUNT][:WEIGHT]; a name that exists as it stands is taken so. COUNT rows are drawn from the
 * file (all of them again and again where it has fewer). One after the other, WEIGHT is the share of its rows: 0.3
 * draws three in ten, 2 gives each twice. Interleaved, it is how often the file is chosen, against the others' weights
 * (1). Rows that are drawn keep their order. What comes depends on the files and the seed alone. */
#ifndef SW_DATA_MIXTURE_H
#define SW_DATA_MIXTURE_H

#include "data/jsonl.h"

typedef enum sw_mix {
    SW_MIX_CONCAT, /* in the order given */
    SW_MIX_ONCE,   /* interleaved; a file that has ended falls out */
    SW_MIX_FIRST,  /* interleaved until the first file has ended */
    SW_MIX_ALL,    /* interleaved until every file has ended; those that end earlier begin again */
} sw_mix;

typedef struct sw_mixture_options {
    sw_mix mix;
    sw_rows_kind kind;
    sw_text_unit unit;
    sw_rows_bounds bounds;
    uint64_t seed;
    const atomic_bool *stop; /* see sw_source_stop_when */
} sw_mixture_options;

typedef struct sw_mixture sw_mixture;

/* Nothing is opened yet, but every name is checked. The names are borrowed. */
sw_mixture *sw_mixture_new(char *const *names, int n, const sw_mixture_options *o) SW_MUST_CHECK;
void sw_mixture_free(sw_mixture *m);
/* As sw_rows_next; *from: number of the file, which stays there for sw_row_json until the mixture is freed. A file of
 * which a sample is wanted is read once before, to count it. */
int sw_mixture_next(sw_mixture *m, sw_row *row, int *from) SW_MUST_CHECK;
/* Fails where an output (NULL: none) is one of the files. */
int sw_mixture_spared_by(const sw_mixture *m, const char *out) SW_MUST_CHECK;
/* Passes over rows without giving them out: as many as sw_mixture_next would have given. Fails where there are fewer.
 */
int sw_mixture_skip(sw_mixture *m, int64_t rows) SW_MUST_CHECK;
/* Files, and file i, or NULL where it was not read yet. */
int sw_mixture_files(const sw_mixture *m);
const sw_rows *sw_mixture_file(const sw_mixture *m, int i);
int64_t sw_mixture_taken(const sw_mixture *m, int i); /* rows given out from file i */
/* Bytes read and to be read, for progress; *total 0: not known. */
void sw_mixture_progress(const sw_mixture *m, double *done, double *total);

#endif
