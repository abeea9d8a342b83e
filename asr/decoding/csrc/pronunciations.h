// A language model of words, for tokens that spell pronunciations: what the beam takes for a word's letters are
// its phones, one byte each. Homophones are one word to the beam, as likely as the likeliest of them after the words
// before; which of them is written is decided when the words around it are known (asr/decoding/homophones.py).
#ifndef ASR_PRONUNCIATIONS_H_
#define ASR_PRONUNCIATIONS_H_

#include <memory>
#include <string>
#include <vector>

#include "language_model.h"
#include "look_ahead.h"

namespace asr {

class Pronunciations final : public LanguageModel {
 public:
  // lexicon: a line a pronunciation, "phones word"; log_probs: one a line, what it scores besides where it is said
  // that way; words: may be null, then that is all that words score, else those that it does not know are left out.
  Pronunciations(const LanguageModel* words, const std::string& lexicon, const float* log_probs);

  LmState begin() const override { return words_ ? words_->begin() : LmState{}; }
  float score(const LmState& in, uint32_t word, LmState* out) const override;
  float score_end(const LmState& in) const override { return words_ ? words_->score_end(in) : 0; }
  uint32_t unknown() const override { return 0; }
  int32_t child(int32_t node, uint8_t byte) const override {
    const Node& at = nodes_[node];
    const uint64_t bit = kOne << (byte % kBytes);
    if (byte < kBytes || byte >= 2 * kBytes || !(at.has & bit)) return -1;
    return at.children + __builtin_popcountll(at.has & (bit - 1));
  }
  uint32_t word(int32_t node) const override { return nodes_[node].word; }
  float best_below(int32_t node, const LmState& in) const override { return look_ahead_->best(node, in); }

 private:
  static constexpr uint64_t kBytes = 64, kOne = 1;  // letters are the bytes from 64 to 127

  struct Node {
    uint64_t has;      // a bit for each byte that leads on
    int32_t children;  // the first; they lie side by side, in order of their bytes
    uint32_t word;     // number of the pronunciation, 0: none ends here
  };

  struct Homophone {
    uint32_t word;  // id of the model of words
    float log_prob;
  };

  std::vector<Node> nodes_;
  std::vector<uint32_t> first_;  // by pronunciation: where its words begin in `homophones_`
  std::vector<Homophone> homophones_;
  const LanguageModel* words_;
  std::unique_ptr<LookAhead> look_ahead_;
};

}  // namespace asr

#endif  // ASR_PRONUNCIATIONS_H_
