/* Maps of files, and what happens when a file is cut while it is mapped: reading what is gone is a SIGBUS. */
#include "base/fileio.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files that are mapped now. Entries are never freed, since the handler may walk them at any time: those with at NULL are
 * used again. */
typedef struct mapped {
    struct mapped *next;
    const uint8_t *at;
    size_t n;
    char *path;
} mapped;

static mapped *_Atomic all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)context;
    const uint8_t *at = info->si_addr;
    for (const mapped *m = all; m; m = m->next)
        if (m->at && at >= m->at && at < m->at + m->n) {
            say(program_invocation_short_name);
            say(": ");
            say(m->path);
            say(": was cut while it was used, or its disk fails\n");
            _exit(1);
        }
    sigaction(number, &before, NULL); /* none of ours: the instruction runs again and gets what it would have got */
}

static void note(const char *path, const sw_mapping *map)
{
    pthread_mutex_lock(&lock);
    if (!all) {
        struct sigaction a;
        memset(&a, 0, sizeof a);
        a.sa_sigaction = on_bus;
        a.sa_flags = SA_SIGINFO;
        sigaction(SIGBUS, &a, &before);
    }
    mapped *m = all;
    while (m && m->at)
        m = m->next;
    if (!m) {
        m = SW_NEW(mapped);
        m->next = all;
        all = m;
    }
    free(m->path);
    m->path = sw_strdup(path);
    m->n = map->n;
    m->at = map->at;
    pthread_mutex_unlock(&lock);
}

static void forget(const sw_mapping *map)
{
    pthread_mutex_lock(&lock);
    for (mapped *m = all; m; m = m->next)
        if (m->at == map->at)
            m->at = NULL;
    pthread_mutex_unlock(&lock);
}

int sw_map_file(const char *path, sw_mapping *m)
{
    *m = (sw_mapping){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sw_fail_errno("%s", path);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st))
        rc = sw_fail_errno("%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = sw_fail("%s: is no regular file, it cannot be mapped", path);
    else if (st.st_size == 0)
        rc = sw_fail("%s: the file is empty", path);
    if (!rc) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = sw_fail_errno("%s: cannot be mapped", path);
        else
            *m = (sw_mapping){p, (size_t)st.st_size};
        if (m->at)
            note(path, m);
    }
    close(fd);
    return rc;
}

void sw_unmap_file(sw_mapping *m)
{
    if (m->at)
        forget(m);
    if (m->at)
        munmap((void *)(uintptr_t)m->at, m->n);
    *m = (sw_mapping){0};
}
