/* Any bytes as a data file: the first three choose how it is read, the rest is the file. */
#include "data/dataset.h"
#include "data/jsonl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void convert(const sw_dataset_options *o, cJSON *row)
{
    sw_sample s;
    if (sw_sample_from(o, row, &s))
        return;
    const cJSON *lists[] = {s.messages, s.rejected};
    for (int i = 0; i < 2; i++)
        for (const cJSON *m = lists[i] ? lists[i]->child : NULL; m; m = m->next) /* what a template relies on */
            if (!cJSON_IsString(sw_json_get(m, "role")) ||
                !(cJSON_IsString(sw_json_get(m, "content")) || (s.media && cJSON_IsArray(sw_json_get(m, "content")))))
                abort();
    if ((s.kind == SW_SAMPLE_CHAT) != (s.messages != NULL) || (s.kind == SW_SAMPLE_TEXT) != (s.text != NULL))
        abort();
    const cJSON *compared[] = {s.positives, s.negatives};
    for (int i = 0; i < 2; i++)
        for (const cJSON *t = compared[i] ? compared[i]->child : NULL; t; t = t->next)
            if (!cJSON_IsString(t) && !(cJSON_IsArray(t) && t->child))
                abort();
    for (const cJSON *c = s.labels ? s.labels->child : NULL; c; c = c->next)
        if (!cJSON_IsNumber(c))
            abort();
    if ((s.tags != NULL) != (s.task == SW_TASK_TAG) || (s.tags && (size_t)cJSON_GetArraySize(s.tags) != s.words.n))
        abort();
    for (size_t i = 0, at = 0; i < s.words.n; at = s.words.at[i++].end)
        if (s.words.at[i].start < at || s.words.at[i].end < s.words.at[i].start || s.words.at[i].end > strlen(s.text->valuestring))
            abort();
    sw_buf b = {0};
    if (s.messages)
        sw_json_print(&b, s.messages);
    sw_buf_free(&b);
    sw_sample_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 3)
        return 0;
    char path[32];
    int fd = memfd_create("data", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data + 3, n - 3) != (ssize_t)(n - 3))
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *values[] = {"NAME=x", "A={{NAME}}"};
    sw_strings fill = {values, 2, 2};
    const char *names[] = {"a=query", "b=", "c=messages"}, *columns[] = {"x", "query"};
    sw_strings map = {names, 3, 3}, carry = {columns, 2, 2};
    sw_dataset_options o = {.format = (sw_format)(data[0] % 7),
                            .fill = &fill,
                            .system = data[0] & 128 ? "s" : NULL,
                            .task = (sw_task)(data[2] % 9),
                            .bare_texts = data[2] & 16,
                            .map = data[2] & 32 ? &map : NULL,
                            .carry = data[2] & 64 ? &carry : NULL};
    sw_rows *r = sw_rows_open(path, (sw_rows_kind)(data[1] % 5), (sw_text_unit)(data[1] / 5 % 3));
    if (r)
        sw_rows_set(r, &(sw_rows_bounds){
                           .max_row = data[1] & 128 ? 100 : 0, .pass_long = data[1] & 64, .replace = data[2] & 128});
    sw_row row;
    while (r && sw_rows_next(r, &row) > 0) {
        cJSON *v = sw_row_json(r, row.at, row.n, row.line);
        if (v)
            convert(&o, v);
    }
    sw_rows_close(r);
    close(fd);
    return 0;
}
