#include "base/gnuplot.h"

#include "base/fileio.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

bool sw_plot_name(const char *out) { return sw_ends_with(out, ".svg") || sw_ends_with(out, ".png"); }

void sw_gnuplot_text(sw_buf *script, const char *text)
{
    sw_buf_putc(script, '\'');
    for (; *text; text++) {
        if (*text == '\'')
            sw_buf_puts(script, "''");
        else
            sw_buf_putc(script, (unsigned char)*text < 32 ? ' ' : *text);
    }
    sw_buf_putc(script, '\'');
}

/* A file in memory with the whole script, at its beginning; -1 with a message. A pipe would need someone to feed it. */
static int script_file(sw_span script, int width, int height, const char *out)
{
    sw_buf b = {0};
    sw_buf_printf(&b, "set terminal %s noenhanced size %d,%d background rgb 'white'\n", sw_ends_with(out, ".svg") ? "svg" : "pngcairo", width,
                  height);
    sw_buf_add(&b, script.at, script.n);
    int fd = memfd_create("gnuplot", MFD_CLOEXEC);
    bool ok = fd >= 0;
    for (size_t done = 0; ok && done < b.n;) {
        ssize_t n = write(fd, b.at + done, b.n - done);
        ok = n > 0 || (n < 0 && errno == EINTR);
        done += n > 0 ? (size_t)n : 0;
    }
    if (!ok || lseek(fd, 0, SEEK_SET) < 0) {
        sw_fail_errno("%s: the script of gnuplot", out);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    sw_buf_free(&b);
    return fd;
}

/* What gnuplot said goes to standard error; it warns of much that is nobody's fault, so only where it failed. */
static void pass_on(int said)
{
    char some[4096];
    if (lseek(said, 0, SEEK_SET) < 0)
        return;
    for (ssize_t n; (n = read(said, some, sizeof some)) > 0;)
        if (sw_write_all(STDERR_FILENO, some, (size_t)n))
            return;
}

static int run(int script, int picture, int said, const char *out)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    char *const argv[] = {(char *)"gnuplot", (char *)"-", NULL};
    pid_t child;
    int status;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* programs here ignore these, and children would too */
    sigaddset(&defaults, SIGXFSZ);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, script, 0);
    posix_spawn_file_actions_adddup2(&files, picture, 1);
    posix_spawn_file_actions_adddup2(&files, said, 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    int rc = posix_spawnp(&child, "gnuplot", &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (rc)
        return sw_fail("%s: gnuplot, which draws it, cannot be run: %s", out, rc == ENOENT ? "it is not installed" : strerror(rc));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return sw_fail_errno("%s: waiting for gnuplot", out);
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        return 0;
    pass_on(said);
    return sw_fail("%s: gnuplot failed; what it says stands above", out);
}

int sw_gnuplot(sw_span script, int width, int height, const char *out)
{
    sw_outfile o;
    if (!sw_plot_name(out))
        return sw_fail("%s: a plot's name ends in .svg or .png", out);
    int fd = script_file(script, width, height, out);
    if (fd < 0 || sw_out_open(&o, out)) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    int said = memfd_create("gnuplot", MFD_CLOEXEC), rc = said < 0 ? sw_fail_errno("%s", out) : run(fd, fileno(o.f), said, out);
    if (said >= 0)
        close(said);
    close(fd);
    if (!rc && lseek(fileno(o.f), 0, SEEK_END) <= 0)
        rc = sw_fail("%s: gnuplot drew nothing", out);
    if (rc)
        sw_out_abort(&o);
    return rc ? rc : sw_out_commit(&o);
}
