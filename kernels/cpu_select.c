/* Which of the levels that were built this processor runs. */
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

extern const sw_kernels sw_cpu_table_base, sw_cpu_table_rounding_base;
#if defined(__x86_64__)
extern const sw_kernels sw_cpu_table_avx2, sw_cpu_table_rounding_avx2, sw_cpu_table_avx512, sw_cpu_table_rounding_avx512;

static bool has_avx2(void)
{
    /* f16c is older than avx2 (and clang 14 cannot ask for it) */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}
#endif

static const struct {
    const char *name;
    const sw_kernels *table, *rounding;
    bool (*has)(void);
} levels[] = { /* best first */
#if defined(__x86_64__)
    {"avx512", &sw_cpu_table_avx512, &sw_cpu_table_rounding_avx512, has_avx512},
    {"avx2", &sw_cpu_table_avx2, &sw_cpu_table_rounding_avx2, has_avx2},
#endif
    {"base", &sw_cpu_table_base, &sw_cpu_table_rounding_base, NULL}};

/* The level of that name, or -1 when this build or this processor lacks it. */
static int level_of(const char *name)
{
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(levels[i].name, name))
            return !levels[i].has || levels[i].has() ? (int)i : -1;
    return -1;
}

const sw_kernels *sw_kernels_cpu(const char **level, const sw_kernels **rounding)
{
    const char *forced = getenv("SWIFT_ISA");
    int at = forced ? level_of(forced) : -1;
    for (size_t i = 0; at < 0; i++) /* base, the last, is always there */
        at = level_of(levels[i].name);
    *level = levels[at].name;
    *rounding = levels[at].rounding;
    return levels[at].table;
}
