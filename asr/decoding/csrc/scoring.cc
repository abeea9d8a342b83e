#include "scoring.h"

#include <algorithm>
#include <cmath>

namespace asr {
namespace {

constexpr float kLeast = -1000;  // for models that say ln 0: a score has to stay a number

}  // namespace

Scorer::Scorer(std::shared_ptr<const std::vector<Piece>> pieces, const Weights& weights, const LanguageModel* model)
    : pieces_(std::move(pieces)), weights_(weights), model_(model), gain_(pieces_->size(), 0.0) {
  for (size_t token = 0; token < pieces_->size(); ++token) {
    lexicon_.push_back(walk(0, static_cast<int32_t>(token)));
  }
}

void Scorer::set_hotwords(std::shared_ptr<const Hotwords> hotwords) {
  hotwords_ = std::move(hotwords);
  for (size_t token = 0; token < pieces_->size(); ++token) {
    gain_[token] = hotwords_ ? hotwords_->boost() * static_cast<double>((*pieces_)[token].letters.size()) : 0;
  }
}

double Scorer::weigh(float log_prob) const { return weights_.lm_weight * std::max(log_prob, kLeast); }

double Scorer::unknown(const LmState& lm, double& kept) const {
  LmState ignored;
  if (std::isnan(kept)) kept = weigh(model_->score(lm, model_->unknown(), &ignored));
  return kept;
}

int32_t Scorer::spell(int32_t hot, int32_t token) const {
  if (!hotwords_) return 0;
  for (const char byte : letters(token)) hot = hotwords_->step(hot, static_cast<uint8_t>(byte));
  return hot;
}

int32_t Scorer::walk(int32_t lexicon, int32_t token) const {
  if (!model_) return 0;
  for (const char byte : letters(token)) {
    if (lexicon < 0) break;
    lexicon = model_->child(lexicon, static_cast<uint8_t>(byte));
  }
  return lexicon;
}

Scored Scorer::begin() const {
  Scored scored{};
  scored.context.hot = hotwords_ ? hotwords_->start() : 0;
  if (model_) scored.lm = model_->begin();
  scored.unknown = kUnset;
  return scored;
}

Context Scorer::extend(Scored& from, int32_t token) const {
  Context to = from.context;
  const bool starts = starts_word(token);
  if (starts) {
    const Finished& finished = finish(from);
    to.banked = finished.banked;
    to.hot = spell(finished.hot, token);
    to.lexicon = lexicon_[token];
    to.open = false;
  } else {
    to.hot = spell(to.hot, token);
    to.lexicon = walk(to.lexicon, token);
  }
  to.open |= !letters(token).empty();
  if (!model_) return to;
  if (to.lexicon >= 0) {
    to.look = weigh(model_->best_below(to.lexicon, starts ? from.finished.lm : from.lm));
  } else {
    to.look = starts ? unknown(from.finished.lm, from.finished.unknown) : unknown(from.lm, from.unknown);
    // A hotword is a word that the user knows, if not the model.
    if (to.hot == 0) to.look += weights_.unknown_penalty;
  }
  return to;
}

Scored Scorer::make(Scored& from, int32_t token, const Context& context) const {
  Scored scored{};
  scored.context = context;
  if (starts_word(token)) {
    scored.lm = from.finished.lm;
    scored.unknown = from.finished.unknown;
  } else {
    scored.lm = from.lm;
    scored.unknown = from.unknown;
  }
  return scored;
}

const Finished& Scorer::finish(Scored& scored) const {
  if (scored.is_finished) return scored.finished;
  const Context& context = scored.context;
  Finished& finished = scored.finished;
  finished = {context.banked, scored.lm, context.hot, kUnset};
  if (context.open) {
    finished.banked += whole(context.hot);
    finished.hot = boundary(context.hot);
    if (model_) {
      const uint32_t word = context.lexicon < 0 ? model_->unknown() : model_->word(context.lexicon);
      finished.banked += weigh(model_->score(scored.lm, word, &finished.lm)) + weights_.word_bonus;
      if (ends_unknown(context)) finished.banked += weights_.unknown_penalty;
    }
  } else {
    finished.unknown = scored.unknown;  // still the same word
  }
  scored.is_finished = true;
  return finished;
}

// Whether the word, if it ends here, is not in the vocabulary, and no hotword.
bool Scorer::ends_unknown(const Context& context) const {
  if (!model_ || !context.open || (hotwords_ && hotwords_->in_phrase(context.hot))) return false;
  return context.lexicon < 0 || model_->word(context.lexicon) == model_->unknown();
}

double Scorer::end(Scored& scored) const {
  const Finished& finished = finish(scored);
  return finished.banked + (model_ ? weigh(model_->score_end(finished.lm)) : 0);
}

double Scorer::most(const Scored& from, int32_t token) const {
  const Context& context = from.context;
  double most = context.banked + partial(context.hot) + gain_[token];
  if (starts_word(token)) {
    if (from.is_finished) {
      const Finished& behind = from.finished;
      const bool known = model_ && lexicon_[token] >= 0;
      const double look = known ? weigh(model_->best_below(lexicon_[token], behind.lm)) : 0;
      return behind.banked + look + partial(behind.hot) + gain_[token];
    }
    most += std::max(0.0, weights_.word_bonus) + whole(context.hot);
    if (ends_unknown(context)) most += weights_.unknown_penalty;
  } else if (context.lexicon < 0) {
    most += context.look;
  }
  return most;
}

uint64_t Scorer::future(const LmState& lm, const Context& context, uint64_t letters) const {
  constexpr uint64_t kPrime = 0x9e3779b97f4a7c15u;
  uint64_t mixed = lm.length;
  for (int i = 0; i < lm.length; ++i) mixed = (mixed ^ lm.words[i]) * kPrime;
  mixed = (mixed ^ static_cast<uint32_t>(context.lexicon)) * kPrime;
  mixed = (mixed ^ static_cast<uint32_t>(context.hot)) * kPrime;
  if (context.lexicon < 0) mixed = (mixed ^ letters) * kPrime;  // the word is known by them alone
  return mixed ^ mixed >> 32;
}

void Scorer::rehear(const Scored* from, int32_t token, Scored& scored) const {
  Context& context = scored.context;
  const int32_t start = hotwords_ ? hotwords_->start() : 0;
  if (from == nullptr) {
    context.hot = context.open ? 0 : start;
  } else {
    int32_t hot = from->context.hot;
    if (starts_word(token) && from->context.open) hot = boundary(hot);
    context.hot = spell(hot, token);
  }
  if (context.lexicon < 0) {
    context.look = unknown(scored.lm, scored.unknown) + (context.hot == 0 ? weights_.unknown_penalty : 0);
  }
  scored.is_finished = false;
}

}  // namespace asr
