/* Which tokens of a rendered conversation carry loss.
 *
 * The whole text is tokenised once and character ranges are mapped to tokens by their offsets, so that the ids are those
 * of inference. The range of an assistant's turn is a generation block of the template, if it has them. Otherwise the
 * conversation up to the turn and through it is rendered, and the turn is what the second adds to the first; its label
 * ends with its end-of-turn token, not with the white space after it. Where a template writes a turn otherwise once more
 * follow, the answer begins where the rendering changes with it, and ends with the first end-of-turn token after it.
 *
 * Built-in formats (template.apart) have one generation block a turn, and follow ms-swift in that a change of weight is a
 * boundary of tokens too: what stands before an answer is tokenised as it will be when the model is asked. */
#include "text/template_internal.h"

#include "base/json.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct labeller {
    const sw_template *m;
    const cJSON *messages;
    cJSON *vars;      /* of the whole conversation; its messages are moved out of it for prefixes */
    sw_buf text;      /* the whole rendering */
    sw_ranges blocks; /* generation blocks */
    const int32_t *ids;
    const int32_t *offsets; /* two a token */
    size_t n;         /* tokens */
    float *weights;
    sw_buf before, through; /* prefixes */
    const sw_loss_scale *scale; /* or NULL */
} labeller;

typedef struct turn { /* of the assistant */
    const cJSON *message, *query; /* and the user's message before it, or NULL */
    int index;
    float weight; /* 0: it is not trained on */
    bool scaled;  /* the message says its weight itself */
} turn;
typedef struct turns {
    turn *at;
    size_t n, cap;
    bool alike; /* all weigh 1 in all their parts */
} turns;

/* ---- tokens of a range */

static size_t token_start(const labeller *l, size_t i) { return (size_t)l->offsets[2 * i]; }
static size_t token_end(const labeller *l, size_t i) { return (size_t)l->offsets[2 * i + 1]; }

/* The first token that ends after byte `at`; offsets never go back. */
static size_t token_after(const labeller *l, size_t at)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (token_end(l, mid) > at)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static bool ends_turn(const labeller *l, size_t token)
{
    int32_t id = l->ids[token];
    return id == l->m->end_token || id == sw_tokenizer_eos(l->m->tokenizer) || sw_token_is_special(l->m->tokenizer, id);
}

static bool is_blank(const labeller *l, size_t token)
{
    for (size_t i = token_start(l, token); i < token_end(l, token); i++)
        if (!strchr(" \t\r\n", l->text.at[i]) || !l->text.at[i])
            return false;
    return true;
}

/* The weights of the bytes of an answer, from the loss scale and the turn. */
static float *weigh_answer(const labeller *l, const turn *t, const char *answer, size_t n)
{
    sw_buf scratch = {0};
    float *w = SW_NEW_ARRAY(float, n + 1);
    for (size_t i = 0; i < n; i++)
        w[i] = t->weight;
    sw_span query = t->query ? sw_json_text(sw_json_get(t->query, "content"), &scratch) : (sw_span){0};
    if (l->scale && !t->scaled && t->weight != 0 && sw_loss_scale_apply(l->scale, query.at, query.n, answer, n, w)) {
        sw_fail_in("message %d", t->index + 1);
        free(w);
        w = NULL;
    }
    sw_buf_free(&scratch);
    return w;
}

/* Weights of the tokens [first, end) of a turn; its end-of-turn token is no part of the text that the scale sees. */
static int weigh_tokens(labeller *l, size_t first, size_t end, const turn *t)
{
    size_t last = end;
    if (first >= end)
        return 0;
    while (last > first && is_blank(l, last - 1))
        last--;
    if (last > first && (l->ids[last - 1] == l->m->end_token || l->ids[last - 1] == sw_tokenizer_eos(l->m->tokenizer)))
        last--;
    else
        last = end;
    size_t from = token_start(l, first), to = last > first ? token_end(l, last - 1) : from;
    float *w = weigh_answer(l, t, l->text.at + from, to - from);
    for (size_t i = first; i < end && w; i++)
        l->weights[i] = i < last && token_start(l, i) < to ? w[token_start(l, i) - from] : t->weight;
    free(w);
    return w ? 0 : -1;
}

/* [first, last] of a generation block: from the token that holds its first character to the first one that holds its last. */
static int label_block(labeller *l, const size_t range[2], const turn *t)
{
    size_t last = range[1];
    if (range[0] >= range[1])
        return 0;
    do
        last--;
    while (last > range[0] && ((unsigned char)l->text.at[last] & 0xc0) == 0x80);
    size_t end = token_after(l, last);
    return weigh_tokens(l, token_after(l, range[0]), SW_MIN(end + 1, l->n), t);
}

/* All tokens of a turn up to its end-of-turn token; all of them where it has none. */
static int label_turn(labeller *l, size_t from, size_t to, const turn *t)
{
    size_t first = token_after(l, from), end = first;
    while (end < l->n && token_start(l, end) < to)
        end++;
    size_t last = end;
    while (last > first && !ends_turn(l, last - 1) && is_blank(l, last - 1))
        last--;
    if (last > first && ends_turn(l, last - 1))
        end = last;
    return weigh_tokens(l, first, end, t);
}

/* ---- where a turn is */

/* Renders messages[0..count). */
static int render_prefix(labeller *l, int count, bool prompt, sw_buf *out)
{
    cJSON *all = cJSON_DetachItemFromObjectCaseSensitive(l->vars, "messages"), *cut = NULL, *head = NULL;
    cJSON *at = all->child;
    for (int i = 0; at && i < count; i++)
        at = at->next;
    if (at && at != all->child) { /* the list ends here for a while */
        cut = at->prev;
        cut->next = NULL;
        head = all->child;
    } else if (at) {
        head = all->child;
        all->child = NULL;
    }
    cJSON_AddItemToObject(l->vars, "messages", all);
    template_set_prompt(l->vars, prompt);
    sw_buf_clear(out);
    int bad = template_render(l->m, l->vars, out, NULL);
    if (at) {
        all->child = head;
        if (cut)
            cut->next = at;
    }
    return bad;
}

static size_t common_prefix(const sw_buf *a, const sw_buf *b)
{
    size_t n = 0, most = SW_MIN(a->n, b->n);
    while (n < most && a->at[n] == b->at[n])
        n++;
    while (n && n < b->n && ((unsigned char)b->at[n] & 0xc0) == 0x80) /* no character is cut */
        n--;
    return n;
}

static bool is_prefix(const sw_buf *a, const sw_buf *of) { return a->n <= of->n && (!a->n || !memcmp(a->at, of->at, a->n)); }

static int no_prefix(int i)
{
    return sw_fail("message %d: the template renders what stands before it otherwise once it is there, so what to train on "
                   "cannot be told; a template with generation blocks can say it", i + 1);
}

/* The message's text without the white space around it, which many templates trim; empty where it is no plain text. */
static sw_span bare_content(const cJSON *message, sw_buf *scratch)
{
    sw_span s = sw_json_text(sw_json_get(message, "content"), scratch);
    while (s.n && strchr(" \t\r\n", *s.at) && *s.at) {
        s.at++;
        s.n--;
    }
    while (s.n && strchr(" \t\r\n", s.at[s.n - 1]) && s.at[s.n - 1])
        s.n--;
    return s;
}

/* Where the text of message i begins: where the rendering changes when the message says something else. For what the
 * prefixes do not tell; only for messages that are text alone, since other parts may stand before it. */
static int find_changed(labeller *l, int i, const cJSON *message, size_t *start)
{
    static const char *const others[] = {"reasoning_content", "thinking", "reasoning", "tool_calls"};
    sw_buf scratch = {0};
    sw_span bare = bare_content(message, &scratch);
    char probe[] = "Zq7";
    if (bare.n && *bare.at == 'Z')
        probe[0] = 'Q';
    bool plain = bare.n > 0;
    for (size_t k = 0; k < SW_COUNT(others); k++)
        plain &= !sw_json_get(message, others[k]);
    int bad = -1;
    if (plain) {
        const cJSON *m = cJSON_GetObjectItemCaseSensitive(l->vars, "messages")->child;
        for (int k = 0; k < i; k++)
            m = m->next;
        cJSON *content = cJSON_GetObjectItemCaseSensitive(m, "content");
        char *own = content->valuestring;
        content->valuestring = probe;
        template_set_prompt(l->vars, false);
        sw_buf_clear(&l->before);
        bad = template_render(l->m, l->vars, &l->before, NULL);
        content->valuestring = own;
        *start = bad ? 0 : common_prefix(&l->before, &l->text);
        for (size_t at = *start; at < l->text.n && strchr(" \t\r\n", l->text.at[at]) && l->text.at[at]; at++)
            if (l->text.n - at > bare.n && !memcmp(l->text.at + at + 1, bare.at, bare.n))
                *start = at + 1;
        if (!bad && (l->text.n - *start < bare.n || memcmp(l->text.at + *start, bare.at, bare.n)))
            bad = -1;
    }
    sw_buf_free(&scratch);
    return bad ? no_prefix(i) : 0;
}

static int find_start(labeller *l, int i, const cJSON *message, size_t *start)
{
    if (render_prefix(l, i, true, &l->before))
        return find_changed(l, i, message, start); /* many templates refuse an empty conversation */
    *start = l->before.n;
    if (is_prefix(&l->before, &l->text))
        return 0;
    /* a prompt that ends with more than the template writes in front of an answer that is there, such as <think> */
    *start = common_prefix(&l->before, &l->text);
    if (render_prefix(l, i, false, &l->before) || !is_prefix(&l->before, &l->text) || *start < l->before.n)
        return find_changed(l, i, message, start);
    size_t before = l->before.n;
    for (size_t k = *start; k > before && l->text.at[k - 1] != '>'; k--)
        if (l->text.at[k - 1] == '<') { /* two tags that begin alike: the answer's is whole */
            *start = k - 1;
            break;
        }
    if (*start == before && find_changed(l, i, message, start)) { /* the prompt and the answer share no header */
        sw_error_clear();
        *start = before;
    }
    return 0;
}

static int find_end(labeller *l, int i, const cJSON *message, size_t start, size_t *end)
{
    if (!render_prefix(l, i + 1, false, &l->through) && is_prefix(&l->through, &l->text) && l->through.n >= start) {
        *end = l->through.n;
        return 0;
    }
    /* the turn is written otherwise when it is the last: its end-of-turn token, after its text, tells */
    sw_buf scratch = {0};
    sw_span own = bare_content(message, &scratch), next = {0};
    const char *text = l->text.at, *hit = own.n ? memmem(text + start, l->text.n - start, own.at, own.n) : text + start;
    bool found = hit != NULL; /* a template may drop an earlier turn's thoughts that stood in its text */
    size_t from = hit ? (size_t)(hit - text) + own.n : start, limit = l->text.n;
    sw_buf_clear(&scratch);
    if (message->next)
        next = bare_content(message->next, &scratch);
    hit = next.n ? memmem(text + from, l->text.n - from, next.at, next.n) : NULL;
    if (hit)
        limit = (size_t)(hit - text);
    sw_buf_free(&scratch);
    size_t first = token_after(l, from), token = first;
    while (token < l->n && token_start(l, token) < limit && l->ids[token] != l->m->end_token)
        token++;
    if (found && (token == l->n || token_start(l, token) >= limit)) /* some templates end earlier turns with another one */
        for (token = first; token < l->n && token_start(l, token) < limit && !ends_turn(l, token);)
            token++;
    if (token == l->n || token_start(l, token) >= limit)
        return no_prefix(i);
    *end = token_end(l, token);
    return 0;
}

/* ---- which turns */

static bool is_assistant(const cJSON *message)
{
    const char *role;
    return !sw_json_str(message, "role", "", &role) && !strcmp(role, "assistant");
}

/* "loss": true or false, and "loss_scale": x of a message. trained: whether it is where it says nothing. */
static int message_weight(const cJSON *message, int i, bool trained, turn *t)
{
    bool loss;
    double scale;
    if (sw_json_bool(message, "loss", trained, &loss) || sw_json_f64(message, "loss_scale", 1, &scale))
        return sw_fail_in("message %d", i + 1);
    if (!(scale >= 0 && scale <= 1e6))
        return sw_fail("message %d: loss_scale is to be from 0 to 1000000", i + 1);
    t->weight = loss ? (float)scale : 0;
    t->scaled = sw_json_get(message, "loss_scale") != NULL;
    return 0;
}

static int find_turns(const labeller *l, sw_train_on train_on, turns *all)
{
    int i = 0, last = 0; /* where the assistant's last run of messages begins */
    bool before = false;
    for (const cJSON *m = l->messages->child; m; m = m->next, i++) {
        if (!cJSON_IsObject(m))
            return sw_fail("message %d: an object is wanted, not %s", i + 1, sw_json_kind(m));
        if (is_assistant(m) && !before)
            last = i;
        before = is_assistant(m);
    }
    const cJSON *query = NULL;
    all->alike = !l->scale;
    i = 0;
    for (const cJSON *m = l->messages->child; m; m = m->next, i++) {
        turn t = {.message = m, .index = i, .query = query};
        const char *role;
        if (!sw_json_str(m, "role", "", &role) && !strcmp(role, "user"))
            query = m;
        if (message_weight(m, i, train_on != SW_TRAIN_LAST || i >= last, &t))
            return -1;
        if (!is_assistant(m))
            continue;
        all->alike &= t.weight == 1;
        SW_PUSH(*all, t);
    }
    return 0;
}

static int label_by_prefixes(labeller *l, const turns *t, bool every)
{
    for (size_t k = 0; k < t->n; k++) {
        const turn *a = &t->at[k];
        size_t start, end;
        if (a->weight == 0 && !every)
            continue;
        if (find_start(l, a->index, a->message, &start) || find_end(l, a->index, a->message, start, &end) ||
            label_turn(l, start, end, a))
            return -1;
    }
    return 0;
}

/* Blocks belong to turns in order; where a turn has several, or none, they belong to the turn they lie in. */
static int label_by_blocks(labeller *l, const turns *t)
{
    static const turn one = {.weight = 1, .scaled = true};
    bool paired = l->blocks.n == t->n;
    for (size_t b = 0, k = 0; b < l->blocks.n; b++) {
        if (t->alike) {
            if (label_block(l, l->blocks.at[b], &one))
                return -1;
            continue;
        }
        if (paired) {
            k = b;
        } else {
            size_t end;
            while (k + 1 < t->n) {
                if (find_end(l, t->at[k].index, t->at[k].message, 0, &end))
                    return -1;
                if (l->blocks.at[b][0] < end)
                    break;
                k++;
            }
        }
        if (k < t->n && label_block(l, l->blocks.at[b], &t->at[k]))
            return -1;
    }
    return 0;
}

static bool has_blocks(const sw_template *m) { return strstr(m->text, "endgeneration") != NULL; }

static int label(labeller *l, sw_train_on train_on)
{
    turns t = {0};
    bool every = train_on == SW_TRAIN_ALL;
    int bad = find_turns(l, train_on, &t);
    for (size_t i = 1; every && i < l->n; i++)
        l->weights[i] = 1;
    if (!bad && !(every && t.alike))
        bad = has_blocks(l->m) ? label_by_blocks(l, &t) : label_by_prefixes(l, &t, every);
    if (every && l->n)
        l->weights[0] = 0;
    free(t.at);
    return bad;
}

static int encode_whole(labeller *l, sw_encoder *e, sw_train_on train_on, sw_ids *ids, sw_weights *weights)
{
    sw_ids offsets = {0};
    size_t before = ids->n;
    int bad = sw_encode(e, l->text.n ? l->text.at : "", l->text.n, false, ids, &offsets);
    if (!bad) {
        l->n = ids->n - before;
        l->ids = ids->at + before;
        l->offsets = offsets.at;
        SW_RESERVE(*weights, weights->n + l->n + 1);
        l->weights = weights->at + weights->n;
        memset(l->weights, 0, l->n * sizeof *l->weights);
        weights->n += l->n;
        bad = label(l, train_on);
    }
    free(offsets.at);
    return bad;
}

/* ---- tokens that end where a weight does */

/* Bytes of the block [at, at + n) that are its answer: without what ends it. */
static size_t answer_length(const sw_template *m, const char *at, size_t n)
{
    size_t end = n;
    while (end && (at[end - 1] == '\n' || at[end - 1] == ' '))
        end--;
    sw_span eos = sw_token_piece(m->tokenizer, sw_tokenizer_eos(m->tokenizer));
    if (eos.n && end >= eos.n && !memcmp(at + end - eos.n, eos.at, eos.n))
        return end - eos.n;
    for (char **s = m->stop; *s; s++)
        if (end >= strlen(*s) && !memcmp(at + end - strlen(*s), *s, strlen(*s)))
            return end - strlen(*s);
    return n;
}

/* A weight for each byte of the text; NULL on failure. */
static float *weigh_bytes(labeller *l, sw_train_on train_on)
{
    turns t = {0};
    float *w = find_turns(l, train_on, &t) ? NULL : SW_NEW_ARRAY(float, l->text.n + 1);
    for (size_t i = 0; w && train_on == SW_TRAIN_ALL && i < l->text.n; i++)
        w[i] = 1;
    size_t dropped = t.n - SW_MIN(t.n, l->blocks.n); /* earlier rounds, where the format has one only */
    for (size_t b = 0; w && b < l->blocks.n && b + dropped < t.n; b++) {
        const turn *a = &t.at[b + dropped];
        size_t from = l->blocks.at[b][0], n = l->blocks.at[b][1] - from, own = answer_length(l->m, l->text.at + from, n);
        float *part = weigh_answer(l, a, l->text.at + from, own);
        for (size_t i = 0; part && i < n; i++)
            w[from + i] = i < own ? part[i] : a->weight;
        if (!part) {
            free(w);
            w = NULL;
        }
        free(part);
    }
    free(t.at);
    return w;
}

static int encode_apart(labeller *l, sw_encoder *e, sw_train_on train_on, sw_ids *ids, sw_weights *weights)
{
    size_t first = weights->n, unweighed = ids->n - weights->n;
    float *w = weigh_bytes(l, train_on);
    int bad = !w;
    for (size_t at = 0, end; at < l->text.n && !bad; at = end) {
        end = at + 1;
        while (end < l->text.n && (w[end] == w[at] || ((unsigned char)l->text.at[end] & 0xc0) == 0x80))
            end++;
        bad = sw_encode(e, l->text.at + at, end - at, false, ids, NULL);
        while (weights->n + unweighed < ids->n && !bad) {
            bool begins = weights->n == first && train_on == SW_TRAIN_ALL;
            SW_PUSH(*weights, begins ? 0 : w[at]);
        }
    }
    free(w);
    return bad;
}

int sw_template_encode(const sw_template *m, sw_encoder *e, const cJSON *messages, const cJSON *tools,
                       const cJSON *extra, sw_train_on train_on, const sw_loss_scale *scale, sw_ids *ids, sw_weights *weights)
{
    if (!cJSON_IsArray(messages))
        return sw_fail("messages: an array is wanted, not %s", sw_json_kind(messages));
    labeller l = {.m = m, .messages = messages, .vars = template_variables(m, messages, tools, extra),
                  .scale = scale && !sw_loss_scale_is_plain(scale) ? scale : NULL};
    size_t before = ids->n, weights_before = weights->n;
    template_set_prompt(l.vars, false);
    int bad = template_render(m, l.vars, &l.text, &l.blocks);
    if (!bad)
        bad = m->apart ? encode_apart(&l, e, train_on, ids, weights) : encode_whole(&l, e, train_on, ids, weights);
    if (bad) { /* as if nothing had been appended */
        ids->n = before;
        weights->n = weights_before;
    }
    cJSON_Delete(l.vars);
    free(l.blocks.at);
    sw_buf_free(&l.text);
    sw_buf_free(&l.before);
    sw_buf_free(&l.through);
    return bad ? -1 : 0;
}

int sw_template_encode_prompt(const sw_template *m, sw_encoder *e, const cJSON *messages, const cJSON *tools,
                              const cJSON *extra, sw_ids *ids)
{
    sw_buf text = {0};
    sw_ranges blocks = {0};
    size_t at = 0;
    int bad = sw_template_render(m, messages, tools, extra, true, &text, &blocks);
    for (size_t b = 0; m->apart && b < blocks.n && !bad; b++) /* as in training */
        for (int k = 0; k < 2 && !bad; k++) {
            bad = sw_encode(e, text.at + at, blocks.at[b][k] - at, false, ids, NULL);
            at = blocks.at[b][k];
        }
    bad = bad || sw_encode(e, text.n ? text.at + at : "", text.n - at, false, ids, NULL);
    free(blocks.at);
    sw_buf_free(&text);
    return bad ? -1 : 0;
}
