/* The streaming step on a CPU: from log-mel features to log-probabilities, the whole encoder in one call.
 *
 * The equations are those of asr/encoder.py, the weights packed once by asr/packed.py, in one of three ways:
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
    Product product; /* of a window, kernel * inputs, to values, then gates */
    const float *norm;
} Convolution;

typedef struct {
    Product inputs, recurrent, projection; /* columns f, then n; the bias of `recurrent` is that of W_hn h */
    const float *norm, *ahead;             /* (width), (lookahead, width) */
    int64_t lookahead;
} Block;

typedef struct {
    Product input, head;
    const float *norm;
    const Convolution *convolutions;
    const Block *blocks;
    int64_t convolution_count, block_count;
    int64_t packing, gtu, reset_gate;
    int64_t context, width, hidden, vocabulary; /* context: kernel - 2 */
    int64_t state;                              /* floats of a stream's state: asr.state.pack's row */
} Encoder;

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
    float *frames, *residual, *sums, *recurrent, *outputs, *quanta;
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

static Encode *const ENCODE[] = {
    encode_portable,
#if defined(__x86_64__)
    encode_avx2,
    encode_avx512,
#endif
};

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* How much a product of so many rows needs of the scratch. */
static void reserve(const Encoder *encoder, const Product *product, int64_t rows, int64_t lanes, int64_t *most_sums,
                    int64_t *most_cells)
{
    *most_sums = larger(*most_sums, rows * round_up(product->columns, 2 * lanes));
    *most_cells = larger(*most_cells, rows * (cells(encoder->packing, product->depth) + lanes));
}

/* Scratch for pieces of `steps` frames of `streams` streams; NULL when memory is short, else to be freed. */
static float *make_scratch(const Encoder *encoder, int64_t streams, int64_t steps, int64_t lanes, Scratch *scratch)
{
    const int64_t rows = streams * steps;
    int64_t sums = 0, most_cells = 0, frames = rows * larger(encoder->width, encoder->input.depth), ahead = 0;
    for (int64_t i = 0; i < encoder->convolution_count; i++) {
        const Product *product = &encoder->convolutions[i].product;
        const int64_t length = steps << (encoder->convolution_count - i);
        reserve(encoder, product, streams * length / 2, lanes, &sums, &most_cells);
        frames = larger(frames, streams * (encoder->context + length) * product->depth / (encoder->context + 2));
    }
    for (int64_t i = 0; i < encoder->block_count; i++) {
        const Block *block = encoder->blocks + i;
        const Product *products[] = {&block->inputs, &block->recurrent, &block->projection};
        for (int j = 0; j < 3; j++) reserve(encoder, products[j], rows, lanes, &sums, &most_cells);
        ahead = larger(ahead, block->lookahead);
    }
    reserve(encoder, &encoder->input, rows, lanes, &sums, &most_cells);
    reserve(encoder, &encoder->head, rows, lanes, &sums, &most_cells);
    frames = larger(frames, (ahead + steps) * encoder->width);
    scratch->wide = round_up(encoder->width, 2 * lanes);
    const int64_t sizes[] = {sums, rows * scratch->wide, streams * round_up(2 * encoder->hidden, 2 * lanes),
                             most_cells, frames, rows * encoder->hidden, rows << encoder->convolution_count};
    float **parts[] = {&scratch->sums, &scratch->residual, &scratch->recurrent, (float **)&scratch->cells,
                       &scratch->frames, &scratch->outputs, &scratch->quanta};
    int64_t total = 0;
    for (int i = 0; i < 7; i++) total += round_up(sizes[i], 16);
    float *memory = allocate(total);
    for (int64_t i = 0, at = 0; memory && i < 7; at += round_up(sizes[i++], 16)) *parts[i] = memory + at;
    return memory;
}

/* Streams first .. first + streams, in pieces of time; 1 when memory is short. */
static int run(const Encoder *encoder, const float *features, float *state, float *log_probs, int64_t first,
               int64_t streams, int64_t steps, int kind)
{
    const int64_t piece = larger(1, PIECE_ROWS / streams), most = piece < steps ? piece : steps;
    const int64_t mels = encoder->convolutions[0].product.depth / (encoder->context + 2);
    const int64_t frame = mels << encoder->convolution_count, outputs = encoder->head.columns;
    Scratch scratch;
    float *memory = make_scratch(encoder, streams, most, 4 << kind, &scratch);
    if (!memory) return 1;
    for (int64_t t = 0; t < steps; t += most)
        ENCODE[kind](encoder, features + (first * steps + t) * frame, steps * frame, state + first * encoder->state,
                     log_probs + (first * steps + t) * outputs, steps * outputs, streams,
                     steps - t < most ? steps - t : most, &scratch);
    free(memory);
    return 0;
}

/* features (B, T, M) and T = steps << convolutions; state (B, state), which is replaced by the state after the chunk;
 * log_probs (B, steps * outputs, vocabulary). 0, or 1 when memory is short. */
EXPORT int step_forward(const Encoder *encoder, const float *features, float *state, float *log_probs, int64_t B,
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
        failed |= run(encoder, features, state, log_probs, first, next - first, steps, kind);
    }
    return failed;
}
