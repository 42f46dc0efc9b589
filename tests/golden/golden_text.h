/* What the golden kinds jinja, chat_template and loss_mask share: a folder with cases.jsonl is one case, and its lines
 * are counted. */
#ifndef SW_GOLDEN_TEXT_H
#define SW_GOLDEN_TEXT_H

#include "golden.h"

#include "base/strbuf.h"
#include "text/jinja.h"

/* The clock of strftime_now in all of them: 2024-07-26 12:34:56. */
#define GOLDEN_NOW 1721997296.0

int golden_is_lines(const char *dir); /* holds cases.jsonl */
/* Calls one(line, folder's state) for every line; it returns 0, or -1 with the reason. Fails with "k of n differ; first: ...". */
int golden_each_line(const char *dir, int (*one)(const cJSON *line, void *state), void *state);
/* Appends a file of a folder, unpacked with xz(1) where only NAME.xz is there. */
int golden_slurp(const char *dir, const char *name, sw_buf *out);
/* Renders and compares with the line's rendered, generation, or error. */
int golden_check_rendering(const sw_jinja *j, const cJSON *vars, const cJSON *line, const char *name);

#endif
