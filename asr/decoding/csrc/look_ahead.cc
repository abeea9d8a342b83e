#include "look_ahead.h"

#include <algorithm>
#include <limits>

namespace asr {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Nodes that have been marked, and are no more at the end, whatever happens.
struct Marked {
  std::vector<float>& marks;
  std::vector<int32_t> nodes;

  ~Marked() {
    for (const int32_t node : nodes) marks[node] = kNothing;
  }
  void mark(int32_t node, float value) {
    if (marks[node] == kNothing) nodes.push_back(node);
    marks[node] = value;
  }
};

}  // namespace

LookAhead::LookAhead(const LanguageModel* words, Tree tree)
    : words_(words), tree_(std::move(tree)), top_(1), found_(tree_.alone.size(), kNothing) {
  while (top_ < tree_.parents.size() && tree_.parents[top_] == 0) ++top_;
  for (const End& end : tree_.ends) {
    if (first_end_.size() < end.word + 2) first_end_.resize(end.word + 2);
    ++first_end_[end.word + 1];
  }
  for (size_t word = 1; word < first_end_.size(); ++word) first_end_[word] += first_end_[word - 1];
  if (!words) return;
  std::vector<std::pair<uint32_t, Follower>> pairs;
  words->pairs([&](uint32_t before, uint32_t word, float log_prob, float backed_off) {
    if (word + 1 >= first_end_.size() || log_prob <= backed_off) return;
    if (first_.size() < before + 2) first_.resize(before + 2);
    ++first_[before + 1];
    pairs.push_back({before, {word, log_prob}});
  });
  for (size_t word = 1; word < first_.size(); ++word) first_[word] += first_[word - 1];
  followers_.resize(pairs.size());
  std::vector<uint32_t> next(first_);
  for (const auto& [before, follower] : pairs) followers_[next[before]++] = follower;
  rows_ = std::make_unique<std::atomic<const Row*>[]>(first_.size());
}

LookAhead::~LookAhead() {
  for (size_t word = 0; word < first_.size(); ++word) delete rows_[word].load();
}

const LookAhead::Row& LookAhead::make(uint32_t before) const {
  const std::lock_guard<std::mutex> guard(making_);
  if (const Row* row = rows_[before].load()) return *row;
  auto row = std::make_unique<Row>();
  row->backoff = words_->backoff(before);
  Marked marked{found_, {}};
  for (uint32_t i = first_[before]; i < first_[before + 1]; ++i) {
    const uint32_t word = followers_[i].word;
    for (uint32_t end = first_end_[word]; end < first_end_[word + 1]; ++end) {
      const float log_prob = followers_[i].log_prob + tree_.ends[end].log_prob;
      // As far as there is something to gain: above a node that is as likely by others, they have been there.
      for (int32_t node = tree_.ends[end].node; log_prob > std::max(found_[node], row->backoff + tree_.alone[node]);
           node = tree_.parents[node]) {
        marked.mark(node, log_prob);
      }
    }
  }
  row->top.reserve(top_);
  for (size_t node = 0; node < top_; ++node) {
    row->top.push_back(std::max(found_[node], row->backoff + tree_.alone[node]));
  }
  uint32_t size = 1;
  while (size < marked.nodes.size() + marked.nodes.size() / 2 + 1) size *= 2;
  row->mask = size - 1;
  row->slots.assign(size, {-1, 0});
  for (const int32_t node : marked.nodes) {
    uint32_t at = row->place(node);
    while (row->slots[at].node >= 0) at = (at + 1) & row->mask;
    row->slots[at] = {node, found_[node]};
  }
  rows_[before].store(row.get(), std::memory_order_release);
  return *row.release();
}

}  // namespace asr
