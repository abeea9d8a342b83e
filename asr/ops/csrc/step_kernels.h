/* The kernels of the streaming step for one instruction set. step.c includes this file once for each, with
 *   LANES         floats in a vector register (16, 8 or 4)
 *   MAX_ROWS      rows in a tile: 2 * MAX_ROWS accumulators, 2 weights and an activation must fit the registers
 *   HALVES(at)    the vector of as many float16 at `at`
 *   WIDEN(at)     the vector of int16 made of as many int8 at `at`
 *   DOT(s, w, x)  s + the products of two neighbouring int16 each, as int32
 *   NAME(x)       x with the suffix of the instruction set
 */

#include "vectors.h"
#include "front_end_kernels.h"

#define FEW_ROWS (MAX_ROWS / 4)
#define COLUMNS (2 * LANES) /* of a panel */

typedef int16_t NAME(Narrow) __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* A vector of a panel: floats, or for INT8 pairs of int16. */
INLINE V NAME(weights)(const int packing, const char *at)
{
    if (packing == F32) return *(const V *)at;
    if (packing == F16) return (V)HALVES(at);
    return (V)WIDEN(at);
}

INLINE V NAME(add)(const int packing, V sum, V weights, const Cell *x)
{
    if (packing == INT8) {
        const VI pair = (VI){0} + x->bits;
        return (V)DOT((VI)sum, (VI)weights, pair);
    }
    return sum + weights * x->value;
}

/* left[row] = x[row] times the left columns of the panel, right likewise: sums over `depth` cells. */
INLINE void NAME(multiply_rows)(const int packing, const int rows, const Cell *x, int64_t stride, const char *at,
                                int64_t depth, V *left, V *right)
{
    const int64_t size = VECTOR_BYTES(packing);
    V l[MAX_ROWS], r[MAX_ROWS];
    UNROLL for (int row = 0; row < rows; row++) l[row] = r[row] = (V){0};
    for (int64_t k = 0; k < depth; k++, at += 2 * size) {
        const V first = NAME(weights)(packing, at), second = NAME(weights)(packing, at + size);
        UNROLL for (int row = 0; row < rows; row++) {
            l[row] = NAME(add)(packing, l[row], first, x + row * stride + k);
            r[row] = NAME(add)(packing, r[row], second, x + row * stride + k);
        }
    }
    UNROLL for (int row = 0; row < rows; row++) left[row] = l[row], right[row] = r[row];
}

INLINE V NAME(join)(const int packing, V a, V b) { return packing == INT8 ? (V)((VI)a + (VI)b) : a + b; }

/* The same for so few rows that one sum each would wait for its own additions: four partial sums. */
INLINE void NAME(multiply_few)(const int packing, const int rows, const Cell *x, int64_t stride, const char *at,
                               int64_t depth, V *left, V *right)
{
    const int64_t size = VECTOR_BYTES(packing);
    V l[FEW_ROWS][4], r[FEW_ROWS][4];
    UNROLL for (int row = 0; row < rows; row++)
        UNROLL for (int part = 0; part < 4; part++) l[row][part] = r[row][part] = (V){0};
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
        UNROLL for (int part = 0; part < 4; part++, at += 2 * size) {
            const V first = NAME(weights)(packing, at), second = NAME(weights)(packing, at + size);
            UNROLL for (int row = 0; row < rows; row++) {
                l[row][part] = NAME(add)(packing, l[row][part], first, x + row * stride + k + part);
                r[row][part] = NAME(add)(packing, r[row][part], second, x + row * stride + k + part);
            }
        }
    }
    for (; k < depth; k++, at += 2 * size)
        UNROLL for (int row = 0; row < rows; row++) {
            l[row][0] = NAME(add)(packing, l[row][0], NAME(weights)(packing, at), x + row * stride + k);
            r[row][0] = NAME(add)(packing, r[row][0], NAME(weights)(packing, at + size), x + row * stride + k);
        }
#define JOIN(a, b) NAME(join)(packing, a, b)
    UNROLL for (int row = 0; row < rows; row++) {
        left[row] = JOIN(JOIN(l[row][0], l[row][1]), JOIN(l[row][2], l[row][3]));
        right[row] = JOIN(JOIN(r[row][0], r[row][1]), JOIN(r[row][2], r[row][3]));
    }
#undef JOIN
}

#define FEW(P, N) case N: NAME(multiply_few)(P, N, x, stride, at, depth, left, right); break;
#define ROWS(P, N) case N: NAME(multiply_rows)(P, N, x, stride, at, depth, left, right); break;
#if MAX_ROWS == 12
#define CASES(P) FEW(P, 1) FEW(P, 2) FEW(P, 3) ROWS(P, 4) ROWS(P, 5) ROWS(P, 6) ROWS(P, 7) ROWS(P, 8) ROWS(P, 9) \
    ROWS(P, 10) ROWS(P, 11) ROWS(P, 12)
#else
#define CASES(P) FEW(P, 1) ROWS(P, 2) ROWS(P, 3) ROWS(P, 4) ROWS(P, 5) ROWS(P, 6)
#endif
/* Packing and number of rows have to be constants for the sums to stay in registers. */
#define MULTIPLY(P)                                                                                          \
    static __attribute__((noinline)) void NAME(multiply_##P)(int64_t rows, const Cell *x, int64_t stride,     \
                                                             const char *at, int64_t depth, V *left, V *right) \
    {                                                                                                        \
        switch (rows) { CASES(P) }                                                                           \
    }
MULTIPLY(F32)
MULTIPLY(F16)
MULTIPLY(INT8)

/* The largest magnitude of a row; not finite where one of its values is not. */
INLINE float NAME(largest)(const float *row, int64_t length)
{
    VI most = {0};
    EACH_VECTOR(i, length) {
        const VI bits = (VI)((VU)NAME(load)(row + i, count) & 0x7fffffffu); /* ordered as the magnitudes are */
        const VI above = bits > most;
        most = (bits & above) | (most & ~above);
    }
    Cell largest = {0};
    for (int lane = 0; lane < LANES; lane++)
        if (most[lane] > largest.bits) largest.bits = most[lane];
    return largest.value;
}

/* A row as int16, and what one of them is worth. */
INLINE float NAME(quantise)(const float *row, int64_t depth, Cell *to)
{
    const float largest = NAME(largest)(row, depth), limit = quantum_limit(depth);
    const int usable = largest > 1e-30f && largest < INFINITY;
    const float inverse = usable ? limit / largest : 0;
    EACH_VECTOR(i, depth) {
        /* 1.5 * 2^23: the low bits now hold the nearest integer */
        const V shifted = NAME(load)(row + i, count) * inverse + 12582912.0f;
        const VI whole = usable ? (VI)shifted - 0x4b400000 : (VI){0};
        *(NAME(Narrow) *)((char *)to + 2 * i) = __builtin_convertvector(whole, NAME(Narrow));
    }
    return largest < INFINITY ? largest / limit : NAN;
}

/* to (rows, columns padded to whole panels) = the rows times the weights, plus the bias. A panel of weights serves
 * every row, of all streams, before the next is read. */
static void NAME(product)(int64_t packing, const Product *product, const Rows *from, int64_t rows,
                          const Scratch *scratch, float *to)
{
    const int64_t depth = cells(packing, product->depth), stride = depth + LANES;
    const int64_t wide = round_up(product->columns, COLUMNS);
    const int quantised = packing == INT8;
    for (int64_t r = 0; r < rows; r++) {
        const float *row = from->at + r / from->each * from->stream + r % from->each * from->row;
        if (quantised)
            scratch->quanta[r] = NAME(quantise)(row, product->depth, scratch->cells + r * stride);
        else
            memcpy(scratch->cells + r * stride, row, sizeof(float) * (size_t)depth);
    }
    const char *at = product->weights;
    for (int64_t column = 0; column < wide; column += COLUMNS, at += 2 * depth * VECTOR_BYTES(packing)) {
        const V *bias = (const V *)(product->bias + column);
        const V *scales = quantised ? (const V *)(product->scales + column) : NULL;
        for (int64_t r = 0, blocks = ceil_div(rows, MAX_ROWS), tile; r < rows; r += tile) {
            tile = ceil_div(rows - r, blocks--); /* of nearly equal size */
            V sums[2][MAX_ROWS];
            const Cell *x = scratch->cells + r * stride;
            if (packing == F32) NAME(multiply_F32)(tile, x, stride, at, depth, sums[0], sums[1]);
            if (packing == F16) NAME(multiply_F16)(tile, x, stride, at, depth, sums[0], sums[1]);
            if (packing == INT8) NAME(multiply_INT8)(tile, x, stride, at, depth, sums[0], sums[1]);
            for (int64_t i = 0; i < tile; i++)
                for (int half = 0; half < 2; half++) {
                    V sum = sums[half][i];
                    if (quantised)
                        sum = __builtin_convertvector((VI)sum, V) * scales[half] * scratch->quanta[r + i];
                    *(V *)(to + (r + i) * wide + column + half * LANES) = sum + bias[half];
                }
        }
    }
}

INLINE void NAME(normalise)(const float *row, const float *weight, int64_t length, float *to)
{
    V squares = {0};
    EACH_VECTOR(i, length) {
        const V x = NAME(load)(row + i, count);
        squares += x * x;
    }
    const float factor = 1 / sqrtf(NAME(sum)(squares) / (float)length + FLT_EPSILON);
    EACH_VECTOR(i, length)
        NAME(store)(to + i, NAME(load)(row + i, count) * factor * NAME(load)(weight + i, count), count);
}

INLINE void NAME(log_softmax)(const float *row, int64_t length, float *to)
{
    float most = row[0];
    for (int64_t i = 1; i < length; i++) most = row[i] > most ? row[i] : most;
    V sums = {0};
    EACH_VECTOR(i, length) {
        V x = (V){0} - 1e30f, power;
        memcpy(&x, row + i, sizeof(float) * (size_t)count);
        sums += NAME(expm1)(x - most, &power) + 1.0f;
    }
    const float rest = most + logf(NAME(sum)(sums));
    EACH_VECTOR(i, length) NAME(store)(to + i, NAME(load)(row + i, count) - rest, count);
}

/* frames: each stream's context, then its `length` inputs; replaced by the outputs, after `room` rows of each. */
static void NAME(convolve)(const Encoder *encoder, const Convolution *layer, int64_t length, int64_t room,
                           float *state, int64_t streams, const Scratch *scratch)
{
    const int64_t channels = layer->product.columns / 2, inputs = layer->product.depth / (encoder->context + 2);
    const int64_t wide = round_up(2 * channels, COLUMNS), stream = (encoder->context + length) * inputs;
    const Rows windows = {scratch->frames, length / 2, stream, 2 * inputs};
    NAME(product)(encoder->packing, &layer->product, &windows, streams * (length / 2), scratch, scratch->sums);
    for (int64_t b = 0; b < streams; b++) {
        copy(state + b * encoder->state, scratch->frames + b * stream + length * inputs, encoder->context * inputs);
    }
    for (int64_t r = 0; r < streams * (length / 2); r++) {
        const float *sums = scratch->sums + r * wide;
        float *to = scratch->frames + ((r / (length / 2) + 1) * room + r) * channels;
        EACH_VECTOR(i, channels) {
            const V value = NAME(load)(sums + i, count), gate = NAME(sigmoid)(NAME(load)(sums + channels + i, count));
            NAME(store)(to + i, (encoder->gtu ? NAME(tanh)(value) : value) * gate, count);
        }
        NAME(normalise)(to, layer->norm, channels, to);
    }
}

/* residual: each frame becomes the one `lookahead` ago, with what it takes from those behind it. */
static void NAME(look_ahead)(const Encoder *encoder, const Block *block, int64_t steps, float *state,
                             int64_t streams, const Scratch *scratch)
{
    const int64_t width = encoder->width, ahead = block->lookahead;
    for (int64_t b = 0; b < streams; b++) {
        float *waiting = state + b * encoder->state, *residual = scratch->residual + b * steps * scratch->wide;
        copy(scratch->frames, waiting, ahead * width);
        for (int64_t t = 0; t < steps; t++)
            copy(scratch->frames + (ahead + t) * width, residual + t * scratch->wide, width);
        for (int64_t t = 0; t < steps; t++)
            EACH_VECTOR(i, width) {
                const float *frame = scratch->frames + t * width + i;
                V sum = NAME(load)(frame, count);
                for (int64_t j = 1; j <= ahead; j++)
                    sum += NAME(load)(block->ahead + (j - 1) * width + i, count) *
                           NAME(load)(frame + j * width, count);
                NAME(store)(residual + t * scratch->wide + i, sum, count);
            }
        copy(waiting, scratch->frames + steps * width, ahead * width);
    }
}

/* The recurrence over `steps`: scratch->sums holds the projection of the inputs; the states go to `outputs`. */
static void NAME(recur)(const Encoder *encoder, const Block *block, int64_t steps, float *state, int64_t streams,
                        const Scratch *scratch)
{
    const int64_t hidden = encoder->hidden, wide = round_up(2 * hidden, COLUMNS);
    const Rows states = {state, 1, encoder->state, 0};
    for (int64_t t = 0; t < steps; t++) {
        NAME(product)(encoder->packing, &block->recurrent, &states, streams, scratch, scratch->recurrent);
        for (int64_t b = 0; b < streams; b++) {
            const float *projection = scratch->sums + (b * steps + t) * wide;
            const float *recurrent = scratch->recurrent + b * wide;
            float *h = state + b * encoder->state, *output = scratch->outputs + (b * steps + t) * hidden;
            EACH_VECTOR(i, hidden) {
                const V f = NAME(sigmoid)(NAME(load)(projection + i, count) + NAME(load)(recurrent + i, count));
                const V product = NAME(load)(recurrent + hidden + i, count);
                const V n = NAME(tanh)(NAME(load)(projection + hidden + i, count) +
                                       (encoder->reset_gate ? f * product : product));
                const V next = n + f * (NAME(load)(h + i, count) - n);
                NAME(store)(h + i, next, count);
                NAME(store)(output + i, next, count);
            }
        }
    }
}

static void NAME(run_block)(const Encoder *encoder, const Block *block, int64_t steps, float *state,
                            int64_t streams, const Scratch *scratch)
{
    const int64_t width = encoder->width, rows = streams * steps;
    if (block->lookahead) NAME(look_ahead)(encoder, block, steps, state, streams, scratch);
    for (int64_t r = 0; r < rows; r++)
        NAME(normalise)(scratch->residual + r * scratch->wide, block->norm, width, scratch->frames + r * width);
    const Rows normed = {scratch->frames, rows, 0, width};
    NAME(product)(encoder->packing, &block->inputs, &normed, rows, scratch, scratch->sums);
    NAME(recur)(encoder, block, steps, state + block->lookahead * width, streams, scratch);
    const float *added = scratch->outputs;
    int64_t stride = width;
    if (block->projection.weights) {
        const Rows outputs = {scratch->outputs, rows, 0, encoder->hidden};
        NAME(product)(encoder->packing, &block->projection, &outputs, rows, scratch, scratch->sums);
        added = scratch->sums, stride = scratch->wide;
    }
    for (int64_t r = 0; r < rows; r++)
        EACH_VECTOR(i, width) {
            float *residual = scratch->residual + r * scratch->wide + i;
            NAME(store)(residual, NAME(load)(residual, count) + NAME(load)(added + r * stride + i, count), count);
        }
}

/* A piece of `steps` frames of some streams: audio and log_probs at its beginning, strides from stream to stream. */
static void NAME(encode)(const Encoder *encoder, const float *audio, int64_t audio_stride, float *state,
                         float *log_probs, int64_t log_prob_stride, int64_t streams, int64_t steps,
                         const Scratch *scratch)
{
    int64_t length = steps << encoder->convolution_count, context = encoder->context;
    const int64_t mels = encoder->front_end.mels;
    NAME(front_end)(encoder, audio, audio_stride, state, scratch->frames + context * mels, (context + length) * mels,
                    streams, length, scratch);
    state += encoder->front_end.window - encoder->front_end.hop + (encoder->front_end.mean_frames ? mels + 3 : 0);
    for (int64_t i = 0; i < encoder->convolution_count; i++, length /= 2) {
        const Convolution *layer = encoder->convolutions + i;
        const int64_t inputs = layer->product.depth / (context + 2);
        for (int64_t b = 0; b < streams; b++)
            copy(scratch->frames + b * (context + length) * inputs, state + b * encoder->state, context * inputs);
        const int last = i + 1 == encoder->convolution_count;
        NAME(convolve)(encoder, layer, length, last ? 0 : context, state, streams, scratch);
        state += context * inputs;
    }
    const int64_t rows = streams * steps;
    const Rows convolved = {scratch->frames, rows, 0, encoder->input.depth};
    NAME(product)(encoder->packing, &encoder->input, &convolved, rows, scratch, scratch->residual);
    for (int64_t i = 0; i < encoder->block_count; i++) {
        const Block *block = encoder->blocks + i;
        NAME(run_block)(encoder, block, steps, state, streams, scratch);
        state += block->lookahead * encoder->width + encoder->hidden;
    }
    for (int64_t r = 0; r < rows; r++)
        NAME(normalise)(scratch->residual + r * scratch->wide, encoder->norm, encoder->width,
                        scratch->frames + r * encoder->width);
    const Rows normed = {scratch->frames, rows, 0, encoder->width};
    NAME(product)(encoder->packing, &encoder->head, &normed, rows, scratch, scratch->sums);
    for (int64_t r = 0; r < rows; r++) {
        const float *sums = scratch->sums + r * round_up(encoder->head.columns, COLUMNS);
        float *to = log_probs + r / steps * log_prob_stride + r % steps * encoder->head.columns;
        for (int64_t at = 0; at < encoder->head.columns; at += encoder->vocabulary)
            NAME(log_softmax)(sums + at, encoder->vocabulary, to + at);
    }
}

#include "vad_kernels.h"

#undef FEW
#undef ROWS
#undef CASES
#undef MULTIPLY
#undef FEW_ROWS
#undef COLUMNS
#undef HALVES
#undef WIDEN
#undef DOT
#undef LANES
#undef MAX_ROWS
#undef NAME
