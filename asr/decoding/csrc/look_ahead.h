// What a word that is being said can come to: the highest ln P of all that go on so, after the word before (language model
// look-ahead by bigrams, Ortmanns, Ney and Eiden 1996).
//
// Words are the ends of a tree. Behind a word v, a node is worth the likeliest of the words at or below it that follow v in
// the n-grams, or the likeliest one by itself times v's back-off, whichever is more. The former are kept where they are
// more, those of each v from when it is first asked for, so that opening a model costs no more than to sort its pairs.
#ifndef ASR_LOOK_AHEAD_H_
#define ASR_LOOK_AHEAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "language_model.h"

namespace asr {

class LookAhead {
 public:
  struct End {
    uint32_t word;
    int32_t node;
    float log_prob;  // of the word's end here, to be added to the word's
  };
  struct Tree {
    std::vector<int32_t> parents;  // by node, breadth first; that of the root, 0, is 0
    std::vector<float> alone;      // by node: the highest unigram ln P at or below
    std::vector<End> ends;         // sorted by word
  };

  // words: null where nothing is known of what follows what.
  LookAhead(const LanguageModel* words, Tree tree);
  ~LookAhead();
  LookAhead(const LookAhead&) = delete;
  LookAhead& operator=(const LookAhead&) = delete;

  float best(int32_t node, const LmState& in) const {  // from any thread
    if (in.length == 0 || in.words[0] + 1 >= first_.size()) return tree_.alone[node];
    const Row* row = rows_[in.words[0]].load(std::memory_order_acquire);
    return (row ? *row : make(in.words[0])).best(node, tree_.alone[node]);
  }

 private:
  struct Follower {
    uint32_t word;
    float log_prob;
  };

  // Behind one word: the root and its children, which are asked for most, and a hash table of other nodes.
  struct Row {
    struct Slot {
      int32_t node;  // -1: none
      float best;
    };
    float backoff;
    uint32_t mask;
    std::vector<float> top;
    std::vector<Slot> slots;

    uint32_t place(int32_t node) const { return static_cast<uint32_t>(node) * 0x9e3779b1u >> 7 & mask; }
    float best(int32_t node, float alone) const {
      if (static_cast<size_t>(node) < top.size()) return top[static_cast<size_t>(node)];
      for (uint32_t at = place(node);; at = (at + 1) & mask) {
        if (slots[at].node == node) return slots[at].best;
        if (slots[at].node < 0) return backoff + alone;
      }
    }
  };

  const Row& make(uint32_t before) const;

  const LanguageModel* words_;
  Tree tree_;
  size_t top_;                       // the root and its children
  std::vector<uint32_t> first_;      // by word, and one more: where the words that follow it begin in `followers_`
  std::vector<Follower> followers_;  // that are likelier than by the back-off
  std::vector<uint32_t> first_end_;  // by word, and one more: where its nodes begin in `tree_.ends`
  std::unique_ptr<std::atomic<const Row*>[]> rows_;  // by word, null: nobody has asked
  mutable std::mutex making_;
  mutable std::vector<float> found_;  // by node, while a row is made; else minus infinity
};

}  // namespace asr

#endif  // ASR_LOOK_AHEAD_H_
