"""Times of phones from CTM files, and what tokens say of phones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr.data.phones import PhoneTimes, phone_log_probs, read_phone_times
from asr.errors import UserError
from asr.lexicon import Lexicon, PhoneTokenizer
from asr.phones import INDEX, LETTERS, PHONES, SILENCE


def test_times_of_a_ctm_are_labels_of_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "phones.ctm"
    path.write_text("a 1 0.1 0.1 K\na 1 0.2 0.15 AE\na 1 0.35 0.05 T\nb 1 0 0.2 SIL\n")
    times = read_phone_times([path])
    assert set(times) == {"a", "b"}
    labels = times["a"].labels(np.array([0.05, 0.1, 0.19, 0.2, 0.36, 0.4, 9.0]))
    assert [PHONES[label] for label in labels] == ["SIL", "K", "K", "AE", "T", "SIL", "SIL"]
    assert times["b"].labels(np.array([0.1])).tolist() == [SILENCE]


def test_what_is_no_phone_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "words.ctm").write_text("a 1 0.1 0.1 cat\n")
    with pytest.raises(UserError, match=r"words\.ctm: a has a phone 'cat'"):
        read_phone_times([tmp_path / "words.ctm"])


def test_a_phone_is_as_likely_as_its_two_tokens_together() -> None:
    tokenizer = PhoneTokenizer(Lexicon({}))
    probabilities = torch.rand(2, 3, tokenizer.vocabulary, generator=torch.Generator().manual_seed(1))
    found = phone_log_probs(probabilities.log()).exp()
    assert found.shape == (2, 3, len(PHONES))
    torch.testing.assert_close(found[..., SILENCE], probabilities[..., tokenizer.blank])
    for phone, letter in LETTERS.items():
        tokens = [tokenizer.pieces.index(piece) for piece in (letter, f"\u2581{letter}")]
        torch.testing.assert_close(found[..., INDEX[phone]], probabilities[..., tokens].sum(-1))


def test_before_the_first_and_after_the_last_phone_is_silence() -> None:
    times = PhoneTimes(np.array([5]), np.array([0.3]), 0.4)
    assert times.labels(np.array([0.0, 0.3, 0.39, 0.4])).tolist() == [SILENCE, 5, 5, SILENCE]
