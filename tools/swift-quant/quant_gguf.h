/* Writing a GGUF file from a model in any layout, tensor by tensor, in flat memory. */
#ifndef SWIFT_QUANT_GGUF_H
#define SWIFT_QUANT_GGUF_H

#include "quant_recipe.h"
#include "store/checkpoint.h"
#include "store/made.h"

/* A tensor of the new file. */
typedef struct quant_tensor {
    char *name;            /* GGUF's */
    sw_entry from;
    sw_dtype to;
    int64_t place;         /* as quant_recipe.h has it; 0 where it means nothing */
    double error, square;  /* sums over the values: of squared differences, of squares */
} quant_tensor;

typedef struct quant_job {
    const quant_recipe *recipe;
    sw_strings keep;
    const char *out, *report;
    struct { quant_tensor *at; size_t n, cap; } tensors;
    quant_model model;
    sw_arena arena;        /* of tensors that are made of the model's */
} quant_job;

/* Metadata and tensors of a model, by its layout. A folder's configuration is read as sw_model_read_config does. */
int quant_from_gguf(quant_job *j, const sw_gguf *g, sw_gguf_writer *w) SW_MUST_CHECK;
int quant_from_folder(quant_job *j, sw_checkpoint *c, sw_gguf_writer *w) SW_MUST_CHECK;
/* Writes the tensors and commits, or leaves nothing. Takes w. */
int quant_write(quant_job *j, sw_gguf_writer *w) SW_MUST_CHECK;
void quant_job_free(quant_job *j);

#endif
