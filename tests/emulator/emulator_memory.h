/* Memory of the emulated device. The host cannot touch it outside a launch or a copy (it is a protected mapping; under
 * the address sanitizer plain memory, so that ends are checked instead). Since protecting takes longer than most launches,
 * it stays open after some of them once a program has made many: a place of the host's code that touches it is found when
 * it has run a few times. */
#ifndef SW_EMULATOR_MEMORY_H
#define SW_EMULATOR_MEMORY_H

#include <cstddef>

void *sw_emu_alloc(size_t n);
void sw_emu_release(void *p);
size_t sw_emu_used(void); /* bytes */
/* Of memory that is counted there and lies elsewhere: more, or less, of it. */
void sw_emu_count_used(size_t n, bool more);
/* Pages of a mapping of its own become device memory, full of NaN; or can be touched by nobody. */
void sw_emu_show(void *p, size_t n, bool there);
/* Opens device memory to the host's instructions, and closes it, or may; they nest. */
void sw_emu_open_memory(void);
void sw_emu_close_memory(void);

struct sw_emu_access {
    sw_emu_access() { sw_emu_open_memory(); }
    ~sw_emu_access() { sw_emu_close_memory(); }
};

#endif
