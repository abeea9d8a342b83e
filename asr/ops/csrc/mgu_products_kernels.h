/* The products of the MGU's training for one instruction set. mgu_products.c includes this file once for each, with
 *   LANES    floats in a vector register (16, 8 or 4)
 *   ROWS     rows in a tile: 2 * ROWS accumulators, 2 vectors of a panel and a factor must fit the registers
 *   NAME(x)  x with the suffix of the instruction set
 */

#include "vectors.h"

/* left[row] = sum over k < depth of a[row * next_row + k * next_k] times the left half of the panel, right likewise.
 * The lines of `to` where these sums will go are fetched meanwhile, row by row: at once they would hold up the panel.
 * x - 0 is x to the bit, so that x is read straight into all lanes. */
INLINE void NAME(multiply)(const float *a, int64_t next_row, int64_t next_k, const float *panel, int64_t depth,
                           const float *to, int64_t next_to, V *left, V *right)
{
    V l[ROWS], r[ROWS];
    UNROLL for (int row = 0; row < ROWS; row++) l[row] = r[row] = (V){0};
    const V *weights = (const V *)panel;
    int64_t k = 0;
    for (int fetched = 0; fetched < ROWS; fetched++) {
        __builtin_prefetch(to + fetched * next_to, 1);
        __builtin_prefetch(to + fetched * next_to + LANES, 1);
        for (const int64_t end = depth * (fetched + 1) / ROWS; k < end; k++, weights += 2) {
            const V first = weights[0], second = weights[1];
            UNROLL for (int row = 0; row < ROWS; row++) {
                const V x = a[row * next_row + k * next_k] - (V){0};
                l[row] += first * x;
                r[row] += second * x;
            }
        }
    }
    UNROLL for (int row = 0; row < ROWS; row++) left[row] = l[row], right[row] = r[row];
}

/* Rows row0 .. row1, at least ROWS of them. */
static void NAME(linear)(const Linear *job, int64_t row0, int64_t row1)
{
    const int64_t K = job->K, E = job->E;
    for (int64_t column = 0; column < E; column += 2 * LANES) {
        const int left = column + LANES <= E ? LANES : (int)(E - column);
        const int right = column + 2 * LANES <= E ? LANES : (int)(E - column) - LANES;
        V bias[2] = {{0}};
        if (job->bias) bias[0] = NAME(load)(job->bias + column, left);
        if (job->bias && right > 0) bias[1] = NAME(load)(job->bias + column + LANES, right);
        for (int64_t from = row0; from < row1; from += ROWS) {
            if (from + ROWS > row1) from = row1 - ROWS; /* some rows once more, to the same values */
            float *outputs = job->outputs + from * E + column;
            V l[ROWS], r[ROWS];
            NAME(multiply)(job->inputs + from * K, K, 1, job->packed + column * K, K, outputs, E, l, r);
            for (int row = 0; row < ROWS; row++) {
                NAME(store)(outputs + row * E, l[row] + bias[0], left);
                if (right > 0) NAME(store)(outputs + row * E + LANES, r[row] + bias[1], right);
            }
        }
    }
}

/* `depth` rows of `size` floats, (batch, step) number `from` and the following, into panels. Rows of the states are
 * those before the step; `first` is NULL for the inputs. */
static void NAME(pack)(const float *rows, const float *first, int64_t T, int64_t size, int64_t from, int64_t depth,
                       float *packed)
{
    for (int64_t k = 0; k < depth; k++) {
        const int64_t number = from + k;
        const float *row = rows + number * size;
        if (first) row = number % T ? row - size : first + number / T * size;
        for (int64_t column = 0; column < size; column += LANES) {
            const int count = column + LANES <= size ? LANES : (int)(size - column);
            const int64_t panel = column / (2 * LANES), half = column / LANES % 2;
            *(V *)(packed + (panel * depth + k) * 2 * LANES + half * LANES) = NAME(load)(row + column, count);
        }
    }
}

/* grads (depth, ROWS), transposed, times panels of `size` columns, added to `rows` rows of sums (., size). */
static void NAME(add_products)(const float *grads, const float *panels, int64_t depth, int64_t size, int rows,
                               float *sums)
{
    for (int64_t column = 0; column < size; column += 2 * LANES) {
        const int left = column + LANES <= size ? LANES : (int)(size - column);
        const int right = column + 2 * LANES <= size ? LANES : (int)(size - column) - LANES;
        V l[ROWS], r[ROWS];
        NAME(multiply)(grads, 1, ROWS, panels + column * depth, depth, sums + column, size, l, r);
        for (int row = 0; row < rows; row++) {
            float *sum = sums + row * size + column;
            NAME(store)(sum, NAME(load)(sum, left) + l[row], left);
            if (right > 0) NAME(store)(sum + LANES, NAME(load)(sum + LANES, right) + r[row], right);
        }
    }
}

/* The gradients of the weights of the units in tiles tile0 .. tile1. room: depth rows of x, of h, and of a tile. */
static void NAME(gradients)(const Weights *job, int64_t tile0, int64_t tile1, int64_t depth, float *room)
{
    const int64_t D = job->D, H = job->H, total = job->B * job->T;
    float *states = room + depth * round_up(D, 2 * LANES), *grads = states + depth * round_up(H, 2 * LANES);
    for (int64_t from = 0; from < total; from += depth) {
        if (depth > total - from) depth = total - from;
        NAME(pack)(job->inputs, NULL, job->T, D, from, depth, room);
        NAME(pack)(job->outputs, job->hidden, job->T, H, from, depth, states);
        for (int64_t unit = tile0 * ROWS; unit < tile1 * ROWS && unit < H; unit += ROWS) {
            const int rows = unit + ROWS <= H ? ROWS : (int)(H - unit);
            for (int part = 0; part < (job->grad_product ? 3 : 2); part++) { /* df, dn, dp */
                const float *gradient = part == 2 ? job->grad_product + from * H + unit
                                                  : job->grad_projection + from * 2 * H + part * H + unit;
                const int64_t next = part == 2 ? H : 2 * H, weight = (part ? H : 0) + unit;
                if (rows == ROWS) /* a constant: memcpy is two instructions */
                    for (int64_t k = 0; k < depth; k++)
                        memcpy(grads + k * ROWS, gradient + k * next, sizeof(float) * ROWS);
                else
                    for (int64_t k = 0; k < depth; k++)
                        memcpy(grads + k * ROWS, gradient + k * next, sizeof(float) * (size_t)rows);
                if (part != 2) NAME(add_products)(grads, room, depth, D, rows, job->grad_weight_ih + weight * D);
                if (part != 1 || !job->grad_product)
                    NAME(add_products)(grads, states, depth, H, rows, job->grad_weight_hh + weight * H);
            }
        }
    }
}

#undef LANES
#undef ROWS
#undef NAME
