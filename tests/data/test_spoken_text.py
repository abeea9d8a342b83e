from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr.data.dataset import PhoneTimes
from asr.data.spoken_text import (
    LONGEST_PAUSE,
    PhoneBank,
    SpokenSentences,
    SpokenText,
    pronounce,
    read_lexicon,
    read_sentences,
)
from asr.errors import UserError
from asr.phones import INDEX, PHONES, SILENCE
from asr.text import Tokenizer
from tests.conftest import SENTENCES

P = len(PHONES)


def bank(*utterances: str, slots: int = 3) -> PhoneBank:
    """Every phone of the utterances lasts `slots` slots, and is certain."""
    rows, posteriors = [], []
    for utterance in utterances:
        phones = [INDEX[phone] for phone in utterance.split()]
        around = [SILENCE, *phones, SILENCE]
        for index, phone in enumerate(phones):
            rows.append((phone, around[index], around[index + 2], len(posteriors), slots))
            for _ in range(slots):
                row = np.zeros(P, np.uint8)
                row[phone] = 255
                posteriors.append(row)
    return PhoneBank(np.array(posteriors), np.array(rows))


def test_a_phone_is_taken_from_between_the_same_neighbours_where_there_are_such() -> None:
    said = bank("K AE T", "B AE D", "K AE D")
    rng = np.random.default_rng(0)
    ae = INDEX["AE"]
    for left, right, first in (("K", "T", 3), ("B", "D", 12), ("K", "D", 21)):
        assert {said.draw(ae, INDEX[left], INDEX[right], rng)[0] for _ in range(20)} == {first}
    # no B AE T: the right neighbour counts more, since it colours the end of a vowel
    assert {said.draw(ae, INDEX["B"], INDEX["T"], rng)[0] for _ in range(20)} == {3}
    # nothing like it: any AE
    assert {said.draw(ae, INDEX["M"], INDEX["N"], rng)[0] for _ in range(50)} == {3, 12, 21}


def test_a_sentence_is_its_phones_one_after_the_other() -> None:
    said = bank("SIL K AE T SIL").say(
        [INDEX[p] for p in ["SIL", "T", "AE", "K", "SIL"]], np.random.default_rng(0)
    )
    assert [PHONES[row] for row in said.argmax(-1)[::3]] == ["SIL", "T", "AE", "K", "SIL"]
    assert said.dtype == np.uint8


def test_long_silences_are_cut() -> None:
    said = bank("SIL K SIL", slots=100).say([SILENCE, INDEX["K"]], np.random.default_rng(0))
    assert len(said) == LONGEST_PAUSE + 100


def test_a_phone_that_was_never_heard_is_named() -> None:
    with pytest.raises(UserError, match="no ZH"):
        bank("K AE T").say([INDEX["ZH"]], np.random.default_rng(0))


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    words = {word for sentence in SENTENCES for word in sentence.split()} - {"zebras"}
    lines = [f"{word} K AE T\n" for word in sorted(words)]
    path = tmp_path / "lexicon.txt"
    path.write_text("".join([*lines, "the B AE D\n"]))
    return path


def test_words_are_said_in_each_of_their_ways_with_silence_around_them(lexicon: Path) -> None:
    words = read_lexicon(lexicon)
    rng = np.random.default_rng(0)
    ways = {tuple(pronounce("the", words, 0.0, rng)) for _ in range(40)}
    assert ways == {(SILENCE, *(INDEX[p] for p in way.split()), SILENCE) for way in ("K AE T", "B AE D")}
    assert pronounce("fox fox", words, 1.0, rng).count(SILENCE) == 3
    assert pronounce("fox fox", words, 0.0, rng).count(SILENCE) == 2


def test_sentences_with_unknown_words_are_left_out_and_long_ones_cut(lexicon: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join([*SENTENCES, "Fox", "the the the the the"]))
    found = read_sentences(text, read_lexicon(lexicon), (2, 4))
    assert found[:3] == [
        "the quick brown fox",
        "jumps over the lazy",
        "pack my box with",
    ]  # "dog" is too short
    assert not any("zebras" in sentence for sentence in found) and "fox" not in found
    assert found[-1] == "the the the the"


def test_batches_are_a_function_of_their_number_and_can_be_aligned(
    lexicon: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    text, saved = tmp_path / "text.txt", tmp_path / "bank.npz"
    text.write_text("\n".join(SENTENCES))
    bank("SIL K AE T SIL", "B AE D", slots=12).save(saved)
    config = SpokenText((text,), lexicon, saved, share=1.0)
    sentences = SpokenSentences(config, tokenizer, slots=2, frame_samples=640, seconds=60.0, seed=1)
    batch, again, other = (sentences.batch(0, number) for number in (3, 3, 4))
    assert batch.texts == again.texts and np.array_equal(batch.posteriors, again.posteriors)
    assert batch.texts != other.texts
    assert batch.posteriors.shape[2:] == (2, P)
    assert batch.posteriors.size(0) * batch.posteriors.size(1) * 0.04 <= 60.0
    frames = batch.lengths // 640
    assert (batch.token_lengths <= frames).all() and int(frames.max()) == batch.posteriors.size(1)
    for ids, length, sentence in zip(batch.tokens, batch.token_lengths, batch.texts, strict=True):
        assert tokenizer.decode(ids[:length].tolist()) == sentence
    # what lies past a sentence's end is silence
    short = int(frames.argmin())
    assert (batch.posteriors[short, frames[short] :, :, SILENCE] == 1).all()


def test_labels_follow_the_speed_of_the_audio() -> None:
    times = PhoneTimes(np.array([SILENCE, 5, 7]), np.array([0.1, 0.5, 1.0]), 1.4)
    seconds = np.array([0.05, 0.2, 0.5, 0.99, 1.2, 1.5])
    assert times.labels(seconds).tolist() == [SILENCE, SILENCE, 5, 5, 7, SILENCE]
