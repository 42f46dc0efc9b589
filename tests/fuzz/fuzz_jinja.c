/* Any bytes as a template over a fixed conversation: compiles and renders within its limits, or says why not. Time is bounded
 * by the steps of the engine; the fuzzer ends what takes longer. */
#include "base/json.h"
#include "text/jinja_internal.h"

#include <stdint.h>
#include <stdlib.h>

static const char vars[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\\u0000\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"é\"}]},"
    "{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.0}}}]}],"
    "\"tools\":[{\"a\":1}],\"bos_token\":\"<s>\",\"s\":\"Hello World\",\"n\":7,\"xs\":[3,1,2],\"d\":{\"b\":1,\"a\":[2]},\"z\":null}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static cJSON *v;
    if (!v)
        v = sw_json_parse(vars, sizeof vars - 1);
    sw_jinja *j = sw_jinja_compile((const char *)data, n);
    if (!j)
        return 0;
    sw_buf out = {0};
    sw_ranges ranges = {0};
    int bad = sw_jinja_render(j, v, 0, &out, &ranges, NULL);
    if (out.n > JINJA_MAX_OUTPUT)
        abort();
    if (!bad)
        for (size_t i = 0; i < ranges.n; i++)
            if (ranges.at[i][0] > ranges.at[i][1])
                abort();
    sw_jinja_free(j);
    sw_buf_free(&out);
    free(ranges.at);
    return 0;
}
