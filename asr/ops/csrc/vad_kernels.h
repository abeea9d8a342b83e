/* Silero's network (asr/vad.py) for one instruction set: step_kernels.h includes this file. */

/* Rows of sums as the inputs of a convolution: none below zero, and `length` of each window between two of zeros. */
static void NAME(rectify)(const float *sums, int64_t wide, int64_t channels, int64_t length, int64_t windows, float *to)
{
    memset(to, 0, sizeof(float) * (size_t)(windows * (length + 2) * channels));
    for (int64_t r = 0; r < windows * length; r++) {
        float *row = to + ((r / length + 1) * 2 - 1 + r) * channels;
        for (int64_t i = 0; i < channels; i++) row[i] = sums[r * wide + i] > 0 ? sums[r * wide + i] : 0;
    }
}

/* What the convolutions make of the windows in scratch->samples: (windows, VAD_HIDDEN). */
static void NAME(convolve_windows)(const Vad *vad, int64_t windows, const Scratch *scratch, float *to)
{
    static const int64_t strides[] = {1, 2, 2, 1};
    const int64_t bins = vad->spectrum.columns / 2;
    int64_t length = VAD_FRAMES, channels = bins, wide = round_up(2 * bins, COLUMNS);
    const Rows frames = {scratch->samples, VAD_FRAMES, VAD_SAMPLES, VAD_HOP};
    NAME(product)(F32, &vad->spectrum, &frames, windows * VAD_FRAMES, scratch, scratch->sums);
    for (int64_t r = 0; r < windows * VAD_FRAMES; r++) {
        float *cosines = scratch->sums + r * wide, *sines = cosines + bins;
        for (int64_t i = 0; i < bins; i++) cosines[i] = sqrtf(cosines[i] * cosines[i] + sines[i] * sines[i]);
    }
    for (int i = 0; i < 4; i++) {
        const Product *product = vad->convolutions + i;
        NAME(rectify)(scratch->sums, wide, channels, length, windows, scratch->frames);
        const Rows inputs = {scratch->frames, ceil_div(length, strides[i]), (length + 2) * channels,
                             strides[i] * channels};
        length = inputs.each, channels = product->columns, wide = round_up(channels, COLUMNS);
        NAME(product)(F32, product, &inputs, windows * length, scratch, scratch->sums);
    }
    for (int64_t w = 0; w < windows; w++)
        for (int64_t i = 0; i < VAD_HIDDEN; i++) {
            const float x = scratch->sums[w * wide + i];
            to[w * VAD_HIDDEN + i] = x > 0 ? x : 0;
        }
}

/* One step of the LSTM, whose gates are i, f, g and o, and the probability of speech after it. */
static float NAME(remember)(const Vad *vad, const float *inputs, const float *recurrent, float *hidden, float *cell)
{
    V speech = {0};
    for (int64_t i = 0; i < VAD_HIDDEN; i += LANES) {
        V gates[4];
        for (int gate = 0; gate < 4; gate++)
            gates[gate] = NAME(load)(inputs + gate * VAD_HIDDEN + i, LANES) +
                          NAME(load)(recurrent + gate * VAD_HIDDEN + i, LANES);
        const V kept = NAME(sigmoid)(gates[1]) * NAME(load)(cell + i, LANES);
        const V now = kept + NAME(sigmoid)(gates[0]) * NAME(tanh)(gates[2]);
        const V next = NAME(sigmoid)(gates[3]) * NAME(tanh)(now);
        NAME(store)(cell + i, now, LANES);
        NAME(store)(hidden + i, next, LANES);
        speech += (V)((VI)next & (next > 0)) * NAME(load)(vad->head + i, LANES);
    }
    return 1 / (1 + expf(-NAME(sum)(speech) - vad->head_bias));
}

/* `windows` windows of each stream: audio and speech are of the first ones, strides from stream to stream. */
static void NAME(listen)(const Vad *vad, const float *audio, int64_t stride, float *state, float *speech,
                         int64_t speech_stride, int64_t streams, int64_t windows, const Scratch *scratch)
{
    const int64_t reflected = VAD_SAMPLES - VAD_CONTEXT - VAD_WINDOW, gates = 4 * VAD_HIDDEN;
    for (int64_t r = 0; r < streams * windows; r++) {
        const int64_t b = r / windows, w = r % windows;
        float *samples = scratch->samples + r * VAD_SAMPLES;
        const float *from = audio + b * stride + w * VAD_WINDOW, *before = state + b * VAD_STATE;
        copy(samples, w ? from - VAD_CONTEXT : before, VAD_CONTEXT);
        copy(samples + VAD_CONTEXT, from, VAD_WINDOW);
        for (int64_t i = 1; i <= reflected; i++)
            samples[VAD_CONTEXT + VAD_WINDOW - 1 + i] = samples[VAD_CONTEXT + VAD_WINDOW - 1 - i];
    }
    for (int64_t b = 0; b < streams; b++)
        copy(state + b * VAD_STATE, audio + b * stride + windows * VAD_WINDOW - VAD_CONTEXT, VAD_CONTEXT);
    NAME(convolve_windows)(vad, streams * windows, scratch, scratch->outputs);
    const Rows inputs = {scratch->outputs, streams * windows, 0, VAD_HIDDEN};
    NAME(product)(F32, &vad->inputs, &inputs, streams * windows, scratch, scratch->sums);
    const Rows states = {state + VAD_CONTEXT, 1, VAD_STATE, 0};
    for (int64_t w = 0; w < windows; w++) {
        NAME(product)(F32, &vad->recurrent, &states, streams, scratch, scratch->recurrent);
        for (int64_t b = 0; b < streams; b++) {
            float *hidden = state + b * VAD_STATE + VAD_CONTEXT;
            speech[b * speech_stride + w] =
                NAME(remember)(vad, scratch->sums + (b * windows + w) * gates, scratch->recurrent + b * gates, hidden,
                               hidden + VAD_HIDDEN);
        }
    }
}
