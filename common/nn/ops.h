/* Ops: kernels with their way back. Each returns a new var (or NULL with sw_error()) of the context's compute type
 * unless said otherwise; shapes are [N tokens, width] or [N, heads, head width]. */
#ifndef SW_NN_OPS_H
#define SW_NN_OPS_H

#include "nn/context.h"
#include "nn/param.h"

/* For ops that may write over their input: a var like x in x's own memory when nobody needs x's values again (x then has
 * none), else a new one. */
sw_var *sw_take_over(sw_ctx *c, sw_var *x) SW_MUST_CHECK;

/* y = x + residual. y takes over x's memory when nobody has saved x's values. (elementwise.c) */
sw_var *sw_add(sw_ctx *c, sw_var *x, sw_var *residual) SW_MUST_CHECK;
sw_var *sw_mul(sw_ctx *c, sw_var *a, sw_var *b) SW_MUST_CHECK; /* same shape */
sw_var *sw_scale(sw_ctx *c, sw_var *x, double factor) SW_MUST_CHECK;
sw_var *sw_activation(sw_ctx *c, sw_var *x, sw_act kind) SW_MUST_CHECK;
/* act(gate) * up */
sw_var *sw_glu(sw_ctx *c, sw_var *gate, sw_var *up, sw_act kind) SW_MUST_CHECK;
sw_var *sw_softcap(sw_ctx *c, sw_var *x, double cap) SW_MUST_CHECK;
/* Off (x itself) unless the context is training. x [N, D], or [N, ...] dense, with N keys in c->keys or none. site: sw_rng_site of
 * the module's name. */
sw_var *sw_dropout(sw_ctx *c, sw_var *x, double p, uint32_t site) SW_MUST_CHECK;
sw_var *sw_cast(sw_ctx *c, sw_var *x, sw_dtype dtype) SW_MUST_CHECK;
sw_var *sw_dense(sw_ctx *c, sw_var *x) SW_MUST_CHECK; /* a copy of a view, in rows of its own */
/* x + value */
sw_var *sw_shift(sw_ctx *c, sw_var *x, double value) SW_MUST_CHECK;
/* y[n] = x[n] * s[n]: x [N, D], s [N, 1] (a column of something wider, too). (rows.c) */
sw_var *sw_scale_rows(sw_ctx *c, sw_var *x, sw_var *s) SW_MUST_CHECK;
/* y [N, 1] = factor * the sum of each row of x [N, D]. */
sw_var *sw_row_sum(sw_ctx *c, sw_var *x, double factor) SW_MUST_CHECK;
/* Parts [N, ...] side by side: [N, sum of their widths]. */
sw_var *sw_join(sw_ctx *c, sw_var *const *parts, size_t n) SW_MUST_CHECK;
/* Cut to [-limit, limit]. (clamp.c) */
sw_var *sw_clamp(sw_ctx *c, sw_var *x, double limit) SW_MUST_CHECK;
/* y[n] = x[n] * w, value by value: x [N, ...] dense, w of as many values as a row of x. */
sw_var *sw_scale_columns(sw_ctx *c, sw_var *x, sw_param *w) SW_MUST_CHECK;
sw_var *sw_gather(sw_ctx *c, sw_var *x, sw_var *ids) SW_MUST_CHECK; /* rows of x [M, ...] at ids i32 [N] */

/* w [D] may be NULL; offset 1 for zero-centred weights. x [N, D] or [N, H, D], norm over D. (norm.c) */
sw_var *sw_rmsnorm(sw_ctx *c, sw_var *x, sw_param *w, double eps, double offset) SW_MUST_CHECK;
sw_var *sw_layernorm(sw_ctx *c, sw_var *x, sw_param *w, sw_param *b, double eps, double offset) SW_MUST_CHECK;

/* w [V, D] any type; ids i32 [N]. (embedding.c) */
sw_var *sw_embedding(sw_ctx *c, sw_param *w, sw_var *ids, double scale) SW_MUST_CHECK;

/* x [N, H, D] rotated by the tables f32 [N, R] (sw_kernels rope_table). Takes over x's memory when it can. */
sw_var *sw_rope(sw_ctx *c, sw_var *x, sw_var *cos, sw_var *sin, sw_rope_mode mode) SW_MUST_CHECK;
/* The same where the first `from` dimensions of each head do not turn. */
sw_var *sw_rope_from(sw_ctx *c, sw_var *x, int64_t from, sw_var *cos, sw_var *sin, sw_rope_mode mode) SW_MUST_CHECK;
/* And turned back. */
sw_var *sw_rope_back(sw_ctx *c, sw_var *x, int64_t from, sw_var *cos, sw_var *sin, sw_rope_mode mode) SW_MUST_CHECK;
/* Keys [M, H, A + B] of own parts [M, H, A] and one part [M, 1, B] that all heads share. */
sw_var *sw_shared_keys(sw_ctx *c, sw_var *own, sw_var *shared) SW_MUST_CHECK;

/* q [N, Hq, D], k [M, Hk, D], v [M, Hk, Dv], seqs i32 [S, 4] as kernels.def says; returns [N, Hq, Dv].
 * alibi f32 [Hq] and sinks f32 [Hq], or NULL, stand for a's own pointers. (attention.c) */
sw_var *sw_attend(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *alibi, sw_param *sinks) SW_MUST_CHECK;
/* The same where each query sees only the places whose bits are set: seen i32 [N, words] (sw_attention), or NULL: all. */
sw_var *sw_attend_seen(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *seen) SW_MUST_CHECK;

/* One softmax over two sets of keys, which are their own values: kv [M, Hk, D] as sw_attend has it, with the sinks, and more
 * [E, Hk, D] with a table of sequences of its own and the bits of what each query sees of it. */
typedef struct sw_more_keys {
    sw_var *kv, *seqs, *seen; /* seen i32 [N, words] or NULL: all of the sequence's */
    sw_paging paging;         /* of kv's rows; for going forward alone */
} sw_more_keys;
sw_var *sw_attend_more(sw_ctx *c, sw_var *q, sw_var *kv, sw_var *seqs, const sw_attention *a, sw_param *sinks, const sw_more_keys *more) SW_MUST_CHECK;

/* Scores by the distance of a key from a query, as sw_attention has them: x [span, heads], a row a distance -> f32
 * [heads, span]. */
sw_var *sw_bias_table(sw_ctx *c, sw_var *x) SW_MUST_CHECK;
/* sw_attend where those are added; bias may be NULL. a's bias_zero says which of them is distance 0. */
sw_var *sw_attend_biased(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *bias) SW_MUST_CHECK;

/* Matrices x f32 [N, S * S] made such that rows and columns sum to one, as kernels.def says. (streams.c) */
sw_var *sw_sinkhorn(sw_ctx *c, sw_var *x, int64_t streams, int rounds, double eps) SW_MUST_CHECK;
/* x [N, J * D] is `from` = J streams: K of them [N, K * D], stream k of token n the sum over j of w[n, j, k] times stream j;
 * w f32 [N, J * K] (columns of something wider, too). y NULL, or what is added to, in its memory (nobody may have saved its
 * values). */
sw_var *sw_mix_streams(sw_ctx *c, sw_var *y, sw_var *x, sw_var *w, int64_t from) SW_MUST_CHECK;
/* Rows of x [M, P * width] pooled by softmaxes of gate f32 [M, P * width] over the slots that rows i32 [E, P * R] says, as
 * kernels.def has it: [E, width]. */
sw_var *sw_pool(sw_ctx *c, sw_var *x, sw_var *gate, sw_var *rows, int64_t width) SW_MUST_CHECK;

/* A parameter in f32, for ops between parameters. (recurrent.c) */
sw_var *sw_parameter(sw_ctx *c, sw_param *p) SW_MUST_CHECK;
/* Each row of x [N, ...] plus, or times, the values of w, f32 and as many as a row has. */
sw_var *sw_plus_row(sw_ctx *c, sw_var *x, sw_var *w) SW_MUST_CHECK;
sw_var *sw_times_row(sw_ctx *c, sw_var *x, sw_var *w) SW_MUST_CHECK;
/* Each row of x [N, H, D] divided by its length, sqrt(sum of squares + 1e-6), times `scale`. */
sw_var *sw_unit(sw_ctx *c, sw_var *x, double scale) SW_MUST_CHECK;
/* Layers with a state, as kernels.def says: runs is the table of sequences, state NULL where none is kept. w [C, ..., K]. */
sw_var *sw_conv1d(sw_ctx *c, sw_var *x, sw_param *w, sw_param *b, sw_var *runs, sw_tensor *state) SW_MUST_CHECK;
typedef struct sw_scan_in {
    sw_var *x, *dt, *a, *b, *c, *skip; /* dt, a and skip f32 */
} sw_scan_in;
sw_var *sw_selective_scan(sw_ctx *c, const sw_scan_in *in, sw_var *runs, sw_tensor *state) SW_MUST_CHECK;
typedef struct sw_recurrence_in {
    sw_var *q, *k, *v, *g, *beta, *skip; /* g, beta and skip f32; beta and skip may be NULL */
    int delta;
} sw_recurrence_in;
sw_var *sw_recurrence(sw_ctx *c, const sw_recurrence_in *in, sw_var *runs, sw_tensor *state) SW_MUST_CHECK;

/* y [N, O] = x w^T + bias; w [O, I] any type, bias [O] or NULL; dimensions of x and w after the first are taken as one.
 * y has the context's product type. (matmul.c) */
sw_var *sw_matmul(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias) SW_MUST_CHECK;
/* act(x w^T + bias): what sw_activation gives of it, by one kernel where the device has it. */
sw_var *sw_matmul_act(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, sw_act kind) SW_MUST_CHECK;
/* sw_matmul with matrix `index` of a stack of `count`, w [E, O, I], whose first two dimensions may be one; bias [E, O] or NULL. */
sw_var *sw_matmul_one(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, int64_t count, int64_t index) SW_MUST_CHECK;
/* y += alpha x w^T, in y's memory (nobody may have saved y's values). Returns the new y. */
sw_var *sw_matmul_add(sw_ctx *c, sw_var *y, sw_var *x, sw_param *w, double alpha) SW_MUST_CHECK;
/* scale b (a dropout(x)): a [R, I], b [O, R]; p and site as sw_dropout has them. */
typedef struct sw_low_rank {
    sw_param *a, *b;
    double scale, dropout;
    uint32_t site;
} sw_low_rank;
/* y += that, in y's memory (nobody may have saved y's values). Returns the new y. */
sw_var *sw_add_low_rank(sw_ctx *c, sw_var *y, sw_var *x, const sw_low_rank *r) SW_MUST_CHECK;
/* sw_matmul plus that, without writing y more often than either product must. */
sw_var *sw_matmul_low_rank(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, const sw_low_rank *r) SW_MUST_CHECK;
/* The same for n products that read one x. Whether one product with all their a's can serve them: these lie one behind the other,
 * and so do their gradients (sw_flat keeps the order of its list), and nothing of x is dropped. And then y[0] to y[n - 1]. */
typedef struct sw_low_rank_linear {
    const char *where; /* for messages */
    sw_param *w, *bias;
    sw_low_rank r;
} sw_low_rank_linear;
bool sw_low_ranks_shared(const sw_ctx *c, const sw_low_rank_linear *p, size_t n);
int sw_matmul_low_ranks(sw_ctx *c, sw_var *x, const sw_low_rank_linear *p, size_t n, sw_var **y) SW_MUST_CHECK;

/* ---- mixtures of experts (route.c) */

/* From logits [N, E]: the experts of each token, *ids i32 [N, k], by score + correction (f32 [E], or NULL), or those that *ids
 * says unless it is NULL; and their weights f32 [N * k, 1], by score alone. */
sw_var *sw_route(sw_ctx *c, sw_var *logits, sw_param *correction, const sw_router *r, sw_var **ids) SW_MUST_CHECK;

/* Where a batch's tokens go. Pairs of a token and one of its experts (token * k + choice) have places: in the order of experts,
 * those of one in the order of tokens. */
typedef struct sw_dispatch {
    int64_t n, k, experts;
    sw_var *start;               /* i32 [experts + 1]: where each expert's places begin */
    sw_var *tokens, *pairs, *of; /* i32 [n * k] of each place: its token, pair, expert */
    sw_var *places;              /* i32 [n, k]: those of each token, ascending */
} sw_dispatch;
/* ids i32 [N, k] in [0, experts). */
int sw_dispatch_pairs(sw_ctx *c, sw_var *ids, int64_t experts, sw_dispatch *d) SW_MUST_CHECK;
/* Rows of tokens [N, D] at each place [N * k, D]; and for each token the sum of what lies at its places, in their order. */
sw_var *sw_to_places(sw_ctx *c, sw_var *x, const sw_dispatch *d) SW_MUST_CHECK;
sw_var *sw_from_places(sw_ctx *c, sw_var *x, const sw_dispatch *d) SW_MUST_CHECK;
/* The keys of what is at each place [N * k], from c->keys of the tokens: a token's places, each with an expert of its own, draw
 * apart. */
sw_var *sw_keys_at_places(sw_ctx *c, const sw_dispatch *d) SW_MUST_CHECK;
/* Rows [N * k, D] in the order of pairs, in that of places; and back. */
sw_var *sw_pairs_to_places(sw_ctx *c, sw_var *x, const sw_dispatch *d) SW_MUST_CHECK;
sw_var *sw_places_to_pairs(sw_ctx *c, sw_var *x, const sw_dispatch *d) SW_MUST_CHECK;
/* The matrices of `count` experts: one parameter [E, O, I], or `turned` [E, I, O], whose first two dimensions may be one; or as
 * many parameters [O, I]. */
typedef struct sw_experts {
    sw_param *const *at; /* theirs while sw_layout() is the same */
    int64_t n, count;    /* n: parameters, 1 or count */
    bool turned;
} sw_experts;
/* Whether they can be multiplied at once: they are alike in type and shape, and all train or none. */
bool sw_experts_alike(const sw_experts *w);
/* At each place the row of x [N * k, I] times its expert's matrix: y [N * k, O] of the product type; bias [E, O] or NULL. Choices
 * behind the last of these experts give zeros. (matmul.c) */
sw_var *sw_matmul_places(sw_ctx *c, sw_var *x, const sw_experts *w, sw_param *bias, const sw_dispatch *d) SW_MUST_CHECK;
/* y += alpha times those products, in y's memory (nobody may have saved y's values). Returns the new y. */
sw_var *sw_matmul_places_add(sw_ctx *c, sw_var *y, sw_var *x, const sw_experts *w, double alpha,
                             const sw_dispatch *d) SW_MUST_CHECK;
/* y[ids[n]] += x[n], in y's memory (nobody may have saved y's values); ids i32 [N]. Returns the new y. */
sw_var *sw_scatter_add(sw_ctx *c, sw_var *y, sw_var *x, sw_var *ids) SW_MUST_CHECK;

#endif
