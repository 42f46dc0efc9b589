#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_splits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Text of pieces that the expressions treat differently, and of characters at random. */
static void random_text(uint64_t *seed, sw_buf *out)
{
    static const char *const parts[] = {" ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "a",
                                        "Ab",
                                        "HELLO",
                                        "world",
                                        "'s",
                                        "'LL",
                                        "'\xc5\xbf",
                                        "'",
                                        "1",
                                        "23",
                                        "4567",
                                        "\xc2\xb2",
                                        "\xe4\xbd\xa0",
                                        "\xe5\xa5\xbd",
                                        "\xe3\x80\x82",
                                        "e\xcc\x81",
                                        "\xcc\x81",
                                        "\xd0\x96\xd0\xb6",
                                        "\xc7\x85",
                                        "\xca\xb0",
                                        "!",
                                        "...",
                                        "/",
                                        "//",
                                        "_",
                                        "-",
                                        "\xe3\x80\x80",
                                        "\xc2\xa0",
                                        "\xe2\x80\xa8",
                                        "\xf0\x9f\x98\x80",
                                        "\xe0\xa4\xb9\xe0\xa4\xbf",
                                        "\xed\x95\x9c",
                                        "$",
                                        "\xe2\x82\xac",
                                        "\xc2\x85"};
    sw_buf_clear(out);
    for (int i = 0; i < 12; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        const char *s = parts[(*seed >> 33) % SW_COUNT(parts)];
        sw_buf_puts(out, s);
    }
}

/* What the scanners find is what PCRE2 finds for the same expression. */
static void scanners_are_their_expressions(void **state)
{
    (void)state;
    static const char *const expressions[] = {SW_SPLIT_GPT2,
                                              SW_SPLIT_RAW_GPT2,
                                              SW_SPLIT_CL100K("\\p{N}{1,3}"),
                                              SW_SPLIT_CL100K("\\p{N}{1,2}"),
                                              SW_SPLIT_CL100K("\\p{N}"),
                                              SW_SPLIT_CL100K("\\p{N}+"),
                                              SW_SPLIT_QWEN35,
                                              SW_SPLIT_O200K,
                                              SW_SPLIT_TEKKEN};
    uint64_t seed = 1;
    sw_buf text = {0};
    for (size_t k = 0; k < SW_COUNT(expressions); k++) {
        sw_pattern scan = {0}, regex = {0};
        char *other = sw_strfmt("(?:%s)", expressions[k]);
        assert_int_equal(sw_pattern_regex(&scan, expressions[k]), 0);
        assert_int_equal(sw_pattern_regex(&regex, other), 0);
        assert_true(scan.scanner != SW_SCAN_NONE && regex.scanner == SW_SCAN_NONE);
        for (int round = 0; round < 4000; round++) {
            sw_matches a = {0}, b = {0};
            random_text(&seed, &text);
            assert_int_equal(sw_pattern_matches(&scan, text.at, text.n, &a), 0);
            assert_int_equal(sw_pattern_matches(&regex, text.at, text.n, &b), 0);
            bool same = a.n == b.n;
            for (size_t i = 0; i < a.n && same; i++)
                same = a.at[i].start == b.at[i].start && a.at[i].end == b.at[i].end && a.at[i].hit == b.at[i].hit;
            if (!same)
                print_error("expression %zu differs on '%s'\n", k, text.at);
            assert_true(same);
            free(a.at);
            free(b.at);
        }
        free(other);
        sw_pattern_free(&scan);
        sw_pattern_free(&regex);
    }
    sw_buf_free(&text);
}

/* Oniguruma's ways that PCRE2 does not have. */
static void expressions_of_oniguruma(void **state)
{
    (void)state;
    static const struct {
        const char *expression, *text;
        size_t start, end;
    } cases[] = {{"[a-z&&[^aeiou]]+", "aebcde", 2, 5},
                 {"[^(\\s|[.,])]+", " .ab,", 2, 4},
                 {"\\h+", "xyz1fG", 3, 5},
                 {"[[:punct:]]", "a\xe2\x84\xa2", 1, 4},
                 {"a{,2}b", "aaab", 1, 4},
                 {"(?m:.)", "\n", 0, 1},
                 {"(?:ab){1,2}+", "ababab", 0, 6},
                 {"[\\W_]+", "a_\xc3\xa9-", 1, 2},
                 {"\\p{Han}+",
                  "a\xe4\xbd\xa0"
                  "b",
                  1, 4},
                 {"\\w", "-\xc2\xbd", 1, 3}, /* a half is a word where no bracket holds the word */
                 {"[\\w]", "\xc2\xbd" "a", 2, 3},
                 {"\\b.", "-a\xcc\x81" "b", 1, 2},
                 {"\\B.", "a\xcc\x81", 1, 3},
                 {"[[:alpha:]]", "\xcc\x80\xcd\x85", 2, 4},
                 {"[[:print:]]+", "\n\xc2\xa0" "a\xcd\xb8", 1, 4},
                 {"\\p{Lu}", "a\xe1\xb2\x89", 1, 4}, /* of Unicode 16 */
                 {"\\P{L}", "\xe1\xb2\x89-", 3, 4},
                 {"[\\P{L}z]", "\xe1\xb2\x89z", 3, 4},
                 {"\\p{Cn}", "\xe1\xb2\x89\xcd\xb8", 3, 5},
                 {"\\p{^Punctuation}", "-a", 1, 2},
                 {"\\p{Punct}", "+-", 1, 2},
                 {"\\p{White_Space}", "a\xe2\x80\x83", 1, 4},
                 {"\\O", "\n", 0, 1},
                 {"\\u4f60", "\xe4\xbd\xa0", 0, 3},
                 {"\\S+$", "ab\ncd", 0, 2}};
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        sw_pattern p = {0};
        sw_matches m = {0};
        if (sw_pattern_regex(&p, cases[i].expression))
            print_error("%s\n", sw_error());
        assert_non_null(p.regex);
        assert_int_equal(sw_pattern_matches(&p, cases[i].text, strlen(cases[i].text), &m), 0);
        size_t k = 0;
        while (k < m.n && !m.at[k].hit)
            k++;
        if (k == m.n || m.at[k].start != cases[i].start || m.at[k].end != cases[i].end)
            print_error("'%s' in '%s'\n", cases[i].expression, cases[i].text);
        assert_true(k < m.n && m.at[k].start == cases[i].start && m.at[k].end == cases[i].end);
        free(m.at);
        sw_pattern_free(&p);
    }
    sw_pattern bad = {0};
    assert_int_equal(sw_pattern_regex(&bad, "[a"), -1);
    sw_pattern_free(&bad);
}

/* Tries find what looking at every key finds. */
static void tries_find_the_longest(void **state)
{
    (void)state;
    static const char *const keys[] = {"a", "ab", "abc", "b", "bcd", "\xff", "abcdefgh", "zz"};
    sw_span spans[SW_COUNT(keys)];
    for (size_t i = 0; i < SW_COUNT(keys); i++)
        spans[i] = (sw_span){keys[i], strlen(keys[i])};
    sw_trie t;
    sw_trie_build(&t, spans, NULL, SW_COUNT(keys));
    static const struct {
        const char *text;
        size_t n;
        int32_t value;
    } cases[] = {{"abcd", 3, 2}, {"abcdefghi", 8, 6}, {"bcx", 1, 3}, {"z", 0, 0}, {"\xff\xff", 1, 5}, {"", 0, 0}};
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        int32_t value = 0;
        assert_int_equal(sw_trie_longest(&t, cases[i].text, strlen(cases[i].text), &value), cases[i].n);
        assert_int_equal(value, cases[i].value);
    }
    sw_trie_free(&t);
}

static void spell(int byte, sw_buf *out)
{
    char c[4];
    sw_buf_clear(out);
    sw_buf_add(out, c, (size_t)sw_utf8_encode(sw_byte_char((uint8_t)byte), c));
}

/* vocab.json of all bytes and of what the merges make. */
static void byte_vocabulary(sw_buf *vocab, const char *const (*merges)[2], size_t n)
{
    sw_buf c = {0};
    sw_buf_puts(vocab, "{");
    for (int i = 0; i < 256; i++) {
        spell(i, &c);
        sw_buf_puts(vocab, i ? ", " : "");
        sw_buf_json(vocab, c.at, c.n);
        sw_buf_printf(vocab, ": %d", i);
    }
    for (size_t i = 0; i < n; i++)
        sw_buf_printf(vocab, ", \"%s%s\": %zu", merges[i][0], merges[i][1], 256 + i);
    sw_buf_puts(vocab, "}");
    sw_buf_free(&c);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char *path = sw_path_join(dir, name);
    assert_int_equal(sw_write_file(path, text, strlen(text)), 0);
    free(path);
}

static void ids_are(const sw_tokenizer *t, const char *text, bool special, size_t n, const int32_t *due)
{
    sw_encoder *e = sw_encoder_new(t);
    sw_ids ids = {0};
    assert_int_equal(sw_encode(e, text, strlen(text), special, &ids, NULL), 0);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.at, due, n * sizeof *due);
    free(ids.at);
    sw_encoder_free(e);
}

static void older_files_of_a_folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_tokenizer.XXXXXX";
    assert_non_null(mkdtemp(dir));
    static const char *const merges[][2] = {{"a", "b"}, {"ab", "ab"}};
    sw_buf vocab = {0};
    byte_vocabulary(&vocab, merges, 2);
    write_file(dir, "vocab.json", vocab.at);
    write_file(dir, "merges.txt", "#version: 0.2\na b\nab ab\n");
    write_file(dir, "tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\", \"eos_token\": \"<|end|>\"}");
    sw_tokenizer *t = sw_tokenizer_load(dir);
    assert_non_null(t);
    ids_are(t, "ababab b<|end|>", false, 5, (int32_t[]){257, 256, ' ', 'b', 258});
    assert_int_equal(sw_tokenizer_eos(t), 258);
    sw_tokenizer_free(t);
    sw_buf_free(&vocab);
    static const char *const gone[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    for (size_t i = 0; i < 3; i++) {
        char *path = sw_path_join(dir, gone[i]);
        unlink(path);
        free(path);
    }
    write_file(dir, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\nhello\n##s\nworld\n");
    t = sw_tokenizer_load(dir);
    assert_non_null(t);
    ids_are(t, "Hellos W\xc3\xb6rld x", true, 6, (int32_t[]){1, 3, 4, 5, 0, 2});
    sw_tokenizer_free(t);
    char *path = sw_path_join(dir, "vocab.txt");
    unlink(path);
    free(path);
    assert_null(sw_tokenizer_load(dir));
    assert_non_null(strstr(sw_error(), "no tokenizer.json"));
    rmdir(dir);
}

/* The quick way gives the ids and offsets of the usual one, and long words those of short ones' merging. */
static void quick_way_is_the_usual_one(void **state)
{
    (void)state;
    static const char *const merges[][2] = {{"a", "b"},        {"l", "l"},   {"H", "E"}, {"\xc3\xa4", "\xc2\xbd"},
                                            {"\xc4\xa0", "w"}, {"ab", "ab"}, {"1", "2"}, {"LL", "O"},
                                            {"b", "a"}};
    sw_buf vocab = {0}, text = {0};
    sw_tokenizer *t = NULL;
    byte_vocabulary(&vocab, merges, 6);
    t = sw_tokenizer_from_vocab_merges(vocab.at, vocab.n, "a b\nl l\nH E\nab ab\n", 14, NULL, 0);
    assert_null(t); /* the last line is cut */
    t = sw_tokenizer_from_vocab_merges(vocab.at, vocab.n, "a b\nl l\nH E\nab ab\n", strlen("a b\nl l\nH E\nab ab\n"),
                                       NULL, 0);
    assert_non_null(t);
    assert_int_equal(t->quick.kind, SW_QUICK_BYTES);
    uint64_t seed = 7;
    sw_encoder *e = sw_encoder_new(t);
    for (int round = 0; round < 3000; round++) {
        sw_ids ids[2] = {{0}}, offsets[2] = {{0}};
        random_text(&seed, &text);
        for (int k = 0; k < round % 7 * 40; k++)
            sw_buf_puts(&text, k % 3 ? "ab" : "a");
        for (int way = 0; way < 2; way++) {
            t->quick.kind = way ? SW_QUICK_NONE : SW_QUICK_BYTES;
            assert_int_equal(sw_encode(e, text.at, text.n, false, &ids[way], &offsets[way]), 0);
        }
        t->quick.kind = SW_QUICK_BYTES;
        assert_int_equal(ids[0].n, ids[1].n);
        assert_memory_equal(ids[0].at, ids[1].at, ids[0].n * sizeof *ids[0].at);
        assert_int_equal(offsets[0].n, offsets[1].n);
        assert_memory_equal(offsets[0].at, offsets[1].at, offsets[0].n * sizeof *offsets[0].at);
        for (int way = 0; way < 2; way++) {
            free(ids[way].at);
            free(offsets[way].at);
        }
    }
    sw_encoder_free(e);
    sw_tokenizer_free(t);
    sw_buf_free(&vocab);
    sw_buf_free(&text);
}

/* Text that has to be normalised and text that has not take two ways, and share what they remember: U+0115 is the
 * spelling of the byte 0x15. */
static void ways_do_not_mix(void **state)
{
    (void)state;
    static const char *const merges[][2] = {{"\xc3\x84", "\xc4\xb7"}}; /* the bytes of U+0115 */
    sw_buf vocab = {0}, json = {0};
    byte_vocabulary(&vocab, merges, 1);
    sw_buf_printf(&json,
                  "{\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                  "\"add_prefix_space\": false}, "
                  "\"model\": {\"type\": \"BPE\", \"merges\": [[\"%s\", \"%s\"]], \"vocab\": %.*s}}",
                  merges[0][0], merges[0][1], (int)vocab.n, vocab.at);
    sw_tokenizer *t = sw_tokenizer_from_json(json.at, json.n, NULL, 0);
    assert_non_null(t);
    sw_encoder *e = sw_encoder_new(t);
    sw_ids ids = {0};
    for (int round = 0; round < 2; round++) {
        ids.n = 0;
        assert_int_equal(sw_encode(e, "\xc4\x95", 2, false, &ids, NULL), 0);
        assert_int_equal(ids.n, 1);
        assert_int_equal(ids.at[0], 256);
        ids.n = 0;
        assert_int_equal(sw_encode(e, "a\xcc\x80\x15", 4, false, &ids, NULL), 0); /* U+00E0, the byte */
        assert_int_equal(ids.n, 3);
        assert_int_equal(ids.at[2], 0x15);
    }
    free(ids.at);
    sw_encoder_free(e);
    sw_tokenizer_free(t);
    sw_buf_free(&vocab);
    sw_buf_free(&json);
}

/* Characters younger than the tables of Hugging Face's normalisers stay where they are; letters that Oniguruma knows
 * are letters. */
static void younger_characters(void **state)
{
    (void)state;
    static const char *const none[][2] = {{"", ""}};
    sw_buf vocab = {0}, json = {0};
    byte_vocabulary(&vocab, none, 0);
    sw_buf_printf(&json,
                  "{\"normalizer\": {\"type\": \"NFD\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                  "\"add_prefix_space\": false}, "
                  "\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": %.*s}}",
                  (int)vocab.n, vocab.at);
    sw_tokenizer *t = sw_tokenizer_from_json(json.at, json.n, NULL, 0);
    assert_non_null(t);
    ids_are(t, "\xcc\x81\xcc\xa3", false, 4, (int32_t[]){0xcc, 0xa3, 0xcc, 0x81}); /* U+0323 has the lower class */
    ids_are(t, "\xcc\x81\xe1\xab\x83", false, 5,
            (int32_t[]){0xcc, 0x81, 0xe1, 0xab, 0x83}); /* so has U+1AC3: Unicode 14 */
    assert_true(sw_char_is(0x13ac8, SW_LETTER));        /* Unicode 16 */
    assert_false(sw_char_is(0x143fb, SW_LETTER));
    sw_tokenizer_free(t);
    sw_buf_free(&vocab);
    sw_buf_free(&json);
}

static void refused(const char *json, const char *why)
{
    sw_tokenizer *t = sw_tokenizer_from_json(json, strlen(json), NULL, 0);
    assert_null(t);
    if (!strstr(sw_error(), why))
        print_error("'%s' does not say '%s'\n", sw_error(), why);
    assert_non_null(strstr(sw_error(), why));
}

static void what_is_refused(void **state)
{
    (void)state;
    refused("{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {}, \"merges\": []}}", "dropout");
    refused("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", "not in the vocabulary");
    refused("{\"model\": {\"type\": \"Hash\"}}", "type 'Hash'");
    refused("{\"model\": {\"type\": \"WordLevel\", \"vocab\": {}}, \"pre_tokenizer\": {\"type\": \"Nothing\"}}",
            "\"pre_tokenizer\": type 'Nothing'");
    refused("{\"model\": {\"type\": \"WordLevel\", \"vocab\": {}}, \"normalizer\": {\"type\": \"Precompiled\", "
            "\"precompiled_charsmap\": \"////\"}}",
            "cut short");
    refused("{\"model\": {\"type\": \"Unigram\", \"unk_id\": 3, \"vocab\": [[\"a\", 0]]}}", "unk_id");
    assert_null(sw_tokenizer_from_sentencepiece("\x0a\x7f", 2, NULL, 0));
    assert_non_null(strstr(sw_error(), "cut short"));
    assert_null(sw_tokenizer_from_tiktoken("YQ== x\n", 7, "a", NULL, NULL, 0));
    assert_non_null(strstr(sw_error(), "line 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scanners_are_their_expressions),
        cmocka_unit_test(expressions_of_oniguruma),
        cmocka_unit_test(tries_find_the_longest),
        cmocka_unit_test(older_files_of_a_folder),
        cmocka_unit_test(quick_way_is_the_usual_one),
        cmocka_unit_test(ways_do_not_mix),
        cmocka_unit_test(younger_characters),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
