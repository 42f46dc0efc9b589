#include "golden_rows.h"

#include "base/memory.h"

#include <stdlib.h>

int golden_rows_read(golden_rows *r, const sw_safetensors *data, int64_t i, const sw_tensor *scale)
{
    golden_rows_free(r);
    const sw_entry *ids = sw_st_find(data, "input_ids"), *mask = sw_st_find(data, "attention_mask"), *labels = sw_st_find(data, "labels");
    if (!ids || !mask || !labels || (ids->t.ndim != 3 && ids->t.ndim != 2) || sw_numel(&ids->t) < 1 || sw_numel(&mask->t) != sw_numel(&ids->t) ||
        sw_numel(&labels->t) != sw_numel(&ids->t))
        return sw_fail("the training data has another form");
    const int64_t *last = ids->t.shape + ids->t.ndim - 2; /* a single batch may come without the first dimension */
    int64_t rows = last[0], width = last[1], all = rows * width, base = i % (ids->t.ndim == 3 ? ids->t.shape[0] : 1) * all;
    if (scale && (scale->dtype != SW_F32 || sw_numel(scale) != all))
        return sw_fail("the loss scale has another form");
    *r = (golden_rows){.rows = rows, .width = width, .ids = SW_NEW_ARRAY(int32_t, (size_t)all), .targets = SW_NEW_ARRAY(int32_t, (size_t)all),
                       .weights = SW_NEW_ARRAY(float, (size_t)all), .place = SW_NEW_ARRAY(int64_t, (size_t)all),
                       .lengths = SW_NEW_ARRAY(int64_t, (size_t)rows)};
    sw_micro_batch b = {.n_seqs = rows, .ids = r->ids, .targets = r->targets, .weights = r->weights, .lengths = r->lengths};
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < width; k++) {
            int64_t at = base + row * width + k;
            if (!sw_scalar_get(mask->t.data, mask->t.dtype, at))
                continue;
            int32_t target = k + 1 < width ? (int32_t)sw_scalar_get(labels->t.data, labels->t.dtype, at + 1) : -1;
            r->ids[b.n] = (int32_t)sw_scalar_get(ids->t.data, ids->t.dtype, at);
            r->targets[b.n] = target < 0 ? -1 : target;
            r->weights[b.n] = target < 0 ? 0 : scale ? ((const float *)scale->data)[row * width + k + 1] : 1;
            r->labelled += target >= 0;
            r->place[b.n++] = row * width + k;
            r->lengths[row]++;
        }
    r->b = b;
    return 0;
}

void golden_rows_free(golden_rows *r)
{
    free(r->ids);
    free(r->targets);
    free(r->weights);
    free(r->place);
    free(r->lengths);
    *r = (golden_rows){0};
}
