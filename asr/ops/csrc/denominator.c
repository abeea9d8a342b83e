/* The sums of asr/training/denominator.py, which says what they are and what a graph is: here for one processor, utterance by
   utterance. */
#include <math.h>

#include "common.h"

typedef struct {
    int64_t vocabulary, states;
    const int64_t *tokens, *lower, *offsets, *targets, *again_targets;
    const float *backoff, *weights, *again_weights, *unigrams;
} Graph;

/* From the states of a frame, in two parts that are changed, to those that sound in the next one. */
static void enter(const Graph *g, float *restrict quiet, float *restrict loud, float *restrict in)
{
    const int64_t size = g->vocabulary;
    float every = 0;
    memcpy(in, loud, g->states * sizeof *in);
    for (int64_t s = g->states; s-- > 0;) {
        if (quiet[s] + loud[s] == 0) continue;
        if (s >= size) {
            quiet[g->lower[s]] += g->backoff[s] * quiet[s];
            loud[g->lower[s]] += g->backoff[s] * loud[s];
        }
        const float both = quiet[s] + loud[s];
        for (int64_t a = g->offsets[s]; a < g->offsets[s + 1]; ++a) in[g->targets[a]] += g->weights[a] * both;
        if (g->again_targets[s] >= 0) in[g->again_targets[s]] += g->again_weights[s] * quiet[s]; /* only through a blank */
    }
    for (int64_t v = 0; v < size; ++v) every += g->backoff[v] * (quiet[v] + loud[v]);
    for (int64_t v = 0; v < size; ++v) in[v] += g->unigrams[v] * (every - g->backoff[v] * loud[v]);
    in[0] = 0;
}

/* The transpose: what it adds to both parts of the states before. */
static void leave(const Graph *g, const float *restrict said, float *restrict quiet, float *restrict loud)
{
    const int64_t size = g->vocabulary;
    float every = 0;
    for (int64_t v = 0; v < size; ++v) every += g->unigrams[v] * said[v];
    for (int64_t s = 0; s < g->states; ++s) {
        float sum = 0;
        for (int64_t a = g->offsets[s]; a < g->offsets[s + 1]; ++a) sum += g->weights[a] * said[g->targets[a]];
        quiet[s] = loud[s] = sum;
        if (g->again_targets[s] >= 0) quiet[s] += g->again_weights[s] * said[g->again_targets[s]];
        if (s < size) {
            quiet[s] += g->backoff[s] * every;
            loud[s] += g->backoff[s] * (every - g->unigrams[s] * said[s]);
        } else {
            quiet[s] += g->backoff[s] * quiet[g->lower[s]];
            loud[s] += g->backoff[s] * loud[g->lower[s]];
        }
    }
    for (int64_t s = 0; s < g->states; ++s) loud[s] += said[s];
}

/* How many numbers an utterance of n frames needs. */
static int64_t needed(const Graph *g, int64_t n) { return (3 * n + 7) * g->states + n * g->vocabulary + n; }

/* Of one utterance: log_probs (n, V). */
static double utterance(const Graph *g, const float *log_probs, int64_t n, float *occupied, float *room)
{
    const int64_t size = g->vocabulary, states = g->states;
    float *still = room, *sounds = still + (n + 1) * states, *reached = sounds + (n + 1) * states;
    float *quiet = reached + n * states, *loud = quiet + states, *said = loud + states;
    float *after_quiet = said + states, *after_loud = after_quiet + states;
    float *outputs = after_loud + states, *scales = outputs + n * size;
    double total = 0;
    memset(still, 0, states * sizeof *still);
    memset(sounds, 0, states * sizeof *sounds);
    still[0] = 1;
    for (int64_t t = 0; t < n; ++t, still += states, sounds += states) {
        float *here = outputs + t * size, *in = reached + t * states, sum = 0;
        for (int64_t v = 0; v < size; ++v) here[v] = expf(log_probs[t * size + v]);
        memcpy(quiet, still, states * sizeof *quiet);
        memcpy(loud, sounds, states * sizeof *loud);
        enter(g, quiet, loud, in);
        for (int64_t s = 0; s < states; ++s) {
            still[states + s] = (still[s] + sounds[s]) * here[0];
            sounds[states + s] = in[s] * here[g->tokens[s]];
            sum += still[states + s] + sounds[states + s];
        }
        scales[t] = 1 / sum;
        for (int64_t s = 0; s < states; ++s) {
            still[states + s] *= scales[t];
            sounds[states + s] *= scales[t];
        }
        total += log(sum);
    }
    for (int64_t s = 0; s < states; ++s) after_quiet[s] = after_loud[s] = 1;
    for (int64_t t = n; t-- > 0;) {
        still -= states;
        sounds -= states;
        const float *here = outputs + t * size, *in = reached + t * states;
        float *found = occupied + t * size, blank = 0;
        for (int64_t s = 0; s < states; ++s) {
            said[s] = here[g->tokens[s]] * scales[t] * after_loud[s];
            after_quiet[s] *= here[0] * scales[t];
            blank += (still[s] + sounds[s]) * after_quiet[s];
            found[g->tokens[s]] += in[s] * said[s];
        }
        said[0] = 0;
        found[0] = blank;
        leave(g, said, quiet, loud);
        for (int64_t s = 0; s < states; ++s) {
            after_loud[s] = after_quiet[s] + loud[s];
            after_quiet[s] += quiet[s];
        }
    }
    return total;
}

/* log_probs (B, T, V), frames (B,), a graph -> totals (B,) and their gradients, occupied (B, T, V), which comes zeroed.
   1 where memory runs out. */
EXPORT int denominator(const float *log_probs, const int64_t *frames, const int64_t *tokens, const int64_t *lower,
                       const float *backoff, const int64_t *offsets, const int64_t *targets, const float *weights,
                       const int64_t *again_targets, const float *again_weights, const float *unigrams, double *totals,
                       float *occupied, int64_t batch, int64_t time, int64_t size, int64_t states, int threads)
{
    const Graph graph = {size, states, tokens, lower, offsets, targets, again_targets, backoff, weights, again_weights, unigrams};
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t b = 0; b < batch; ++b) {
        float *room = allocate(needed(&graph, frames[b]));
        if (!room) {
            failed = 1;
            continue;
        }
        totals[b] = utterance(&graph, log_probs + b * time * size, frames[b], occupied + b * time * size, room);
        free(room);
    }
    return failed;
}
