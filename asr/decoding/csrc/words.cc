// The words of the best hypothesis: how long each has stood, and how sure it is.
//
// A word's confidence is how clearly it was heard (the geometric mean of its tokens' probabilities, each in its
// best frame, with that of the token with the same letters elsewhere in a word: boundaries are not heard) times its
// share of posterior mass: of the hypotheses that have this word, by its text, at this place. A hypothesis that is
// pruned is counted with the share that it had then: of the mass that has remained in the beam, a part is lost in
// each frame, and what agreed among the lost is kept in `agreed`. So share = agreed + remained * (share of the
// living that agree), and is not 1 only because all others died.
#include <algorithm>
#include <cmath>

#include "beam.h"

namespace asr {

// After a change of the best hypothesis: words that stand as before keep their record.
void Beam::follow_best() {
  const int32_t best = live_.front().node;
  if (best == best_) return;
  ++mark_;
  const int32_t first = nodes_[root_].word;
  std::vector<Spoken>& old = spoken_before_;
  old.swap(spoken_);
  spoken_.assign(nodes_[best].word - first + 1, {});
  bool extends = false, last = true;  // last: of its word's tokens
  for (int32_t i = best; i >= 0; i = nodes_[i].parent) {
    Node& node = nodes_[i];
    node.mark = mark_;
    extends |= i == best_;
    if (i != root_ && last && node.scored.context.open) {
      spoken_[node.word - first] = {true, node.hash, frame_, 0.0, 1.0};
    }
    last = node.token >= 0 && scorer_.starts_word(node.token);
  }
  for (size_t place = 0; place < std::min(old.size(), spoken_.size()); ++place) {
    Spoken& word = spoken_[place];
    if (!word.present || !old[place].present) continue;
    if (word.hash == old[place].hash) {
      word = old[place];
    } else if (extends) {  // it has grown: what disagreed with its beginning disagrees with it
      word.agreed = old[place].agreed;
      word.remained = old[place].remained;
    }
  }
  best_ = best;
}

// Which of the best hypothesis' words another one has at their places.
void Beam::compare(int32_t node, std::vector<char>& agrees) const {
  const int32_t first = nodes_[root_].word;
  agrees.assign(spoken_.size(), 0);
  bool last = true;
  for (;; node = nodes_[node].parent) {
    const Node& at = nodes_[node];
    const size_t place = at.word - first;
    if (last && at.scored.context.open && place < spoken_.size()) agrees[place] = spoken_[place].hash == at.hash;
    if (at.mark == mark_) {  // from here on it is the same way
      std::fill(agrees.begin(), agrees.begin() + std::min(place, agrees.size()), 1);
      return;
    }
    last = scorer_.starts_word(at.token);
  }
}

// exp, tempered, of a score against the best; both may be -inf.
double Beam::mass(double score, double best) const {
  return score == best ? 1.0 : std::exp((score - best) / options_.temperature);
}

// The pruned hypotheses leave their mass with the words that they had.
void Beam::forget_dropped() {
  if (dropped_.empty()) return;
  double lost = 0, all = 0;
  const double best = live_.front().score;
  for (const Live& live : live_) all += mass(live.score, best);
  for (Dropped& dropped : dropped_) lost += dropped.mass = mass(dropped.score, best);
  all += lost;
  agreed_.assign(spoken_.size(), 0.0);
  for (const Dropped& dropped : dropped_) {
    compare(dropped.node, agrees_);
    for (size_t place = 0; place < spoken_.size(); ++place) agreed_[place] += agrees_[place] * dropped.mass;
  }
  for (size_t place = 0; place < spoken_.size(); ++place) {
    spoken_[place].agreed += spoken_[place].remained * agreed_[place] / all;
    spoken_[place].remained *= (all - lost) / all;
  }
  for (const Dropped& dropped : dropped_) release(dropped.node);
}

// Of the words of the best hypothesis, with these scores of the living, the first of which is the best.
std::vector<double> Beam::confidences(const std::vector<double>& scores) {
  double all = 0;
  std::vector<double> agreed(spoken_.size(), 0.0);
  const double best = *std::max_element(scores.begin(), scores.end());
  for (size_t slot = 0; slot < live_.size(); ++slot) {
    const double share = mass(scores[slot], best);
    all += share;
    compare(live_[slot].node, agrees_);
    for (size_t place = 0; place < spoken_.size(); ++place) agreed[place] += agrees_[place] * share;
  }
  for (size_t place = 0; place < spoken_.size(); ++place) {
    agreed[place] = std::min(1.0, spoken_[place].agreed + spoken_[place].remained * agreed[place] / all);
  }
  return agreed;
}

Words Beam::tentative() {
  std::vector<double> scores;
  for (const Live& live : live_) scores.push_back(live.score);
  const std::vector<Token> tokens = trace(live_.front());
  Words words;
  put_words(tokens, static_cast<int64_t>(tokens.size()), confidences(scores), words);
  return words;
}

// The first `length` of the best hypothesis' tokens as words; marks without letters are none.
void Beam::put_words(const std::vector<Token>& tokens, int64_t length, const std::vector<double>& confidences,
                     Words& words) const {
  size_t place = 0;
  bool counted = nodes_[root_].scored.context.open;  // the word at this place has letters
  bool letters = false;                              // the word being made has
  double heard = 0;                                  // ln of the probability of its tokens, in their best frames
  Word word{};
  std::vector<int32_t> ids;
  const auto put = [&] {
    if (letters) {
      word.confidence = confidences[place] * std::exp(heard / static_cast<double>(ids.size()));
      word.survived = frame_ - spoken_[place].since;
      word.tokens = static_cast<int32_t>(ids.size());
      words.words.push_back(word);
      words.tokens.insert(words.tokens.end(), ids.begin(), ids.end());
    }
    ids.clear();
    letters = false;
    heard = 0;
  };
  for (int64_t i = 0; i < length; ++i) {
    const Token& token = tokens[i];
    if (scorer_.starts_word(token.id)) {
      put();
      place += counted;
      counted = false;
    }
    if (ids.empty()) word.start = token.start;
    word.end = token.end;
    heard += token.log_prob;
    ids.push_back(token.id);
    if (!scorer_.letters(token.id).empty()) letters = counted = true;
  }
  put();
}

// Of the text after the root.
uint64_t Beam::text_hash(int32_t node) const {
  uint64_t hash = 0;
  bool last = true;
  for (; node != root_; node = nodes_[node].parent) {
    const Node& at = nodes_[node];
    if (last && at.scored.context.open) hash = (hash + at.hash) * 0x9e3779b97f4a7c15u + 1;
    last = scorer_.starts_word(at.token);
  }
  return hash;
}

Readings Beam::nbest(int64_t n) {
  const std::vector<double> scores = final_scores();
  std::vector<int32_t> order(live_.size());
  for (size_t slot = 0; slot < order.size(); ++slot) order[slot] = static_cast<int32_t>(slot);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  Readings readings;
  std::vector<uint64_t> texts;
  double all = 0;
  for (const int32_t slot : order) {
    const double share = mass(scores[slot], scores[order.front()]);
    all += share;
    const uint64_t text = text_hash(live_[slot].node);
    const size_t known = std::find(texts.begin(), texts.end(), text) - texts.begin();
    if (known < readings.readings.size()) {
      readings.readings[known].posterior += share;
    } else if (known == texts.size()) {
      texts.push_back(text);
      if (static_cast<int64_t>(texts.size()) > n) continue;  // counted, not given
      const std::vector<Token> tokens = trace(live_[slot]);
      readings.readings.push_back({scores[slot], share, static_cast<int32_t>(tokens.size())});
      readings.tokens.insert(readings.tokens.end(), tokens.begin(), tokens.end());
    }
  }
  for (Reading& reading : readings.readings) reading.posterior /= all;
  return readings;
}

}  // namespace asr
