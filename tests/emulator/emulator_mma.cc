/* Tensor-core instructions of a warp. Lanes are read as group (lane / 4) and place in it (lane % 4). */
#include "cuda_runtime.h"

extern "C" {
#include "kernels/tensor.h"
}

namespace {

struct mma_lane {
    float *d;
    const unsigned *a, *b;
    bool bf16;
};

struct ldmatrix_lane {
    unsigned *r;
    const uint16_t *row;
    bool turned;
};

float half_of(unsigned pair, int which, bool bf16)
{
    uint16_t h = (uint16_t)(pair >> 16 * which);
    return bf16 ? sw_bf16_to_f32(h) : sw_f16_to_f32(h);
}

void multiply(void *const *lanes)
{
    float a[16][16], b[16][8], sum[16][8] = {{0}};
    bool bf16 = ((const mma_lane *)lanes[0])->bf16;
    for (int lane = 0; lane < 32; lane++) {
        const mma_lane *l = (const mma_lane *)lanes[lane];
        int group = lane / 4, place = lane % 4;
        for (int k = 0; k < 2; k++) {
            for (int r = 0; r < 4; r++) /* register r holds row group + 8 (r % 2), columns 2 place + 8 (r / 2) and the next */
                a[group + r % 2 * 8][place * 2 + r / 2 * 8 + k] = half_of(l->a[r], k, bf16);
            for (int r = 0; r < 2; r++) /* rows 2 place + 8 r and the next, column group */
                b[place * 2 + r * 8 + k][group] = half_of(l->b[r], k, bf16);
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                sum[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) /* row group + 8 (i / 2), column 2 place + i % 2 */
            ((const mma_lane *)lanes[lane])->d[i] += sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

void load_matrices(void *const *lanes)
{
    for (int lane = 0; lane < 32; lane++) {
        const ldmatrix_lane *l = (const ldmatrix_lane *)lanes[lane];
        int group = lane / 4, place = lane % 4;
        for (int i = 0; i < 4; i++) {
            unsigned pair = 0;
            for (int k = 0; k < 2; k++) {
                const ldmatrix_lane *from = (const ldmatrix_lane *)lanes[i * 8 + (l->turned ? place * 2 + k : group)];
                pair |= (unsigned)from->row[l->turned ? group : place * 2 + k] << 16 * k;
            }
            l->r[i] = pair;
        }
    }
}

} // namespace

void sw_emu_mma(float *d, const unsigned *a, const unsigned *b, bool bf16)
{
    mma_lane own = {d, a, b, bf16};
    sw_emu_meet(&own, multiply, __FILE__, __LINE__);
}

/* Four 8 x 8 matrices; lanes 8 i .. 8 i + 7 point at the rows of matrix i. */
void sw_emu_ldmatrix(unsigned *r, const void *row, bool turned)
{
    ldmatrix_lane own = {r, (const uint16_t *)row, turned};
    sw_emu_meet(&own, load_matrices, __FILE__, __LINE__);
}
