#include "base/log.h"

#include "base/memory.h"
#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *program = "swift";
static bool quiet, muted, bar_shown;

void sw_log_init(const char *name, bool silent)
{
    program = name;
    quiet = silent;
}

bool sw_quiet(void) { return quiet; }
void sw_log_mute(bool on) { muted = on; }

static void say(const char *kind, const char *fmt, va_list ap)
{
    char text[4096];
    if (muted)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    if (bar_shown)
        fputs("\r\033[K", stderr);
    bar_shown = false;
    fprintf(stderr, "%s: %s%s\n", program, kind, text);
}

void sw_info(const char *fmt, ...)
{
    if (quiet)
        return;
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

void sw_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("warning: ", fmt, ap);
    va_end(ap);
}

void sw_complain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

double sw_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sw_progress_begin(sw_progress *p, const char *what, const char *unit, double total)
{
    *p = (sw_progress){.what = what, .unit = unit, .total = total, .start = sw_now()};
    p->last_shown = p->start;
}

static void show(sw_progress *p, bool bar, const char *extra, bool final)
{
    double now = sw_now(), spent = now - p->start;
    double rate = spent > 0 ? (p->done - p->done_at_start) / spent : 0;
    char line[256], left[32], took[32];
    int n;
    if (p->total > 0) {
        double share = SW_MIN(p->done / p->total, 1.0);
        if (bar) {
            static const char full[] = "####################";
            n = snprintf(line, sizeof line, "%s [%-20.*s] %3.0f%%", p->what, (int)(share * 20), full, share * 100);
        } else {
            n = snprintf(line, sizeof line, "%s %3.0f%%", p->what, share * 100);
        }
        n += snprintf(line + n, sizeof line - (size_t)n, " %.0f/%.0f %s %.3g/s", p->done, p->total, p->unit, rate);
        if (final)
            n += snprintf(line + n, sizeof line - (size_t)n, " in %s", sw_human_seconds(spent, took));
        else
            n += snprintf(line + n, sizeof line - (size_t)n, " left %s",
                          sw_human_seconds(rate > 0 ? (p->total - p->done) / rate : -1, left));
    } else {
        n = snprintf(line, sizeof line, "%s %.0f %s %.3g/s in %s", p->what, p->done, p->unit, rate,
                     sw_human_seconds(spent, took));
    }
    if (extra && n < (int)sizeof line)
        snprintf(line + n, sizeof line - (size_t)n, "  %s", extra);
    if (bar) {
        fprintf(stderr, "\r\033[K%s: %s%s", program, line, final ? "\n" : "");
        fflush(stderr);
        bar_shown = !final;
    } else {
        fprintf(stderr, "%s: %s\n", program, line);
    }
    p->last_shown = now;
}

void sw_progress_update(sw_progress *p, double done, const char *extra)
{
    p->done = done;
    if (quiet || muted)
        return;
    bool bar = isatty(2);
    double since = sw_now() - p->last_shown;
    int tenths = p->total > 0 ? (int)(10 * done / p->total) : 0;
    if (bar ? since < 0.1 : since < 30 && !(tenths > p->shown_tenths && since > 5))
        return;
    p->shown_tenths = tenths;
    show(p, bar, extra, false);
}

void sw_progress_end(sw_progress *p)
{
    if (!quiet && !muted && (isatty(2) || sw_now() - p->start > 5))
        show(p, isatty(2), NULL, true);
    bar_shown = false;
}
