#include "schedule.h"

#include "base/strbuf.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static double progress(int64_t step, int64_t warmup, int64_t total)
{
    return (double)(step - warmup) / (double)(total - warmup > 1 ? total - warmup : 1);
}

static double linear(int64_t step, int64_t warmup, int64_t total)
{
    return fmax(0, 1 - progress(step, warmup, total));
}

static double cosine(int64_t step, int64_t warmup, int64_t total)
{
    return fmax(0, 0.5 * (1 + cos(M_PI * progress(step, warmup, total))));
}

static double constant(int64_t step, int64_t warmup, int64_t total)
{
    (void)step, (void)warmup, (void)total;
    return 1;
}

const sw_schedule sw_schedules[] = {
    {"linear", "falls in a straight line to 0", linear},
    {"cosine", "falls along half a cosine to 0", cosine},
    {"constant", "stays", constant},
    {NULL, NULL, NULL},
};

const sw_schedule *sw_schedule_find(const char *name)
{
    sw_buf known = {0};
    for (const sw_schedule *s = sw_schedules; s->name; s++) {
        if (!strcmp(s->name, name))
            return sw_buf_free(&known), s;
        sw_buf_printf(&known, "%s%s", known.n ? ", " : "", s->name);
    }
    sw_fail("the schedule '%s' is not known; known are %s", name, known.at);
    sw_buf_free(&known);
    return NULL;
}

double sw_schedule_at(const sw_schedule *s, int64_t step, int64_t warmup, int64_t total)
{
    return step < warmup ? (double)step / (double)warmup : s->factor(step, warmup, total);
}
