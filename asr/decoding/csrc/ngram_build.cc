#include "ngram_build.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

namespace asr {

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

uint32_t bits_for(uint64_t largest) {
  uint32_t bits = 1;
  while (largest >> bits) bits++;
  return bits;
}

int compare(const uint32_t* a, const uint32_t* b, int key) {
  for (int i = 0; i < key; i++)
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  return 0;
}

// The shorter n-grams, and a blank for every suffix of a longer one (order k) that is not among them.
std::unique_ptr<RowFile> with_blanks(const RowFile& shorter, const RowFile& longer, int k,
                                     const std::string& directory) {
  auto file = std::make_unique<RowFile>(directory, k - 1 + kNgramPayload);
  RowReader there(shorter);
  uint32_t blank[kMaxOrder + kNgramPayload] = {};
  bool made = false;
  for (RowReader needed(longer); needed.row(); needed.next()) {
    while (there.row() && compare(there.row(), needed.row(), k - 1) < 0) {
      file->push(there.row());
      there.next();
    }
    if (there.row() && compare(there.row(), needed.row(), k - 1) == 0) continue;
    if (made && compare(blank, needed.row(), k - 1) == 0) continue;
    std::memcpy(blank, needed.row(), 4 * (k - 1));
    blank[k - 1 + kProbability] = float_bits(kNaN);
    blank[k - 1 + kBackoff] = float_bits(0);
    file->push(blank);
    made = true;
  }
  for (; there.row(); there.next()) file->push(there.row());
  return file;
}

// At most `size` values that stand for all with little squared error: Lloyd's algorithm from equal shares.
std::vector<float> codebook(std::vector<float> values, size_t size) {
  std::sort(values.begin(), values.end());
  std::vector<float> centres(values);
  centres.erase(std::unique(centres.begin(), centres.end()), centres.end());
  if (centres.size() <= size) return centres;
  std::vector<double> sums(values.size() + 1, 0.0);
  for (size_t i = 0; i < values.size(); i++) sums[i + 1] = sums[i] + values[i];
  centres.clear();
  for (size_t i = 0; i < size; i++) {
    const size_t begin = i * values.size() / size, end = (i + 1) * values.size() / size;
    if (end > begin) centres.push_back((float)((sums[end] - sums[begin]) / (double)(end - begin)));
  }
  for (int round = 0; round < 20; round++) {
    std::vector<float> moved;
    size_t begin = 0;
    for (size_t i = 0; i < centres.size(); i++) {
      const auto limit = i + 1 < centres.size()
                             ? std::upper_bound(values.begin(), values.end(), (centres[i] + centres[i + 1]) / 2)
                             : values.end();
      const size_t end = (size_t)(limit - values.begin());
      if (end > begin) moved.push_back((float)((sums[end] - sums[begin]) / (double)(end - begin)));
      begin = std::max(begin, end);
    }
    centres = std::move(moved);
  }
  return centres;
}

uint32_t nearest(const std::vector<float>& codes, float value) {
  const auto above = std::lower_bound(codes.begin(), codes.end(), value);
  if (above == codes.begin()) return 0;
  if (above == codes.end()) return (uint32_t)codes.size() - 1;
  const auto below = above - 1;
  return (uint32_t)((value - *below < *above - value ? below : above) - codes.begin());
}

// The vocabulary as a trie, breadth first: a node is a range of the sorted words that share `depth` bytes.
struct Lexicon {
  std::vector<uint8_t> labels;
  std::vector<uint32_t> words, first_child;  // first_child has one more
  std::vector<float> best;
};

Lexicon make_lexicon(const std::vector<std::string>& words, const std::vector<Unigram>& unigrams) {
  struct Node {
    uint32_t begin, end, depth;
  };
  Lexicon lexicon;
  std::vector<Node> nodes = {{kFirstWord, (uint32_t)words.size(), 0}};
  lexicon.labels.push_back(0);
  for (size_t i = 0; i < nodes.size(); i++) {
    Node node = nodes[i];
    lexicon.first_child.push_back((uint32_t)nodes.size());
    const bool ends = node.begin < node.end && words[node.begin].size() == node.depth;
    lexicon.words.push_back(ends ? node.begin : kUnknown);
    lexicon.best.push_back(ends ? unigrams[node.begin].probability : -std::numeric_limits<float>::infinity());
    if (ends) node.begin++;
    while (node.begin < node.end) {
      const uint8_t label = (uint8_t)words[node.begin][node.depth];
      uint32_t end = node.begin + 1;
      while (end < node.end && (uint8_t)words[end][node.depth] == label) end++;
      nodes.push_back({node.begin, end, node.depth + 1});
      lexicon.labels.push_back(label);
      node.begin = end;
    }
  }
  lexicon.first_child.push_back((uint32_t)nodes.size());
  for (size_t i = nodes.size(); i-- > 0;)
    for (uint32_t child = lexicon.first_child[i]; child < lexicon.first_child[i + 1]; child++)
      lexicon.best[i] = std::max(lexicon.best[i], lexicon.best[child]);
  if (words.size() == kFirstWord) lexicon.best[0] = unigrams[kUnknown].probability;
  return lexicon;
}

bool is_blank(const uint32_t* row, int k) { return std::isnan(bits_float(row[k + kProbability])); }

// What the codes of one level stand for. Probabilities begin at code 1, after the blank; back-offs at code 2, after
// the mark of what begins nothing and a zero.
constexpr uint32_t kBlank = 0, kNothing = 0, kZero = 1;

struct Codes {
  std::vector<float> probabilities, backoffs;
};

Codes make_codes(const RowFile& file, int k, bool highest, int bits) {
  constexpr uint64_t kSamples = 1 << 21;
  const uint64_t step = file.rows() / kSamples + 1;
  Codes codes;
  uint64_t i = 0;
  for (RowReader reader(file); reader.row(); reader.next(), i++) {
    if (i % step) continue;
    if (is_blank(reader.row(), k)) continue;
    codes.probabilities.push_back(bits_float(reader.row()[k + kProbability]));
    const float backoff = bits_float(reader.row()[k + kBackoff]);
    if (!highest && backoff != 0) codes.backoffs.push_back(backoff);
  }
  const size_t size = (size_t)1 << bits;
  codes.probabilities = codebook(std::move(codes.probabilities), size - 1);
  codes.backoffs = codebook(std::move(codes.backoffs), size - 2);
  return codes;
}

std::string spell(const std::vector<std::string>& words, const uint32_t* key, int k) {
  std::string text;
  for (int i = k; i-- > 0;) text += words[key[i]] + (i ? " " : "");
  return text;
}

}  // namespace

class NgramBuilder {
 public:
  NgramBuilder(NgramParts parts, int bits) : parts_(std::move(parts)), bits_(bits) {
    order_ = std::max<int>(1, (int)parts_.levels.size() - 1);
  }

  NgramModel build(const std::string& path, const std::string& directory) {
    for (int k = order_; k > 2; k--)
      parts_.levels[k - 1] = with_blanks(*parts_.levels[k - 1], *parts_.levels[k], k, directory);
    lexicon_ = make_lexicon(parts_.words, parts_.unigrams);
    NgramHeader header = lay_out();
    Block block = Block::create(path, header.size);
    base_ = block.bytes();
    std::memcpy(base_, &header, sizeof(header));
    auto* unigrams = reinterpret_cast<Unigram*>(base_ + header.unigrams);
    std::copy(parts_.unigrams.begin(), parts_.unigrams.end(), unigrams);
    for (uint64_t word = 0; word < header.counts[0]; word++)
      if (unigrams[word].backoff == 0) unigrams[word].backoff = -0.0f;
    write_lexicon(header);
    NgramModel model(std::move(block));
    for (int k = 2; k <= order_; k++) write_level(header, k, unigrams);
    for (int k = 2; k <= order_; k++) mark(model, header, k, unigrams);
    return model;
  }

 private:
  NgramHeader lay_out() {
    NgramHeader header = {};
    uint64_t at = sizeof(NgramHeader);
    const auto section = [&at](uint64_t bytes) {
      const uint64_t begin = at;
      at += (bytes + 8 + 7) / 8 * 8;  // 8 more, for read_bits
      return begin;
    };
    header.order = (uint32_t)order_;
    header.counts[0] = parts_.words.size();
    header.word_bits = bits_for(parts_.words.size());
    header.code_bits = (uint32_t)bits_;
    header.unigrams = section((parts_.words.size() + 1) * sizeof(Unigram));
    for (int k = 2; k <= order_; k++) header.counts[k - 1] = parts_.levels[k]->rows();
    for (int k = 2; k <= order_; k++) {
      const bool highest = k == order_;
      if (header.counts[k - 1] >= std::numeric_limits<uint32_t>::max())
        throw std::runtime_error("more than 2^32 n-grams of one order: prune more");
      header.child_bits[k] = highest ? 0 : bits_for(header.counts[k]);
      header.record_bits[k] = header.word_bits + header.code_bits * (highest ? 1 : 2) + header.child_bits[k];
      header.levels[k] = section(((header.counts[k - 1] + 1) * header.record_bits[k] + 7) / 8);
      header.codes[k] = section(bits_ == 32 ? 0 : sizeof(float) * 2 << bits_);
    }
    header.nodes = lexicon_.labels.size();
    header.node_bits = bits_for(header.nodes);
    header.best_bits = bits_ == 32 ? 32 : 8;
    header.labels = section(header.nodes);
    const uint64_t stride = header.word_bits + header.node_bits + header.best_bits;
    header.lexicon = section(((header.nodes + 1) * stride + 7) / 8);
    header.best = section(bits_ == 32 ? 0 : sizeof(float) << 8);
    header.size = at;
    seal(&header);
    return header;
  }

  void write_lexicon(const NgramHeader& header) {
    std::copy(lexicon_.labels.begin(), lexicon_.labels.end(), base_ + header.labels);
    std::vector<float> codes;
    if (header.best_bits < 32) {
      codes = codebook(lexicon_.best, (size_t)1 << header.best_bits);
      codes.back() = lexicon_.best[0];  // the highest: nothing is above its code
      std::copy(codes.begin(), codes.end(), reinterpret_cast<float*>(base_ + header.best));
    }
    uint8_t* records = base_ + header.lexicon;
    uint64_t bit = 0;
    for (uint64_t node = 0; node <= header.nodes; node++) {
      const bool last = node == header.nodes;
      write_bits(records, bit, header.word_bits, last ? 0 : lexicon_.words[node]);
      bit += header.word_bits;
      write_bits(records, bit, header.node_bits, lexicon_.first_child[node]);
      bit += header.node_bits;
      const float best = last ? 0 : lexicon_.best[node];
      // Rounded up, since it is a bound.
      const auto code = std::min<size_t>(std::lower_bound(codes.begin(), codes.end(), best) - codes.begin(),
                                         codes.empty() ? 0 : codes.size() - 1);
      write_bits(records, bit, header.best_bits, codes.empty() ? float_bits(best) : (uint32_t)code);
      bit += header.best_bits;
    }
  }

  // The records of a level, and in the level above where the children of each record begin.
  void write_level(const NgramHeader& header, int k, Unigram* unigrams) {
    const RowFile& file = *parts_.levels[k];
    const bool highest = k == order_;
    Codes codes;
    if (bits_ < 32) {
      codes = make_codes(file, k, highest, bits_);
      auto* stored = reinterpret_cast<float*>(base_ + header.codes[k]);
      stored[kBlank] = kNaN;
      std::copy(codes.probabilities.begin(), codes.probabilities.end(), stored + 1);
      stored += (size_t)1 << bits_;
      stored[kNothing] = -0.0f;
      stored[kZero] = 0.0f;
      std::copy(codes.backoffs.begin(), codes.backoffs.end(), stored + 2);
    }
    const auto probability_code = [&](float value) {
      if (bits_ == 32) return float_bits(value);
      return std::isnan(value) ? kBlank : nearest(codes.probabilities, value) + 1;
    };
    const auto backoff_code = [&](float value) {
      if (bits_ == 32) return float_bits(value == 0 ? -0.0f : value);
      return value == 0 ? kNothing : nearest(codes.backoffs, value) + 2;
    };
    std::unique_ptr<RowReader> parents;
    if (k > 2) parents = std::make_unique<RowReader>(*parts_.levels[k - 1]);
    uint64_t parent = 0, record = 0;
    set_child(header, k - 1, 0, 0, unigrams);
    for (RowReader reader(file); reader.row(); reader.next(), record++) {
      const uint32_t* row = reader.row();
      while (k == 2 ? parent < row[0] : compare(parents->row(), row, k - 1) != 0) {
        set_child(header, k - 1, ++parent, record, unigrams);
        if (parents) parents->next();
      }
      uint8_t* base = base_ + header.levels[k];
      uint64_t bit = record * header.record_bits[k];
      write_bits(base, bit, header.word_bits, row[k - 1]);
      bit += header.word_bits;
      write_bits(base, bit, header.code_bits, probability_code(bits_float(row[k + kProbability])));
      bit += header.code_bits;
      if (!highest) write_bits(base, bit, header.code_bits, backoff_code(bits_float(row[k + kBackoff])));
    }
    while (parent < header.counts[k - 2]) set_child(header, k - 1, ++parent, record, unigrams);
  }

  void set_child(const NgramHeader& header, int k, uint64_t record, uint64_t child, Unigram* unigrams) {
    if (k == 1) {
      unigrams[record].children = (uint32_t)child;
    } else {
      const uint64_t bit = (record + 1) * header.record_bits[k] - header.child_bits[k];
      write_bits(base_ + header.levels[k], bit, header.child_bits[k], (uint32_t)child);
    }
  }

  // Which (k-1)-grams begin a k-gram: a back-off of zero was taken for the mark of those that begin none.
  void mark(const NgramModel& model, const NgramHeader& header, int k, Unigram* unigrams) {
    for (RowReader reader(*parts_.levels[k]); reader.row(); reader.next()) {
      const uint32_t* row = reader.row();
      if (is_blank(row, k)) continue;
      if (k == 2) {
        if (!extends(unigrams[row[1]].backoff)) unigrams[row[1]].backoff = 0.0f;
        continue;
      }
      uint64_t record;
      NgramModel::Range range = model.unigram_children(row[1]);
      for (int length = 2; length < k; length++) {
        const bool found = model.find_record(length, range, row[length], &record);
        if (!found || (length == k - 1 && std::isnan(model.probability(length, record))))
          throw NgramError{"'" + spell(parts_.words, row, k) + "' is there, and '" +
                               spell(parts_.words, row + 1, k - 1) + "', which begins it, is not",
                           row[k + kLine]};
        range = model.children(length, record);
      }
      if (extends(model.backoff(k - 1, record))) continue;
      const uint64_t bit = record * header.record_bits[k - 1] + header.word_bits + header.code_bits;
      write_bits(base_ + header.levels[k - 1], bit, header.code_bits, bits_ == 32 ? float_bits(0.0f) : kZero);
    }
  }

  NgramParts parts_;
  int bits_, order_;
  Lexicon lexicon_;
  uint8_t* base_ = nullptr;
};

std::unique_ptr<NgramModel> build_model(NgramParts parts, int bits, const std::string& path,
                                        const std::string& directory) {
  NgramBuilder builder(std::move(parts), bits);
  if (path.empty()) return std::make_unique<NgramModel>(builder.build(path, directory));
  const std::string partial = path + ".partial";
  try {
    builder.build(partial, directory);
  } catch (...) {
    unlink(partial.c_str());
    throw;
  }
  if (std::rename(partial.c_str(), path.c_str()))
    throw std::runtime_error(path + ": cannot be written: " + std::strerror(errno));
  return NgramModel::open(path);
}

}  // namespace asr
