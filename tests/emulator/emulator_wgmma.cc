/* Products of a warpgroup (PTX's wgmma). Each warp's part of the result depends on its own rows alone, so its lanes do it without the
 * other warps. What is sent is done at once or when it is waited for, whichever shows a mistake, by turns; sums are NaN meanwhile. */
#include "cuda_runtime.h"

#include "emulator_control.h"

#include <map>
#include <vector>

extern "C" {
#include "kernels/tensor.h"
}

namespace {

enum { MAX_WARPS = 32 };

struct lane_call { /* what a lane gives */
    float *d;
    const unsigned *a;
    uint64_t a_tile, b_tile;
    int n;
    bool across, add, bf16;
};

struct sums { /* of a warp, while products write them */
    float *to[32];
    std::vector<float> at; /* [16][8 n] */
    long last;             /* group that has its last product */
};

struct pending {
    lane_call call;
    unsigned a[32][4];
    float *d;
    long group;
};

struct warp_state {
    std::vector<pending> left; /* sent and not done, oldest first */
    std::map<float *, sums> busy;
    long group, done; /* that is being filled; that have been waited for */
    bool fenced;
};

/* What a warp asks for: products, a fence, the end of a group, a wait. */
struct request {
    enum { PRODUCTS, FENCE, COMMIT, WAIT } kind;
    uint64_t a_tile, b_tile;
    int n;     /* of a wait: what may be left */
    int flags; /* of products */
    int site;  /* of the others */
    bool operator!=(const request &o) const
    {
        return kind != o.kind || a_tile != o.a_tile || b_tile != o.b_tile || n != o.n || flags != o.flags || site != o.site;
    }
};
struct group_state {
    std::vector<request> asked; /* by the warp that is ahead */
    size_t place[4];
    unsigned ended; /* a bit a warp */
};

thread_local warp_state warps[MAX_WARPS];
thread_local group_state groups[MAX_WARPS / 4];
thread_local uint64_t turn;

int warp_now(void)
{
    const sw_emu_thread *t = sw_emu_now;
    return (int)((t->thread.x + t->block_dim.x * (t->thread.y + t->block_dim.y * t->thread.z)) / 32);
}

/* Of a warpgroup, in this block. */
int warps_there(int group)
{
    const dim3 &d = sw_emu_now->block_dim;
    int all = (int)(d.x * d.y * d.z / 32) - group * 4;
    return all < 4 ? all : 4;
}

/* The .aligned of PTX: all threads of the warpgroup execute the same instruction. */
void ask(const request &r)
{
    int warp = warp_now();
    group_state *g = &groups[warp / 4];
    size_t *place = &g->place[warp % 4];
    if (warps_there(warp / 4) < 4)
        sw_emu_misuse("asks for products of a warpgroup that is not whole");
    if (*place == g->asked.size() && !g->ended)
        g->asked.push_back(r);
    else if (*place == g->asked.size() || g->asked[*place] != r)
        sw_emu_misuse("asks for other products, fences or waits than another warp of its warpgroup");
    ++*place;
}

float value_at(uint64_t tile, unsigned row, unsigned column, bool across, bool bf16)
{
    unsigned first = (unsigned)(tile & 0x3fff) << 4, block = (unsigned)(tile >> 16 & 0x3fff) << 4, eight = (unsigned)(tile >> 32 & 0x3fff) << 4;
    if (across) { /* rows are what is summed over: a row has 64 of the columns, a block's columns lie `block` behind the last's */
        unsigned swap = row;
        row = column, column = swap;
    } else {
        block = 0;
    }
    unsigned at = first + row / 8 * eight + row % 8 * 128 + column / 64 * block + column % 64 * 2;
    at ^= (at >> 7 & 7) << 4;
    uint16_t h;
    memcpy(&h, sw_emu_shared_pointer(at, 2), 2);
    return bf16 ? sw_bf16_to_f32(h) : sw_f16_to_f32(h);
}

void run(warp_state *w, int warp, const pending &p)
{
    int columns = 8 * p.call.n;
    std::vector<float> b((size_t)(16 * columns));
    float a[16][16];
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < columns; c++)
            b[(size_t)(k * columns + c)] = value_at(p.call.b_tile, (unsigned)c, (unsigned)k, p.call.across, p.call.bf16);
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++) {
            if (!p.call.a) {
                a[row][k] = value_at(p.call.a_tile, (unsigned)(warp % 4 * 16 + row), (unsigned)k, false, p.call.bf16);
                continue;
            }
            /* register r of a lane holds row group + 8 (r % 2), columns 2 place + 8 (r / 2) and the next */
            unsigned pair = p.a[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            uint16_t h = (uint16_t)(pair >> 16 * (k % 2));
            a[row][k] = p.call.bf16 ? sw_bf16_to_f32(h) : sw_f16_to_f32(h);
        }
    float *sum = w->busy.at(p.d).at.data();
    for (int row = 0; row < 16; row++)
        for (int c = 0; c < columns; c++) {
            float total = 0;
            for (int k = 0; k < 16; k++)
                total += a[row][k] * b[(size_t)(k * columns + c)];
            sum[row * columns + c] = p.call.add ? sum[row * columns + c] + total : total;
        }
}

/* Where value i of a lane's sums is in the warp's 16 rows. */
int place(int lane, int i, int columns) { return (lane / 4 + i % 4 / 2 * 8) * columns + i / 4 * 8 + lane % 4 * 2 + i % 2; }

void multiply(void *const *lanes)
{
    int warp = warp_now();
    warp_state *w = &warps[warp];
    const lane_call *first = (const lane_call *)lanes[0];
    pending p = {*first, {{0}}, first->d, w->group};
    ask({request::PRODUCTS, first->a_tile, first->b_tile, first->n, first->across | first->add << 1 | first->bf16 << 2 | !first->a << 3, 0});
    int columns = 8 * first->n;
    bool fresh = !w->busy.count(p.d);
    sums *s = &w->busy[p.d];
    if ((fresh || first->a) && !w->fenced)
        sw_emu_misuse("products take registers that no fence has settled");
    if (fresh)
        s->at.resize((size_t)(16 * columns));
    for (int lane = 0; lane < 32; lane++) {
        const lane_call *l = (const lane_call *)lanes[lane];
        if (l->a)
            memcpy(p.a[lane], l->a, sizeof p.a[lane]);
        if (!fresh)
            continue;
        s->to[lane] = l->d;
        for (int i = 0; i < columns / 2; i++)
            s->at[(size_t)place(lane, i, columns)] = l->d[i];
        memset(l->d, 0xff, (size_t)(columns / 2) * sizeof *l->d);
    }
    s->last = w->group;
    if (w->left.empty() && turn++ * 0x9e3779b97f4a7c15u >> 63)
        run(w, warp, p);
    else
        w->left.push_back(p);
}

void finish(void *const *lanes)
{
    warp_state *w = &warps[warp_now()];
    const request *r = (const request *)lanes[0];
    long done = w->group - r->n;
    ask(*r);
    size_t n = 0;
    for (; n < w->left.size() && w->left[n].group < done; n++)
        run(w, warp_now(), w->left[n]);
    w->left.erase(w->left.begin(), w->left.begin() + (long)n);
    for (auto it = w->busy.begin(); it != w->busy.end();) {
        if (it->second.last >= done) {
            ++it;
            continue;
        }
        int columns = (int)it->second.at.size() / 16;
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < columns / 2; i++)
                it->second.to[lane][i] = it->second.at[(size_t)place(lane, i, columns)];
        it = w->busy.erase(it);
        w->fenced = false;
    }
}

void commit(void *const *lanes)
{
    ask(*(const request *)lanes[0]);
    warps[warp_now()].group++;
}
void fence(void *const *lanes)
{
    ask(*(const request *)lanes[0]);
    warps[warp_now()].fenced = true;
}

} // namespace

void sw_emu_wgmma(float *d, int n, const unsigned *a, uint64_t a_tile, uint64_t b_tile, bool across, bool add, bool bf16)
{
    sw_emu_check_copies_fenced();
    lane_call own = {d, a, a_tile, b_tile, n, across, add, bf16};
    sw_emu_meet(&own, multiply, __FILE__, __LINE__);
}

static void meet_at(request r, sw_emu_meeting meeting) { sw_emu_meet(&r, meeting, "a kernel's line", r.site); }
void sw_emu_wgmma_fence(int site) { meet_at({request::FENCE, 0, 0, 0, 0, site}, fence); }
void sw_emu_wgmma_commit(int site) { meet_at({request::COMMIT, 0, 0, 0, 0, site}, commit); }
void sw_emu_wgmma_wait(int most, int site) { meet_at({request::WAIT, 0, 0, most, 0, site}, finish); }

bool sw_emu_wgmma_ends(int warp)
{
    warp_state *w = &warps[warp];
    group_state *g = &groups[warp / 4];
    bool clean = w->busy.empty();
    *w = warp_state{};
    if (g->place[warp % 4] < g->asked.size())
        sw_emu_misuse("ended, and has not asked for the products, fences or waits of another warp of its warpgroup");
    g->ended |= 1u << warp % 4;
    if (g->ended == (1u << warps_there(warp / 4)) - 1)
        *g = group_state{};
    return clean;
}
