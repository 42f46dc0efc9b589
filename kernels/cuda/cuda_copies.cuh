/* Copies into shared memory while the thread goes on (cp.async, from 8.0 on; before, they are plain ones). */
#ifndef SW_CUDA_COPIES_CUH
#define SW_CUDA_COPIES_CUH

#include "cuda_common.cuh"

/* What the L2 cache is to do with what is read once: it goes first, so that what was prefetched for later stays. */
struct read_once {
    uint64_t policy;
    __device__ read_once() : policy(0)
    {
#if !defined(SW_EMULATOR) && __CUDA_ARCH__ >= 800
        asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
    }
};

#if !defined(SW_EMULATOR) && __CUDA_ARCH__ < 800
__device__ static inline void copy_plainly(void *to, const void *from, int bytes)
{
    uint4 v = {0, 0, 0, 0};
    if (bytes == 16)
        v = *(const uint4 *)from;
    else
        for (int i = 0; i < bytes; i++)
            ((unsigned char *)&v)[i] = ((const unsigned char *)from)[i];
    *(uint4 *)to = v;
}
#endif

/* 16 bytes between multiples of 16: there once the thread has waited. Of what is copied the first `bytes` (0 to 16), which alone are
 * read, the rest zeros. */
__device__ static inline void copy_async(void *to, const void *from, int bytes)
{
#ifdef SW_EMULATOR
    sw_emu_copy_async(to, from, bytes);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes)
                 : "memory");
#else
    copy_plainly(to, from, bytes);
#endif
}
__device__ static inline void copy_async(void *to, const void *from, const read_once &once)
{
#if !defined(SW_EMULATOR) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;"
                 :
                 : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "l"(once.policy)
                 : "memory");
#else
    (void)once;
    copy_async(to, from, 16);
#endif
}

/* The thread's copies since it last did this are a group, of none perhaps. */
__device__ static inline void commit_copies(void)
{
#ifdef SW_EMULATOR
    sw_emu_commit_copies();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}
/* For the thread's own groups but the LATER newest. */
template <int LATER> __device__ static inline void wait_copies(void)
{
#ifdef SW_EMULATOR
    sw_emu_wait_groups(LATER);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" : : "n"(LATER) : "memory");
#endif
}
/* For all of the thread's own; those of others are there behind the next barrier. */
__device__ static inline void wait_copies(void)
{
#ifdef SW_EMULATOR
    sw_emu_wait_copies();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

#endif
