/* Rows for classifiers of words: words with a class each (tokens or words; tags, ner_tags, labels, pos_tags or chunk_tags), or a
 * text and what lies where in it (text; entities or spans, each with start, end and label, counted in characters). */
#include "data/dataset_parts.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const char *const word_names[] = {"tokens", "words", NULL};
static const char *const tag_names[] = {"tags", "ner_tags", "labels", "word_labels", "pos_tags", "chunk_tags", NULL};
static const char *const entity_names[] = {"entities", "spans", NULL};
static const char *const type_names[] = {"label", "type", "entity_group", "entity", NULL};

static bool is_words(const cJSON *row)
{
    const char *field = dataset_present(row, word_names);
    const cJSON *words = field ? sw_json_get(row, field) : NULL;
    return cJSON_IsArray(words) && (!words->child || cJSON_IsString(words->child)) && dataset_present(row, tag_names);
}

bool dataset_is_tagged(const cJSON *row)
{
    const char *entities = dataset_present(row, entity_names);
    return is_words(row) || (entities && cJSON_IsArray(sw_json_get(row, entities)) && cJSON_IsString(sw_json_get(row, "text")));
}

/* U+0000, which a text in cJSON holds as two bytes. */
static bool has_zero(const char *s) { return strstr(s, "\xc0\x80") != NULL; }

static int from_words(cJSON *row, sw_sample *s)
{
    const char *field = dataset_present(row, word_names), *tag_field = dataset_present(row, tag_names);
    const cJSON *words = sw_json_get(row, field);
    sw_buf text = {0};
    size_t n = 0;
    int rc = 0;
    sw_buf_puts(&text, "");
    for (const cJSON *w = words->child; w && !rc; w = w->next, n++) {
        if (!cJSON_IsString(w) || has_zero(w->valuestring)) {
            rc = sw_fail("field \"%s[%zu]\": a string without U+0000 is needed", field, n);
            break;
        }
        if (n)
            sw_buf_putc(&text, ' ');
        sw_word word = {text.n, text.n + strlen(w->valuestring)};
        sw_buf_puts(&text, w->valuestring);
        SW_PUSH(s->words, word);
    }
    s->tags = dataset_take(row, tag_field);
    if (!rc && (!cJSON_IsArray(s->tags) || (size_t)cJSON_GetArraySize(s->tags) != n))
        rc = sw_fail("field \"%s\": a list of %zu classes is needed, one for each of \"%s\"", tag_field, n, field);
    size_t i = 0;
    for (const cJSON *t = rc ? NULL : s->tags->child; t && !rc; t = t->next, i++)
        if (!cJSON_IsString(t) && !cJSON_IsNumber(t))
            rc = sw_fail("field \"%s[%zu]\": the name or number of a class is needed, not %s", tag_field, i, sw_json_kind(t));
    s->text = cJSON_CreateString(text.at);
    sw_buf_free(&text);
    cJSON_Delete(dataset_take(row, field));
    return rc;
}

typedef struct entity {
    size_t start, end; /* characters, then bytes */
    const char *type;
    int number; /* in the row */
} entity;

static int by_start(const void *a, const void *b)
{
    const entity *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int read_entity(const cJSON *v, const char *field, int number, size_t characters, entity *e)
{
    char where[64];
    int64_t start, end;
    snprintf(where, sizeof where, "field \"%s[%d]\"", field, number);
    const char *type = cJSON_IsObject(v) ? dataset_present(v, type_names) : NULL;
    if (!type || !cJSON_IsString(sw_json_get(v, type)) || !sw_json_get(v, "start") || !sw_json_get(v, "end"))
        return sw_fail("%s: an object with the numbers start and end and the string label is needed", where);
    if (sw_json_i64(v, "start", 0, (int64_t)characters, 0, &start) || sw_json_i64(v, "end", 0, (int64_t)characters, 0, &end))
        return sw_fail_in("%s", where);
    if (start >= end)
        return sw_fail("%s: ends at character %lld, not behind its start, %lld", where, (long long)end, (long long)start);
    *e = (entity){(size_t)start, (size_t)end, sw_json_get(v, type)->valuestring, number};
    return 0;
}

/* Characters to bytes: entities in order. */
static void to_bytes(const char *text, entity *at, size_t n)
{
    size_t byte = 0, character = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t *p = &at[i].start; p <= &at[i].end; p++) { /* start, then end */
            for (; character < *p; character++)
                do
                    byte++;
                while ((text[byte] & 0xc0) == 0x80);
            *p = byte;
        }
}

static void add_words(sw_sample *s, size_t from, size_t to, const char *type)
{
    size_t n = s->words.n;
    sw_words_of(s->text->valuestring, from, to, &s->words);
    for (size_t i = n; i < s->words.n; i++) { /* the first of a span is told from the others by a pair */
        cJSON *tag = type ? cJSON_CreateArray() : cJSON_CreateNull();
        if (type) {
            cJSON_AddItemToArray(tag, cJSON_CreateString(type));
            cJSON_AddItemToArray(tag, cJSON_CreateBool(i == n));
        }
        cJSON_AddItemToArray(s->tags, tag);
    }
}

static int from_entities(cJSON *row, sw_sample *s)
{
    const char *field = dataset_present(row, entity_names);
    cJSON *list = dataset_take(row, field);
    size_t n = 0, most = (size_t)cJSON_GetArraySize(list), at = 0;
    entity *entities = SW_NEW_ARRAY(entity, most + 1);
    s->text = dataset_take(row, "text");
    s->tags = cJSON_CreateArray();
    const char *text = s->text->valuestring;
    size_t bytes = strlen(text), characters = sw_utf8_count(text, bytes);
    int rc = has_zero(text) ? sw_fail("field \"text\": a string without U+0000 is needed") : 0;
    for (const cJSON *v = list->child; v && !rc; v = v->next, n++)
        rc = read_entity(v, field, (int)n, characters, &entities[n]);
    if (!rc && n)
        qsort(entities, n, sizeof *entities, by_start);
    for (size_t i = 1; i < n && !rc; i++)
        if (entities[i].start < entities[i - 1].end)
            rc = sw_fail("field \"%s[%d]\": reaches into \"%s[%d]\"; a word has one class", field, entities[i].number, field, entities[i - 1].number);
    if (!rc)
        to_bytes(text, entities, n);
    for (size_t i = 0; i < n && !rc; i++) {
        add_words(s, at, entities[i].start, NULL);
        add_words(s, entities[i].start, entities[i].end, entities[i].type);
        at = entities[i].end;
    }
    if (!rc)
        add_words(s, at, bytes, NULL);
    free(entities);
    cJSON_Delete(list);
    return rc;
}

int dataset_from_tagged(cJSON *row, sw_sample *s)
{
    s->kind = SW_SAMPLE_TEXT;
    s->format = SW_FORMAT_TEXT;
    if (is_words(row))
        return from_words(row, s);
    if (dataset_is_tagged(row))
        return from_entities(row, s);
    return sw_fail("\"tokens\" (strings) and \"tags\" (or ner_tags, labels, pos_tags, chunk_tags), or \"text\" and \"entities\" (objects with start, end "
                   "and label) are needed");
}
