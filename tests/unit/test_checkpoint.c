/* One view over folders, shards, single files, GGUF and the hub cache; and what is wrong with them, said clearly. */
#include "store/checkpoint.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "tests/unit/folder.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void put(const char *name, const char *text)
{
    char *slash, *path = sw_strdup(in(name));
    if ((slash = strrchr(path, '/'))) {
        *slash = 0;
        assert_int_equal(sw_mkdirs(path), 0);
    }
    free(path);
    assert_int_equal(sw_write_file(in(name), text, strlen(text)), 0);
}

/* Five tensors of 40 bytes; limit 100 makes three shards of them. */
static void write_folder(const char *name, size_t limit)
{
    sw_outdir out;
    assert_int_equal(sw_outdir_begin(&out, in(name)), 0);
    sw_checkpoint_writer *w = sw_checkpoint_writer_new(out.temporary, limit);
    int64_t ten = 10;
    float f[10];
    char tensor[16];
    for (int i = 0; i < 5; i++) {
        snprintf(tensor, sizeof tensor, "t%d", i);
        sw_checkpoint_declare(w, tensor, SW_F32, 1, &ten, NULL);
    }
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 10; k++)
            f[k] = (float)(10 * i + k);
        assert_int_equal(sw_checkpoint_write(w, f, sizeof f), 0);
    }
    assert_int_equal(sw_checkpoint_writer_finish(w), 0);
    assert_int_equal(sw_outdir_commit(&out), 0);
}

static void check_tensors(const sw_checkpoint *c)
{
    assert_int_equal(sw_checkpoint_count(c), 5);
    for (size_t i = 0; i < 5; i++) {
        const sw_entry *e = sw_checkpoint_at(c, i);
        assert_ptr_equal(sw_checkpoint_find(c, e->name), e);
        assert_true(((const float *)e->t.data)[3] == (float)(10 * (e->name[1] - '0') + 3));
    }
    assert_null(sw_checkpoint_at(c, 5));
    assert_null(sw_checkpoint_find(c, "t5"));
}

static void opens(const char *model)
{
    sw_checkpoint *c = sw_checkpoint_open(model);
    if (!c)
        fail_msg("%s", sw_error());
    check_tensors(c);
    sw_checkpoint_close(c);
}

static void refused(const char *model, const char *why)
{
    sw_checkpoint *c = sw_checkpoint_open(model);
    if (c || !strstr(sw_error(), why))
        fail_msg("%s: '%s' does not say '%s'", c ? "accepted" : "refused", sw_error(), why);
}

static void folders(void **state)
{
    (void)state;
    write_folder("one", 0);
    assert_true(sw_is_file(in("one/model.safetensors")));
    opens(in("one"));
    opens(in("one/model.safetensors"));
    write_folder("many", 100);
    assert_true(sw_is_file(in("many/model-00003-of-00003.safetensors")));
    opens(in("many"));
    sw_checkpoint *c = sw_checkpoint_open(in("many"));
    assert_int_equal(c->n_shards, 3);
    assert_string_equal(c->shard_names[1], "model-00002-of-00003.safetensors");
    assert_int_equal(sw_checkpoint_shard_of(c, 0), 0);
    assert_int_equal(sw_checkpoint_shard_of(c, 2), 1);
    assert_int_equal(sw_checkpoint_shard_of(c, 4), 2);
    assert_null(c->config);
    sw_checkpoint_close(c);
    cJSON *index = sw_json_load(in("many/model.safetensors.index.json"));
    assert_true(sw_json_get(sw_json_get(index, "metadata"), "total_size")->valuedouble == 200);
    assert_string_equal(sw_json_get(sw_json_get(index, "weight_map"), "t4")->valuestring, "model-00003-of-00003.safetensors");
    cJSON_Delete(index);
    put("many/config.json", "{\"model_type\":\"x\"}");
    c = sw_checkpoint_open(in("many"));
    assert_string_equal(sw_json_get(c->config, "model_type")->valuestring, "x");
    sw_checkpoint_close(c);
    put("many/config.json", "{");
    refused(in("many"), "config.json");
    unlink(in("many/config.json"));
}

static void wrong_folders(void **state)
{
    (void)state;
    const char *index = "bad/model.safetensors.index.json";
    refused(in("nowhere/at/all"), "nowhere");
    put("empty/readme", "");
    refused(in("empty"), "holds no weights");
    write_folder("bad", 100);
    put(index, "[]");
    refused(in("bad"), "weight_map");
    put(index, "{\"weight_map\":{\"t0\":3}}");
    refused(in("bad"), "t0");
    put(index, "{\"weight_map\":{\"t0\":\"../one/model.safetensors\"}}");
    refused(in("bad"), "no plain file name");
    put(index, "{\"weight_map\":{\"t0\":\"model-00009-of-00003.safetensors\"}}");
    refused(in("bad"), "of the 1 files that it names 1 are missing: model-00009-of-00003.safetensors");
    put(index, "{\"weight_map\":{\"t0\":\"a\",\"t1\":\"b\",\"t2\":\"model-00001-of-00003.safetensors\"}}");
    refused(in("bad"), "of the 3 files that it names 2 are missing: a, b");
    put(index, "{\"weight_map\":{\"t0\":\"model-00001-of-00003.safetensors\",\"t4\":\"model-00001-of-00003.safetensors\",\"x\":\"model-00002-of-00003.safetensors\"}}");
    refused(in("bad"), "2 tensors are not where it says: t4 (in model-00001-of-00003.safetensors), x (in model-00002-of-00003.safetensors)");
    /* the first shard once more, as the third */
    sw_buf b = {0};
    assert_int_equal(sw_read_file(in("bad/model-00001-of-00003.safetensors"), &b), 0);
    assert_int_equal(sw_write_file(in("bad/model-00003-of-00003.safetensors"), b.at, b.n), 0);
    put(index, "{\"weight_map\":{\"t0\":\"model-00001-of-00003.safetensors\",\"t1\":\"model-00003-of-00003.safetensors\"}}");
    refused(in("bad"), "is in");
    assert_int_equal(sw_write_file(in("bad/model-00001-of-00003.safetensors"), b.at, b.n - 1), 0);
    refused(in("bad"), "cut short");
    sw_buf_free(&b);
    unlink(in(index));
    refused(in("bad"), "several .safetensors files and no index");
}

static void gguf(void **state)
{
    (void)state;
    sw_gguf_writer *w = sw_gguf_writer_new();
    int64_t ten = 10;
    float f[10];
    char name[16];
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "t%d", i);
        sw_gguf_declare(w, name, SW_F32, 1, &ten);
    }
    assert_int_equal(sw_gguf_writer_open(w, in("m.gguf")), 0);
    for (int i = 0; i < 50; i++) {
        f[i % 10] = (float)i;
        if (i % 10 == 9)
            assert_int_equal(sw_gguf_write(w, f, sizeof f), 0);
    }
    assert_int_equal(sw_gguf_writer_commit(w), 0);
    opens(in("m.gguf"));
}

static void copy_to(const char *from, const char *name)
{
    sw_buf b = {0};
    put(name, "");
    assert_int_equal(sw_read_file(from, &b), 0);
    assert_int_equal(sw_write_file(in(name), b.at, b.n), 0);
    sw_buf_free(&b);
}

/* Files of torch.save: under the usual name, with an index, alone; after safetensors. */
static void torch_files(void **state)
{
    (void)state;
    copy_to("tests/fuzz/corpus/torch/zip", "bin/pytorch_model.bin");
    sw_checkpoint *c = sw_checkpoint_open(in("bin"));
    if (!c)
        fail_msg("%s", sw_error());
    assert_int_equal(sw_checkpoint_count(c), 19);
    assert_true(sw_scalar_get(sw_checkpoint_find(c, "turned")->t.data, SW_F32, 1) == 7);
    assert_string_equal(c->shard_names[0], "model.safetensors"); /* what is written is safetensors */
    sw_checkpoint_close(c);
    copy_to("tests/fuzz/corpus/torch/old", "sharded/pytorch_model-00001-of-00002.bin");
    copy_to("tests/fuzz/corpus/torch/nested", "sharded/pytorch_model-00002-of-00002.bin");
    put("sharded/pytorch_model.bin.index.json", "{\"weight_map\":{\"tied\":\"pytorch_model-00001-of-00002.bin\",\"a\":\"pytorch_model-00002-of-00002.bin\"}}");
    c = sw_checkpoint_open(in("sharded"));
    if (!c)
        fail_msg("%s", sw_error());
    assert_int_equal(sw_checkpoint_count(c), 20);
    assert_int_equal(sw_checkpoint_shard_of(c, 19), 1);
    assert_string_equal(c->shard_names[1], "model-00002-of-00002.safetensors");
    sw_checkpoint_close(c);
    c = sw_checkpoint_open(in("sharded/pytorch_model-00002-of-00002.bin"));
    assert_int_equal(sw_checkpoint_count(c), 1);
    sw_checkpoint_close(c);
    copy_to("tests/fuzz/corpus/torch/bad-system", "bin/pytorch_model.bin");
    refused(in("bin"), "posix.system");
    write_folder("both", 0);
    copy_to("tests/fuzz/corpus/torch/bad-system", "both/pytorch_model.bin");
    opens(in("both"));
}

/* The five tensors in three parts, as llama-gguf-split writes them. */
static void write_part(const char *name, int no, int count, int from, int to, int total)
{
    sw_gguf_writer *w = sw_gguf_writer_new();
    int64_t ten = 10;
    char tensor[16];
    float f[10];
    sw_gguf_put_u32(w, "split.no", (uint32_t)no);
    sw_gguf_put_u32(w, "split.count", (uint32_t)count);
    sw_gguf_put_u32(w, "split.tensors.count", (uint32_t)total);
    if (no == 0)
        sw_gguf_put_str(w, "general.architecture", "llama", 5);
    for (int i = from; i < to; i++) {
        snprintf(tensor, sizeof tensor, "t%d", i);
        sw_gguf_declare(w, tensor, SW_F32, 1, &ten);
    }
    assert_int_equal(sw_gguf_writer_open(w, in(name)), 0);
    for (int i = from; i < to; i++) {
        for (int k = 0; k < 10; k++)
            f[k] = (float)(10 * i + k);
        assert_int_equal(sw_gguf_write(w, f, sizeof f), 0);
    }
    assert_int_equal(sw_gguf_writer_commit(w), 0);
}

static void split_gguf(void **state)
{
    (void)state;
    assert_int_equal(sw_mkdirs(in("split")), 0);
    write_part("split/m-00001-of-00003.gguf", 0, 3, 0, 2, 5);
    write_part("split/m-00002-of-00003.gguf", 1, 3, 2, 4, 5);
    refused(in("split/m-00001-of-00003.gguf"), "part 3 of 3: ");
    write_part("split/m-00003-of-00003.gguf", 2, 3, 4, 5, 5);
    opens(in("split/m-00001-of-00003.gguf"));
    opens(in("split/m-00003-of-00003.gguf")); /* any part stands for the whole */
    opens(in("split"));
    sw_gguf *g = sw_gguf_open(in("split/m-00002-of-00003.gguf"));
    assert_int_equal(sw_gguf_str(g, "general.architecture").n, 5);
    /* written again it is one file, which does not say that it is a part */
    sw_gguf_writer *w = sw_gguf_writer_new();
    for (size_t i = 0; i < sw_gguf_value_count(g); i++)
        sw_gguf_put_copy(w, sw_gguf_value_at(g, i));
    assert_int_equal(sw_gguf_writer_open(w, in("joined.gguf")), 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);
    sw_gguf_close(g);
    g = sw_gguf_open(in("joined.gguf"));
    assert_non_null(g);
    assert_null(sw_gguf_find(g, "split.count"));
    sw_gguf_close(g);
    write_part("split/m-00003-of-00003.gguf", 1, 3, 4, 5, 5);
    refused(in("split"), "says that it is part 2 of 3");
    write_part("split/m-00003-of-00003.gguf", 2, 3, 3, 5, 5);
    refused(in("split"), "'t3' is in an earlier part");
    write_part("split/m-00003-of-00003.gguf", 2, 3, 4, 4, 5);
    refused(in("split"), "5 tensors are announced, its parts hold 4");
    write_part("split/renamed.gguf", 0, 3, 0, 2, 5);
    refused(in("split/renamed.gguf"), "the first must be named");
    write_part("split/other-00001-of-00003.gguf", 1, 3, 0, 2, 5);
    refused(in("split/other-00001-of-00003.gguf"), "says that it is part 2, the first is needed");
}

/* A folder of the size of a 7B model in bf16 (its files are sparse): opening reads headers only. */
static void large(void **state)
{
    (void)state;
    enum { LAYERS = 32, FILES = 2 };
    static const int64_t shapes[9][2] = {{4096, 4096}, {1024, 4096}, {1024, 4096}, {4096, 4096}, {14336, 4096},
                                         {14336, 4096}, {4096, 14336}, {4096, 1}, {4096, 1}};
    sw_buf index = {0};
    assert_int_equal(sw_mkdirs(in("7b")), 0);
    sw_buf_puts(&index, "{\"weight_map\":{");
    for (int file = 0; file < FILES; file++) {
        char name[64];
        sw_buf h = {0};
        size_t at = 0;
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", file + 1, FILES);
        for (int l = file * LAYERS / FILES; l < (file + 1) * LAYERS / FILES; l++)
            for (int i = 0; i < 9; i++) {
                size_t bytes = (size_t)(shapes[i][0] * shapes[i][1] * 2);
                sw_buf_printf(&h, "%c\"l%d.w%d\":{\"dtype\":\"BF16\",\"shape\":[%ld,%ld],\"data_offsets\":[%zu,%zu]}", h.n ? ',' : '{', l, i,
                              (long)shapes[i][0], (long)shapes[i][1], at, at + bytes);
                sw_buf_printf(&index, "%s\"l%d.w%d\":\"%s\"", sw_ends_with(index.at, "{") ? "" : ",", l, i, name);
                at += bytes;
            }
        sw_buf_puts(&h, "}");
        uint64_t n = h.n;
        char path[128];
        snprintf(path, sizeof path, "7b/%s", name);
        FILE *f = fopen(in(path), "wb");
        assert_non_null(f);
        assert_true(fwrite(&n, 8, 1, f) == 1 && fwrite(h.at, h.n, 1, f) == 1 && fflush(f) == 0);
        if (ftruncate(fileno(f), (off_t)(8 + h.n + at)))
            fail_msg("%s: no sparse file of %zu bytes can be made", path, at);
        fclose(f);
        sw_buf_free(&h);
    }
    sw_buf_puts(&index, "}}");
    put("7b/model.safetensors.index.json", index.at);
    sw_buf_free(&index);
    size_t before = sw_current_rss();
    double start = sw_now();
    sw_checkpoint *c = sw_checkpoint_open(in("7b"));
    double took = sw_now() - start;
    if (!c)
        fail_msg("%s", sw_error());
    assert_int_equal(sw_checkpoint_count(c), 9 * LAYERS);
    size_t total = 0;
    for (size_t i = 0; i < sw_checkpoint_count(c); i++)
        total += sw_tensor_bytes(&sw_checkpoint_at(c, i)->t);
    assert_true(total > (size_t)13e9);
    assert_true(sw_current_rss() - before < 8 << 20);
    if (took > 0.5)
        fail_msg("it took %g s", took);
    print_message("%.1f GB opened in %.1f ms\n", (double)total / 1e9, took * 1e3);
    sw_checkpoint_close(c);
}

static void hub(void **state)
{
    (void)state;
    setenv("HF_HUB_CACHE", in("hub"), 1);
    setenv("HF_HUB_OFFLINE", "1", 1);
    put("hub/models--org--name/refs/main", "abc123\n");
    write_folder("hub/models--org--name/snapshots/abc123", 0);
    refused("org/name", "no cache has all of it"); /* another program may have left a part of it */
    put("hub/models--org--name/snapshots/abc123/config.json", "{}");
    opens("org/name");
    opens("org/name@main");
    opens("org/name@abc123");
    refused("org/name@v2", "models--org--name");
    refused("org/other", "models--org--other");
    refused("../hub", "no hub id");
    put("hub/models--org--name/refs/evil", "../../../../one");
    refused("org/name@evil", "models--org--name");
    assert_null(sw_tokenizer_path("org/name"));
    put("hub/models--org--name/snapshots/abc123/tokenizer.json", "{}");
    char *path = sw_tokenizer_path("org/name");
    assert_non_null(path);
    free(path);
    /* GGUF files by name, by a part of the name that is theirs alone, or the only one */
    put("hub/models--org--gguf/refs/main", "abc123");
    static const char *const files[] = {"m-Q4_0.gguf", "m-Q8_0.gguf"};
    for (size_t i = 0; i < SW_COUNT(files); i++) {
        char name[128], *model;
        snprintf(name, sizeof name, "hub/models--org--gguf/snapshots/abc123/%s", files[i]);
        put(name, "");
        model = sw_model_path("org/gguf");
        assert_true(i == 0 ? model && sw_ends_with(model, files[0]) : !model);
        free(model);
    }
    const char *said[] = {"org/gguf:m-Q8_0.gguf", "org/gguf@main:q8_0", "org/gguf@abc123:Q8"};
    for (size_t i = 0; i < SW_COUNT(said); i++) {
        path = sw_model_path(said[i]);
        assert_true(path && sw_ends_with(path, "snapshots/abc123/m-Q8_0.gguf"));
        free(path);
    }
    assert_null(sw_model_path("org/gguf:m"));
    assert_null(sw_model_path("org/gguf:../abc123/m-Q8_0.gguf"));
    unsetenv("HF_HUB_OFFLINE");
    unsetenv("HF_HUB_CACHE");
}

static void writer(void **state)
{
    (void)state;
    assert_int_equal(sw_mkdirs(in("w")), 0);
    int64_t ten = 10;
    float f[10] = {0};
    sw_checkpoint_writer *w = sw_checkpoint_writer_new(in("w"), 0);
    sw_checkpoint_declare(w, "a", SW_F32, 1, &ten, NULL);
    sw_checkpoint_declare(w, "b", SW_F32, 1, &ten, NULL);
    assert_int_equal(sw_checkpoint_write(w, f, 40), 0);
    assert_int_equal(sw_checkpoint_writer_finish(w), -1);
    assert_false(sw_is_file(in("w/model.safetensors")));
    w = sw_checkpoint_writer_new(in("w"), 0);
    sw_checkpoint_declare(w, "a", SW_F32, 1, &ten, NULL);
    assert_int_equal(sw_checkpoint_write(w, f, 36), -1);
    sw_checkpoint_writer_abort(w);
    put("from/tokenizer.json", "{}");
    put("from/chat_template.jinja", "x");
    put("from/config.json", "{}");
    put("from/other", "");
    char *from = sw_strdup(in("from"));
    assert_int_equal(sw_checkpoint_copy_companions(from, in("w"), false), 0);
    assert_true(sw_is_file(in("w/tokenizer.json")) && sw_is_file(in("w/chat_template.jinja")));
    assert_false(sw_is_file(in("w/config.json")) || sw_is_file(in("w/other")));
    assert_int_equal(sw_checkpoint_copy_companions(from, in("w"), true), 0);
    assert_true(sw_is_file(in("w/config.json")));
    free(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(folders), cmocka_unit_test(wrong_folders), cmocka_unit_test(gguf), cmocka_unit_test(torch_files),
                                       cmocka_unit_test(split_gguf), cmocka_unit_test(large),
                                       cmocka_unit_test(hub), cmocka_unit_test(writer)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
