/* The sums of asr/training/denominator.py, which says what they are: here for one processor, utterance by utterance. */
#include <math.h>

#include "common.h"

/* out[w] += scale * row[w] */
static void add_scaled(float *restrict out, const float *restrict row, float scale, int64_t size)
{
    for (int64_t w = 0; w < size; ++w) out[w] += scale * row[w];
}

/* Of one utterance: log_probs (n, V); transitions (V, V) and transposed; room for (4 n + 8) V + n numbers. */
static double utterance(const float *log_probs, const float *transitions, const float *transposed, int64_t n, int64_t size,
                        float *occupied, float *room)
{
    float *silent = room, *sounding = silent + (n + 1) * size, *outputs = sounding + (n + 1) * size;
    float *reached = outputs + n * size, *scales = reached + n * size;
    float *both = scales + n, *quiet = both + size, *loud = quiet + size, *said = loud + size, *entered = said + size;
    double total = 0;
    memset(silent, 0, size * sizeof *silent);
    memset(sounding, 0, size * sizeof *sounding);
    silent[0] = 1;
    for (int64_t t = 0; t < n; ++t) {
        const float *still = silent + t * size, *sounds = sounding + t * size;
        float *next_still = silent + (t + 1) * size, *next_sounds = sounding + (t + 1) * size;
        float *here = outputs + t * size, *in = reached + t * size, sum = 0;
        for (int64_t w = 0; w < size; ++w) {
            here[w] = expf(log_probs[t * size + w]);
            both[w] = still[w] + sounds[w];
            in[w] = sounds[w] * (1 - transitions[w * size + w]); /* a token after itself: only through a blank */
        }
        for (int64_t v = 0; v < size; ++v)
            if (both[v] > 0) add_scaled(in, transitions + v * size, both[v], size);
        in[0] = 0;
        for (int64_t w = 0; w < size; ++w) {
            next_still[w] = both[w] * here[0];
            next_sounds[w] = in[w] * here[w];
            sum += next_still[w] + next_sounds[w];
        }
        scales[t] = 1 / sum;
        for (int64_t w = 0; w < size; ++w) {
            next_still[w] *= scales[t];
            next_sounds[w] *= scales[t];
        }
        total += log(sum);
    }
    for (int64_t w = 0; w < size; ++w) quiet[w] = loud[w] = 1;
    for (int64_t t = n; t-- > 0;) {
        const float *still = silent + t * size, *sounds = sounding + t * size, *here = outputs + t * size;
        float *found = occupied + t * size, blank = 0;
        for (int64_t w = 0; w < size; ++w) {
            const float pause = here[0] * scales[t] * quiet[w];
            said[w] = here[w] * scales[t] * loud[w];
            found[w] = reached[t * size + w] * said[w];
            blank += (still[w] + sounds[w]) * pause;
            entered[w] = pause;
        }
        said[0] = 0;
        found[0] = blank;
        for (int64_t w = 1; w < size; ++w) add_scaled(entered, transposed + w * size, said[w], size);
        for (int64_t v = 0; v < size; ++v) {
            quiet[v] = entered[v];
            loud[v] = entered[v] + said[v] * (1 - transitions[v * size + v]);
        }
    }
    return total;
}

/* log_probs (B, T, V), frames (B,), transitions (V, V) -> totals (B,) and their gradients, occupied (B, T, V), which
   comes zeroed. 1 where memory runs out. */
EXPORT int denominator(const float *log_probs, const int64_t *frames, const float *transitions, double *totals,
                       float *occupied, int64_t batch, int64_t time, int64_t size, int threads)
{
    int failed = 0;
    float *transposed = allocate(size * size);
    if (!transposed) return 1;
    for (int64_t v = 0; v < size; ++v)
        for (int64_t w = 0; w < size; ++w) transposed[w * size + v] = transitions[v * size + w];
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t b = 0; b < batch; ++b) {
        float *room = allocate((4 * time + 8) * size + time);
        if (!room) {
            failed = 1;
            continue;
        }
        const int64_t start = b * time * size;
        totals[b] = utterance(log_probs + start, transitions, transposed, frames[b], size, occupied + start, room);
        free(room);
    }
    free(transposed);
    return failed;
}
