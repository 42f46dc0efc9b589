/* Choosing a query's keys by scores, as host devices do it (kernel `index_choose`). */
#ifndef SW_KERNELS_CHOOSE_H
#define SW_KERNELS_CHOOSE_H

#include "kernels/kernels.h"
#include "kernels/select.h"

/* What a call has for a row of scores. */
typedef struct sw_choice {
    uint32_t *bits; /* [words], or NULL */
    int64_t words;
    int32_t *rows; /* [k], or NULL */
    int64_t seen;  /* keys that the query sees */
    int64_t all;   /* among which ties are decided */
    int64_t first; /* row of key 0, before paging */
} sw_choice;

/* Bytes of space for rows of up to `all` places. */
size_t sw_choose_bytes(int64_t all);
void sw_choose_row(const sw_choice *c, const float *score, int64_t k, const sw_paging *paging, void *space);
/* Row i of a call: false where no sequence has it. */
bool sw_choice_of(sw_choice *c, int64_t row, sw_tensor *bits, sw_tensor *rows, const sw_tensor *seqs, int64_t every, int64_t among);

#endif
