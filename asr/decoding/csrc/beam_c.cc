// The beam's interface for ctypes. What returns a status gives 0, or 1 where memory ran out.
#include <atomic>
#include <new>
#include <thread>

#include "beam.h"

#define ASR_API extern "C" __attribute__((visibility("default")))

namespace {

struct Decoder {
  asr::Beam beam;
  asr::Words words;        // what was asked for last: the pointers given out lead here
  asr::Readings readings;
};

template <typename Work>
int guarded(const Work& work) noexcept {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

std::string slice(const char* text, const int64_t* offsets, int64_t index) {
  return {text + offsets[index], text + offsets[index + 1]};
}

int64_t give(Decoder* decoder, const asr::Word** words, const int32_t** tokens) {
  *words = decoder->words.words.data();
  *tokens = decoder->words.tokens.data();
  return static_cast<int64_t>(decoder->words.words.size());
}

}  // namespace

// text, offsets: the letters of the pieces, one after the other, and where each begins; null where memory ran out.
ASR_API Decoder* asr_beam_new(const char* text, const int64_t* offsets, const uint8_t* starts_word,
                              int64_t vocabulary, const asr::Options* options,
                              const asr::LanguageModel* model) {
  Decoder* made = nullptr;
  guarded([&] {
    auto pieces = std::make_shared<std::vector<asr::Piece>>();
    for (int64_t token = 0; token < vocabulary; ++token) {
      pieces->push_back({slice(text, offsets, token), starts_word[token] != 0});
    }
    made = new Decoder{{pieces, *options, model}, {}, {}};
  });
  return made;
}

ASR_API Decoder* asr_beam_copy(const Decoder* decoder) {
  Decoder* made = nullptr;
  guarded([&] { made = new Decoder(*decoder); });
  return made;
}

ASR_API void asr_beam_delete(Decoder* decoder) { delete decoder; }

ASR_API int asr_beam_reset(Decoder* decoder) {
  return guarded([&] { decoder->beam.reset(); });
}

ASR_API int asr_beam_set_hotwords(Decoder* decoder, const char* text, const int64_t* offsets,
                                  const double* boosts, int64_t count) {
  return guarded([&] {
    std::vector<asr::Hotword> hotwords;
    for (int64_t i = 0; i < count; ++i) hotwords.push_back({slice(text, offsets, i), boosts[i]});
    decoder->beam.set_hotwords(count ? std::make_shared<asr::Hotwords>(std::move(hotwords)) : nullptr);
  });
}

ASR_API int asr_beam_accept(Decoder* decoder, const float* log_probs, int64_t frames) {
  return guarded([&] { decoder->beam.accept(log_probs, frames); });
}

// log_probs (B, T, V): of each stream its first lengths[b] frames.
ASR_API int asr_beam_accept_batch(Decoder** decoders, const float* log_probs, const int64_t* lengths,
                                  int64_t batch, int64_t time, int64_t vocabulary, int threads) {
  std::atomic<int64_t> next{0};
  std::atomic<int> status{0};
  const auto work = [&] {
    for (int64_t b; (b = next++) < batch;) {
      if (asr_beam_accept(decoders[b], log_probs + b * time * vocabulary, lengths[b])) status = 1;
    }
  };
  std::vector<std::thread> others;
  guarded([&] {
    for (int i = 1; i < threads && i < batch; ++i) others.emplace_back(work);
  });
  work();
  for (std::thread& other : others) other.join();
  return status;
}

ASR_API int asr_beam_flush(Decoder* decoder) {
  return guarded([&] { decoder->beam.flush(); });
}

ASR_API int64_t asr_beam_trailing_blanks(const Decoder* decoder) { return decoder->beam.trailing_blanks(); }

ASR_API int64_t asr_beam_size(const Decoder* decoder) { return decoder->beam.size(); }

// These three give how many, or -1 where memory ran out.
ASR_API int64_t asr_beam_take(Decoder* decoder, const asr::Word** words, const int32_t** tokens) {
  if (guarded([&] { decoder->words = decoder->beam.take(); })) return -1;
  return give(decoder, words, tokens);
}

ASR_API int64_t asr_beam_tentative(Decoder* decoder, const asr::Word** words, const int32_t** tokens) {
  if (guarded([&] { decoder->words = decoder->beam.tentative(); })) return -1;
  return give(decoder, words, tokens);
}

ASR_API int64_t asr_beam_nbest(Decoder* decoder, int64_t count, const asr::Reading** readings,
                               const asr::Token** tokens) {
  if (guarded([&] { decoder->readings = decoder->beam.nbest(count); })) return -1;
  *readings = decoder->readings.readings.data();
  *tokens = decoder->readings.tokens.data();
  return static_cast<int64_t>(decoder->readings.readings.size());
}
