/* The sums of asr/training/denominator.py, which says what they are and what a graph is: here for one processor. An arc
   is read for several utterances at a time, each of which has its own lane of the vectors. */
#include <math.h>

#include "common.h"

typedef struct {
    int64_t vocabulary, states;
    const int64_t *tokens, *lower, *offsets, *targets, *again_targets;
    const float *backoff, *weights, *again_weights, *unigrams;
} Graph;

/* Utterances: row `first` and those after it, of (B, time, vocabulary). */
typedef struct {
    const float *log_probs;
    const int64_t *frames;
    int64_t first, count, time;
    double *totals;
    float *occupied;
} Some;

#if defined(__x86_64__)
TARGET_PUSH("avx2,fma")
#define LANES 8
#define NAME(x) x##_avx2
#include "denominator_kernels.h"
TARGET_POP
#endif

#define LANES 4
#define NAME(x) x##_portable
#include "denominator_kernels.h"

typedef struct {
    int lanes;
    int64_t (*needed)(const Graph *, int64_t frames);
    void (*sums)(const Graph *, const Some *, int64_t frames, float *room);
} Kernels;

/* In the order of mgu_best. AVX-512 has no more lanes: a batch seldom has 16 utterances for each thread. */
static const Kernels KERNELS[] = {
    {4, needed_portable, sums_portable},
#if defined(__x86_64__)
    {8, needed_avx2, sums_avx2},
    {8, needed_avx2, sums_avx2},
#endif
};

/* log_probs (B, T, V), frames (B,), a graph -> totals (B,) and their gradients, occupied (B, T, V), which comes zeroed.
   1 where memory runs out. */
EXPORT int denominator(const float *log_probs, const int64_t *frames, const int64_t *tokens, const int64_t *lower,
                       const float *backoff, const int64_t *offsets, const int64_t *targets, const float *weights,
                       const int64_t *again_targets, const float *again_weights, const float *unigrams, double *totals,
                       float *occupied, int64_t batch, int64_t time, int64_t size, int64_t states, int threads, int kind)
{
    const Graph graph = {size, states, tokens, lower, offsets, targets, again_targets, backoff, weights, again_weights, unigrams};
    const Kernels *kernels = &KERNELS[kind];
    int64_t groups = ceil_div(batch, kernels->lanes);
    if (threads > 1) groups = round_up(groups, threads);
    if (groups > batch) groups = batch;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : failed)
    for (int64_t group = 0; group < groups; ++group) {
        Some some = {log_probs, frames, batch * group / groups, 0, time, totals, occupied};
        some.count = batch * (group + 1) / groups - some.first;
        int64_t most = 0;
        for (int64_t b = some.first; b < some.first + some.count; ++b) most = frames[b] > most ? frames[b] : most;
        float *room = allocate_dirty(kernels->needed(&graph, most));
        failed |= !room;
        if (room) kernels->sums(&graph, &some, most, room);
        free(room);
    }
    return failed;
}
