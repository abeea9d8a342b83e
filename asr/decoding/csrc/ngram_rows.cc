#include "ngram_rows.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace asr {

namespace {

constexpr int kMaxWidth = 12;
constexpr size_t kRunsToMerge = 64;

template <int width>
struct Row {
  uint32_t numbers[width];
};

template <int width>
void sort_width(uint32_t* rows, size_t count, int key) {
  auto* first = reinterpret_cast<Row<width>*>(rows);
  std::sort(first, first + count, [key](const Row<width>& a, const Row<width>& b) {
    for (int i = 0; i < key; i++)
      if (a.numbers[i] != b.numbers[i]) return a.numbers[i] < b.numbers[i];
    return false;
  });
}

using Sort = void (*)(uint32_t*, size_t, int);
constexpr Sort kSorts[kMaxWidth + 1] = {nullptr,         sort_width<1>, sort_width<2>,  sort_width<3>, sort_width<4>,
                                        sort_width<5>,   sort_width<6>, sort_width<7>,  sort_width<8>, sort_width<9>,
                                        sort_width<10>, sort_width<11>, sort_width<12>};

bool less(const uint32_t* a, const uint32_t* b, int key) { return std::lexicographical_compare(a, a + key, b, b + key); }

void add(uint32_t* to, uint32_t more) {
  if (__builtin_add_overflow(*to, more, to)) throw std::runtime_error("an n-gram is there more than 2^32 times");
}

std::runtime_error disk_error(const std::string& directory, const char* what) {
  return std::runtime_error(directory + ": cannot " + what + " a temporary file (" + std::strerror(errno) +
               "): choose another place with TMPDIR");
}

}  // namespace

RowFile::RowFile(std::string directory, int width) : directory_(std::move(directory)), width_(width) {}

RowFile::~RowFile() {
  if (file_ >= 0) close(file_);
}

void RowFile::write_out() {
  if (file_ < 0) {
    std::string name = directory_ + "/asr-lm-XXXXXX";
    file_ = mkstemp(&name[0]);
    if (file_ < 0) throw disk_error(directory_, "make");
    unlink(name.c_str());  // it lives as long as it is open
  }
  const char* bytes = reinterpret_cast<const char*>(buffer_.data());
  size_t left = buffer_.size() * 4;
  while (left) {
    const ssize_t done = write(file_, bytes, left);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw disk_error(directory_, "write");
    bytes += done, left -= (size_t)done;
  }
  written_ += buffer_.size();
  buffer_.clear();
}

void RowReader::next() {
  const uint64_t total = file_->written_ + file_->buffer_.size();
  if (position_ == total) {
    row_ = nullptr;
    return;
  }
  if (position_ >= file_->written_) {  // a row is whole on either side: only whole rows are written out
    row_ = file_->buffer_.data() + (position_ - file_->written_);
  } else {
    if (offset_ == block_.size()) {
      const size_t most = RowFile::kBuffer / file_->width_ * file_->width_;
      block_.resize((size_t)std::min<uint64_t>(most, file_->written_ - position_));
      char* bytes = reinterpret_cast<char*>(block_.data());
      size_t left = block_.size() * 4;
      off_t from = (off_t)(position_ * 4);
      while (left) {
        const ssize_t done = pread(file_->file_, bytes, left, from);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) throw disk_error(file_->directory_, "read");
        bytes += done, left -= (size_t)done, from += done;
      }
      offset_ = 0;
    }
    row_ = block_.data() + offset_;
    offset_ += file_->width_;
  }
  position_ += file_->width_;
}

// The runs as one sorted sequence: a heap of their readers, the least key first.
struct RowSorter::Merge {
  Merge(const std::vector<std::unique_ptr<RowFile>>& runs, int key, int width, bool combine)
    : key(key), width(width), combine(combine), current(width) {
    readers.reserve(runs.size());
    for (const auto& run : runs) readers.emplace_back(*run);
    for (RowReader& reader : readers)
      if (reader.row()) heap.push_back(&reader);
    std::make_heap(heap.begin(), heap.end(), later());
  }

  // Runs that are equal come in any order: keys of rows that are not combined are unique or alike.
  struct Later {
    int key;
    bool operator()(const RowReader* a, const RowReader* b) const { return less(b->row(), a->row(), key); }
  };
  Later later() const { return Later{key}; }

  const uint32_t* next() {
    if (heap.empty()) return nullptr;
    std::memcpy(current.data(), heap.front()->row(), 4 * width);
    advance();
    while (combine && !heap.empty() && !less(current.data(), heap.front()->row(), key)) {
      add(&current[key], heap.front()->row()[key]);
      advance();
    }
    return current.data();
  }

  void advance() {
    std::pop_heap(heap.begin(), heap.end(), later());
    heap.back()->next();
    if (heap.back()->row())
      std::push_heap(heap.begin(), heap.end(), later());
    else
      heap.pop_back();
  }

  int key, width;
  bool combine;
  std::vector<RowReader> readers;
  std::vector<RowReader*> heap;
  std::vector<uint32_t> current;
};

RowSorter::RowSorter(std::string directory, int key, int width, size_t memory, bool combine)
  : directory_(std::move(directory)), key_(key), width_(width), combine_(combine) {
  limit_ = std::max<size_t>(memory / 4, (size_t)width * 1024);
  rows_.reserve(limit_);  // growing would take twice as much; what is not filled is never touched
}

RowSorter::~RowSorter() = default;

void RowSorter::sort_rows() {
  const size_t count = rows_.size() / width_;
  kSorts[width_](rows_.data(), count, key_);
  if (!combine_ || !count) return;
  uint32_t* last = rows_.data();
  for (size_t i = 1; i < count; i++) {
    const uint32_t* row = rows_.data() + i * width_;
    if (less(last, row, key_))
      std::memmove(last += width_, row, 4 * width_);
    else
      add(&last[key_], row[key_]);
  }
  rows_.resize((size_t)(last - rows_.data()) + width_);
}

void RowSorter::spill() {
  sort_rows();
  // Combining may leave room enough to go on without a file.
  if (!combine_ || rows_.size() > limit_ / 2) write_run();
}

void RowSorter::write_run() {
  auto run = std::make_unique<RowFile>(directory_, width_);
  for (size_t i = 0; i < rows_.size(); i += width_) run->push(&rows_[i]);
  rows_.clear();
  for (size_t level = 0;; level++) {
    if (levels_.size() == level) levels_.emplace_back();
    levels_[level].push_back(std::move(run));
    if (levels_[level].size() < kRunsToMerge) return;
    Merge merge(levels_[level], key_, width_, combine_);
    run = std::make_unique<RowFile>(directory_, width_);
    while (const uint32_t* row = merge.next()) run->push(row);
    levels_[level].clear();
  }
}

void RowSorter::finish() {
  sort_rows();
  if (!levels_.empty()) {
    write_run();
    std::vector<uint32_t>().swap(rows_);
    std::vector<std::unique_ptr<RowFile>> runs;
    for (auto& level : levels_)
      for (auto& run : level) runs.push_back(std::move(run));
    levels_.clear();
    levels_.push_back(std::move(runs));
    merge_ = std::make_unique<Merge>(levels_[0], key_, width_, combine_);
  }
  next();
}

void RowSorter::next() {
  if (merge_) {
    row_ = merge_->next();
  } else if (position_ < rows_.size()) {
    row_ = rows_.data() + position_;
    position_ += width_;
  } else {
    row_ = nullptr;
  }
}

}  // namespace asr
