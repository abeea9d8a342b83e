"""Words of a known text are where torchaudio's alignment has their tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchaudio.functional import forced_align, merge_tokens

from asr.align.emissions import emissions
from asr.align.forced import Spelling, Timing, align, spell
from asr.bundle import load_bundle
from asr.errors import UserError
from asr.model import CtcModel
from asr.text import Tokenizer

TEXT = "the lazy dog jumps"


def path_of(tokens: list[int], vocabulary: int) -> NDArray[np.float32]:
    """Log-probabilities (T, V) in which `tokens`, one a frame, are all but certain."""
    log_probs = np.full((len(tokens), vocabulary), -20.0, np.float32)
    log_probs[np.arange(len(tokens)), tokens] = 0.0
    return log_probs


def test_word_times_are_those_of_torchaudios_spans(bundle: Path, audio: NDArray[np.float32]) -> None:
    loaded = load_bundle(bundle)
    model, tokenizer = loaded.model, loaded.tokenizer
    with torch.inference_mode():
        log_probs, _ = model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    path, scores = forced_align(log_probs, torch.tensor([tokenizer.encode(TEXT)]), blank=0)
    spans = merge_tokens(path[0], scores[0])
    expected, position = [], 0
    for word in TEXT.split():
        last = position + len(tokenizer.encode(word)) - 1
        expected.append((word, spans[position].start * 0.04, spans[last].end * 0.04))
        position = last + 1
    found = align(emissions(model, [audio]), spell(TEXT, tokenizer), Timing(model.frame_seconds))
    assert [word.text for word in found] == TEXT.split()
    for word, (_, start, end) in zip(found, expected, strict=True):
        assert (word.start, word.end) == pytest.approx((start, end))
        assert 0 < word.confidence <= 1


def test_pieces_of_audio_give_the_offline_log_probs(model: CtcModel, audio: NDArray[np.float32]) -> None:
    with torch.inference_mode():
        offline, frames = model.offline(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
    pieces = np.split(audio, [1, 700, 5000, 5001])
    found = emissions(model, pieces)
    assert len(found) == frames[0]
    np.testing.assert_allclose(found, offline[0].numpy(), atol=1e-4, rtol=0)


def test_no_audio_has_no_frames(model: CtcModel) -> None:
    assert emissions(model, []).shape == (0, model.config.vocabulary)


def test_offsets_move_words_but_not_out_of_the_recording_nor_into_each_other() -> None:
    words = [Spelling("a", ((2,),)), Spelling("b", ((3,),))]
    log_probs = path_of([2, 0, 3, 0], 4)

    def times(timing: Timing) -> list[float]:
        return [time for word in align(log_probs, words, timing) for time in (word.start, word.end)]

    assert times(Timing(0.1)) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert times(Timing(0.1, start_offset=-0.15, end_offset=0.2)) == pytest.approx([0, 0.3, 0.3, 0.4])


def test_the_confidence_is_the_mean_probability_of_the_tokens() -> None:
    probabilities = np.array([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], np.float32)
    (word,) = align(np.log(probabilities), [Spelling("ab", ((1, 2),))], Timing(0.1))
    assert word.confidence == pytest.approx(0.5)


def test_a_text_without_words_has_no_times() -> None:
    assert align(path_of([0, 0], 4), [], Timing(0.1)) == []


def test_a_text_that_is_too_long_for_the_audio_is_one_clear_line() -> None:
    repeated = [Spelling("aa", ((2, 2),))]  # needs a blank between the two
    with pytest.raises(UserError, match=r"too long for the audio: its 2 tokens need 3 frames.* 2;") as caught:
        align(path_of([2, 2], 4), repeated, Timing(0.1))
    assert "\n" not in str(caught.value)
    assert align(path_of([2, 0, 2], 4), repeated, Timing(0.1))[0].end == pytest.approx(0.3)


def test_a_word_is_where_it_was_said_in_another_way() -> None:
    """The times are those of the way in which it was said, not of the lexicon's first."""
    a = Spelling("a", ((2, 3), (4, 5, 6)))
    said = path_of([0, 4, 0, 5, 6, 0, 2, 3], 7)
    first, second = align(said, [a, a], Timing(1.0))
    assert (first.start, first.end, second.start, second.end) == (1, 5, 6, 8)
    assert first.confidence == pytest.approx(1.0)


def test_long_texts_are_said_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    words = [Spelling("a", ((1, 2), (3,), (3, 4))), Spelling("b", ((5,), (6, 5)))] * 10
    said = [token for word in words for token in (*word.ways[rng.integers(len(word.ways))], 0)]
    whole = align(path_of(said, 7), words, Timing(1.0))
    assert min(word.confidence for word in whole) == pytest.approx(1.0)
    monkeypatch.setattr("asr.align.forced.PIECE", 3)
    assert align(path_of(said, 7), words, Timing(1.0)) == whole


def test_an_alignment_that_does_not_fit_into_memory_is_told_before_it_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asr.align.forced.MOST_BYTES", 10)
    with pytest.raises(UserError, match="memory; cut recording and text into parts"):
        align(path_of([2, 0, 0, 0, 0, 0, 3], 4), [Spelling("ab", ((2, 3),))], Timing(0.1))


def test_words_stay_as_they_are_written(tokenizer: Tokenizer) -> None:
    spelled = spell("The  LAZY - dog, O'Brien!", tokenizer)
    assert [word.text for word in spelled] == ["The", "LAZY", "dog,", "O'Brien!"]
    tokens = [token for word in spelled for token in word.ways[0]]
    assert tokenizer.decode(tokens) == "the lazy dog o'brien"


def test_words_that_the_tokenizer_cannot_spell_are_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"no letters for 42, 7th: write") as caught:
        spell("the 42 dogs 7th 42", tokenizer)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="and 3 more"):
        spell("1 2 3 4 5 6 7 8", tokenizer)
