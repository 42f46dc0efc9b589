/* Error reporting for the whole suite.
 *
 * A function that can fail returns int (0 done, -1 failed) or a pointer (NULL failed) and leaves one
 * sentence in a thread-local message: what was being read (file, line, field), what was wrong, what would
 * be right. Library code never prints and never exits; only a program's main does. */
#ifndef SW_BASE_ERROR_H
#define SW_BASE_ERROR_H

#include <stdarg.h>

#define SW_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define SW_MUST_CHECK __attribute__((warn_unused_result))

/* Sets the message; always returns -1, so that `return sw_fail(...)` reads well. */
int sw_fail(const char *fmt, ...) SW_PRINTF(1, 2);
/* Same for functions that return a pointer: `return sw_fail_null(...)`. */
void *sw_fail_null(const char *fmt, ...) SW_PRINTF(1, 2);
/* As sw_fail, with ": " and strerror(errno) appended. */
int sw_fail_errno(const char *fmt, ...) SW_PRINTF(1, 2);
/* Puts "<context>: " in front of the message that a callee has set; returns -1. */
int sw_fail_in(const char *fmt, ...) SW_PRINTF(1, 2);

/* The current thread's message ("" when there is none); valid until the next failure on this thread. */
const char *sw_error(void);
void sw_error_clear(void);

/* Exit statuses of every program. */
enum { SW_EXIT_OK = 0, SW_EXIT_FAILED = 1, SW_EXIT_USAGE = 2 };

#endif
