/* What people read, on standard error: messages, and progress. */
#ifndef SW_BASE_LOG_H
#define SW_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

void sw_log_init(const char *program, bool quiet);
bool sw_quiet(void);
/* Says nothing at all, errors included: for processes that are not the one of their job that speaks. */
void sw_log_mute(bool on);
/* "program: text"; silent under --quiet. */
void sw_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "program: warning: text"; shown under --quiet too. */
void sw_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "program: text" of an error; always shown. Ends a progress line first. */
void sw_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Monotonic clock in seconds. */
double sw_now(void);

/* Progress: a bar with rate and time left on a terminal, a line every 30 s (or 10 %) elsewhere, nothing under
 * --quiet. total 0: unknown. */
typedef struct sw_progress {
    const char *what, *unit;
    double total, done, start, last_shown, done_at_start;
    int shown_tenths;
} sw_progress;
void sw_progress_begin(sw_progress *p, const char *what, const char *unit, double total);
/* extra: text after the bar ("loss 1.234"), or NULL */
void sw_progress_update(sw_progress *p, double done, const char *extra);
void sw_progress_end(sw_progress *p);

#endif
