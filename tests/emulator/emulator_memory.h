/* Memory of the emulated device. The host cannot touch it outside a launch or a copy, and it holds NaN until it is written to, as
 * does what lies around it; what is written there ends the program when the memory is given back. (Under the address sanitizer it
 * is plain memory, whose ends are checked instead, and the host can touch it.) */
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
/* Opens device memory to the host's instructions, and closes it; they nest. */
void sw_emu_open_memory(void);
void sw_emu_close_memory(void);

struct sw_emu_access {
    sw_emu_access() { sw_emu_open_memory(); }
    ~sw_emu_access() { sw_emu_close_memory(); }
};

#endif
