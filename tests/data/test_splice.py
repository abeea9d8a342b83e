"""Words in another order: what is heard, what it is said to be, and when, go together."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.data.augment import Augmentation
from asr.data.dataset import Utterances
from asr.data.manifest import load_cuts
from asr.data.phones import PhoneTimes
from asr.data.splice import FADE, Spliced, splice
from asr.phones import SILENCE

RATE = 8000
WORDS = [[3, 40, 41], [4], [5, 42], [6, 43, 44, 45], [7, 46], [8]]  # tokens, none of them twice
PAUSED = {1, 3, 5}  # words with a pause behind them
TOKENS = list(itertools.chain(*WORDS))
STARTS = [token < 40 for token in TOKENS]
LEVELS = {SILENCE: 0.0} | {1 + place: 0.01 * token for place, token in enumerate(TOKENS)}  # of phones


def speech() -> tuple[NDArray[np.float32], PhoneTimes]:
    """Half a second of silence, words, and 0.3 s of it; each phone, of 30 ms or more, at its own level."""
    ids, phone = [SILENCE], 1
    for place, word in enumerate(WORDS):
        ids += range(phone, phone + len(word))
        phone += len(word)
        ids += [SILENCE] * (place in PAUSED)
    lengths = np.array([0.5, *(0.03 + 0.01 * (np.arange(len(ids) - 1) % 4))])
    times = PhoneTimes(np.array(ids), np.cumsum(lengths) - lengths, float(lengths.sum()))
    levels = [LEVELS[phone] for phone in times.labels(np.arange(round((times.end + 0.3) * RATE)) / RATE)]
    return np.array(levels, np.float32), times


def spliced(seed: int) -> Spliced:
    samples, times = speech()
    return splice(samples, RATE, TOKENS, times, STARTS, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_each_phone_is_heard_when_it_is_said_to_be(seed: int) -> None:
    found, (samples, times) = spliced(seed), speech()
    assert len(found.samples) == len(samples)
    assert found.times.end == times.end
    ends = np.append(found.times.starts[1:], found.times.end)
    assert (ends > found.times.starts).all()
    for phone, start, end in zip(found.times.ids, found.times.starts, ends, strict=True):
        steady = found.samples[round((start + FADE) * RATE) + 1 : round(end * RATE) - 1]
        assert len(steady) > 100
        assert np.allclose(steady, LEVELS[phone])
    said = [TOKENS[phone - 1] for phone in found.times.ids if phone != SILENCE]
    assert said == found.tokens


@pytest.mark.parametrize("seed", range(20))
def test_words_stay_whole_with_their_pauses_and_what_is_around_them_stays(seed: int) -> None:
    found, (samples, _) = spliced(seed), speech()
    begins = [place for place, token in enumerate(found.tokens) if token < 40]
    words = [found.tokens[a:b] for a, b in itertools.pairwise([*begins, len(found.tokens)])]
    assert sorted(words) == sorted(WORDS)
    assert np.array_equal(found.samples[: RATE // 2], samples[: RATE // 2])
    assert not found.samples[-round(0.3 * RATE) + round(FADE * RATE) :].any()
    for place in PAUSED - {len(WORDS) - 1}:
        last = 1 + TOKENS.index(WORDS[place][-1])
        assert found.times.ids[found.times.ids.tolist().index(last) + 1] == SILENCE


def test_orders_differ_and_half_of_the_places_between_words_stay_as_they_were() -> None:
    following = set(itertools.pairwise(word[0] for word in WORDS))
    orders = []
    for seed in range(400):
        orders.append(tuple(token for token in spliced(seed).tokens if token < 40))
    kept = np.mean([pair in following for order in orders for pair in itertools.pairwise(order)])
    assert 0.5 < kept < 0.7  # some cuts go back to where they were
    assert len(set(orders)) > 100


def test_words_in_their_own_order_sound_as_recorded() -> None:
    class Keeping:
        def random(self, count: int) -> NDArray[np.float64]:
            return np.zeros(count)

        def permutation(self, count: int) -> NDArray[np.int64]:
            return np.arange(count)

    samples, times = speech()
    noise = np.random.default_rng(1).standard_normal(len(samples), np.float32)
    found = splice(noise, RATE, TOKENS, times, STARTS, Keeping())  # type: ignore[arg-type]
    np.testing.assert_allclose(found.samples, noise, atol=1e-6)
    assert found.tokens == TOKENS
    np.testing.assert_allclose(found.times.starts, times.starts)


def test_an_utterance_of_one_word_is_as_it_was() -> None:
    times = PhoneTimes(np.array([3, 4]), np.array([0.1, 0.2]), 0.3)
    samples = np.random.default_rng(1).standard_normal(RATE, np.float32)
    found = splice(samples, RATE, [5, 40], times, [True, False], np.random.default_rng(1))
    np.testing.assert_allclose(found.samples, samples, atol=1e-6)
    assert found.tokens == [5, 40]


def utterances(
    cuts: Path, share: float, times: PhoneTimes, tokens: list[int], frame_samples: int
) -> Utterances:
    (cut, *_) = load_cuts([cuts])
    augmentation = Augmentation(speeds=(1.0,), gain_db=(0.0, 0.0), splice_share=share)
    return Utterances(
        [cut], [tokens], 16000, augmentation, 0, 0, {cut.id: times}, frame_samples, frozenset(range(40))
    )


def test_a_batch_has_the_labels_of_what_is_heard(corpus: Path) -> None:
    (cut, *_) = load_cuts([corpus / "dev.jsonl.gz"])
    starts = np.arange(6) * cut.duration / 6
    times = PhoneTimes(np.arange(1, 7), starts, cut.duration)
    tokens = [1, 2, 3, 4, 5, 6]  # each phone a word of its own
    plain = utterances(corpus / "dev.jsonl.gz", 0.0, times, tokens, 320)[[0]]
    assert plain.tokens.tolist() == [tokens]
    orders = set()
    for epoch in range(5):
        dataset = utterances(corpus / "dev.jsonl.gz", 1.0, times, tokens, 320)
        dataset.epoch = epoch
        batch = dataset[[0]]
        assert sorted(batch.tokens[0].tolist()) == tokens
        assert batch.phones is not None
        assert batch.phones[0].unique_consecutive()[:6].tolist() == batch.tokens[0].tolist()
        assert batch.lengths.tolist() == plain.lengths.tolist()
        orders.add(tuple(batch.tokens[0].tolist()))
    assert len(orders) > 1


def test_words_that_ctc_could_not_align_in_another_order_stay(corpus: Path) -> None:
    (cut, *_) = load_cuts([corpus / "dev.jsonl.gz"])
    times = PhoneTimes(np.array([1, 2, 1, 2]), np.arange(4) * cut.duration / 4, cut.duration)
    tokens = [1, 2, 1, 2]  # 1 1 2 2 would need six frames
    for epoch in range(20):
        dataset = utterances(corpus / "dev.jsonl.gz", 1.0, times, tokens, int(cut.duration * 16000 / 4.5))
        dataset.epoch = epoch
        order = dataset[[0]].tokens[0].tolist()
        assert all(a != b for a, b in itertools.pairwise(order))


def test_phones_that_are_not_those_of_the_tokens_stay_in_their_order(corpus: Path) -> None:
    times = PhoneTimes(np.array([1, 2, 3]), np.array([0.0, 0.1, 0.2]), 0.3)
    batch = utterances(corpus / "dev.jsonl.gz", 1.0, times, [1, 2], 320)[[0]]
    assert batch.tokens.tolist() == [[1, 2]]
