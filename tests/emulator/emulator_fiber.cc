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
#define SW_FIBER_ASAN 1
#include <sanitizer/common_interface_defs.h>
#endif

enum { STACK = 256 << 10 };

struct sw_fiber {
    char *stack; /* its lowest page is a guard */
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void (*entry)(void);
    void *fake; /* of the address sanitizer */
};

static thread_local struct {
    sw_fiber *now;
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake;
    const void *bottom;
    size_t size;
} host;

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

static void start(void)
{
#ifdef SW_FIBER_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &host.bottom, &host.size);
#endif
    host.now->entry();
    abort();
}

sw_fiber *sw_fiber_new(void (*entry)(void))
{
    sw_fiber *f = (sw_fiber *)calloc(1, sizeof *f);
    long page = sysconf(_SC_PAGESIZE);
    void *at = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!f || at == MAP_FAILED || mprotect(at, (size_t)page, PROT_NONE)) {
        perror("emulator: stack of a thread");
        abort();
    }
    f->stack = (char *)at;
    f->entry = entry;
#ifdef __x86_64__
    void **top = (void **)(f->stack + STACK) - 2; /* after the return into start, rsp is 8 past a multiple of 16 */
    *top = (void *)start;
    f->sp = top - 6;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    makecontext(&f->context, start, 0);
#endif
    return f;
}

void sw_fiber_free(sw_fiber *f)
{
    munmap(f->stack, STACK);
    free(f);
}

void sw_fiber_enter(sw_fiber *f)
{
    host.now = f;
#ifdef SW_FIBER_ASAN
    __sanitizer_start_switch_fiber(&host.fake, f->stack, STACK);
#endif
#ifdef __x86_64__
    sw_fiber_switch(&host.sp, f->sp);
#else
    swapcontext(&host.context, &f->context);
#endif
#ifdef SW_FIBER_ASAN
    __sanitizer_finish_switch_fiber(host.fake, nullptr, nullptr);
#endif
}

void sw_fiber_leave(void)
{
    sw_fiber *f = host.now;
#ifdef SW_FIBER_ASAN
    __sanitizer_start_switch_fiber(&f->fake, host.bottom, host.size);
#endif
#ifdef __x86_64__
    sw_fiber_switch(&f->sp, host.sp);
#else
    swapcontext(&f->context, &host.context);
#endif
#ifdef SW_FIBER_ASAN
    __sanitizer_finish_switch_fiber(f->fake, &host.bottom, &host.size);
#endif
}
