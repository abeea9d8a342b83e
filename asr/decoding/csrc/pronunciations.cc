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
  for (size_t at = 0; at < ranges.size(); ++at) {
    auto [begin, end, depth] = ranges[at];
    Node node{0, static_cast<int32_t>(ranges.size()), 0, kLeast};
    const size_t known = homophones_.size();
    for (; begin < end && entries[begin].first.size() == depth; ++begin) {
      const uint32_t word = entries[begin].second;
      LmState ignored;
      const float unigram = words_ ? words_->score(LmState{}, word, &ignored) : 0;
      node.best = std::max(node.best, unigram);
      homophones_.push_back(word);
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
      node.has |= kOne << (static_cast<uint64_t>(byte) % kBytes);
      begin = stop;
    }
    nodes_.push_back(node);
  }
  for (size_t at = nodes_.size(); at-- > 0;) {  // children come after their parents
    Node& node = nodes_[at];
    const int32_t end = node.children + __builtin_popcountll(node.has);
    for (int32_t child = node.children; child < end; ++child) node.best = std::max(node.best, nodes_[child].best);
  }
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
