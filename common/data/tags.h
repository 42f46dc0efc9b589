/* Classes of texts or words: the names that config.json gives them (id2label), and, of words, the spans that names like B-PER
 * and I-PER say.
 *
 * A name is outside (O), or the place of a word in a span and the span's type: B- begins, I- is inside, E- or L- ends, S- or
 * U- is a span alone (IOB of either kind, IOBES, BILOU). Where no name is like that there are no spans. */
#ifndef SW_DATA_TAGS_H
#define SW_DATA_TAGS_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sw_tag {
    char *name;
    char place;       /* 'B', 'I', 'E', 'S', 'O'; 0: the name says none */
    const char *type; /* behind the place; "" of O */
} sw_tag;

typedef struct sw_tags {
    sw_tag *at;
    size_t n;
    bool spans; /* names say places */
} sw_tags;

/* From "id2label" of a config.json; none where it has no such member. Another number than the head's `labels` is an error, unless
 * those are not known (0). */
int sw_tags_read(sw_tags *t, const cJSON *config, int64_t labels) SW_MUST_CHECK;
/* From an option: how many there are (called LABEL_0 and so on), or their names with commas between. */
int sw_tags_parse(sw_tags *t, const char *text) SW_MUST_CHECK;
void sw_tags_free(sw_tags *t);
/* The names as a list, NULL where there are none; the caller deletes it. */
cJSON *sw_tags_names(const sw_tags *t);
/* Number of a name, or -1. */
int32_t sw_tags_find(const sw_tags *t, const char *name);
/* Number for a word of a span of this type, its first or a later one, in whichever way the names say it; -1: they have none.
 * type NULL: outside. */
int32_t sw_tags_of_span(const sw_tags *t, const char *type, bool first);

typedef struct sw_tag_span {
    size_t start, end; /* words [start, end) */
    const char *type;
} sw_tag_span;
typedef struct sw_tag_spans {
    sw_tag_span *at;
    size_t n, cap;
} sw_tag_spans;

/* Appends the spans of n words of these classes (each in [0, t->n)), as conlleval finds them: what begins with I- begins all
 * the same. */
void sw_tags_spans(const sw_tags *t, const int32_t *ids, size_t n, sw_tag_spans *out);

#endif
