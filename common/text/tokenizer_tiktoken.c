/* tiktoken's rank files: a line a token, "base64 rank". Of two neighbours the pair is merged whose join has the lowest
 * rank, and a word that is a token needs no merging. */
#include "text/tokenizer_base64.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_splits.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Files that are known by the number of their ranks, when nobody says how words are cut. */
typedef struct known_file {
    size_t ranks;
    const char *pattern, *normalizer;
    const char *specials; /* "text id" by spaces; NULL: none */
    const char *numbered; /* more of them by a format with %d */
    int32_t first_id, count;
} known_file;

static const known_file known[] = {
    {50256, SW_SPLIT_GPT2, NULL, "<|endoftext|> 50256", NULL, 0, 0},
    {50280, SW_SPLIT_GPT2, NULL, "<|endoftext|> 50256", NULL, 0, 0},
    {100256, SW_SPLIT_CL100K("\\p{N}{1,3}"), NULL,
     "<|endoftext|> 100257 <|fim_prefix|> 100258 <|fim_middle|> 100259 <|fim_suffix|> 100260 <|endofprompt|> 100276",
     NULL, 0, 0},
    {151643, SW_SPLIT_CL100K("\\p{N}"), "{\"type\": \"NFC\"}",
     "<|endoftext|> 151643 <|im_start|> 151644 <|im_end|> 151645", "<|extra_%d|>", 151646, 205},
    {128000, SW_SPLIT_CL100K("\\p{N}{1,3}"), NULL,
     "<|begin_of_text|> 128000 <|end_of_text|> 128001 <|reserved_special_token_0|> 128002 <|reserved_special_token_1|> "
     "128003 "
     "<|finetune_right_pad_id|> 128004 <|reserved_special_token_2|> 128005 <|start_header_id|> 128006 "
     "<|end_header_id|> 128007 <|eom_id|> 128008 "
     "<|eot_id|> 128009 <|python_tag|> 128010",
     NULL, 0, 0},
    {199998, SW_SPLIT_O200K, NULL, "<|endoftext|> 199999 <|endofprompt|> 200018", NULL, 0, 0},
    {200000, SW_SPLIT_O200K, NULL, "<|begin_of_text|> 200000 <|end_of_text|> 200001", NULL, 0, 0},
    {163584, SW_SPLIT_KIMI, NULL, "[BOS] 163584 [EOS] 163585", NULL, 0, 0},
};

static void spell(const char *bytes, size_t n, sw_buf *out)
{
    sw_buf_clear(out);
    for (size_t i = 0; i < n; i++) {
        char c[4];
        sw_buf_add(out, c, (size_t)sw_utf8_encode(sw_byte_char((uint8_t)bytes[i]), c));
    }
}

/* Lines in two passes: how many there are and the largest rank, then the tokens. */
static int read_ranks(sw_tokenizer *t, const char *text, size_t n, size_t *count)
{
    sw_buf bytes = {0}, word = {0};
    int64_t most = -1;
    int rc = 0;
    for (int pass = 0; pass < 2 && !rc; pass++) {
        size_t number = 0;
        *count = 0;
        for (size_t at = 0; at < n && !rc;) {
            const char *line = text + at, *end = memchr(line, '\n', n - at);
            size_t len = end ? (size_t)(end - line) : n - at;
            at += len + 1;
            number++;
            while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
                len--;
            if (!len)
                continue;
            const char *space = memchr(line, ' ', len);
            int64_t rank = 0;
            size_t digits = 0;
            for (const char *c = space ? space + 1 : line + len;
                 c < line + len && *c >= '0' && *c <= '9' && rank < SW_MOST_TOKENS; c++, digits++)
                rank = rank * 10 + (*c - '0');
            if (!space || !digits || space + 1 + digits != line + len || rank >= SW_MOST_TOKENS) {
                rc = sw_fail("line %zu is no \"base64 rank\"", number);
            } else if (pass) {
                sw_buf_clear(&bytes);
                if (sw_base64_decode(line, (size_t)(space - line), &bytes) || !bytes.n) {
                    rc = sw_fail("line %zu: the token is no base64", number);
                } else if (t->words[rank].at) {
                    rc = sw_fail("line %zu: rank %lld is there twice", number, (long long)rank);
                } else {
                    spell(bytes.at, bytes.n, &word);
                    sw_tokenizer_set_word(t, (int32_t)rank, word.at, word.n);
                }
            }
            most = SW_MAX(most, rank);
            ++*count;
        }
        if (!rc && most < 0)
            rc = sw_fail("the file has no tokens");
        if (!pass && !rc)
            sw_tokenizer_size_is(t, most + 1);
    }
    sw_buf_free(&bytes);
    sw_buf_free(&word);
    return rc;
}

/* An added token under its own id, wherever that lies. */
static int add_special(sw_tokenizer *t, const char *text, int32_t id)
{
    size_t n = strlen(text);
    if (id < 0 || id >= SW_MOST_TOKENS || !n || sw_utf8_valid_prefix(text, n) < n)
        return sw_fail("the special token '%.60s' has the id %d", text, id);
    if (sw_map_get(&t->model_ids, text, n, -1) >= 0)
        return sw_fail("the special token '%.60s' is a word of the vocabulary, too", text);
    if (id < t->size && t->words[id].at)
        return sw_fail("the special token '%.60s' has the id %d of another", text, id);
    int32_t next = id;
    sw_tokenizer_grow(t, (int64_t)id + 1);
    sw_tokenizer_set_word(t, id, text, n); /* so that a file written of it keeps the id, holes before it or not */
    return sw_tokenizer_add(t, (sw_added){.text = sw_strndup(text, n), .n = n, .special = true}, &next);
}

static int add_known(sw_tokenizer *t, const known_file *k)
{
    char name[100];
    for (const char *s = k->specials; s && *s;) {
        size_t n = strcspn(s, " ");
        snprintf(name, sizeof name, "%.*s", (int)n, s);
        char *end;
        long id = strtol(s + n, &end, 10);
        if (add_special(t, name, (int32_t)id))
            return -1;
        s = *end == ' ' ? end + 1 : end;
    }
    for (int32_t i = 0; i < k->count; i++) {
        snprintf(name, sizeof name, "<|extra_%d|>", i);
        if (add_special(t, name, k->first_id + i))
            return -1;
    }
    if (k->ranks == 128000)
        for (int32_t i = 3; i < 248; i++) {
            snprintf(name, sizeof name, "<|reserved_special_token_%d|>", i);
            if (add_special(t, name, 128008 + i))
                return -1;
        }
    return 0;
}

static int read(sw_tokenizer *t, const char *text, size_t n, const char *pattern, const char *normalizer,
                const sw_special_token *specials, size_t n_specials)
{
    size_t count, k = 0;
    if (read_ranks(t, text, n, &count))
        return -1;
    while (k < SW_COUNT(known) && known[k].ranks != count)
        k++;
    if (!pattern && k == SW_COUNT(known))
        return sw_fail("nobody says how a vocabulary of %zu ranks cuts words; a tokenizer.json would", count);
    if (!pattern && !normalizer)
        normalizer = known[k].normalizer;
    t->ignore_merges = true;
    float *scores = SW_NEW_ARRAY(float, (size_t)t->size);
    for (int64_t i = 0; i < t->size; i++)
        scores[i] = -(float)i;
    int rc = sw_tokenizer_merges_from_scores(t, scores, NULL, false);
    free(scores);
    sw_buf b = {0};
    sw_buf_puts(&b, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    const char *cut = pattern ? pattern : known[k].pattern;
    sw_buf_json(&b, cut, strlen(cut));
    sw_buf_puts(&b, "}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", "
                    "\"add_prefix_space\": false, \"trim_offsets\": true, "
                    "\"use_regex\": false}]}");
    rc = rc || sw_tokenizer_read_part_text(t, SW_PART_NORMALIZER, normalizer) ||
                 sw_tokenizer_read_part_text(t, SW_PART_PRE_TOKENIZER, b.at) ||
                 sw_tokenizer_read_part_text(t, SW_PART_POST_PROCESSOR, NULL) ||
                 sw_tokenizer_read_part_text(t, SW_PART_DECODER,
                                             "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": "
                                             "true, \"use_regex\": true}")
             ? -1
             : 0;
    sw_buf_free(&b);
    for (size_t i = 0; i < n_specials && !rc; i++)
        rc = add_special(t, specials[i].text, specials[i].id);
    if (!rc && !n_specials && k < SW_COUNT(known))
        rc = add_known(t, &known[k]);
    return rc || sw_tokenizer_finish(t) ? -1 : 0;
}

sw_tokenizer *sw_tokenizer_from_tiktoken(const char *text, size_t n, const char *pattern, const char *normalizer,
                                         const sw_special_token *specials, size_t n_specials)
{
    sw_tokenizer *t = sw_tokenizer_new();
    if (read(t, text, n, pattern, normalizer, specials, n_specials)) {
        sw_tokenizer_free(t);
        return NULL;
    }
    return t;
}
