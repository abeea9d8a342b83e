// A recurrent language model of minimal gated units, mixed with another one:
// P(w) = share * P_neural(w) + (1 - share) * P_other(w). The other one has the vocabulary, of which the neural model
// knows the most frequent words; the others share its probability of <unk> as their unigrams do.
//
//   (a_f, a_n) = e_v W_ih + b_ih, of the last word v      (u_f, u_n) = h W_hh
//   f = sigmoid(a_f + u_f)      n = tanh(a_n + f (u_n + b_hn))      h' = (1 - f) n + f h
//   g = rms(h' + silu(rms(h') W_mix + b_mix)) W_out + b_out          ln P_neural(w) = g . o_w + b_w
//
// which is trained to need no normalising (asr/neural_lm/training.py). Products are of integers, weights of 8 bits and
// vectors of 16: a quarter of the memory to go through, which is what takes the time. A history holds the vectors from before its last
// word, never those before them, and its own are made when it is first asked for a word: most histories never are. They
// are kept for a while, for all streams, and are the same numbers whenever they are made.
#ifndef ASR_NEURAL_H_
#define ASR_NEURAL_H_

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "language_model.h"

namespace asr {

// Rows of 8-bit integers, each with a scale.
struct Rows {
  const int8_t* values;
  const float* scales;
};

// Matrices are (inputs, outputs), row-major; of the gates, f comes before n.
struct NeuralWeights {
  int32_t words, embedding, hidden, output;
  Rows embeddings, outputs;
  const float* bias;  // (words)
  const float *weight_ih, *bias_ih, *weight_hh, *bias_hn, *weight_mix, *bias_mix, *weight_out, *bias_out;
};

// A vector, and what one in it is worth.
struct Integers {
  std::vector<int16_t> values;
  float scale;
};

// b + x W. weights (outputs, inputs), and what one is worth in each output.
struct Layer {
  int32_t inputs, outputs;
  std::vector<int8_t> weights;
  std::vector<float> scales, bias;
};

// What the words of a history have left.
struct Vectors {
  std::vector<float> hidden;  // h
  Integers output;            // g
};

using SharedVectors = std::shared_ptr<const Vectors>;
using HistoryKey = std::array<uint64_t, 2>;  // hashes of all its words

// The words since <s>, as far as the neural model goes.
struct History {
  HistoryKey key;
  uint32_t last;         // the neural model's id of the last word
  SharedVectors before;  // of the words before it; null: none
};

// Vectors of histories that are wanted again and again. From any thread.
class Memo {
 public:
  // What was made for this key before, unless another one has taken its place since.
  template <typename Make>
  SharedVectors get(const HistoryKey& key, const Make& make) {
    Slot& slot = slots_[key[0] % kSlots];
    std::mutex& lock = locks_[key[0] % kLocks];
    {
      const std::lock_guard<std::mutex> guard(lock);
      if (slot.vectors && slot.key == key) return slot.vectors;
    }
    SharedVectors made = std::make_shared<const Vectors>(make());
    const std::lock_guard<std::mutex> guard(lock);
    slot = {key, made};
    return made;
  }

 private:
  static constexpr size_t kSlots = 4096, kLocks = 64;

  struct Slot {
    HistoryKey key;
    SharedVectors vectors;  // null: of none yet
  };

  std::vector<Slot> slots_{kSlots};
  std::mutex locks_[kLocks];
};

class MixedModel final : public LanguageModel {
 public:
  // words: from id 3 on, a line each; ids 0 to 2 are <unk>, <s> and </s>. Copies all that is given but `other`.
  MixedModel(const LanguageModel* other, const std::string& words, const NeuralWeights& weights, double share);

  LmState begin() const override;
  float score(const LmState& in, uint32_t word, LmState* out) const override;
  float score_end(const LmState& in) const override;
  uint32_t unknown() const override { return other_->unknown(); }
  int32_t child(int32_t node, uint8_t byte) const override { return other_->child(node, byte); }
  uint32_t word(int32_t node) const override { return other_->word(node); }
  float best_below(int32_t node, const LmState& in) const override { return other_->best_below(node, in); }
  void pairs(const TellPair& tell) const override { other_->pairs(tell); }
  float backoff(uint32_t before) const override { return other_->backoff(before); }

 private:
  float mix(const Vectors& vectors, uint32_t id, float extra, float other) const;
  SharedVectors vectors(const History& history) const;
  Vectors step(const History& history) const;
  uint32_t id(uint32_t word) const { return word < ids_.size() ? ids_[word] : 0; }

  const LanguageModel* other_;
  double share_;
  std::vector<uint32_t> ids_;  // the neural model's, by the other's
  float rest_;                 // ln of the unigrams' sum over all words that the neural model does not know
  int32_t embedding_, hidden_, output_;
  std::vector<int8_t> embeddings_, outputs_;
  std::vector<float> embedding_scales_, output_scales_, bias_;
  Layer word_, before_, mix_, out_;  // W_ih, W_hh with b_hn, W_mix, W_out
  Layer out_remainder_;              // 8 bits are too few for W_out: perplexity is 2 % higher
  std::shared_ptr<const History> begin_;  // <s>
  mutable Memo memo_;
};

}  // namespace asr

#endif  // ASR_NEURAL_H_
