/* Drives csrc/mgu.c and mgu_products.c under the sanitizers: every instruction set, odd sizes, one to three threads,
 * on allocations of exactly the size that the interface promises. Compares with the plain loop, and gradients with
 * finite differences or plain sums; with AMX, whose factors have eight bits, less closely. mgu.c itself is included;
 * exit status 0 when all is well. */

#include "mgu.c"

#include <math.h>
#include <stdio.h>

int mgu_weight_gradients(const float *inputs, const float *hidden, const float *outputs, const float *grad_projection,
                         const float *grad_product, float *grad_weight_ih, float *grad_weight_hh, int64_t B, int64_t T,
                         int64_t D, int64_t H, int threads, int kind);

int mgu_linear(const float *inputs, const float *weight, const float *bias, float *outputs, int64_t N, int64_t K,
               int64_t E, int transposed, int threads, int kind);

static uint64_t seed = 1;

static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) / 2147483648.0f;
}

static float *fill(int64_t count, float scale)
{
    float *array = malloc(sizeof(float) * (size_t)(count ? count : 1));
    for (int64_t i = 0; i < count; i++) array[i] = scale * uniform();
    return array;
}

static float *copy(const float *from, int64_t count)
{
    return memcpy(malloc(sizeof(float) * (size_t)(count ? count : 1)), from, sizeof(float) * (size_t)count);
}

/* The specification: outputs and sum over them weighted by `by`, and of the last state by `by_final`. */
static double plain(const float *weight, const float *bias_hn, const float *hidden, const float *projection,
                    const float *by, const float *by_final, float *outputs, int64_t B, int64_t T, int64_t H)
{
    double loss = 0, *h = malloc(sizeof(double) * (size_t)(2 * H));
    for (int64_t b = 0; b < B; b++) {
        for (int64_t j = 0; j < H; j++) h[j] = hidden[b * H + j];
        for (int64_t t = 0; t < T; t++) {
            const float *step = projection + (b * T + t) * 2 * H;
            for (int64_t j = 0; j < H; j++) {
                double f = step[j], n = bias_hn ? bias_hn[j] : 0;
                for (int64_t k = 0; k < H; k++) f += weight[j * H + k] * h[k], n += weight[(H + j) * H + k] * h[k];
                f = 1 / (1 + exp(-f));
                n = tanh(step[H + j] + (bias_hn ? f * n : n));
                h[H + j] = (1 - f) * n + f * h[j];
                outputs[(b * T + t) * H + j] = (float)h[H + j];
                loss += h[H + j] * by[(b * T + t) * H + j];
            }
            memcpy(h, h + H, sizeof(double) * (size_t)H);
        }
        for (int64_t j = 0; j < H; j++) loss += h[j] * by_final[b * H + j];
    }
    free(h);
    return loss;
}

/* Whether the gradients of the weights are the sums that they should be. */
static int check_weights(const float *hidden, const float *outputs, const float *grad_projection,
                         const float *grad_product, int64_t B, int64_t T, int64_t D, int64_t H, int threads, int kind)
{
    float *inputs = fill(B * T * D, 1), *ih = fill(2 * H * D, 1), *hh = fill(2 * H * H, 1);
    int bad = mgu_weight_gradients(inputs, hidden, outputs, grad_projection, grad_product, ih, hh, B, T, D, H, threads,
                                   kind);
    double *sums = malloc(sizeof(double) * (size_t)(D + H));
    for (int64_t i = 0; i < 2 * H; i++) {
        for (int64_t j = 0; j < D + H; j++) sums[j] = 0;
        for (int64_t row = 0; row < B * T; row++) {
            const float *before = row % T ? outputs + (row - 1) * H : hidden + row / T * H;
            const double through_ih = grad_projection[row * 2 * H + i];
            const double through_hh = grad_product && i >= H ? grad_product[row * H + i - H] : through_ih;
            for (int64_t j = 0; j < D; j++) sums[j] += through_ih * inputs[row * D + j];
            for (int64_t j = 0; j < H; j++) sums[D + j] += through_hh * before[j];
        }
        for (int64_t j = 0; j < D; j++) bad |= !(fabs(sums[j] - ih[i * D + j]) < 1e-4 * (1 + fabs(sums[j])));
        for (int64_t j = 0; j < H; j++) bad |= !(fabs(sums[D + j] - hh[i * H + j]) < 1e-4 * (1 + fabs(sums[D + j])));
    }
    free(inputs), free(ih), free(hh), free(sums);
    return bad;
}

static int check(int64_t B, int64_t T, int64_t D, int64_t H, int reset_gate, int threads, int kind)
{
    float *weight = fill(2 * H * H, 2 / sqrtf((float)H)), *bias_hn = reset_gate ? fill(H, 1) : NULL;
    float *hidden = fill(B * H, 1), *projection = fill(B * T * 2 * H, 2), *gates = copy(projection, B * T * 2 * H);
    float *product = reset_gate ? fill(B * T * H, 0) : NULL, *outputs = fill(B * T * H, 0);
    float *by = fill(B * T * H, 1), *by_final = fill(B * H, 1), *expected = fill(B * T * H, 0);
    float *grad_projection = fill(B * T * 2 * H, 0), *grad_product = reset_gate ? fill(B * T * H, 0) : NULL;
    const double coarse = kind == AMX ? 100 : 1;
    float *grad_hidden = fill(B * H, 0), *grad_bias = fill(2 * H, 0), *grad_bias_hn = fill(H, 0);
    int bad = mgu_forward(weight, bias_hn, hidden, gates, product, outputs, B, T, H, 1, threads, kind);
    bad |= mgu_backward(weight, hidden, gates, product, outputs, by, by_final, grad_projection, grad_product,
                        grad_hidden, grad_bias, grad_bias_hn, B, T, H, threads, kind);
    plain(weight, bias_hn, hidden, projection, by, by_final, expected, B, T, H);
    for (int64_t i = 0; i < B * T * H; i++) bad |= !(fabsf(outputs[i] - expected[i]) < 1e-4 * coarse);
    for (int probe = 0; probe < 6 && B > 0; probe++) { /* a few single values moved both ways */
        const int of_projection = probe < 3 && T;
        float *values = of_projection ? projection : hidden;
        const float *gradient = of_projection ? grad_projection : grad_hidden;
        const int64_t at = (int64_t)((seed >> 33) % (uint64_t)(of_projection ? B * T * 2 * H : B * H));
        const float kept = values[at], by_how_much = 1.0f / 1024;
        values[at] = kept + by_how_much;
        const double above = plain(weight, bias_hn, hidden, projection, by, by_final, expected, B, T, H);
        values[at] = kept - by_how_much;
        const double below = plain(weight, bias_hn, hidden, projection, by, by_final, expected, B, T, H);
        values[at] = kept;
        const double slope = (above - below) / (2 * by_how_much);
        bad |= !(fabs(slope - gradient[at]) < 1e-3 * coarse * (1 + fabs(slope)));
        uniform();
    }
    for (int64_t i = 0; i < 2 * H; i++) {
        double sum = 0, sum_hn = 0;
        for (int64_t row = 0; row < B * T; row++) {
            sum += grad_projection[row * 2 * H + i];
            if (reset_gate && i < H) sum_hn += grad_product[row * H + i];
        }
        bad |= !(fabs(sum - grad_bias[i]) < 1e-4 * (1 + fabs(sum)));
        if (reset_gate && i < H) bad |= !(fabs(sum_hn - grad_bias_hn[i]) < 1e-4 * (1 + fabs(sum_hn)));
    }
    if (kind < AMX) bad |= check_weights(hidden, outputs, grad_projection, grad_product, B, T, D, H, threads, kind);
    if (bad)
        printf("B %d T %d D %d H %d reset gate %d threads %d kind %d: wrong\n", (int)B, (int)T, (int)D, (int)H,
               reset_gate, threads, kind);
    float *all[] = {weight,  bias_hn,  hidden,          projection,   gates,      product, outputs, by, by_final,
                    expected, grad_projection, grad_product, grad_hidden, grad_bias, grad_bias_hn};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) free(all[i]);
    return bad;
}

static int check_linear(int64_t N, int64_t K, int64_t E, int transposed, int threads, int kind)
{
    float *inputs = fill(N * K, 1), *weight = fill(E * K, 1), *bias = transposed ? NULL : fill(E, 1);
    float *outputs = fill(N * E, 1);
    int bad = mgu_linear(inputs, weight, bias, outputs, N, K, E, transposed, threads, kind);
    for (int64_t n = 0; n < N; n++)
        for (int64_t e = 0; e < E; e++) {
            double sum = bias ? bias[e] : 0;
            for (int64_t k = 0; k < K; k++) sum += inputs[n * K + k] * weight[transposed ? k * E + e : e * K + k];
            bad |= !(fabs(sum - outputs[n * E + e]) < 1e-4);
        }
    if (bad) printf("linear N %d K %d E %d threads %d kind %d: wrong\n", (int)N, (int)K, (int)E, threads, kind);
    free(inputs), free(weight), free(bias), free(outputs);
    return bad;
}

int main(void)
{
    /* With D 2400 not all rows of the batch are packed at a time. */
    static const int64_t sizes[][4] = {{1, 1, 1, 1},    {3, 4, 2, 5},     {2, 3, 16, 16},  {1, 30, 7, 130},
                                       {2, 8, 33, 160}, {9, 12, 20, 130}, {26, 5, 48, 40}, {13, 20, 65, 65},
                                       {4, 0, 3, 5},    {0, 3, 3, 5},     {5, 2, 0, 33},   {9, 12, 2400, 13}};
    int bad = 0;
    for (int kind = 0; kind <= (mgu_has_amx() ? AMX : mgu_best()); kind++)
        for (int threads = 1; threads <= 3; threads++)
            for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
                for (int reset_gate = 0; reset_gate < 2; reset_gate++)
                    bad |= check(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], reset_gate, threads, kind);
    static const int64_t shapes[][3] = {{8, 1, 1}, {13, 7, 40}, {129, 33, 16}, {300, 20, 65}, {257, 0, 9}, {20, 3, 0}};
    for (int kind = 0; kind <= mgu_best(); kind++)
        for (int threads = 1; threads <= 3; threads++)
            for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
                for (int transposed = 0; transposed < 2; transposed++)
                    bad |= check_linear(shapes[i][0], shapes[i][1], shapes[i][2], transposed, threads, kind);
    return bad;
}
