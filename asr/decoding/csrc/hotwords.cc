#include "hotwords.h"

#include <algorithm>

namespace asr {
namespace {

bool is_letter(uint8_t byte) { return byte != ' ' && (byte & 0xC0) != 0x80; }  // not the rest of a character

}  // namespace

Hotwords::Hotwords(std::vector<Hotword> phrases) {
  for (Hotword& hotword : phrases) hotword.phrase.insert(0, " ");
  std::sort(phrases.begin(), phrases.end(),
            [](const Hotword& a, const Hotword& b) { return a.phrase < b.phrase; });

  // Breadth first over the sorted phrases: a node is a range of them that agree in its first `depth` bytes.
  struct Range {
    size_t begin, end, depth;
    double letters, given;  // given: the most that a listed phrase which ended on the way here is worth
  };
  std::vector<Range> ranges{{0, phrases.size(), 0, 0, 0}};
  nodes_.push_back({});
  bytes_.push_back(0);
  for (size_t node = 0; node < nodes_.size(); ++node) {
    const Range range = ranges[node];
    size_t next = range.begin;
    double highest = 0, own = 0;  // own: boost of the phrase that ends here
    for (size_t i = range.begin; i < range.end; ++i) highest = std::max(highest, phrases[i].boost);
    while (next < range.end && phrases[next].phrase.size() == range.depth) {  // given twice: the higher boost
      own = std::max(own, phrases[next++].boost);
    }
    nodes_[node].partial = std::max(0.0, highest * range.letters - range.given);
    nodes_[node].whole = own > 0 ? std::max(0.0, own * range.letters - range.given) : 0;
    nodes_[node].in_phrase = own > 0;
    nodes_[node].first = static_cast<int32_t>(nodes_.size());
    boost_ = std::max(boost_, highest);
    while (next < range.end) {
      const uint8_t byte = phrases[next].phrase[range.depth];
      size_t last = next;
      while (last < range.end && static_cast<uint8_t>(phrases[last].phrase[range.depth]) == byte) ++last;
      nodes_[node].in_phrase |= byte == ' ' && range.depth > 0;
      const double given = byte == ' ' ? std::max(range.given, own * range.letters) : range.given;
      ranges.push_back({next, last, range.depth + 1, range.letters + is_letter(byte), given});
      nodes_.push_back({});
      bytes_.push_back(byte);
      next = last;
    }
    nodes_[node].children = static_cast<int16_t>(nodes_.size() - nodes_[node].first);
  }

  words_.fill(-1);
  if (nodes_[0].children > 0) start_ = nodes_[0].first;  // the space
  if (start_ != 0) {
    for (int32_t i = 0; i < nodes_[start_].children; ++i) {
      words_[bytes_[nodes_[start_].first + i]] = nodes_[start_].first + i;
    }
  }
  // Breadth first again, so that a node's fail has been finished before it.
  for (size_t node = 0; node < nodes_.size(); ++node) {
    for (int32_t i = 0; i < nodes_[node].children; ++i) {
      Node& made = nodes_[nodes_[node].first + i];
      made.fail = node == 0 ? 0 : step(nodes_[node].fail, bytes_[nodes_[node].first + i]);
      made.partial = std::max(made.partial, nodes_[made.fail].partial);
      made.whole = std::max(made.whole, nodes_[made.fail].whole);
      made.in_phrase |= nodes_[made.fail].in_phrase;
    }
  }
}

int32_t Hotwords::child(int32_t state, uint8_t byte) const {
  if (state == start_) return words_[byte];
  const Node& node = nodes_[state];
  for (int32_t i = node.first; i < node.first + node.children; ++i) {
    if (bytes_[i] == byte) return i;
  }
  return -1;
}

int32_t Hotwords::step(int32_t state, uint8_t byte) const {
  for (;; state = nodes_[state].fail) {
    const int32_t next = child(state, byte);
    if (next >= 0) return next;
    if (state == 0) return 0;
  }
}

}  // namespace asr
