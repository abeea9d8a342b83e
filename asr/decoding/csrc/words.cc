// The words of the best hypothesis: how long each has stood, and how sure it is.
//
// A word's confidence is its share of posterior mass: of all hypotheses, those that have it at its place. Most of them
// are gone before that is asked. So a hypothesis stands for others: for those whose future is its own, and the best one
// for what is pruned. It keeps their mass beside its own and, word by word, the share of both that has this word.
#include <algorithm>
#include <cmath>

#include "beam.h"

namespace asr {
namespace {

constexpr double kLittle = 1e-4;  // of a hypothesis' mass: not worth looking at

}  // namespace

// After a change of the best hypothesis: words that stand as before keep their record.
void Beam::follow_best() {
  const int32_t best = live_.front().node;
  if (best == best_) return;
  const int32_t first = nodes_[root_].word;
  std::vector<Spoken>& old = spoken_before_;
  old.swap(spoken_);
  spoken_.assign(nodes_[best].word - first + 1, {});
  walk(best, root_, steps_);
  for (const Step& step : steps_) {
    if (step.node == root_) continue;  // final already
    const size_t place = step.place - first;
    const bool stands = place < old.size() && old[place].present && old[place].hash == step.hash;
    spoken_[place] = {true, step.hash, stands ? old[place].since : frame_};
  }
  best_ = best;
}

// The words behind `end`, and the one that it is in or ends, the last word first.
void Beam::walk(int32_t node, int32_t end, std::vector<Step>& steps) const {
  steps.clear();
  uint32_t said = kNoWord;
  for (bool last = true;; node = nodes_[node].parent) {
    const Node& at = nodes_[node];
    if (last && at.scored.context.open) steps.push_back({at.hash, said, at.word, node});
    if (node == end) return;
    last = scorer_.starts_word(at.token);
    if (last) said = scorer_.last_word(at.scored.lm);
  }
}

// The last prefix that both begin with.
int32_t Beam::common(int32_t one, int32_t other) const {
  while (one != other) {
    int32_t& longer = nodes_[one].length < nodes_[other].length ? other : one;
    longer = nodes_[longer].parent;
  }
  return one;
}

// The last token of `live` was also entered now, with this score, from the prefix without it.
void Beam::mix(Live& live, std::vector<float>& shares, const Live& shorter, double entered) const {
  const double part = std::exp(entered - live.total);
  if (part < kLittle) return;
  const double own = (1 - part) * std::exp(live.mass - shorter.mass);  // the other's being `part`
  const float weight = static_cast<float>(part / (own + part));
  const std::vector<float>& from = shares_[shorter.shares];
  for (size_t place = 0; place < from.size(); ++place) shares[place] += weight * (from[place] - shares[place]);
  live.mass = shorter.mass + std::log(own + part);
}

// From now on `live` stands for `other`, too, which has this score once the token (-1: none) is entered. Words are the
// same that come before the two part, or are the same counted from there, or counted from the end.
void Beam::absorb(Live& live, std::vector<float>& shares, const Live& other, double score, int32_t token) {
  const double mass = std::exp((score - live.score) / options_.temperature + other.mass - live.mass);
  if (!(mass > kLittle)) return;
  live.mass += std::log1p(mass);
  const float weight = static_cast<float>(mass / (1 + mass));
  const int32_t first = nodes_[root_].word, end = common(live.node, other.node);
  const std::vector<float>& theirs = shares_[other.shares];
  const auto put = [&](int32_t place, float share) {
    shares[place - first] += weight * (share - shares[place - first]);
  };
  for (int32_t place = first; place < nodes_[end].word; ++place) put(place, theirs[place - first]);
  walk(live.node, end, steps_);
  walk(other.node, end, other_steps_);
  if (token >= 0) enter(other.node, token, other_steps_);
  const auto agree = [&](const Step& step, const Step& same) {
    const size_t place = same.place - first;
    put(step.place, place < theirs.size() ? theirs[place] : 1);  // 1: it begins with the token
  };
  size_t left = steps_.size(), others_left = other_steps_.size(), tail = 0;
  while (left > 0 && others_left > 0 && steps_[left - 1].same(other_steps_[others_left - 1])) {
    agree(steps_[--left], other_steps_[--others_left]);
  }
  for (; tail < std::min(left, others_left) && steps_[tail].same(other_steps_[tail]); ++tail) {
    agree(steps_[tail], other_steps_[tail]);
  }
  for (; tail < left; ++tail) put(steps_[tail].place, 0);
}

// The words of a hypothesis with one token more.
void Beam::enter(int32_t node, int32_t token, std::vector<Step>& steps) const {
  const Node& at = nodes_[node];
  const uint64_t hash = spelled(at.hash, token);
  if (at.scored.context.open && !scorer_.starts_word(token)) {
    steps.front().hash = hash;
    return;
  }
  if (at.scored.context.open) steps.front().said = scorer_.last_word(at.scored.finished.lm);
  steps.insert(steps.begin(), {hash, kNoWord, at.word + at.scored.context.open, -1});
}

// Of the words of the best hypothesis, with these scores of the living, the first of which is the best.
std::vector<float> Beam::confidences(const std::vector<double>& scores) {
  Live best = live_.front();
  best.score = scores.front();
  std::vector<float> shares = shares_[best.shares];
  for (size_t slot = 1; slot < live_.size(); ++slot) absorb(best, shares, live_[slot], scores[slot]);
  return shares;
}

Words Beam::tentative() {
  const std::vector<Token> tokens = trace(live_.front());
  Words words;
  put_words(tokens, static_cast<int64_t>(tokens.size()), confidences(scores()), words);
  return words;
}

// The first `length` of the best hypothesis' tokens as words; marks without letters are none.
void Beam::put_words(const std::vector<Token>& tokens, int64_t length, const std::vector<float>& confidences,
                     Words& words) const {
  size_t place = 0;
  bool counted = nodes_[root_].scored.context.open;  // the word at this place has letters
  bool letters = false;                              // the word being made has
  Word word{};
  std::vector<int32_t> ids;
  const auto put = [&] {
    if (letters) {
      word.confidence = confidences[place];
      word.survived = frame_ - spoken_[place].since;
      word.tokens = static_cast<int32_t>(ids.size());
      words.words.push_back(word);
      words.tokens.insert(words.tokens.end(), ids.begin(), ids.end());
    }
    ids.clear();
    letters = false;
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
  const int32_t best = order.front();
  double all = 0;
  for (const int32_t slot : order) {
    const double share =
        std::exp((scores[slot] - scores[best]) / options_.temperature + live_[slot].mass - live_[best].mass);
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
