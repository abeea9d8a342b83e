/* The kernels of the MGU recurrence for one instruction set. mgu.c includes this file once for each, with
 *   LANES     floats in a vector register (16, 8 or 4)
 *   MAX_ROWS  rows of the batch in a tile: 2 * MAX_ROWS accumulators, 2 weights and a state must fit the registers
 *   NAME(x)   x with the suffix of the instruction set
 *   TILES     if products are AMX's, of factors in bfloat16
 *
 * A tile is a few rows of the batch times two vectors of columns. Its product over k stays in registers, and so do
 * the gates that are made from it.
 */

#include "vectors.h"

#if defined(TILES)
#define FEW_ROWS 0
#else
#define FEW_ROWS (MAX_ROWS / 4)
#endif

#if defined(TILES)

/* AMX's eight registers, each 16 rows of 64 bytes. */
static void NAME(begin)(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) shape.bytes[tile] = 64, shape.rows[tile] = 16;
    _tile_loadconfig(&shape);
}

static void NAME(end)(void) { _tile_release(); }

/* In a row of scratch: x, and behind all of them, from `half` on, rounded. */
INLINE void NAME(put)(float *row, int64_t half, int64_t at, V x)
{
    *(V *)(row + at) = x;
    *(__m256bh *)((uint16_t *)(row + half) + at) = _mm512_cvtneps_pbh((__m512)x);
}

/* left[row] = a[row] times the left columns of the panel w, right likewise, for 16 rows of which `rows` count; the sum
 * is over `depth`, a multiple of 64. Two sums of each, since one would wait for its own additions. */
static __attribute__((noinline)) void NAME(multiply)(int64_t rows, const float *a, int64_t stride, const float *w,
                                                     int64_t depth, V *left, V *right, const Ahead *ahead)
{
    const int64_t blocks = depth / 64, each = ceil_div(ahead->count, blocks);
    const uint16_t *factors = (const uint16_t *)a;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t block = 0; block < blocks; block++, factors += 64, w += 1024) {
        for (int64_t line = block * each; line < (block + 1) * each && line < ahead->count; line++)
            __builtin_prefetch(ahead->lines[line], 1);
        _tile_loadd(4, factors, 4 * stride);
        _tile_loadd(5, w, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, w + 256, 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, factors + 32, 4 * stride);
        _tile_loadd(5, w + 512, 64);
        _tile_dpbf16ps(2, 7, 5);
        _tile_loadd(6, w + 768, 64);
        _tile_dpbf16ps(3, 7, 6);
    }
    V sums[4][16];
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    for (int64_t row = 0; row < rows; row++) {
        left[row] = sums[0][row] + sums[2][row];
        right[row] = sums[1][row] + sums[3][row];
    }
}

#else

static void NAME(begin)(void) {}

static void NAME(end)(void) {}

INLINE void NAME(put)(float *row, int64_t half, int64_t at, V x)
{
    (void)half;
    *(V *)(row + at) = x;
}

/* left[row] = a[row] times the left columns of the panel w, right likewise; the sum is over `depth`. x - 0 is x to
 * the bit, so that x is read straight into all lanes; x + 0 would be an addition, since it makes a 0 of a -0. */
INLINE void NAME(multiply_rows)(const int rows, const float *a, int64_t stride, const float *w, int64_t depth,
                                V *left, V *right, const Ahead *ahead)
{
    V l[MAX_ROWS], r[MAX_ROWS];
    UNROLL for (int row = 0; row < rows; row++) l[row] = r[row] = (V){0};
    const V *panel = (const V *)w;
    const int64_t between = depth / (ahead->count + 1) + 1; /* lines fetched */
    for (int64_t k = 0, line = 0; k < depth; line++) {
        if (line < ahead->count) __builtin_prefetch(ahead->lines[line], 1);
        for (const int64_t end = k + between < depth ? k + between : depth; k < end; k++, panel += 2) {
            const V first = panel[0], second = panel[1];
            UNROLL for (int row = 0; row < rows; row++) {
                const V x = a[row * stride + k] - (V){0};
                l[row] += first * x;
                r[row] += second * x;
            }
        }
    }
    UNROLL for (int row = 0; row < rows; row++) left[row] = l[row], right[row] = r[row];
}

/* The same for so few rows that one sum each would wait for its own additions: four partial sums. */
INLINE void NAME(multiply_few)(const int rows, const float *a, int64_t stride, const float *w, int64_t depth,
                               V *left, V *right)
{
    V l[FEW_ROWS][4], r[FEW_ROWS][4];
    UNROLL for (int row = 0; row < rows; row++)
        UNROLL for (int part = 0; part < 4; part++) l[row][part] = r[row][part] = (V){0};
    const V *panel = (const V *)w;
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4, panel += 8) {
        UNROLL for (int part = 0; part < 4; part++)
            UNROLL for (int row = 0; row < rows; row++) {
                const V x = a[row * stride + k + part] - (V){0};
                l[row][part] += panel[2 * part] * x;
                r[row][part] += panel[2 * part + 1] * x;
            }
    }
    for (; k < depth; k++, panel += 2)
        UNROLL for (int row = 0; row < rows; row++) {
            l[row][0] += panel[0] * a[row * stride + k];
            r[row][0] += panel[1] * a[row * stride + k];
        }
    UNROLL for (int row = 0; row < rows; row++) {
        left[row] = (l[row][0] + l[row][1]) + (l[row][2] + l[row][3]);
        right[row] = (r[row][0] + r[row][1]) + (r[row][2] + r[row][3]);
    }
}

#define FEW(N) case N: NAME(multiply_few)(N, a, stride, w, depth, left, right); break;
#define ROWS(N) case N: NAME(multiply_rows)(N, a, stride, w, depth, left, right, ahead); break;

static __attribute__((noinline)) void NAME(multiply)(int64_t rows, const float *a, int64_t stride, const float *w,
                                                     int64_t depth, V *left, V *right, const Ahead *ahead)
{
    switch (rows) { /* the number of rows has to be a constant for the sums to stay in registers */
#if MAX_ROWS == 12
        FEW(1) FEW(2) FEW(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#else
        FEW(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#endif
    }
}

#endif

/* The forward's product straight from the rows of W_hh, for calls too short to pay for packing: lane j of left is
 * row first + j times the state, and of right the row of n. */
static void NAME(multiply_unpacked)(int64_t rows, const float *a, int64_t stride, const float *weight, int64_t H,
                                    int64_t first, int count, V *left, V *right)
{
    const int64_t whole = H / (2 * LANES) * (2 * LANES);
    for (int64_t row = 0; row < rows; row++) left[row] = right[row] = (V){0};
    for (int lane = 0; lane < count; lane++) {
        const float *f = weight + (first + lane) * H, *n = f + H * H;
        for (int64_t row = 0; row < rows; row++) {
            const float *x = a + row * stride;
            V f_even = {0}, f_odd = {0}, n_even = {0}, n_odd = {0};
            for (int64_t k = 0; k < whole; k += 2 * LANES) {
                f_even += *(const V *)(x + k) * *(const Loose *)(f + k);
                n_even += *(const V *)(x + k) * *(const Loose *)(n + k);
                f_odd += *(const V *)(x + k + LANES) * *(const Loose *)(f + k + LANES);
                n_odd += *(const V *)(x + k + LANES) * *(const Loose *)(n + k + LANES);
            }
            float f_sum = NAME(sum)(f_even + f_odd), n_sum = NAME(sum)(n_even + n_odd);
            for (int64_t k = whole; k < H; k++) f_sum += x[k] * f[k], n_sum += x[k] * n[k];
            left[row][lane] = f_sum, right[row][lane] = n_sum;
        }
    }
}

/* One step of `rows` rows for the hidden units first .. first + count. */
static void NAME(forward_tile)(int64_t rows, const Forward *job, int64_t row0, int64_t t, int64_t panel,
                               const float *states, float *next)
{
    const int64_t H = job->H, first = panel * LANES;
    const int count = first + LANES <= H ? LANES : (int)(H - first);
    float *gates = job->gates + (row0 * job->T + t) * 2 * H + first;
    float *outputs = job->outputs + (row0 * job->T + t) * H + first;
    const int64_t next_gates = job->T * 2 * H, next_outputs = job->T * H;
    Ahead ahead;
    ahead.count = 0, ahead.at_once = rows <= FEW_ROWS;
    for (int64_t row = 0; row < rows; row++) {
        expect(&ahead, gates + row * next_gates);
        expect(&ahead, gates + row * next_gates + H);
        expect(&ahead, outputs + row * next_outputs);
        if (job->product) expect(&ahead, job->product + ((row0 + row) * job->T + t) * H + first);
    }
    V fs[MAX_ROWS], ns[MAX_ROWS];
    if (job->packed)
        NAME(multiply)(rows, states + job->half, job->stride, job->packed + panel * job->panel_size, job->depth, fs, ns,
                       &ahead);
    else
        NAME(multiply_unpacked)(rows, states, job->stride, job->weight, H, first, count, fs, ns);
    /* Two loops, so that several rows of a long chain of dependent instructions are under way at a time. */
    for (int64_t row = 0; row < rows; row++)
        fs[row] = NAME(sigmoid)(fs[row] + NAME(load)(gates + row * next_gates, count));
    for (int64_t row = 0; row < rows; row++) {
        float *gate = gates + row * next_gates;
        const V state = *(const V *)(states + row * job->stride + first), f = fs[row];
        V n = ns[row];
        if (job->bias_hn) {
            n += *(const V *)(job->bias_hn + first);
            if (job->product) NAME(store)(job->product + ((row0 + row) * job->T + t) * H + first, n, count);
            n *= f;
        }
        n = NAME(tanh)(n + NAME(load)(gate + H, count));
        const V output = n + f * (state - n);
        if (job->keep) {
            NAME(store)(gate, f, count);
            NAME(store)(gate + H, n, count);
        }
        NAME(store)(outputs + row * next_outputs, output, count);
        NAME(put)(next + row * job->stride, job->half, first, output);
    }
}

/* From dh, the gradient of the state after step t, everything of step t that is no product; the gradients of the
 * three biases are added up. */
INLINE void NAME(backward_gates)(const Backward *job, int64_t row, int64_t t, int64_t unit, int count, V dh,
                                 float *recurrent, V *biases)
{
    const int64_t H = job->H, here = row * job->T + t;
    const float *gate = job->gates + here * 2 * H + unit;
    const float *before = t ? job->outputs + (here - 1) * H : job->hidden + row * H;
    const V f = NAME(load)(gate, count), n = NAME(load)(gate + H, count);
    const V through_n = (1.0f - f) * (1.0f - n * n);
    V slope = NAME(load)(before + unit, count) - n;
    if (job->product) slope += through_n * NAME(load)(job->product + here * H + unit, count);
    const V df = dh * f * (1.0f - f) * slope, dn = dh * through_n;
    float *projection = job->grad_projection + here * 2 * H + unit;
    NAME(store)(projection, df, count);
    NAME(store)(projection + H, dn, count);
    const V dproduct = job->product ? f * dn : dn;
    if (job->product) NAME(store)(job->grad_product + here * H + unit, dproduct, count);
    NAME(put)(recurrent, job->half, unit, df);
    NAME(put)(recurrent, job->half, job->padded + unit, dproduct);
    *(V *)(job->kept + row * job->padded + unit) = dh * f;
    biases[0] += df, biases[1] += dn, biases[2] += dproduct;
}

INLINE void NAME(add)(const Backward *job, int64_t unit, const V *biases, float *bias_sums)
{
    UNROLL for (int i = 0; i < 3; i++) *(V *)(bias_sums + i * job->padded + unit) += biases[i];
}

/* The gradient of the state before step t, and with it step t - 1: `rows` rows, two vectors of units. */
static void NAME(backward_tile)(int64_t rows, const Backward *job, int64_t row0, int64_t t, int64_t panel,
                                const float *recurrent, float *next, float *bias_sums)
{
    const int64_t H = job->H, first = panel * 2 * LANES;
    Ahead ahead;
    ahead.count = 0, ahead.at_once = rows <= FEW_ROWS;
    if (t) for (int64_t row = 0; row < rows; row++) {
        const int64_t there = (row0 + row) * job->T + t - 1;
        for (int64_t unit = first; unit < first + 2 * LANES && unit < H; unit += 16) {
            expect(&ahead, job->gates + there * 2 * H + unit);
            expect(&ahead, job->gates + there * 2 * H + H + unit);
            expect(&ahead, job->grad_outputs + there * H + unit);
            if (t > 1) expect(&ahead, job->outputs + (there - 1) * H + unit);
            if (job->product) expect(&ahead, job->product + there * H + unit);
            expect(&ahead, job->grad_projection + there * 2 * H + unit);
            expect(&ahead, job->grad_projection + there * 2 * H + H + unit);
            if (job->product) expect(&ahead, job->grad_product + there * H + unit);
        }
    }
    V sums[2][MAX_ROWS];
    NAME(multiply)(rows, recurrent + job->half, job->stride, job->packed + panel * job->panel_size, 2 * job->padded,
                   sums[0], sums[1], &ahead);
    for (int half = 0; half < 2; half++) {
        const int64_t unit = first + half * LANES;
        if (unit >= H) break;
        const int count = unit + LANES <= H ? LANES : (int)(H - unit);
        V biases[3] = {{0}};
        for (int64_t row = 0; row < rows; row++) {
            const int64_t b = row0 + row;
            V dh = sums[half][row] + *(const V *)(job->kept + b * job->padded + unit);
            if (t == 0) {
                NAME(store)(job->grad_hidden + b * H + unit, dh, count);
            } else {
                dh += NAME(load)(job->grad_outputs + (b * job->T + t - 1) * H + unit, count);
                NAME(backward_gates)(job, b, t - 1, unit, count, dh, next + row * job->stride, biases);
            }
        }
        NAME(add)(job, unit, biases, bias_sums);
    }
}

/* The last step of the rows and panels of `part`, which needs no product. */
static void NAME(backward_last)(const Backward *job, const Part *part)
{
    const int64_t H = job->H, t = job->T - 1;
    for (int64_t unit = part->panel0 * 2 * LANES; unit < part->panel1 * 2 * LANES && unit < H; unit += LANES) {
        const int count = unit + LANES <= H ? LANES : (int)(H - unit);
        V biases[3] = {{0}};
        for (int64_t row = part->row0; row < part->row1; row++) {
            const V dh = NAME(load)(job->grad_outputs + (row * job->T + t) * H + unit, count) +
                         NAME(load)(job->grad_final + row * H + unit, count);
            NAME(backward_gates)(job, row, t, unit, count, dh, job->scratch[t & 1] + row * job->stride, biases);
        }
        NAME(add)(job, unit, biases, part->bias_sums);
    }
}

/* All tiles of one step. A panel of weights serves every row before the next panel is read, and steps go through the
 * panels to and fro: what was read last is still in the cache, though all of the weights may not fit. */
#define STEP(TILE, ...)                                                                                \
    for (int64_t i = part->panel0; i < part->panel1; i++) {                                            \
        const int64_t panel = t & 1 ? part->panel0 + part->panel1 - 1 - i : i;                         \
        for (int64_t row = part->row0, blocks = part->blocks, rows; row < part->row1; row += rows) {   \
            rows = ceil_div(part->row1 - row, blocks);                                                 \
            blocks--;                                                                                  \
            TILE(rows, job, row, t, panel, from + row * job->stride, to + row * job->stride __VA_ARGS__); \
        }                                                                                              \
    }

static void NAME(forward)(const Forward *job, const Part *part, Barrier *barrier)
{
    NAME(begin)();
    for (int64_t t = 0; t < job->T; t++) {
        const float *from = job->scratch[t & 1];
        float *to = job->scratch[~t & 1];
        STEP(NAME(forward_tile))
        if (barrier) barrier_wait(barrier);
    }
    NAME(end)();
}

static void NAME(backward)(const Backward *job, const Part *part, Barrier *barrier)
{
    NAME(begin)();
    NAME(backward_last)(job, part);
    for (int64_t t = job->T - 1; t >= 0; t--) {
        if (barrier) barrier_wait(barrier);
        const float *from = job->scratch[t & 1];
        float *to = job->scratch[~t & 1];
        STEP(NAME(backward_tile), , part->bias_sums)
    }
    NAME(end)();
}

#undef FEW
#undef ROWS
#undef FEW_ROWS
#undef STEP
#undef LANES
#undef MAX_ROWS
#undef NAME
