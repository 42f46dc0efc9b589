/* Tensor-core instructions of a warp. Lanes are read as group (lane / 4) and place in it (lane % 4). */
#include "cuda_runtime.h"

extern "C" {
#include "kernels/tensor.h"
}

static uint64_t meet(uint64_t value, int from) { return sw_emu_exchange(0xffffffffu, value, from, __FILE__, __LINE__); }

static float half_of(unsigned pair, int which, bool bf16)
{
    uint16_t h = (uint16_t)(pair >> 16 * which);
    return bf16 ? sw_bf16_to_f32(h) : sw_f16_to_f32(h);
}

void sw_emu_mma(float *d, const unsigned *a, const unsigned *b, bool bf16)
{
    int lane = sw_emu_lane(), group = lane / 4, place = lane % 4;
    float left[2][16], right[2][16]; /* the two rows of a and the two columns of b that this lane's results need */
    for (int owner = 0; owner < 4; owner++)
        for (int r = 0; r < 4; r++) { /* a: register r holds row group + 8 (r % 2), columns 2 place + 8 (r / 2) and the next */
            unsigned pair = (unsigned)meet(a[r], group * 4 + owner);
            for (int k = 0; k < 2; k++)
                left[r % 2][owner * 2 + r / 2 * 8 + k] = half_of(pair, k, bf16);
        }
    for (int column = 0; column < 2; column++)
        for (int owner = 0; owner < 4; owner++)
            for (int r = 0; r < 2; r++) { /* b: rows 2 place + 8 r and the next, column group */
                unsigned pair = (unsigned)meet(b[r], (place * 2 + column) * 4 + owner);
                for (int k = 0; k < 2; k++)
                    right[column][owner * 2 + r * 8 + k] = half_of(pair, k, bf16);
            }
    for (int i = 0; i < 4; i++) { /* d: row group + 8 (i / 2), column 2 place + i % 2 */
        float sum = 0;
        for (int k = 0; k < 16; k++)
            sum += left[i / 2][k] * right[i % 2][k];
        d[i] += sum;
    }
}

/* Four 8 x 8 matrices; lanes 8 i .. 8 i + 7 point at the rows of matrix i. */
void sw_emu_ldmatrix(unsigned *r, const void *row, bool turned)
{
    int lane = sw_emu_lane(), group = lane / 4, place = lane % 4;
    for (int i = 0; i < 4; i++) {
        uint16_t pair[2];
        for (int k = 0; k < 2; k++) {
            const uint16_t *p = (const uint16_t *)(uintptr_t)meet((uint64_t)(uintptr_t)row, i * 8 + (turned ? place * 2 + k : group));
            pair[k] = p[turned ? group : place * 2 + k];
        }
        r[i] = pair[0] | (unsigned)pair[1] << 16;
    }
}
