// Rows of 32-bit numbers, kept in order or put in order, in bounded memory. Knows nothing of what they mean.
//
// A row is `width` numbers; the first `key` of them are what rows are ordered by, lexicographically. What does not
// fit the memory goes to temporary files without a name, which vanish with the process.

#ifndef ASR_NGRAM_ROWS_H
#define ASR_NGRAM_ROWS_H

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace asr {

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float bits_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Written once from front to back, then read any number of times, by any number of readers.
class RowFile {
 public:
  RowFile(std::string directory, int width);
  ~RowFile();
  RowFile(const RowFile&) = delete;
  RowFile& operator=(const RowFile&) = delete;

  void push(const uint32_t* row) {
    buffer_.insert(buffer_.end(), row, row + width_);
    rows_++;
    if (buffer_.size() >= kBuffer) write_out();
  }
  uint64_t rows() const { return rows_; }
  int width() const { return width_; }

 private:
  friend class RowReader;
  static constexpr size_t kBuffer = 1 << 16;  // numbers
  void write_out();

  std::string directory_;
  int width_, file_ = -1;
  uint64_t rows_ = 0, written_ = 0;  // written_: numbers that are on the file; the rest is in the buffer
  std::vector<uint32_t> buffer_;
};

// Reads a RowFile that will not grow any more.
class RowReader {
 public:
  explicit RowReader(const RowFile& file) : file_(&file) { next(); }
  const uint32_t* row() const { return row_; }  // null at the end
  void next();

 private:
  const RowFile* file_;
  uint64_t position_ = 0;  // of the next row, in numbers
  size_t offset_ = 0;      // of it in the block
  std::vector<uint32_t> block_;
  const uint32_t* row_ = nullptr;
};

// External merge sort. With `combine`, rows of one key become one, whose first number after the key is their sum.
class RowSorter {
 public:
  RowSorter(std::string directory, int key, int width, size_t memory, bool combine = false);
  ~RowSorter();

  void push(const uint32_t* row) {
    if (rows_.size() + width_ > limit_) spill();
    rows_.insert(rows_.end(), row, row + width_);
  }
  void finish();                                // after the last push
  const uint32_t* row() const { return row_; }  // null at the end; valid until next()
  void next();

 private:
  struct Merge;
  void sort_rows();
  void spill();
  void write_run();

  std::string directory_;
  int key_, width_;
  size_t limit_;  // numbers held in memory
  bool combine_;
  std::vector<uint32_t> rows_;
  std::vector<std::vector<std::unique_ptr<RowFile>>> levels_;  // runs; those of level n + 1 are merged from level n
  std::unique_ptr<Merge> merge_;
  size_t position_ = 0;
  const uint32_t* row_ = nullptr;
};

}  // namespace asr

#endif
