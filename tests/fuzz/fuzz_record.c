/* Any bytes as a data file: the first two choose how it is read, the rest is the file. */
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
            if (!cJSON_IsString(sw_json_get(m, "role")) || !cJSON_IsString(sw_json_get(m, "content")))
                abort();
    if ((s.kind == SW_SAMPLE_CHAT) != (s.messages != NULL) || (s.kind == SW_SAMPLE_TEXT) != (s.text != NULL))
        abort();
    sw_buf b = {0};
    if (s.messages)
        sw_json_print(&b, s.messages);
    sw_buf_free(&b);
    sw_sample_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    char path[32];
    int fd = memfd_create("data", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data + 2, n - 2) != (ssize_t)(n - 2))
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *values[] = {"NAME=x", "A={{NAME}}"};
    sw_strings fill = {values, 2, 2};
    sw_dataset_options o = {.format = (sw_format)(data[0] % 7), .fill = &fill, .system = data[0] & 128 ? "s" : NULL};
    sw_rows *r = sw_rows_open(path, (sw_rows_kind)(data[1] % 5), (sw_text_unit)(data[1] / 5 % 3));
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
