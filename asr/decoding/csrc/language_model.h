// What the beam needs of a language model: scores of words in natural logarithms, and its vocabulary as a trie
// over UTF-8 bytes. Knows nothing of tokens; immutable, so that streams and threads share one.
#ifndef ASR_LANGUAGE_MODEL_H_
#define ASR_LANGUAGE_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace asr {

constexpr int kMaxOrder = 6;

struct History;  // neural.h

struct LmState {
  uint32_t words[kMaxOrder - 1] = {};  // that an n-gram model looks at, the most recent first, then zeros
  uint8_t length = 0;                  // how many these are; states with the same ones are merged in search
  std::shared_ptr<const History> history;  // what a neural model has heard of the sentence, null without one
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
  // The highest ln P of any word at or below after `in`, nearly: what is looked ahead for.
  virtual float best_below(int32_t node, const LmState& in) const = 0;

  // Words that are known to follow another one: ln P, and what it would be by the back-off; and that back-off.
  using TellPair = std::function<void(uint32_t before, uint32_t word, float log_prob, float backed_off)>;
  virtual void pairs(const TellPair&) const {}
  virtual float backoff(uint32_t /*before*/) const { return 0; }
};

// -1: no word begins so.
inline int32_t find_node(const LanguageModel& model, std::string_view letters) {
  int32_t node = 0;
  for (size_t i = 0; i < letters.size() && node >= 0; ++i) node = model.child(node, static_cast<uint8_t>(letters[i]));
  return node;
}

// The id of a word, unknown() if the model has none.
inline uint32_t find_word(const LanguageModel& model, std::string_view word) {
  const int32_t node = find_node(model, word);
  return node < 0 ? model.unknown() : model.word(node);
}

}  // namespace asr

#endif  // ASR_LANGUAGE_MODEL_H_
