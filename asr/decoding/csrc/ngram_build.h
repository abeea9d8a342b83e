// From sorted n-grams to an NgramModel, on a file or in memory. Knows not where the n-grams come from.

#ifndef ASR_NGRAM_BUILD_H_
#define ASR_NGRAM_BUILD_H_

#include <memory>
#include <string>
#include <vector>

#include "ngram.h"
#include "ngram_rows.h"

namespace asr {

// Numbers of a row after its key, which is the n-gram's words from the last to the first.
enum NgramRow { kProbability, kBackoff, kLine, kNgramPayload };  // natural logs as float_bits; line of the ARPA file

// An n-gram that makes no model; `words` as the row has them.
struct NgramError {
  std::string reason;
  uint32_t line;
};

struct NgramParts {
  std::vector<std::string> words;                // by id; from kFirstWord on in the order of their bytes
  std::vector<Unigram> unigrams;                 // by id; children are not looked at
  std::vector<std::unique_ptr<RowFile>> levels;  // [k] for k = 2..N, sorted; [0] and [1] are null
};

// `bits` of a probability or back-off: 2..16, or 32 for floats. Without a path the model is in memory, with one it is
// made there whole or not at all. `directory`: for temporary files.
std::unique_ptr<NgramModel> build_model(NgramParts parts, int bits, const std::string& path,
                                        const std::string& directory);

}  // namespace asr

#endif  // ASR_NGRAM_BUILD_H_
