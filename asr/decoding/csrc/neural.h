// A feed-forward language model (Bengio et al. 2003, JMLR 3) of the last kHistory words, mixed with another one:
// P(w) = share * P_neural(w) + (1 - share) * P_other(w). The other one has the vocabulary, of which the neural model
// knows the most frequent words; the others share its probability of <unk> as their unigrams do.
//
//   x = the words' embeddings, the most recent first      h = silu(x W1 + b1)
//   g = rms(h + silu(rms(h) W2 + b2)) W3 + b3              ln P_neural(w) = g . e_w + b_w
//
// which is trained to need no normalising (asr/neural_lm/training.py). g depends on a history alone: it is made once
// and kept for a while, for all streams, so that a word costs a scalar product.
#ifndef ASR_NEURAL_H_
#define ASR_NEURAL_H_

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
  struct Known {  // of one history
    uint32_t words[kHistory];
    std::vector<float> g;  // empty: of none yet
  };
  static constexpr size_t kKept = 4096, kLocks = 64;

  float neural(const LmState& in, uint32_t id) const;
  float mix(const LmState& in, uint32_t id, float extra, float other) const;
  std::vector<float> make(const uint32_t* ids) const;
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
  mutable std::vector<Known> known_;
  mutable std::mutex locks_[kLocks];
};

}  // namespace asr

#endif  // ASR_NEURAL_H_
