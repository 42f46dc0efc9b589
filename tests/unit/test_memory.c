/* What loading takes, in memory and not in time: a 7B folder next to nothing, since weights are used where they lie; weights that
 * must be regrouped or converted one copy, and never two. Files are sparse: their weights are holes. */
#include "model/model.h"

#include "base/strbuf.h"
#include "store/checkpoint.h"
#include "tests/unit/folder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct sizes {
    int64_t hidden, mlp, layers, heads, vocab;
} sizes;

static const sizes seven = {4096, 11008, 32, 32, 32000}, small = {1024, 4096, 4, 16, 8000};
enum { MATRICES = 7 };
static const char *const names[MATRICES] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                            "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

static void shape_of(const sizes *s, int i, int64_t shape[2])
{
    shape[0] = i == 4 || i == 5 ? s->mlp : s->hidden;
    shape[1] = i == 6 ? s->mlp : s->hidden;
}

static int64_t parameters(const sizes *s)
{
    return 2 * s->vocab * s->hidden + s->layers * (4 * s->hidden * s->hidden + 3 * s->hidden * s->mlp);
}

typedef struct header {
    sw_buf text;
    size_t at;
} header;

static void tensor(header *h, const char *name, const char *type, int bytes, int64_t rows, int64_t width)
{
    size_t n = (size_t)(rows * (width ? width : 1) * bytes);
    sw_buf_printf(&h->text, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%" PRId64, h->text.n ? ',' : '{', name, type, rows);
    if (width)
        sw_buf_printf(&h->text, ",%" PRId64, width);
    sw_buf_printf(&h->text, "],\"data_offsets\":[%zu,%zu]}", h->at, h->at + n);
    h->at += n;
}

/* A folder of holes; in 8 bits matrices of layers are f8 with a scale a block of 128 x 128. */
static void make_folder(const char *name, const sizes *s, bool bits8)
{
    header h = {0};
    char path[300], text[512];
    tensor(&h, "model.embed_tokens.weight", "BF16", 2, s->vocab, s->hidden);
    tensor(&h, "lm_head.weight", "BF16", 2, s->vocab, s->hidden);
    tensor(&h, "model.norm.weight", "BF16", 2, s->hidden, 0);
    for (int64_t l = 0; l < s->layers; l++)
        for (int i = 0; i < MATRICES + 2; i++) {
            int64_t shape[2];
            shape_of(s, i, shape);
            snprintf(text, sizeof text, "model.layers.%" PRId64 ".%s.weight", l,
                     i < MATRICES ? names[i] : i == MATRICES ? "input_layernorm" : "post_attention_layernorm");
            if (i >= MATRICES) {
                tensor(&h, text, "BF16", 2, s->hidden, 0);
            } else if (!bits8) {
                tensor(&h, text, "BF16", 2, shape[0], shape[1]);
            } else {
                tensor(&h, text, "F8_E4M3", 1, shape[0], shape[1]);
                strcat(text, "_scale_inv");
                tensor(&h, text, "BF16", 2, (shape[0] + 127) / 128, (shape[1] + 127) / 128);
            }
        }
    sw_buf_puts(&h.text, "}");
    while (h.text.n % 8)
        sw_buf_putc(&h.text, ' ');
    uint64_t n = h.text.n;
    assert_int_equal(sw_mkdirs(in(name)), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", in(name));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fwrite(&n, 8, 1, f) == 1 && fwrite(h.text.at, h.text.n, 1, f) == 1 && fflush(f) == 0);
    if (ftruncate(fileno(f), (off_t)(8 + h.text.n + h.at)))
        fail_msg("%s: no sparse file of %zu bytes can be made", path, h.at);
    fclose(f);
    sw_buf_free(&h.text);
    snprintf(text, sizeof text,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%" PRId64 ",\"intermediate_size\":%" PRId64
             ",\"num_hidden_layers\":%" PRId64 ",\"num_attention_heads\":%" PRId64 ",\"vocab_size\":%" PRId64 "%s}",
             s->hidden, s->mlp, s->layers, s->heads, s->vocab,
             bits8 ? ",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}" : "");
    snprintf(path, sizeof path, "%s/config.json", in(name));
    assert_int_equal(sw_write_file(path, text, strlen(text)), 0);
}

/* The same in GGUF, where rows of queries and keys lie in another order. */
static void make_gguf(const char *name, const sizes *s)
{
    static const char *const theirs[MATRICES] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    sw_gguf_writer *w = sw_gguf_writer_new();
    char text[96];
    const struct { const char *key; int64_t n; } values[] = {{"block_count", s->layers}, {"context_length", 2048}, {"embedding_length", s->hidden},
                                                             {"feed_forward_length", s->mlp}, {"attention.head_count", s->heads}};
    size_t total = 0;
    sw_gguf_put_str(w, "general.architecture", "llama", 5);
    for (size_t i = 0; i < SW_COUNT(values); i++) {
        snprintf(text, sizeof text, "llama.%s", values[i].key);
        sw_gguf_put_u32(w, text, (uint32_t)values[i].n);
    }
    sw_gguf_declare(w, "token_embd.weight", SW_BF16, 2, (int64_t[]){s->vocab, s->hidden});
    sw_gguf_declare(w, "output.weight", SW_BF16, 2, (int64_t[]){s->vocab, s->hidden});
    sw_gguf_declare(w, "output_norm.weight", SW_F32, 1, &s->hidden);
    total += (size_t)(4 * s->vocab * s->hidden + 4 * s->hidden);
    for (int64_t l = 0; l < s->layers; l++)
        for (int i = 0; i < MATRICES + 2; i++) {
            int64_t shape[2];
            shape_of(s, i, shape);
            snprintf(text, sizeof text, "blk.%" PRId64 ".%s.weight", l, i < MATRICES ? theirs[i] : i == MATRICES ? "attn_norm" : "ffn_norm");
            sw_gguf_declare(w, text, i < MATRICES ? SW_BF16 : SW_F32, i < MATRICES ? 2 : 1, i < MATRICES ? shape : &s->hidden);
            total += i < MATRICES ? (size_t)(2 * shape[0] * shape[1]) : (size_t)(4 * s->hidden);
        }
    assert_int_equal(sw_gguf_writer_open(w, in(name)), 0);
    static const char zeros[1 << 20];
    for (size_t at = 0; at < total; at += sizeof zeros)
        assert_int_equal(sw_gguf_write(w, zeros, SW_MIN(sizeof zeros, total - at)), 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);
}

/* Peak memory in bytes of a process that loads a model (NULL: that does nothing). */
static size_t peak(const char *path)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        sw_device *d = sw_device_open("cpu");
        sw_model *m = d && path ? sw_model_load(path, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT}) : NULL;
        if (path && !m)
            fprintf(stderr, "%s\n", sw_error());
        _exit(!d || (path && !m));
    }
    int status;
    struct rusage use;
    assert_int_equal(wait4(child, &status, 0, &use), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return (size_t)use.ru_maxrss * 1024;
}

static void takes(const char *path, size_t least, size_t most)
{
    size_t nothing = peak(NULL), all = peak(path), took = all > nothing ? all - nothing : 0;
#ifdef __SANITIZE_ADDRESS__
    most += most / 2; /* its own bookkeeping */
#endif
    print_message("%s: %.1f MB\n", path, (double)took / 1e6);
    if (took < least || took > most)
        fail_msg("%s took %zu bytes, between %zu and %zu were to be", path, took, least, most);
}

static const size_t slack = 24 << 20;

/* 13.5 GB of weights, which nobody reads. */
static void seven_billion(void **state)
{
    (void)state;
    make_folder("seven", &seven, false);
    assert_true(parameters(&seven) * 2 > (int64_t)13e9);
    takes(in("seven"), 0, slack);
    assert_int_equal(sw_remove_tree(in("seven")), 0);
}

/* Nothing but scales is read of 8-bit floats with scales. */
static void eight_bits(void **state)
{
    (void)state;
    make_folder("eight", &seven, true);
    takes(in("eight"), 0, slack);
    assert_int_equal(sw_remove_tree(in("eight")), 0);
}

/* Of GGUF's Llama only queries and keys are copied. */
static void regrouped(void **state)
{
    (void)state;
    make_gguf("small.gguf", &small);
    size_t moved = (size_t)(2 * 2 * small.layers * small.hidden * small.hidden);
    takes(in("small.gguf"), moved, 2 * moved + slack);
    assert_true(2 * moved + slack < (size_t)(2 * parameters(&small)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(seven_billion), cmocka_unit_test(eight_bits), cmocka_unit_test(regrouped)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
