/* Bytes a second (of processor time) of our encoder in one thread, a line of text at a time: tokenize MODEL TEXT.
 * Prints a JSON object. */
#include "base/error.h"
#include "base/fileio.h"
#include "base/memory.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    sw_buf text = {0};
    sw_tokenizer *t = argc == 3 ? sw_tokenizer_load(argv[1]) : NULL;
    if (!t || sw_read_file(argv[2], &text)) {
        fprintf(stderr, "tokenize MODEL TEXT: %s\n", sw_error());
        return SW_EXIT_FAILED;
    }
    size_t tokens = 0;
    double best = 0;
    for (int round = 0; round < 3; round++) { /* the first fills no cache of a later one: each begins anew */
        sw_encoder *e = sw_encoder_new(t);
        sw_ids ids = {0};
        tokens = 0;
        double start = now();
        for (size_t at = 0; at < text.n;) {
            const char *end = memchr(text.at + at, '\n', text.n - at);
            size_t n = end ? (size_t)(end - text.at) - at : text.n - at;
            ids.n = 0;
            if (sw_encode(e, text.at + at, n, false, &ids, NULL)) {
                fprintf(stderr, "%s\n", sw_error());
                return SW_EXIT_FAILED;
            }
            tokens += ids.n;
            at += n + 1;
        }
        double rate = (double)text.n / (now() - start);
        best = SW_MAX(best, rate);
        sw_encoder_free(e);
        free(ids.at);
    }
    printf("{\"bytes_per_second\": %.0f, \"tokens\": %zu}\n", best, tokens);
    sw_tokenizer_free(t);
    sw_buf_free(&text);
    return SW_EXIT_OK;
}
