#include "base/option.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

sw_common sw_common_opts;
static const sw_program *current;
static sw_strings given;
static char *command_line;
static cJSON *config_tree; /* strings from it stay in use for the life of the program */
static sw_strings printed; /* numbers from it, as the text that options are parsed from */

static bool has_value(const sw_opt *o) { return o->kind != SW_OPT_FLAG; }

static const char *metavar(const sw_opt *o, sw_buf *b)
{
    if (o->kind != SW_OPT_CHOICE)
        return o->arg;
    sw_buf_clear(b);
    for (size_t i = 0; o->choices[i]; i++)
        sw_buf_printf(b, "%s%s", i ? "|" : "", o->choices[i]);
    return b->at;
}

/* Every value is told its default by the table itself, so that help and code cannot disagree. */
static void default_text(const sw_opt *o, sw_buf *b)
{
    sw_buf_clear(b);
    switch (o->kind) {
    case SW_OPT_FLAG: sw_buf_puts(b, *(bool *)o->dest ? "on" : ""); break;
    case SW_OPT_I64: sw_buf_printf(b, "%lld", (long long)*(int64_t *)o->dest); break;
    case SW_OPT_F64: sw_buf_printf(b, "%g", *(double *)o->dest); break;
    case SW_OPT_SIZE: sw_buf_printf(b, "%lld", (long long)*(int64_t *)o->dest); break;
    case SW_OPT_STR: sw_buf_puts(b, *(const char **)o->dest ? *(const char **)o->dest : ""); break;
    case SW_OPT_CHOICE: sw_buf_puts(b, o->choices[*(int *)o->dest]); break;
    default: break;
    }
}

static void wrap(sw_buf *out, const char *text, int indent, int width)
{
    int column = indent;
    for (const char *s = text; *s;) {
        const char *e = s;
        while (*e && *e != ' ')
            e++;
        if (column + (int)(e - s) > width && column > indent) {
            sw_buf_printf(out, "\n%*s", indent, "");
            column = indent;
        }
        sw_buf_add(out, s, (size_t)(e - s));
        column += (int)(e - s) + 1;
        while (*e == ' ')
            e++;
        if (*e && column <= width)
            sw_buf_putc(out, ' ');
        s = e;
    }
    while (out->n && out->at[out->n - 1] == ' ')
        out->at[--out->n] = 0;
    sw_buf_putc(out, '\n');
}

static void print_help(const sw_program *p)
{
    sw_buf out = {0}, one = {0}, tmp = {0};
    sw_buf_printf(&out, "%s - %s\n\nUsage: %s [OPTION...] %s\n", p->name, p->summary, p->name, p->operands);
    for (const sw_opt *o = p->opts; o->kind; o++) {
        if (o->kind == SW_OPT_GROUP) {
            sw_buf_printf(&out, "\n%s:\n", o->name);
            continue;
        }
        sw_buf_clear(&one);
        if (o->letter)
            sw_buf_printf(&one, "  -%c, --%s", o->letter, o->name);
        else
            sw_buf_printf(&one, "      --%s", o->name);
        if (has_value(o))
            sw_buf_printf(&one, "=%s", metavar(o, &tmp));
        sw_buf_add(&out, one.at, one.n);
        if (one.n < 28)
            sw_buf_printf(&out, "%*s", (int)(30 - one.n), "");
        else
            sw_buf_printf(&out, "\n%30s", "");
        sw_buf_clear(&one);
        sw_buf_puts(&one, o->help);
        default_text(o, &tmp);
        if (tmp.n)
            sw_buf_printf(&one, " [%s]", tmp.at);
        wrap(&out, one.at, 30, 100);
    }
    sw_buf_puts(&out, "      --help                  print this text; --help=man and --help=completion print\n"
                      "                              the man page's options and a bash completion\n"
                      "      --version               print the version\n");
    if (p->examples && p->examples->command) {
        sw_buf_puts(&out, "\nExamples:\n");
        for (const sw_example *e = p->examples; e->command; e++)
            sw_buf_printf(&out, "  # %s\n  %s\n", e->what, e->command);
    }
    fwrite(out.at, 1, out.n, stdout);
    sw_buf_free(&out);
    sw_buf_free(&one);
    sw_buf_free(&tmp);
}

void sw_mdoc_text(sw_buf *out, const char *s)
{
    if (*s == '.' || *s == '\'')
        sw_buf_puts(out, "\\&");
    for (; *s; s++) {
        if (*s == '\\')
            sw_buf_puts(out, "\\e");
        else if (*s == '-')
            sw_buf_puts(out, "\\-");
        else if (*s == ' ' && (out->at[out->n - 1] == '.' || out->at[out->n - 1] == '?') && s[1] >= 'A' && s[1] <= 'Z')
            sw_buf_putc(out, '\n'); /* a new sentence begins a line */
        else
            sw_buf_putc(out, *s);
    }
}

/* Groups are subsections, or below one where these are the options of a subcommand. */
static void man_options(const sw_program *p, bool subcommand, sw_buf *out)
{
    sw_buf tmp = {0};
    size_t start = out->n;
    sw_buf_puts(out, ".Bl -tag -width Ds\n");
    for (const sw_opt *o = p->opts; o->kind; o++) {
        if (o->kind == SW_OPT_GROUP) {
            sw_buf_printf(out, ".El\n%s %s\n.Bl -tag -width Ds\n", !subcommand ? ".Ss" : o == p->opts ? ".Sy" : ".Pp\n.Sy", o->name);
            continue;
        }
        sw_buf_puts(out, ".It ");
        if (o->letter)
            sw_buf_printf(out, "Fl %c , ", o->letter);
        sw_buf_puts(out, "Fl \\-");
        sw_mdoc_text(out, o->name);
        if (has_value(o)) {
            sw_buf_puts(out, " Ns = Ns Ar ");
            sw_mdoc_text(out, metavar(o, &tmp));
        }
        sw_buf_putc(out, '\n');
        sw_mdoc_text(out, o->help);
        if (out->at[out->n - 1] != '.')
            sw_buf_putc(out, '.');
        default_text(o, &tmp);
        if (tmp.n) {
            sw_buf_puts(out, "\nThe default is\n.Ql ");
            sw_mdoc_text(out, tmp.at);
            sw_buf_puts(out, " .");
        }
        sw_buf_putc(out, '\n');
    }
    sw_buf_puts(out, ".It Fl \\-help\nPrint a summary of the options.\n.It Fl \\-version\nPrint the version.\n.El\n");
    /* A group right after the start leaves an empty list that mandoc would warn of. */
    static const char empty[] = ".Bl -tag -width Ds\n.El\n";
    char *hit = out->at + start;
    if (!strncmp(hit, empty, sizeof empty - 1)) {
        memmove(hit, hit + sizeof empty - 1, out->n - start - sizeof empty + 2);
        out->n -= sizeof empty - 1;
    }
    sw_buf_free(&tmp);
}

static void man_examples(const sw_program *p, sw_buf *out)
{
    for (const sw_example *e = p->examples; e && e->command; e++) {
        sw_mdoc_text(out, e->what);
        sw_buf_puts(out, ":\n.Bd -literal -offset indent\n");
        sw_mdoc_text(out, e->command);
        sw_buf_puts(out, "\n.Ed\n.Pp\n");
    }
}

/* One program's options and examples, or those of all subcommands, each under its own title. */
static void print_man(const sw_program *p, const sw_subprogram *subs)
{
    sw_buf out = {0}, examples = {0};
    if (p) {
        man_options(p, false, &out);
        man_examples(p, &examples);
    }
    for (; subs && subs->program; subs++) {
        sw_buf_printf(&out, ".Ss %s\n", subs->program->name);
        man_options(subs->program, true, &out);
        man_examples(subs->program, &examples);
    }
    if (examples.n) {
        examples.n -= 4; /* no .Pp before the next section */
        sw_buf_puts(&out, ".Sh EXAMPLES\n");
        sw_buf_add(&out, examples.at, examples.n);
    }
    fwrite(out.at, 1, out.n, stdout);
    sw_buf_free(&out);
    sw_buf_free(&examples);
}

static void print_words(const sw_program *p)
{
    printf("--help --version");
    for (const sw_opt *o = p->opts; o->kind; o++)
        if (o->kind != SW_OPT_GROUP)
            printf(" --%s%s", o->name, has_value(o) ? "=" : "");
}

static void print_completion(const char *name, const sw_program *p, const sw_subprogram *subs)
{
    char *fn = sw_strdup(name);
    for (char *c = fn; *c; c++)
        if (*c == '-' || *c == ' ')
            *c = '_';
    printf("_%s()\n{\n    local cur=${COMP_WORDS[COMP_CWORD]} words=\"", fn);
    if (p)
        print_words(p);
    for (; subs && subs->program; subs++)
        printf("%s ", strrchr(subs->program->name, ' ') + 1);
    printf("\"\n    COMPREPLY=()\n    if [[ $cur == -* || %d == 1 ]]; then\n", subs != NULL);
    printf("        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n    fi\n"
           "    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace\n}\ncomplete -o default -F _%s %s\n", fn, name);
    free(fn);
}

static int parse_number(const sw_opt *o, const char *text, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (o->kind == SW_OPT_SIZE && end != text) {
        static const char units[] = "KMGT";
        const char *u = *end ? strchr(units, *end & ~0x20) : NULL;
        if (u) {
            v *= pow(1024, (double)(u - units + 1));
            end++;
            if (*end == 'i')
                end++;
            if (*end == 'B')
                end++;
        }
    }
    if (end == text || *end || isnan(v))
        return sw_fail("--%s: '%s' is no number", o->name, text);
    if (o->kind != SW_OPT_F64 && v != floor(v))
        return sw_fail("--%s: '%s' is no whole number", o->name, text);
    if (v < o->min || v > o->max)
        return sw_fail("--%s: %s is not between %.15g and %.15g", o->name, text, o->min, o->max);
    *out = v;
    return 0;
}

static int assign(const sw_opt *o, const char *text, bool negated)
{
    double v = 0;
    switch (o->kind) {
    case SW_OPT_FLAG:
        *(bool *)o->dest = !negated;
        break;
    case SW_OPT_I64:
    case SW_OPT_SIZE:
        if (parse_number(o, text, &v))
            return -1;
        *(int64_t *)o->dest = (int64_t)v;
        break;
    case SW_OPT_F64:
        if (parse_number(o, text, &v))
            return -1;
        *(double *)o->dest = v;
        break;
    case SW_OPT_STR:
        *(const char **)o->dest = text;
        break;
    case SW_OPT_LIST:
        SW_PUSH(*(sw_strings *)o->dest, text);
        break;
    case SW_OPT_CHOICE: {
        int i = 0;
        while (o->choices[i] && strcmp(o->choices[i], text))
            i++;
        if (!o->choices[i]) {
            sw_buf b = {0};
            sw_fail("--%s: '%s' is not one of %s", o->name, text, metavar(o, &b));
            sw_buf_free(&b);
            return -1;
        }
        *(int *)o->dest = i;
        break;
    }
    default: break;
    }
    SW_PUSH(given, o->name);
    return 0;
}

static const sw_opt *by_name(const sw_program *p, const char *name, size_t n, bool *negated)
{
    *negated = false;
    for (const sw_opt *o = p->opts; o->kind; o++)
        if (o->kind != SW_OPT_GROUP && strlen(o->name) == n && !memcmp(o->name, name, n))
            return o;
    if (n > 3 && !memcmp(name, "no-", 3)) {
        const sw_opt *o = by_name(p, name + 3, n - 3, negated);
        *negated = true;
        return o && o->kind == SW_OPT_FLAG ? o : NULL;
    }
    return NULL;
}

bool sw_option_given(const char *name)
{
    for (size_t i = 0; i < given.n; i++)
        if (!strcmp(given.at[i], name))
            return true;
    return false;
}

/* A number in the config must go through the same checks as on the command line, so it is printed and parsed. */
static int config_value(const sw_opt *o, const cJSON *v)
{
    if (o->kind == SW_OPT_FLAG) {
        if (!cJSON_IsBool(v))
            return sw_fail("\"%s\": true or false is needed, not %s", o->name, sw_json_kind(v));
        return assign(o, NULL, cJSON_IsFalse(v));
    }
    if (cJSON_IsString(v))
        return assign(o, v->valuestring, false);
    if (cJSON_IsNumber(v)) {
        sw_buf b = {0};
        sw_json_number(&b, v->valuedouble);
        SW_PUSH(printed, sw_buf_take(&b));
        return assign(o, printed.at[printed.n - 1], false);
    }
    return sw_fail("\"%s\": a %s is needed, not %s", o->name,
                   o->kind == SW_OPT_I64 || o->kind == SW_OPT_F64 ? "number" : "string", sw_json_kind(v));
}

static int read_config(const sw_program *p, const char *path)
{
    config_tree = sw_json_load(path);
    if (!config_tree)
        return -1;
    if (!cJSON_IsObject(config_tree))
        return sw_fail("%s: an object of options is needed, not %s", path, sw_json_kind(config_tree));
    for (const cJSON *v = config_tree->child; v; v = v->next) {
        bool negated;
        if (cJSON_IsNull(v))
            continue;
        char *name = sw_strdup(v->string);
        for (char *c = name; *c; c++)
            if (*c == '_')
                *c = '-';
        const sw_opt *o = by_name(p, name, strlen(name), &negated);
        free(name);
        if (!o || negated)
            return sw_fail("%s: %s has no option \"%s\"", path, p->name, v->string);
        if (sw_option_given(o->name))
            continue;
        if (o->kind == SW_OPT_LIST && cJSON_IsArray(v)) {
            for (const cJSON *c = v->child; c; c = c->next)
                if (config_value(o, c))
                    return sw_fail_in("%s", path);
        } else if (config_value(o, v)) {
            return sw_fail_in("%s", path);
        }
    }
    return 0;
}

static void remember_command_line(int argc, char **argv)
{
    sw_buf b = {0};
    for (int i = 0; i < argc; i++) {
        bool plain = *argv[i];
        for (const char *c = argv[i]; *c; c++)
            plain = plain && (strchr("-_./=:,+@%", *c) || (*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') ||
                              (*c >= 'a' && *c <= 'z'));
        if (i)
            sw_buf_putc(&b, ' ');
        if (plain) {
            sw_buf_puts(&b, argv[i]);
            continue;
        }
        sw_buf_putc(&b, '\'');
        for (const char *c = argv[i]; *c; c++)
            if (*c == '\'')
                sw_buf_puts(&b, "'\\''");
            else
                sw_buf_putc(&b, *c);
        sw_buf_putc(&b, '\'');
    }
    free(command_line);
    command_line = sw_buf_take(&b);
}

const char *sw_command_line(void) { return command_line ? command_line : ""; }

static int parse(const sw_program *p, int argc, char **argv, int *n_operands)
{
    int operands = 0;
    bool only_operands = false, negated;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (only_operands || a[0] != '-' || !a[1]) {
            argv[1 + operands++] = a;
            continue;
        }
        if (!strcmp(a, "--")) {
            only_operands = true;
            continue;
        }
        const sw_opt *o = NULL;
        const char *value = NULL;
        if (a[1] == '-') {
            const char *eq = strchr(a, '=');
            size_t n = eq ? (size_t)(eq - a - 2) : strlen(a + 2);
            o = by_name(p, a + 2, n, &negated);
            value = eq ? eq + 1 : NULL;
            if (!o)
                return sw_fail("there is no option %.*s", (int)n + 2, a);
            if (!has_value(o) && value)
                return sw_fail("--%s takes no value", o->name);
        } else {
            for (o = p->opts; o->kind && (o->kind == SW_OPT_GROUP || o->letter != a[1]); o++)
                ;
            if (!o->kind)
                return sw_fail("there is no option -%c", a[1]);
            negated = false;
            if (a[2] && has_value(o))
                value = a + 2;
            else if (a[2])
                return sw_fail("-%c takes no value", a[1]);
        }
        if (has_value(o) && !value) {
            if (i + 1 >= argc)
                return sw_fail("--%s needs a value", o->name);
            value = argv[++i];
        }
        if (assign(o, value, negated))
            return -1;
    }
    *n_operands = operands;
    if (sw_common_opts.config && read_config(p, sw_common_opts.config))
        return -1;
    return 0;
}

/* What is printed goes out in one piece, whose failure finish() can explain. */
static void hold_output(void)
{
    static char held[1 << 16];
    setvbuf(stdout, held, _IOFBF, sizeof held);
}

int sw_options(const sw_program *p, int argc, char **argv, char ***operands, int *n_operands)
{
    current = p;
    sw_log_init(p->name, false);
    if (!command_line)
        remember_command_line(argc, argv);
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (sw_starts_with(argv[i], "--help"))
            hold_output();
        if (!strcmp(argv[i], "--help"))
            return print_help(p), 100;
        if (!strcmp(argv[i], "--help=man"))
            return print_man(p, NULL), 100;
        if (!strcmp(argv[i], "--help=completion"))
            return print_completion(p->name, p, NULL), 100;
        if (!strcmp(argv[i], "--version"))
            return printf("%s %s\n", p->name, SW_VERSION), 100;
    }
    if (parse(p, argc, argv, n_operands))
        return sw_usage("%s", sw_error()) + 100;
    *operands = argv + 1;
    sw_log_init(p->name, sw_common_opts.quiet);
#ifdef _OPENMP
    if (sw_common_opts.threads)
        omp_set_num_threads((int)sw_common_opts.threads);
#endif
    return SW_EXIT_OK;
}

cJSON *sw_options_json(const sw_program *p)
{
    cJSON *o = cJSON_CreateObject();
    for (const sw_opt *t = p->opts; t->kind; t++) {
        cJSON *v = NULL;
        switch (t->kind) {
        case SW_OPT_FLAG: v = cJSON_CreateBool(*(bool *)t->dest); break;
        case SW_OPT_I64:
        case SW_OPT_SIZE: v = cJSON_CreateNumber((double)*(int64_t *)t->dest); break;
        case SW_OPT_F64: v = cJSON_CreateNumber(*(double *)t->dest); break;
        case SW_OPT_STR: v = *(const char **)t->dest ? cJSON_CreateString(*(const char **)t->dest) : NULL; break;
        case SW_OPT_CHOICE: v = cJSON_CreateString(t->choices[*(int *)t->dest]); break;
        case SW_OPT_LIST: {
            const sw_strings *l = t->dest;
            v = cJSON_CreateArray();
            for (size_t i = 0; i < l->n; i++)
                cJSON_AddItemToArray(v, cJSON_CreateString(l->at[i]));
            break;
        }
        default: break;
        }
        if (v)
            cJSON_AddItemToObject(o, t->name, v);
    }
    return o;
}

int sw_usage(const char *fmt, ...)
{
    va_list ap;
    char text[2048];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sw_complain("%s; see %s --help", text, current ? current->name : "--help");
    return SW_EXIT_USAGE;
}

/* The last act of a program: what stdio still holds must reach standard output, or the run has failed. */
static int finish(int status)
{
    bool complained = status < 0;
    if (complained) {
        if (strstr(sw_error(), strerror(EPIPE)))
            return SW_EXIT_FAILED; /* the reader has gone; it needs no message */
        sw_complain("%s", sw_error());
        status = SW_EXIT_FAILED;
    }
    /* A write that failed earlier, and was told as the error above, may be seen here again. */
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && !complained) {
        if (errno != EPIPE)
            sw_complain("standard output: %s", strerror(errno ? errno : EIO));
        if (status == SW_EXIT_OK)
            status = SW_EXIT_FAILED;
    }
    sw_common_opts.config = NULL;
    cJSON_Delete(config_tree);
    config_tree = NULL;
    for (size_t i = 0; i < printed.n; i++)
        free((char *)(uintptr_t)printed.at[i]);
    free(printed.at);
    printed = (sw_strings){0};
    free(command_line);
    command_line = NULL;
    free(given.at);
    given = (sw_strings){0};
    return status;
}

int sw_main(const sw_program *p, int argc, char **argv, int (*body)(int n, char **operands))
{
    signal(SIGPIPE, SIG_IGN); /* write errors instead, so that outputs are cleaned up */
    signal(SIGXFSZ, SIG_IGN);
    char **operands;
    int n, status = sw_options(p, argc, argv, &operands, &n);
    if (status >= 100)
        return finish(status - 100);
    return finish(body(n, operands));
}

int sw_main_sub(const char *name, const char *summary, const sw_subprogram *subs, int argc, char **argv)
{
    sw_log_init(name, false);
    const char *word = argc > 1 ? argv[1] : "--help";
    for (const sw_subprogram *s = subs; s->program; s++) {
        if (strcmp(strrchr(s->program->name, ' ') + 1, word))
            continue;
        remember_command_line(argc, argv);
        return sw_main(s->program, argc - 1, argv + 1, s->body);
    }
    bool help = !strcmp(word, "--help");
    hold_output();
    if (!strcmp(word, "--version")) {
        printf("%s %s\n", name, SW_VERSION);
    } else if (!strcmp(word, "--help=completion")) {
        print_completion(name, NULL, subs);
    } else if (!strcmp(word, "--help=man")) {
        print_man(NULL, subs);
    } else if (help) {
        printf("%s - %s\n\nUsage: %s COMMAND [OPTION...]\n\n", name, summary, name);
        for (const sw_subprogram *s = subs; s->program; s++)
            printf("  %-10s %s\n", strrchr(s->program->name, ' ') + 1, s->program->summary);
        printf("\n%s COMMAND --help lists a command's options.\n", name);
    } else {
        sw_complain("there is no command '%s'; see %s --help", word, name);
        return SW_EXIT_USAGE;
    }
    return finish(help && argc < 2 ? SW_EXIT_USAGE : SW_EXIT_OK);
}
