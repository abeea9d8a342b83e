// CTC prefix beam search of one stream (Hannun et al. 2014, arXiv 1408.2873), frame by frame.
//
// A prefix is a sequence of tokens; the probability of all its alignments is kept in two parts, of those that end
// in a blank and of those that do not, so that no two hypotheses share an alignment and with pruning off the
// search is exact. Prefixes are the nodes of a trie. Beside the sums, each prefix has its single best alignment,
// for times. What a prefix scores beside its acoustics is its Scorer's, and constant.
//
// Where tokens spell pronunciations (`recombine`), prefixes that differ only in words of which nothing that follows
// depends are one hypothesis, the best of them, as in a search of states: there are many times more of them.
//
// Words that all hypotheses share are final: they are handed out, and the trie's root moves behind them.
// Natural logarithms everywhere; frames count from the beginning of the stream.
#ifndef ASR_BEAM_H_
#define ASR_BEAM_H_

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "scoring.h"

namespace asr {

struct Options {
  int32_t beam, tokens;
  int64_t max_tentative;
  double token_threshold, threshold, temperature;
  Weights weights;
  int64_t recombine;  // whether of prefixes with the same future only the best is kept
};

struct Token {
  int32_t id;
  int64_t start, end;  // frames
};

struct Word {
  int64_t start, end, survived;
  double confidence;
  int32_t tokens;  // how many
  int32_t behind;  // whether it is none, but all that was heard behind the words before it when they became final
};

// Words one after the other, and their tokens.
struct Words {
  std::vector<Word> words;
  std::vector<int32_t> tokens;
};

struct Reading {
  double score, posterior;
  int32_t tokens;
};

struct Readings {
  std::vector<Reading> readings;
  std::vector<Token> tokens;
};

class Beam {
 public:
  Beam(std::shared_ptr<const std::vector<Piece>> pieces, const Options& options, const LanguageModel* model);

  void reset();
  void set_hotwords(std::shared_ptr<const Hotwords> hotwords);
  void accept(const float* log_probs, int64_t frames);  // (T, V), no NaN
  void flush();
  Words take();
  Words tentative();
  // The best n texts of what is not final, as they would be if the stream ended now.
  Readings nbest(int64_t n);
  int64_t trailing_blanks() const;
  // Nodes of the trie and emissions in memory, used or free.
  int64_t size() const { return static_cast<int64_t>(nodes_.size() + emissions_.size()); }

 private:
  static constexpr int32_t kDead = -1, kFree = -2;  // a dead node may have living ones behind it

  struct Node {
    int32_t parent, child, sibling;  // -1: none
    int32_t token;                   // -1: none yet in this stream
    int32_t slot;                    // among the living; kDead, kFree: none
    int32_t word;                    // number of the word in this segment
    int64_t length;                  // tokens of this segment
    int64_t born;                    // frame
    uint64_t hash;                   // of the word's letters so far
    Scored scored;
  };

  // A token of a best alignment that has ended. The chain of `previous` goes back to the root.
  struct Emission {
    int32_t previous;
    int64_t length;  // tokens of the segment up to this
    int64_t start, end;
  };

  // The best alignment that ends in a blank, or in the token.
  struct Alignment {
    double score;
    int32_t chain;       // of emissions: with the last token, or without it while it sounds
    int64_t start, end;  // of the last token; `end` of one that sounds is not set
  };

  struct Live {
    int32_t node, token;
    double blank, sounding, total;  // ln of the probability of all alignments ending so, and of both
    double context, score;          // total + context
    Alignment silent, open;         // the best ones
    double mass;                    // ln of the tempered mass of all that it stands for, over its own
    int32_t shares;                 // where those of its words are
  };

  struct Candidate {
    double acoustic;
    int32_t slot, token;
    Context context;
  };

  struct Entry {  // stays come first, then candidates
    double score;
    int32_t index;
    bool operator<(const Entry& other) const {  // the better one: with it, the top of a heap is the worst
      return score > other.score || (score == other.score && index < other.index);
    }
  };

  // A word of the best hypothesis.
  struct Spoken {
    bool present;   // false: the place before the first word, or after a mark without letters
    uint64_t hash;
    int64_t since;  // frame since which it stands here
  };

  // A word of a hypothesis.
  struct Step {
    uint64_t hash;
    uint32_t said;        // which one it is to the language model, kNoWord: not known
    int32_t place, node;  // the last of it
    bool same(const Step& other) const { return hash == other.hash || (said != kNoWord && said == other.said); }
  };

  // beam.cc: the search.
  void step(const float* log_probs);
  void select_tokens();
  void stay();
  void extend();
  void offer(double score, int32_t index);
  void survive();
  void recombine(Live& live, const Entry& entry);
  uint64_t future(const Entry& entry) const;
  Live continued(int32_t slot);
  Live begun(const Candidate& candidate);
  static double entry_score(const Live& from, int32_t token);
  int32_t chain_before(int32_t slot, int32_t token);
  int32_t close(int32_t slot);
  void drop_old();
  void collect_emissions();

  // trie.cc: nodes, and what is final.
  int32_t new_node(int32_t parent, int32_t token, const Scored& scored);
  int32_t find_child(int32_t parent, int32_t token) const;
  void release(int32_t node);
  void release_dropped();
  bool is_fork(int32_t node) const;
  int32_t branch(int32_t fork, int32_t node) const;
  void begin_segment(Live last);
  void commit();
  void cut(int32_t node);
  void make_room(std::vector<Token>& tokens, int64_t length) const;
  void put_behind(const std::vector<Token>& tokens, int64_t length);
  std::vector<Token> trace(const Live& live) const;
  std::vector<double> scores() const;
  std::vector<double> final_scores();

  // words.cc: words of the best hypothesis, how long they have stood and how sure they are.
  void follow_best();
  void mix(Live& live, std::vector<float>& shares, const Live& shorter, double entered) const;
  void absorb(Live& live, std::vector<float>& shares, const Live& other, double score, int32_t token = -1);
  void enter(int32_t node, int32_t token, std::vector<Step>& steps) const;
  int32_t common(int32_t one, int32_t other) const;
  void walk(int32_t node, int32_t end, std::vector<Step>& steps) const;
  std::vector<float> confidences(const std::vector<double>& scores);
  void put_words(const std::vector<Token>& tokens, int64_t length, const std::vector<float>& confidences,
                 Words& words) const;
  uint64_t text_hash(int32_t node) const;
  uint64_t spelled(uint64_t hash, int32_t token) const;

  Options options_;
  int32_t vocabulary_;
  Scorer scorer_;

  int64_t frame_ = 0;  // frames decoded
  std::vector<Node> nodes_;
  std::vector<int32_t> free_;
  std::vector<Emission> emissions_;
  size_t emissions_limit_ = 0;
  int32_t root_ = 0;
  std::vector<Live> live_;  // best first
  // Of each living hypothesis, by place of its words: the share of what it stands for that has this word there.
  std::vector<std::vector<float>> shares_;
  Words final_;
  int64_t until_ = 0;  // where the last token that is final ends; no other begins before

  int32_t best_ = -1;  // node
  std::vector<Spoken> spoken_;

  // Of one frame, kept for its memory.
  struct Tried {
    float log_prob;
    int32_t token;
  };
  static constexpr int32_t kUnknown = -2;
  const float* frame_log_probs_ = nullptr;  // (V,)
  std::vector<Tried> tried_;
  std::vector<Live> stays_, next_;    // by slot: without a new token; the survivors
  std::vector<int32_t> before_;       // by slot: that of the prefix without the last token, -1: it is dead
  std::vector<int32_t> entered_;      // by slot: from which slot the token was entered, -1: not now
  std::vector<int32_t> closed_;       // by slot: the emissions with the token that sounded
  std::vector<int32_t> first_child_, next_child_;  // by slot: living prefixes with one token more
  std::vector<uint64_t> is_child_;    // by token: == child_mark_
  uint64_t child_mark_ = 0;
  std::vector<Candidate> candidates_;
  std::vector<Entry> heap_;  // the best so far, the worst of them on top
  double cutoff_ = 0, best_score_ = 0;
  std::unordered_map<uint64_t, int32_t> futures_;  // to slots of the survivors
  std::vector<int32_t> dropped_;                   // nodes
  std::vector<Spoken> spoken_before_;
  std::vector<Step> steps_, other_steps_;
  std::vector<std::vector<float>> next_shares_;
};

}  // namespace asr

#endif  // ASR_BEAM_H_
