/* One view over folders, shards, single files, GGUF and the hub cache; and what is wrong with them, said clearly. */
#include "store/checkpoint.h"

#include "base/json.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static char dir[] = "/tmp/swift-checkpoint-XXXXXX";

static char *in(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

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
    refused(in("empty"), "no .safetensors file");
    write_folder("bad", 100);
    put(index, "[]");
    refused(in("bad"), "weight_map");
    put(index, "{\"weight_map\":{\"t0\":3}}");
    refused(in("bad"), "t0");
    put(index, "{\"weight_map\":{\"t0\":\"../one/model.safetensors\"}}");
    refused(in("bad"), "no plain file name");
    put(index, "{\"weight_map\":{\"t0\":\"model-00009-of-00003.safetensors\"}}");
    refused(in("bad"), "model-00009-of-00003.safetensors");
    put(index, "{\"weight_map\":{\"t4\":\"model-00001-of-00003.safetensors\"}}");
    refused(in("bad"), "t4 is not in");
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

static void hub(void **state)
{
    (void)state;
    setenv("HF_HUB_CACHE", in("hub"), 1);
    put("hub/models--org--name/refs/main", "abc123\n");
    write_folder("hub/models--org--name/snapshots/abc123", 0);
    opens("org/name");
    opens("org/name@main");
    opens("org/name@abc123");
    refused("org/name@v2", "models--org--name");
    refused("org/other", "models--org--other");
    refused("../hub", "..");
    put("hub/models--org--name/refs/evil", "../../../../one");
    refused("org/name@evil", "models--org--name");
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

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return sw_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(folders), cmocka_unit_test(wrong_folders), cmocka_unit_test(gguf),
                                       cmocka_unit_test(hub), cmocka_unit_test(writer)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
