/* Rows for embedding models and rerankers: a text, texts that belong to it, texts that do not, and how much.
 *
 * Spellings: anchor, positive, negative, negative_1 ... and sentence1, sentence2, score (sentence-transformers);
 * messages, positive_messages, negative_messages, and query, response, rejected_response (ms-swift); query, pos, neg
 * (BGE); query, positive_passages, negative_passages (Tevatron); query, docs, labels (cross-encoders). */
#include "data/dataset_parts.h"

#include "base/memory.h"
#include "data/messages.h"
#include "data/tags.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const anchor_names[] = {"anchor", "query",   "question", "sentence1", "sentence_A", "sentence_a",
                                           "text1",  "premise", "prompt",   "text",      NULL};
static const char *const positive_names[] = {
    "positive_messages", "positive",  "positives",  "pos",        "positive_passages", "response", "answer", "passage",
    "document",          "sentence2", "sentence_B", "sentence_b", "hypothesis",        "text2",    NULL};
static const char *const negative_names[] = {
    "negative_messages", "negative",          "negatives",          "neg",      "hard_negatives",
    "negative_passages", "rejected_response", "rejected_responses", "rejected", NULL};
static const char *const document_names[] = {"docs", "documents", "passages", NULL};
static const char *const label_names[] = {"label", "labels", "score", "similarity", "similarity_score", NULL};
/* Any of these says that the row is one of this kind; the others are names that conversations use too. */
static const char *const telling_names[] = {"anchor",     "positive_messages", "positive",  "positives",         "pos",
                                            "sentence1",  "sentence_A",        "negatives", "negative_messages", "neg",
                                            "sentence_a", "positive_passages", NULL};

bool dataset_is_lists(const cJSON *row)
{
    if (dataset_present(row, telling_names))
        return true;
    return sw_json_get(row, "query") && dataset_present(row, document_names) && sw_json_get(row, "labels");
}

/* One text: a string; a passage with title and text; a conversation. Takes v; NULL with an error. */
static cJSON *one_text(const sw_dataset_options *o, cJSON *v, const char *field)
{
    if (cJSON_IsString(v))
        return v;
    if (dataset_is_messages(v)) {
        if (sw_messages_normalise(v, field)) {
            cJSON_Delete(v);
            return NULL;
        }
        cJSON *content = cJSON_GetObjectItemCaseSensitive(v->child, "content");
        if (v->child->next || !o->bare_texts)
            return v;
        content = cJSON_DetachItemViaPointer(v->child, content);
        cJSON_Delete(v);
        return content;
    }
    const cJSON *title = sw_json_get(v, "title"), *text = sw_json_get(v, "text");
    if (cJSON_IsString(text)) {
        sw_buf b = {0};
        if (cJSON_IsString(title) && *title->valuestring)
            sw_buf_printf(&b, "%s ", title->valuestring);
        sw_buf_puts(&b, text->valuestring);
        cJSON *s = cJSON_CreateString(b.at);
        sw_buf_free(&b);
        cJSON_Delete(v);
        return s;
    }
    sw_fail("field \"%s\": a text is needed (a string, a passage with \"text\", or messages), not %s", field,
            sw_json_kind(v));
    cJSON_Delete(v);
    return NULL;
}

/* One text or a list of them, appended to list. Takes v. */
static int add_texts(const sw_dataset_options *o, cJSON *v, const char *field, cJSON *list)
{
    bool many = cJSON_IsArray(v) &&
                !(dataset_is_messages(v) && (sw_json_get(v->child, "role") || sw_json_get(v->child, "from")));
    if (!many) {
        cJSON *t = one_text(o, v, field);
        if (t)
            cJSON_AddItemToArray(list, t);
        return t ? 0 : -1;
    }
    for (int i = 0; v->child; i++) {
        cJSON *t = one_text(o, cJSON_DetachItemViaPointer(v, v->child), field);
        if (!t) {
            cJSON_Delete(v);
            return sw_fail_in("text %d", i + 1);
        }
        cJSON_AddItemToArray(list, t);
    }
    cJSON_Delete(v);
    return 0;
}

/* negative_1, negative_2, ... in the order of the row. */
static int add_numbered(const sw_dataset_options *o, cJSON *row, cJSON *list)
{
    for (cJSON *c = row->child, *next; c; c = next) {
        next = c->next;
        const char *digits = c->string + strlen("negative_");
        if (strncmp(c->string, "negative_", strlen("negative_")) || !*digits ||
            strspn(digits, "0123456789") != strlen(digits) || cJSON_IsNull(c))
            continue;
        char field[64];
        snprintf(field, sizeof field, "%s", c->string);
        if (add_texts(o, cJSON_DetachItemViaPointer(row, c), field, list))
            return -1;
    }
    return 0;
}

/* The number of the class that a label names. */
static int class_of(const sw_tags *classes, const char *field, const cJSON *label, double *out)
{
    *out = cJSON_IsString(label) ? sw_tags_find(classes, label->valuestring) : cJSON_IsNumber(label) ? label->valuedouble : cJSON_IsTrue(label);
    if (*out >= 0 && *out < (double)classes->n && *out == floor(*out))
        return 0;
    char number[32];
    snprintf(number, sizeof number, "%g", label->valuedouble);
    return sw_fail("field \"%s\": %.80s is none of the %zu classes, %s%s%s (0 to %zu)", field, cJSON_IsString(label) ? label->valuestring : number, classes->n,
                   classes->at[0].name, classes->n > 2 ? " ... " : classes->n == 2 ? ", " : "", classes->n > 1 ? classes->at[classes->n - 1].name : "",
                   classes->n - 1);
}

int dataset_take_labels(cJSON *row, const char *name, bool must, const sw_dataset_options *o, sw_sample *s)
{
    const cJSON *v = name ? sw_json_get(row, name) : NULL, *first = cJSON_IsArray(v) ? v->child : v;
    const sw_tags *classes = s->task == SW_TASK_CLASSIFY ? o->classes : NULL;
    bool good = first != NULL;
    for (const cJSON *c = first; c && good; c = c == v ? NULL : c->next)
        good = cJSON_IsNumber(c) || cJSON_IsBool(c) || (classes && cJSON_IsString(c));
    if (!good && must && s->task == SW_TASK_CLASSIFY && !classes && cJSON_IsString(first))
        return sw_fail("field \"%s\": '%.80s' is the name of a class; --labels says which numbers they have", name, first->valuestring);
    if (!good)
        return must ? sw_fail("field \"%s\": a number, true or false, or a list of numbers is needed, not %s",
                              name ? name : "label", cJSON_IsArray(v) ? "a list of something else" : sw_json_kind(v))
                    : 0;
    s->labels = cJSON_CreateArray();
    for (const cJSON *c = first; c; c = c == v ? NULL : c->next) {
        double number = cJSON_IsNumber(c) ? c->valuedouble : cJSON_IsTrue(c);
        if ((cJSON_IsString(c) || (classes && o->only_classes)) && class_of(classes, name, c, &number))
            return -1;
        cJSON_AddItemToArray(s->labels, cJSON_CreateNumber(number));
    }
    cJSON_Delete(dataset_take(row, name));
    return 0;
}

/* Documents with a label each: those of 1 belong to the query, those of 0 do not. */
static int split_documents(const sw_dataset_options *o, cJSON *row, const char *field, sw_sample *s)
{
    cJSON *documents = cJSON_CreateArray();
    int rc = add_texts(o, dataset_take(row, field), field, documents);
    const cJSON *label = s->labels ? s->labels->child : NULL;
    for (; !rc && documents->child && label; label = label->next) {
        if (label->valuedouble != 0 && label->valuedouble != 1)
            rc = sw_fail("field \"labels\": %g; whether a document belongs to the query is 1 or 0", label->valuedouble);
        else
            cJSON_AddItemToArray(label->valuedouble != 0 ? s->positives : s->negatives,
                                 cJSON_DetachItemViaPointer(documents, documents->child));
    }
    if (!rc && (documents->child || label))
        rc = sw_fail("field \"labels\": as many as \"%s\" are needed", field);
    cJSON_Delete(documents);
    cJSON_Delete(s->labels);
    s->labels = NULL;
    return rc;
}

/* The anchor: a text, or a conversation whose last answer, where it has one and nothing else says so, belongs to it. */
static int take_anchor(const sw_dataset_options *o, cJSON *row, sw_sample *s)
{
    const char *field = sw_json_get(row, "messages") ? "messages" : dataset_present(row, anchor_names);
    if (!field)
        return sw_fail(
            "field \"anchor\" (or messages, query, question, sentence1, sentence_A, text1, premise, prompt, text) "
            "is missing");
    cJSON *v = dataset_take(row, field);
    if (cJSON_IsString(v)) {
        s->text = v;
    } else if (dataset_is_messages(v)) {
        s->messages = v;
        if (sw_messages_normalise(v, field))
            return -1;
        cJSON *last = v->child->prev;
        if (v->child->next && !strcmp(sw_json_get(last, "role")->valuestring, "assistant")) {
            cJSON_DetachItemViaPointer(v, last);
            cJSON_AddItemToArray(s->positives, cJSON_DetachItemFromObjectCaseSensitive(last, "content"));
            cJSON_Delete(last);
        }
        if (!v->child->next && o->bare_texts && s->task == SW_TASK_EMBEDDING) {
            s->text = cJSON_DetachItemFromObjectCaseSensitive(v->child, "content");
            cJSON_Delete(v);
            s->messages = NULL;
        }
    } else {
        sw_fail("field \"%s\": a string or messages are needed, not %s", field, sw_json_kind(v));
        cJSON_Delete(v);
        return -1;
    }
    s->kind = s->text ? SW_SAMPLE_TEXT : SW_SAMPLE_CHAT;
    return 0;
}

/* A reranker reads the query as the user's words and a document as the answer. */
static void make_pairs(sw_sample *s)
{
    if (s->text) {
        s->messages = cJSON_CreateArray();
        cJSON_AddItemToArray(s->messages, sw_message_new("user", s->text));
        s->text = NULL;
        s->kind = SW_SAMPLE_CHAT;
    }
    cJSON *lists[] = {s->positives, s->negatives};
    for (size_t k = 0; k < SW_COUNT(lists); k++) {
        cJSON *made = cJSON_CreateArray();
        for (cJSON *t; (t = cJSON_DetachItemViaPointer(lists[k], lists[k]->child));) {
            cJSON *pair = cJSON_Duplicate(s->messages, true);
            if (cJSON_IsString(t)) {
                cJSON_AddItemToArray(pair, sw_message_new("assistant", t));
            } else {
                for (cJSON *m; (m = cJSON_DetachItemViaPointer(t, t->child));)
                    cJSON_AddItemToArray(pair, m);
                cJSON_Delete(t);
            }
            cJSON_AddItemToArray(made, pair);
        }
        cJSON_Delete(lists[k]);
        *(k ? &s->negatives : &s->positives) = made;
    }
}

int dataset_from_lists(const sw_dataset_options *o, cJSON *row, sw_sample *s)
{
    s->positives = cJSON_CreateArray();
    s->negatives = cJSON_CreateArray();
    const char *documents = dataset_present(row, document_names);
    if (dataset_take_labels(row, dataset_present(row, label_names), false, o, s) || take_anchor(o, row, s))
        return -1;
    const char *name = dataset_present(row, positive_names);
    if (documents && !name) {
        if (split_documents(o, row, documents, s))
            return -1;
    } else if (name && add_texts(o, dataset_take(row, name), name, s->positives)) {
        return -1;
    }
    name = dataset_present(row, negative_names);
    if ((name && add_texts(o, dataset_take(row, name), name, s->negatives)) || add_numbered(o, row, s->negatives))
        return -1;
    if (!s->positives->child && !s->negatives->child)
        return sw_fail(
            "field \"positive\" (or positives, pos, positive_messages, response, answer, sentence2, ...) is missing");
    if (s->task == SW_TASK_RERANKER)
        make_pairs(s);
    return 0;
}
