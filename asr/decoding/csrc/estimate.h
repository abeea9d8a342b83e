// Estimates an n-gram model from text in bounded memory: interpolated modified Kneser-Ney.
//
//   P(w | h) = max(0, c(h w) - D(c(h w))) / S(h) + g(h) P(w | h')          h' is h without its first word
//   S(h) = sum over w of c(h w),  g(h) = (sum over kept w of D(c(h w)) + sum over pruned w of c(h w)) / S(h)
//   P(w) = max(0, c(w) - D(c(w))) / S + g / (words, with </s> and <unk>)
//
// Where it is known how often words are in other text, P(w) is 0.85 of that and 0.15 of the share of w there.
//
// Chen and Goodman (1998), section 3, with the adjusted counts, the pruning by count and the order of sorting of
// Heafield et al. (2013). c is the count at the highest order and for n-grams that begin with <s>, else the number of
// different words before the n-gram. D takes one of three values of the order, from the counts of counts.
//
// Pruning by entropy (Stolcke 1998) drops what changes the model least, with P(h) from the counts, since Kneser-Ney's
// lower orders are no probabilities of histories (Chelba et al. 2010). Then the model is estimated again over what is
// kept, where an n-gram that was dropped gives its whole count to its suffix, and not 1 (Siivola et al. 2007).
//
// Memory: the vocabulary, and `memory` for sorting; everything else is on temporary files.

#ifndef ASR_ESTIMATE_H_
#define ASR_ESTIMATE_H_

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ngram_build.h"
#include "ngram_rows.h"

namespace asr {

struct Pruning {
  std::vector<uint64_t> counts;  // [k - 1]: n-grams of order k seen so often or less are dropped; words become <unk>
  double entropy;                // of the relative rise of perplexity that drops an n-gram; 0: none
};

using Counts = std::unordered_map<std::string, double>;

class Estimator {
 public:
  // Hears of steps done of how many; may throw to stop.
  using Progress = std::function<void(const char* phase, uint64_t done, uint64_t all)>;
  using Write = std::function<void(const char* text, size_t size)>;

  Estimator(int order, size_t memory, std::string directory, Progress progress);

  void feed(const char* text, size_t size);  // whole lines, a sentence a line, words between spaces
  uint64_t tokens() const { return total_; }
  // Keeps the `most` frequent words (0: all) of `only` (empty: of all), and of `only` also those without a count.
  // elsewhere: how often words are in other text; empty: that is not known.
  void estimate(const Pruning& pruning, uint64_t most, const std::vector<std::string>& only, const Counts& elsewhere);
  uint64_t cut() const { return cut_; }                       // words of the text that became <unk>, each time
  bool fell_back(int k) const { return fell_back_[k]; }       // the counts of order k are too few for discounts
  uint64_t count(int k) const;                                // n-grams of the model
  void write_arpa(const Write& write) const;
  std::unique_ptr<NgramModel> build(int bits, const std::string& path);  // once, and last

 private:
  using File = std::unique_ptr<RowFile>;
  using Files = std::vector<File>;

  void choose_vocabulary(uint64_t least, uint64_t most, const std::vector<std::string>& only);
  void count_ngrams();
  void adjust(const Files& kept);
  void set_discounts();
  double discount(int k, uint64_t count) const { return discounts_[k][std::min<uint64_t>(count, 3)]; }
  void estimate_unigrams(const Counts& elsewhere);
  void estimate_order(int k, const Pruning& pruning, const RowFile* kept);
  void prune(double threshold, Files* kept);
  File prune_order(int k, double threshold, const RowFile* longer, File* histories);
  void collect();
  File new_file(int width) const { return std::make_unique<RowFile>(directory_, width); }
  void step(uint64_t done, uint64_t all);

  int order_;
  size_t memory_;
  std::string directory_;
  Progress progress_;
  const char* phase_ = "";

  // The text: words in the order of their first appearance, and the ids of all, each sentence closed by kSentence.
  std::unordered_map<std::string, uint32_t> index_;
  std::vector<uint64_t> seen_;
  File text_;
  uint64_t total_ = 0, cut_ = 0, events_ = 0;  // events: words and ends of sentences

  NgramParts parts_;
  std::vector<uint64_t> unigram_counts_;  // c of order 1
  std::vector<double> unigrams_;          // P of order 1
  Files counts_;                          // [k]: n-grams in suffix order, raw count, c
  Files estimates_;                       // [k]: n-grams in suffix order, P(w | h), P(w | h'), kept
  Files histories_;                       // [k]: histories of k words in suffix order, g, raw count, whether any is kept
  std::array<std::array<double, 4>, kMaxOrder + 1> discounts_ = {};
  std::array<bool, kMaxOrder + 1> fell_back_ = {};
};

}  // namespace asr

#endif  // ASR_ESTIMATE_H_
