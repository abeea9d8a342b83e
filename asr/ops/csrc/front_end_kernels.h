/* Log-mel features (asr/frontend.py) for one instruction set: step_kernels.h includes this file. A vector holds one
 * value of LANES frames, whatever streams they are of, so that a frame comes out the same to the bit in any company.
 */

/* ln x for positive x, relative error 1e-7; NaN and infinity become NaN: Cephes' logf. */
INLINE V NAME(log)(V x)
{
    const VU bits = (VU)x;
    VI exponent = (VI)(bits >> 23) - 126;
    V m = (V)((bits & 0x007fffffu) | 0x3f000000u); /* 0.5 .. 1 */
    const VI small = m < 0.707106781186547524f;
    exponent += small; /* -1 where true */
    m += (V)((VI)m & small) - 1.0f;
    V p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const V e = __builtin_convertvector(exponent, V), square = m * m;
    return m * square * p - e * 2.12194440e-4f - square * 0.5f + m + e * 0.693359375f + x * 0;
}

/* In place, z of `size` complex values as real and imaginary vectors, in bit-reversed order -> their transform. */
static void NAME(fourier)(const FrontEnd *front, V (*z)[2], int64_t size)
{
    for (int64_t half = 1; half < size; half *= 2)
        for (int64_t j = 0; j < half; j++) {
            const float *turn = front->turns + 2 * j * (size / half); /* of -pi j / half */
            for (int64_t at = j; at < size; at += 2 * half) {
                V *a = z[at], *b = z[at + half];
                const V real = b[0] * turn[0] - b[1] * turn[1], imaginary = b[0] * turn[1] + b[1] * turn[0];
                b[0] = a[0] - real, b[1] = a[1] - imaginary;
                a[0] += real, a[1] += imaginary;
            }
        }
}

/* The power of each of fft / 2 + 1 bins, of the transform of even samples as real and odd ones as imaginary parts. */
static void NAME(power)(const FrontEnd *front, V (*z)[2], V *power)
{
    const int64_t half = front->fft / 2;
    for (int64_t k = 0; k <= half; k++) {
        const V *a = z[k % half], *b = z[(half - k) % half];
        const float *turn = front->turns + 2 * (k % half), sign = k == half ? -1 : 1;
        const V even_real = a[0] + b[0], even_imaginary = a[1] - b[1];
        const V odd_real = (a[1] + b[1]) * sign, odd_imaginary = (b[0] - a[0]) * sign;
        const V real = even_real + odd_real * turn[0] - odd_imaginary * turn[1];
        const V imaginary = even_imaginary + odd_real * turn[1] + odd_imaginary * turn[0];
        power[k] = (real * real + imaginary * imaginary) * 0.25f;
    }
}

/* Less the running mean: a frame of features, and how loud it is. state: floor, since, frames, the mean. */
static void NAME(adapt)(const FrontEnd *front, float loudness, float *restrict features, float *restrict state)
{
    const float rising = state[0] + front->rise, floor = loudness < rising ? loudness : rising;
    const float later = state[1] < front->hangover + 1 ? state[1] + 1 : state[1];
    const float since = loudness > floor + front->heard ? 0 : later, weight = since <= front->hangover;
    const float more = state[2] + weight, frames = more < front->mean_frames ? more : front->mean_frames;
    const float share = weight / frames;
    float *mean = state + 3;
    for (int64_t m = 0; m < front->mels; m++) {
        mean[m] += share * (features[m] - mean[m]);
        features[m] -= mean[m];
    }
    state[0] = floor, state[1] = since, state[2] = frames;
}

/* audio: of each stream `front->hop * length` samples, streams `stride` apart. features: `length` rows of each stream,
 * streams `feature_stride` apart. The state of a stream, the samples that its next frame needs and that of the running
 * mean, comes first in its row of `state`. */
static void NAME(front_end)(const Encoder *encoder, const float *audio, int64_t stride, float *state, float *features,
                            int64_t feature_stride, int64_t streams, int64_t length, const Scratch *scratch)
{
    const FrontEnd *front = &encoder->front_end;
    const int64_t tail = front->window - front->hop, room = tail + front->hop * length, rows = streams * length;
    for (int64_t b = 0; b < streams; b++) {
        float *samples = scratch->samples + b * room, *waiting = state + b * encoder->state;
        copy(samples, waiting, tail);
        copy(samples + tail, audio + b * stride, front->hop * length);
        copy(waiting, samples + front->hop * length, tail);
    }
    V(*z)[2] = (V(*)[2])scratch->spectrum, *power = (V *)scratch->spectrum + front->fft;
    for (int64_t first = 0; first < rows; first += LANES) {
        const int count = (int)(rows - first < LANES ? rows - first : LANES);
        memset(z, 0, sizeof(V) * (size_t)front->fft);
        for (int lane = 0; lane < count; lane++) {
            const int64_t b = (first + lane) / length, t = (first + lane) % length;
            const float *frame = scratch->samples + b * room + t * front->hop;
            for (int64_t i = 0; i < front->window; i++)
                ((float *)&z[front->places[i / 2]][i % 2])[lane] = frame[i] * front->taper[i];
        }
        NAME(fourier)(front, z, front->fft / 2);
        NAME(power)(front, z, power);
        V loudness = {0};
        for (int64_t m = 0; m < front->mels; m++) {
            const float *filter = front->filters + m * (front->fft / 2 + 1);
            V sum = {0};
            for (int64_t k = front->bins[2 * m]; k < front->bins[2 * m + 1]; k++) sum += power[k] * filter[k];
            const V log_mel = NAME(log)(sum + front->floor), feature = (log_mel - front->mean[m]) / front->std[m];
            loudness += log_mel / (float)front->mels;
            for (int lane = 0; lane < count; lane++) {
                const int64_t b = (first + lane) / length, t = (first + lane) % length;
                features[b * feature_stride + t * front->mels + m] = feature[lane];
            }
        }
        for (int lane = 0; front->mean_frames && lane < count; lane++) {
            const int64_t b = (first + lane) / length, t = (first + lane) % length;
            NAME(adapt)(front, loudness[lane], features + b * feature_stride + t * front->mels, state + b * encoder->state + tail);
        }
    }
}
