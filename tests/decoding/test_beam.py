"""The beam against brute force, and what it promises to streams: any split, finality, stability, memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr import native as libraries
from asr.decoding import native
from asr.decoding.beam import BeamDecoder, accept_batch
from asr.decoding.config import DecodingConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.decoding.spelling import Spelling
from asr.decoding.types import DecodedWord, Hypothesis
from asr.errors import UserError
from tests.decoding.oracle import Scores, prefixes

PIECES = ("<blank>", "<unk>", "▁a", "b", "▁ab", "▁")
EXACT = DecodingConfig(beam=100_000, tokens=100, token_threshold=math.inf, threshold=math.inf, word_bonus=0.0)
seeds = st.integers(0, 2**32 - 1)


def random_log_probs(
    frames: int, seed: int, vocabulary: int = len(PIECES), peak: float = 0.5, impossible: float = 0.0
) -> NDArray[np.float32]:
    """(T, V); the smaller `peak` is, the surer are the frames; some outputs may be impossible."""
    random = np.random.default_rng(seed)
    rows = random.dirichlet(np.full(vocabulary, peak), size=frames) + 1e-7
    gone = random.random(rows.shape) < impossible
    gone[np.arange(frames), rows.argmax(-1)] = False
    with np.errstate(divide="ignore"):
        return np.log(np.where(gone, 0, rows)).astype(np.float32)


def speech(frames: int, seed: int, pieces: Sequence[str] = PIECES) -> NDArray[np.float32]:
    """(T, V) as a trained model gives them: blanks, and now and then a token with a rival or two."""
    random = np.random.default_rng(seed)
    rows = np.full((frames, len(pieces)), 0.002)
    rows[:, 0] = 1
    for frame in np.flatnonzero(random.random(frames) < 0.35):
        some = random.choice(np.arange(1, len(pieces)), 2, replace=False)
        rows[frame, some] = random.uniform(0.05, 3, 2)
    return np.log(rows / rows.sum(-1, keepdims=True)).astype(np.float32)


def decode(log_probs: NDArray[np.float32], config: DecodingConfig = EXACT) -> BeamDecoder:
    decoder = BeamDecoder(PIECES, config)
    decoder.accept(log_probs)
    return decoder


def spoken(words: Sequence[DecodedWord]) -> list[str]:
    return [word.text for word in words]


def expected_nbest(log_probs: NDArray[np.float32], scores: Scores) -> list[Hypothesis]:
    """By brute force."""
    found: dict[str, Hypothesis] = {}
    mass: dict[str, float] = {}
    for tokens, prefix in prefixes(log_probs).items():
        score, text = prefix.log_prob + scores.final(tokens), scores.spelling.text(tokens)
        mass[text] = mass.get(text, 0.0) + math.exp(score)
        if text not in found or found[text].score < score:
            spans = tuple((token, *span) for token, span in zip(tokens, prefix.spans, strict=True))
            found[text] = Hypothesis(spans, score, 0.0, text)  # type: ignore[arg-type]
    total = sum(mass.values())
    made = [Hypothesis(h.tokens, h.score, mass[text] / total, text) for text, h in found.items()]
    return sorted(made, key=lambda hypothesis: -hypothesis.score)


def assert_nbest(got: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert len(got) == len(wanted)
    for mine, right in zip(got, wanted, strict=True):
        assert mine.score == pytest.approx(right.score, abs=1e-5)
        assert mine.posterior == pytest.approx(right.posterior, abs=1e-5)
        assert mine.text == right.text
        assert mine.tokens == right.tokens


@given(seeds, st.integers(0, 4), st.sampled_from([0.0, 0.3]))
@settings(max_examples=20)
def test_unpruned_every_text_has_its_exact_score_posterior_and_times(
    seed: int, frames: int, impossible: float
) -> None:
    log_probs = random_log_probs(frames, seed, impossible=impossible)
    log_probs[:, 0] = np.maximum(log_probs[:, 0], -20)  # so that nothing becomes final
    wanted = expected_nbest(log_probs, Scores(Spelling(PIECES)))
    assert_nbest(decode(log_probs).nbest(10**6), wanted)


@given(seeds, st.integers(0, 4))
@settings(max_examples=20)
def test_the_best_n_are_the_first_n_of_all(seed: int, count: int) -> None:
    decoder = decode(random_log_probs(3, seed))
    assert decoder.nbest(count) == decoder.nbest(10**6)[:count]


@given(seeds, st.sampled_from([0.05, 0.3]), st.sampled_from([0.5, 0.7]))
@settings(max_examples=30)
def test_words_become_final_on_the_way_and_the_whole_is_still_the_exact_best(
    seed: int, peak: float, impossible: float
) -> None:
    log_probs = random_log_probs(5, seed, peak=peak, impossible=impossible)
    texts: dict[tuple[str, ...], float] = {}
    spelling = Spelling(PIECES)
    for tokens, prefix in prefixes(log_probs).items():
        text = tuple(spelling.text(tokens).split())
        texts[text] = max(texts.get(text, -math.inf), prefix.log_prob)
    decoder, words = BeamDecoder(PIECES, EXACT), []
    for row in log_probs:
        decoder.accept(row[None])
        words += decoder.take()
        assert all(text[: len(words)] == tuple(spoken(words)) for text in texts) or not words
    decoder.flush()
    words += decoder.take()
    assert texts[tuple(spoken(words))] == pytest.approx(max(texts.values()), abs=1e-5)


@given(seeds, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=20)
def test_after_a_flush_it_goes_on_as_ctc_does_and_nothing_is_heard_twice(
    seed: int, cut: int, rest: int
) -> None:
    """The second part, against alignments of it alone that may begin with the tail of the last token."""
    log_probs = random_log_probs(cut + rest, seed, peak=0.05)
    decoder = decode(log_probs[:cut])
    best = decoder.nbest(1)[0]
    decoder.flush()
    assert spoken(decoder.take()) == best.text.split()
    decoder.accept(log_probs[cut:])
    # How much of the best prefix' mass ends in its last token says how likely a repetition is its tail.
    (last,) = best.tokens[-1:] or [None]
    before = last.id if last else 0
    ends: dict[bool, float] = {True: 0.0, False: 0.0}
    wanted_tokens = tuple(token.id for token in best.tokens)
    for path in itertools.product(range(len(PIECES)), repeat=cut):
        pairs = zip((0, *path), path, strict=False)
        if tuple(o for previous, o in pairs if o not in (0, previous)) == wanted_tokens:
            ends[bool(path[-1])] += math.exp(sum(float(log_probs[t, o]) for t, o in enumerate(path)))
    sounding = ends[True] / sum(ends.values())
    mass: dict[tuple[int, ...], float] = {}
    for start, share in ((before, sounding), (0, 1 - sounding)):
        for tokens, prefix in prefixes(log_probs[cut:], start).items():
            mass[tokens] = mass.get(tokens, 0.0) + share * math.exp(prefix.log_prob)
    by_text: dict[str, float] = {}
    for tokens, value in mass.items():
        text = Spelling(PIECES).text(tokens)
        by_text[text] = max(by_text.get(text, 0.0), value)
    got = decoder.nbest(1)[0]
    assert math.exp(got.score) == pytest.approx(max(by_text.values()), rel=1e-4)
    assert by_text[got.text] == pytest.approx(max(by_text.values()), rel=1e-4)
    assert all(cut <= token.start < token.end <= cut + rest for token in got.tokens)


@given(seeds, st.lists(st.integers(0, 60), max_size=4), st.sampled_from([2, 8]))
@settings(max_examples=30)
def test_any_split_of_the_frames_gives_the_same(seed: int, cuts: list[int], beam: int) -> None:
    log_probs, config = speech(60, seed), DecodingConfig(beam=beam)
    whole, split = BeamDecoder(PIECES, config), BeamDecoder(PIECES, config)
    whole.accept(log_probs)
    taken = []
    for piece in np.split(log_probs, sorted(cuts)):
        split.accept(piece)
        taken += split.take()
    assert taken == whole.take()
    assert split.tentative() == whole.tentative()
    assert split.nbest(5) == whole.nbest(5)
    assert split.trailing_blanks == whole.trailing_blanks


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_is_unaffected_by_the_others_of_its_batch(threads: int) -> None:
    lengths = [50, 0, 17, 33, 50]
    log_probs = np.stack([speech(50, seed) for seed in range(5)])
    config = DecodingConfig()
    batch = [BeamDecoder(PIECES, config) for _ in lengths]
    accept_batch(batch, log_probs, lengths, threads)
    for decoder, rows, length in zip(batch, log_probs, lengths, strict=True):
        alone = BeamDecoder(PIECES, config)
        alone.accept(rows[:length])
        assert decoder.take() == alone.take() and decoder.nbest(9) == alone.nbest(9)


def test_a_batch_with_one_broken_stream_is_refused_before_any_frame_is_taken() -> None:
    decoders = [BeamDecoder(PIECES, DecodingConfig()) for _ in range(2)]
    log_probs = np.stack([speech(9, seed) for seed in range(2)])
    log_probs[1, 4, 2] = np.nan
    with pytest.raises(ValueError, match="NaN in the log-probabilities of frame 4"):
        accept_batch(decoders, log_probs, [9, 9])
    assert [decoder.trailing_blanks for decoder in decoders] == [0, 0]
    with pytest.raises(ValueError, match="length of 10"):
        accept_batch(decoders, log_probs, [9, 10])
    with pytest.raises(ValueError, match="2 decoders, 2 streams and 1 lengths"):
        accept_batch(decoders, log_probs, [9])


def test_a_copy_goes_on_by_itself() -> None:
    log_probs = speech(80, 1)
    one = BeamDecoder(PIECES, DecodingConfig())
    one.accept(log_probs[:40])
    other = one.copy()
    before = other.nbest(9)
    one.accept(log_probs[40:])
    assert other.nbest(9) == before
    other.accept(log_probs[40:])
    assert (other.take(), other.nbest(9)) == (one.take(), one.nbest(9))
    del one
    assert other.nbest(9)


def test_a_reset_decoder_is_a_new_one() -> None:
    used, new = decode(speech(50, 1), DecodingConfig()), BeamDecoder(PIECES, DecodingConfig())
    used.reset()
    for decoder in (used, new):
        decoder.accept(speech(50, 2))
    assert (used.take(), used.nbest(9)) == (new.take(), new.nbest(9))


def test_before_the_first_frame_and_with_none_there_are_no_words() -> None:
    decoder = decode(np.zeros((0, len(PIECES)), np.float32))
    assert (decoder.take(), decoder.tentative(), decoder.trailing_blanks) == ([], [], 0)
    assert decoder.nbest(3) == [Hypothesis((), 0.0, 1.0, "")]
    decoder.flush()
    assert decoder.take() == []


@given(seeds)
@settings(max_examples=20)
def test_a_beam_of_one_where_frames_are_sure_is_the_best_path(seed: int) -> None:
    log_probs = random_log_probs(40, seed, peak=0.02)
    greedy, beam = GreedyDecoder(PIECES), BeamDecoder(PIECES, DecodingConfig(beam=1))
    for decoder in (greedy, beam):
        decoder.accept(np.where(log_probs < log_probs.max(-1, keepdims=True), -30, 0).astype(np.float32))
        decoder.flush()
    ours, theirs = beam.take(), greedy.take()
    assert [(w.text, w.tokens, w.start, w.end) for w in ours] == [
        (w.text, w.tokens, w.start, w.end) for w in theirs
    ]
    assert beam.trailing_blanks == greedy.trailing_blanks


@given(seeds, st.sampled_from([2, 5, 20]), st.sampled_from([8, 1000]))
@settings(max_examples=25)
def test_survived_counts_the_frames_that_a_word_has_stood_at_its_place(
    seed: int, beam: int, max_tentative: int
) -> None:
    decoder = BeamDecoder(PIECES, DecodingConfig(beam=beam, max_tentative=max_tentative))
    final: list[DecodedWord] = []
    stood: list[tuple[str, int]] = []
    for row in speech(80, seed):
        decoder.accept(row[None])
        now = [*final, *(new := decoder.take()), *decoder.tentative()]
        before = dict(enumerate(stood))
        stood = []
        for place, word in enumerate(now):
            text, frames = before.get(place, ("", 0))
            stood.append((word.text, frames + 1 if text == word.text else 1))
        assert [(w.text, w.survived) for w in now[len(final) :]] == stood[len(final) :]
        final += new
        for place, word in enumerate(final):  # they stand for ever
            stood[place] = (word.text, 0)


@given(seeds, st.sampled_from([1, 3, 8]))
@example(
    seed=224, beam=3
)  # a word that is final while it sounds had ended earlier in the next one's alignment
@settings(max_examples=20)
def test_words_come_in_order_and_confidences_are_shares(seed: int, beam: int) -> None:
    decoder = decode(speech(100, seed), DecodingConfig(beam=beam, max_tentative=20))
    decoder.flush()
    words = decoder.take()
    assert all(0 < word.confidence <= 1 for word in words)
    assert all(0 <= word.start < word.end <= 100 for word in words)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
    assert all(word.text for word in words)


def same_places(words: list[str], others: list[str]) -> set[int]:
    """Places of words that are the same in both: from the beginning, until one differs, then from the end."""
    head = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(words, others, strict=False))))
    rest = zip(reversed(words[head:]), reversed(others[head:]), strict=False)
    tail = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], rest)))
    return {*range(head), *range(len(words) - tail, len(words))}


@given(seeds, st.floats(0.3, 5))
@example(seed=427, temperature=1.0)  # "a" is either of the two in "a a", not both
@settings(max_examples=20)
def test_unpruned_a_confidence_is_the_tempered_mass_with_the_word_there(
    seed: int, temperature: float
) -> None:
    log_probs = random_log_probs(3, seed)
    decoder = decode(log_probs, DecodingConfig(**{**vars(EXACT), "temperature": temperature}))
    spelling = Spelling(PIECES)
    found = prefixes(log_probs)
    best = max(prefix.log_prob for prefix in found.values())
    mass = {tokens: math.exp((p.log_prob - best) / temperature) for tokens, p in found.items()}
    heard = spoken(decoder.tentative())
    for place, word in enumerate(decoder.tentative()):
        agree = [m for t, m in mass.items() if place in same_places(heard, spelling.text(t).split())]
        assert word.confidence == pytest.approx(sum(agree) / sum(mass.values()), abs=2e-3)


def test_a_pruned_rival_keeps_the_share_that_it_had() -> None:
    rows = np.full((3, len(PIECES)), 1e-9)
    rows[0, 2], rows[0, 4] = 0.7, 0.3  # "a" or "ab"
    rows[1, 0] = 1
    rows[2, 2] = 1  # a second word, so that the first can become final
    decoder = BeamDecoder(PIECES, DecodingConfig(beam=2, token_threshold=5, max_tentative=2))
    for row in np.log(rows).astype(np.float32):
        decoder.accept(row[None])
    decoder.accept(np.log(rows[1:2]).astype(np.float32))  # now the rival left too long ago
    (word,) = decoder.take()
    assert (word.text, word.confidence) == ("a", pytest.approx(0.7, abs=1e-3))


def test_an_old_alternative_cannot_hold_back_words() -> None:
    rows = np.full((60, len(PIECES)), 1e-9)
    rows[:, 0] = 1
    rows[0, [0, 2, 4]] = 1e-9, 0.6, 0.4
    rows[5, [0, 2]] = 1e-9, 1
    log_probs = np.log(rows).astype(np.float32)
    patient = decode(log_probs, DecodingConfig(max_tentative=1000))
    assert patient.take() == []
    decoder = decode(log_probs, DecodingConfig(max_tentative=40))
    assert spoken(decoder.take()) == ["a"] and spoken(decoder.tentative()) == ["a"]


@pytest.mark.parametrize("peak", [0.3, 2])
def test_twenty_minutes_without_an_endpoint_leave_shares_shares(peak: float) -> None:
    decoder = BeamDecoder(PIECES, DecodingConfig(beam=16, max_tentative=50))
    for second in range(1200):
        decoder.accept(random_log_probs(25, second, peak=peak))
        words = decoder.take()
    assert words and all(0 < word.confidence <= 1 for word in words)
    assert sum(reading.posterior for reading in decoder.nbest(1000)) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["speech", "silence", "noise", "one endless word"])
def test_memory_does_not_grow_with_the_stream(kind: str) -> None:
    decoder = BeamDecoder(PIECES, DecodingConfig(beam=16, max_tentative=50))
    sizes, words = [], 0
    for second in range(1200):
        log_probs = speech(25, second)
        if kind == "silence":
            log_probs[:, 0] = 5
        elif kind == "noise":
            log_probs = random_log_probs(25, second, peak=2)
        elif kind == "one endless word":
            log_probs[:, [2, 4, 5]] = -30
        decoder.accept(log_probs)
        words += len(decoder.take())
        sizes.append(decoder.size)
    assert max(sizes[600:]) <= 1.2 * max(sizes[:600]) and max(sizes) < 5000
    assert (words == 0) == (kind == "silence")


def test_a_flush_at_every_second_loses_no_words_and_frames_count_on() -> None:
    rows = np.full((500, len(PIECES)), 1e-6)
    rows[:, 0] = 1
    rows[5::10, [0, 2]] = 1e-6, 1  # "a" every ten frames
    decoder, words = BeamDecoder(PIECES, DecodingConfig()), []
    for piece in np.split(np.log(rows).astype(np.float32), 20):
        decoder.accept(piece)
        decoder.flush()
        words += decoder.take()
    assert [(word.text, word.start, word.end) for word in words] == [
        ("a", f, f + 1) for f in range(5, 500, 10)
    ]


def test_trailing_blanks_count_from_the_last_sound_also_over_a_flush() -> None:
    rows = np.full((8, len(PIECES)), 1e-6)
    rows[:, 0] = 1
    rows[3:5, [0, 2]] = 1e-6, 1
    decoder, seen = BeamDecoder(PIECES, DecodingConfig()), []
    for frame, row in enumerate(np.log(rows).astype(np.float32)):
        decoder.accept(row[None])
        seen.append(decoder.trailing_blanks)
        if frame in (4, 6):
            decoder.flush()
            assert decoder.trailing_blanks == seen[-1]
    assert seen == [1, 2, 3, 0, 0, 1, 2, 3]


def test_pieces_of_several_bytes_make_words() -> None:
    pieces = ("<blank>", "<unk>", "▁wör", "ter", "▁日", "本")
    rows = np.full((6, len(pieces)), 1e-6)
    rows[np.arange(6), [2, 3, 0, 4, 5, 0]] = 1
    decoder = BeamDecoder(pieces, DecodingConfig())
    decoder.accept(np.log(rows).astype(np.float32))
    decoder.flush()
    assert spoken(decoder.take()) == ["wörter", "日本"]


def test_a_vocabulary_of_blank_and_one_token_works() -> None:
    decoder = BeamDecoder(("<blank>", "<unk>"), DecodingConfig())
    decoder.accept(np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)))
    assert {hypothesis.text for hypothesis in decoder.nbest(9)} == {"", "⁇"}


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN .* frame 3"), (np.inf, "infinity .* frame 3")], ids=str
)
def test_broken_log_probs_are_refused_with_their_frame_and_nothing_is_taken(
    value: float, message: str
) -> None:
    decoder = decode(speech(2, 1), DecodingConfig())
    before = decoder.nbest(9)
    broken = speech(3, 2)
    broken[1, 3] = value
    with pytest.raises(ValueError, match=message):
        decoder.accept(broken)
    assert decoder.nbest(9) == before


def test_a_frame_in_which_everything_is_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="only -inf in the log-probabilities of frame 1"):
        decode(np.array([[0.0] * len(PIECES), [-np.inf] * len(PIECES)], np.float32))


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(T, 6\), .* got an array of shape \(2, 5\)"):
        decode(np.zeros((2, 5), np.float32))


def test_log_probs_of_any_layout_and_type_are_read() -> None:
    log_probs = speech(40, 3)
    straight = decode(log_probs, DecodingConfig())
    for same in (np.asfortranarray(log_probs), log_probs.astype(np.float64), np.repeat(log_probs, 2, 0)[::2]):
        assert decode(same, DecodingConfig()).nbest(3) == straight.nbest(3)


def test_without_library_and_compiler_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(library: libraries.Library) -> None:
        raise libraries.BuildError("no C++ compiler (c++, g++ or clang++) on the PATH")

    monkeypatch.setattr(libraries, "find_or_build", missing)
    native.library.cache_clear()
    try:
        with pytest.raises(UserError, match=r"install g\+\+, or decode with --beam 1"):
            native.library()
    finally:
        native.library.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [("beam", 0), ("beam", 2.5), ("temperature", 0.0), ("threshold", math.nan), ("unknown_penalty", 1.0)],
)
def test_a_setting_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"decoding: {name} "):
        DecodingConfig(**{name: value})  # type: ignore[arg-type]


def test_hotwords_of_a_stream_do_not_reach_another() -> None:
    config = DecodingConfig(hotword_boost=3.0)
    log_probs = speech(30, 4)
    with_hotwords = BeamDecoder(PIECES, config, hotwords=[Hotword("abb")])
    without, plain = BeamDecoder(PIECES, config), BeamDecoder(PIECES, config)
    for decoder in (with_hotwords, without, plain):
        decoder.accept(log_probs)
    assert without.nbest(5) == plain.nbest(5) != with_hotwords.nbest(5)
