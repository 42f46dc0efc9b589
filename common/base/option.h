/* Command line from one declarative table, which also makes --help, the OPTIONS part of the man page
 * (--help=man), and the shell completion (--help=completion). Options may come from --config FILE.json too;
 * the command line wins. */
#ifndef SW_BASE_OPTION_H
#define SW_BASE_OPTION_H

#include "base/error.h"
#include "base/strbuf.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct sw_strings { /* of a repeatable option; strings are owned by the program's argv or config tree */
    const char **at;
    size_t n, cap;
} sw_strings;

typedef enum sw_opt_kind {
    SW_OPT_END_KIND,
    SW_OPT_GROUP,  /* a heading */
    SW_OPT_FLAG,   /* bool: --name, --no-name */
    SW_OPT_I64,
    SW_OPT_F64,
    SW_OPT_SIZE,   /* int64 bytes: 512M, 2G */
    SW_OPT_STR,
    SW_OPT_LIST,   /* sw_strings: may be repeated */
    SW_OPT_CHOICE, /* int: index into choices */
} sw_opt_kind;

typedef struct sw_opt {
    sw_opt_kind kind;
    char letter;      /* 0: none */
    const char *name; /* without dashes */
    void *dest;       /* holds the default before parsing */
    const char *arg;  /* metavariable */
    const char *help; /* one or two sentences, no default in it: the table prints that */
    double min, max;
    const char *const *choices; /* NULL-terminated */
} sw_opt;

#define SW_GROUP(title) {SW_OPT_GROUP, 0, title, 0, 0, 0, 0, 0, 0}
#define SW_FLAG(c, name, dest, help) {SW_OPT_FLAG, c, name, 1 ? (dest) : (bool *)0, 0, help, 0, 0, 0}
#define SW_I64(c, name, dest, min, max, arg, help) {SW_OPT_I64, c, name, 1 ? (dest) : (int64_t *)0, arg, help, (double)(min), (double)(max), 0}
#define SW_F64(c, name, dest, min, max, arg, help) {SW_OPT_F64, c, name, 1 ? (dest) : (double *)0, arg, help, min, max, 0}
#define SW_SIZE(c, name, dest, arg, help) {SW_OPT_SIZE, c, name, 1 ? (dest) : (int64_t *)0, arg, help, 0, 9e18, 0}
#define SW_STR(c, name, dest, arg, help) {SW_OPT_STR, c, name, 1 ? (dest) : (const char **)0, arg, help, 0, 0, 0}
#define SW_LIST(c, name, dest, arg, help) {SW_OPT_LIST, c, name, 1 ? (dest) : (sw_strings *)0, arg, help, 0, 0, 0}
#define SW_CHOICE(c, name, dest, choices, help) {SW_OPT_CHOICE, c, name, 1 ? (dest) : (int *)0, 0, help, 0, 0, choices}
#define SW_OPT_END {SW_OPT_END_KIND, 0, 0, 0, 0, 0, 0, 0, 0}

/* Options every program has. Put SW_COMMON_OPTS last in a table, or SW_COMMON_OPTS_UNSEEDED where nothing is random. */
typedef struct sw_common {
    bool quiet;
    int64_t threads; /* 0: as many as there are cores */
    int64_t seed;
    const char *config, *device;
} sw_common;
extern sw_common sw_common_opts;
#define SW_COMMON_OPTS_UNSEEDED                                                                                     \
    SW_GROUP("Common"),                                                                                             \
    SW_I64('j', "threads", &sw_common_opts.threads, 0, 4096, "N", "use N threads; 0 is one a core"),                \
    SW_STR(0, "config", &sw_common_opts.config, "FILE", "read options from a JSON object; the command line wins"),  \
    SW_FLAG('q', "quiet", &sw_common_opts.quiet, "print errors and warnings only")
#define SW_COMMON_OPTS                                                                                              \
    SW_COMMON_OPTS_UNSEEDED, SW_I64(0, "seed", &sw_common_opts.seed, 0, 9007199254740992.0, "N", "seed of everything random")
/* And of programs that compute. */
#define SW_DEVICE_OPT                                                                                               \
    SW_STR(0, "device", &sw_common_opts.device, "NAME",                                                             \
           "where to compute: cpu, reference (plain loops, slow, the oracle), cuda or cuda:N; without it, a GPU "   \
           "where there is one, else cpu")

typedef struct sw_example {
    const char *what, *command;
} sw_example;

typedef struct sw_program {
    const char *name;     /* "swift-train", or "swift-eval score" for a subcommand */
    const char *summary;  /* one line for NAME and the top of --help */
    const char *operands; /* "[FILE...]" */
    const sw_opt *opts;
    const sw_example *examples; /* ends with {0} */
} sw_program;

/* Parses. Returns SW_EXIT_OK to go on with *operands / *n_operands filled (pointing into argv, permuted), or an
 * exit status +100 when the program is to end now (100: help was printed; 102: wrong usage, already told).
 * Also starts logging and threads (OMP). An option's error names the option and what is allowed. */
int sw_options(const sw_program *p, int argc, char **argv, char ***operands, int *n_operands);
/* Whether the user gave this option (by name), on the command line or in the config. */
bool sw_option_given(const char *name);
/* The resolved set as a JSON object (for saving beside outputs). */
cJSON *sw_options_json(const sw_program *p);
/* The command line as one shell-quoted string, for the history in outputs. Owned by the library. */
const char *sw_command_line(void);

/* The standard main: runs body, prints a failure's message, closes standard output and fails if that fails.
 * A closed pipe (EPIPE) ends quietly. body returns SW_EXIT_*, or -1 with sw_error() set. */
int sw_main(const sw_program *p, int argc, char **argv, int (*body)(int n, char **operands));
/* The same for a program of subcommands; `programs` ends with NULL, their names are "prog sub". */
typedef struct sw_subprogram {
    const sw_program *program;
    int (*body)(int n, char **operands);
} sw_subprogram;
int sw_main_sub(const char *name, const char *summary, const sw_subprogram *subs, int argc, char **argv);
/* Appends text to the source of a manual page: a leading dot or quote would start a request, a backslash an escape. */
void sw_mdoc_text(sw_buf *out, const char *s);
/* Wrong usage found after parsing: prints it and returns SW_EXIT_USAGE. */
int sw_usage(const char *fmt, ...) SW_PRINTF(1, 2);

#define SW_VERSION "0.1.0"

#endif
