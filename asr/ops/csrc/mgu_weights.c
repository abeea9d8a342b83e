/* Gradients of the MGU's weights: sums over all rows of the batch and all steps of outer products,
 *
 *     dW_ih = sum [df; dn] x^T        dW_hh = sum [df; dp] h^T        p = W_n h + b_hn, h the state before the step
 *
 * Knows only arrays, as mgu.c does, whose backward makes df, dn and dp. What is summed over are rows of all arrays, so that no
 * transposition is needed; rows of x and h are packed into panels, as many as the second cache holds, and df, dn
 * and dp go past them, a few units at a time.
 */

#include "common.h"

#define CACHED 147456 /* floats of x and h that are packed at a time: 576 KiB, measured on 1 MiB of second cache */

typedef struct {
    int64_t B, T, D, H;
    const float *inputs, *hidden, *outputs, *grad_projection, *grad_product; /* as in mgu_backward; inputs (B, T, D) */
    float *grad_weight_ih, *grad_weight_hh;                                  /* (2H, D), (2H, H) */
} Weights;

#if defined(__x86_64__)
TARGET_PUSH("avx512f,avx512vl,avx512dq,avx512bw,fma,prfchw")
#define LANES 16
#define ROWS 8
#define NAME(x) x##_avx512
#include "mgu_weights_kernels.h"
TARGET_POP

TARGET_PUSH("avx2,fma")
#define LANES 8
#define ROWS 6
#define NAME(x) x##_avx2
#include "mgu_weights_kernels.h"
TARGET_POP
#endif

#define LANES 4
#define ROWS 6
#define NAME(x) x##_portable
#include "mgu_weights_kernels.h"

typedef struct {
    int lanes, rows; /* floats in a vector, units in a tile */
    void (*gradients)(const Weights *, int64_t tile0, int64_t tile1, int64_t depth, float *room);
} Kernels;

/* In the order of mgu_best. */
static const Kernels KERNELS[] = {
    {4, 6, gradients_portable},
#if defined(__x86_64__)
    {8, 6, gradients_avx2},
    {16, 8, gradients_avx512},
#endif
};

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
