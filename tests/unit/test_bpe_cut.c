#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "text/bpe_cut.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALPHABET = 4, MOST = 48, TOKEN = 64 };

static uint32_t below(uint64_t *seed, uint32_t n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % n;
}

/* Bytes a token each, and merges of tokens at random: in the order of training, or in any. */
static sw_tokenizer *random_merges(uint64_t *seed, bool shuffled, bool ignore_merges)
{
    char token[MOST + ALPHABET][TOKEN];
    int left[MOST], right[MOST], n = ALPHABET, m = 0, want = 1 + (int)below(seed, MOST);
    for (int i = 0; i < ALPHABET; i++)
        sprintf(token[i], "%c", 'a' + i);
    for (int round = 0; round < 20 * MOST && m < want; round++) {
        int a = (int)below(seed, (uint32_t)n), b = (int)below(seed, (uint32_t)n), at = 0;
        char both[2 * TOKEN];
        snprintf(both, sizeof both, "%s%s", token[a], token[b]);
        while (at < n && strcmp(token[at], both))
            at++;
        bool again = false; /* a product may have several merges, but a pair only one */
        for (int i = 0; i < m; i++)
            again |= left[i] == a && right[i] == b;
        if (strlen(both) >= TOKEN || again || (at < n && below(seed, 2)))
            continue;
        if (at == n)
            strcpy(token[n++], both);
        left[m] = a;
        right[m++] = b;
    }
    for (int i = m - 1; shuffled && i > 0; i--) {
        int j = (int)below(seed, (uint32_t)i + 1), l = left[i], r = right[i];
        left[i] = left[j];
        right[i] = right[j];
        left[j] = l;
        right[j] = r;
    }
    sw_buf json = {0};
    sw_buf_printf(&json, "{\"model\": {\"type\": \"BPE\", \"ignore_merges\": %s, \"vocab\": {",
                  ignore_merges ? "true" : "false");
    for (int i = 0; i < n; i++)
        sw_buf_printf(&json, "%s\"%s\": %d", i ? ", " : "", token[i], i);
    sw_buf_puts(&json, "}, \"merges\": [");
    for (int i = 0; i < m; i++)
        sw_buf_printf(&json, "%s[\"%s\", \"%s\"]", i ? ", " : "", token[left[i]], token[right[i]]);
    sw_buf_puts(&json,
                "]}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}}");
    sw_tokenizer *t = sw_tokenizer_from_json(json.at, json.n, NULL, 0);
    if (!t)
        print_error("%s\n", sw_error());
    sw_buf_free(&json);
    return t;
}

/* Whatever the merges and their order, cutting gives what merging gives. */
static void cutting_is_merging(void **state)
{
    (void)state;
    uint64_t seed = 11;
    size_t cut = 0;
    for (int round = 0; round < 600; round++) {
        bool ignore = round % 5 == 4;
        sw_tokenizer *t = random_merges(&seed, round % 2, ignore);
        assert_non_null(t);
        struct sw_bpe_cuts *c = sw_bpe_cuts_new(t);
        assert_non_null(c);
        sw_bpe_scratch s = {0};
        sw_ids ids[2] = {{0}};
        for (int w = 0; w < 200; w++) {
            char word[600];
            size_t n = 1 + below(&seed, w % 20 ? 40 : 500);
            for (size_t i = 0; i < n; i++)
                word[i] = (char)('a' + below(&seed, 1 + (uint32_t)w % ALPHABET));
            ids[0].n = ids[1].n = 0;
            assert_int_equal(sw_bpe_cut(t, c, &s, word, n, &ids[0]), 0);
            int64_t whole = ignore ? sw_token_id(t, word, n) : -1;
            if (whole >= 0)
                SW_PUSH(ids[1], (int32_t)whole);
            else
                assert_int_equal(sw_bpe_bytes(t, &s, (const uint8_t *)word, n, &ids[1]), 0);
            assert_int_equal(ids[0].n, ids[1].n);
            assert_memory_equal(ids[0].at, ids[1].at, ids[0].n * sizeof *ids[0].at);
            cut += ids[0].n;
        }
        free(ids[0].at);
        free(ids[1].at);
        sw_scratch_free(&s);
        sw_bpe_cuts_free(c);
        sw_tokenizer_free(t);
    }
    assert_true(cut > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cutting_is_merging)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
