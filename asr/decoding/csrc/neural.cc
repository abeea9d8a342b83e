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

void add(std::vector<float>& x, const std::vector<float>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

void silu(std::vector<float>& x) {
  for (float& each : x) each = each / (1 + std::exp(-each));
}

std::vector<float> rms(const std::vector<float>& x) {
  float squares = 1e-6f * static_cast<float>(x.size());
  for (const float each : x) squares += each * each;
  const float scale = 1 / std::sqrt(squares / static_cast<float>(x.size()));
  std::vector<float> y(x);
  for (float& each : y) each *= scale;
  return y;
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
      weight1_(narrow(weights.weight1, int64_t{kHistory} * embedding_ * hidden_)),
      weight2_(narrow(weights.weight2, int64_t{hidden_} * hidden_)),
      weight3_(narrow(weights.weight3, int64_t{hidden_} * output_)),
      bias1_(weights.bias1, weights.bias1 + hidden_),
      bias2_(weights.bias2, weights.bias2 + hidden_),
      bias3_(weights.bias3, weights.bias3 + output_) {
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
  std::fill(state.words, state.words + kHistory, kBegin);
  return state;
}

float MixedModel::score(const LmState& in, uint32_t word, LmState* out) const {
  LmState after, ignored;
  const float other = other_->score(in, word, &after);
  const uint32_t known = id(word);
  const float mixed = mix(in, known, known ? 0 : other_->score({}, word, &ignored) - rest_, other);
  std::memcpy(after.words + 1, in.words, sizeof in.words - sizeof *in.words);
  after.words[0] = word;
  *out = after;
  return mixed;
}

float MixedModel::score_end(const LmState& in) const { return mix(in, kEnd, 0, other_->score_end(in)); }

// extra: ln of a word's share of the probability with this id
float MixedModel::mix(const LmState& in, uint32_t id, float extra, float other) const {
  const bool none = std::all_of(in.words, in.words + kHistory, [](uint32_t word) { return word == 0; });
  if (none) return other;  // a state of no words at all: a unigram
  const double probability = std::exp(static_cast<double>(std::min(0.0f, neural(in, id) + extra)));
  return static_cast<float>(std::log(share_ * probability + (1 - share_) * std::exp(static_cast<double>(other))));
}

// ln P of the word with this id.
float MixedModel::neural(const LmState& in, uint32_t id) const {
  Memo::Key ids;
  for (int i = 0; i < kHistory; ++i) ids[i] = this->id(in.words[i]);
  const Memo::Vector g = vectors_.get(ids, [&] { return make(ids); });
  return scalar_product(g->data(), outputs_.data() + int64_t{id} * output_, output_) * output_scales_[id] + bias_[id];
}

std::vector<float> MixedModel::make(const Memo::Key& ids) const {
  std::vector<float> h(bias1_), more(bias2_), g(bias3_);
  for (uint32_t place = 0; place < kHistory; ++place) {
    const Memo::Vector part = parts_.get({place, ids[place]}, [&] {
      const int8_t* row = embeddings_.data() + int64_t{ids[place]} * embedding_;
      std::vector<float> x(row, row + embedding_), y(hidden_);
      for (float& each : x) each *= embedding_scales_[ids[place]];
      multiply(x.data(), weight1_.data() + int64_t{place} * embedding_ * hidden_, y.data(), embedding_, hidden_);
      return y;
    });
    add(h, *part);
  }
  silu(h);
  multiply(rms(h).data(), weight2_.data(), more.data(), hidden_, hidden_);
  silu(more);
  add(h, more);
  multiply(rms(h).data(), weight3_.data(), g.data(), hidden_, output_);
  return g;
}

}  // namespace asr
