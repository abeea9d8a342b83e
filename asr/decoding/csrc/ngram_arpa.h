// Reads ARPA text, pushed in pieces of any size, into a model. Every error names the line.

#ifndef ASR_NGRAM_ARPA_H_
#define ASR_NGRAM_ARPA_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ngram_build.h"

namespace asr {

class ArpaReader {
 public:
  ArpaReader(std::string name, std::string directory, size_t memory);

  // Takes more of the text and returns how much of it: it stops after the 1-grams, once, so that the words read may
  // be spelled anew before the next call.
  size_t feed(const char* text, size_t size);
  bool has_vocabulary() const { return (order_ > 1 || section_ == kAfter) && parts_.words.empty(); }
  const std::vector<std::string>& vocabulary() const { return words_; }
  void respell(size_t place, std::string word) { words_[place] = std::move(word); }
  std::unique_ptr<NgramModel> finish(int bits, const std::string& path);

 private:
  enum Section { kBefore, kCounts, kNgrams, kAfter };
  void line(const char* text, size_t size);
  void count_line(const std::string& text);
  void section_line(const std::string& text);
  void ngram_line(const char* text, size_t size);
  void end_section();
  void number_words();
  [[noreturn]] void fail(uint64_t line, const std::string& reason) const;

  std::string name_, directory_;
  size_t memory_;
  std::string rest_;  // of a line that has not ended
  uint64_t line_ = 0;
  Section section_ = kBefore;
  std::vector<uint64_t> counts_;  // [k - 1], of the header
  int order_ = 0;                 // of the section
  uint64_t seen_ = 0;             // n-grams of it
  std::vector<std::string> words_;  // the 1-grams in the order of reading, their lines and values
  std::vector<uint32_t> lines_;
  std::vector<Unigram> read_;
  std::unordered_map<std::string, uint32_t> index_;  // as the file spells them: place in words_, then word id
  NgramParts parts_;
  std::unique_ptr<RowSorter> sorter_;
};

}  // namespace asr

#endif  // ASR_NGRAM_ARPA_H_
