#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };
static _Thread_local char message[MESSAGE_BYTES];

int sw_fail(const char *fmt, ...)
{
    char text[MESSAGE_BYTES]; /* the arguments may point into message itself */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(message, text, sizeof text);
    return -1;
}

void *sw_fail_null(const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(message, text, sizeof text);
    return NULL;
}

int sw_fail_errno(const char *fmt, ...)
{
    int number = errno;
    char text[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char reason[128];
    const char *why = strerror_r(number, reason, sizeof reason); /* GNU form */
    snprintf(message, sizeof message, "%.*s: %s", (int)sizeof message - 160, text, why);
    return -1;
}

int sw_fail_in(const char *fmt, ...)
{
    char context[MESSAGE_BYTES], old[MESSAGE_BYTES];
    memcpy(old, message, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    size_t n = strlen(context);
    if (n > MESSAGE_BYTES / 2)
        n = MESSAGE_BYTES / 2;
    snprintf(message, sizeof message, "%.*s: %.*s", (int)n, context, (int)(sizeof message - n - 3), old);
    return -1;
}

const char *sw_error(void) { return message; }
void sw_error_clear(void) { message[0] = 0; }
