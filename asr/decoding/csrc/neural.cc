#include "neural.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "ngram.h"

// Machine code for more than one processor, the right one chosen when the library is loaded. Levels, not models of
// processors: GCC takes "arch=haswell" for Haswell and for nothing that came after it. Before 12 it knows no levels.
#if !defined(__x86_64__) || !defined(__GLIBC__) || !defined(__GNUC__) || defined(__clang__) || \
    defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ASR_CLONES
#elif __GNUC__ < 12
#define ASR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define ASR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

namespace asr {
namespace {

constexpr int32_t kMost = 127;  // of 8-bit weights

// y = x W, W (outputs, inputs)
ASR_CLONES void multiply(const int16_t* x, const int8_t* w, int32_t* y, int32_t inputs, int32_t outputs) {
  int32_t o = 0;
  for (; o + 4 <= outputs; o += 4, w += 4 * inputs) {  // four at a time read x once
    const int8_t *w1 = w + inputs, *w2 = w1 + inputs, *w3 = w2 + inputs;
    int32_t a = 0, b = 0, c = 0, d = 0;
    for (int32_t k = 0; k < inputs; ++k) {
      a += x[k] * w[k];
      b += x[k] * w1[k];
      c += x[k] * w2[k];
      d += x[k] * w3[k];
    }
    y[o] = a, y[o + 1] = b, y[o + 2] = c, y[o + 3] = d;
  }
  for (; o < outputs; ++o, w += inputs) {
    y[o] = 0;
    for (int32_t k = 0; k < inputs; ++k) y[o] += x[k] * w[k];
  }
}

// Of the magnitudes; they are ordered as their bits are.
ASR_CLONES float largest(const float* x, int32_t count) {
  int32_t most = 0;
  for (int32_t i = 0; i < count; ++i) {
    int32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  float value;
  std::memcpy(&value, &most, sizeof value);
  return value;
}

ASR_CLONES void round(const float* x, float scale, int16_t* y, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    y[i] = static_cast<int16_t>(static_cast<int32_t>(x[i] * scale + (x[i] < 0 ? -0.5f : 0.5f)));
  }
}

// As fine as sums of products with as many weights stay below 2^31.
Integers integers(const std::vector<float>& x) {
  const auto count = static_cast<int32_t>(x.size());
  const auto finest = static_cast<float>(std::min(INT16_MAX, INT32_MAX / kMost / std::max(1, count) - 1));
  const float scale = std::max(largest(x.data(), count), 1e-30f) / finest;
  Integers made{std::vector<int16_t>(x.size()), scale};
  round(x.data(), 1 / scale, made.values.data(), count);
  return made;
}

// (inputs, outputs), row-major
Layer layer(const float* weights, int32_t inputs, std::vector<float> bias) {
  const auto outputs = static_cast<int32_t>(bias.size());
  Layer made{inputs, outputs, std::vector<int8_t>(int64_t{inputs} * outputs), {}, std::move(bias)};
  for (int32_t o = 0; o < outputs; ++o) {
    float most = 1e-30f;
    for (int32_t k = 0; k < inputs; ++k) most = std::max(most, std::abs(weights[int64_t{k} * outputs + o]));
    made.scales.push_back(most / kMost);
    for (int32_t k = 0; k < inputs; ++k) {
      const float weight = weights[int64_t{k} * outputs + o] / made.scales.back();
      made.weights[int64_t{o} * inputs + k] = static_cast<int8_t>(std::lrint(weight));
    }
  }
  return made;
}

// What is left of the weights of a layer, as another one.
Layer remainder(const float* weights, const Layer& rounded) {
  std::vector<float> left(weights, weights + int64_t{rounded.inputs} * rounded.outputs);
  for (int32_t k = 0; k < rounded.inputs; ++k) {
    for (int32_t o = 0; o < rounded.outputs; ++o) {
      const int8_t weight = rounded.weights[int64_t{o} * rounded.inputs + k];
      left[int64_t{k} * rounded.outputs + o] -= rounded.scales[o] * static_cast<float>(weight);
    }
  }
  return layer(left.data(), rounded.inputs, std::vector<float>(rounded.outputs));
}

std::vector<float> outputs(const Layer& layer, const Integers& x) {
  std::vector<int32_t> sums(layer.outputs);
  multiply(x.values.data(), layer.weights.data(), sums.data(), layer.inputs, layer.outputs);
  std::vector<float> y(layer.bias);
  for (int32_t o = 0; o < layer.outputs; ++o) y[o] += static_cast<float>(sums[o]) * (x.scale * layer.scales[o]);
  return y;
}

// Cephes, to a relative error of 2e-7; loops over it are vector code, which those over std::exp are not.
inline float exponential(float x) {
  x = x < -87 ? -87 : x > 88 ? 88 : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the low bits now hold the integer
  const float whole = shifted - 12582912.0f;
  const float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return (p * r * r + r + 1) * power;
}

inline float sigmoid(float x) { return 1 / (1 + exponential(-x)); }
inline float tangent(float x) { return 1 - 2 / (1 + exponential(2 * x)); }

// f before n each; in, what comes of the word; of the state before: recurrent, with b_hn.
ASR_CLONES void gate(const float* in, const float* recurrent, float* h, int32_t hidden) {
  for (int32_t i = 0; i < hidden; ++i) {
    const float f = sigmoid(in[i] + recurrent[i]);
    const float n = tangent(in[hidden + i] + f * recurrent[hidden + i]);
    h[i] = (1 - f) * n + f * h[i];
  }
}

// y += silu(x)
ASR_CLONES void add_silu(const float* x, float* y, int32_t count) {
  for (int32_t i = 0; i < count; ++i) y[i] += x[i] * sigmoid(x[i]);
}

std::vector<float> rms(const std::vector<float>& x) {
  float squares = 1e-6f * static_cast<float>(x.size());
  for (const float each : x) squares += each * each;
  const float scale = 1 / std::sqrt(squares / static_cast<float>(x.size()));
  std::vector<float> y(x);
  for (float& each : y) each *= scale;
  return y;
}

std::vector<float> behind_zeros(const float* values, int32_t count) {
  std::vector<float> made(count, 0.0f);
  made.insert(made.end(), values, values + count);
  return made;
}

// Two hashes with other multipliers: histories that agree in both by chance do not occur.
HistoryKey longer(const HistoryKey& key, uint32_t id) {
  const auto mixed = [](uint64_t bits) {  // the finaliser of splitmix64
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
    return bits ^ bits >> 31;
  };
  return {mixed(key[0] * 0x9e3779b97f4a7c15u + id + 1), mixed(key[1] * 0xd6e8feb86659fd93u + 2 * uint64_t{id} + 1)};
}

}  // namespace

MixedModel::MixedModel(const LanguageModel* other, const std::string& words, const NeuralWeights& weights, double share)
    : other_(other),
      share_(share),
      embedding_(weights.embedding),
      hidden_(weights.hidden),
      output_(weights.output),
      embeddings_(weights.embeddings.values, weights.embeddings.values + int64_t{weights.words} * embedding_),
      outputs_(weights.outputs.values, weights.outputs.values + int64_t{weights.words} * output_),
      embedding_scales_(weights.embeddings.scales, weights.embeddings.scales + weights.words),
      output_scales_(weights.outputs.scales, weights.outputs.scales + weights.words),
      bias_(weights.bias, weights.bias + weights.words),
      word_(layer(weights.weight_ih, embedding_, {weights.bias_ih, weights.bias_ih + 2 * hidden_})),
      before_(layer(weights.weight_hh, hidden_, behind_zeros(weights.bias_hn, hidden_))),
      mix_(layer(weights.weight_mix, hidden_, {weights.bias_mix, weights.bias_mix + hidden_})),
      out_(layer(weights.weight_out, hidden_, {weights.bias_out, weights.bias_out + output_})),
      out_remainder_(remainder(weights.weight_out, out_)),
      begin_(std::make_shared<const History>(History{longer({}, kBegin), kBegin, nullptr})) {
  ids_ = {0, kBegin, kEnd};
  LmState ignored;
  double known = std::exp(other_->score_end({}));
  uint32_t id = kFirstWord;
  for (std::string_view rest = words; !rest.empty(); ++id) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const uint32_t word = find_word(*other_, line);
    if (word == other_->unknown()) continue;
    if (word >= ids_.size()) ids_.resize(word + 1, 0);
    ids_[word] = id;
    known += std::exp(other_->score({}, word, &ignored));
  }
  if (id != static_cast<uint32_t>(weights.words)) throw std::runtime_error("a neural language model of other words");
  rest_ = static_cast<float>(std::log(std::max(1e-4, 1 - known)));
}

LmState MixedModel::begin() const {
  LmState state = other_->begin();
  state.history = begin_;
  return state;
}

float MixedModel::score(const LmState& in, uint32_t word, LmState* out) const {
  LmState after, ignored;
  const float other = other_->score(in, word, &after);
  if (!in.history) {  // a state of no sentence: a unigram
    *out = after;
    return other;
  }
  const uint32_t known = id(word);
  SharedVectors vectors = this->vectors(*in.history);
  const float mixed = mix(*vectors, known, known ? 0 : other_->score({}, word, &ignored) - rest_, other);
  after.history = std::make_shared<const History>(History{longer(in.history->key, known), known, std::move(vectors)});
  *out = std::move(after);
  return mixed;
}

float MixedModel::score_end(const LmState& in) const {
  const float other = other_->score_end(in);
  return in.history ? mix(*vectors(*in.history), kEnd, 0, other) : other;
}

// extra: ln of a word's share of the probability with this id
float MixedModel::mix(const Vectors& vectors, uint32_t id, float extra, float other) const {
  const Integers& g = vectors.output;
  int32_t product;
  multiply(g.values.data(), outputs_.data() + int64_t{id} * output_, &product, output_, 1);
  const float neural = static_cast<float>(product) * (g.scale * output_scales_[id]) + bias_[id] + extra;
  const double probability = std::exp(static_cast<double>(std::min(0.0f, neural)));
  return static_cast<float>(std::log(share_ * probability + (1 - share_) * std::exp(static_cast<double>(other))));
}

SharedVectors MixedModel::vectors(const History& history) const {
  return memo_.get(history.key, [&] { return step(history); });
}

Vectors MixedModel::step(const History& history) const {
  const int8_t* row = embeddings_.data() + int64_t{history.last} * embedding_;
  const std::vector<float> in = outputs(word_, {{row, row + embedding_}, embedding_scales_[history.last]});
  std::vector<float> h(hidden_), recurrent(before_.bias);
  if (history.before) {
    h = history.before->hidden;
    recurrent = outputs(before_, integers(h));
  }
  gate(in.data(), recurrent.data(), h.data(), hidden_);
  std::vector<float> sum(h);
  add_silu(outputs(mix_, integers(rms(h))).data(), sum.data(), hidden_);
  const Integers x = integers(rms(sum));
  std::vector<float> g = outputs(out_, x);
  const std::vector<float> more = outputs(out_remainder_, x);
  for (int32_t i = 0; i < output_; ++i) g[i] += more[i];
  return {std::move(h), integers(g)};
}

}  // namespace asr
