#include "base/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop, terminated, usr1;

static void on_stop(int number)
{
    if (stop && number == SIGINT)
        _exit(130);
    if (number != SIGINT)
        terminated = 1;
    stop = 1;
}

static void on_usr1(int number)
{
    (void)number;
    usr1 = 1;
}

void sw_interrupt_install(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_stop; /* no SA_RESTART: a blocked read returns, so that the program can stop */
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    struct sigaction hangup;
    if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler != SIG_IGN) /* nohup stays what it is */
        sigaction(SIGHUP, &a, NULL);
    a.sa_handler = on_usr1;
    a.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &a, NULL);
}

bool sw_interrupted(void) { return stop; }
bool sw_terminated(void) { return terminated; }
void sw_interrupt_clear(void) { stop = terminated; }

ssize_t sw_read_unless_stopped(int fd, void *to, size_t n)
{
    struct pollfd p = {fd, POLLIN, 0};
    for (;;) {
        while (!stop && poll(&p, 1, 100) == 0)
            ;
        errno = EINTR;
        ssize_t got = stop ? -1 : read(fd, to, n);
        if (got >= 0 || errno != EINTR || stop)
            return got;
    }
}

bool sw_usr1_taken(void)
{
    bool was = usr1;
    usr1 = 0;
    return was;
}
