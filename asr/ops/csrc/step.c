/* The streaming step on a CPU: from samples to log-probabilities, the whole model in one call; and, beside it, the VAD.
 *
 * The equations are those of asr/frontend.py and asr/encoder.py, the weights packed once by asr/packed.py, in one of three ways:
 *     F32   as they are
 *     F16   stored as float16, computed with as float32
 *     INT8  by column scaled to -127 .. 127; activations int16, scaled row by row; sums int32
 * A short chunk of one stream costs the time to read the weights, which a smaller packing cuts. All else is float32.
 *
 * A panel of weights is two vectors of columns wide and as deep as the sum is long. It is laid out in cells of four
 * bytes a column: one float, or with INT8 two neighbouring depths as bytes that widen to such a cell.
 * Threads share the streams, each going through the whole encoder by itself: there is no barrier.
 */

#include <float.h>
#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common.h"

#define PIECE_ROWS 96 /* frames of all streams that are computed at once, so that long chunks stay in cache */

enum { F32, F16, INT8 };

typedef struct {
    const char *weights;        /* its panels; NULL where there is no such product */
    const float *scales, *bias; /* of the columns, padded to whole panels; scales only with INT8 */
    int64_t depth, columns;
} Product;

typedef struct {
    const float *taper, *mean, *std; /* (window), (mels) */
    const float *turns;              /* (fft / 2, 2): cosine and sine of -2 pi k / fft */
    const int64_t *places;           /* (fft / 2): where the k-th pair of samples goes, k with its bits reversed */
    const float *filters;            /* (mels, fft / 2 + 1) */
    const int64_t *bins;             /* (mels, 2): of each filter the first that is not zero, and the one after the last */
    int64_t window, hop, fft, mels;
    float floor;                                /* added to the power */
    float mean_frames, hangover, heard, rise; /* of the running mean; 0: none */
} FrontEnd;

typedef struct {
    Product product; /* of a window, kernel * inputs, to values, then gates */
    const float *norm;
} Convolution;

typedef struct {
    Product inputs, recurrent, projection; /* columns f, then n; the bias of `recurrent` is that of W_hn h */
    const float *norm, *ahead;             /* (width), (lookahead, width) */
    int64_t lookahead;
} Block;

typedef struct {
    FrontEnd front_end;
    Product input, head;
    const float *norm;
    const Convolution *convolutions;
    const Block *blocks;
    int64_t convolution_count, block_count;
    int64_t packing, gtu, reset_gate;
    int64_t context, width, hidden, vocabulary; /* context: kernel - 2 */
    int64_t state;                              /* floats of a stream's state: asr.state.pack's row */
} Encoder;

/* Silero's network: a window of 512 samples after 64 of context gives four frames of its spectrum. */
enum {
    VAD_WINDOW = 512,
    VAD_CONTEXT = 64,
    VAD_SAMPLES = 640, /* the context, the window, and 64 samples of it reflected */
    VAD_HOP = 128,
    VAD_FRAMES = 4,
    VAD_HIDDEN = 128,
    VAD_STATE = VAD_CONTEXT + 2 * VAD_HIDDEN
};

typedef struct {
    Product spectrum, convolutions[4], inputs, recurrent; /* all F32; spectrum: cosines, then sines */
    const float *head;                                    /* (VAD_HIDDEN) */
    float head_bias;
} Vad;

/* What a sum takes in at once of a row. */
typedef union {
    float value;
    int32_t bits; /* with INT8 a pair of int16 */
} Cell;

/* Where the rows of a product come from: `each` rows of a stream, `row` apart, streams `stream` apart. */
typedef struct {
    const float *at;
    int64_t each, stream, row;
} Rows;

/* Of one thread. Rows of `residual` are `wide` apart: width, padded to whole panels. */
typedef struct {
    float *samples, *spectrum, *frames, *residual, *sums, *recurrent, *outputs, *quanta;
    Cell *cells;
    int64_t wide;
} Scratch;

#define VECTOR_BYTES(PACKING) ((PACKING) == F32 ? 4 * LANES : 2 * LANES)
#define EACH_VECTOR(I, LENGTH)                                                                     \
    for (int64_t I = 0, count; count = LENGTH - I < LANES ? LENGTH - I : LANES, I < LENGTH; I += LANES)

static void copy(float *to, const float *from, int64_t floats) { memcpy(to, from, sizeof(float) * (size_t)floats); }

/* Cells in a row of so many values. */
static int64_t cells(int64_t packing, int64_t depth) { return packing == INT8 ? ceil_div(depth, 2) : depth; }

/* The largest int16 of an activation with which no sum can overflow. */
static float quantum_limit(int64_t depth)
{
    const int64_t most = INT32_MAX / (127 * depth);
    return (float)(most < INT16_MAX ? most : INT16_MAX);
}

#if defined(__x86_64__)
TARGET_PUSH("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,fma")
#define LANES 16
#define MAX_ROWS 12
#define HALVES(at) _mm512_cvtph_ps(*(const __m256i *)(at))
#define WIDEN(at) _mm512_cvtepi8_epi16(*(const __m256i *)(at))
#define DOT(s, w, x) _mm512_dpwssd_epi32((__m512i)(s), (__m512i)(w), (__m512i)(x))
#define NAME(x) x##_avx512
#include "step_kernels.h"
TARGET_POP

TARGET_PUSH("avx2,fma,f16c")
#define LANES 8
#define MAX_ROWS 6
#define HALVES(at) _mm256_cvtph_ps(*(const __m128i *)(at))
#define WIDEN(at) _mm256_cvtepi8_epi16(*(const __m128i *)(at))
#define DOT(s, w, x) ((s) + (VI)_mm256_madd_epi16((__m256i)(w), (__m256i)(x)))
#define NAME(x) x##_avx2
#include "step_kernels.h"
TARGET_POP
#endif

/* Four float16, infinities excepted: their exponents, shifted into place, want 112 more. */
typedef uint16_t Halves4 __attribute__((vector_size(8)));
typedef int8_t Bytes8 __attribute__((vector_size(8)));
typedef int16_t Shorts8 __attribute__((vector_size(16)));
typedef uint32_t Words4 __attribute__((vector_size(16)));
typedef float Floats4 __attribute__((vector_size(16)));

INLINE Floats4 halves_to_floats(const char *at)
{
    const Words4 half = __builtin_convertvector(*(const Halves4 *)at, Words4);
    const Floats4 magnitude = (Floats4)((half & 0x7fff) << 13) * 0x1p112f;
    return (Floats4)((Words4)magnitude | (half & 0x8000) << 16);
}

#define LANES 4
#define MAX_ROWS 6
#define HALVES(at) halves_to_floats(at)
#define WIDEN(at) __builtin_convertvector(*(const Bytes8 *)(at), Shorts8)
#define DOT(s, w, x) ((s) + ((w) << 16 >> 16) * ((x) << 16 >> 16) + ((w) >> 16) * ((x) >> 16))
#define NAME(x) x##_portable
#include "step_kernels.h"

/* 0 portable, 1 AVX2 with FMA and F16C, 2 AVX-512 with VNNI: vectors of 4 << kind floats. */
EXPORT int step_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vnni"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1; /* all of them have F16C */
#endif
    return 0;
}

typedef void Encode(const Encoder *, const float *, int64_t, float *, float *, int64_t, int64_t, int64_t,
                    const Scratch *);
typedef void Listen(const Vad *, const float *, int64_t, float *, float *, int64_t, int64_t, int64_t, const Scratch *);

#if defined(__x86_64__)
static Encode *const ENCODE[] = {encode_portable, encode_avx2, encode_avx512};
static Listen *const LISTEN[] = {listen_portable, listen_avx2, listen_avx512};
#else
static Encode *const ENCODE[] = {encode_portable};
static Listen *const LISTEN[] = {listen_portable};
#endif

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Floats of each part of the scratch. */
typedef struct {
    int64_t samples, spectrum, frames, residual, sums, recurrent, outputs, quanta, cells;
} Sizes;

/* NULL when memory is short, else to be freed. */
static float *make_scratch(Sizes sizes, Scratch *scratch)
{
    const int64_t floats[] = {sizes.samples,   sizes.spectrum, sizes.frames, sizes.residual, sizes.sums,
                              sizes.recurrent, sizes.outputs,  sizes.quanta, sizes.cells};
    float **parts[] = {&scratch->samples,   &scratch->spectrum, &scratch->frames, &scratch->residual, &scratch->sums,
                       &scratch->recurrent, &scratch->outputs,  &scratch->quanta, (float **)&scratch->cells};
    int64_t total = 0;
    for (int i = 0; i < 9; i++) total += round_up(floats[i], 16);
    float *memory = allocate(total);
    for (int64_t i = 0, at = 0; memory && i < 9; at += round_up(floats[i++], 16)) *parts[i] = memory + at;
    return memory;
}

/* Make room for a product of so many rows. */
static void reserve(int64_t packing, const Product *product, int64_t rows, int64_t lanes, Sizes *sizes)
{
    sizes->sums = larger(sizes->sums, rows * round_up(product->columns, 2 * lanes));
    sizes->cells = larger(sizes->cells, rows * (cells(packing, product->depth) + lanes));
}

/* For pieces of `steps` frames of `streams` streams. */
static Sizes encoder_sizes(const Encoder *encoder, int64_t streams, int64_t steps, int64_t lanes)
{
    const FrontEnd *front = &encoder->front_end;
    const int64_t rows = streams * steps, length = steps << encoder->convolution_count;
    Sizes sizes = {.samples = streams * (front->window + front->hop * (length - 1)),
                   .spectrum = (front->fft + front->fft / 2 + 1) * lanes,
                   .frames = rows * larger(encoder->width, encoder->input.depth),
                   .residual = rows * round_up(encoder->width, 2 * lanes),
                   .recurrent = streams * round_up(2 * encoder->hidden, 2 * lanes),
                   .outputs = rows * encoder->hidden,
                   .quanta = streams * length};
    int64_t ahead = 0;
    for (int64_t i = 0; i < encoder->convolution_count; i++) {
        const Product *product = &encoder->convolutions[i].product;
        const int64_t inputs = product->depth / (encoder->context + 2);
        reserve(encoder->packing, product, streams * (length >> (i + 1)), lanes, &sizes);
        sizes.frames = larger(sizes.frames, streams * (encoder->context + (length >> i)) * inputs);
    }
    for (int64_t i = 0; i < encoder->block_count; i++) {
        const Block *block = encoder->blocks + i;
        const Product *products[] = {&block->inputs, &block->recurrent, &block->projection};
        for (int j = 0; j < 3; j++) reserve(encoder->packing, products[j], rows, lanes, &sizes);
        ahead = larger(ahead, block->lookahead);
    }
    reserve(encoder->packing, &encoder->input, rows, lanes, &sizes);
    reserve(encoder->packing, &encoder->head, rows, lanes, &sizes);
    sizes.frames = larger(sizes.frames, (ahead + steps) * encoder->width);
    return sizes;
}

/* Streams first .. first + streams, in pieces of time; 1 when memory is short. */
static int run(const Encoder *encoder, const float *audio, float *state, float *log_probs, int64_t first,
               int64_t streams, int64_t steps, int kind)
{
    const int64_t piece = larger(1, PIECE_ROWS / streams), most = piece < steps ? piece : steps;
    const int64_t step = encoder->front_end.hop << encoder->convolution_count, outputs = encoder->head.columns;
    Scratch scratch = {.wide = round_up(encoder->width, 8 << kind)};
    float *memory = make_scratch(encoder_sizes(encoder, streams, most, 4 << kind), &scratch);
    if (!memory) return 1;
    for (int64_t t = 0; t < steps; t += most)
        ENCODE[kind](encoder, audio + (first * steps + t) * step, steps * step, state + first * encoder->state,
                     log_probs + (first * steps + t) * outputs, steps * outputs, streams,
                     steps - t < most ? steps - t : most, &scratch);
    free(memory);
    return 0;
}

/* audio (B, steps * hop << convolutions); state (B, state), which is replaced by the state after the chunk; log_probs
 * (B, steps * outputs, vocabulary). 0, or 1 when memory is short. */
EXPORT int step_forward(const Encoder *encoder, const float *audio, float *state, float *log_probs, int64_t B,
                        int64_t steps, int threads, int kind)
{
    if (B == 0 || steps == 0) return 0;
    if (threads > B / 4) threads = (int)larger(1, B / 4); /* each reads all the weights, for four streams or more */
    int failed = 0;
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) reduction(| : failed) if (threads > 1)
#endif
    for (int part = 0; part < threads; part++) {
        const int64_t first = B * part / threads, next = B * (part + 1) / threads;
        failed |= run(encoder, audio, state, log_probs, first, next - first, steps, kind);
    }
    return failed;
}

/* audio (B, windows * VAD_WINDOW); state (B, VAD_STATE), replaced by the state after the audio; speech (B, windows),
 * probabilities. One thread. 0, or 1 when memory is short. */
EXPORT int vad_forward(const Vad *vad, const float *audio, float *state, float *speech, int64_t B, int64_t windows,
                       int kind)
{
    if (B == 0 || windows == 0) return 0;
    const int64_t piece = larger(1, PIECE_ROWS / VAD_FRAMES / B), most = piece < windows ? piece : windows;
    const int64_t rows = B * most, bins = vad->spectrum.columns / 2, lanes = 4 << kind;
    Sizes sizes = {.samples = rows * VAD_SAMPLES,
                   .frames = rows * (VAD_FRAMES + 2) * larger(bins, VAD_HIDDEN),
                   .recurrent = B * 4 * VAD_HIDDEN,
                   .outputs = rows * VAD_HIDDEN};
    reserve(F32, &vad->spectrum, rows * VAD_FRAMES, lanes, &sizes);
    for (int i = 0; i < 4; i++) reserve(F32, vad->convolutions + i, rows * VAD_FRAMES, lanes, &sizes);
    reserve(F32, &vad->inputs, rows, lanes, &sizes);
    reserve(F32, &vad->recurrent, B, lanes, &sizes);
    Scratch scratch = {0};
    float *memory = make_scratch(sizes, &scratch);
    if (!memory) return 1;
    for (int64_t w = 0; w < windows; w += most)
        LISTEN[kind](vad, audio + w * VAD_WINDOW, windows * VAD_WINDOW, state, speech + w, windows, B,
                     windows - w < most ? windows - w : most, &scratch);
    free(memory);
    return 0;
}
