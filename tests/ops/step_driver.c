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

/* Of windows of `window` samples, any size; filters of random shape. */
static FrontEnd front_end(int64_t window, int64_t hop, int64_t mels, float mean_frames)
{
    int64_t fft = 2;
    while (fft < window) fft *= 2;
    float *turns = fill(fft), *std = fill(mels);
    int64_t *places = keep(8 * fft / 2), *bins = keep(8 * 2 * mels);
    for (int64_t k = 0; k < fft / 2; k++) {
        turns[2 * k] = (float)cos(-6.283185307179586 * (double)k / (double)fft);
        turns[2 * k + 1] = (float)sin(-6.283185307179586 * (double)k / (double)fft);
        places[k] = 0;
        for (int64_t bit = 1; bit < fft / 2; bit *= 2) places[k] = 2 * places[k] + (k & bit ? 1 : 0);
    }
    float *filters = fill(mels * (fft / 2 + 1));
    for (int64_t i = 0; i < mels * (fft / 2 + 1); i++) filters[i] = fabsf(filters[i]);
    for (int64_t m = 0; m < mels; m++) {
        std[m] = 1 + fabsf(std[m]);
        bins[2 * m] = m % (fft / 2);
        bins[2 * m + 1] = m % 3 ? fft / 2 + 1 : bins[2 * m];
    }
    return (FrontEnd){fill(window), fill(mels), std, turns, places, filters, bins, window, hop, fft, mels, 1e-6f,
                      mean_frames, 2, 1, 0.02f};
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
    const int64_t window = 11 + 7 * kernel, hop = 9; /* 25 .. 46 */
    const float mean_frames = mels % 2 ? 20 : 0;
    const int64_t front = window - hop + (mean_frames ? mels + 3 : 0);
    const int64_t state_size = front + (kernel - 2) * (channels[0] + channels[1]) + ahead * width + 2 * hidden;
    const Encoder encoder = {front_end(window, hop, mels, mean_frames), product(width, channels[2], packing, kind),
                             product(outputs * vocabulary, width, packing, kind), fill(width), convolutions, blocks,
                             2, 2, packing, B & 1, steps & 1, kernel - 2, width, hidden, vocabulary, state_size};
    float *audio = fill(B * 4 * steps * hop), *state = fill(B * state_size);
    float *whole = fill(B * steps * outputs * vocabulary), *again = fill(state_size);
    copy(again, state, B ? state_size : 0);
    int bad = step_forward(&encoder, audio, state, whole, B, steps, threads, kind);
    for (int64_t row = 0; row < B * steps * outputs; row++) {
        double sum = 0;
        for (int64_t i = 0; i < vocabulary; i++) sum += exp(whole[row * vocabulary + i]);
        bad |= !(fabs(sum - 1) < 1e-4);
    }
    if (B && steps > 1) { /* the first stream by itself, in two pieces */
        float *pieces = fill(steps * outputs * vocabulary);
        bad |= step_forward(&encoder, audio, again, pieces, 1, 1, threads, kind);
        bad |= step_forward(&encoder, audio + 4 * hop, again, pieces + outputs * vocabulary, 1, steps - 1, 1, kind);
        for (int64_t i = 0; i < steps * outputs * vocabulary; i++) bad |= !(fabsf(pieces[i] - whole[i]) < 1e-2f);
        for (int64_t i = 0; i < state_size; i++) bad |= !(fabsf(again[i] - state[i]) < 1e-2f);
    }
    if (bad)
        printf("mels %d width %d hidden %d kernel %d B %d steps %d packing %d threads %d kind %d: wrong\n", (int)mels,
               (int)width, (int)hidden, (int)kernel, (int)B, (int)steps, (int)packing, threads, kind);
    while (made_count) free(made[--made_count]);
    return bad;
}

static int check_vad(int64_t B, int64_t windows, int kind)
{
    const int64_t columns[] = {128, 64, 64, 128}, inputs[] = {129, 128, 64, 64};
    Vad vad = {.spectrum = product(258, 256, F32, kind), .inputs = product(512, 128, F32, kind),
               .recurrent = product(512, 128, F32, kind), .head = fill(128)};
    for (int i = 0; i < 4; i++) vad.convolutions[i] = product(columns[i], 3 * inputs[i], F32, kind);
    float *audio = fill(B * windows * VAD_WINDOW), *state = fill(B * VAD_STATE), *again = fill(VAD_STATE);
    float *whole = fill(B * windows), *pieces = fill(windows);
    copy(again, state, B ? VAD_STATE : 0);
    int bad = vad_forward(&vad, audio, state, whole, B, windows, kind);
    for (int64_t i = 0; i < B * windows; i++) bad |= !(whole[i] >= 0 && whole[i] <= 1);
    if (B && windows > 1) { /* the first stream by itself, in two pieces */
        bad |= vad_forward(&vad, audio, again, pieces, 1, 1, kind);
        bad |= vad_forward(&vad, audio + VAD_WINDOW, again, pieces + 1, 1, windows - 1, kind);
        for (int64_t w = 0; w < windows; w++) bad |= !(fabsf(pieces[w] - whole[w]) < 1e-3f);
    }
    if (bad) printf("vad, B %d windows %d kind %d: wrong\n", (int)B, (int)windows, kind);
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
    for (int kind = 0; kind <= step_best(); kind++)
        bad |= check_vad(1, 1, kind) | check_vad(3, 30, kind) | check_vad(30, 2, kind) | check_vad(0, 3, kind);
    return bad;
}
