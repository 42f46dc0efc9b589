#include "emulator_fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

/* Frames of neighbours start at other places of the caches' sets. */
enum { STACK = 256 << 10, SHIFT = 17 * 64, MOST_SHIFT = 64 << 10 };

struct sw_fiber {
    char *stack; /* its lowest page is a guard */
    size_t size;
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void (*entry)(void);
    void *fake; /* of the address sanitizer */
};

/* The host's own stack; its place and size are known once the sanitizer has told them. */
static thread_local sw_fiber host;
static thread_local sw_fiber *now;

#ifdef __x86_64__
/* The calling convention keeps rbx, rbp and r12-r15; everything else is the caller's to lose. */
extern "C" void sw_fiber_switch(void **save, void *load);
asm(R"(
.text
.globl sw_fiber_switch
.type sw_fiber_switch, @function
sw_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size sw_fiber_switch, .-sw_fiber_switch
.section .note.GNU-stack,"",@progbits
.text
)");
#endif

/* Back from a switch, or new on this stack. */
static void arrived(void *fake)
{
#ifdef __SANITIZE_ADDRESS__
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(fake, &bottom, &size);
    if (!host.stack) { /* the first switch of a thread comes from there */
        host.stack = (char *)bottom;
        host.size = size;
    }
#else
    (void)fake;
#endif
}

static void change(sw_fiber *from, sw_fiber *to)
{
    now = to;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->size);
#endif
#ifdef __x86_64__
    sw_fiber_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
    arrived(from->fake);
}

static void start(void)
{
    arrived(nullptr);
    now->entry();
    abort();
}

sw_fiber *sw_fiber_new(void (*entry)(void))
{
    static thread_local size_t shift;
    sw_fiber *f = (sw_fiber *)calloc(1, sizeof *f);
    long page = sysconf(_SC_PAGESIZE);
    void *at = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!f || at == MAP_FAILED || mprotect(at, (size_t)page, PROT_NONE)) {
        perror("emulator: stack of a thread");
        abort();
    }
    shift = (shift + SHIFT) % MOST_SHIFT;
    f->stack = (char *)at;
    f->size = STACK;
    f->entry = entry;
#ifdef __x86_64__
    void **top = (void **)(f->stack + STACK - shift) - 2; /* after the return into start, rsp is 8 past a multiple of 16 */
    *top = (void *)start;
    f->sp = top - 6;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK - shift;
    makecontext(&f->context, start, 0);
#endif
    return f;
}

void sw_fiber_free(sw_fiber *f)
{
    munmap(f->stack, STACK);
    free(f);
}

void sw_fiber_enter(sw_fiber *f) { change(&host, f); }
void sw_fiber_pass(sw_fiber *f) { change(now, f); }
void sw_fiber_leave(void) { change(now, &host); }
