/* Any bytes as a tokenizer file of each kind: reads it, and if it is one, encodes, decodes and writes it. The first
 * byte says which kind; a NUL separates a second file (merges.txt, tokenizer_config.json) from the first. */
#include "text/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static sw_tokenizer *read(char kind, const char *s, size_t n)
{
    const char *second = n ? memchr(s, 0, n) : NULL;
    size_t first = second ? (size_t)(second - s) : n, rest = second ? n - first - 1 : 0;
    switch (kind) {
    case 'j': return sw_tokenizer_from_json(s, first, second ? second + 1 : NULL, rest);
    case 's': return sw_tokenizer_from_sentencepiece(s, n, NULL, 0);
    case 't': return sw_tokenizer_from_tiktoken(s, n, "\\p{L}+|.", NULL, &(sw_special_token){"<|end|>", 300}, 1);
    case 'm': return sw_tokenizer_from_vocab_merges(s, first, second ? second + 1 : "", rest, NULL, 0);
    default: return sw_tokenizer_from_vocab_txt(s, first, second ? second + 1 : NULL, rest);
    }
}

static void use(const sw_tokenizer *t)
{
    static const char text[] = " Hello  w\xc3\xb6rld\n\xe4\xbd\xa0\xe5\xa5\xbd <|end|>42 \xef\xac\x81 e\xcc\x81\0abab";
    sw_encoder *e = sw_encoder_new(t);
    sw_ids ids = {0}, offsets = {0}, again = {0}, types = {0};
    sw_buf out = {0}, stream = {0}, json = {0}, config = {0};
    size_t n = sizeof text - 1;
    if (!sw_encode(e, text, n, true, &ids, &offsets)) {
        if (offsets.n != 2 * ids.n)
            abort();
        if (sw_encode(e, text, n, true, &again, NULL) || again.n != ids.n ||
            (ids.n && memcmp(ids.at, again.at, ids.n * sizeof *ids.at)))
            abort(); /* with offsets and without: the same ids */
        sw_stream_decoder d = {0};
        int bad = sw_decode(t, ids.at, ids.n, false, &out);
        for (size_t i = 0; i < ids.n && !bad; i++)
            bad = sw_stream_decode(&d, t, ids.at[i], false, &stream);
        bad = bad ? bad : sw_stream_finish(&d, t, false, &stream);
        sw_stream_free(&d);
        if (!bad && (out.n != stream.n || (out.n && memcmp(out.at, stream.at, out.n)) ||
                     sw_utf8_valid_prefix(out.at ? out.at : "", out.n) < out.n))
            abort();
    }
    ids.n = 0;
    (void)!sw_encode_pair(e, text, 8, text + 8, n - 8, true, &ids, &types, NULL);
    (void)!sw_encode_plain(e, text, n, &ids);
    (void)!sw_tokenizer_to_json(t, &json, &config);
    sw_encoder_free(e);
    void *const blocks[] = {ids.at, offsets.at, again.at, types.at};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    sw_buf_free(&out);
    sw_buf_free(&stream);
    sw_buf_free(&json);
    sw_buf_free(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sw_tokenizer *t = n ? read((char)data[0], (const char *)data + 1, n - 1) : NULL;
    if (t)
        use(t);
    sw_tokenizer_free(t);
    return 0;
}
