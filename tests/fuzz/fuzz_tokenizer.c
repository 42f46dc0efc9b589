/* Any bytes as a tokenizer.json and, after a NUL byte, a tokenizer_config.json: what loads encodes text to ids that it has,
 * decodes them, and can be written and read again. */
#include "base/memory.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char text[] = "Hello  world! it's 12345 caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd\n\n<s>\t<|im_end|> \xf0\x9f\x98\x80ab\0ab";

static void use(const sw_tokenizer *t)
{
    sw_encoder *e = sw_encoder_new(t);
    sw_ids ids = {0}, offsets = {0};
    sw_buf out = {0};
    if (!sw_encode(e, text, sizeof text - 1, true, &ids, &offsets)) {
        if (offsets.n != 2 * ids.n)
            abort();
        for (size_t i = 0; i < ids.n; i++)
            if (ids.at[i] < 0 || ids.at[i] >= sw_tokenizer_size(t) || offsets.at[2 * i] > offsets.at[2 * i + 1] ||
                (size_t)offsets.at[2 * i + 1] > sizeof text - 1)
                abort();
        if (sw_decode(t, ids.at, ids.n, false, &out))
            sw_buf_free(&out);
    }
    ids.n = 0;
    if (sw_encode_plain(e, text, sizeof text - 1, &ids))
        ids.n = 0;
    free(ids.at);
    free(offsets.at);
    sw_buf_free(&out);
    sw_encoder_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *all = (const char *)data, *config = n ? memchr(all, 0, n) : NULL;
    size_t first = config ? (size_t)(config - all) : n;
    config += config != NULL;
    sw_tokenizer *t = sw_tokenizer_from_json(all, first, config, config ? n - first - 1 : 0);
    if (!t)
        return 0;
    use(t);
    sw_buf json = {0}, settings = {0};
    if (!sw_tokenizer_to_json(t, &json, &settings)) {
        sw_tokenizer *again = sw_tokenizer_from_json(json.at, json.n, settings.at, settings.n);
        if (again)
            sw_tokenizer_free(again);
    }
    sw_buf_free(&json);
    sw_buf_free(&settings);
    sw_tokenizer_free(t);
    return 0;
}
