/* The kernels of the MGU recurrence for one instruction set. mgu.c includes this file once for each, with
 *   LANES     floats in a vector register (16, 8 or 4)
 *   MAX_ROWS  rows of the batch in a tile: 2 * MAX_ROWS accumulators, 2 weights and a state must fit the registers
 *   NAME(x)   x with the suffix of the instruction set
 *
 * A tile is a few rows of the batch times two vectors of columns. Its product over k stays in registers, and so do
 * the gates that are made from it. Vectors are GCC's and Clang's own extension, so that this one text serves all.
 */

typedef float NAME(V) __attribute__((vector_size(4 * LANES)));
typedef float NAME(Loose) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(VI) __attribute__((vector_size(4 * LANES)));

#define V NAME(V)
#define VI NAME(VI)
#define Loose NAME(Loose)

/* `count` floats, zeros behind them. */
INLINE V NAME(load)(const float *from, int count)
{
    if (count == LANES) return (V) * (const Loose *)from;
    V vector = {0};
    memcpy(&vector, from, sizeof(float) * (size_t)count);
    return vector;
}

INLINE void NAME(store)(float *to, V vector, int count)
{
    if (count == LANES)
        *(Loose *)to = (Loose)vector;
    else
        memcpy(to, &vector, sizeof(float) * (size_t)count);
}

INLINE V NAME(clamp)(V x, float low, float high)
{
    V lows = x * 0 + low, highs = x * 0 + high; /* x * 0 keeps a NaN a NaN */
    VI below = x < lows, above = x > highs;
    return (V)(((VI)x & ~(below | above)) | ((VI)lows & below) | ((VI)highs & above));
}

/* Relative error 2e-7: 2^round(x / ln 2) times the Cephes polynomial on the rest. */
INLINE V NAME(exp)(V x)
{
    x = NAME(clamp)(x, -87.0f, 88.0f);
    V shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the low bits now hold the integer */
    V whole = shifted - 12582912.0f;
    V r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (V)(((VI)shifted + 127) << 23);
}

INLINE V NAME(sigmoid)(V x) { return 1.0f / (1.0f + NAME(exp)(-x)); }

/* Eigen's rational approximation (generic_fast_tanh_float), relative error 3e-7. */
INLINE V NAME(tanh)(V x)
{
    x = NAME(clamp)(x, -7.90531110763549805f, 7.90531110763549805f);
    V square = x * x;
    V p = square * -2.76076847742355e-16f + 2.00018790482477e-13f;
    p = p * square + -8.60467152213735e-11f;
    p = p * square + 5.12229709037114e-08f;
    p = p * square + 1.48572235717979e-05f;
    p = p * square + 6.37261928875436e-04f;
    p = p * square + 4.89352455891786e-03f;
    V q = square * 1.19825839466702e-06f + 1.18534705686654e-04f;
    q = q * square + 2.26843463243900e-03f;
    q = q * square + 4.89352518554385e-03f;
    return x * p / q;
}

/* left[row] += a[row][:depth] w[:depth][0], right likewise with w[:depth][1]; w is a packed panel. */
INLINE void NAME(multiply)(const int rows, const float *a, int64_t stride, const float *w, int64_t depth,
                           V *left, V *right)
{
    const V *panel = (const V *)w;
    V l[MAX_ROWS], r[MAX_ROWS];
    UNROLL for (int row = 0; row < rows; row++) l[row] = r[row] = (V){0};
    int64_t k = 0;
    if (4 * rows <= MAX_ROWS) { /* too few sums to hide the latency of an addition: four partial ones each */
        V l1[MAX_ROWS / 4], r1[MAX_ROWS / 4], l2[MAX_ROWS / 4], r2[MAX_ROWS / 4], l3[MAX_ROWS / 4], r3[MAX_ROWS / 4];
        UNROLL for (int row = 0; row < rows; row++)
            l1[row] = r1[row] = l2[row] = r2[row] = l3[row] = r3[row] = (V){0};
        for (; k + 4 <= depth; k += 4, panel += 8) {
            __builtin_prefetch((const char *)panel + PREFETCH);
            if (LANES >= 8) __builtin_prefetch((const char *)panel + PREFETCH + 64);
            if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 128);
            if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 192);
            if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 256);
            if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 320);
            if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 384);
            if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 448);
            UNROLL for (int row = 0; row < rows; row++) {
                const float *x = a + row * stride + k;
                l[row] += panel[0] * x[0], r[row] += panel[1] * x[0];
                l1[row] += panel[2] * x[1], r1[row] += panel[3] * x[1];
                l2[row] += panel[4] * x[2], r2[row] += panel[5] * x[2];
                l3[row] += panel[6] * x[3], r3[row] += panel[7] * x[3];
            }
        }
        UNROLL for (int row = 0; row < rows; row++) {
            l[row] = (l[row] + l1[row]) + (l2[row] + l3[row]);
            r[row] = (r[row] + r1[row]) + (r2[row] + r3[row]);
        }
    }
    for (; k < depth; k++, panel += 2) {
        __builtin_prefetch((const char *)panel + PREFETCH);
        if (LANES >= 16) __builtin_prefetch((const char *)panel + PREFETCH + 64);
        V first = panel[0], second = panel[1];
        UNROLL for (int row = 0; row < rows; row++) {
            V x = (V){0} + a[row * stride + k];
            l[row] += first * x;
            r[row] += second * x;
        }
    }
    UNROLL for (int row = 0; row < rows; row++) left[row] = l[row], right[row] = r[row];
}

/* One step of `rows` rows for the hidden units first .. first + count. */
INLINE void NAME(forward_tile)(const int rows, const Forward *job, int64_t row0, int64_t t, int64_t panel,
                               const float *states, float *next)
{
    const int64_t H = job->H, first = panel * LANES;
    const int count = first + LANES <= H ? LANES : (int)(H - first);
    float *gates = job->gates + (row0 * job->T + t) * 2 * H + first;
    float *outputs = job->outputs + (row0 * job->T + t) * H + first;
    const int64_t next_gates = job->T * 2 * H, next_outputs = job->T * H;
    UNROLL for (int row = 0; row < rows; row++) {
        __builtin_prefetch(gates + row * next_gates, 1);
        __builtin_prefetch(gates + row * next_gates + H, 1);
        __builtin_prefetch(outputs + row * next_outputs, 1);
    }
    V fs[MAX_ROWS], ns[MAX_ROWS];
    NAME(multiply)(rows, states, job->stride, job->packed + panel * job->panel_size, H, fs, ns);
    UNROLL for (int row = 0; row < rows; row++) {
        float *gate = gates + row * next_gates;
        const V state = *(const V *)(states + row * job->stride + first);
        const V f = NAME(sigmoid)(fs[row] + NAME(load)(gate, count));
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
        *(V *)(next + row * job->stride + first) = output;
    }
}

/* From dh, the gradient of the state after step t, everything of step t that is no product. */
INLINE void NAME(backward_gates)(const Backward *job, int64_t row, int64_t t, int64_t unit, int count, V dh,
                                 float *recurrent)
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
    *(V *)(recurrent + unit) = df;
    *(V *)(recurrent + job->padded + unit) = dproduct;
    *(V *)(job->kept + row * job->padded + unit) = dh * f;
}

/* The gradient of the state before step t, and with it step t - 1: `rows` rows, two vectors of units. */
INLINE void NAME(backward_tile)(const int rows, const Backward *job, int64_t row0, int64_t t, int64_t panel,
                                const float *recurrent, float *next)
{
    const int64_t H = job->H, first = panel * 2 * LANES;
    if (t) UNROLL for (int row = 0; row < rows; row++) {
        const int64_t there = (row0 + row) * job->T + t - 1;
        for (int64_t unit = first; unit < first + 2 * LANES && unit < H; unit += 16) {
            __builtin_prefetch(job->gates + there * 2 * H + unit);
            __builtin_prefetch(job->gates + there * 2 * H + H + unit);
            __builtin_prefetch(job->grad_outputs + there * H + unit);
            if (t > 1) __builtin_prefetch(job->outputs + (there - 1) * H + unit);
            if (job->product) __builtin_prefetch(job->product + there * H + unit);
            __builtin_prefetch(job->grad_projection + there * 2 * H + unit, 1);
            __builtin_prefetch(job->grad_projection + there * 2 * H + H + unit, 1);
            if (job->product) __builtin_prefetch(job->grad_product + there * H + unit, 1);
        }
    }
    V sums[2][MAX_ROWS];
    NAME(multiply)(rows, recurrent, job->stride, job->packed + panel * job->panel_size, 2 * job->padded, sums[0],
                   sums[1]);
    for (int half = 0; half < 2; half++) {
        const int64_t unit = first + half * LANES;
        if (unit >= H) break;
        const int count = unit + LANES <= H ? LANES : (int)(H - unit);
        UNROLL for (int row = 0; row < rows; row++) {
            const int64_t b = row0 + row;
            V dh = sums[half][row] + *(const V *)(job->kept + b * job->padded + unit);
            if (t == 0) {
                NAME(store)(job->grad_hidden + b * H + unit, dh, count);
            } else {
                dh += NAME(load)(job->grad_outputs + (b * job->T + t - 1) * H + unit, count);
                NAME(backward_gates)(job, b, t - 1, unit, count, dh, next + row * job->stride);
            }
        }
    }
}

/* The last step of the rows and panels of `part`, which needs no product. */
static void NAME(backward_last)(const Backward *job, const Part *part)
{
    const int64_t H = job->H, t = job->T - 1;
    for (int64_t row = part->row0; row < part->row1; row++)
        for (int64_t unit = part->panel0 * 2 * LANES; unit < part->panel1 * 2 * LANES && unit < H; unit += LANES) {
            const int count = unit + LANES <= H ? LANES : (int)(H - unit);
            const V dh = NAME(load)(job->grad_outputs + (row * job->T + t) * H + unit, count) +
                         NAME(load)(job->grad_final + row * H + unit, count);
            NAME(backward_gates)(job, row, t, unit, count, dh, job->scratch[t & 1] + row * job->stride);
        }
}

#define CASE(N, TILE) \
    case N: TILE(N, job, row, t, panel, from + row * job->stride, to + row * job->stride); break;
#if MAX_ROWS > 8
#define MORE_CASES(TILE) CASE(7, TILE) CASE(8, TILE) CASE(9, TILE) CASE(10, TILE) CASE(11, TILE) CASE(12, TILE)
#else
#define MORE_CASES(TILE)
#endif
/* All tiles of one step: a panel of weights serves every row before the next panel is read. */
#define STEP(TILE)                                                                                   \
    for (int64_t panel = part->panel0; panel < part->panel1; panel++)                                \
        for (int64_t row = part->row0, blocks = part->blocks, rows; row < part->row1; row += rows) { \
            rows = ceil_div(part->row1 - row, blocks);                                               \
            blocks--;                                                                                \
            switch (rows) {                                                                          \
                CASE(1, TILE) CASE(2, TILE) CASE(3, TILE) CASE(4, TILE) CASE(5, TILE) CASE(6, TILE)  \
                MORE_CASES(TILE)                                                                     \
            }                                                                                        \
        }

static void NAME(forward)(const Forward *job, const Part *part, Barrier *barrier)
{
    for (int64_t t = 0; t < job->T; t++) {
        const float *from = job->scratch[t & 1];
        float *to = job->scratch[~t & 1];
        STEP(NAME(forward_tile))
        if (barrier) barrier_wait(barrier);
    }
}

static void NAME(backward)(const Backward *job, const Part *part, Barrier *barrier)
{
    NAME(backward_last)(job, part);
    for (int64_t t = job->T - 1; t >= 0; t--) {
        if (barrier) barrier_wait(barrier);
        const float *from = job->scratch[t & 1];
        float *to = job->scratch[~t & 1];
        STEP(NAME(backward_tile))
    }
}

#undef CASE
#undef MORE_CASES
#undef STEP
#undef V
#undef VI
#undef Loose
#undef LANES
#undef MAX_ROWS
#undef NAME
