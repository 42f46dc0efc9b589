/* What tests ask of the emulated runtime, and may have it pretend. In the environment, read when it is used:
 *   SWIFT_EMULATOR_MEMORY=BYTES     the device's memory
 *   SWIFT_EMULATOR_GPUS=N           GPUs of the machine (2)
 *   SWIFT_EMULATOR_DRIVER=13000     CUDA version that the driver serves; 0: there is no driver
 *   SWIFT_EMULATOR_CAPABILITY=90    compute capability
 *   SWIFT_EMULATOR_PIECE=65536      bytes in which reserved addresses are given memory, whole pages
 *   SWIFT_EMULATOR_LATE=K           a stream made while K others are (a device's kernels have the first, copies beside them the
 *                                   second) works as late as events allow; without it all work at once
 *   SWIFT_EMULATOR_COUNTS=FILE      what is counted below, as "name number" a line, when the program ends
 *   SWIFT_EMULATOR_NCCL_FAILS=R:K   call K of rank R to NCCL fails */
#ifndef SW_EMULATOR_CONTROL_H
#define SW_EMULATOR_CONTROL_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sw_emulator_counts {
    long allocations, pinned; /* of device memory, of pinned host memory */
    long launches;            /* kernels that ran */
    long captures, graphs;    /* graphs captured; launched */
    long beside;              /* copies made while another stream, a late one, had work left */
    long waits;               /* of the host for a stream or an event, which need not have anything left to do */
} sw_emulator_counts;
extern sw_emulator_counts sw_emu_count;

#ifdef __cplusplus
}
#endif

#endif
