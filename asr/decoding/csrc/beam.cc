// The search itself: one frame after the other.
#include "beam.h"

#include <algorithm>
#include <cmath>

namespace asr {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr int32_t kBlank = 0;

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  if (b - a > -40) return a + std::log1p(std::exp(b - a));  // beyond, b is less than a's last bit; false for NaN
  return a;
}

// Compilers make vector code of a maximum only if it has no order.
float highest(const float* values, int32_t count) {
  constexpr int32_t kLanes = 16;
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, static_cast<float>(kNever));
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  for (; i < count; ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace

Beam::Beam(std::shared_ptr<const std::vector<Piece>> pieces, const Options& options, const LanguageModel* model)
    : options_(options),
      vocabulary_(static_cast<int32_t>(pieces->size())),
      scorer_(pieces, options.weights, model),
      is_child_(pieces->size(), 0) {
  reset();
}

void Beam::reset() {
  frame_ = 0;
  final_ = {};
  Live live{};
  live.token = -1;
  live.sounding = live.open.score = kNever;
  begin_segment(live);
}

void Beam::accept(const float* log_probs, int64_t frames) {
  for (int64_t frame = 0; frame < frames; ++frame) step(log_probs + frame * vocabulary_);
}

void Beam::step(const float* log_probs) {
  frame_log_probs_ = log_probs;
  select_tokens();
  stay();
  extend();
  survive();
  follow_best();
  release_dropped();
  drop_old();
  ++frame_;
  commit();
  if (emissions_.size() > emissions_limit_) collect_emissions();
}

// The tokens that are tried, the likeliest first.
void Beam::select_tokens() {
  const float* log_probs = frame_log_probs_;
  const float best = highest(log_probs, vocabulary_);
  const float floor = static_cast<float>(best - options_.token_threshold);
  tried_.clear();
  for (int32_t token = 0; token < vocabulary_; ++token) {
    if (log_probs[token] >= floor && token != kBlank && log_probs[token] > kNever) {
      tried_.push_back({log_probs[token], token});
    }
  }
  const auto likelier = [](const Tried& a, const Tried& b) {
    return a.log_prob > b.log_prob || (a.log_prob == b.log_prob && a.token < b.token);
  };
  if (tried_.size() > static_cast<size_t>(options_.tokens)) {
    std::nth_element(tried_.begin(), tried_.begin() + options_.tokens, tried_.end(), likelier);
    tried_.resize(options_.tokens);
  }
  std::sort(tried_.begin(), tried_.end(), likelier);
}

// Each living prefix without a new token: a blank, its last token going on, or that token entered now from the
// prefix without it, where that is alive too.
void Beam::stay() {
  const float* log_probs = frame_log_probs_;
  const int32_t count = static_cast<int32_t>(live_.size());
  stays_.resize(count);
  before_.assign(count, -1);
  entered_.assign(count, -1);
  closed_.assign(count, kUnknown);
  first_child_.assign(count, -1);
  next_child_.assign(count, -1);
  heap_.clear();
  best_score_ = cutoff_ = kNever;
  for (int32_t slot = 0; slot < count; ++slot) {
    const Live& from = live_[slot];
    Live& to = stays_[slot];
    to = from;
    to.blank = from.total + log_probs[kBlank];
    to.silent.score = std::max(from.silent.score, from.open.score) + log_probs[kBlank];
    if (from.token >= 0) {
      const float log_prob = log_probs[from.token];
      to.sounding = from.sounding + log_prob;
      to.open.score = from.open.score + log_prob;
      const int32_t parent = nodes_[from.node].parent;
      const int32_t before = parent < 0 ? -1 : nodes_[parent].slot;
      if (before >= 0) {
        before_[slot] = before;
        next_child_[slot] = first_child_[before];
        first_child_[before] = slot;
        const Live& shorter = live_[before];
        const bool same = shorter.token == from.token;
        to.sounding = log_add(to.sounding, (same ? shorter.blank : shorter.total) + log_prob);
        const double score = entry_score(shorter, from.token) + log_prob;
        if (score > to.open.score) {
          to.open.score = score;
          entered_[slot] = before;
        }
      }
    }
    to.total = log_add(to.blank, to.sounding);
    to.score = to.total + to.context;
    offer(to.score, slot);
  }
}

// The best alignment of a prefix that another token can follow: between equal ones there has to be a blank.
double Beam::entry_score(const Live& from, int32_t token) {
  return from.token == token ? from.silent.score : std::max(from.silent.score, from.open.score);
}

void Beam::extend() {
  candidates_.clear();
  const int32_t count = static_cast<int32_t>(live_.size());
  for (int32_t slot = 0; slot < count; ++slot) {
    const Live& from = live_[slot];
    ++child_mark_;
    for (int32_t child = first_child_[slot]; child >= 0; child = next_child_[child]) {
      is_child_[live_[child].token] = child_mark_;
    }
    Scored& scored = nodes_[from.node].scored;
    for (const Tried& tried : tried_) {
      if (is_child_[tried.token] == child_mark_) continue;
      const double acoustic = (tried.token == from.token ? from.blank : from.total) + tried.log_prob;
      if (acoustic == kNever || acoustic + scorer_.most(scored, tried.token) < cutoff_) continue;
      const Context context = scorer_.extend(scored, tried.token);
      const double score = acoustic + scorer_.score(context);
      if (score < cutoff_) continue;
      candidates_.push_back({acoustic, slot, tried.token, context});
      offer(score, count + static_cast<int32_t>(candidates_.size()) - 1);
    }
  }
}

// Keep it if it is among the best so far.
void Beam::offer(double score, int32_t index) {
  const Entry entry{score, index};
  const bool full = heap_.size() == static_cast<size_t>(options_.beam);
  if (full && !(entry < heap_.front())) return;
  if (full) {
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
  }
  heap_.push_back(entry);
  std::push_heap(heap_.begin(), heap_.end());
  best_score_ = std::max(best_score_, score);
  cutoff_ = best_score_ - options_.threshold;
  if (heap_.size() == static_cast<size_t>(options_.beam)) cutoff_ = std::max(cutoff_, heap_.front().score);
}

void Beam::survive() {
  const int32_t count = static_cast<int32_t>(live_.size());
  std::sort(heap_.begin(), heap_.end());
  next_.clear();
  futures_.clear();
  for (const Live& live : live_) nodes_[live.node].slot = kDead;
  for (const Entry& entry : heap_) {
    if (entry.score < best_score_ - options_.threshold) break;
    const int32_t slot = static_cast<int32_t>(next_.size());
    if (options_.recombine) {
      const auto [twin, first] = futures_.emplace(future(entry), slot);
      if (!first) {  // the better ones have come before
        recombine(next_[twin->second], entry);
        continue;
      }
    }
    if (next_shares_.size() <= next_.size()) next_shares_.emplace_back();
    Live live = entry.index < count ? continued(entry.index) : begun(candidates_[entry.index - count]);
    live.shares = slot;
    nodes_[live.node].slot = slot;
    next_.push_back(live);
  }
  dropped_.clear();
  for (const Live& live : stays_) {
    if (nodes_[live.node].slot >= 0) continue;
    absorb(next_.front(), next_shares_.front(), live, live.score);
    dropped_.push_back(live.node);
  }
  live_.swap(next_);
  shares_.swap(next_shares_);
}

// Leave the mass of an entry to the better one with the same future.
void Beam::recombine(Live& live, const Entry& entry) {
  const int32_t count = static_cast<int32_t>(live_.size());
  std::vector<float>& shares = next_shares_[live.shares];
  if (entry.index < count) {
    absorb(live, shares, stays_[entry.index], entry.score);
    stays_[entry.index].score = kNever;  // once
  } else {
    const Candidate& candidate = candidates_[entry.index - count];
    absorb(live, shares, live_[candidate.slot], entry.score, candidate.token);
  }
}

uint64_t Beam::future(const Entry& entry) const {
  const int32_t count = static_cast<int32_t>(live_.size());
  if (entry.index < count) {
    const Node& node = nodes_[live_[entry.index].node];
    return scorer_.future(node.scored.lm, node.scored.context, node.hash) + node.token;
  }
  const Candidate& candidate = candidates_[entry.index - count];
  const Node& from = nodes_[live_[candidate.slot].node];
  const bool starts = scorer_.starts_word(candidate.token);
  const LmState& lm = starts ? from.scored.finished.lm : from.scored.lm;
  const uint64_t letters = spelled(from.hash, candidate.token);
  return scorer_.future(lm, candidate.context, letters) + candidate.token;
}

Beam::Live Beam::continued(int32_t slot) {
  const Live& from = live_[slot];
  Live to = stays_[slot];
  if (from.open.score > from.silent.score) {
    to.silent = {to.silent.score, close(slot), from.open.start, frame_};
  }
  if (entered_[slot] >= 0) {
    to.open = {to.open.score, chain_before(entered_[slot], to.token), frame_, 0};
  }
  std::vector<float>& shares = next_shares_[next_.size()];
  shares = shares_[from.shares];
  if (before_[slot] >= 0) {
    const Live& shorter = live_[before_[slot]];
    const double entered = shorter.token == from.token ? shorter.blank : shorter.total;
    mix(to, shares, shorter, entered + frame_log_probs_[from.token]);
  }
  return to;
}

Beam::Live Beam::begun(const Candidate& candidate) {
  const int32_t token = candidate.token, slot = candidate.slot, parent = live_[slot].node;
  int32_t node = find_child(parent, token);
  if (node < 0) node = new_node(parent, token, scorer_.make(nodes_[parent].scored, token, candidate.context));
  const float log_prob = frame_log_probs_[token];
  Live to{};
  to.node = node;
  to.token = token;
  to.blank = to.silent.score = kNever;
  to.sounding = to.total = candidate.acoustic;
  to.context = scorer_.score(candidate.context);
  to.score = to.total + to.context;
  to.silent.chain = -1;
  to.open = {entry_score(live_[slot], token) + log_prob, chain_before(slot, token), frame_, 0};
  to.mass = live_[slot].mass;
  std::vector<float>& shares = next_shares_[next_.size()];
  shares = shares_[live_[slot].shares];
  shares.resize(nodes_[node].word - nodes_[root_].word + 1, 1);
  return to;
}

// The emissions of the best alignment that this token can follow.
int32_t Beam::chain_before(int32_t slot, int32_t token) {
  const Live& from = live_[slot];
  if (from.token == token || from.silent.score >= from.open.score) return from.silent.chain;
  return close(slot);
}

// The emissions of the alignment whose last token sounded until this frame.
int32_t Beam::close(int32_t slot) {
  const Live& live = live_[slot];
  if (live.node == root_) return -1;  // its token is final already
  if (closed_[slot] == kUnknown) {
    closed_[slot] = static_cast<int32_t>(emissions_.size());
    emissions_.push_back({live.open.chain, nodes_[live.node].length, live.open.start, frame_});
  }
  return closed_[slot];
}

// What left the way of the best hypothesis too long ago is dropped: an alternative cannot hold back words, nor
// keep memory, for ever.
void Beam::drop_old() {
  for (;;) {
    int32_t fork = root_;
    while (!is_fork(fork)) fork = nodes_[fork].child;
    int64_t oldest = frame_;
    for (int32_t child = nodes_[fork].child; child >= 0; child = nodes_[child].sibling) {
      oldest = std::min(oldest, nodes_[child].born);
    }
    if (nodes_[fork].child < 0 || oldest > frame_ - options_.max_tentative) return;
    const int32_t way = branch(fork, live_.front().node);
    dropped_.clear();
    next_.clear();
    for (const Live& live : live_) {
      if (branch(fork, live.node) == way) {
        nodes_[live.node].slot = static_cast<int32_t>(next_.size());
        next_.push_back(live);
      } else {
        nodes_[live.node].slot = kDead;
        absorb(next_.front(), shares_[next_.front().shares], live, live.score);
        dropped_.push_back(live.node);
      }
    }
    live_.swap(next_);
    release_dropped();
  }
}

void Beam::collect_emissions() {
  const int64_t final = nodes_[root_].length;
  std::vector<int32_t> moved(emissions_.size(), -1);
  const auto mark = [&](int32_t chain) {
    while (chain >= 0 && moved[chain] < 0 && emissions_[chain].length > final) {
      moved[chain] = 0;
      chain = emissions_[chain].previous;
    }
  };
  for (const Live& live : live_) {
    mark(live.silent.chain);
    mark(live.open.chain);
  }
  int32_t kept = 0;
  const auto move = [&](int32_t& chain) { chain = chain < 0 ? -1 : moved[chain]; };
  for (size_t i = 0; i < emissions_.size(); ++i) {
    if (moved[i] < 0) continue;
    moved[i] = kept;
    emissions_[kept] = emissions_[i];
    move(emissions_[kept++].previous);
  }
  for (Live& live : live_) {
    move(live.silent.chain);
    move(live.open.chain);
  }
  emissions_.resize(kept);
  emissions_limit_ = std::max<size_t>(1024, 2 * emissions_.size());
}

}  // namespace asr
