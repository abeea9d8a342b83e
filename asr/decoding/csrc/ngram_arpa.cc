#include "ngram_arpa.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <stdexcept>

namespace asr {

namespace {

constexpr double kLn10 = 2.302585092994045684;
constexpr float kMissingUnknown = -100;  // log10 of <unk> where the file has none: KenLM's

bool space(char c) { return c == ' ' || c == '\t'; }

struct Field {
  const char* begin;
  size_t size;
  std::string text() const { return std::string(begin, size); }
};

bool is(const Field& field, const char* text) {
  return field.size == std::strlen(text) && std::memcmp(field.begin, text, field.size) == 0;
}

// Decimal digits, since strtof is slow and follows the locale; false for what is no finite number.
bool parse(const Field& field, float* value) {
  const char *at = field.begin, *end = at + field.size;
  const bool negative = at < end && *at == '-';
  if (at < end && (*at == '-' || *at == '+')) at++;
  double number = 0;
  int digits = 0, exponent = 0;
  for (; at < end && *at >= '0' && *at <= '9'; at++, digits++) number = number * 10 + (*at - '0');
  if (at < end && *at == '.')
    for (at++; at < end && *at >= '0' && *at <= '9'; at++, digits++, exponent--) number = number * 10 + (*at - '0');
  if (!digits) return false;
  if (at < end && (*at == 'e' || *at == 'E')) {
    const bool down = ++at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+')) at++;
    int power = 0;
    if (at == end) return false;
    for (; at < end && *at >= '0' && *at <= '9'; at++) power = std::min(power * 10 + (*at - '0'), 10000);
    exponent += down ? -power : power;
  }
  if (at != end) return false;
  number *= std::pow(10.0, exponent);
  *value = (float)(negative ? -number : number);
  return std::isfinite(*value);
}

}  // namespace

ArpaReader::ArpaReader(std::string name, std::string directory, size_t memory)
    : name_(std::move(name)), directory_(std::move(directory)), memory_(memory) {}

void ArpaReader::fail(uint64_t line, const std::string& reason) const {
  throw std::runtime_error(name_ + ", line " + std::to_string(line) + ": " + reason);
}

size_t ArpaReader::feed(const char* text, size_t size) {
  const char *at = text, *end = text + size;
  while (at < end) {
    const auto* stop = static_cast<const char*>(std::memchr(at, '\n', (size_t)(end - at)));
    rest_.append(at, stop ? stop : end);
    if (!stop) return size;
    at = stop + 1;
    const std::string whole = std::move(rest_);
    rest_.clear();
    const bool first = order_ == 1;
    line(whole.data(), whole.size());
    if (first && (order_ != 1 || section_ == kAfter)) break;
  }
  return (size_t)(at - text);
}

void ArpaReader::line(const char* text, size_t size) {
  line_++;
  while (size && (space(text[size - 1]) || text[size - 1] == '\r')) size--;
  while (size && space(*text)) text++, size--;
  if (!size || section_ == kAfter) return;
  if (section_ == kBefore) {  // anything may stand before \data\, but not a megabyte of it
    if (std::string(text, size) == "\\data\\")
      section_ = kCounts;
    else if (line_ > 1000)
      fail(line_, "no \\data\\ so far: is this an ARPA file?");
  } else if (*text == '\\') {
    section_line(std::string(text, size));
  } else if (section_ == kCounts) {
    count_line(std::string(text, size));
  } else {
    ngram_line(text, size);
  }
}

void ArpaReader::count_line(const std::string& text) {
  unsigned order;
  unsigned long long count;
  char more;
  if (std::sscanf(text.c_str(), "ngram %u = %llu %c", &order, &count, &more) != 2)
    fail(line_, "expected 'ngram ORDER=COUNT', found '" + text.substr(0, 40) + "'");
  if (order != counts_.size() + 1) fail(line_, "expected the count of order " + std::to_string(counts_.size() + 1));
  if (order > kMaxOrder) fail(line_, "order " + std::to_string(order) + ": at most " + std::to_string(kMaxOrder));
  counts_.push_back(count);
}

void ArpaReader::section_line(const std::string& text) {
  if (section_ == kNgrams) end_section();
  if (section_ == kCounts && counts_.empty()) fail(line_, "no 'ngram 1=COUNT' in \\data\\");
  const bool all = order_ == (int)counts_.size();
  const std::string expected = all ? "\\end\\" : "\\" + std::to_string(order_ + 1) + "-grams:";
  if (text != expected) fail(line_, "expected " + expected + ", found '" + text.substr(0, 40) + "'");
  section_ = all ? kAfter : kNgrams;
  if (all) return;
  order_++;
  seen_ = 0;
  if (order_ == 1) return;
  parts_.levels.resize(order_ + 1);
  sorter_ = std::make_unique<RowSorter>(directory_, order_, order_ + kNgramPayload, memory_);
}

void ArpaReader::ngram_line(const char* text, size_t size) {
  const std::string of_section = " in \\" + std::to_string(order_) + "-grams:";
  Field fields[kMaxOrder + 3];
  int count = 0;
  for (const char *at = text, *end = text + size; at < end;) {
    const char* begin = at;
    while (at < end && !space(*at)) at++;
    if (count == kMaxOrder + 3) break;
    fields[count++] = {begin, (size_t)(at - begin)};
    while (at < end && space(*at)) at++;
  }
  const bool highest = order_ == (int)counts_.size();
  if (count != order_ + 1 && (highest || count != order_ + 2))
    fail(line_, "expected a probability, " + std::to_string(order_) + (order_ == 1 ? " word" : " words") +
                    (highest ? "" : " and perhaps a back-off") + ", found '" + std::string(text, std::min<size_t>(size, 60)) + "'");
  float probability, backoff = 0;
  if (!parse(fields[0], &probability)) fail(line_, "'" + fields[0].text() + "' is no log-probability");
  if (probability > 0) fail(line_, "'" + fields[0].text() + "' is above 0, and no log-probability");
  if (count == order_ + 2 && !parse(fields[order_ + 1], &backoff))
    fail(line_, "'" + fields[order_ + 1].text() + "' is no back-off");
  if (seen_++ == counts_[order_ - 1])
    fail(line_, "more than the " + std::to_string(counts_[order_ - 1]) + " n-grams that the header tells" + of_section);
  probability = (float)(probability * kLn10), backoff = (float)(backoff * kLn10);
  if (order_ == 1) {
    std::string word = is(fields[1], "<UNK>") ? "<unk>" : fields[1].text();
    if (!index_.emplace(word, (uint32_t)words_.size()).second) fail(line_, "'" + word + "' is there twice" + of_section);
    words_.push_back(std::move(word));
    lines_.push_back((uint32_t)line_);
    read_.push_back({probability, backoff, 0});
    return;
  }
  if (parts_.words.empty()) number_words();
  uint32_t row[kMaxOrder + kNgramPayload];
  std::string word;
  for (int i = 0; i < order_; i++) {
    word.assign(fields[i + 1].begin, fields[i + 1].size);
    if (word == "<UNK>") word = "<unk>";
    const auto found = index_.find(word);
    if (found == index_.end()) fail(line_, "'" + word + "' is not among the 1-grams");
    row[order_ - 1 - i] = found->second;
  }
  row[order_ + kProbability] = float_bits(probability);
  row[order_ + kBackoff] = float_bits(backoff);
  row[order_ + kLine] = (uint32_t)line_;
  sorter_->push(row);
}

void ArpaReader::end_section() {
  if (seen_ != counts_[order_ - 1])
    fail(line_, "\\" + std::to_string(order_) + "-grams: has " + std::to_string(seen_) + " n-grams, and the header tells " +
                    std::to_string(counts_[order_ - 1]));
  if (order_ == 1) {
    for (const char* word : {"<s>", "</s>"})
      if (!index_.count(word)) fail(line_, std::string("no ") + word + " among the 1-grams");
    return;
  }
  auto file = std::make_unique<RowFile>(directory_, order_ + kNgramPayload);
  std::vector<uint32_t> last;
  for (sorter_->finish(); sorter_->row(); sorter_->next()) {
    const uint32_t* row = sorter_->row();
    if (!last.empty() && std::equal(row, row + order_, last.begin()))
      fail(std::max(row[order_ + kLine], last[order_ + kLine]),
           "this n-gram is there twice, also in line " + std::to_string(std::min(row[order_ + kLine], last[order_ + kLine])));
    last.assign(row, row + order_ + kNgramPayload);
    file->push(row);
  }
  parts_.levels[order_] = std::move(file);
  sorter_.reset();
}

// Word ids in the order of bytes, after those that every model has.
void ArpaReader::number_words() {
  const std::vector<std::string> first = {"<unk>", "<s>", "</s>"};
  const auto rank = [&](const std::string& word) { return std::find(first.begin(), first.end(), word) - first.begin(); };
  if (!index_.count("<unk>")) {
    words_.push_back("<unk>");
    read_.push_back({(float)(kMissingUnknown * kLn10), 0, 0});
    lines_.push_back(0);
  }
  std::vector<uint32_t> order(words_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const auto rank_a = rank(words_[a]), rank_b = rank(words_[b]);
    return rank_a != rank_b ? rank_a < rank_b : words_[a] < words_[b];
  });
  std::vector<uint32_t> ids(order.size());
  for (uint32_t id = 0; id < order.size(); id++) {
    const uint32_t read = order[id];
    if (id && words_[read] == parts_.words.back())
      fail(lines_[read], "'" + words_[read] + "' is the spelling of another word too");
    ids[read] = id;
    parts_.words.push_back(words_[read]);
    parts_.unigrams.push_back(read_[read]);
  }
  for (auto& entry : index_) entry.second = ids[entry.second];
}

std::unique_ptr<NgramModel> ArpaReader::finish(int bits, const std::string& path) {
  if (!rest_.empty()) {
    const std::string whole = std::move(rest_);
    line(whole.data(), whole.size());
  }
  if (section_ != kAfter) {
    const char* missing = section_ == kBefore ? "no \\data\\ in it: is this an ARPA file?" : "it ends before \\end\\: is it truncated?";
    fail(line_, missing);
  }
  if (parts_.words.empty()) number_words();
  parts_.unigrams.push_back({});
  try {
    return build_model(std::move(parts_), bits, path, directory_);
  } catch (const NgramError& error) {
    fail(error.line, error.reason);
  }
}

}  // namespace asr
