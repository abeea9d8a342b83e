"""The beam with a language model and hotwords, against the same scores in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.decoding.beam import BeamDecoder
from asr.decoding.config import DecodingConfig
from asr.decoding.hotwords import MOST, Hotword
from asr.decoding.language_model import LanguageModel
from asr.decoding.spelling import Spelling
from asr.errors import UserError
from tests.decoding.oracle import Ngrams, Scores, prefixes, random_ngrams
from tests.decoding.test_beam import EXACT, assert_nbest, expected_nbest, random_log_probs, spoken

PIECES = ("<blank>", "<unk>", "▁a", "b", "▁ab", "▁")
VOCABULARY = ["a", "ab", "abb", "b", "ba"]  # of the language model; "aa", "bb" and others are unknown to it
PHRASES = ["a", "ab", "abb", "a b", "ab a", "a ab", "ab ab", "bb", "b", "aba", "a b b"]


@pytest.fixture(params=[1, 2, 3], ids="order {}".format)
def ngrams(request: pytest.FixtureRequest) -> Ngrams:
    return random_ngrams(VOCABULARY, request.param, np.random.default_rng(request.param))


@pytest.fixture
def model(ngrams: Ngrams, tmp_path: Path) -> LanguageModel:
    return LanguageModel.open(ngrams.write(tmp_path / "lm.arpa"))


def random_hotwords(seed: int) -> list[Hotword]:
    random = np.random.default_rng(seed)
    phrases = random.choice(PHRASES, random.integers(0, 6))  # some twice
    return [Hotword(str(phrase), float(random.uniform(0.1, 2))) for phrase in phrases]


@pytest.mark.parametrize("seed", range(8))
def test_with_a_language_model_every_text_has_its_exact_score(
    ngrams: Ngrams, model: LanguageModel, seed: int
) -> None:
    log_probs = random_log_probs(4, seed)
    config = replace(EXACT, lm_weight=0.7, word_bonus=0.4, unknown_penalty=-1.3)
    scores = Scores(Spelling(PIECES), ngrams, 0.7, 0.4, -1.3)
    decoder = BeamDecoder(PIECES, config, model)
    decoder.accept(log_probs)
    assert_nbest(decoder.nbest(10**6), expected_nbest(log_probs, scores))


@pytest.mark.parametrize("seed", range(30))
def test_with_hotwords_every_text_has_its_exact_score_and_failed_matches_are_taken_back(seed: int) -> None:
    log_probs, hotwords = random_log_probs(4, seed), random_hotwords(seed)
    decoder = BeamDecoder(PIECES, EXACT, hotwords=hotwords)
    decoder.accept(log_probs)
    scores = Scores(Spelling(PIECES), hotwords=hotwords)
    assert_nbest(decoder.nbest(10**6), expected_nbest(log_probs, scores))


@pytest.mark.parametrize("seed", range(8))
def test_with_both_every_text_has_its_exact_score(ngrams: Ngrams, model: LanguageModel, seed: int) -> None:
    log_probs, hotwords = random_log_probs(4, seed), random_hotwords(seed + 100)
    config = replace(EXACT, lm_weight=0.5, unknown_penalty=-2.0)
    scores = Scores(Spelling(PIECES), ngrams, 0.5, 0.0, -2.0, hotwords)
    decoder = BeamDecoder(PIECES, config, model, hotwords)
    decoder.accept(log_probs)
    assert_nbest(decoder.nbest(10**6), expected_nbest(log_probs, scores))


@pytest.mark.parametrize("seed", range(12))
def test_while_words_are_spelled_the_best_is_that_of_the_scores_in_advance(
    ngrams: Ngrams, model: LanguageModel, seed: int
) -> None:
    log_probs, hotwords = random_log_probs(4, seed), random_hotwords(seed + 200)
    config = replace(EXACT, lm_weight=0.9, word_bonus=-0.2, unknown_penalty=-1.0)
    scores = Scores(Spelling(PIECES), ngrams, 0.9, -0.2, -1.0, hotwords)
    decoder = BeamDecoder(PIECES, config, model, hotwords)
    decoder.accept(log_probs)
    best = max(
        (prefix.log_prob + scores.running(tokens), tokens) for tokens, prefix in prefixes(log_probs).items()
    )
    assert spoken(decoder.tentative()) == scores.words(best[1])


@pytest.mark.parametrize("seed", range(6))
def test_bounds_and_pruning_by_rank_lose_nothing_that_ranks_higher(
    model: LanguageModel, ngrams: Ngrams, seed: int
) -> None:
    """After one frame, the beam's n are the first n of all by the scores in advance."""
    log_probs, hotwords = random_log_probs(1, seed), random_hotwords(seed + 300)
    config = replace(EXACT, lm_weight=0.9, unknown_penalty=-1.0)
    scores = Scores(Spelling(PIECES), ngrams, 0.9, 0.0, -1.0, hotwords)
    ranked = sorted(
        prefixes(log_probs).items(), key=lambda item: -(item[1].log_prob + scores.running(item[0]))
    )
    for beam in range(1, len(ranked) + 1):
        decoder = BeamDecoder(PIECES, replace(config, beam=beam), model, hotwords)
        decoder.accept(log_probs)
        kept = {hypothesis.text for hypothesis in decoder.nbest(100)}
        assert kept == {scores.spelling.text(tokens) for tokens, _ in ranked[:beam]}


def said(*pieces: str, rival: tuple[str, str] | None = None, share: float = 0.3) -> NDArray[np.float32]:
    """(T, V), in which the pieces are sure, but where the first of `rival` has a rival with this share."""
    tokens = [0, *(LETTERS.index(piece) for piece in pieces), 0]
    rows = np.full((2 * len(tokens), len(LETTERS)), 1e-7)
    for frame, token in enumerate(tokens):
        rows[2 * frame, token] = 1
        rows[2 * frame + 1, 0] = 1
        if rival and token == LETTERS.index(rival[0]):
            rows[2 * frame, [token, LETTERS.index(rival[1])]] = 1 - share, share
    return np.log(rows / rows.sum(-1, keepdims=True)).astype(np.float32)


LETTERS = ("<blank>", "<unk>", "▁", *"acegkopryt", "▁cat", "▁cap", "▁kat")


def heard(log_probs: NDArray[np.float32], *hotwords: Hotword, model: LanguageModel | None = None) -> str:
    decoder = BeamDecoder(LETTERS, DecodingConfig(), model, hotwords)
    decoder.accept(log_probs)
    decoder.flush()
    return " ".join(spoken(decoder.take()))


def test_a_hotword_is_heard_in_any_segmentation() -> None:
    as_letters = said("▁", "c", "a", "p", rival=("p", "t"))
    as_piece = said("▁cap", rival=("▁cap", "▁cat"))
    for log_probs in (as_letters, as_piece):
        assert heard(log_probs) == "cap"
        assert heard(log_probs, Hotword("cat")) == "cat"


def test_a_hotword_does_not_reward_a_longer_word() -> None:
    ends_otherwise = said("▁cap", "e", "r", rival=("▁cap", "▁cat"))  # caper or cater
    assert heard(ends_otherwise, Hotword("cat", 2.0)) == "caper"
    assert heard(ends_otherwise, Hotword("cater")) == "cater"


def test_a_hotword_inside_a_word_is_none() -> None:
    assert heard(said("▁", "a", "▁kat", rival=("▁kat", "a")), Hotword("aat", 2.0)) == "a kat"
    assert heard(said("▁", "t", "o", "c", "a", "p", rival=("p", "t")), Hotword("cat", 2.0)) == "tocap"


def test_a_phrase_counts_across_words_and_not_half() -> None:
    log_probs = said("▁cap", "▁cat", rival=("▁cap", "▁kat"), share=0.2)
    assert heard(log_probs) == "cap cat"
    assert heard(log_probs, Hotword("kat cat")) == "kat cat"
    assert heard(log_probs, Hotword("kat cap", 3.0)) == "cap cat"


def test_each_phrase_has_its_boost() -> None:
    log_probs = said("▁cap", rival=("▁cap", "▁cat"), share=0.4)
    assert heard(log_probs, Hotword("cat", 1.0), Hotword("cap", 0.1)) == "cat"
    assert heard(log_probs, Hotword("cat", 0.1), Hotword("cap", 1.0)) == "cap"


@pytest.fixture
def caps(tmp_path: Path) -> LanguageModel:
    """Knows "cap" and nothing else."""
    table = {("<s>",): (-99.0, 0.0), ("</s>",): (-1.0, 0.0), ("<unk>",): (-7.0, 0.0), ("cap",): (-1.0, 0.0)}
    return LanguageModel.open(Ngrams(table, 1).write(tmp_path / "caps.arpa"))


def test_unknown_words_are_possible_where_the_sound_is_clear(caps: LanguageModel) -> None:
    assert heard(said("▁cat", "▁", "t", "o"), model=caps) == "cat to"
    assert heard(said("▁cat", rival=("▁cat", "▁cap"), share=0.1), model=caps) == "cap"


def test_a_hotword_that_the_language_model_does_not_know_is_not_punished_for_it(caps: LanguageModel) -> None:
    log_probs = said("▁cap", rival=("▁cap", "▁cat"), share=0.4)
    assert heard(log_probs, model=caps) == "cap"
    config = DecodingConfig(unknown_penalty=-100.0)
    decoder = BeamDecoder(LETTERS, config, caps, [Hotword("cat", 1.5), Hotword("cat to")])
    decoder.accept(log_probs)
    decoder.flush()
    assert spoken(decoder.take()) == ["cat"]


def test_hotwords_can_change_while_the_stream_runs() -> None:
    log_probs = said("▁cap", rival=("▁cap", "▁cat"))
    for middle in range(1, 7):
        decoder = BeamDecoder(LETTERS, DecodingConfig(), hotwords=[Hotword("kat")])
        decoder.accept(log_probs[:middle])
        decoder.set_hotwords([Hotword("cat")])
        decoder.accept(log_probs[middle:])
        assert spoken(decoder.tentative()) == ["cat"]
        decoder.set_hotwords([])
        assert spoken(decoder.tentative()) == ["cap"]


def test_changed_hotwords_score_as_if_they_had_always_been_there_where_no_word_has_ended() -> None:
    log_probs, pieces = random_log_probs(4, 5, len(LETTERS) - 4), LETTERS[:-4]
    log_probs[:, 2] = -40  # no word ends
    always = BeamDecoder(pieces, replace(EXACT, beam=500), hotwords=[Hotword("ac"), Hotword("gr", 2.0)])
    changed = BeamDecoder(pieces, replace(EXACT, beam=500), hotwords=[Hotword("ca", 0.1)])
    always.accept(log_probs[:3])
    changed.accept(log_probs[:3])
    changed.set_hotwords([Hotword("ac"), Hotword("gr", 2.0)])
    first, second = changed.nbest(5), always.nbest(5)
    assert [h.text for h in first] == [h.text for h in second]
    assert [h.score for h in first] == pytest.approx([h.score for h in second])


@pytest.mark.parametrize(
    ("hotwords", "message"),
    [
        ([Hotword("cat"), Hotword(" ")], "hotword 2: the phrase is empty"),
        ([Hotword("cat", -1.0)], "hotword 1: the boost of 'cat' has to be above 0, not -1"),
        ([Hotword("cat", math.nan)], "hotword 1: the boost of 'cat' has to be above 0, not nan"),
        ([Hotword("catz")], "hotword 1: the letter 'z' of 'catz' is in no piece of the tokenizer"),
        ([Hotword("cat")] * (MOST + 1), "20001 hotwords are too many, 20000 at most"),
    ],
)
def test_hotwords_that_cannot_be_used_are_refused_and_the_old_ones_stay(
    hotwords: list[Hotword], message: str
) -> None:
    decoder = BeamDecoder(LETTERS, DecodingConfig(), hotwords=[Hotword("cat")])
    with pytest.raises(UserError, match=message):
        decoder.set_hotwords(hotwords)
    decoder.accept(said("▁cap", rival=("▁cap", "▁cat")))
    assert spoken(decoder.tentative()) == ["cat"]


def test_the_most_hotwords_that_are_allowed_work() -> None:
    random = np.random.default_rng(0)
    phrases = {"".join(random.choice(list("acegkopryt"), random.integers(4, 12))) for _ in range(2 * MOST)}
    hotwords = [Hotword(phrase) for phrase in sorted(phrases)[: MOST - 1]]
    assert heard(said("▁cap", rival=("▁cap", "▁cat")), *hotwords, Hotword("cat")) == "cat"


def test_an_endpoint_begins_a_sentence_of_the_language_model(tmp_path: Path) -> None:
    """After <s> only "cap" is likely, after "cap" only "cat"."""
    likely, back_off = (-0.1, 0.0), (-9.0, -9.0)
    table = {(w,): back_off for w in ("<s>", "</s>", "<unk>", "cap", "cat")}
    table |= {("<s>", "cap"): likely, ("cap", "cat"): likely}
    decoder = BeamDecoder(
        LETTERS, DecodingConfig(), LanguageModel.open(Ngrams(table, 2).write(tmp_path / "lm.arpa"))
    )
    unsure = said("▁cap", rival=("▁cap", "▁cat"), share=0.5)
    decoder.accept(np.concatenate([unsure, unsure]))
    decoder.flush()
    decoder.accept(unsure)
    decoder.flush()
    assert spoken(decoder.take()) == ["cap", "cat", "cap"]
