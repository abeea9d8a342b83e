// The C interface of language models: what asr/decoding/language_model.py and asr/lm.py call through ctypes.
//
// What fails returns null or -1 and leaves one line in the caller's `error`, of kError bytes.

#include <algorithm>
#include <cstdio>
#include <limits>
#include <new>
#include <stdexcept>

#include "estimate.h"
#include "neural.h"
#include "ngram.h"
#include "ngram_arpa.h"
#include "pronunciations.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace asr;

namespace {

constexpr size_t kError = 1024;

template <typename Result, typename Function>
Result guarded(char* error, Result failed, Function function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    std::snprintf(error, kError, "not enough memory");
  } catch (const std::exception& exception) {
    std::snprintf(error, kError, "%s", exception.what());
  }
  return failed;
}

const NgramModel* ngram(const LanguageModel* model) { return static_cast<const NgramModel*>(model); }

// A model that lives elsewhere (KenLM's, in Python): asked once a finished word. Its trie is that of an NgramModel
// of order 1, whose word ids are the caller's as well.
using ScoreCallback = float (*)(const uint32_t* history, int32_t length, uint32_t word);

class CallbackModel final : public LanguageModel {
 public:
  CallbackModel(const NgramModel* lexicon, int order, ScoreCallback callback)
      : lexicon_(lexicon), order_(std::min(order, kMaxOrder)), callback_(callback) {}

  LmState begin() const override {
    LmState state = {};
    if (order_ > 1) {
      state.words[0] = kBegin;
      state.length = 1;
    }
    return state;
  }
  float score(const LmState& in, uint32_t word, LmState* out) const override {
    const float value = callback_(in.words, in.length, word);
    LmState state = {};
    state.length = (uint8_t)std::min(in.length + 1, order_ - 1);
    if (state.length) state.words[0] = word;
    for (int i = 1; i < state.length; i++) state.words[i] = in.words[i - 1];
    *out = state;
    return value;
  }
  float score_end(const LmState& in) const override { return callback_(in.words, in.length, kEnd); }
  uint32_t unknown() const override { return kUnknown; }
  int32_t child(int32_t node, uint8_t byte) const override { return lexicon_->child(node, byte); }
  uint32_t word(int32_t node) const override { return lexicon_->word(node); }
  float best_below(int32_t node, const LmState& in) const override { return lexicon_->best_below(node, in); }

 private:
  const NgramModel* lexicon_;
  int order_;
  ScoreCallback callback_;
};

}  // namespace

EXPORT LanguageModel* asr_lm_open(const char* path, char* error) {
  return guarded<LanguageModel*>(error, nullptr, [&] { return NgramModel::open(path).release(); });
}

EXPORT LanguageModel* asr_lm_callback(const LanguageModel* lexicon, int order, ScoreCallback callback, char* error) {
  return guarded<LanguageModel*>(error, nullptr,
                                 [&] { return new CallbackModel(ngram(lexicon), order, callback); });
}

// Of the words of `model`, which may be null, by how they are said: see pronunciations.h.
EXPORT LanguageModel* asr_lm_pronounced(const LanguageModel* model, const char* lexicon, size_t size,
                                        const float* log_probs, char* error) {
  return guarded<LanguageModel*>(error, nullptr,
                                 [&] { return new Pronunciations(model, std::string(lexicon, size), log_probs); });
}

// `model` mixed with a neural one: see neural.h.
EXPORT LanguageModel* asr_lm_mixed(const LanguageModel* model, const char* words, size_t size,
                                   const NeuralWeights* weights, double share, char* error) {
  return guarded<LanguageModel*>(error, nullptr,
                                 [&] { return new MixedModel(model, std::string(words, size), *weights, share); });
}

EXPORT void asr_lm_close(LanguageModel* model) { delete model; }

// What an n-gram model has: its order, and how many n-grams of each.
EXPORT int asr_lm_counts(const LanguageModel* model, uint64_t* counts) {
  const NgramHeader& header = ngram(model)->header();
  std::copy(header.counts, header.counts + header.order, counts);
  return (int)header.order;
}

// See `spellable`; the missing letters go to `missing`, of kError bytes.
EXPORT double asr_lm_spellable(const LanguageModel* model, const char* letters, char* missing) {
  std::string lacking;
  const double share = spellable(*ngram(model), letters, &lacking);
  std::snprintf(missing, kError, "%s", lacking.c_str());
  return share;
}

// Text of a sentence, words separated by spaces: ln P of it with </s>. `sums`: ln P of the words that the model knows
// and of </s>; of the others; `counts`: words, those of them that are unknown.
EXPORT void asr_lm_sentence(const LanguageModel* model, const char* text, size_t size, double* sums, uint64_t* counts) {
  LmState state = model->begin();
  const char* end = text + size;
  for (const char* at = text; at < end;) {
    while (at < end && *at == ' ') at++;
    const char* begin = at;
    at = std::find(at, end, ' ');
    if (at == begin) break;
    const uint32_t word = find_word(*model, {begin, (size_t)(at - begin)});
    const bool unknown = word == model->unknown();
    sums[unknown] += model->score(state, word, &state);
    counts[0]++;
    counts[1] += unknown;
  }
  sums[0] += model->score_end(state);
}

// States are the caller's, to be given back to asr_lm_forget. One of no sentence: scores from there are unigrams.
EXPORT LmState* asr_lm_nothing() { return new LmState; }

EXPORT LmState* asr_lm_begin(const LanguageModel* model) { return new LmState(model->begin()); }

// The state after the word; its score goes to `log_prob`.
EXPORT LmState* asr_lm_score(const LanguageModel* model, const LmState* in, const char* word, size_t size,
                             float* log_prob) {
  auto after = std::make_unique<LmState>();
  *log_prob = model->score(*in, find_word(*model, {word, size}), after.get());
  return after.release();
}

EXPORT void asr_lm_forget(LmState* state) { delete state; }

// The words that the n-grams look at, and how many these are.
EXPORT int asr_lm_context(const LmState* state, uint32_t* words) {
  std::copy(state->words, state->words + state->length, words);
  return state->length;
}

// What the beam looks ahead for behind the first letters of a word; minus infinity where no word begins so.
EXPORT float asr_lm_best_below(const LanguageModel* model, const LmState* in, const char* letters, size_t size) {
  const int32_t node = find_node(*model, {letters, size});
  return node < 0 ? -std::numeric_limits<float>::infinity() : model->best_below(node, *in);
}

EXPORT float asr_lm_score_end(const LanguageModel* model, const LmState* in) { return model->score_end(*in); }

// ARPA text in pieces.

EXPORT ArpaReader* asr_lm_arpa(const char* name, const char* directory, uint64_t memory, char* error) {
  return guarded<ArpaReader*>(error, nullptr, [&] { return new ArpaReader(name, directory, memory); });
}

EXPORT void asr_lm_arpa_close(ArpaReader* reader) { delete reader; }

// How many bytes were taken; after fewer than all (or all), asr_lm_arpa_vocabulary may have something.
EXPORT int64_t asr_lm_arpa_feed(ArpaReader* reader, const char* text, size_t size, char* error) {
  return guarded<int64_t>(error, -1, [&] { return (int64_t)reader->feed(text, size); });
}

// How many words the 1-grams have, once they have all been read and until the next piece; else -1.
EXPORT int64_t asr_lm_arpa_vocabulary(const ArpaReader* reader) {
  return reader->has_vocabulary() ? (int64_t)reader->vocabulary().size() : -1;
}

EXPORT const char* asr_lm_arpa_word(const ArpaReader* reader, int64_t index) {
  return reader->vocabulary()[(size_t)index].c_str();
}

EXPORT void asr_lm_arpa_respell(ArpaReader* reader, int64_t index, const char* word) {
  reader->respell((size_t)index, word);
}

EXPORT LanguageModel* asr_lm_arpa_finish(ArpaReader* reader, int bits, const char* path, char* error) {
  return guarded<LanguageModel*>(error, nullptr, [&] { return reader->finish(bits, path).release(); });
}

// Estimation.

// Hears what is being done and how much of it; what is not 0 stops it.
using ProgressCallback = int (*)(const char* phase, uint64_t done, uint64_t all);
using WriteCallback = int (*)(const char* text, size_t size);

namespace {

std::vector<std::string> lines(const char* text, size_t size) {
  std::vector<std::string> found;
  for (const char *at = text, *end = text + size; at < end;) {
    const char* stop = std::find(at, end, '\n');
    if (stop > at) found.emplace_back(at, stop);
    at = stop + 1;
  }
  return found;
}

}  // namespace

EXPORT Estimator* asr_lm_estimator(int order, uint64_t memory, const char* directory, ProgressCallback progress,
                                   char* error) {
  return guarded<Estimator*>(error, nullptr, [&] {
    return new Estimator(order, memory, directory, [progress](const char* phase, uint64_t done, uint64_t all) {
      if (progress(phase, done, all)) throw std::runtime_error("interrupted");
    });
  });
}

EXPORT void asr_lm_estimator_close(Estimator* estimator) { delete estimator; }

// How many words there have been so far.
EXPORT int64_t asr_lm_estimator_feed(Estimator* estimator, const char* text, size_t size, char* error) {
  return guarded<int64_t>(error, -1, [&] {
    estimator->feed(text, size);
    return (int64_t)estimator->tokens();
  });
}

// `counts`: what --prune drops, one an order; `only`: the allowed words, a line each; `listed`: words, a line each, and
// how often each is in other text. How many words of the text were cut.
EXPORT int64_t asr_lm_estimator_run(Estimator* estimator, const uint64_t* counts, int order, double entropy,
                                    uint64_t most, const char* only, size_t size, const char* listed,
                                    size_t listed_size, const double* times, char* error) {
  return guarded<int64_t>(error, -1, [&] {
    Counts elsewhere;
    for (const std::string& word : lines(listed, listed_size)) elsewhere[word] += *times++;
    estimator->estimate({{counts, counts + order}, entropy}, most, lines(only, size), elsewhere);
    return (int64_t)estimator->cut();
  });
}

EXPORT uint64_t asr_lm_estimator_count(const Estimator* estimator, int k) { return estimator->count(k); }

EXPORT int asr_lm_estimator_fell_back(const Estimator* estimator, int k) { return estimator->fell_back(k); }

EXPORT int asr_lm_estimator_arpa(const Estimator* estimator, WriteCallback write, char* error) {
  return guarded<int>(error, -1, [&] {
    estimator->write_arpa([write](const char* text, size_t size) {
      if (write(text, size)) throw std::runtime_error("interrupted");
    });
    return 0;
  });
}

EXPORT LanguageModel* asr_lm_estimator_build(Estimator* estimator, int bits, const char* path, char* error) {
  return guarded<LanguageModel*>(error, nullptr, [&] { return estimator->build(bits, path).release(); });
}
