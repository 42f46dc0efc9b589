/* Training data of golden cases: input_ids, labels (not shifted, negative: no loss) and attention_mask, [batch,] row,
 * position, right padded; read as packed sequences. */
#ifndef SW_GOLDEN_ROWS_H
#define SW_GOLDEN_ROWS_H

#include "store/safetensors.h"
#include "tools/swift-train/objective.h"

typedef struct golden_rows {
    sw_micro_batch b;
    int32_t *ids, *targets;
    float *weights;
    int64_t *lengths;
    int64_t *place;    /* [b.n] row * width + position of each token */
    int64_t rows, width;
    double labelled;
} golden_rows;

/* Batch i (counted round) of the data; scale: f32 [rows, width] weights of the tokens as labels, or NULL. Frees what was
 * there before. */
int golden_rows_read(golden_rows *r, const sw_safetensors *data, int64_t i, const sw_tensor *scale) SW_MUST_CHECK;
void golden_rows_free(golden_rows *r);

#endif
