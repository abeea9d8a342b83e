// What the beam needs of a language model: scores of words in natural logarithms, and its vocabulary as a trie
// over UTF-8 bytes. Knows nothing of tokens; immutable, so that streams and threads share one.
#ifndef ASR_LANGUAGE_MODEL_H_
#define ASR_LANGUAGE_MODEL_H_

#include <cstdint>

namespace asr {

constexpr int kMaxOrder = 6;

struct LmState {
  uint32_t words[kMaxOrder - 1];  // the most recent first; equal states compare equal
  uint8_t length;
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual LmState begin() const = 0;                                               // after <s>
  virtual float score(const LmState& in, uint32_t word, LmState* out) const = 0;  // ln P(word | in)
  virtual float score_end(const LmState& in) const = 0;                            // ln P(</s> | in)
  virtual uint32_t unknown() const = 0;                                            // id of <unk>

  // Node 0 is the root.
  virtual int32_t child(int32_t node, uint8_t byte) const = 0;  // -1: no word begins so
  virtual uint32_t word(int32_t node) const = 0;                // id of the word that ends here, or unknown()
  virtual float best_below(int32_t node) const = 0;             // highest unigram ln P of any word at or below
};

}  // namespace asr

#endif  // ASR_LANGUAGE_MODEL_H_
