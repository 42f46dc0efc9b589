/* What a GGUF file says about a model that comes as a Hugging Face folder: names of tensors, metadata, tokenizer. */
#ifndef SW_MODEL_GGUF_EXPORT_H
#define SW_MODEL_GGUF_EXPORT_H

#include "model/family.h"
#include "store/checkpoint.h"

/* The sizes and the rotary scaling, as {architecture}.* values, and general.architecture. Fails on what the
 * architecture has no words for (an activation, a softcap). */
int sw_gguf_put_spec(sw_gguf_writer *w, const sw_spec *s) SW_MUST_CHECK;
/* GGUF's name of a tensor, weight or bias, or NULL. *heads: 0, or the heads whose rows GGUF regroups so that a rotary
 * pair, half a head apart on the hub, becomes two neighbours. */
char *sw_gguf_tensor_name(const sw_spec *s, const char *name, char out[SW_NAME_MAX], int64_t *heads);
/* Rotary divisors [sw_rope_pairs] of a scaling that GGUF keeps as the tensor rope_freqs.weight; false: it has none. */
bool sw_gguf_rope_divisors(const sw_spec *s, float *divisors);
/* tokenizer.ggml.* and the chat template, from the folder's tokenizer.json and what lies beside it. rows: of the
 * embedding; ids without a token are filled up to it. Token ids of s count where the tokenizer's files say nothing. */
int sw_gguf_put_tokenizer(sw_gguf_writer *w, const char *folder, const sw_spec *s, int64_t rows) SW_MUST_CHECK;

#endif
