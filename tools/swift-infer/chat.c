/* A conversation on the terminal: line editing, streaming, /commands. Answers go to standard output, the rest to
 * standard error, so that a transcript can be piped. */
#include "infer.h"

#include "base/fileio.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const help = "/system TEXT  set the system prompt and start anew\n"
                                "/reset        start anew\n"
                                "/save FILE    write the conversation as a JSON record of messages\n"
                                "/stats        tokens and time of the last answer\n"
                                "/help         this text\n"
                                "/quit         end (or Control-D); Control-C stops an answer, or drops a line\n";

static int output_error; /* errno of an answer that could not be written */

static void add_message(cJSON *list, const char *role, const char *text, size_t n)
{
    cJSON *m = cJSON_CreateObject();
    char *s = sw_strndup(text ? text : "", n);
    cJSON_AddStringToObject(m, "role", role);
    cJSON_AddStringToObject(m, "content", s);
    cJSON_AddItemToArray(list, m);
    free(s);
}

static cJSON *begin(const char *system)
{
    cJSON *list = cJSON_CreateArray();
    if (system)
        add_message(list, "system", system, strlen(system));
    return list;
}

/* Not through stdio: a Control-C that interrupts a write would mark standard output as failed and lose what it held. */
static void stream(const char *text, size_t n)
{
    while (n) {
        ssize_t wrote = write(STDOUT_FILENO, text, n);
        if (wrote < 0 && errno != EINTR) {
            output_error = errno;
            return;
        }
        text += SW_MAX(wrote, 0);
        n -= (size_t)SW_MAX(wrote, 0);
    }
}

static char *prompt_text(EditLine *e)
{
    (void)e;
    static char text[] = "> ";
    return text;
}

typedef struct terminal {
    EditLine *editor; /* NULL: input is no terminal */
    FILE *echo;       /* the editor's own standard output, for the same reason as stream's */
    History *history;
    char *line;
    size_t cap;
} terminal;

/* The editor's reader of a character. Its own would wait for a key when Control-C comes just before the read. */
static int read_character(EditLine *e, wchar_t *to)
{
    (void)e;
    char c[4], byte;
    uint32_t code;
    for (size_t n = 0;;) { /* bytes that are no character are as if not typed */
        ssize_t got = sw_read_unless_stopped(STDIN_FILENO, &byte, 1);
        if (got <= 0)
            return (int)got;
        if ((byte & 0xc0) != 0x80 || n == sizeof c)
            n = 0;
        c[n++] = byte;
        if (sw_utf8_decode(c, n, &code) > 0) {
            *to = (wchar_t)code;
            return 1;
        }
    }
}

static void terminal_open(terminal *t)
{
    *t = (terminal){0};
    if (!isatty(0) || !isatty(1))
        return;
    /* The editor moves by characters, and text is UTF-8 here whatever the locale says. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
    HistEvent ev;
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    t->echo = fd < 0 ? NULL : fdopen(fd, "w");
    t->editor = t->echo ? el_init("swift-infer", stdin, t->echo, stderr) : NULL;
    t->history = t->editor ? history_init() : NULL;
    if (!t->editor)
        return;
    el_set(t->editor, EL_PROMPT, prompt_text);
    el_set(t->editor, EL_EDITOR, "emacs");
    el_set(t->editor, EL_SIGNAL, 0);
    el_set(t->editor, EL_GETCFN, read_character);
    if (t->history) {
        history(t->history, &ev, H_SETSIZE, 1000);
        el_set(t->editor, EL_HIST, history, t->history);
    }
}

static void terminal_close(terminal *t)
{
    if (t->history)
        history_end(t->history);
    if (t->editor)
        el_end(t->editor);
    if (t->echo)
        fclose(t->echo);
    free(t->line);
}

/* A line without its end, in t->line; false at the end of the input. */
static bool read_line(terminal *t)
{
    if (t->editor) {
        int n;
        const char *s;
        /* Control-C drops the line, as a shell does */
        while ((!(s = el_gets(t->editor, &n)) || n <= 0) && sw_interrupted() && !sw_terminated()) {
            sw_interrupt_clear();
            stream("\n", 1);
        }
        if (!s || n <= 0) {
            stream("\n", 1);
            return false;
        }
        HistEvent ev;
        if (t->history && n > 1)
            history(t->history, &ev, H_ENTER, s);
        free(t->line);
        t->line = sw_strndup(s, (size_t)n);
    } else if (getline(&t->line, &t->cap, stdin) < 0) {
        return false;
    }
    t->line[strcspn(t->line, "\r\n")] = 0;
    return true;
}

static int save(const cJSON *messages, const char *path)
{
    sw_buf b = {0};
    sw_buf_puts(&b, "{\"messages\": ");
    sw_json_print(&b, messages);
    sw_buf_puts(&b, "}\n");
    int rc = sw_write_file(path, b.at, b.n);
    sw_buf_free(&b);
    return rc;
}

typedef struct stats {
    size_t prompt, answer;
    double first, seconds;
} stats;

static int answer(infer_session *s, cJSON *messages, stats *st)
{
    const infer_settings *o = s->settings;
    infer_job j = {.on_text = stream};
    double start = sw_now();
    int rc = sw_template_encode_prompt(s->tmpl, s->encoder, messages, NULL, NULL, &j.prompt);
    if (!rc && infer_check_ids(s, "the conversation has", &j.prompt, s->context - 1))
        rc = (int64_t)j.prompt.n < s->context ? -1 : sw_fail("%s; /reset starts anew", sw_error());
    if (!rc) {
        infer_job_stops(&j, s, true);
        j.sequence.sampling = o->sampling;
        j.sequence.max_tokens = SW_MIN(o->max_tokens, s->context - (int64_t)j.prompt.n);
        infer_job_begin(&j, s);
        sw_sequence *q = &j.sequence;
        rc = sw_generate(&s->generator, &q, 1, sw_interrupted);
        sw_interrupt_clear();
        rc = rc ? rc : infer_job_finish(&j);
        stream("\n", 1);
        add_message(messages, "assistant", j.text.at, j.text.n);
        *st = (stats){q->n_prompt, q->out.n, q->first_token_at - start, sw_now() - start};
    }
    infer_job_free(&j);
    return rc;
}

int infer_chat(infer_session *s)
{
    if (!s->tmpl)
        return sw_fail("there is no chat template: %s", s->template_error);
    terminal t;
    terminal_open(&t);
    if (t.editor)
        sw_info("%s; /help lists the commands", s->settings->model);
    char *system = s->settings->system ? sw_strdup(s->settings->system) : NULL;
    cJSON *messages = begin(system);
    stats st = {0};
    int rc = 0;
    while (!rc && !output_error && !sw_terminated() && read_line(&t)) {
        const char *line = t.line;
        sw_interrupt_clear();
        if (!*line)
            continue;
        if (!strcmp(line, "/quit"))
            break;
        if (!strcmp(line, "/reset") || !strncmp(line, "/system ", 8)) {
            if (line[1] == 's') {
                free(system);
                system = sw_strdup(line + 8);
            }
            cJSON_Delete(messages);
            messages = begin(system);
        } else if (!strncmp(line, "/save ", 6)) {
            if (save(messages, line + 6))
                sw_complain("%s", sw_error());
            else
                sw_info("%d messages written to %s", cJSON_GetArraySize(messages), line + 6);
        } else if (!strcmp(line, "/stats")) {
            fprintf(stderr, "%zu prompt tokens, first token after %.2f s, %zu tokens in %.2f s\n", st.prompt, st.first, st.answer, st.seconds);
        } else if (line[0] == '/') {
            fputs(help, stderr);
        } else {
            add_message(messages, "user", line, strlen(line));
            if (answer(s, messages, &st)) {
                sw_complain("%s", sw_error());
                cJSON_DeleteItemFromArray(messages, cJSON_GetArraySize(messages) - 1);
                rc = t.editor ? 0 : -1;
            }
        }
    }
    cJSON_Delete(messages);
    free(system);
    terminal_close(&t);
    errno = output_error;
    return rc || !output_error ? rc : sw_fail_errno("standard output");
}
