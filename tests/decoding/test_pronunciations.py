"""Tokens that spell pronunciations: the words of a lexicon, scored by a language model of words."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr import lexicon as lexicon_module
from asr.decoding.beam import BeamDecoder, accept_batch
from asr.decoding.config import OF_PHONES
from asr.decoding.homophones import Writer
from asr.decoding.hotwords import Hotword, read_hotwords
from asr.decoding.language_model import LanguageModel, State, library, pronounced
from asr.errors import UserError
from asr.lexicon import Lexicon, PhoneTokenizer
from tests.decoding.conftest import estimate_text
from tests.decoding.oracle import random_ngrams

WAYS = {
    "their": ["DEr"],
    "there": ["DEr"],
    "they're": ["DEr"],
    "is": ["Iz"],
    "a": ["A", "e"],
    "dog": ["dcg"],
    "dogs": ["dcgz"],
    "saw": ["sc"],
    "cat": ["k@t"],
    "kat": ["k@t"],
}
TEXT = [
    "there is a dog",
    "there is a cat",
    "a cat saw their dog",
    "a dog saw their cat",
    "a cat saw their dogs",
]
CONFIG = replace(OF_PHONES, beam=64)


@pytest.fixture
def tokenizer() -> PhoneTokenizer:
    return PhoneTokenizer(Lexicon(WAYS))


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    estimate_text(TEXT, tmp_path)
    return LanguageModel.open(tmp_path / "model.bin")


def heard(tokenizer: PhoneTokenizer, ways: str, sure: float = 0.9) -> NDArray[np.float32]:
    """Log-probabilities (T, V) of pronunciations, a frame a token and a blank between."""
    tokens = [token for way in ways.split() for token in tokenizer.spell(way)]
    rows = np.full((2 * len(tokens) + 1, tokenizer.vocabulary), (1 - sure) / tokenizer.vocabulary)
    rows[0::2, 0] = rows[np.arange(1, len(rows), 2), tokens] = sure
    return np.log(rows).astype(np.float32)


def decode(decoder: BeamDecoder, log_probs: NDArray[np.float32]) -> str:
    decoder.accept(log_probs)
    decoder.flush()
    return " ".join(word.text for word in decoder.take())


def test_a_pronunciation_scores_as_its_likeliest_word(
    tokenizer: PhoneTokenizer, model: LanguageModel
) -> None:
    scored, state, said = pronounced(tokenizer.lexicon, model), model.begin(), ctypes.c_float()
    for way, word in (("DEr", "there"), ("Iz", "is"), ("e", "a"), ("dcg", "dog")):
        State(library().asr_lm_score(scored.handle, state.handle, way.encode(), len(way), said))
        score, state = model.score(state, word)
        assert said.value == score


def test_a_rare_way_to_say_a_word_scores_less(model: LanguageModel) -> None:
    lexicon = Lexicon({**WAYS, "a": ["A", "Iz"]}, {("a", "Iz"): 0.1})
    before, said = model.begin(), ctypes.c_float()
    alone = {word: model.score(before, word)[0] for word in ("a", "is")}
    for way, best in (("A", alone["a"]), ("Iz", max(alone["is"], alone["a"] + np.log(0.1)))):
        State(
            library().asr_lm_score(
                pronounced(lexicon, model).handle, before.handle, way.encode(), len(way), said
            )
        )
        assert said.value == pytest.approx(best)


def test_shares_decide_between_homophones_too(model: LanguageModel) -> None:
    assert Writer(pronounced(Lexicon({"a": ["A"], "is": ["A"]}), model)).write(["A"]) == ("is",)
    rare = Lexicon({"a": ["A"], "is": ["A"]}, {("is", "A"): 0.1})
    assert Writer(pronounced(rare, model)).write(["A"]) == ("a",)


@pytest.mark.parametrize("with_model", [False, True])
def test_what_is_heard_is_less_likely_a_word_that_is_rarely_said_so(
    model: LanguageModel, with_model: bool
) -> None:
    found = {}
    for share in (1.0, 1e-3):
        lexicon = Lexicon({"dog": ["Iz"], "cat": ["sz"]}, {("dog", "Iz"): share})
        tokenizer = PhoneTokenizer(lexicon)
        log_probs = heard(tokenizer, "Iz")
        log_probs[1, [tokenizer.spell("Iz")[0], tokenizer.spell("sz")[0]]] = np.log([0.7, 0.2])
        decoder = BeamDecoder(tokenizer.pieces, CONFIG, model if with_model else None, lexicon=lexicon)
        found[share] = decode(decoder, log_probs)
    assert found == {1.0: "dog", 1e-3: "cat"}


def test_words_around_decide_between_homophones(tokenizer: PhoneTokenizer, model: LanguageModel) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    assert decode(decoder, heard(tokenizer, "DEr Iz A dcg")) == "there is a dog"
    decoder.reset()
    assert decode(decoder, heard(tokenizer, "e k@t sc DEr dcgz")) == "a cat saw their dogs"


def test_words_after_decide_too(tokenizer: PhoneTokenizer, model: LanguageModel) -> None:
    writer = Writer(pronounced(tokenizer.lexicon, model))
    assert writer.write(["DEr", "dcg"])[0] == "their"
    assert writer.write(["DEr", "Iz"])[0] == "there"
    assert writer.commit(["DEr"], after=["dcg"]) == ("their",)
    assert writer.commit(["dcg"]) == ("dog",)


@pytest.mark.parametrize("said", ["e k@t sc DEr dcgz", "DEr Iz A dcg", "DEr dcgz sc DEr k@t DEr Iz A dcg"])
def test_how_often_words_are_taken_does_not_change_how_they_are_written(
    tokenizer: PhoneTokenizer, model: LanguageModel, said: str
) -> None:
    log_probs = np.concatenate([heard(tokenizer, said), heard(tokenizer, "DEr Iz A dcg")])
    config = replace(CONFIG, max_tentative=2)  # words become final with one behind them
    at_once = BeamDecoder(tokenizer.pieces, config, model, lexicon=tokenizer.lexicon)
    at_once.accept(log_probs)
    often = at_once.copy()
    often.reset()
    taken = []
    for row in log_probs:
        often.accept(row[None])
        taken += often.take()
    for decoder in (at_once, often):
        decoder.flush()
    assert [word.text for word in taken + often.take()] == [word.text for word in at_once.take()]


def test_a_homophone_that_the_model_lacks_is_not_written(
    tokenizer: PhoneTokenizer, model: LanguageModel
) -> None:
    """Its <unk> can be likelier than a rare word that it knows."""
    assert not model.knows("kat") and model.knows("cat")
    for before in ("dcgz sc", "Iz", "DEr DEr DEr"):
        assert Writer(pronounced(tokenizer.lexicon, model)).write([*before.split(), "k@t"])[-1] == "cat"


def test_what_is_committed_stays_whatever_follows(tokenizer: PhoneTokenizer, model: LanguageModel) -> None:
    log_probs = heard(tokenizer, "e k@t sc DEr dcg DEr Iz A k@t")
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    taken = []
    for frame in range(len(log_probs)):
        decoder.accept(log_probs[frame : frame + 1])
        taken += decoder.take()
    decoder.flush()
    taken += decoder.take()
    assert [word.text for word in taken] == ["a", "cat", "saw", "their", "dog", "there", "is", "a", "cat"]


def test_an_endpoint_begins_a_sentence_for_homophones_too(
    tokenizer: PhoneTokenizer, model: LanguageModel
) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    decoder.accept(heard(tokenizer, "e k@t sc"))
    decoder.flush()
    decoder.accept(heard(tokenizer, "DEr Iz"))
    decoder.flush()
    assert [word.text for word in decoder.take()] == ["a", "cat", "saw", "there", "is"]


def test_only_words_of_lexicon_and_model_are_heard(tokenizer: PhoneTokenizer, model: LanguageModel) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    found = decode(decoder, heard(tokenizer, "DEr Iz A k@d", sure=0.6))
    assert set(found.split()) <= set(WAYS)
    assert "kat" not in found  # the model does not know it


def test_without_a_model_words_are_those_of_the_lexicon(tokenizer: PhoneTokenizer) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, lexicon=tokenizer.lexicon)
    assert decode(decoder, heard(tokenizer, "Iz e dcg")) == "is a dog"


def test_a_hotword_that_the_model_lacks_is_heard_and_preferred(
    tokenizer: PhoneTokenizer, model: LanguageModel
) -> None:
    log_probs = heard(tokenizer, "A k@t")
    plain = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    assert decode(plain, log_probs) == "a cat"
    hot = BeamDecoder(tokenizer.pieces, CONFIG, model, [Hotword("kat", 3.0)], lexicon=tokenizer.lexicon)
    assert decode(hot, log_probs) == "a kat"


def test_a_hotword_that_the_lexicon_lacks_is_pronounced_by_a_guess(
    tokenizer: PhoneTokenizer, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexicon_module, "guess", {"bilbo": "bIlbo"}.__getitem__)
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, [Hotword("bilbo")], lexicon=tokenizer.lexicon)
    assert decode(decoder, heard(tokenizer, "DEr Iz bIlbo")) == "there is bilbo"


def test_a_hotword_that_nobody_can_pronounce_is_named(
    tokenizer: PhoneTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(word: str) -> str:
        raise UserError("pip install espeakng-loader")

    monkeypatch.setattr(lexicon_module, "guess", none)
    (tmp_path / "hot.txt").write_text("cat\nbilbo baggins\n")
    with pytest.raises(UserError, match=r"hot\.txt, line 2: .*'bilbo' is pronounced .*espeakng"):
        read_hotwords(tmp_path / "hot.txt", tokenizer.pieces, tokenizer.lexicon)


def test_copies_go_on_by_themselves(tokenizer: PhoneTokenizer, model: LanguageModel) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    decoder.accept(heard(tokenizer, "e k@t sc"))
    twin = decoder.copy()
    assert decode(twin, heard(tokenizer, "DEr dcg")) == "a cat saw their dog"
    decoder.flush()
    assert [word.text for word in decoder.take()] == ["a", "cat", "saw"]


def test_of_prefixes_with_the_same_future_one_is_followed(tokenizer: PhoneTokenizer, tmp_path: Path) -> None:
    (tmp_path / "uni").mkdir()
    estimate_text(TEXT, tmp_path / "uni", order=1)
    model = LanguageModel.open(tmp_path / "uni" / "model.bin")
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    decoder.accept(heard(tokenizer, "A Iz A Iz A Iz", sure=0.5))
    texts = [reading.text for reading in decoder.nbest(1000)]
    most = sum(len(way) for ways in WAYS.values() for way in ways)  # places in the lexicon
    assert len(set(texts)) == len(texts) <= most
    plain = BeamDecoder(tokenizer.pieces, CONFIG)
    plain.accept(heard(tokenizer, "A Iz A Iz A Iz", sure=0.5))
    assert len(plain.nbest(1000)) > most


@pytest.mark.parametrize("order", [1, 2, 3])
def test_what_a_word_can_come_to_is_looked_ahead_for_behind_the_word_before(
    tokenizer: PhoneTokenizer, tmp_path: Path, order: int
) -> None:
    ngrams = random_ngrams(list(WAYS), order, np.random.default_rng(order))
    model = LanguageModel.open(ngrams.write(tmp_path / "random.arpa"))
    shares = {("a", "e"): 0.05, ("dogs", "dcgz"): 0.5, ("cat", "k@t"): 0.3}
    scored = pronounced(Lexicon(WAYS, shares), model)
    said = sorted({way[:n] for ways in WAYS.values() for way in ways for n in range(len(way) + 1)})
    compared = 0
    for before in [None, *WAYS]:
        state = State() if before is None else model.score(model.begin(), before)[1]
        for letters in said:
            words = {
                word: max(np.log(shares.get((word, way), 1)) for way in ways if way.startswith(letters))
                for word, ways in WAYS.items()
                if any(way.startswith(letters) for way in ways)
            }
            best = max(ngrams.table[word,][0] + share for word, share in words.items())
            if before and order > 1:
                best += ngrams.table[before,][1]
                pairs = {
                    word: ngrams.table[before, word][0] for word in words if (before, word) in ngrams.table
                }
                best = max([best, *(log_prob + words[word] for word, log_prob in pairs.items())])
            found = library().asr_lm_best_below(scored.handle, state.handle, letters.encode(), len(letters))
            assert found == pytest.approx(best, abs=1e-5)
            compared += 1
    assert compared == len(said) * (1 + len(WAYS))
    assert library().asr_lm_best_below(scored.handle, state.handle, b"zz", 2) == -np.inf


def test_streams_that_look_ahead_at_the_same_time_hear_what_they_hear_alone(
    tokenizer: PhoneTokenizer, tmp_path: Path
) -> None:
    ngrams = random_ngrams(list(WAYS), 2, np.random.default_rng(5))
    path = ngrams.write(tmp_path / "random.arpa")
    rng = np.random.default_rng(6)
    ways = [way for ways in WAYS.values() for way in ways]
    said = [heard(tokenizer, " ".join(rng.choice(ways, 6)), sure=0.5)[:30] for _ in range(16)]
    lengths = [len(log_probs) for log_probs in said]
    batch = np.stack([np.pad(rows, ((0, 30 - len(rows)), (0, 0))) for rows in said])

    def decoded(threads: int) -> list[str]:
        fresh = Lexicon(WAYS)  # nothing has been looked ahead for with it
        model = LanguageModel.open(path)
        decoders = [BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=fresh) for _ in said]
        accept_batch(decoders, batch, lengths, threads)
        for decoder in decoders:
            decoder.flush()
        return [" ".join(word.text for word in decoder.take()) for decoder in decoders]

    alone = decoded(1)
    assert len(set(alone)) > 8
    for _ in range(20):
        assert decoded(8) == alone


def test_a_word_that_mostly_follows_the_one_before_is_not_lost_in_a_narrow_beam(
    tokenizer: PhoneTokenizer, tmp_path: Path
) -> None:
    estimate_text(["a dog is a dog", "is a dog", "a dog", "their cat", "their cat"] * 4, tmp_path)
    model = LanguageModel.open(tmp_path / "model.bin")
    log_probs = heard(tokenizer, "DEr k@t")
    cat, dog = tokenizer.spell("k@t")[0], tokenizer.spell("dcg")[0]
    log_probs[7, [cat, dog]] = np.log(0.45)
    log_probs[9, tokenizer.spell("dcg")[1]] = log_probs[11, tokenizer.spell("dcg")[2]] = np.log(0.05)
    wide, narrow = (
        BeamDecoder(
            tokenizer.pieces, replace(CONFIG, beam=beam, lm_weight=2.0), model, lexicon=tokenizer.lexicon
        )
        for beam in (64, 1)
    )
    assert decode(wide, log_probs) == decode(narrow, log_probs) == "their cat"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_a_hypothesis_with_the_same_future_said_counts_against_a_word(
    tokenizer: PhoneTokenizer, temperature: float
) -> None:
    config = replace(CONFIG, temperature=temperature, token_threshold=20.0)
    decoder = BeamDecoder(tokenizer.pieces, config, lexicon=tokenizer.lexicon)
    log_probs = heard(tokenizer, "Iz dcg k@t dcg", sure=1 - 1e-9)
    for frame, (said, rival) in enumerate(zip(tokenizer.spell("Iz"), tokenizer.spell("sc"), strict=True)):
        log_probs[2 * frame + 1, [said, rival]] = np.log([0.6, 0.4])
    decoder.accept(log_probs)
    decoder.flush()
    words = decoder.take()
    share = 1 / (1 + (0.4 / 0.6) ** (2 / temperature))
    assert [word.text for word in words] == ["is", "dog", "cat", "dog"]
    assert [word.confidence for word in words] == pytest.approx([share, 1, 1, 1], abs=1e-3)


def test_two_pronunciations_of_a_word_are_one_word_to_its_confidence(
    tokenizer: PhoneTokenizer, model: LanguageModel
) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    log_probs = heard(tokenizer, "A dcg sc DEr k@t", sure=1 - 1e-9)
    log_probs[1, [tokenizer.spell(way)[0] for way in ("A", "e")]] = np.log(0.5)
    decoder.accept(log_probs)
    decoder.flush()
    assert [word.confidence for word in decoder.take()] == pytest.approx([1] * 5, abs=1e-3)


def test_readings_are_written_in_words(tokenizer: PhoneTokenizer, model: LanguageModel) -> None:
    decoder = BeamDecoder(tokenizer.pieces, CONFIG, model, lexicon=tokenizer.lexicon)
    decoder.accept(heard(tokenizer, "e k@t sc DEr dcg"))
    rest = decoder.nbest(1)[0].text
    assert " ".join([*(word.text for word in decoder.take()), rest]) == "a cat saw their dog"
