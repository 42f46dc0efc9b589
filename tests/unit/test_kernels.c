/* Every kernel on the devices of SWIFT_TEST_DEVICES (names with commas between; "cpu" when it is not set; the CPU is
 * tested at each instruction-set level that this processor has), beside the reference, and the reference itself.
 * SWIFT_TEST_FILTER="emulator: attention*" runs those alone. */
#include "kernels/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void (*const cases[SW_KERNEL_COUNT])(rig *) = {
#define K(name, args) [SW_K_##name] = case_##name,
#include "kernels/kernels.def"
#undef K
};

static const struct {
    const char *name;
    void (*run)(rig *);
} own_cases[] = {{"known values", known_values},
                 {"gradients of activations", gradients_elementwise},
                 {"gradients of norms", gradients_norm},
                 {"gradients of rope", gradients_rope},
                 {"gradients of attention", gradients_attention},
                 {"gradients of layers with a state", gradients_recurrent},
                 {"gradients of streams and pooling", gradients_streams},
                 {"gradients of cross-entropy", gradients_xent}};

typedef struct job {
    void (*run)(rig *);
    sw_device *reference, *tested;
    uint32_t site;
} job;

static void run_job(void **state)
{
    const job *j = *state;
    rig r = {.device = {j->reference, j->tested}, .rng = {.seed = 20, .site = j->site}};
    j->run(&r);
}

static sw_device *opened(const char *name)
{
    sw_device *d = sw_device_open(name);
    if (!d) {
        fprintf(stderr, "test_kernels: %s\n", sw_error());
        exit(1);
    }
    return d;
}

static struct {
    struct CMUnitTest *at;
    size_t n, cap;
} tests;

static void add(const char *device, const char *name, void (*run)(rig *), sw_device *reference, sw_device *tested)
{
    job *j = SW_NEW(job);
    *j = (job){run, reference, tested, sw_rng_site(name)};
    SW_PUSH(tests, ((struct CMUnitTest){sw_strfmt("%s: %s", device, name), run_job, NULL, NULL, j}));
}

static void add_device(const char *name, sw_device *reference, sw_device *tested)
{
    for (int k = 0; k < SW_KERNEL_COUNT; k++)
        add(name, sw_kernel_names[k], cases[k], reference, tested);
}

/* Attention by products of warpgroups, where the GPU has such. */
static void add_warpgroups(const char *name, sw_device *reference)
{
    setenv("SWIFT_WARPGROUPS", "1", 1);
    sw_device *d = opened(name);
    unsetenv("SWIFT_WARPGROUPS");
    char *by = sw_strfmt("%s warpgroups", name);
    add(by, "attention_fwd", cases[SW_K_attention_fwd], reference, d);
    add(by, "attention_bwd", cases[SW_K_attention_bwd], reference, d);
    free(by);
}

/* The CPU at each level that this processor has; how many those are. */
static int add_levels(sw_device *reference)
{
    static const char *const levels[] = {"base", "avx2", "avx512"};
    int n = 0;
    for (size_t i = 0; i < SW_COUNT(levels); i++) {
        const char *level = "";
        setenv("SWIFT_ISA", levels[i], 1);
        const sw_kernels *rounding;
        sw_kernels_cpu(&level, &rounding);
        if (strcmp(level, levels[i]))
            continue;
        sw_device *d = opened("cpu");
        snprintf(d->description, sizeof d->description, "cpu %s", level);
        add_device(d->description, reference, d);
        add(d->description, "rounded products", rounded_products, reference, d);
        n++;
    }
    unsetenv("SWIFT_ISA");
    return n;
}

int main(void)
{
    const char *list = getenv("SWIFT_TEST_DEVICES");
    char *names = sw_strdup(list && *list ? list : "cpu"), *rest = names;
    sw_device *reference = opened("reference");
    for (size_t i = 0; i < SW_COUNT(own_cases); i++)
        add("reference", own_cases[i].name, own_cases[i].run, reference, reference);
    for (char *name; (name = strsep(&rest, ","));)
        if (strcmp(name, "cpu") || !add_levels(reference)) {
            sw_device *d = opened(name);
            add_device(name, reference, d);
            if (!strcmp(name, "emulator"))
                add(name, "rounded 8-bit floats", rounded_float8, reference, d);
            if (!strcmp(name, "emulator") || !strcmp(name, "cuda"))
                add_warpgroups(name, reference);
        }
    free(names);
    cmocka_set_test_filter(getenv("SWIFT_TEST_FILTER"));
    return _cmocka_run_group_tests("kernels", tests.at, tests.n, NULL, NULL);
}
