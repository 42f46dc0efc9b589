#include "cases.h"

/* Sequences of up to three queries, whose keys, of `every` tokens each, lie in pages of 8 rows, the pages of a sequence one after
 * the other and not. */
typedef struct setup {
    array *seqs, *page;
    sw_paging paging[2];
    int64_t queries, every, longest; /* keys of the longest */
} setup;

enum { BITS = 3, ROOM = 128, PAGES = 60 }; /* pages of a sequence's table; pages there are */

static setup make(rig *r, int64_t n, const int64_t (*of)[2], int64_t every)
{
    setup s = {.every = every, .seqs = blank(r, SW_I32, DENSE, SHAPE(n, 4)), .page = blank(r, SW_I32, DENSE, SHAPE(n * ROOM))};
    for (int64_t i = 0; i < n; i++) {
        const int64_t row[] = {s.queries, of[i][0], i * (ROOM << BITS), of[i][1]};
        for (int k = 0; k < 4; k++)
            put_value(s.seqs, 4 * i + k, (double)row[k]);
        for (int64_t k = 0; k < ROOM; k++)
            put_value(s.page, i * ROOM + k, (double)((k * 7 + i) % PAGES));
        s.queries += of[i][0];
        s.longest = SW_MAX(s.longest, of[i][1] / every);
    }
    put_both(r, s.seqs);
    put_both(r, s.page);
    for (int side = 0; side < 2; side++)
        s.paging[side] = (sw_paging){s.page->t[side].data, BITS, ROOM << BITS};
    return s;
}

static const int64_t one[][2] = {{1, 1}, {1, 100}, {1, 37}}, several[][2] = {{3, 90}, {1, 5}, {2, 2}}; /* queries, tokens */

void case_index_scores(rig *r)
{
    static const int64_t shapes[][2] = {{1, 4}, {4, 32}, {33, 20}, {64, 128}};
    FOR_FLOATS(t)
        for (size_t i = 0; i < 4 * SW_COUNT(shapes); i++) {
            const int64_t heads = shapes[i / 4][0], width = shapes[i / 4][1], every = i & 2 ? 3 : 1;
            note(r, "%s, %d heads of %d%s, a key for %d tokens", sw_dtypes[*t].name, (int)heads, (int)width, i % 2 ? ", several queries" : "",
                 (int)every);
            setup s = make(r, 3, i % 2 ? several : one, every);
            array *q = normal(r, *t, GAPS, SHAPE(s.queries, heads, width), 1), *k = normal(r, *t, GAPS, SHAPE(PAGES << BITS, 1, width), 1);
            array *weights = normal(r, SW_F32, GAPS, SHAPE(s.queries, heads), 1), *scores = blank(r, SW_F32, DENSE, SHAPE(s.queries, s.longest + 9));
            RUN(r, index_scores, AT(scores), AT(q), AT(k), AT(weights), AT(s.seqs), &s.paging[side], s.every);
            expect(r, scores, 1e-5, sqrt((double)(heads * width)));
            finish(r);
        }
}

/* Whole numbers have equals; among those the choice is one certain. */
static void choose(rig *r, const setup *s, bool equal, int64_t k, int64_t among, bool bits)
{
    int64_t wide = s->longest + 9;
    array *scores = equal ? whole(r, SW_F32, DENSE, SHAPE(s->queries, wide), -2, 2) : normal(r, SW_F32, DENSE, SHAPE(s->queries, wide), 1);
    array *to = bits ? blank(r, SW_I32, DENSE, SHAPE(s->queries, wide / 32 + 1)) : NULL, *rows = blank(r, SW_I32, DENSE, SHAPE(s->queries, k));
    if (equal) /* of two zeros neither is larger */
        for (int64_t i = 0; i < s->queries * wide; i += 3)
            put_value(scores, i, value_at(scores, i) == 0 ? -0.0 : value_at(scores, i));
    for (int64_t i = 0; i < s->queries && s->longest > 9; i++)
        put_value(scores, i * wide + 4, i % 2 ? (double)NAN : -INFINITY);
    put_both(r, scores);
    RUN(r, index_choose, AT(to), AT(rows), AT(scores), AT(s->seqs), &s->paging[side], s->every, k, among);
    if (bits)
        expect(r, to, 0, 0);
    expect(r, rows, 0, 0);
    finish(r);
}

void case_index_choose(rig *r)
{
    static const int64_t counts[] = {1, 2, 7, 36, 99, 120};
    for (size_t i = 0; i < SW_COUNT(counts); i++)
        for (int kind = 0; kind < 16; kind++) {
            note(r, "%d keys%s%s%s%s", (int)counts[i], kind & 1 ? ", several queries" : "", kind & 2 ? ", equal ones" : "", kind & 4 ? ", among more" : "",
                 kind & 8 ? ", a key for 3 tokens" : "");
            setup s = make(r, 3, kind & 1 ? several : one, kind & 8 ? 3 : 1);
            choose(r, &s, kind & 2, counts[i], kind & 4 ? 105 : 0, kind != 2);
        }
}
