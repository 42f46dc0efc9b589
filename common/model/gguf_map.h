/* How GGUF and the hub lay out the same model. A family that both have is described once, as a row of sw_gguf_kinds
 * (gguf_kinds*.c): general.architecture, which metadata keys are which fields of config.json, and where tensors' names or
 * layouts are not the usual ones. Files are written and read from that one description.
 *
 * A tensor of one side is the same rows as a part of a tensor of the other (sw_gguf_link): under another name, regrouped for
 * another rotary order, stacked with those of other experts, packed with others, turned, or with another function of the
 * values. gguf_weave.c finds the links of a model; gguf_tensors.c makes the tensors of one side out of the other's. */
#ifndef SW_MODEL_GGUF_MAP_H
#define SW_MODEL_GGUF_MAP_H

#include "model/family.h"
#include "store/checkpoint.h"

/* Logical rows 0, 1, ... of a part of a tensor: row first + i / count * group + begin + i % count is the i-th. */
typedef struct sw_slice {
    int64_t first, group, begin, count;
} sw_slice;

typedef enum sw_gguf_fn {
    SW_GGUF_SAME,
    SW_GGUF_PLUS_ONE, /* GGUF's is 1 + the hub's: norms that store their distance from one */
    SW_GGUF_MINUS_EXP, /* GGUF's is -exp of the hub's: Mamba's A_log */
    SW_GGUF_EXP,       /* exp of it */
    SW_GGUF_UNIT_ROWS, SW_GGUF_UNIT_COLUMNS, /* its rows or columns of length one, as the head takes them; of the hub's only */
} sw_gguf_fn;

/* A row is so many heads side by side: the hub has those of a group together, GGUF one of each group in turn. heads 0: as they are. */
typedef struct sw_gguf_columns {
    int64_t heads, groups;
} sw_gguf_columns;

typedef struct sw_gguf_link {
    const char *gguf, *file;      /* names in full */
    sw_slice in_gguf, in_file;
    int64_t n, width;             /* rows, and values of each */
    int64_t heads;                /* > 0: in GGUF the two halves of each head alternate, so that a rotary pair is neighbours */
    sw_gguf_fn fn;
    double scale;                 /* GGUF's is the hub's times this; 0: 1 */
    sw_gguf_columns columns;
    bool gguf_turned, file_turned; /* that side holds [.., width, rows of a part] */
    int gguf_ndim, file_ndim;
    int64_t gguf_shape[SW_MAX_DIMS], file_shape[SW_MAX_DIMS];
} sw_gguf_link;

typedef struct sw_gguf_links {
    sw_gguf_link *at;
    size_t n, cap;
} sw_gguf_links;

/* ---- a family's description */

typedef enum sw_gguf_flags {
    SW_GGUF_PAIRS = 1,       /* readers turn neighbouring values */
    SW_GGUF_NORMS_FROM_ONE = 2, /* norms that the hub stores as their distance from one are stored whole */
    SW_GGUF_QKV = 4,         /* a packed projection stays one, as all queries, all keys, all values */
    SW_GGUF_GATE_UP = 8,     /* packed gate and up stay one, called ffn_up (or ffn_up_shexp) */
    SW_GGUF_SPLIT_KV = 16,   /* latent attention: the projection of keys and values in two */
    SW_GGUF_NORM_2 = 32,     /* two norms side by side: attn_norm_2 is the attention's, attn_norm the other */
    SW_GGUF_WINDOWS = 64,    /* readers heed sliding windows, and attention.sliding_window_pattern for which layers slide */
    SW_GGUF_GROUPED_NORM = 128, /* Mamba 2's norm is a matrix with a row a group */
    SW_GGUF_NO_TURN = 256,   /* no values turn: rope.* is left out */
    SW_GGUF_TIED = 512,      /* heads are always the embedding */
    SW_GGUF_NORM_A_HEAD = 4096, /* where each head has a norm, the hub's files hold a tensor a head */
    SW_GGUF_ALL_SPARSE = 8192,  /* a mixture in every layer */
    SW_GGUF_BIASES = 16384,     /* biases of the attention's output and of the feed-forward have a place */
    SW_GGUF_FOLDED = 32768,     /* multipliers are in the weights */
    SW_GGUF_ENCODER = 65536,    /* tokens see both sides; pooling and classes have a place, and rows of positions before the first have none */
    SW_GGUF_UNIT_HEAD = 131072, /* a head whose rows or columns have length one lies there so, and is a plain one */
    SW_GGUF_ENCODER_ALONE = 262144, /* layers are called enc.blk */
    SW_GGUF_SECOND_SCALES = 524288, /* the scaling is the second rotation's, and yarn's does not scale what it turns */
    SW_GGUF_KV_BY_LAYER = 1024, /* attention.head_count_kv is a list, 0 where a layer has no attention */
    SW_GGUF_MLP_BY_LAYER = 2048, /* feed_forward_length is one, 0 where it has no feed-forward */
} sw_gguf_flags;

typedef enum sw_gguf_shape {
    SW_GGUF_AS_IS,
    SW_GGUF_COLUMN,  /* [n] is [n, 1] */
    SW_GGUF_VECTOR,  /* [1, n] is [n] */
    SW_GGUF_TAPS,    /* [n, 1, k] is [n, k] */
    SW_GGUF_SCALAR,  /* [] is [1] */
    SW_GGUF_MIDDLE,  /* [1, 1, n, 1] is [n, 1] */
} sw_gguf_shape;

/* A tensor by GGUF's name and ours (block.h), without ".weight" and ".bias" unless `whole`. */
typedef struct sw_gguf_row {
    const char *gguf, *ours;
    bool whole;
    sw_gguf_shape shape;
    sw_gguf_fn fn;
} sw_gguf_row;

#define SW_GGUF_MODULE(gguf_, ours_) {gguf_, ours_, false, SW_GGUF_AS_IS, SW_GGUF_SAME}
#define SW_GGUF_TENSOR(gguf_, ours_, shape_, fn_) {gguf_, ours_, true, shape_, fn_}

typedef enum sw_gguf_value_kind { SW_GGUF_WHOLE, SW_GGUF_FRACTION, SW_GGUF_YES_NO } sw_gguf_value_kind;

/* A metadata value and a field of config.json ("a.b": a field of a member; NULL: only written). What is written is what
 * `get` makes of the spec, else the field as it stands in config.json, else `missing` where that is not NaN. */
typedef struct sw_gguf_key {
    const char *gguf, *config;
    sw_gguf_value_kind kind;
    double (*get)(const sw_spec *s); /* NaN: leave it out */
    double missing;
    bool here;                       /* missing counts */
} sw_gguf_key;

/* For `layer`: rows [n] of a tensor of each side, by our name of the hub's; sizes of the first dimension of both. */
typedef struct sw_gguf_weaver sw_gguf_weaver;
typedef struct sw_gguf_part {
    sw_slice in_gguf, in_file; /* count 0: all */
    int64_t n, gguf_rows, file_rows; /* 0: all, and as the other's */
    int64_t gguf_stack;              /* > 0: GGUF's has so many matrices of gguf_rows */
    double scale;
    int64_t groups;                  /* > 0: a vector that GGUF holds as a matrix with so many rows */
    bool taps, gguf_taps;            /* the hub's, GGUF's are [n, 1, k] */
    sw_gguf_fn fn;
    sw_gguf_columns columns;
} sw_gguf_part;
/* The configuration of the model: a file's multipliers are in it as far as they are not in the weights. */
const cJSON *sw_gguf_weaver_config(const sw_gguf_weaver *w);
void sw_gguf_tie_rows(sw_gguf_weaver *w, const sw_gguf_row *table);
void sw_gguf_tie(sw_gguf_weaver *w, const char *gguf, const char *ours, const sw_gguf_part *p);
/* A table that has `rows` in GGUF; where the hub's has fewer, the first takes the place of those that it lacks. */
void sw_gguf_tie_table(sw_gguf_weaver *w, const char *gguf, const char *ours, int64_t rows);

typedef struct sw_gguf_kind {
    const char *arch;         /* general.architecture */
    const char *family;       /* sw_family.name */
    const char *architecture; /* of config.json, where it is not the family's first */
    const char *sign;         /* files are of this kind only if they have a tensor that ends like this (".x"), this key after the
                                 architecture, or ("=x") this key and it is true */
    unsigned flags;
    const sw_gguf_row *names; /* where GGUF's name is not the usual one; gguf NULL: not there */
    const sw_gguf_row *more;  /* tensors beyond the usual ones */
    const sw_gguf_key *keys;
    const char *const *words; /* pairs: usual names of config.json's fields, and this family's */
    /* What no key says: the rest of config.json, from metadata and tensors; the rest of the metadata. */
    int (*to_config)(const sw_gguf *g, const char *arch, cJSON *config);
    int (*from_config)(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c);
    /* What lies in a way of its own, with sw_gguf_tie; l NULL: outside of layers. */
    void (*layer)(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l);
    void (*around)(sw_gguf_weaver *w, const sw_spec *s); /* outside of layers, besides */
    /* Tensors of the hub that GGUF holds as metadata, or readers make themselves: what their names have in them; and what makes them
     * of a file, or NULL. */
    const char *const *values;
    int (*tensors)(const sw_gguf *g, const sw_spec *s, sw_entries *out, sw_arena *arena);
} sw_gguf_kind;

/* Each ends with arch NULL. */
extern const sw_gguf_kind sw_gguf_kinds[], sw_gguf_kinds_states[], sw_gguf_kinds_latent[], sw_gguf_kinds_encoders[],
    sw_gguf_kinds_gemma[], sw_gguf_kinds_hub[];
/* Every kind in turn: i from 0; NULL after the last. */
const sw_gguf_kind *sw_gguf_kind_at(size_t i);
/* A whole number of a configuration made of a file's metadata; 0 where there is none, or one beyond any count. */
int64_t sw_gguf_whole(const cJSON *config, const char *name);

/* Of a file; the error names the nearest. Of a model to be written; config: its config.json. */
const sw_gguf_kind *sw_gguf_kind_of(const sw_gguf *g);
const sw_gguf_kind *sw_gguf_kind_for(const sw_spec *s, const cJSON *config);

/* ---- */

/* The links of a model's tensors that c has on its side: GGUF's, or with `from_file` the hub's. Names and all are arena's. */
int sw_gguf_weave(const sw_spec *s, const sw_gguf_kind *kind, const sw_checkpoint *c, bool from_file, sw_gguf_links *out,
                  sw_arena *arena) SW_MUST_CHECK;

/* The other side's tensors. Where they are whole rows that lie together they are views, else they are made (store/made.h) of
 * c's, which must outlive them. out->at is the caller's to free, what it refers to is arena's. */
int sw_gguf_tensors(const sw_gguf_links *links, const sw_checkpoint *c, bool from_file, sw_entries *out, sw_arena *arena) SW_MUST_CHECK;

/* config.json of a GGUF file; of its spec, the metadata. */
cJSON *sw_gguf_config(const sw_gguf *g, const sw_gguf_kind *kind);
/* For to_config: sets a field, of a member where the name has a point. */
void sw_gguf_set(cJSON *config, const char *name, cJSON *value);
/* A key of the metadata: "llama", "block_count" is "llama.block_count". Returns out. */
enum { SW_GGUF_KEY_MAX = 128 };
char *sw_gguf_full(const char *arch, const char *key, char out[SW_GGUF_KEY_MAX]);
/* The number under a key that is there, or of a list the largest. */
int sw_gguf_number(const sw_gguf *g, const char *key, sw_gguf_value_kind kind, double *out) SW_MUST_CHECK;
/* {arch}.rope.* and divisors that lie in tensors: how many values turn, and which scaling (gguf_rope.c). */
int sw_gguf_read_rope(const sw_gguf *g, const sw_gguf_kind *kind, const sw_family *f, cJSON *config) SW_MUST_CHECK;
int sw_gguf_put_rope(sw_gguf_writer *w, const sw_gguf_kind *kind, const sw_spec *s) SW_MUST_CHECK;
/* Scalings of the rotation that GGUF keeps as tensors. */
void sw_gguf_add_divisors(sw_entries *out, sw_arena *arena, const sw_spec *s);
/* Rotary divisors [sw_rope_pairs] of a scaling that GGUF keeps as the tensor rope_freqs.weight; false: it has none. */
bool sw_gguf_rope_divisors(const sw_spec *s, float *divisors);
struct sw_moe;
struct sw_mla;
/* The first layer that has this mixer, or NULL; its options, where that is latent attention. */
const sw_layer *sw_gguf_layer(const sw_spec *s, const sw_mixer_ops *mixer);
const struct sw_mla *sw_gguf_latent(const sw_spec *s);
/* How often a layer sees everything, the first or (else) the last of so many, as files say it with one number; NaN: not so. */
double sw_gguf_period(const sw_spec *s, bool first);
const struct sw_moe *sw_gguf_moe(const sw_spec *s); /* the first layer's that has one, or NULL */
/* Of encoders (gguf_classes.c): the family's class of config.json that has the head which the file has; names of classes, or how
 * many there are; the metadata of pooling and classes; how a file says that sequences are pooled, and whether it does. */
const char *const *sw_gguf_encoder_architecture(const sw_gguf *g, const sw_family *f);
int sw_gguf_read_labels(const sw_gguf *g, const char *arch, cJSON *config) SW_MUST_CHECK;
void sw_gguf_put_encoder(sw_gguf_writer *w, const char *arch, const sw_spec *s, const cJSON *config);
int sw_gguf_read_pooling(const sw_gguf *g, sw_spec *s) SW_MUST_CHECK;
void sw_gguf_put_pooling(sw_gguf_writer *w, const char *arch, const sw_spec *s);
bool sw_gguf_pools(const sw_gguf *g);
/* What a reader of the file would take for another model: 0, or -1 naming what differs. */
int sw_gguf_same(const sw_gguf_kind *kind, const sw_spec *meant, const sw_spec *read) SW_MUST_CHECK;
int sw_gguf_put_config(sw_gguf_writer *w, const sw_gguf_kind *kind, const sw_spec *s, const sw_checkpoint *c) SW_MUST_CHECK;

#endif
