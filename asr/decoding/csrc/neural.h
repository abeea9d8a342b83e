// A feed-forward language model (Bengio et al. 2003, JMLR 3) of the last kHistory words, mixed with another one:
// P(w) = share * P_neural(w) + (1 - share) * P_other(w). The other one has the vocabulary, of which the neural model
// knows the most frequent words; the others share its probability of <unk> as their unigrams do.
//
//   x = the words' embeddings, the most recent first      h = silu(x W1 + b1)
//   g = rms(h + silu(rms(h) W2 + b2)) W3 + b3              ln P_neural(w) = g . e_w + b_w
//
// which is trained to need no normalising (asr/neural_lm/training.py). g depends on a history alone, and what a word adds
// to x W1 on its place: both are made once and kept for a while, for all streams. A word then costs a scalar product.
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

// Matrices are (inputs, outputs), row-major.
struct NeuralWeights {
  int32_t words, embedding, hidden, output;
  Rows embeddings, outputs;
  const float* bias;  // (words)
  const float *weight1, *bias1, *weight2, *bias2, *weight3, *bias3;
};

// Vectors that are wanted again and again. From any thread.
class Memo {
 public:
  using Key = std::array<uint32_t, kHistory>;
  using Vector = std::shared_ptr<const std::vector<float>>;

  // What was made for this key before, unless another one has taken its place since.
  template <typename Make>
  Vector get(const Key& key, const Make& make) {
    uint64_t hash = 0;
    for (const uint32_t each : key) hash = (hash ^ each) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
    Slot& slot = slots_[hash % kSlots];
    std::mutex& lock = locks_[hash % kLocks];
    {
      const std::lock_guard<std::mutex> guard(lock);
      if (slot.vector && slot.key == key) return slot.vector;
    }
    const Vector made = std::make_shared<const std::vector<float>>(make());
    const std::lock_guard<std::mutex> guard(lock);
    slot = {key, made};
    return made;
  }

 private:
  static constexpr size_t kSlots = 4096, kLocks = 64;

  struct Slot {
    Key key;
    Vector vector;  // null: of none yet
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
  float best_below(int32_t node) const override { return other_->best_below(node); }

 private:
  float neural(const LmState& in, uint32_t id) const;
  float mix(const LmState& in, uint32_t id, float extra, float other) const;
  std::vector<float> make(const Memo::Key& ids) const;
  uint32_t id(uint32_t word) const { return word < ids_.size() ? ids_[word] : 0; }

  const LanguageModel* other_;
  double share_;
  std::vector<uint32_t> ids_;  // the neural model's, by the other's
  float rest_;                 // ln of the unigrams' sum over all words that the neural model does not know
  int32_t embedding_, hidden_, output_;
  std::vector<int8_t> embeddings_, outputs_;
  std::vector<float> embedding_scales_, output_scales_, bias_;
  std::vector<uint16_t> weight1_, weight2_, weight3_;  // bfloat16
  std::vector<float> bias1_, bias2_, bias3_;
  mutable Memo vectors_;  // g, by the ids of a history
  mutable Memo parts_;    // what a word adds to x W1, by its place and id
};

}  // namespace asr

#endif  // ASR_NEURAL_H_
