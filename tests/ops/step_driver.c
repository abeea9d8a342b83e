/* Drives csrc/step.c under the sanitizers: every instruction set and packing, odd sizes, one to three threads, on
 * allocations of exactly the size that the interface promises. That the values are right, test_packed.py tells; here
 * they have to be distributions, and the same for a chunk in two pieces. Exit status 0 when all is well. */

#include "step.c"

#include <stdio.h>

static uint64_t seed = 1;
static void *made[1000];
static int made_count;

static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) / 2147483648.0f;
}

static void *keep(int64_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, (size_t)(bytes ? bytes : 1))) abort();
    return made[made_count++] = memory;
}

static float *fill(int64_t count)
{
    float *array = keep(4 * count);
    for (int64_t i = 0; i < count; i++) array[i] = uniform();
    return array;
}

static Product product(int64_t columns, int64_t depth, int64_t packing, int kind)
{
    const int64_t padded = round_up(columns, 8 << kind), values = padded * cells(packing, depth);
    Product made_of = {NULL, fill(padded), fill(padded), depth, columns};
    if (packing == F32) {
        float *weights = fill(values);
        for (int64_t i = 0; i < values; i++) weights[i] /= 8; /* or the recurrence would be chaotic */
        made_of.weights = (const char *)weights;
        return made_of;
    }
    uint16_t *weights = keep(2 * values);
    for (int64_t i = 0; i < values; i++) /* float16 below one, or two int8 */
        weights[i] = (uint16_t)(int32_t)(32767 * uniform()) & (packing == F16 ? 0xbbff : 0xffff);
    made_of.weights = (const char *)weights;
    return made_of;
}

static int check(int64_t mels, int64_t width, int64_t hidden, int64_t kernel, int64_t ahead, int64_t B, int64_t steps,
                 int64_t packing, int threads, int kind)
{
    const int64_t channels[] = {mels, 7, 12}, outputs = 2, vocabulary = 19;
    Convolution convolutions[2];
    Block blocks[2];
    for (int i = 0; i < 2; i++)
        convolutions[i] =
            (Convolution){product(2 * channels[i + 1], kernel * channels[i], packing, kind), fill(channels[i + 1])};
    for (int i = 0; i < 2; i++) {
        blocks[i] = (Block){product(2 * hidden, width, packing, kind), product(2 * hidden, hidden, packing, kind),
                            {0}, fill(width), fill(i * ahead * width), i * ahead};
        if (hidden != width) blocks[i].projection = product(width, hidden, packing, kind);
    }
    const int64_t state_size = (kernel - 2) * (channels[0] + channels[1]) + ahead * width + 2 * hidden;
    const Encoder encoder = {product(width, channels[2], packing, kind),
                             product(outputs * vocabulary, width, packing, kind), fill(width), convolutions, blocks,
                             2, 2, packing, B & 1, steps & 1, kernel - 2, width, hidden, vocabulary, state_size};
    float *features = fill(B * 4 * steps * mels), *state = fill(B * state_size);
    float *whole = fill(B * steps * outputs * vocabulary), *again = fill(state_size);
    copy(again, state, B ? state_size : 0);
    int bad = step_forward(&encoder, features, state, whole, B, steps, threads, kind);
    for (int64_t row = 0; row < B * steps * outputs; row++) {
        double sum = 0;
        for (int64_t i = 0; i < vocabulary; i++) sum += exp(whole[row * vocabulary + i]);
        bad |= !(fabs(sum - 1) < 1e-4);
    }
    if (B && steps > 1) { /* the first stream by itself, in two pieces */
        float *pieces = fill(steps * outputs * vocabulary);
        bad |= step_forward(&encoder, features, again, pieces, 1, 1, threads, kind);
        bad |= step_forward(&encoder, features + 4 * mels, again, pieces + outputs * vocabulary, 1, steps - 1, 1, kind);
        for (int64_t i = 0; i < steps * outputs * vocabulary; i++) bad |= !(fabsf(pieces[i] - whole[i]) < 1e-2f);
        for (int64_t i = 0; i < state_size; i++) bad |= !(fabsf(again[i] - state[i]) < 1e-2f);
    }
    if (bad)
        printf("mels %d width %d hidden %d kernel %d B %d steps %d packing %d threads %d kind %d: wrong\n", (int)mels,
               (int)width, (int)hidden, (int)kernel, (int)B, (int)steps, (int)packing, threads, kind);
    while (made_count) free(made[--made_count]);
    return bad;
}

int main(void)
{
    static const int64_t sizes[][7] = {{1, 1, 1, 2, 0, 1, 1},   {5, 33, 17, 3, 2, 2, 3}, {16, 32, 32, 5, 3, 13, 2},
                                       {13, 9, 40, 5, 1, 30, 4}, {8, 47, 47, 4, 5, 1, 130}, {8, 16, 16, 5, 1, 0, 3},
                                       {8, 16, 16, 5, 1, 3, 0}};
    int bad = 0;
    for (int kind = 0; kind <= step_best(); kind++)
        for (int threads = 1; threads <= 3; threads++)
            for (int64_t packing = F32; packing <= INT8; packing++)
                for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                    const int64_t *s = sizes[i];
                    bad |= check(s[0], s[1], s[2], s[3], s[4], s[5], s[6], packing, threads, kind);
                }
    return bad;
}
