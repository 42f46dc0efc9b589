/* Which of scores are the largest. Which of equal ones are kept matters to sparse attention: max(0, .) makes many of them
 * exactly zero. The reference implementation keeps those that the selection of the C++ library leaves in front (introselect:
 * Hoare's, around the median of three); so does this, on every device. */
#ifndef SW_KERNELS_SELECT_H
#define SW_KERNELS_SELECT_H

#include "base/philox.h" /* SW_RNG_FUNCTION */

typedef struct sw_scored {
    float score;
    int32_t place;
} sw_scored;

SW_RNG_FUNCTION void sw_scored_swap(sw_scored *a, sw_scored *b)
{
    sw_scored t = *a;
    *a = *b;
    *b = t;
}

/* Puts the median of a[lo + 1], a[middle], a[hi - 1] at a[lo]. */
SW_RNG_FUNCTION void sw_scored_median(sw_scored *a, int64_t lo, int64_t hi)
{
    sw_scored *x = a + lo + 1, *y = a + lo + (hi - lo) / 2, *z = a + hi - 1, *median;
    if (x->score > y->score)
        median = y->score > z->score ? y : x->score > z->score ? z : x;
    else
        median = x->score > z->score ? x : y->score > z->score ? z : y;
    sw_scored_swap(a + lo, median);
}

/* Orders a so that its k largest come first. No score may be NaN. */
SW_RNG_FUNCTION void sw_largest_first(sw_scored *a, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n;
    while (hi - lo > 3) {
        int64_t i = lo + 1, j = hi;
        sw_scored_median(a, lo, hi);
        float pivot = a[lo].score;
        for (;; i++) {
            while (a[i].score > pivot)
                i++;
            do
                j--;
            while (pivot > a[j].score);
            if (i >= j)
                break;
            sw_scored_swap(a + i, a + j);
        }
        if (i < k)
            lo = i;
        else
            hi = i;
    }
    for (int64_t i = lo + 1; i < hi; i++)
        for (int64_t j = i; j > lo && a[j].score > a[j - 1].score; j--)
            sw_scored_swap(a + j, a + j - 1);
}

#endif
