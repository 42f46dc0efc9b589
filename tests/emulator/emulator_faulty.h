#ifndef SW_EMULATOR_FAULTY_H
#define SW_EMULATOR_FAULTY_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sw_faulty {
    SW_FAULTY_BARRIER_THERE,
    SW_FAULTY_BARRIER_MISSING,
    SW_FAULTY_WARP_BARRIER_THERE,
    SW_FAULTY_WARP_BARRIER_MISSING,
    SW_FAULTY_COPIES_AWAITED,
    SW_FAULTY_COPIES_LATE,
    SW_FAULTY_COPIES_LEFT,
    SW_FAULTY_GROUPS_AWAITED,
    SW_FAULTY_GROUP_LATE,
    SW_FAULTY_DIVERGENT,
    SW_FAULTY_TWO_BARRIERS,
    SW_FAULTY_ABSENT_LANE,
    SW_FAULTY_PAST_SHARED,
    SW_FAULTY_READS_PAST_END,
    SW_FAULTY_WRITES_PAST_END,
    SW_FAULTY_EARLY_AWAITED,
    SW_FAULTY_EARLY,
    SW_FAULTY_PRODUCT_AWAITED,
    SW_FAULTY_PRODUCT_LATE,
    SW_FAULTY_PRODUCT_LEFT,
    SW_FAULTY_PRODUCT_UNSETTLED,
    SW_FAULTY_PRODUCT_UNFENCED,
    SW_FAULTY_PRODUCT_APART,
    SW_FAULTY_VOTE_OF_ALL,
    SW_FAULTY_VOTE_OF_SOME,
    SW_FAULTY_EARLY_COPIES_ALONE,   /* in no graph */
    SW_FAULTY_EARLY_COPIES_LEFT,    /* of what the kernel before leaves alone */
    SW_FAULTY_EARLY_COPIES_WRITTEN, /* of what it writes */
    SW_FAULTY_HOST,
    SW_FAULTY_LAUNCH,
} sw_faulty;

/* Runs one on n values of the host; what cudaGetLastError says. */
int sw_faulty_run(sw_faulty which, float *out, const float *in, int n);
/* As SW_FAULTY_BARRIER_THERE, by a copy on a stream of its own, whose memory is copied to again. arrival: the kernel waits for the
 * copy; departure: the second copy for the kernel. */
int sw_faulty_streams(bool arrival, bool departure, float *out, const float *in, int n);

#ifdef __cplusplus
}
#endif

#endif
