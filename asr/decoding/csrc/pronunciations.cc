#include "pronunciations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace asr {
namespace {

constexpr float kLeast = -1000;

using Entry = std::pair<std::string_view, uint32_t>;  // phones, id of the word

std::vector<Entry> read(const LanguageModel* words, std::string_view lexicon) {
  std::vector<Entry> entries;
  while (!lexicon.empty()) {
    const std::string_view line = lexicon.substr(0, lexicon.find('\n'));
    lexicon.remove_prefix(std::min(lexicon.size(), line.size() + 1));
    const size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos) throw std::runtime_error("a line is: phones word");
    const uint32_t word = words ? find_word(*words, line.substr(space + 1)) : 0;
    if (!words || word != words->unknown()) entries.emplace_back(line.substr(0, space), word);
  }
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  return entries;
}

}  // namespace

Pronunciations::Pronunciations(const LanguageModel* words, const std::string& lexicon) : words_(words) {
  const std::vector<Entry> entries = read(words, lexicon);
  first_ = {0, 0};  // pronunciation 0 is the unknown word
  // Breadth first, so that children lie side by side: a node is a range of entries and how deep it is.
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, entries.size(), 0}};
  LookAhead::Tree tree{{0}, {}, {}};
  for (size_t at = 0; at < ranges.size(); ++at) {
    auto [begin, end, depth] = ranges[at];
    Node node{0, static_cast<int32_t>(ranges.size()), 0};
    float best = kLeast;
    const size_t known = homophones_.size();
    for (; begin < end && entries[begin].first.size() == depth; ++begin) {
      const uint32_t word = entries[begin].second;
      LmState ignored;
      const float unigram = words_ ? words_->score(LmState{}, word, &ignored) : 0;
      best = std::max(best, unigram);
      homophones_.push_back(word);
      tree.ends.emplace_back(word, static_cast<int32_t>(at));
    }
    if (homophones_.size() > known) {
      node.word = static_cast<uint32_t>(first_.size() - 1);
      first_.push_back(static_cast<uint32_t>(homophones_.size()));
    }
    while (begin < end) {
      size_t stop = begin;
      const char byte = entries[begin].first[depth];
      while (stop < end && entries[stop].first[depth] == byte) ++stop;
      if (static_cast<uint64_t>(byte) / kBytes != 1) throw std::runtime_error("a phone is a letter or @");
      ranges.push_back({begin, stop, depth + 1});
      tree.parents.push_back(static_cast<int32_t>(at));
      node.has |= kOne << (static_cast<uint64_t>(byte) % kBytes);
      begin = stop;
    }
    nodes_.push_back(node);
    tree.alone.push_back(best);
  }
  for (size_t at = nodes_.size(); --at > 0;) {  // children come after their parents
    float& above = tree.alone[tree.parents[at]];
    above = std::max(above, tree.alone[at]);
  }
  std::sort(tree.ends.begin(), tree.ends.end());
  look_ahead_ = std::make_unique<LookAhead>(words, std::move(tree));
}

float Pronunciations::score(const LmState& in, uint32_t word, LmState* out) const {
  if (!words_) {
    *out = in;
    return 0;
  }
  if (word == 0) return words_->score(in, words_->unknown(), out);
  float best = -std::numeric_limits<float>::infinity();
  *out = in;
  for (uint32_t i = first_[word]; i < first_[word + 1]; ++i) {
    LmState after;
    const float score = words_->score(in, homophones_[i], &after);
    if (score > best) {
      best = score;
      *out = after;
    }
  }
  return best;
}

}  // namespace asr
