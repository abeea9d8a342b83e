// The prefixes' trie, and what moves its root: words that are final, endpoints.
#include <algorithm>

#include "beam.h"

namespace asr {
namespace {

constexpr int64_t kLongestWord = 64;  // tokens; a longer one is handed out in parts
constexpr uint64_t kNoLetters = 0xcbf29ce484222325u;  // FNV-1a, 64 bits

}  // namespace

int32_t Beam::new_node(int32_t parent, int32_t token, const Scored& scored) {
  int32_t made;
  if (free_.empty()) {
    made = static_cast<int32_t>(nodes_.size());
    nodes_.emplace_back();
  } else {
    made = free_.back();
    free_.pop_back();
  }
  Node& node = nodes_[made];
  Node& before = nodes_[parent];
  const bool starts = scorer_.starts_word(token);
  node = {parent, -1, before.child, token, kDead, before.word, before.length + 1, frame_, before.hash, scored};
  if (starts && before.scored.context.open) ++node.word;
  node.hash = spelled(before.hash, token);
  before.child = made;
  return made;
}

// The hash of a word's letters, with those of one token more.
uint64_t Beam::spelled(uint64_t hash, int32_t token) const {
  if (scorer_.starts_word(token)) hash = kNoLetters;
  for (const char byte : scorer_.letters(token)) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  return hash;
}

int32_t Beam::find_child(int32_t parent, int32_t token) const {
  int32_t child = nodes_[parent].child;
  while (child >= 0 && nodes_[child].token != token) child = nodes_[child].sibling;
  return child;
}

// Free the node, and those before it, unless somebody lives there or behind. It may have been freed before.
void Beam::release(int32_t node) {
  while (node != root_ && nodes_[node].slot == kDead && nodes_[node].child < 0) {
    const int32_t parent = nodes_[node].parent;
    int32_t* link = &nodes_[parent].child;
    while (*link != node) link = &nodes_[*link].sibling;
    *link = nodes_[node].sibling;
    nodes_[node].slot = kFree;
    nodes_[node].scored = {};  // holds histories
    free_.push_back(node);
    node = parent;
  }
}

void Beam::release_dropped() {
  for (const int32_t node : dropped_) release(node);
}

// Whether not all hypotheses go on the same way from here.
bool Beam::is_fork(int32_t node) const {
  const int32_t child = nodes_[node].child;
  return nodes_[node].slot >= 0 || child < 0 || nodes_[child].sibling >= 0;
}

// The child of `fork` on the way to a node behind it; -1: it is the node itself.
int32_t Beam::branch(int32_t fork, int32_t node) const {
  int32_t way = -1;
  for (; node != fork; node = nodes_[node].parent) way = node;
  return way;
}

// Forget everything but how the last frame sounded: a token that goes on is not emitted again.
void Beam::begin_segment(Live last) {
  nodes_.clear();
  free_.clear();
  emissions_.clear();
  emissions_limit_ = 1024;
  root_ = 0;
  nodes_.push_back({-1, -1, -1, last.token, 0, 0, 0, frame_, kNoLetters, scorer_.begin()});
  const double best = std::max(last.silent.score, last.open.score);
  last.silent.score -= best;
  last.open.score -= best;
  last.blank -= last.total;
  last.sounding -= last.total;
  last.total = 0;
  last.node = root_;
  last.silent.chain = last.open.chain = -1;
  last.context = last.score = scorer_.score(nodes_[root_].scored.context);
  last.mass = 0;
  last.shares = 0;
  shares_.assign(1, {1});
  live_.assign(1, last);
  best_ = root_;
  spoken_.assign(1, {});
  until_ = frame_;
}

// Words that all hypotheses share, and that have ended in all of them, are final.
void Beam::commit() {
  int32_t end = -1, node = root_;
  while (!is_fork(node)) {
    const int32_t child = nodes_[node].child;
    const bool ended = scorer_.starts_word(nodes_[child].token);
    if (node != root_ && (ended || nodes_[child].length - nodes_[root_].length > kLongestWord)) end = node;
    node = child;
  }
  if (end >= 0) cut(end);
}

// Hand out the words up to this node, and make it the root.
void Beam::cut(int32_t node) {
  std::vector<Token> tokens = trace(live_.front());
  const int64_t length = nodes_[node].length - nodes_[root_].length;
  make_room(tokens, length);
  until_ = tokens[length - 1].end;
  put_words(tokens, length, confidences(scores()), final_);
  if (options_.recombine) put_behind(tokens, length);
  const int32_t places = nodes_[node].word - nodes_[root_].word;
  spoken_.erase(spoken_.begin(), spoken_.begin() + places);
  for (const Live& live : live_) {
    std::vector<float>& shares = shares_[live.shares];
    shares.erase(shares.begin(), shares.begin() + places);
  }
  if (nodes_[node].scored.context.open) spoken_.front().present = false;  // else it is the next word's place
  for (int32_t before = nodes_[node].parent; before >= 0; before = nodes_[before].parent) free_.push_back(before);
  nodes_[node].parent = nodes_[node].sibling = -1;
  root_ = node;
  best_ = -1;
  follow_best();
}

// Other prefixes have other best alignments, and may turn out to be the best. So the first tokens, which are to be
// final, end where in every living alignment the next one still has a frame. The earliest starts of all alignments
// are one too: there is room for each token between its own and the next one's.
void Beam::make_room(std::vector<Token>& tokens, int64_t length) const {
  const int64_t root = nodes_[root_].length;
  std::vector<int64_t> earliest(length, frame_);
  int64_t end = frame_;
  const auto see = [&](int64_t place, int64_t starts, int64_t ends) {
    if (place >= 0 && place < length) earliest[place] = std::min(earliest[place], std::max(starts, until_));
    if (place == length) end = std::min(end, ends - 1);
  };
  std::vector<char> seen(emissions_.size(), 0);
  for (const Live& live : live_) {
    see(nodes_[live.node].length - root - 1, live.open.start, frame_);
    for (int32_t chain : {live.silent.chain, live.open.chain}) {
      for (; chain >= 0 && !seen[chain] && emissions_[chain].length > root; chain = emissions_[chain].previous) {
        seen[chain] = 1;
        see(emissions_[chain].length - root - 1, emissions_[chain].start, emissions_[chain].end);
      }
    }
  }
  for (int64_t i = length - 1; i >= 0; --i) {
    tokens[i].end = std::min(tokens[i].end, end);
    if (tokens[i].start >= tokens[i].end) tokens[i].start = earliest[i];
    end = tokens[i].start;
  }
}

// Which homophone a word is depends on what follows: on what does now, however late the word is taken.
void Beam::put_behind(const std::vector<Token>& tokens, int64_t length) {
  Word behind{};
  behind.tokens = static_cast<int32_t>(static_cast<int64_t>(tokens.size()) - length);
  behind.behind = 1;
  final_.words.push_back(behind);
  for (size_t i = length; i < tokens.size(); ++i) final_.tokens.push_back(tokens[i].id);
}

// The tokens that are not final, by the best alignment.
std::vector<Token> Beam::trace(const Live& live) const {
  std::vector<Token> tokens(nodes_[live.node].length - nodes_[root_].length);
  const bool sounds = live.open.score > live.silent.score;
  int32_t chain = sounds ? live.open.chain : live.silent.chain, node = live.node;
  for (size_t i = tokens.size(); i-- > 0; node = nodes_[node].parent) {
    if (sounds && i + 1 == tokens.size()) {
      tokens[i] = {nodes_[node].token, live.open.start, frame_};
    } else {
      const Emission& emission = emissions_[chain];
      tokens[i] = {nodes_[node].token, emission.start, emission.end};
      chain = emission.previous;
    }
  }
  if (!tokens.empty()) tokens.front().start = std::max(tokens.front().start, until_);
  return tokens;
}

std::vector<double> Beam::scores() const {
  std::vector<double> scores;
  for (const Live& live : live_) scores.push_back(live.score);
  return scores;
}

// As they would be if the stream ended now.
std::vector<double> Beam::final_scores() {
  std::vector<double> scores;
  for (const Live& live : live_) scores.push_back(live.total + scorer_.end(nodes_[live.node].scored));
  return scores;
}

void Beam::flush() {
  std::vector<double> scores = final_scores();
  const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  std::swap(scores[0], scores[best]);
  std::swap(live_[0], live_[best]);
  follow_best();
  const std::vector<Token> tokens = trace(live_.front());
  put_words(tokens, static_cast<int64_t>(tokens.size()), confidences(scores), final_);
  begin_segment(live_.front());
}

void Beam::set_hotwords(std::shared_ptr<const Hotwords> hotwords) {
  scorer_.set_hotwords(std::move(hotwords));
  std::vector<int32_t> waiting{root_};
  while (!waiting.empty()) {
    Node& node = nodes_[waiting.back()];
    waiting.pop_back();
    scorer_.rehear(node.parent < 0 ? nullptr : &nodes_[node.parent].scored, node.token, node.scored);
    for (int32_t child = node.child; child >= 0; child = nodes_[child].sibling) waiting.push_back(child);
  }
  for (Live& live : live_) {
    live.context = scorer_.score(nodes_[live.node].scored.context);
    live.score = live.total + live.context;
  }
  std::stable_sort(live_.begin(), live_.end(), [](const Live& a, const Live& b) { return a.score > b.score; });
  for (size_t slot = 0; slot < live_.size(); ++slot) {
    nodes_[live_[slot].node].slot = static_cast<int32_t>(slot);
  }
  follow_best();
}

Words Beam::take() {
  Words taken;
  std::swap(taken, final_);
  return taken;
}

int64_t Beam::trailing_blanks() const {
  const Live& best = live_.front();
  return best.token >= 0 && best.open.score > best.silent.score ? 0 : frame_ - best.silent.end;
}

}  // namespace asr
