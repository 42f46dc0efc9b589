#include "data/mixture.h"

#include "base/fileio.h"
#include "base/memory.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct part {
    char *path;
    int64_t count;          /* rows wanted, -1: not said */
    double weight;          /* -1: not said */
    int64_t size;           /* bytes of the file, 0: not known */
    bool sampled;           /* the last pass takes some of the rows */
    sw_rows *rows;          /* NULL: not read yet */
    int64_t in_file;        /* rows, once it was counted */
    int64_t whole, of_last; /* passes that take every row; rows that the pass after them takes */
    int64_t pass, row;      /* where it is: passes begun before this one, rows read in it */
    int64_t left;           /* rows that the last pass still wants */
    int64_t taken;
    double bytes_before; /* of the passes before */
    bool ended, ended_once;
} part;

struct sw_mixture {
    sw_mixture_options o;
    part *parts;
    int n, at; /* at: of SW_MIX_CONCAT */
    uint64_t draws;
    bool over;
};

/* ---- names */

static bool is_there(const char *path)
{
    struct stat st;
    return !strcmp(path, "-") || !stat(path, &st);
}

/* Cuts ":WEIGHT" or "#COUNT" off the end of path: whether there was one. */
static bool cut_suffix(char *path, char mark, double *value)
{
    char *at = strrchr(path, mark), *end;
    if (!at || at == path || !at[1] || strspn(at + 1, mark == ':' ? "0123456789." : "0123456789") != strlen(at + 1))
        return false;
    *value = strtod(at + 1, &end);
    if (*end)
        return false;
    *at = 0;
    return true;
}

static int parse_name(part *p, const char *name)
{
    p->path = sw_strdup(name);
    p->count = -1;
    p->weight = -1;
    double value;
    for (int i = 0; i < 2 && !is_there(p->path); i++) {
        if (p->count < 0 && cut_suffix(p->path, '#', &value))
            p->count = (int64_t)SW_MIN(value, 9e15);
        else if (p->weight < 0 && cut_suffix(p->path, ':', &value))
            p->weight = value;
        else
            break;
    }
    if (!is_there(p->path))
        return sw_fail_errno("%s", name);
    if (p->weight != -1 && !(p->weight > 0 && p->weight <= 1e6))
        return sw_fail("%s: a weight is above 0 and at most 1000000", name);
    struct stat st;
    bool regular = strcmp(p->path, "-") && !stat(p->path, &st) && S_ISREG(st.st_mode);
    p->size = regular ? (int64_t)st.st_size : 0;
    return 0;
}

sw_mixture *sw_mixture_new(char *const *names, int n, const sw_mixture_options *o)
{
    sw_mixture *m = SW_NEW(sw_mixture);
    m->o = *o;
    m->parts = SW_NEW_ARRAY(part, n);
    int rc = 0;
    bool standard = false;
    for (; !rc && m->n < n; m->n++) {
        part *p = &m->parts[m->n];
        rc = parse_name(p, names[m->n]);
        bool is_standard = !strcmp(p->path, "-");
        if (!rc && o->mix == SW_MIX_CONCAT && p->count >= 0 && p->weight >= 0)
            rc = sw_fail("%s: both a count and a weight say how many records to take", names[m->n]);
        if (!rc && is_standard && standard)
            rc = sw_fail("standard input is given twice; it can be read once");
        standard |= is_standard;
        p->sampled = p->count >= 0 || (o->mix == SW_MIX_CONCAT && p->weight >= 0 && p->weight != 1);
    }
    if (rc) {
        sw_mixture_free(m);
        return NULL;
    }
    return m;
}

void sw_mixture_free(sw_mixture *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n; i++) {
        sw_rows_close(m->parts[i].rows);
        free(m->parts[i].path);
    }
    free(m->parts);
    free(m);
}

int sw_mixture_spared_by(const sw_mixture *m, const char *out)
{
    for (int i = 0; i < m->n; i++)
        if (sw_out_spares(out, m->parts[i].path))
            return -1;
    return 0;
}

/* ---- one file */

/* Counts the rows, and decides how many passes take all of them and how many rows the last one takes. */
static int plan_sample(part *p)
{
    sw_row row;
    int rc;
    while ((rc = sw_rows_next(p->rows, &row)) > 0)
        p->in_file++;
    if (rc < 0)
        return -1;
    int64_t want = p->count;
    if (want < 0)
        want = (int64_t)SW_MIN(llround(p->weight * (double)p->in_file), INT64_C(1) << 53);
    if (!p->in_file && p->count > 0)
        return sw_fail("%s: has no records to draw %lld from", p->path, (long long)want);
    p->whole = p->in_file ? want / p->in_file : 0;
    p->of_last = p->in_file ? want % p->in_file : 0;
    return sw_rows_rewind(p->rows);
}

static int open_part(sw_mixture *m, part *p)
{
    p->rows = sw_rows_open(p->path, m->o.kind, m->o.unit);
    if (!p->rows)
        return -1;
    sw_rows_set(p->rows, &m->o.bounds);
    sw_rows_stop_when(p->rows, m->o.stop);
    p->whole = 1;
    if (!p->sampled)
        return 0;
    if (plan_sample(p))
        return sw_fail_in("a sample");
    p->left = p->of_last;
    return 0;
}

/* Whether the row that was read is one of the `left` among those that are still to come (Knuth's selection sampling,
 * The Art of Computer Programming 2, 3.4.2, algorithm S). */
static bool drawn(const sw_mixture *m, const part *p)
{
    sw_rng rng = {m->o.seed, (uint32_t)(p - m->parts), sw_rng_site("mixture sample")};
    uint32_t u[4];
    sw_philox(&rng, (uint64_t)(p->pass * p->in_file + p->row), u);
    double x = (double)(((uint64_t)u[0] << 21) | u[1] >> 11) * 0x1p-53;
    return x * (double)(p->in_file - p->row) < (double)p->left;
}

/* The next row of one file, over its passes: 1, 0 the end, -1. */
static int next_of(sw_mixture *m, part *p, sw_row *row)
{
    if (!p->rows && open_part(m, p))
        return -1;
    for (;;) {
        bool last = p->pass == p->whole;
        if (p->pass > p->whole || (last && !p->left)) {
            sw_rows_release(p->rows);
            return 0;
        }
        int rc = sw_rows_next(p->rows, row);
        if (rc < 0)
            return -1;
        if (!rc) {
            if (last)
                return sw_fail("%s: has become shorter while it was read", p->path);
            p->pass++;
            if (p->pass < p->whole || p->left) {
                p->bytes_before += (double)sw_rows_bytes(p->rows);
                if (sw_rows_rewind(p->rows))
                    return -1;
            }
            p->row = 0;
            continue;
        }
        bool take = !last || drawn(m, p);
        p->row++;
        if (take) {
            p->left -= last;
            p->taken++;
            return 1;
        }
    }
}

/* From its first row again. */
static int restart(part *p)
{
    if (!p->taken)
        return sw_fail("%s: has no records to begin again with", p->path);
    p->bytes_before += (double)sw_rows_bytes(p->rows);
    p->pass = p->row = 0;
    p->left = p->of_last;
    return sw_rows_rewind(p->rows);
}

/* ---- all of them */

static part *draw(sw_mixture *m)
{
    double sum = 0;
    for (int i = 0; i < m->n; i++)
        sum += m->parts[i].ended ? 0 : m->parts[i].weight < 0 ? 1 : m->parts[i].weight;
    sw_rng rng = {m->o.seed, 0, sw_rng_site("mixture draw")};
    double x = sw_rng_uniform(&rng, m->draws++) * sum;
    part *last = NULL;
    for (int i = 0; i < m->n; i++) {
        if (m->parts[i].ended)
            continue;
        last = &m->parts[i];
        x -= last->weight < 0 ? 1 : last->weight;
        if (x < 0)
            break;
    }
    return last;
}

static bool all_ended_once(const sw_mixture *m)
{
    for (int i = 0; i < m->n; i++)
        if (!m->parts[i].ended_once)
            return false;
    return true;
}

static int next_interleaved(sw_mixture *m, sw_row *row, part **from)
{
    for (part *p; !m->over && (p = draw(m));) {
        int rc = next_of(m, p, row);
        *from = p;
        if (rc)
            return rc;
        p->ended_once = true;
        if (m->o.mix == SW_MIX_ONCE)
            p->ended = true;
        else if (m->o.mix == SW_MIX_FIRST || all_ended_once(m))
            m->over = true;
        else if (restart(p))
            return -1;
        else if ((rc = next_of(m, p, row)))
            return rc;
    }
    return 0;
}

int sw_mixture_next(sw_mixture *m, sw_row *row, int *from)
{
    part *p = NULL;
    int rc = 0;
    if (m->o.mix == SW_MIX_CONCAT) {
        for (; m->at < m->n && !rc; m->at += !rc) {
            p = &m->parts[m->at];
            rc = next_of(m, p, row);
        }
    } else {
        rc = next_interleaved(m, row, &p);
    }
    if (rc > 0)
        *from = (int)(p - m->parts);
    return rc;
}

int sw_mixture_skip(sw_mixture *m, int64_t rows)
{
    sw_row row;
    int from;
    for (int64_t i = 0; i < rows; i++) {
        int rc = sw_mixture_next(m, &row, &from);
        if (rc < 0)
            return -1;
        if (!rc)
            return sw_fail("the input ends after %lld records; %lld of it had been read before", (long long)i,
                           (long long)rows);
    }
    return 0;
}

int sw_mixture_files(const sw_mixture *m) { return m->n; }
const sw_rows *sw_mixture_file(const sw_mixture *m, int i) { return m->parts[i].rows; }
int64_t sw_mixture_taken(const sw_mixture *m, int i) { return m->parts[i].taken; }

void sw_mixture_progress(const sw_mixture *m, double *done, double *total)
{
    *done = *total = 0;
    bool known = m->o.mix != SW_MIX_ALL;
    for (int i = 0; i < m->n; i++) {
        const part *p = &m->parts[i];
        known &= p->size > 0;
        double passes =
            p->rows ? (double)p->whole + (p->of_last > 0) : ceil(p->weight > 1 && p->sampled ? p->weight : 1);
        *total += (double)p->size * passes;
        *done += p->bytes_before + (p->rows ? (double)sw_rows_bytes(p->rows) : 0);
    }
    if (!known)
        *total = 0;
}
