/* What a GGUF file says about a model that comes as a Hugging Face folder: names and layouts of tensors, metadata, tokenizer. */
#ifndef SW_MODEL_GGUF_EXPORT_H
#define SW_MODEL_GGUF_EXPORT_H

#include "model/gguf_map.h"

/* Metadata into w, and the tensors of the file as c's make them (arena's; they refer to c). Checks that the folder is whole,
 * that every tensor has a place, and that a reader of the file would find the same model: what GGUF has no words for is an
 * error that says so. */
int sw_gguf_export(sw_gguf_writer *w, const sw_checkpoint *c, const sw_spec *s, sw_entries *out, sw_arena *arena) SW_MUST_CHECK;
/* tokenizer.ggml.* and the chat template, from the folder's tokenizer.json and what lies beside it. rows: of the
 * embedding; ids without a token are filled up to it. Token ids of s count where the tokenizer's files say nothing. */
int sw_gguf_put_tokenizer(sw_gguf_writer *w, const char *folder, const sw_spec *s, int64_t rows) SW_MUST_CHECK;

#endif
