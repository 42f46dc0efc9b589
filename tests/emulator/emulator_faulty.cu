/* Kernels with mistakes on purpose, each beside its right form: tests/unit/test_emulator.c says that the emulator shows
 * them. */
#include "emulator_faulty.h"

#include "kernels/cuda/cuda_wgmma.cuh"

/* out[i] = in[n - 1 - i], through shared memory. */
template <bool BARRIER> static __global__ void reverse(float *out, const float *in, int n)
{
    SW_DYNAMIC_SHARED(float, shared);
    int i = (int)threadIdx.x;
    shared[i] = in[i];
    if (BARRIER)
        __syncthreads();
    out[i] = shared[n - 1 - i];
}

/* As reverse within a warp. */
template <bool BARRIER> static __global__ void reverse_warp(float *out, const float *in, int)
{
    SW_DYNAMIC_SHARED(float, shared);
    int i = (int)threadIdx.x, first = i / 32 * 32;
    shared[i] = in[i];
    if (BARRIER)
        __syncwarp();
    out[i] = shared[first + 31 - (i - first)];
}

/* As reverse, by copies that the first quarter of the threads makes, and waits for in time, late, or not. */
enum { IN_TIME, LATE, NOT };
template <int WAITS> static __global__ void reverse_copied(float *out, const float *in, int n)
{
    SW_DYNAMIC_SHARED(float, shared);
    int i = (int)threadIdx.x;
    if (i < n / 4)
        sw_emu_copy_async(shared + 4 * i, in + 4 * i, 16);
    if (WAITS == IN_TIME)
        sw_emu_wait_copies();
    __syncthreads();
    out[i] = shared[n - 1 - i];
    __syncthreads();
    if (WAITS == LATE)
        sw_emu_wait_copies();
}

/* The same by two groups of copies a thread, of which it waits for all, or for all but the newest. */
template <int LATER> static __global__ void reverse_groups(float *out, const float *in, int n)
{
    SW_DYNAMIC_SHARED(float, shared);
    int i = (int)threadIdx.x;
    if (i < n / 8)
        for (int k = 0; k < 2; k++) {
            sw_emu_copy_async(shared + 8 * i + 4 * k, in + 8 * i + 4 * k, 16);
            sw_emu_commit_copies();
        }
    sw_emu_wait_groups(LATER);
    __syncthreads();
    out[i] = shared[n - 1 - i];
    __syncthreads();
    sw_emu_wait_groups(0);
}

/* As reverse, early: what is copied before the wait is in[]. */
static __global__ void early_copies(float *out, const float *in, int n)
{
    SW_DYNAMIC_SHARED(float, shared);
    int i = (int)threadIdx.x;
    if (i < n / 4)
        sw_emu_copy_async(shared + 4 * i, in + 4 * i, 16);
    sw_emu_wait_for_earlier();
    sw_emu_wait_copies();
    __syncthreads();
    out[i] = shared[n - 1 - i];
}
static __global__ void add_one(float *at) { at[threadIdx.x] += 1; }

/* As reverse, 256 values as 64 rows of 4, by a warpgroup's product with the matrix that turns rows round. */
enum { UNSETTLED = NOT + 1, UNFENCED, APART };
template <int HOW> static __global__ void reverse_product(float *out, const float *in, int n)
{
    SW_DYNAMIC_SHARED(unsigned char, shared);
    uint16_t *turn = first_tile(shared), *x = turn + 64 * 64;
    for (int i = (int)threadIdx.x; i < 64 * 64; i += (int)blockDim.x) {
        int row = i / 64, column = i % 64, at = row * 64 + ((column / 8 ^ row) & 7) * 8 + column % 8;
        turn[at] = __bfloat16_as_ushort(__float2bfloat16_rn(column == 63 - row ? 1.0f : 0.0f));
        x[at] = __bfloat16_as_ushort(__float2bfloat16_rn(column < 4 && row * 4 < n ? in[row * 4 + 3 - column] : 0.0f));
    }
    sw_emu_copy_async(shared + 4 * 8192, in, 16); /* that nobody asks for */
    wait_copies();
    if (HOW != UNFENCED)
        sw_emu_proxy_fence();
    __syncthreads();
    float d[8][4] = {{0}};
    if (HOW != UNSETTLED)
        settle();
    for (int k = 0; k < 4; k++)
        product<true, true, true>(d, tile_of(turn, 64) + (uint64_t)(2 * k), tile_of(x, 64) + (uint64_t)(128 * k));
    sent();
    if (HOW == APART && threadIdx.x / 32 == 1) /* the same, and not the same instruction */
        wait_products<0>(d);
    else if (HOW == IN_TIME || HOW == APART)
        wait_products<0>(d);
    int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
    for (int i = 0; threadIdx.x < 128 && lane % 4 < 2 && i < 4; i++)
        out[(row + i / 2 * 8) * 4 + lane % 4 * 2 + i % 2] = d[0][i];
    if (HOW == LATE)
        wait_products<0>(d);
}

/* As reverse, where a thread of each warpgroup, and no other, says yes; all threads vote, or all but a warp's. */
template <bool ALL> static __global__ void group_vote(float *out, const float *in, int n)
{
    int i = (int)threadIdx.x;
    bool yes = ALL || i / 32 != 1 ? warpgroup_any(i % 128 == 77) : true;
    bool again = ALL && warpgroup_any(i == 77);
    out[i] = yes && again == (ALL && i < 128) ? in[n - 1 - i] : 0;
}

/* Of kernels that begin early: all threads wait for those before, or the first half. */
template <bool ALL> static __global__ void early(float *out, const float *in, int n)
{
    if (ALL || (int)threadIdx.x < n / 2)
        sw_emu_wait_for_earlier();
    out[threadIdx.x] = in[n - 1 - (int)threadIdx.x];
}

static __global__ void divergent_barrier(float *out, const float *in, int n)
{
    if ((int)threadIdx.x < n / 2)
        __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}

static __global__ void two_barriers(float *out, const float *in, int n)
{
    if ((int)threadIdx.x < n / 2)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}

static __global__ void absent_lane(float *out, const float *in, int)
{
    float v = in[threadIdx.x];
    if (threadIdx.x % 32 < 31)
        v = __shfl_xor_sync(0xffffffffu, v, 1);
    out[threadIdx.x] = v;
}

static __global__ void past_shared(float *out, const float *in, int n)
{
    SW_DYNAMIC_SHARED(float, shared);
    shared[threadIdx.x + 1] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = shared[n];
}

static __global__ void reads_past_end(float *out, const float *in, int n) { out[threadIdx.x] = in[threadIdx.x + n]; }
static __global__ void writes_past_end(float *out, const float *in, int) { out[threadIdx.x + 1] = in[threadIdx.x]; }

/* in to out by way of the device, the copy and the kernel on streams of their own; then what was copied is overwritten. */
int sw_faulty_streams(bool arrival, bool departure, float *out, const float *in, int n)
{
    cudaStream_t kernels, copies;
    cudaEvent_t came, used;
    float *device[2], *host;
    size_t bytes = (size_t)n * sizeof(float);
    if (cudaStreamCreateWithFlags(&kernels, 0) || cudaStreamCreateWithFlags(&copies, 0) || cudaEventCreateWithFlags(&came, 0) ||
        cudaEventCreateWithFlags(&used, 0) || cudaMallocHost((void **)&host, 3 * bytes) || cudaMalloc((void **)&device[0], bytes) ||
        cudaMalloc((void **)&device[1], bytes))
        return -1;
    memcpy(host, in, bytes);
    memset(host + n, 0, bytes);
    cudaMemcpyAsync(device[1], host, bytes, cudaMemcpyHostToDevice, copies);
    cudaEventRecord(came, copies);
    if (arrival)
        cudaStreamWaitEvent(kernels, came, 0);
    SW_LAUNCH(reverse<true>, 1, (unsigned)n, bytes, kernels, device[0], device[1], n);
    cudaEventRecord(used, kernels);
    if (departure)
        cudaStreamWaitEvent(copies, used, 0);
    cudaMemcpyAsync(device[1], host + n, bytes, cudaMemcpyHostToDevice, copies);
    cudaMemcpyAsync(host + 2 * n, device[0], bytes, cudaMemcpyDeviceToHost, kernels);
    cudaStreamSynchronize(kernels);
    memcpy(out, host + 2 * n, bytes);
    cudaStreamDestroy(copies);
    cudaStreamDestroy(kernels);
    cudaEventDestroy(came);
    cudaEventDestroy(used);
    cudaFree(device[0]);
    cudaFree(device[1]);
    cudaFreeHost(host);
    return 0;
}

/* Two launches of a graph of a kernel that writes to `to` and early_copies. */
static void run_graph(float *to, float *out, const float *in, int n)
{
    struct {
        cudaStream_t stream;
    } of;
    cudaGraph_t graph;
    cudaGraphExec_t made;
    cudaStreamCreateWithFlags(&of.stream, 0);
    cudaStreamBeginCapture(of.stream, cudaStreamCaptureModeThreadLocal);
    SW_LAUNCH(add_one, 1, (unsigned)n, 0, of.stream, to);
    SW_LAUNCH_EARLY(early_copies, 1, (unsigned)n, (size_t)n * sizeof(float), &of, out, in, n);
    cudaStreamEndCapture(of.stream, &graph);
    cudaGraphInstantiate(&made, graph, 0);
    for (int i = 0; i < 2; i++)
        cudaGraphLaunch(made, of.stream);
    cudaGraphExecDestroy(made);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(of.stream);
}

int sw_faulty_run(sw_faulty which, float *out, const float *in, int n)
{
    static void (*const kernels[])(float *, const float *, int) = {
        reverse<true>, reverse<false>, reverse_warp<true>, reverse_warp<false>, reverse_copied<IN_TIME>,
        reverse_copied<LATE>, reverse_copied<NOT>, reverse_groups<0>, reverse_groups<1>, divergent_barrier, two_barriers, absent_lane, past_shared,
        reads_past_end, writes_past_end, early<true>, early<false>, reverse_product<IN_TIME>, reverse_product<LATE>,
        reverse_product<NOT>, reverse_product<UNSETTLED>, reverse_product<UNFENCED>, reverse_product<APART>, group_vote<true>, group_vote<false>};
    struct {
        cudaStream_t stream;
    } first = {nullptr};
    float *device[2];
    size_t bytes = (size_t)n * sizeof(float), shared = which >= SW_FAULTY_PRODUCT_AWAITED && which <= SW_FAULTY_PRODUCT_APART ? (size_t)5 << 13 : bytes;
    if (cudaMalloc((void **)&device[0], bytes) || cudaMalloc((void **)&device[1], bytes))
        return -1;
    cudaMemcpyAsync(device[1], in, bytes, cudaMemcpyHostToDevice, nullptr);
    if (which == SW_FAULTY_HOST)
        device[1][0] = 1; /* the host writes to the device's memory */
    else if (which == SW_FAULTY_LAUNCH)
        SW_LAUNCH(kernels[0], 1, 2048, bytes, nullptr, device[0], device[1], n);
    else if (which == SW_FAULTY_EARLY_COPIES_ALONE)
        SW_LAUNCH_EARLY(early_copies, 1, (unsigned)n, bytes, &first, device[0], device[1], n);
    else if (which == SW_FAULTY_EARLY_COPIES_LEFT || which == SW_FAULTY_EARLY_COPIES_WRITTEN)
        run_graph(device[which == SW_FAULTY_EARLY_COPIES_WRITTEN], device[0], device[1], n);
    else if (which == SW_FAULTY_EARLY_AWAITED || which == SW_FAULTY_EARLY)
        SW_LAUNCH_EARLY(kernels[which], 1, (unsigned)n, bytes, &first, device[0], device[1], n);
    else
        SW_LAUNCH(kernels[which], 1, (unsigned)n, shared, nullptr, device[0], device[1], n);
    int rc = cudaGetLastError();
    cudaMemcpyAsync(out, device[0], bytes, cudaMemcpyDeviceToHost, nullptr);
    cudaFree(device[0]);
    cudaFree(device[1]);
    return rc;
}
