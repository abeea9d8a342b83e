/* Vectors of one instruction set and their elementary functions, for what has defined LANES, the floats in one, and
 * NAME(x). They are GCC's and Clang's own extension, so that this one text serves all.
 */

#undef V
#undef VI
#undef VU
#undef Loose

typedef float NAME(V) __attribute__((vector_size(4 * LANES)));
typedef float NAME(Loose) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(VI) __attribute__((vector_size(4 * LANES)));
typedef uint32_t NAME(VU) __attribute__((vector_size(4 * LANES)));

#define V NAME(V)
#define VI NAME(VI)
#define VU NAME(VU)
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

/* e^x - 1 and with it `*power`, a power of two: e^x = *power * e^rest, the Cephes polynomial for the rest. */
INLINE V NAME(expm1)(V x, V *power)
{
    x = NAME(clamp)(x, -87.0f, 88.0f);
    const V shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the low bits now hold the integer */
    const V whole = shifted - 12582912.0f;
    const V r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    *power = (V)(((VU)shifted + 127) << 23);
    return (p * r * r + r) * *power + (*power - 1.0f);
}

/* Relative error 2e-7, down to the smallest f: so are the gradients through a closed gate. */
INLINE V NAME(sigmoid)(V x)
{
    V power;
    const V rest = NAME(expm1)(-x, &power);
    return 1.0f / (2.0f + rest);
}

/* Relative error 2e-7; exactly one where float32 has nothing nearer, so that its slope 1 - n^2 vanishes there. */
INLINE V NAME(tanh)(V x)
{
    const VU sign = (VU)x & 0x80000000u;
    V power;
    const V rest = NAME(expm1)((V)((VU)x | 0x80000000u) * 2.0f, &power); /* e^(-2 |x|) - 1 */
    return (V)((VU)(-rest / (2.0f + rest)) | sign);
}

INLINE float NAME(sum)(V vector)
{
    float lanes[LANES];
    NAME(store)(lanes, vector, LANES);
    UNROLL for (int half = LANES / 2; half; half /= 2)
        UNROLL for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    return lanes[0];
}
