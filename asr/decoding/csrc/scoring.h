// What a prefix scores beside its acoustics: language model, words and hotwords. Knows no frames and no beam.
//
// The score is that of the finished words, and for the word that is being spelled the best that the language model
// looks ahead for behind these letters, in advance, which the word's own n-gram replaces when it ends.
#ifndef ASR_SCORING_H_
#define ASR_SCORING_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "hotwords.h"
#include "language_model.h"

namespace asr {

struct Piece {
  std::string letters;  // UTF-8, without the mark of a word's start
  bool starts_word;
};

struct Weights {
  double lm_weight, word_bonus, unknown_penalty;  // all of them count only with a language model
};

// Of the word that is being spelled, and what the words before it have earned.
struct Context {
  double banked;    // of the words that have ended
  double look;      // of the language model, in advance
  int32_t lexicon;  // where the letters are in the vocabulary's trie, -1: not in it
  int32_t hot;      // state of the hotwords
  bool open;        // whether the word has letters
};

constexpr uint32_t kNoWord = UINT32_MAX;
constexpr double kUnset = std::numeric_limits<double>::quiet_NaN();

// What follows if the word ends here.
struct Finished {
  double banked;
  LmState lm;
  int32_t hot;
  double unknown;  // of the next word, once asked for
};

// A context with what is worth remembering of it.
struct Scored {
  Context context;
  LmState lm;               // before this word
  double unknown = kUnset;  // weight * ln P(<unk> | lm), once asked for
  bool is_finished = false;
  Finished finished;  // once asked for
};

class Scorer {
 public:
  Scorer(std::shared_ptr<const std::vector<Piece>> pieces, const Weights& weights, const LanguageModel* model);

  void set_hotwords(std::shared_ptr<const Hotwords> hotwords);

  Scored begin() const;  // of a sentence
  Context extend(Scored& from, int32_t token) const;
  Scored make(Scored& from, int32_t token, const Context& context) const;
  const Finished& finish(Scored& scored) const;
  double end(Scored& scored) const;  // the score if the sentence ends here
  double score(const Context& context) const { return context.banked + context.look + partial(context.hot); }
  // No extension with this token scores more; costs no look into the language model.
  double most(const Scored& from, int32_t token) const;
  // The state of the hotwords from that of the prefix before; where there is none, from the word's beginning.
  void rehear(const Scored* from, int32_t token, Scored& scored) const;

  // What follows depends on this alone, and on the last token: equal numbers, equal scores from here on.
  uint64_t future(const LmState& lm, const Context& context, uint64_t letters) const;

  // The word that this state is behind, however it is pronounced; kNoWord where that is not known.
  uint32_t last_word(const LmState& lm) const {
    return model_ && lm.length > 0 && lm.words[0] != model_->unknown() ? lm.words[0] : kNoWord;
  }

  bool starts_word(int32_t token) const { return (*pieces_)[token].starts_word; }
  const std::string& letters(int32_t token) const { return (*pieces_)[token].letters; }

 private:
  double partial(int32_t hot) const { return hotwords_ ? hotwords_->partial(hot) : 0; }
  double whole(int32_t hot) const { return hotwords_ ? hotwords_->whole(hot) : 0; }
  int32_t boundary(int32_t hot) const { return hotwords_ ? hotwords_->step(hot, ' ') : 0; }
  int32_t spell(int32_t hot, int32_t token) const;
  int32_t walk(int32_t lexicon, int32_t token) const;
  double weigh(float log_prob) const;
  double unknown(const LmState& lm, double& kept) const;
  bool ends_unknown(const Context& context) const;

  std::shared_ptr<const std::vector<Piece>> pieces_;
  Weights weights_;
  const LanguageModel* model_;  // may be null
  std::shared_ptr<const Hotwords> hotwords_;
  std::vector<double> gain_;      // by token: most that hotwords can give to its letters
  std::vector<int32_t> lexicon_;  // by token: where its letters lead from the beginning of a word
};

}  // namespace asr

#endif  // ASR_SCORING_H_
