/* What sequences that are being generated remember: for each layer the states that its mixer asks for (block.h). */
#ifndef SW_MODEL_CACHE_H
#define SW_MODEL_CACHE_H

#include "model/block.h"

typedef struct sw_layer_states {
    int n;
    sw_state_spec spec[SW_MOST_STATES];
    sw_tensor t[SW_MOST_STATES];
    void *memory[SW_MOST_STATES];
} sw_layer_states;

typedef struct sw_cache {
    sw_ctx *ctx;
    int64_t slots, capacity;   /* sequences, and places of each */
    int64_t *length;           /* [slots] places filled; set to 0 to start a slot afresh */
    int32_t *ids;              /* [slots * capacity] the tokens themselves, for rotations that change with the length */
    sw_layer_states *layer;    /* [layers] */
    /* Of models with an encoder: places for the tokens of each slot's source, and [slots] how many are filled. */
    int64_t source_capacity, *source_length;
} sw_cache;

int sw_cache_init(sw_cache *cache, sw_ctx *c, const struct sw_model *m, int64_t slots, int64_t capacity) SW_MUST_CHECK;
/* Grows the places of each slot, keeping what is there. */
int sw_cache_reserve(sw_cache *cache, const struct sw_model *m, int64_t capacity) SW_MUST_CHECK;
/* The same of the places for its source. */
int sw_cache_reserve_source(sw_cache *cache, const struct sw_model *m, int64_t capacity) SW_MUST_CHECK;
/* Makes slot `to` a copy of `from` (several samples of one prompt). */
int sw_cache_copy_slot(sw_cache *cache, const struct sw_model *m, int64_t to, int64_t from) SW_MUST_CHECK;
void sw_cache_free(sw_cache *cache, const struct sw_model *m);

#endif
