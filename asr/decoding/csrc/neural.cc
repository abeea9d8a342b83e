#include "neural.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "ngram.h"

// Machine code for more than one processor, the right one chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ASR_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define ASR_CLONES
#endif

namespace asr {
namespace {

constexpr int32_t kLanes = 16;

inline float wide(uint16_t bfloat16) {
  const uint32_t bits = uint32_t{bfloat16} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// bfloat16, to the nearest: half the memory to go through, which is what takes the time.
std::vector<uint16_t> narrow(const float* values, int64_t count) {
  std::vector<uint16_t> made(count);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    made[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  return made;
}

// y += x W, W (inputs, outputs)
ASR_CLONES void multiply(const float* x, const uint16_t* w, float* y, int32_t inputs, int32_t outputs) {
  int32_t k = 0;
  for (; k + 4 <= inputs; k += 4, w += 4 * outputs) {
    const float a = x[k], b = x[k + 1], c = x[k + 2], d = x[k + 3];
    const uint16_t *w1 = w + outputs, *w2 = w1 + outputs, *w3 = w2 + outputs;
    for (int32_t i = 0; i < outputs; ++i) {
      y[i] += (a * wide(w[i]) + b * wide(w1[i])) + (c * wide(w2[i]) + d * wide(w3[i]));
    }
  }
  for (; k < inputs; ++k, w += outputs) {
    for (int32_t i = 0; i < outputs; ++i) y[i] += x[k] * wide(w[i]);
  }
}

ASR_CLONES float scalar_product(const float* x, const int8_t* y, int32_t count) {
  float sums[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * static_cast<float>(y[i + lane]);
  }
  for (; i < count; ++i) sums[0] += x[i] * static_cast<float>(y[i]);
  float sum = 0;
  for (const float each : sums) sum += each;
  return sum;
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

std::vector<float> rms(const std::vector<float>& x) {
  float squares = 1e-6f * static_cast<float>(x.size());
  for (const float each : x) squares += each * each;
  const float scale = 1 / std::sqrt(squares / static_cast<float>(x.size()));
  std::vector<float> y(x);
  for (float& each : y) each *= scale;
  return y;
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
      weight_ih_(narrow(weights.weight_ih, int64_t{2} * embedding_ * hidden_)),
      weight_hh_(narrow(weights.weight_hh, int64_t{2} * hidden_ * hidden_)),
      weight_mix_(narrow(weights.weight_mix, int64_t{hidden_} * hidden_)),
      weight_out_(narrow(weights.weight_out, int64_t{hidden_} * output_)),
      bias_ih_(weights.bias_ih, weights.bias_ih + 2 * hidden_),
      bias_hn_(weights.bias_hn, weights.bias_hn + hidden_),
      bias_mix_(weights.bias_mix, weights.bias_mix + hidden_),
      bias_out_(weights.bias_out, weights.bias_out + output_),
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
  const float product = scalar_product(vectors.output.data(), outputs_.data() + int64_t{id} * output_, output_);
  const float neural = product * output_scales_[id] + bias_[id] + extra;
  const double probability = std::exp(static_cast<double>(std::min(0.0f, neural)));
  return static_cast<float>(std::log(share_ * probability + (1 - share_) * std::exp(static_cast<double>(other))));
}

SharedVectors MixedModel::vectors(const History& history) const {
  return memo_.get(history.key, [&] { return step(history); });
}

Vectors MixedModel::step(const History& history) const {
  const int8_t* row = embeddings_.data() + int64_t{history.last} * embedding_;
  std::vector<float> x(row, row + embedding_), gates(bias_ih_), recurrent(2 * hidden_), h(hidden_);
  for (float& each : x) each *= embedding_scales_[history.last];
  multiply(x.data(), weight_ih_.data(), gates.data(), embedding_, 2 * hidden_);
  if (history.before) {
    h = history.before->hidden;
    multiply(h.data(), weight_hh_.data(), recurrent.data(), hidden_, 2 * hidden_);
  }
  for (int32_t i = 0; i < hidden_; ++i) {
    const float f = sigmoid(gates[i] + recurrent[i]);
    const float n = std::tanh(gates[hidden_ + i] + f * (recurrent[hidden_ + i] + bias_hn_[i]));
    h[i] = (1 - f) * n + f * h[i];
  }
  std::vector<float> mixed(bias_mix_), g(bias_out_), sum(h);
  multiply(rms(h).data(), weight_mix_.data(), mixed.data(), hidden_, hidden_);
  for (int32_t i = 0; i < hidden_; ++i) sum[i] += mixed[i] * sigmoid(mixed[i]);
  multiply(rms(sum).data(), weight_out_.data(), g.data(), hidden_, output_);
  return {std::move(h), std::move(g)};
}

}  // namespace asr
