/* The products of the MGU's training that need not go step by step: sums over D or 2H for all rows of the batch and
 * all steps, and sums over those.
 *
 *     projection = x W_ih^T + b        dx = [df; dn]^T W_ih
 *     dW_ih = sum [df; dn] x^T         dW_hh = sum [df; dp] h^T        p = W_n h + b_hn, h the state before the step
 *
 * Knows only arrays, as mgu.c does, whose backward makes df, dn and dp. What a tile of sums is multiplied with is
 * packed into panels, two vectors wide and as deep as the sum is long; they are read from the second cache.
 */

#include "common.h"

#define CACHED 147456 /* floats of x and h that are packed at a time: 576 KiB of a second cache of 1 MiB */
#define GROUP 128     /* rows of a `linear` that a panel serves before the next is read: they too stay in the cache */

typedef struct {
    int64_t B, T, D, H;
    const float *inputs;                                            /* (B, T, D) */
    const float *hidden, *outputs, *grad_projection, *grad_product; /* as in mgu_backward */
    float *grad_weight_ih, *grad_weight_hh;                         /* (2H, D), (2H, H) */
} Weights;

typedef struct {
    int64_t K, E;               /* columns of the inputs and of the outputs */
    const float *packed, *bias; /* bias (E), or NULL */
    const float *inputs;
    float *outputs;
} Linear;

#if defined(__x86_64__)
TARGET_PUSH("avx512f,avx512vl,avx512dq,avx512bw,fma,prfchw")
#define LANES 16
#define ROWS 8
#define NAME(x) x##_avx512
#include "mgu_products_kernels.h"
TARGET_POP

TARGET_PUSH("avx2,fma")
#define LANES 8
#define ROWS 6
#define NAME(x) x##_avx2
#include "mgu_products_kernels.h"
TARGET_POP
#endif

#define LANES 4
#define ROWS 6
#define NAME(x) x##_portable
#include "mgu_products_kernels.h"

typedef struct {
    int lanes, rows; /* floats in a vector, rows in a tile */
    void (*linear)(const Linear *, int64_t row0, int64_t row1);
    void (*gradients)(const Weights *, int64_t tile0, int64_t tile1, int64_t depth, float *room);
} Kernels;

/* In the order of mgu_best. */
static const Kernels KERNELS[] = {
    {4, 6, linear_portable, gradients_portable},
#if defined(__x86_64__)
    {8, 6, linear_avx2, gradients_avx2},
    {16, 8, linear_avx512, gradients_avx512},
#endif
};

/* The panel of columns column0 .. column0 + width of the weight. */
static void pack_weight(const float *weight, int transposed, int64_t K, int64_t E, int64_t column0, int64_t width,
                        float *panel)
{
    const int64_t count = column0 + width < E ? width : E - column0;
    for (int64_t k = 0; transposed && k < K; k++)
        memcpy(panel + k * width, weight + k * E + column0, sizeof(float) * (size_t)count);
    if (transposed) return;
    for (int64_t from = 0; from < count; from += 16) { /* by blocks of 16 x 16, which stay in cache */
        const int64_t to = from + 16 < count ? from + 16 : count;
        for (int64_t k0 = 0; k0 < K; k0 += 16)
            for (int64_t k = k0; k < k0 + 16 && k < K; k++)
                for (int64_t column = from; column < to; column++)
                    panel[k * width + column] = weight[(column0 + column) * K + k];
    }
}

/* outputs (N, E) = inputs (N, K) times the weight, plus bias (E) or NULL; N is at least 8. The weight is (E, K), or
 * (K, E) if it is `transposed`. 0, or 1 when memory is short. */
EXPORT int mgu_linear(const float *inputs, const float *weight, const float *bias, float *outputs, int64_t N,
                      int64_t K, int64_t E, int transposed, int threads, int kind)
{
    const Kernels *kernels = &KERNELS[kind];
    const int64_t width = 2 * kernels->lanes, panels = ceil_div(E, width), groups = N < 2 * GROUP ? 1 : N / GROUP;
    float *packed = allocate(panels * width * K);
    if (!packed) return 1;
    const Linear job = {K, E, packed, bias, inputs, outputs};
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t panel = 0; panel < panels; panel++)
        pack_weight(weight, transposed, K, E, panel * width, width, packed + panel * width * K);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t group = 0; group < groups; group++)
        kernels->linear(&job, N * group / groups, N * (group + 1) / groups);
    (void)threads; /* which a compiler without OpenMP does not use */
    free(packed);
    return 0;
}

/* 0, or 1 when memory is short. grad_product is NULL without the reset gate, where dp is dn. */
EXPORT int mgu_weight_gradients(const float *inputs, const float *hidden, const float *outputs,
                                const float *grad_projection, const float *grad_product, float *grad_weight_ih,
                                float *grad_weight_hh, int64_t B, int64_t T, int64_t D, int64_t H, int threads,
                                int kind)
{
    const Weights job = {B, T, D, H, inputs, hidden, outputs, grad_projection, grad_product, grad_weight_ih,
                         grad_weight_hh};
    const Kernels *kernels = &KERNELS[kind];
    memset(grad_weight_ih, 0, sizeof(float) * (size_t)(2 * H * D));
    memset(grad_weight_hh, 0, sizeof(float) * (size_t)(2 * H * H));
    if (B == 0 || T == 0 || H == 0) return 0;
    const int64_t columns = round_up(D, 2 * kernels->lanes) + round_up(H, 2 * kernels->lanes);
    const int64_t tiles = ceil_div(H, kernels->rows);
    int64_t depth = CACHED / columns > 64 ? CACHED / columns : 64;
    if (depth > B * T) depth = B * T;
    if (B * T * columns * H < 1000000) threads = 1;
    if (threads > tiles) threads = (int)tiles;
    int failed = 0;
    /* Threads share the units, and each packs all of x and h: a small part of what it computes. */
#pragma omp parallel for num_threads(threads) reduction(| : failed) if (threads > 1)
    for (int thread = 0; thread < threads; thread++) {
        float *room = allocate(depth * (columns + kernels->rows));
        failed |= !room;
        if (room) kernels->gradients(&job, tiles * thread / threads, tiles * (thread + 1) / threads, depth, room);
        free(room);
    }
    return failed;
}
