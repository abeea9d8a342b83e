// An n-gram model as one block of memory, mapped from a file or made by NgramBuilder. Knows no ARPA and no text.
//
// The file, little-endian, every section on 8 bytes, offsets in the header:
//
//   header    NgramHeader
//   unigrams  (V + 1) of Unigram, by word id. 0 is <unk>, 1 <s>, 2 </s>; the others follow in the order of their bytes
//   level k   for k = 2..N, packed records of `record_bits[k]`: the oldest word, probability, back-off, first child.
//             An n-gram w1..wk is found by its words from the last to the first: wk is a unigram, its children at
//             level 2 are the words before it, and so on; children lie together, sorted, and end where those of the
//             next record begin. Level N has neither back-off nor child; every other ends with one record more.
//   codes k   the 2^bits probabilities and then back-offs that the records' numbers stand for, floats; with 32
//             bits a record holds the float itself, and there are no codes
//   lexicon   the vocabulary as a trie over bytes, breadth first, so that the children of a node lie together:
//             labels (a byte a node), then packed records: word id (0: none), first child, best_below
//   best      the floats that a lexicon record's best_below (8 bits) stands for, none with 32 bits
//
// An n-gram may be there without its suffixes, which are on the way to it: those are blanks, with probability code 0
// (NaN as a float). Back-off code 0 (-0.0 as a float) says that no n-gram begins so: such words are left out of states.

#ifndef ASR_NGRAM_H_
#define ASR_NGRAM_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "language_model.h"

namespace asr {

constexpr uint32_t kUnknown = 0, kBegin = 1, kEnd = 2, kFirstWord = 3;

struct NgramHeader {
  char magic[8];
  uint32_t version, order;
  uint64_t size;  // of the file
  uint64_t counts[kMaxOrder];
  uint32_t word_bits, code_bits;  // code_bits: 2..16, or 32
  uint32_t child_bits[kMaxOrder + 1], record_bits[kMaxOrder + 1];
  uint64_t unigrams, levels[kMaxOrder + 1], codes[kMaxOrder + 1];
  uint64_t nodes, labels, lexicon, best;
  uint32_t node_bits, best_bits;
  uint64_t check;  // hash of all before
};

struct Unigram {
  float probability, backoff;
  uint32_t children;
};

void seal(NgramHeader* header);  // magic, version, check

// Bytes that are a mapped file, or memory of our own; or a file being made.
class Block {
 public:
  static Block open(const std::string& path);
  static Block create(const std::string& path, size_t size);  // empty path: memory
  Block(Block&& other) noexcept;
  ~Block();
  uint8_t* bytes() const { return bytes_; }
  size_t size() const { return size_; }

 private:
  Block() = default;
  uint8_t* bytes_ = nullptr;
  size_t size_ = 0;
};

// Reads up to 32 bits; a section ends with 8 bytes more, so that the last records can be read so too.
inline uint32_t read_bits(const uint8_t* base, uint64_t bit, uint32_t width) {
  uint64_t word;
  std::memcpy(&word, base + (bit >> 3), 8);
  return (uint32_t)((word >> (bit & 7)) & ((1ull << width) - 1));
}

inline void write_bits(uint8_t* base, uint64_t bit, uint32_t width, uint32_t value) {
  uint64_t word;
  std::memcpy(&word, base + (bit >> 3), 8);
  const uint64_t mask = ((1ull << width) - 1) << (bit & 7);
  word = (word & ~mask) | ((uint64_t)value << (bit & 7));
  std::memcpy(base + (bit >> 3), &word, 8);
}

class NgramModel final : public LanguageModel {
 public:
  static std::unique_ptr<NgramModel> open(const std::string& path);
  explicit NgramModel(Block block);  // throws std::runtime_error with the reason alone

  LmState begin() const override;
  float score(const LmState& in, uint32_t word, LmState* out) const override;
  float score_end(const LmState& in) const override;
  uint32_t unknown() const override { return kUnknown; }
  int32_t child(int32_t node, uint8_t byte) const override;
  uint32_t word(int32_t node) const override;
  float best_below(int32_t node, const LmState&) const override;  // of unigrams
  void pairs(const TellPair& tell) const override;
  float backoff(uint32_t before) const override { return unigrams_[before].backoff; }

  const NgramHeader& header() const { return *header_; }
  uint32_t vocabulary() const { return (uint32_t)header_->counts[0]; }
  // Children of a node of the lexicon are the nodes first_child(node) .. first_child(node + 1).
  uint32_t first_child(int32_t node) const;
  uint8_t label(int32_t node) const { return labels_[node]; }
  float unigram(uint32_t word) const { return unigrams_[word].probability; }

 private:
  friend class NgramBuilder;
  struct Range {
    uint64_t begin, end;
  };
  Range unigram_children(uint32_t word) const;
  Range children(uint32_t level, uint64_t record) const;
  bool find_record(uint32_t level, Range range, uint32_t word, uint64_t* record) const;
  float probability(uint32_t level, uint64_t record) const;  // NaN: a blank
  float backoff(uint32_t level, uint64_t record) const;

  Block block_;
  const NgramHeader* header_;
  const Unigram* unigrams_;
  const uint8_t* levels_[kMaxOrder + 1] = {};
  const float* codes_[kMaxOrder + 1] = {};
  const uint8_t *labels_, *lexicon_;
  const float* best_;
};

// The share of the unigram probability, that of <unk> and sentence ends aside, of words that `letters` spell (UTF-8,
// each followed by a space). `missing`: the letters that most of the rest lacks, the most important first.
double spellable(const NgramModel& model, const std::string& letters, std::string* missing);

inline bool extends(float backoff) {  // -0.0 says that nothing begins so
  uint32_t bits;
  std::memcpy(&bits, &backoff, 4);
  return bits != 0x80000000u;
}

}  // namespace asr

#endif  // ASR_NGRAM_H_
