/* Any bytes as a header, a line end, and a row of CSV or TSV: what comes out has the header's names and no other. */
#include "data/csv.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = (const char *)data, *eol = n ? memchr(text + 1, '\n', n - 1) : NULL;
    if (!eol)
        return 0;
    sw_csv c = {.separator = *text == 't' ? '\t' : ','};
    if (!sw_csv_header(&c, text + 1, (size_t)(eol - text - 1))) {
        cJSON *row = sw_csv_row(&c, eol + 1, n - (size_t)(eol + 1 - text));
        for (const cJSON *v = row ? row->child : NULL; v; v = v->next) {
            bool named = false;
            for (size_t i = 0; i < c.names.n; i++)
                named |= !strcmp(c.names.at[i], v->string);
            if (!named || !cJSON_IsString(v) || !*v->valuestring)
                abort();
        }
        cJSON_Delete(row);
    }
    sw_csv_free(&c);
    return 0;
}
