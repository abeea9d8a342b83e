// Hotwords as an Aho-Corasick automaton over the bytes of text, so that any segmentation into tokens counts.
//
// A phrase is matched from the beginning of a word to the end of a word: what is matched is the string
// " new york", and it counts once the word "york" has ended. A phrase is worth boost * letters. Of the phrases
// that end with a word the one that is worth most counts; what a listed phrase at its beginning ("new") was
// given already is taken off. While a phrase is being spelled, the letters so far count in advance (`partial`):
// this is a function of the state alone, so it is gone when the match fails.
#ifndef ASR_HOTWORDS_H_
#define ASR_HOTWORDS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace asr {

struct Hotword {
  std::string phrase;  // words with single spaces between them, UTF-8
  double boost;        // above 0
};

class Hotwords {
 public:
  explicit Hotwords(std::vector<Hotword> phrases);

  // The state before a word; state 0 is inside a word that no phrase has.
  int32_t start() const { return start_; }
  int32_t step(int32_t state, uint8_t byte) const;
  double partial(int32_t state) const { return nodes_[state].partial; }  // in advance
  double whole(int32_t state) const { return nodes_[state].whole; }      // earned if the word ends here
  // Whether the word, if it ends here, is the last of a phrase or one before.
  bool in_phrase(int32_t state) const { return nodes_[state].in_phrase; }
  double boost() const { return boost_; }  // the highest

 private:
  struct Node {
    int32_t first;   // of the children, which lie side by side
    int32_t fail;    // the longest proper suffix that a phrase begins with
    int16_t children;
    bool in_phrase;
    double partial, whole;
  };

  int32_t child(int32_t state, uint8_t byte) const;

  std::vector<Node> nodes_;
  std::vector<uint8_t> bytes_;  // that lead to a node
  std::array<int32_t, 256> words_;  // children of the start, which has many
  int32_t start_ = 0;
  double boost_ = 0;
};

}  // namespace asr

#endif  // ASR_HOTWORDS_H_
