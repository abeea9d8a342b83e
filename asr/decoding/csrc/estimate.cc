#include "estimate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace asr {

namespace {

constexpr uint32_t kSentence = 0xffffffff;   // closes a sentence in the text
constexpr uint64_t kStep = 1 << 18;          // rows between two words on the progress
constexpr float kBeginProbability = -99;     // log10 of <s>, which is never predicted
constexpr double kLn10 = 2.302585092994045684;
constexpr std::array<double, 4> kFallback = {0, 0.5, 1, 1.5};  // discounts of texts that are too small: lmplz's
constexpr double kElsewhere = 0.15;  // of the unigrams, that they are as in other text

enum CountRow { kRaw, kAdjusted, kCountPayload };                     // of counts_
enum EstimateRow { kValue, kLower, kKept, kEstimatePayload };         // of estimates_
enum HistoryRow { kWeight, kSeen, kContinues, kHistoryPayload };      // of histories_

int compare(const uint32_t* a, const uint32_t* b, int key) {
  for (int i = 0; i < key; i++)
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  return 0;
}

// A key in suffix order has the words from the last to the first; in history order the last word comes after them.
void to_history_order(uint32_t* key, int k) { std::rotate(key, key + 1, key + k); }
void to_suffix_order(uint32_t* key, int k) { std::rotate(key, key + k - 1, key + k); }

// Moves a reader of sorted rows to the key, or to where it would be; whether it is there.
bool seek(RowReader* reader, const uint32_t* wanted, int key) {
  while (reader->row() && compare(reader->row(), wanted, key) < 0) reader->next();
  return reader->row() && compare(reader->row(), wanted, key) == 0;
}

}  // namespace

Estimator::Estimator(int order, size_t memory, std::string directory, Progress progress)
    : order_(order), memory_(memory), directory_(std::move(directory)), progress_(std::move(progress)) {
  text_ = new_file(1);
}

void Estimator::step(uint64_t done, uint64_t all) {
  if (done % kStep == 0) progress_(phase_, done, all);
}

void Estimator::feed(const char* text, size_t size) {
  std::string word;
  bool any = false;
  for (const char *at = text, *end = text + size; at < end;) {
    const char* begin = at;
    while (at < end && *at != ' ' && *at != '\n') at++;
    if (at > begin) {
      word.assign(begin, at);
      const auto [place, is_new] = index_.emplace(word, (uint32_t)seen_.size());
      if (is_new) {
        if (word == "<s>" || word == "</s>")
          throw std::runtime_error("the text has the word " + word + ", which stands for the ends of sentences");
        seen_.push_back(0);
      }
      seen_[place->second]++;
      total_++;
      text_->push(&place->second);
      any = true;
    }
    if (any && (at == end || *at == '\n')) {
      text_->push(&kSentence);
      any = false;
    }
    at++;
  }
}

void Estimator::estimate(const Pruning& pruning, uint64_t most, const std::vector<std::string>& only,
                         const Counts& elsewhere) {
  choose_vocabulary(pruning.counts[0], most, only);
  count_ngrams();
  set_discounts();
  estimates_.resize(order_ + 1);
  histories_.resize(order_ + 1);
  phase_ = "estimating";
  estimate_unigrams(elsewhere);
  for (int k = 2; k <= order_; k++) estimate_order(k, pruning, nullptr);
  if (pruning.entropy > 0 && order_ > 1) {
    Files kept(order_ + 1);
    phase_ = "pruning";
    prune(pruning.entropy, &kept);
    phase_ = "estimating again";
    adjust(kept);
    set_discounts();
    estimate_unigrams(elsewhere);
    for (int k = 2; k <= order_; k++) estimate_order(k, pruning, kept[k].get());
  }
  counts_.clear();
  collect();
}

// Ids in the order of bytes after those that every model has; the text in them.
void Estimator::choose_vocabulary(uint64_t least, uint64_t most, const std::vector<std::string>& only) {
  struct Word {
    std::string text;
    uint64_t seen;
    uint32_t place;
  };
  constexpr uint32_t kNowhere = 0xffffffff;
  std::vector<Word> words;
  if (only.empty()) {
    for (const auto& [text, place] : index_) words.push_back({text, seen_[place], place});
  } else {
    for (const std::string& text : only) {
      const auto found = index_.find(text);
      if (found == index_.end())
        words.push_back({text, 0, kNowhere});
      else
        words.push_back({text, seen_[found->second], found->second});
    }
  }
  const auto dropped = [&](const Word& word) {
    return word.text == "<unk>" || word.text == "<s>" || word.text == "</s>" || (least && word.seen <= least);
  };
  words.erase(std::remove_if(words.begin(), words.end(), dropped), words.end());
  if (most && most < words.size()) {
    std::sort(words.begin(), words.end(), [](const Word& a, const Word& b) {
      return a.seen != b.seen ? a.seen > b.seen : a.text < b.text;
    });
    words.resize(most);
  }
  std::sort(words.begin(), words.end(), [](const Word& a, const Word& b) { return a.text < b.text; });
  words.erase(std::unique(words.begin(), words.end(), [](const Word& a, const Word& b) { return a.text == b.text; }),
              words.end());
  parts_.words = {"<unk>", "<s>", "</s>"};
  std::vector<uint32_t> ids(seen_.size(), kUnknown);
  uint64_t kept = 0;
  for (Word& word : words) {
    if (word.place != kNowhere) ids[word.place] = (uint32_t)parts_.words.size();
    kept += word.seen;
    parts_.words.push_back(std::move(word.text));
  }
  cut_ = total_ - kept;
  std::unordered_map<std::string, uint32_t>().swap(index_);
  seen_ = {};
  File text = new_file(1);
  for (RowReader reader(*text_); reader.row(); reader.next()) {
    const uint32_t id = *reader.row() == kSentence ? kEnd : ids[*reader.row()];
    text->push(&id);
  }
  text_ = std::move(text);
  events_ = text_->rows();
}

// Every n-gram of the highest order in suffix order, before a sentence's begin all <s>: shorter ones are the prefixes
// of these keys. A key with <s> at place i is an n-gram of order i + 1 at most.
void Estimator::count_ngrams() {
  phase_ = "counting";
  const int n = order_;
  RowSorter sorter(directory_, n, n + 1, memory_, true);
  uint32_t row[kMaxOrder + 1];
  const auto begin = [&] { std::fill(row, row + n, kBegin); };
  begin();
  row[n] = 1;
  uint64_t done = 0;
  for (RowReader reader(*text_); reader.row(); reader.next(), done++) {
    step(done, text_->rows());
    std::memmove(row + 1, row, 4 * (n - 1));
    row[0] = *reader.row();
    sorter.push(row);
    if (row[0] == kEnd) begin();
  }
  text_.reset();
  phase_ = "sorting";
  progress_(phase_, 0, 0);
  sorter.finish();

  phase_ = "adjusting";
  unigram_counts_.assign(parts_.words.size(), 0);
  counts_.resize(n + 1);
  for (int k = 2; k <= n; k++) counts_[k] = new_file(k + kCountPayload);
  uint32_t last[kMaxOrder] = {};
  uint64_t raw[kMaxOrder + 1] = {}, different[kMaxOrder + 1] = {};
  bool any = false;
  const auto flush = [&](int shared) {  // n-grams of more than `shared` words end here
    int longest = n;
    for (int i = 0; i < n; i++)
      if (last[i] == kBegin) {
        longest = std::min(n, i + 1);
        break;
      }
    for (int k = n; k > shared; k--) {
      if (k <= longest && any) {
        const uint64_t adjusted = k == n || last[k - 1] == kBegin ? raw[k] : different[k];
        if (k == 1) {
          unigram_counts_[last[0]] = adjusted;
        } else {
          uint32_t counted[kMaxOrder + kCountPayload];
          std::memcpy(counted, last, 4 * k);
          if (raw[k] > 0xffffffffu) throw std::runtime_error("an n-gram is there more than 2^32 times");
          counted[k + kRaw] = (uint32_t)raw[k];
          counted[k + kAdjusted] = (uint32_t)adjusted;
          counts_[k]->push(counted);
        }
      }
      raw[k] = different[k] = 0;
    }
  };
  done = 0;
  for (; sorter.row(); sorter.next()) {
    step(done++, 0);
    const uint32_t* key = sorter.row();
    int shared = 0;
    while (any && shared < n && key[shared] == last[shared]) shared++;
    flush(shared);
    std::memcpy(last, key, 4 * n);
    any = true;
    for (int k = 1; k <= n; k++) raw[k] += key[n];
    for (int k = std::max(shared, 1); k < n; k++) different[k]++;
  }
  flush(0);
}

// c anew where only the n-grams of `kept` are in the model.
void Estimator::adjust(const Files& kept) {
  for (int k = order_; k >= 2; k--) {
    RowReader children(*counts_[k]), keys(*kept[k]);
    const auto gather = [&](const uint32_t* key, uint64_t* sum) {
      for (; children.row() && compare(children.row(), key, k - 1) == 0; children.next())
        *sum += seek(&keys, children.row(), k) ? 1 : children.row()[k + kAdjusted];
    };
    if (k == 2) {
      for (uint32_t word = 0; word < unigram_counts_.size(); word++) {
        uint64_t sum = 0;
        gather(&word, &sum);
        unigram_counts_[word] = sum;
      }
      continue;
    }
    File file = new_file(k - 1 + kCountPayload);
    for (RowReader parents(*counts_[k - 1]); parents.row(); parents.next()) {
      uint32_t row[kMaxOrder + kCountPayload];
      std::memcpy(row, parents.row(), 4 * (k - 1 + kCountPayload));
      uint64_t sum = 0;
      gather(row, &sum);
      row[k - 1 + kAdjusted] = row[k - 2] == kBegin ? row[k - 1 + kRaw] : (uint32_t)sum;
      file->push(row);
    }
    counts_[k - 1] = std::move(file);
  }
}

// D of each order from n_i, the number of n-grams with c = i: D_i = i - (i + 1) Y n_{i+1} / n_i, Y = n_1 / (n_1 + 2 n_2).
void Estimator::set_discounts() {
  for (int k = 1; k <= order_; k++) {
    double n[5] = {};
    const auto add = [&n](uint64_t count) {
      if (count <= 4) n[count]++;
    };
    if (k == 1) {
      for (uint64_t count : unigram_counts_) add(count);
    } else {
      for (RowReader reader(*counts_[k]); reader.row(); reader.next()) add(reader.row()[k + kAdjusted]);
    }
    fell_back_[k] = false;
    for (int i = 1; i <= 3; i++) {
      const double value = i - (i + 1) * n[1] / (n[1] + 2 * n[2]) * n[i + 1] / n[i];
      if (!(value > 0 && value <= i)) fell_back_[k] = true;  // nor where it is not a number
      discounts_[k][i] = value;
    }
    if (fell_back_[k]) discounts_[k] = kFallback;
  }
}

void Estimator::estimate_unigrams(const Counts& elsewhere) {
  double sum = 0, weight = 0;
  for (uint64_t count : unigram_counts_) {
    sum += (double)count;
    weight += discount(1, count);
  }
  std::vector<double> listed(parts_.words.size(), 0);
  double all = 0;
  for (size_t word = 0; word < listed.size(); word++) {
    const auto found = elsewhere.find(parts_.words[word]);
    if (found != elsewhere.end()) all += listed[word] = found->second;
  }
  if (!elsewhere.empty() && !(all > 0))
    throw std::runtime_error("none of the words whose frequencies are given is in the vocabulary");
  const double uniform = weight / sum / (double)(parts_.words.size() - 1);  // <s> is never predicted
  unigrams_.resize(parts_.words.size());
  for (size_t word = 0; word < unigrams_.size(); word++) {
    const double own = ((double)unigram_counts_[word] - discount(1, unigram_counts_[word])) / sum + uniform;
    unigrams_[word] = all > 0 ? (1 - kElsewhere) * own + kElsewhere * listed[word] / all : own;
  }
}

// histories_[k - 1] and estimates_[k] from counts_[k] and the estimates one order below. Without `kept`, pruning by
// count tells what is in the model.
void Estimator::estimate_order(int k, const Pruning& pruning, const RowFile* kept) {
  const uint64_t all = 2 * counts_[k]->rows();
  uint64_t done = 0;
  RowSorter by_history(directory_, k, k + 3, memory_ / 2);
  {
    std::unique_ptr<RowReader> keys;
    if (kept) keys = std::make_unique<RowReader>(*kept);
    for (RowReader reader(*counts_[k]); reader.row(); reader.next()) {
      step(done++, all);
      uint32_t row[kMaxOrder + 3];
      std::memcpy(row, reader.row(), 4 * (k + kCountPayload));
      row[k + 2] = keys ? seek(keys.get(), row, k) : row[k + kRaw] > pruning.counts[k - 1];
      to_history_order(row, k);
      by_history.push(row);
    }
  }
  by_history.finish();

  // A dropped n-gram that is a suffix of one that is kept is needed for its P(w | h).
  const bool bridges = kept && k < order_;
  File histories = new_file(k - 1 + kHistoryPayload);
  RowSorter by_suffix(directory_, k, k + kEstimatePayload, memory_ / 2);
  std::vector<uint32_t> group;
  const int width = k + 3;
  while (by_history.row()) {
    group.clear();
    double sum = 0, weight = 0;
    uint64_t seen = 0;
    bool continues = false;
    do {
      const uint32_t* row = by_history.row();
      const uint32_t count = row[k + kAdjusted];
      group.insert(group.end(), row, row + width);
      sum += count;
      seen += row[k + kRaw];
      weight += row[k + 2] ? discount(k, count) : count;
      continues |= row[k + 2] != 0;
      by_history.next();
      step(done++, all);
    } while (by_history.row() && compare(by_history.row(), group.data(), k - 1) == 0);
    weight /= sum;
    uint32_t history[kMaxOrder + kHistoryPayload];
    std::memcpy(history, group.data(), 4 * (k - 1));
    history[k - 1 + kWeight] = float_bits((float)weight);
    history[k - 1 + kSeen] = (uint32_t)std::min<uint64_t>(seen, 0xffffffffu);
    history[k - 1 + kContinues] = continues;
    histories->push(history);
    for (size_t i = 0; i < group.size(); i += width) {
      uint32_t* row = &group[i];
      const bool in_model = row[k + 2] != 0;
      if (!in_model && !bridges) continue;
      const double count = row[k + kAdjusted];
      const double value = in_model ? (count - discount(k, row[k + kAdjusted])) / sum : 0;
      to_suffix_order(row, k);
      row[k + kValue] = float_bits((float)value);
      row[k + kLower] = float_bits((float)weight);  // for the moment
      row[k + kKept] = in_model;
      by_suffix.push(row);
    }
  }
  histories_[k - 1] = std::move(histories);
  by_suffix.finish();

  File estimates = new_file(k + kEstimatePayload);
  std::unique_ptr<RowReader> below;
  if (k > 2) below = std::make_unique<RowReader>(*estimates_[k - 1]);
  for (; by_suffix.row(); by_suffix.next()) {
    uint32_t row[kMaxOrder + kEstimatePayload];
    std::memcpy(row, by_suffix.row(), 4 * (k + kEstimatePayload));
    if (below && !seek(below.get(), row, k - 1)) throw std::logic_error("an n-gram without its suffix");
    const double lower = below ? bits_float(below->row()[k - 1 + kValue]) : unigrams_[row[0]];
    const double value = bits_float(row[k + kValue]) + bits_float(row[k + kLower]) * lower;
    row[k + kValue] = float_bits((float)value);
    row[k + kLower] = float_bits((float)lower);
    estimates->push(row);
  }
  estimates_[k] = std::move(estimates);
}

void Estimator::prune(double threshold, Files* kept) {
  File histories;  // of the n-grams that are kept one order above: those stay
  for (int k = order_; k >= 2; k--) {
    const File longer = std::move(histories);
    (*kept)[k] = prune_order(k, threshold, longer.get(), &histories);
  }
}

// The keys of the n-grams of order k that stay, in suffix order, and in `histories` their histories.
//
// Without h w, the back-off weight of h is a' = (1 - sum p + p(w | h)) / (1 - sum p' + p(w | h')), and the model moves by
//   P(h) (p(w | h) (ln p(w | h) - ln p(w | h') - ln a') + (1 - sum p) (ln a - ln a')),
// the sums over the words that follow h in the model (Stolcke 1998, equations 4 to 7).
Estimator::File Estimator::prune_order(int k, double threshold, const RowFile* longer, File* histories) {
  const uint64_t all = 2 * estimates_[k]->rows();
  uint64_t done = 0;
  RowSorter by_history(directory_, k, k + 3, memory_ / 2);
  std::unique_ptr<RowReader> begun;
  if (longer) begun = std::make_unique<RowReader>(*longer);
  for (RowReader reader(*estimates_[k]); reader.row(); reader.next()) {
    step(done++, all);
    uint32_t row[kMaxOrder + 3];
    std::memcpy(row, reader.row(), 4 * (k + kEstimatePayload));
    row[k + kKept] = begun && seek(begun.get(), row, k);
    to_history_order(row, k);
    by_history.push(row);
  }
  by_history.finish();

  *histories = new_file(k - 1);
  RowSorter kept(directory_, k, k, memory_ / 2);
  RowReader weights(*histories_[k - 1]);
  std::vector<uint32_t> group;
  const int width = k + 3;
  while (by_history.row()) {
    group.clear();
    double rest = 1, lower_rest = 1;
    do {
      const uint32_t* row = by_history.row();
      group.insert(group.end(), row, row + width);
      rest -= bits_float(row[k + kValue]);
      lower_rest -= bits_float(row[k + kLower]);
      by_history.next();
      step(done++, all);
    } while (by_history.row() && compare(by_history.row(), group.data(), k - 1) == 0);
    rest = std::max(rest, 1e-9), lower_rest = std::max(lower_rest, 1e-9);
    if (!seek(&weights, group.data(), k - 1)) throw std::logic_error("n-grams without their history");
    const double history = (double)weights.row()[k - 1 + kSeen] / (double)events_;
    const double weight = std::log(rest / lower_rest);
    bool any = false;
    for (size_t i = 0; i < group.size(); i += width) {
      uint32_t* row = &group[i];
      const double p = bits_float(row[k + kValue]), lower = bits_float(row[k + kLower]);
      const double without = std::log((rest + p) / (lower_rest + lower));
      const double moved = history * (p * (std::log(p) - std::log(lower) - without) + rest * (weight - without));
      if (!row[k + kKept] && std::expm1(moved) < threshold) continue;
      if (!any) (*histories)->push(row);
      any = true;
      to_suffix_order(row, k);
      kept.push(row);
    }
  }
  File keys = new_file(k);
  for (kept.finish(); kept.row(); kept.next()) keys->push(kept.row());
  return keys;
}

// The model as rows of NgramRow, and unigrams.
void Estimator::collect() {
  phase_ = "collecting";
  progress_(phase_, 0, 0);
  for (double value : unigrams_) parts_.unigrams.push_back({(float)std::log(value), 0, 0});
  parts_.unigrams[kBegin].probability = (float)(kBeginProbability * kLn10);
  parts_.unigrams.push_back({});
  if (order_ == 1) return;
  for (RowReader reader(*histories_[1]); reader.row(); reader.next())
    if (reader.row()[1 + kContinues])
      parts_.unigrams[reader.row()[0]].backoff = std::log(bits_float(reader.row()[1 + kWeight]));
  parts_.levels.resize(order_ + 1);
  for (int k = 2; k <= order_; k++) {
    File level = new_file(k + kNgramPayload);
    std::unique_ptr<RowReader> weights;
    if (k < order_) weights = std::make_unique<RowReader>(*histories_[k]);
    for (RowReader reader(*estimates_[k]); reader.row(); reader.next()) {
      if (!reader.row()[k + kKept]) continue;
      uint32_t row[kMaxOrder + kNgramPayload];
      std::memcpy(row, reader.row(), 4 * k);
      float backoff = 0;
      if (weights && seek(weights.get(), row, k) && weights->row()[k + kContinues])
        backoff = std::log(bits_float(weights->row()[k + kWeight]));
      row[k + kProbability] = float_bits(std::min(0.0f, std::log(bits_float(reader.row()[k + kValue]))));
      row[k + kBackoff] = float_bits(backoff);
      row[k + kLine] = 0;
      level->push(row);
    }
    parts_.levels[k] = std::move(level);
    estimates_[k].reset();
  }
  histories_.clear();
}

uint64_t Estimator::count(int k) const { return k == 1 ? parts_.words.size() : parts_.levels[k]->rows(); }

void Estimator::write_arpa(const Write& write) const {
  std::string text = "\\data\\\n";
  for (int k = 1; k <= order_; k++) text += "ngram " + std::to_string(k) + "=" + std::to_string(count(k)) + "\n";
  char number[32];
  const auto add = [&](float value, const char* format) {
    std::snprintf(number, sizeof(number), format, value / kLn10);
    text += number;
  };
  const auto end_line = [&] {
    text += '\n';
    if (text.size() < (1 << 20)) return;
    write(text.data(), text.size());
    text.clear();
  };
  for (int k = 1; k <= order_; k++) {
    text += "\n\\" + std::to_string(k) + "-grams:\n";
    if (k == 1) {
      for (size_t word = 0; word < parts_.words.size(); word++) {
        add(parts_.unigrams[word].probability, "%.7g\t");
        text += parts_.words[word];
        if (order_ > 1) add(parts_.unigrams[word].backoff, "\t%.7g");
        end_line();
      }
      continue;
    }
    for (RowReader reader(*parts_.levels[k]); reader.row(); reader.next()) {
      const uint32_t* row = reader.row();
      add(bits_float(row[k + kProbability]), "%.7g");
      for (int i = k; i-- > 0;) {
        text += i == k - 1 ? '\t' : ' ';
        text += parts_.words[row[i]];
      }
      if (k < order_) add(bits_float(row[k + kBackoff]), "\t%.7g");
      end_line();
    }
  }
  text += "\n\\end\\\n";
  write(text.data(), text.size());
}

std::unique_ptr<NgramModel> Estimator::build(int bits, const std::string& path) {
  return build_model(std::move(parts_), bits, path, directory_);
}

}  // namespace asr
