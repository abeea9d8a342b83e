/* The recurrence of the minimal gated unit on a CPU, in float32: forward, and back-propagation through time. With AMX
 * the factors of its products may be rounded to bfloat16, as training in mixed precision does it; sums are floats.
 *
 * Knows nothing about Python or torch: plain pointers to contiguous arrays, the shapes, and a number of threads.
 *
 *     f  = sigmoid(pf + W_f h)                    h (H), W_hh (2H, H) = [W_f; W_n]
 *     n  = tanh(pn + f * (W_n h + b_hn))          [pf, pn]: the input's projection, biases included
 *     n  = tanh(pn + W_n h)                       when b_hn is NULL
 *     h' = (1 - f) * n + f * h
 *
 * The weights are packed once a call into panels, each two vectors wide and as deep as the sum is long; a panel of
 * the forward holds the f and the n columns of the same units, so that a tile's product ends with both gates of its
 * units in registers. Threads share the batch, without a barrier, where every thread gets rows enough to pay for
 * reading all the weights; else they share the units, with one light barrier a step. With AMX a product is so fast
 * that reading all the weights never pays.
 */

#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(MGU_PTHREADS)
#include <pthread.h>
#elif defined(_OPENMP)
#include <omp.h>
#endif

#include "common.h"

#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define HAS_TILES
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define MAX_THREADS 64
#define SPINS 2000 /* looks at a barrier before the processor is offered to others */

/* Rows row0 .. row1 in `blocks` blocks of nearly equal size, and panels panel0 .. panel1. */
typedef struct {
    int64_t row0, row1, blocks, panel0, panel1;
    float *bias_sums; /* (3, padded): gradients of the biases of f, of n, and of W_n h, by these rows */
} Part;

typedef struct {
    atomic_int waiting, generation;
    int threads;
} Barrier;

typedef struct {
    int64_t B, T, H, stride, panel_size; /* stride of a row of scratch, floats in a panel */
    int64_t depth, half;                 /* what a product sums over; where a row of scratch has it in bfloat16 */
    const float *weight, *packed;        /* (2H, H); its panels, or NULL */
    const float *bias_hn;                /* padded with zeros, or NULL */
    float *scratch[2];                   /* (B, stride): the states before and after a step */
    float *gates;                        /* (B, T, 2H): projection in; f and n out when keep is set */
    float *product, *outputs;            /* (B, T, H): W_n h + b_hn, or NULL; the states */
    int keep;
} Forward;

typedef struct {
    int64_t B, T, H, padded, stride, panel_size; /* padded: H rounded up to whole vectors */
    int64_t half;                                /* as in Forward; the depth is 2 * padded */
    const float *packed;
    float *scratch[2]; /* (B, stride): gradients of the two recurrent products of a step, each padded */
    float *kept;       /* (B, padded): f * dh, the part of dh that skips the products */
    float *bias_sums;  /* (threads, 3, padded), as in Part */
    const float *hidden, *gates, *product, *outputs, *grad_outputs, *grad_final;
    float *grad_projection, *grad_product, *grad_hidden; /* (B, T, 2H), (B, T, H), (B, H) */
} Backward;

/* Lines of memory that a tile's gates will touch. Each lies an utterance from the next, so that they come from far.
 * All fetched at once they would hold up the product's weights; so they are fetched one by one during the product,
 * but for the few of a tile of few rows. */
typedef struct {
    int at_once;
    int64_t count;
    const float *lines[16 * 16]; /* up to 16 for each row of the largest tile */
} Ahead;

static inline void expect(Ahead *ahead, const float *line)
{
    if (ahead->at_once)
        __builtin_prefetch(line, 1);
    else
        ahead->lines[ahead->count++] = line;
}

/* All threads meet here once a step. A short spin, then the processor goes to whoever else wants it. */
static void barrier_wait(Barrier *barrier)
{
    const int generation = atomic_load_explicit(&barrier->generation, memory_order_acquire);
    if (atomic_fetch_add_explicit(&barrier->waiting, 1, memory_order_acq_rel) == barrier->threads - 1) {
        atomic_store_explicit(&barrier->waiting, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&barrier->generation, 1, memory_order_release);
        return;
    }
    for (int spin = 0; atomic_load_explicit(&barrier->generation, memory_order_acquire) == generation; spin++) {
        if (spin > SPINS) sched_yield();
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

#if defined(HAS_TILES)
TARGET_PUSH("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,amx-tile,amx-bf16,fma,prfchw")
#define TILES
#define LANES 16
#define MAX_ROWS 16
#define NAME(x) x##_amx
#include "mgu_kernels.h"
#undef TILES
TARGET_POP
#endif

#if defined(__x86_64__)
TARGET_PUSH("avx512f,avx512vl,avx512dq,avx512bw,fma,prfchw")
#define LANES 16
#define MAX_ROWS 12
#define NAME(x) x##_avx512
#include "mgu_kernels.h"
TARGET_POP

TARGET_PUSH("avx2,fma")
#define LANES 8
#define MAX_ROWS 6
#define NAME(x) x##_avx2
#include "mgu_kernels.h"
TARGET_POP
#endif

#define LANES 4
#define MAX_ROWS 6
#define NAME(x) x##_portable
#include "mgu_kernels.h"

typedef struct {
    int lanes, rows; /* floats in a vector, rows in the largest tile */
    void (*forward)(const Forward *, const Part *, Barrier *);
    void (*backward)(const Backward *, const Part *, Barrier *);
} Kernels;

/* 0 portable, 1 AVX2 with FMA, 2 AVX-512, 3 AMX in bfloat16. */
enum { AVX512 = 2, AMX };
static const Kernels KERNELS[] = {
    {4, 6, forward_portable, backward_portable},
#if defined(__x86_64__)
    {8, 6, forward_avx2, backward_avx2},
    {16, 12, forward_avx512, backward_avx512},
#endif
#if defined(HAS_TILES)
    {16, 16, forward_amx, backward_amx},
#endif
};

/* The best instruction set that this processor has for floats. */
EXPORT int mgu_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

/* Whether products of bfloat16 may be AMX's; asks the system for the registers. */
EXPORT int mgu_has_amx(void)
{
#if defined(HAS_TILES)
    const unsigned tiles = 1u << 24, bfloat16 = 1u << 22, vectors = 1u << 5; /* AVX512_BF16 */
    unsigned a, b, c, d;
    if (mgu_best() < AVX512 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & tiles) || !(d & bfloat16)) return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & vectors)) return 0;
    return !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILE_DATA */);
#else
    return 0;
#endif
}

/* The nearest bfloat16; of a NaN, one. */
static uint32_t to_bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Panels of AMX, of both directions, are tiles: 32 depths of the left columns, then as many of the right ones, and each
 * has two depths of a column side by side. Where depth and depth + 1, an even and an odd one, of such a column are. */
static uint32_t *tile_pair(float *packed, int64_t depth, int64_t right, int64_t column)
{
    return (uint32_t *)packed + (depth / 32 * 2 + right) * 256 + depth % 32 / 2 * 16 + column;
}

static void pack_forward_tiles(const float *weight, float *packed, int64_t H, int64_t panel)
{
    const int64_t first = panel * 16, count = first + 16 <= H ? 16 : H - first;
    for (int64_t half = 0; half < 2; half++)
        for (int64_t column = 0; column < count; column++) {
            const float *row = weight + (half * H + first + column) * H;
            for (int64_t k = 0; k < H; k += 2)
                *tile_pair(packed, k, half, column) =
                    to_bfloat16(row[k]) | (k + 1 < H ? to_bfloat16(row[k + 1]) << 16 : 0);
        }
}

static void pack_backward_tiles(const float *weight, float *packed, int64_t H, int64_t padded, int64_t panel)
{
    for (int64_t part = 0; part < 2; part++)
        for (int64_t k = 0; k < H; k += 2)
            for (int64_t half = 0; half < 2; half++) {
                const int64_t first = panel * 32 + half * 16, count = first + 16 <= H ? 16 : H - first;
                const float *row = weight + (part * H + k) * H + first, *next = k + 1 < H ? row + H : NULL;
                uint32_t *pairs = tile_pair(packed, part * padded + k, half, 0);
                for (int64_t column = 0; column < count; column++)
                    pairs[column] = to_bfloat16(row[column]) | (next ? to_bfloat16(next[column]) << 16 : 0);
            }
}

/* Panel of the forward: at depth k the f columns, then the n columns, of `lanes` units. */
static void pack_forward(const float *weight, float *packed, int64_t H, int64_t lanes, int64_t panel)
{
    const int64_t first = panel * lanes;
    const int64_t count = first + lanes <= H ? lanes : H - first;
    for (int64_t half = 0; half < 2; half++) {
        const float *rows = weight + (half * H + first) * H;
        for (int64_t k0 = 0; k0 < H; k0 += 16) { /* a block that stays in cache: it is a transposition */
            const int64_t k1 = k0 + 16 < H ? k0 + 16 : H;
            for (int64_t k = k0; k < k1; k++)
                for (int64_t lane = 0; lane < count; lane++)
                    packed[(2 * k + half) * lanes + lane] = rows[lane * H + k];
        }
    }
}

/* Panel of the backward: 2 * lanes columns of W_hh at each of 2 * padded depths, which skip H .. padded. */
static void pack_backward(const float *weight, float *packed, int64_t H, int64_t padded, int64_t lanes,
                          int64_t panel)
{
    const int64_t first = panel * 2 * lanes;
    const int64_t count = first + 2 * lanes <= H ? 2 * lanes : H - first;
    for (int64_t k = 0; k < 2 * H; k++) {
        const int64_t depth = k < H ? k : k - H + padded;
        memcpy(packed + depth * 2 * lanes, weight + k * H + first, sizeof(float) * (size_t)count);
    }
}

/* What one thread of a team does. */
typedef struct {
    const Kernels *kernels;
    const Forward *forward; /* one of the two is NULL */
    const Backward *backward;
    const float *weight;
    float *packed;
    int64_t rows, panels;
    int tiles, share_rows;
    Barrier barrier;
} Team;

static void work(Team *team, int thread, int threads)
{
    const Kernels *kernels = team->kernels;
    const Forward *forward = team->forward;
    const Backward *backward = team->backward;
    for (int64_t panel = thread; team->packed && panel < team->panels; panel += threads) {
        float *packed = team->packed + panel * (forward ? forward->panel_size : backward->panel_size);
        if (forward && team->tiles)
            pack_forward_tiles(team->weight, packed, forward->H, panel);
        else if (forward)
            pack_forward(team->weight, packed, forward->H, kernels->lanes, panel);
        else if (team->tiles)
            pack_backward_tiles(team->weight, packed, backward->H, backward->padded, panel);
        else
            pack_backward(team->weight, packed, backward->H, backward->padded, kernels->lanes, panel);
    }
    Part part = {0, team->rows, 0, 0, team->panels, NULL};
    if (backward) part.bias_sums = backward->bias_sums + thread * 3 * backward->padded;
    if (team->share_rows) {
        part.row0 = team->rows * thread / threads;
        part.row1 = team->rows * (thread + 1) / threads;
    } else {
        part.panel0 = team->panels * thread / threads;
        part.panel1 = team->panels * (thread + 1) / threads;
    }
    part.blocks = ceil_div(part.row1 - part.row0, kernels->rows);
    if (threads > 1) barrier_wait(&team->barrier);
    Barrier *barrier = threads > 1 && !team->share_rows ? &team->barrier : NULL;
    if (forward)
        kernels->forward(forward, &part, barrier);
    else
        kernels->backward(backward, &part, barrier);
}

#if defined(MGU_PTHREADS)
typedef struct {
    Team *team;
    int thread, threads;
} Member;

static void *member(void *argument)
{
    const Member *self = argument;
    work(self->team, self->thread, self->threads);
    return NULL;
}

/* Threads of our own: for compilers without OpenMP, and for the thread sanitizer, which cannot see into libgomp. */
static void run_team(Team *team, int threads)
{
    pthread_t handles[MAX_THREADS];
    Member members[MAX_THREADS];
    team->barrier.threads = threads;
    for (int i = 0; i < threads; i++) members[i] = (Member){team, i, threads};
    int started = 1;
    while (started < threads && !pthread_create(&handles[started], NULL, member, &members[started])) started++;
    for (int i = started; i < threads; i++) abort(); /* the others already count on this one */
    work(team, 0, threads);
    for (int i = 1; i < started; i++) pthread_join(handles[i], NULL);
}
#else
static void run_team(Team *team, int threads)
{
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
#pragma omp single
            team->barrier.threads = omp_get_num_threads(); /* may be fewer than asked for */
            work(team, omp_get_thread_num(), omp_get_num_threads());
        }
        return;
    }
#endif
    team->barrier.threads = 1;
    work(team, 0, 1);
    (void)threads;
}
#endif

/* How many threads are worth waking, and whether they share rows or units. */
static int plan(Team *team, int threads, int64_t steps, int64_t depth)
{
    const int64_t step = team->rows * team->panels * 2 * team->kernels->lanes * depth; /* multiplications a step */
    team->share_rows = !team->tiles && team->rows >= 4 * threads;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (steps * step < 1000000) return 1;
    if (!team->share_rows && step < 60000) return 1; /* a barrier would cost more than it saves */
    const int64_t most = team->share_rows ? team->rows : team->panels;
    return threads < most ? threads : (int)most;
}

/* 0, or 1 when memory is short. product may be NULL (not kept); gates keep f and n only when keep is set. */
EXPORT int mgu_forward(const float *weight, const float *bias_hn, const float *hidden, float *gates, float *product,
                       float *outputs, int64_t B, int64_t T, int64_t H, int keep, int threads, int kind)
{
    if (B == 0 || T == 0 || H == 0) return 0;
    /* Packing costs as much as 10 to 30 steps of one row, measured at H 256 to 512. */
    const int unpacked = B * T <= (B == 1 ? 32 : 16);
    if (unpacked && kind == AMX) kind = AVX512;
    const int tiles = kind == AMX;
    const Kernels *kernels = &KERNELS[kind];
    const int64_t padded = round_up(H, kernels->lanes);
    Forward job = {.B = B, .T = T, .H = H, .gates = gates, .product = product, .outputs = outputs, .keep = keep};
    job.weight = weight;
    job.depth = tiles ? round_up(H, 64) : H;
    job.half = tiles ? padded : 0;
    /* not a power of two: rows would compete for the same lines of the cache */
    job.stride = padded + (tiles ? job.depth / 2 : 0) + 16;
    job.panel_size = (tiles ? 1 : 2) * kernels->lanes * job.depth;
    Team team = {.kernels = kernels, .forward = &job, .weight = weight, .rows = B, .panels = padded / kernels->lanes};
    team.tiles = tiles;
    const int64_t packed = unpacked ? 0 : team.panels * job.panel_size;
    const int64_t states = (B + (tiles ? kernels->rows : 0)) * job.stride; /* a tile always reads all of its rows */
    float *memory = allocate(packed + 2 * states + padded);
    if (!memory) return 1;
    if (packed) job.packed = team.packed = memory;
    job.scratch[0] = memory + packed;
    job.scratch[1] = job.scratch[0] + states;
    if (bias_hn) job.bias_hn = memcpy(job.scratch[1] + states, bias_hn, sizeof(float) * (size_t)H);
    for (int64_t b = 0; b < B; b++) {
        float *state = memcpy(job.scratch[0] + b * job.stride, hidden + b * H, sizeof(float) * (size_t)H);
        for (int64_t k = 0; tiles && k < H; k++) ((uint16_t *)(state + job.half))[k] = (uint16_t)to_bfloat16(state[k]);
    }
    run_team(&team, plan(&team, threads, T, H));
    free(memory);
    return 0;
}

/* From the forward's values and the gradients of outputs and final state, the gradients of the projection, of
 * W_n h + b_hn (with the reset gate; product and grad_product are NULL without), of the first state, and of the
 * biases: of f and n (2H), and of W_n h (H). */
EXPORT int mgu_backward(const float *weight, const float *hidden, const float *gates, const float *product,
                        const float *outputs, const float *grad_outputs, const float *grad_final,
                        float *grad_projection, float *grad_product, float *grad_hidden, float *grad_bias,
                        float *grad_bias_hn, int64_t B, int64_t T, int64_t H, int threads, int kind)
{
    memset(grad_bias, 0, sizeof(float) * (size_t)(2 * H));
    memset(grad_bias_hn, 0, sizeof(float) * (size_t)H);
    if (B == 0 || H == 0) return 0;
    if (T == 0) {
        memcpy(grad_hidden, grad_final, sizeof(float) * (size_t)(B * H));
        return 0;
    }
    const Kernels *kernels = &KERNELS[kind];
    Backward job = {.B = B, .T = T, .H = H, .hidden = hidden, .gates = gates, .product = product,
                    .outputs = outputs, .grad_outputs = grad_outputs, .grad_final = grad_final,
                    .grad_projection = grad_projection, .grad_product = grad_product, .grad_hidden = grad_hidden};
    const int tiles = kind == AMX;
    job.padded = round_up(H, tiles ? 32 : kernels->lanes);
    job.half = tiles ? 2 * job.padded : 0;
    job.stride = (tiles ? 3 : 2) * job.padded + 16;
    job.panel_size = (tiles ? 1 : 2) * kernels->lanes * 2 * job.padded;
    Team team = {.kernels = kernels, .backward = &job, .weight = weight, .rows = B,
                 .panels = ceil_div(H, 2 * kernels->lanes), .tiles = tiles};
    threads = plan(&team, threads, T, 2 * job.padded);
    const int64_t gradients = (B + (tiles ? kernels->rows : 0)) * job.stride;
    float *memory =
        allocate(team.panels * job.panel_size + 2 * gradients + B * job.padded + threads * 3 * job.padded);
    if (!memory) return 1;
    job.packed = team.packed = memory;
    job.scratch[0] = memory + team.panels * job.panel_size;
    job.scratch[1] = job.scratch[0] + gradients;
    job.kept = job.scratch[1] + gradients;
    job.bias_sums = job.kept + B * job.padded;
    run_team(&team, threads);
    for (int thread = 0; thread < threads; thread++) {
        const float *sums = job.bias_sums + thread * 3 * job.padded;
        for (int64_t unit = 0; unit < H; unit++) {
            grad_bias[unit] += sums[unit];
            grad_bias[H + unit] += sums[job.padded + unit];
            grad_bias_hn[unit] += sums[2 * job.padded + unit];
        }
    }
    free(memory);
    return 0;
}
