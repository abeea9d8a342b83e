// Random streams through the beam, for sanitizers: every option, toy language models, hotwords that change.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "beam.h"
#include "neural.h"
#include "pronunciations.h"

namespace {

// Words are all strings of a and b up to three letters; a word's probability is a hash of it and its history.
class Toy : public asr::LanguageModel {
 public:
  asr::LmState begin() const override { return {}; }
  float score(const asr::LmState& in, uint32_t word, asr::LmState* out) const override {
    *out = {{word, in.words[0]}, 2, nullptr};
    return -0.1f - ((word * 2654435761u ^ in.words[0] * 40503u) % 1000) / 200.0f;
  }
  float score_end(const asr::LmState& in) const override { return -0.5f * (in.words[0] % 3); }
  uint32_t unknown() const override { return 0; }
  int32_t child(int32_t node, uint8_t byte) const override {
    return node < 7 && (byte == 'a' || byte == 'b') ? 2 * node + 1 + (byte == 'b') : -1;
  }
  uint32_t word(int32_t node) const override { return node % 4 == 1 ? 0 : node; }
  float best_below(int32_t node, const asr::LmState&) const override { return -0.2f - 0.1f * node; }
  void pairs(const TellPair& tell) const override {
    for (uint32_t before = 0; before < 15; before += 2) {
      for (uint32_t word = before % 5; word < 15; word += 3) tell(before, word, -0.1f * word, -1);
    }
  }
  float backoff(uint32_t before) const override { return -0.3f * before; }
};

// A neural model of random weights, mixed with another one.
std::unique_ptr<asr::MixedModel> mixed(const asr::LanguageModel& other) {
  constexpr int32_t kWords = 7, kEmbedding = 5, kHidden = 9, kOutput = 18;
  std::mt19937 random(1);
  const auto some = [&](int32_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = random() / 4294967296.0f - 0.5f;
    return values;
  };
  const auto bytes = [&](int32_t count) {
    std::vector<int8_t> values(count);
    for (int8_t& value : values) value = static_cast<int8_t>(random() % 255 - 127);
    return values;
  };
  const auto embeddings = bytes(kWords * kEmbedding), outputs = bytes(kWords * kOutput);
  const std::vector<float> scales(kWords, 0.01f), bias(kWords, -2);
  const auto weight_ih = some(kEmbedding * 2 * kHidden), bias_ih = some(2 * kHidden);
  const auto weight_hh = some(kHidden * 2 * kHidden), bias_hn = some(kHidden);
  const auto weight_mix = some(kHidden * kHidden), bias_mix = some(kHidden);
  const auto weight_out = some(kHidden * kOutput), bias_out = some(kOutput);
  const asr::NeuralWeights weights = {
      kWords, kEmbedding, kHidden, kOutput, {embeddings.data(), scales.data()}, {outputs.data(), scales.data()}, bias.data(),
      weight_ih.data(), bias_ih.data(), weight_hh.data(), bias_hn.data(), weight_mix.data(), bias_mix.data(),
      weight_out.data(), bias_out.data()};
  return std::make_unique<asr::MixedModel>(&other, "b\nab\nba\nbbb", weights, 0.5);
}

using Pieces = std::vector<asr::Piece>;

bool ok = true;

void check(bool right, const char* what) {
  if (!right) std::printf("%s\n", what);
  ok = ok && right;
}

void run(uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](uint32_t n) { return random() % n; };
  const auto uniform = [&] { return random() / 4294967296.0; };
  const auto pieces = std::make_shared<const Pieces>(Pieces{{"", false},  {"?", false},  {"a", true}, {"b", true},
                                                            {"a", false}, {"ab", false}, {"", true},  {"c", true}});
  const int32_t vocabulary = static_cast<int32_t>(pieces->size());
  static const Toy toy;
  static const auto both = mixed(toy);
  static const float shares[] = {0, -1, 0, -0.5f, -2, 0};
  static const asr::Pronunciations pronounced(both.get(), "a a\na b\nb ab\nab ab\naba bbb\nbb bb\n", shares);
  const asr::LanguageModel* const models[] = {nullptr, &toy, both.get(), &pronounced};
  const asr::Options options = {static_cast<int32_t>(1 + below(20)), static_cast<int32_t>(1 + below(8)),
                                static_cast<int64_t>(1 + below(40)), 2 + 10 * uniform(), 2 + 15 * uniform(),
                                0.3 + 2 * uniform(), {uniform(), uniform() - 0.5, -3 * uniform()}, static_cast<int64_t>(below(2))};
  asr::Beam beam(pieces, options, models[below(4)]);
  asr::Beam other = beam;
  int64_t end = 0, frames = 0;
  for (int piece = 0; piece < 60; ++piece) {
    const int64_t count = below(12);
    std::vector<float> log_probs(count * vocabulary);
    const double peak = 1 + 8 * uniform();
    for (float& value : log_probs) value = below(12) ? -peak * uniform() * uniform() : -INFINITY;
    for (int64_t t = 0; t < count; ++t) log_probs[t * vocabulary + below(below(2) ? 1 : vocabulary)] = 0;
    beam.accept(log_probs.data(), count);
    frames += count;
    if (below(8) == 0) {
      std::vector<asr::Hotword> hotwords;
      for (uint32_t i = below(4); i > 0; --i) {
        const char* phrases[] = {"ab", "a", "a b", "cab a", "b a b", "c"};
        hotwords.push_back({phrases[below(6)], 0.1 + 2 * uniform()});
      }
      beam.set_hotwords(hotwords.empty() && below(2) ? nullptr : std::make_shared<asr::Hotwords>(hotwords));
    }
    if (below(6) == 0) beam.flush();
    if (below(9) == 0) other = beam;
    if (below(9) == 0) std::swap(beam, other), frames = end = -1;
    asr::Words words = beam.take();
    const size_t final = words.words.size();
    const asr::Words tentative = beam.tentative();
    words.words.insert(words.words.end(), tentative.words.begin(), tentative.words.end());
    int64_t last = end;
    for (size_t place = 0; place < words.words.size(); ++place) {
      const asr::Word& word = words.words[place];
      if (word.behind) continue;
      check(frames < 0 || (last <= word.start && word.start < word.end && word.end <= frames), "times");
      last = word.end;
      if (place < final) end = last;
      check(word.confidence >= 0 && word.confidence <= 1 && word.survived >= 0 && word.tokens > 0, "a word");
    }
    double sum = 0;
    for (const asr::Reading& reading : beam.nbest(1 + below(30)).readings) {
      check(std::isfinite(reading.score), "a score");
      sum += reading.posterior;
    }
    check(sum > 0 && sum < 1 + 1e-9, "posteriors");
    check(beam.size() < 20000, "size");
    if (below(25) == 0) beam.reset(), frames = end = 0;
    if (frames < 0) return;  // whose frames these are is not known any more
  }
}

}  // namespace

int main() {
  for (uint32_t seed = 0; seed < 2000; ++seed) run(seed);
  return ok ? 0 : 1;
}
