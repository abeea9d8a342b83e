#include "pronunciations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <tuple>

namespace asr {
namespace {

constexpr float kLeast = -1000;

struct Entry {
  std::string_view phones;
  uint32_t word;  // id
  float log_prob;

  bool operator<(const Entry& other) const {
    return std::tie(phones, word, other.log_prob) < std::tie(other.phones, other.word, log_prob);
  }
};

// The likeliest first of those that are the same.
std::vector<Entry> read(const LanguageModel* words, std::string_view lexicon, const float* log_probs) {
  std::vector<Entry> entries;
  while (!lexicon.empty()) {
    const std::string_view line = lexicon.substr(0, lexicon.find('\n'));
    lexicon.remove_prefix(std::min(lexicon.size(), line.size() + 1));
    const size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos) throw std::runtime_error("a line is: phones word");
    const uint32_t word = words ? find_word(*words, line.substr(space + 1)) : 0;
    if (!words || word != words->unknown()) entries.push_back({line.substr(0, space), word, *log_probs});
    ++log_probs;
  }
  std::sort(entries.begin(), entries.end());
  const auto same = [](const Entry& a, const Entry& b) { return a.phones == b.phones && a.word == b.word; };
  entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
  return entries;
}

}  // namespace

Pronunciations::Pronunciations(const LanguageModel* words, const std::string& lexicon, const float* log_probs)
    : words_(words) {
  const std::vector<Entry> entries = read(words, lexicon, log_probs);
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
    for (; begin < end && entries[begin].phones.size() == depth; ++begin) {
      const auto& [phones, word, log_prob] = entries[begin];
      LmState ignored;
      const float unigram = words_ ? words_->score(LmState{}, word, &ignored) : 0;
      best = std::max(best, unigram + log_prob);
      homophones_.push_back({word, log_prob});
      tree.ends.push_back({word, static_cast<int32_t>(at), log_prob});
    }
    if (homophones_.size() > known) {
      node.word = static_cast<uint32_t>(first_.size() - 1);
      first_.push_back(static_cast<uint32_t>(homophones_.size()));
    }
    while (begin < end) {
      size_t stop = begin;
      const char byte = entries[begin].phones[depth];
      while (stop < end && entries[stop].phones[depth] == byte) ++stop;
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
  std::sort(tree.ends.begin(), tree.ends.end(), [](const auto& a, const auto& b) { return a.word < b.word; });
  look_ahead_ = std::make_unique<LookAhead>(words, std::move(tree));
}

float Pronunciations::score(const LmState& in, uint32_t word, LmState* out) const {
  *out = in;
  if (word == 0) return words_ ? words_->score(in, words_->unknown(), out) : 0;
  float best = -std::numeric_limits<float>::infinity();
  for (uint32_t i = first_[word]; i < first_[word + 1]; ++i) {
    LmState after = in;
    const float alone = words_ ? words_->score(in, homophones_[i].word, &after) : 0;
    const float score = alone + homophones_[i].log_prob;
    if (score > best) {
      best = score;
      *out = after;
    }
  }
  return best;
}

}  // namespace asr
