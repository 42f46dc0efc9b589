#include "kernels/choose.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

size_t sw_choose_bytes(int64_t all) { return (size_t)all * sizeof(sw_scored) + ((size_t)all / 32 + 1) * sizeof(uint32_t); }

bool sw_choice_of(sw_choice *c, int64_t row, sw_tensor *bits, sw_tensor *rows, const sw_tensor *seqs, int64_t every, int64_t among)
{
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        const int32_t *s = (const int32_t *)seqs->data + b * seqs->stride[0];
        if (row < s[0] || row >= (int64_t)s[0] + s[1])
            continue;
        *c = (sw_choice){.bits = bits ? (uint32_t *)bits->data + row * bits->stride[0] : NULL, .words = bits ? bits->shape[1] : 0,
                         .rows = rows ? (int32_t *)rows->data + row * rows->stride[0] : NULL, .seen = ((int64_t)s[3] - s[1] + (row - s[0]) + 1) / every,
                         .all = SW_MAX(s[3] / every, among), .first = s[2]};
        return true;
    }
    return false;
}

static bool has(const uint32_t *bits, int64_t j) { return bits[j / 32] >> (j % 32) & 1; }

void sw_choose_row(const sw_choice *c, const float *score, int64_t k, const sw_paging *paging, void *space)
{
    sw_scored *all = space;
    uint32_t *chosen = (uint32_t *)(void *)(all + c->all);
    memset(chosen, 0, ((size_t)c->all / 32 + 1) * sizeof *chosen);
    for (int64_t j = 0; c->seen > k && j < c->all; j++)
        all[j] = (sw_scored){j < c->seen && !isnan(score[j]) ? score[j] : -INFINITY, (int32_t)j};
    if (c->seen > k)
        sw_largest_first(all, c->all, k);
    for (int64_t i = 0; i < SW_MIN(k, c->seen); i++) {
        int64_t j = c->seen > k ? all[i].place : i;
        if (j < c->seen)
            chosen[j / 32] |= (uint32_t)1 << (j % 32);
    }
    for (int64_t w = 0; w < c->words; w++)
        c->bits[w] = w <= c->all / 32 ? chosen[w] : 0;
    int64_t n = 0;
    for (int64_t j = 0; c->rows && j < c->seen; j++)
        if (has(chosen, j))
            c->rows[n++] = (int32_t)sw_paged(paging, c->first + j);
    for (; c->rows && n < k; n++)
        c->rows[n] = -1;
}
