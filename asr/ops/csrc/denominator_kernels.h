/* The sums of the denominator for one instruction set: denominator.c includes this file with
 *   LANES    floats in a vector register, utterances of a group
 *   NAME(x)  x with the suffix of the instruction set
 */

#include "vectors.h"

/* From the states of a frame, in two parts that are changed, to those that sound in the next one. */
INLINE void NAME(enter)(const Graph *g, V *restrict quiet, V *restrict loud, V *restrict in)
{
    const int64_t size = g->vocabulary;
    memcpy(in, loud, (size_t)g->states * sizeof *in);
    for (int64_t s = g->states; s-- > 0;) {
        if (s >= size) {
            quiet[g->lower[s]] += g->backoff[s] * quiet[s];
            loud[g->lower[s]] += g->backoff[s] * loud[s];
        }
        const V both = quiet[s] + loud[s];
        for (int64_t a = g->offsets[s]; a < g->offsets[s + 1]; ++a) in[g->targets[a]] += g->weights[a] * both;
        if (g->again_targets[s] >= 0) in[g->again_targets[s]] += g->again_weights[s] * quiet[s]; /* only through a blank */
    }
    V every = {0};
    for (int64_t v = 0; v < size; ++v) every += g->backoff[v] * (quiet[v] + loud[v]);
    for (int64_t v = 0; v < size; ++v) in[v] += g->unigrams[v] * (every - g->backoff[v] * loud[v]);
    in[0] = (V){0};
}

/* The transpose: what it adds to both parts of the states before. */
INLINE void NAME(leave)(const Graph *g, const V *restrict said, V *restrict quiet, V *restrict loud)
{
    const int64_t size = g->vocabulary;
    V every = {0};
    for (int64_t v = 0; v < size; ++v) every += g->unigrams[v] * said[v];
    for (int64_t s = 0; s < g->states; ++s) {
        V even = {0}, odd = {0}; /* one sum would wait for its own additions */
        int64_t a = g->offsets[s];
        for (; a + 1 < g->offsets[s + 1]; a += 2) {
            even += g->weights[a] * said[g->targets[a]];
            odd += g->weights[a + 1] * said[g->targets[a + 1]];
        }
        if (a < g->offsets[s + 1]) even += g->weights[a] * said[g->targets[a]];
        quiet[s] = loud[s] = even + odd;
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

/* How many floats `sums` needs. */
static int64_t NAME(needed)(const Graph *g, int64_t frames)
{
    return LANES * ((2 * frames + 9) * g->states + (frames + 1) * g->vocabulary + frames);
}

/* Of a group of utterances, the longest of `frames` frames. Lanes go on behind the end of their utterance, where
 * nothing is taken from them; those of none repeat the first one's. */
static void NAME(sums)(const Graph *g, const Some *some, int64_t frames, float *room)
{
    const int64_t size = g->vocabulary, states = g->states;
    V *still = (V *)room, *sounds = still + (frames + 1) * states, *in = sounds + (frames + 1) * states;
    V *quiet = in + states, *loud = quiet + states, *said = loud + states;
    V *after_quiet = said + states, *after_loud = after_quiet + states;
    V *outputs = after_loud + states, *scales = outputs + frames * size, *found = scales + frames;
    const V ones = (V){0} + 1;
    int64_t ends[LANES];
    double totals[LANES] = {0};
    for (int lane = 0; lane < LANES; lane++) {
        const int64_t b = some->first + (lane < some->count ? lane : 0);
        ends[lane] = some->frames[b];
        const float *from = some->log_probs + b * some->time * size;
        for (int64_t i = 0; i < frames * size; ++i) ((float *)&outputs[i])[lane] = expf(from[i]);
    }
    memset(still, 0, (size_t)states * sizeof *still);
    memset(sounds, 0, (size_t)states * sizeof *sounds);
    still[0] = ones;
    for (int64_t t = 0; t < frames; ++t, still += states, sounds += states) {
        const V *here = outputs + t * size;
        V sum = {0};
        memcpy(quiet, still, (size_t)states * sizeof *quiet);
        memcpy(loud, sounds, (size_t)states * sizeof *loud);
        NAME(enter)(g, quiet, loud, in);
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
        for (int lane = 0; lane < LANES; lane++)
            if (t < ends[lane]) totals[lane] += log(sum[lane]);
    }
    for (int lane = 0; lane < some->count; lane++) some->totals[some->first + lane] = totals[lane];
    for (int64_t s = 0; s < states; ++s) after_quiet[s] = after_loud[s] = ones;
    for (int64_t t = frames; t-- > 0; still -= states, sounds -= states) {
        const V *here = outputs + t * size;
        V blank = {0};
        VI inside = {0};
        memset(found, 0, (size_t)size * sizeof *found);
        for (int64_t s = 0; s < states; ++s) { /* what came into a state in this frame, times what goes on from it */
            found[g->tokens[s]] += sounds[s] * after_loud[s];
            blank += still[s] * after_quiet[s];
            said[s] = here[g->tokens[s]] * scales[t] * after_loud[s];
            after_quiet[s] *= here[0] * scales[t];
        }
        said[0] = (V){0};
        found[0] = blank;
        for (int lane = 0; lane < some->count; lane++) {
            inside[lane] = -(t < ends[lane]);
            float *to = some->occupied + ((some->first + lane) * some->time + t) * size;
            for (int64_t v = 0; t < ends[lane] && v < size; ++v) to[v] = found[v][lane];
        }
        NAME(leave)(g, said, quiet, loud);
        for (int64_t s = 0; s < states; ++s) {
            after_loud[s] = (V)(((VI)(after_quiet[s] + loud[s]) & inside) | ((VI)ones & ~inside));
            after_quiet[s] = (V)(((VI)(after_quiet[s] + quiet[s]) & inside) | ((VI)ones & ~inside));
        }
    }
}

#undef LANES
#undef NAME
