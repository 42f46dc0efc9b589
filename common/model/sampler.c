#include "model/sampler.h"

#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const sw_sampling sw_sampling_greedy = {.top_p = 1, .repetition_penalty = 1};

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static int32_t *sorted(const int32_t *ids, size_t n)
{
    int32_t *to = sw_malloc((n + 1) * sizeof *to);
    if (n)
        memcpy(to, ids, n * sizeof *to);
    qsort(to, n, sizeof *to, by_id);
    return to;
}

/* Each token once, with how often the answer has it; those of the prompt alone where they are wanted. */
static void count(const int32_t *ids, size_t n, size_t n_prompt, bool prompt, sw_seen_tokens *seen)
{
    size_t made = n - n_prompt, a = 0, b = 0;
    int32_t *of_prompt = sorted(ids, prompt ? n_prompt : 0), *of_answer = sorted(ids + n_prompt, made);
    n_prompt = prompt ? n_prompt : 0;
    while (a < n_prompt || b < made) {
        int32_t id = b == made || (a < n_prompt && of_prompt[a] < of_answer[b]) ? of_prompt[a] : of_answer[b], times = 0;
        for (; a < n_prompt && of_prompt[a] == id; a++)
            ;
        for (; b < made && of_answer[b] == id; b++)
            times++;
        SW_RESERVE(*seen, seen->n + 1);
        seen->at[seen->n][0] = id;
        seen->at[seen->n++][1] = times;
    }
    free(of_prompt);
    free(of_answer);
}

sw_draw sw_sampling_draw(const sw_sampling *s, const int32_t *ids, size_t n, size_t n_prompt, uint32_t stream, sw_seen_tokens *seen)
{
    sw_draw d = {s->temperature, s->top_p, s->min_p, s->repetition_penalty, s->presence_penalty, s->frequency_penalty, s->top_k,
                 {s->seed, stream, sw_rng_site("sample")}, n - n_prompt, (int32_t)seen->n, 0, -1, 0};
    if (s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0)
        count(ids, n, n_prompt, s->repetition_penalty != 1, seen);
    d.seen_count = (int32_t)seen->n - d.seen_first;
    return d;
}
