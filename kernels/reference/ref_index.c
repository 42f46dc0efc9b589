/* An indexer's scores, and what is chosen by them. */
#include "kernels/reference/reference.h"

#include "kernels/choose.h"

int ref_index_scores(sw_stream *s, sw_tensor *scores, const sw_tensor *q, const sw_tensor *k, const sw_tensor *weights, const sw_tensor *seqs,
                     const sw_paging *paging, int64_t every)
{
    int64_t heads = q->shape[1], width = q->shape[2];
    assert(k->shape[1] == 1 && k->shape[2] == width && weights->shape[0] == q->shape[0] && weights->shape[1] == heads && ref_is_f32(scores));
    double *query = ref_scratch(s, (heads + 1) * width), *key = query + heads * width;
    if (!query)
        return -1;
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        for (int64_t i = 0; i < (int64_t)ref_get(seqs, 4 * b + 1); i++) {
            int64_t row = (int64_t)ref_get(seqs, 4 * b) + i, place = (int64_t)(ref_get(seqs, 4 * b + 3) - ref_get(seqs, 4 * b + 1)) + i;
            for (int64_t h = 0; h < heads; h++)
                ref_load(query + h * width, q, row * heads + h);
            for (int64_t j = 0; j < (place + 1) / every; j++) {
                double sum = 0;
                ref_load(key, k, sw_paged(paging, (int64_t)ref_get(seqs, 4 * b + 2) + j));
                for (int64_t h = 0; h < heads; h++) {
                    double dot = 0;
                    for (int64_t d = 0; d < width; d++)
                        dot += query[h * width + d] * key[d];
                    sum += dot > 0 ? ref_get(weights, row * heads + h) * dot : 0;
                }
                ref_set(scores, row * scores->shape[1] + j, sum);
            }
        }
    return 0;
}

int ref_index_choose(sw_stream *s, sw_tensor *bits, sw_tensor *rows, const sw_tensor *scores, const sw_tensor *seqs, const sw_paging *paging,
                     int64_t every, int64_t k, int64_t among)
{
    for (int64_t i = 0; i < scores->shape[0]; i++) {
        sw_choice c;
        if (!sw_choice_of(&c, i, bits, rows, seqs, every, among))
            continue;
        void *space = sw_stream_scratch(s, sw_choose_bytes(c.all));
        if (!space)
            return -1;
        sw_choose_row(&c, (const float *)scores->data + i * scores->stride[0], k, paging, space);
    }
    return 0;
}
