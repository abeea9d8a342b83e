#include "ngram.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <map>
#include <new>
#include <set>
#include <stdexcept>

namespace asr {

namespace {

constexpr char kMagic[8] = {'a', 's', 'r', '-', 'l', 'm', '\n', 0};
constexpr uint32_t kVersion = 1;

std::runtime_error system_error(const std::string& path) {
  return std::runtime_error(path + ": " + std::strerror(errno));
}

uint64_t header_check(const NgramHeader& header) {  // FNV-1a
  const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
  uint64_t hash = 14695981039346656037ull;
  for (size_t i = 0; i < offsetof(NgramHeader, check); i++) hash = (hash ^ bytes[i]) * 1099511628211ull;
  return hash;
}

}  // namespace

void seal(NgramHeader* header) {
  std::memcpy(header->magic, kMagic, sizeof(kMagic));
  header->version = kVersion;
  header->check = header_check(*header);
}

Block Block::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw system_error(path);
  struct stat status;
  Block block;
  void* bytes = MAP_FAILED;
  errno = EINVAL;
  if (fstat(file, &status) == 0 && status.st_size > 0) {
    block.size_ = (size_t)status.st_size;
    bytes = mmap(nullptr, block.size_, PROT_READ, MAP_SHARED, file, 0);
  }
  const int reason = errno;
  close(file);
  errno = reason;
  if (bytes == MAP_FAILED) throw system_error(path);
  block.bytes_ = static_cast<uint8_t*>(bytes);
  return block;
}

Block Block::create(const std::string& path, size_t size) {
  Block block;
  void* bytes;
  if (path.empty()) {
    bytes = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) throw std::bad_alloc();
  } else {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) throw system_error(path);
    // Allocated at once: a full disk is an error here, and would be a signal later, in the mapped memory.
    int reason = 0;
#ifdef __linux__
    reason = posix_fallocate(file, 0, (off_t)size);
#else
    if (ftruncate(file, (off_t)size)) reason = errno;
#endif
    bytes = reason ? MAP_FAILED : mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (!reason && bytes == MAP_FAILED) reason = errno;
    close(file);
    errno = reason;
    if (bytes == MAP_FAILED) throw system_error(path);
  }
  block.bytes_ = static_cast<uint8_t*>(bytes);
  block.size_ = size;
  return block;
}

Block::Block(Block&& other) noexcept : bytes_(other.bytes_), size_(other.size_) { other.bytes_ = nullptr; }

Block::~Block() {
  if (bytes_) munmap(bytes_, size_);
}

std::unique_ptr<NgramModel> NgramModel::open(const std::string& path) {
  try {
    return std::make_unique<NgramModel>(Block::open(path));
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

NgramModel::NgramModel(Block block) : block_(std::move(block)) {
  const uint8_t* base = block_.bytes();
  header_ = reinterpret_cast<const NgramHeader*>(base);
  if (block_.size() < sizeof(kMagic) || std::memcmp(base, kMagic, sizeof(kMagic)) != 0)
    throw std::invalid_argument("not a language model of ours");
  if (block_.size() < sizeof(NgramHeader)) throw std::invalid_argument("ends within its header: is it truncated?");
  if (header_->version != kVersion)
    throw std::invalid_argument("of version " + std::to_string(header_->version) + ", and this program reads " +
                                std::to_string(kVersion) + ": make it again with asr lm");
  if (header_->check != header_check(*header_)) throw std::invalid_argument("its header is damaged");
  if (header_->size != block_.size())
    throw std::invalid_argument("has " + std::to_string(block_.size()) + " of its " + std::to_string(header_->size) +
                                " bytes: is it truncated?");
  unigrams_ = reinterpret_cast<const Unigram*>(base + header_->unigrams);
  for (uint32_t level = 2; level <= header_->order; level++) {
    levels_[level] = base + header_->levels[level];
    codes_[level] = reinterpret_cast<const float*>(base + header_->codes[level]);
  }
  labels_ = base + header_->labels;
  lexicon_ = base + header_->lexicon;
  best_ = reinterpret_cast<const float*>(base + header_->best);
}

// Ranges are cut to what is there, so that a file damaged in its middle gives wrong scores and no crash.

NgramModel::Range NgramModel::unigram_children(uint32_t word) const {
  if (header_->order < 2) return {0, 0};
  return {unigrams_[word].children, std::min<uint64_t>(unigrams_[word + 1].children, header_->counts[1])};
}

NgramModel::Range NgramModel::children(uint32_t level, uint64_t record) const {
  if (level >= header_->order) return {0, 0};
  const uint32_t width = header_->child_bits[level];
  const uint64_t stride = header_->record_bits[level];
  const uint64_t bit = record * stride + stride - width;
  return {read_bits(levels_[level], bit, width),
          std::min<uint64_t>(read_bits(levels_[level], bit + stride, width), header_->counts[level])};
}

bool NgramModel::find_record(uint32_t level, Range range, uint32_t word, uint64_t* record) const {
  const uint8_t* base = levels_[level];
  const uint64_t stride = header_->record_bits[level];
  const uint32_t width = header_->word_bits;
  uint64_t begin = range.begin, end = range.end;
  while (begin < end) {
    const uint64_t middle = (begin + end) / 2;
    const uint32_t found = read_bits(base, middle * stride, width);
    if (found == word) {
      *record = middle;
      return true;
    }
    if (found < word)
      begin = middle + 1;
    else
      end = middle;
  }
  return false;
}

float NgramModel::probability(uint32_t level, uint64_t record) const {
  const uint32_t code =
      read_bits(levels_[level], record * header_->record_bits[level] + header_->word_bits, header_->code_bits);
  float value;
  if (header_->code_bits < 32) return codes_[level][code];
  std::memcpy(&value, &code, 4);
  return value;
}

float NgramModel::backoff(uint32_t level, uint64_t record) const {
  const uint32_t bits = header_->code_bits;
  const uint32_t code =
      read_bits(levels_[level], record * header_->record_bits[level] + header_->word_bits + bits, bits);
  float value;
  if (bits < 32) return codes_[level][(1u << bits) + code];
  std::memcpy(&value, &code, 4);
  return value;
}

LmState NgramModel::begin() const {
  LmState state = {};
  if (header_->order > 1 && extends(unigrams_[kBegin].backoff)) {
    state.words[0] = kBegin;
    state.length = 1;
  }
  return state;
}

// The longest n-gram that the model has of word and history gives the probability; every longer history that the
// model has gives a back-off.
float NgramModel::score(const LmState& in, uint32_t word, LmState* out) const {
  if (word >= vocabulary()) word = kUnknown;
  const uint32_t order = header_->order;
  LmState state = {};
  float value = unigrams_[word].probability;
  uint32_t matched = 1, valued = 1, kept = 0;
  if (order > 1) {
    state.words[0] = word;
    kept = extends(unigrams_[word].backoff);
  }
  Range range = unigram_children(word);
  while (matched < order && matched <= in.length) {
    uint64_t record;
    const uint32_t before = in.words[matched - 1];
    if (!find_record(matched + 1, range, before, &record)) break;
    matched++;
    const float stored = probability(matched, record);
    if (stored == stored) {
      value = stored;
      valued = matched;
    }
    if (matched < order) {
      state.words[matched - 1] = before;
      if (extends(backoff(matched, record))) kept = matched;
      range = children(matched, record);
    }
  }
  if (valued <= in.length) {  // histories of `valued` words and more
    if (valued == 1) value += unigrams_[in.words[0]].backoff;
    range = unigram_children(in.words[0]);
    for (uint32_t length = 2; length <= in.length; length++) {
      uint64_t record;
      if (!find_record(length, range, in.words[length - 1], &record)) break;
      if (length >= valued) value += backoff(length, record);
      if (length < in.length) range = children(length, record);
    }
  }
  for (uint32_t i = kept; i < kMaxOrder - 1; i++) state.words[i] = 0;  // equal states compare equal
  state.length = (uint8_t)kept;
  *out = state;
  return value;
}

float NgramModel::score_end(const LmState& in) const {
  LmState out;
  return score(in, kEnd, &out);
}

uint32_t NgramModel::first_child(int32_t node) const {
  const uint64_t stride = header_->word_bits + header_->node_bits + header_->best_bits;
  return std::min<uint32_t>(read_bits(lexicon_, node * stride + header_->word_bits, header_->node_bits),
                            (uint32_t)header_->nodes);
}

int32_t NgramModel::child(int32_t node, uint8_t byte) const {
  const uint32_t end = first_child(node + 1);
  for (uint32_t i = first_child(node); i < end; i++)
    if (labels_[i] == byte) return (int32_t)i;
  return -1;
}

uint32_t NgramModel::word(int32_t node) const {
  const uint64_t stride = header_->word_bits + header_->node_bits + header_->best_bits;
  return read_bits(lexicon_, node * stride, header_->word_bits);
}

void NgramModel::pairs(const TellPair& tell) const {
  for (uint32_t word = 0; word < vocabulary(); ++word) {
    const Range range = unigram_children(word);
    for (uint64_t record = range.begin; record < range.end; ++record) {
      const uint32_t before = read_bits(levels_[2], record * header_->record_bits[2], header_->word_bits);
      const float stored = probability(2, record);
      if (stored == stored && before < vocabulary()) tell(before, word, stored, unigrams_[before].backoff + unigram(word));
    }
  }
}

float NgramModel::best_below(int32_t node, const LmState&) const {
  const uint64_t stride = header_->word_bits + header_->node_bits + header_->best_bits;
  const uint32_t code =
      read_bits(lexicon_, node * stride + header_->word_bits + header_->node_bits, header_->best_bits);
  float value;
  if (header_->best_bits < 32) return best_[code];
  std::memcpy(&value, &code, 4);
  return value;
}

double spellable(const NgramModel& model, const std::string& letters, std::string* missing) {
  std::set<std::string> known;
  for (size_t at = 0, end; (end = letters.find(' ', at)) != std::string::npos; at = end + 1)
    known.insert(letters.substr(at, end - at));
  struct Place {
    int32_t node;
    std::string letter, lacks;  // the letter's bytes so far; the first letter on the way that is not known
  };
  const auto length = [](uint8_t byte) { return byte < 0xC0 ? 1u : byte < 0xE0 ? 2u : byte < 0xF0 ? 3u : 4u; };
  std::map<std::string, double> lacking;
  double all = 0, spelled = 0;
  std::vector<Place> places = {{0, "", ""}};
  while (!places.empty()) {
    Place place = std::move(places.back());
    places.pop_back();
    if (!place.letter.empty() && place.letter.size() >= length((uint8_t)place.letter[0])) {
      if (place.lacks.empty() && !known.count(place.letter)) place.lacks = place.letter;
      place.letter.clear();
    }
    if (const uint32_t word = model.word(place.node)) {
      const double mass = std::exp((double)model.unigram(word));
      all += mass;
      (place.lacks.empty() ? spelled : lacking[place.lacks]) += mass;
    }
    const uint32_t end = model.first_child(place.node + 1);
    for (uint32_t child = model.first_child(place.node); child < end; child++)
      places.push_back({(int32_t)child, place.letter + (char)model.label((int32_t)child), place.lacks});
  }
  std::vector<std::pair<double, std::string>> most;
  for (const auto& [letter, mass] : lacking) most.push_back({-mass, letter});
  std::sort(most.begin(), most.end());
  missing->clear();
  for (size_t i = 0; i < most.size() && i < 10; i++) *missing += most[i].second;
  return all > 0 ? spelled / all : 1;
}

}  // namespace asr
