/* What blocks are made of, and how a new kind of layer plugs in.
 *
 * A decoder is a row of blocks. A block takes hidden states x [N, hidden] and returns them changed; the standard one
 * (block.c) is norms and residuals around a mixer, which lets tokens see each other, and a feed-forward. A spec chooses
 * all three for each layer (sw_layer). To add
 *
 *   - a mixer (latent attention, a state-space model, a short convolution): a file mixer_X.c with one sw_mixer_ops;
 *   - a feed-forward (a mixture of experts): a file ffn_X.c with one sw_ffn_ops;
 *   - a block unlike the standard one (two sub-layers with a shortcut, streams beside the hidden states): a sw_block_ops in
 *     the family's file;
 *   - something before the first block or after the last (embeddings of each layer, an encoder): a sw_body_ops (family.h).
 *
 * and a family's `layers` sets them: s->layer[i].mixer = &sw_mixer_mamba, with options read from config.json into a struct
 * of the mixer's own (allocated in s->arena) as s->layer[i].mixer_options. None of them asks which family it is in.
 *
 * Tensors are DECLARED: `declare` is called once with a zeroed struct of `size` bytes and asks for each tensor by our name
 * relative to the layer ("self_attn.q_proj"), with its shape. That one declaration loads it, finds it again under the
 * file's name and packing when the model is written, and lists it for tuners and parameter counts. Our names are
 * Llama's module paths, and where Llama has none, those most families use; a family's sw_rename table says what its files
 * call them. A projection that files hold packed (query_key_value, gate_up_proj) is declared as the ONE Linear that it
 * is, so that an adapter hangs on the module which PEFT knows; its output is taken apart with sw_part.
 *
 * A mixer that remembers earlier tokens says in `states` which tensors that takes. Those `by_token` hold a row a token
 * of each slot (or of the source that an encoder has read), or one for several, the others one row a slot (a recurrent state);
 * allocation, growth and copies are the cache's (cache.h). A layer's second mixer has its states behind the first one's.
 * A sequence that starts afresh has before[i] == 0: what a fixed state's slot holds then is undefined and counts as zeros. */
#ifndef SW_MODEL_BLOCK_H
#define SW_MODEL_BLOCK_H

#include "adapter/tuner.h"
#include "model/spec.h"
#include "nn/linear.h"

struct sw_model;
struct sw_cache;

/* ---- declaring tensors */

typedef struct sw_builder sw_builder;
typedef enum sw_ask_flags {
    SW_ASK_BIAS = 1,
    SW_ASK_F32 = 2,       /* kept in f32, whatever the weights are converted to */
    SW_ASK_TRANSPOSED = 4, /* stored [in, out] */
    SW_ASK_FIXED = 8,      /* never trained */
    SW_ASK_EMBEDDING = 16, /* a Linear that is a table of rows: [rows, width] */
    SW_ASK_ANY = 32,       /* read by kernels that take any weights (kernels.def): 8-bit floats stay what they are. Linears are. */
} sw_ask_flags;

const sw_spec *sw_builder_spec(const sw_builder *b);
/* Options and sizes of the layer being built; NULL outside of layers. */
const sw_layer *sw_builder_layer(const sw_builder *b);
/* Host memory as long as the model's, zeroed. */
void *sw_builder_alloc(sw_builder *b, size_t n);

/* A parameter. `name` is ours: relative to the layer inside one, whole outside. What is missing or misshapen is noted and
 * reported at the end with all the rest, and NULL returned: declare on. */
sw_param *sw_ask(sw_builder *b, const char *name, int ndim, const int64_t *shape, unsigned flags);
/* The same, when the file has it; NULL without a complaint otherwise. */
sw_param *sw_ask_optional(sw_builder *b, const char *name, int ndim, const int64_t *shape, unsigned flags);
/* One parameter [count, ...shape] that the file holds as `count` tensors; name has one %d. */
sw_param *sw_ask_stack(sw_builder *b, const char *name, int64_t count, int ndim, const int64_t *shape, unsigned flags);
/* Whole numbers of [0, below), which nobody trains: on the host, as long as the model; written again as the file has them.
 * NULL where something is wrong, and where nothing is loaded. */
const int32_t *sw_ask_integers(sw_builder *b, const char *name, int ndim, const int64_t *shape, int64_t below);
/* A Linear: module ".weight" [out, in] and with SW_ASK_BIAS module ".bias". Tuners see it under the file's module path. */
void sw_ask_linear(sw_builder *b, sw_linear *l, const char *module, int64_t out, int64_t in, unsigned flags);

typedef struct sw_norm {
    sw_param *w, *b;
    const sw_norm_spec *spec; /* NULL: no norm here */
} sw_norm;
/* module ".weight" and ".bias" as the spec has them, [width]. */
void sw_ask_norm(sw_builder *b, sw_norm *n, const char *module, int64_t width, const sw_norm_spec *spec);
/* Over x's last dimension; x itself where there is no norm. */
sw_var *sw_norm_forward(sw_ctx *c, const sw_norm *n, sw_var *x) SW_MUST_CHECK;

/* ---- running */

/* A batch made ready: what a block needs beside the hidden states; alive until its backward pass is over. */
typedef struct sw_pass {
    struct sw_model *model;
    const sw_spec *spec;
    int64_t n, n_seqs;
    const int32_t *ids, *positions, *types;       /* host [n] */
    const int64_t *lengths, *before, *slots;      /* host [n_seqs]: tokens in this batch, tokens in the cache, slot (0 without) */
    int64_t longest;                              /* largest position + 1 */
    sw_var *token_ids, *type_ids, *place_ids;     /* i32 [n]: rows of the embeddings; of the last two where there are such tables */
    sw_var *keys;                                 /* i64 [n]: of the tokens, as c->keys; or NULL */
    sw_var *seqs;                                 /* i32 [n_seqs, 4], as sw_attend has it: of the cache when there is one */
    sw_var *pages;                                /* i32: where its keys lie there, as sw_paging has it; NULL without a cache */
    sw_var *chunks;                               /* as seqs, where each chunk is a sequence; NULL: no layer is chunked */
    sw_var *runs;                                 /* i32 [n_seqs, 4], as kernels with a state have it */
    sw_var *rows;                                 /* i32 [n]: row of each token in the cache's states; NULL without a cache */
    sw_var *cos[SW_MOST_ROPES], *sin[SW_MOST_ROPES]; /* f32 [n, R] of each rope that some layer uses */
    sw_var *query_scale, *query_zero;             /* f32 [n, head_dim / 2]: tables that scale instead of turn, or NULL */
    sw_var *alibi;                                /* f32 [heads] or NULL */
    sw_var *bias;                                 /* f32 [heads, span] where layers share their scores by distance, or NULL */
    sw_var *memory;                               /* what the encoder made of the sources of this batch [tokens, hidden]; or NULL */
    sw_var *memory_rows;                          /* i32: cache row of each; NULL without a cache */
    sw_var *cross, *cross_pages;                  /* as seqs and pages, with the keys of the source; NULL without an encoder */
    struct sw_pass *source;                       /* of the encoder in front, where this batch has sources */
    sw_var *asked;                                /* i32: rows of the results that were asked for; NULL: all */
    struct sw_cache *cache;                       /* NULL in training */
    struct sw_block *block;                       /* the one being run */
    bool encoder;                                 /* of the encoder in front */
    void *body;                                   /* what the family's sw_body_ops.enter left for its blocks, or NULL */
    struct { sw_var **at; size_t n, cap; } kept;  /* private */
} sw_pass;
/* Keeps a var that `enter` made alive for all blocks and their second runs. Returns x. */
sw_var *sw_pass_keep(sw_ctx *c, sw_pass *p, sw_var *x);

enum { SW_MOST_STATES = 8, SW_BY_SOURCE_TOKEN = -1 };
typedef struct sw_state_spec {
    int32_t by_token;  /* 1: a row a token; n > 1: one for each n tokens; SW_BY_SOURCE_TOKEN: one a token of the source */
    int ndim;          /* of a row */
    int64_t shape[3];  /* of a row */
    sw_dtype dtype;    /* SW_DTYPE_COUNT: the context's compute type */
    bool windowed;     /* with a row a token: none is read that the layer's window has left behind */
} sw_state_spec;
/* State k of the running block: rows of pages by token (cache.h), [slots, ...] else. NULL without a cache. */
sw_tensor *sw_pass_state(const sw_pass *p, int k);
/* A pass's table for sw_attention; NULL: of keys that lie as they come. */
sw_paging sw_pass_paging(const sw_var *pages);

typedef struct sw_mixer_ops {
    const char *name;
    size_t size;
    void (*declare)(sw_builder *b, void *self);
    /* x [N, hidden], already normed -> [N, hidden]. Does not write over x. */
    sw_var *(*forward)(sw_ctx *c, void *self, const sw_pass *p, sw_var *x);
    int (*states)(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES]); /* how many; NULL: none */
} sw_mixer_ops;

typedef struct sw_ffn_ops {
    const char *name;
    size_t size;
    void (*declare)(sw_builder *b, void *self);
    sw_var *(*forward)(sw_ctx *c, void *self, const sw_pass *p, sw_var *x); /* as a mixer's */
} sw_ffn_ops;

typedef struct sw_block {
    const sw_layer *spec;
    int64_t index;
    const char *name; /* "model.layers.3" */
    uint32_t site;    /* of its random numbers */
    void *self, *mixer, *cross, *ffn;
} sw_block;

typedef struct sw_block_ops {
    size_t size;
    void (*declare)(sw_builder *b, void *self); /* declares the mixer and the feed-forward too: sw_declare_parts */
    sw_var *(*forward)(sw_ctx *c, void *self, const sw_pass *p, sw_var *x);
} sw_block_ops;

void sw_declare_parts(sw_builder *b); /* of the layer being built */
sw_var *sw_mix(sw_ctx *c, const sw_pass *p, sw_var *x) SW_MUST_CHECK; /* the running block's mixer */
sw_var *sw_cross(sw_ctx *c, const sw_pass *p, sw_var *x) SW_MUST_CHECK; /* where the layer has one */
sw_var *sw_feed(sw_ctx *c, const sw_pass *p, sw_var *x) SW_MUST_CHECK;

extern const sw_block_ops sw_block_standard;
extern const sw_mixer_ops sw_mixer_attention;
extern const sw_mixer_ops sw_mixer_cross; /* attention to the encoder's output (mixer_cross.c) */
extern const sw_ffn_ops sw_ffn_dense;

/* The parts of a dense feed-forward, for blocks with several: declared under `place` ("mlp."), as wide as the layer's mlp.
 * (ffn_dense.c) */
typedef struct sw_dense_parts {
    sw_linear gate, up, down; /* gate: both where they are packed */
} sw_dense_parts;
void sw_dense_declare(sw_builder *b, sw_dense_parts *d, const char *place);
sw_var *sw_dense_forward(sw_ctx *c, sw_dense_parts *d, const sw_pass *p, sw_var *x) SW_MUST_CHECK;

/* ---- parts of attention that other mixers share (mixer_attention.c) */

/* Puts this batch's rows into state k of the cache and returns all that it holds; x itself without a cache. */
sw_var *sw_pass_remember(sw_ctx *c, const sw_pass *p, int k, sw_var *x) SW_MUST_CHECK;
/* The scores by distance of a block's attention, as its kernels have them: f32 [heads, 2 bucket_distance + 1]. */
sw_var *sw_attention_bias(sw_ctx *c, const sw_pass *p, const struct sw_block *b) SW_MUST_CHECK;
/* x [N, H, D] turned as the running layer says; queries also grow with their position where the spec says so. */
sw_var *sw_pass_rope(sw_ctx *c, const sw_pass *p, sw_var *x, bool query) SW_MUST_CHECK;

#endif
