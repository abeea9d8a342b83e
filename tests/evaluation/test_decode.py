"""A manifest is decoded to its end, by a recogniser that is only a function here."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr import audio
from asr.align.emissions import emissions
from asr.align.forced import Timing, align, spell
from asr.bundle import load_bundle
from asr.data.manifest import load_audio
from asr.errors import UserError
from asr.evaluation.command import parse
from asr.evaluation.decode import Decoded, Failed, Recognise, Spoken, decode, decode_in_processes
from asr.evaluation.latency import Heard, ShownWord, Stream
from asr.evaluation.recogniser import bundle_recogniser
from data_prep.common import utterance


def tell_length(spoken: Spoken) -> Heard:
    words = tuple(ShownWord(text, 0, 0, 0, 0, 1) for text in f"{len(spoken.samples)} samples".split())
    return Heard(Stream(words, 0.0, 0.0, 0, 0), None, len(spoken.samples) / 16000, 0.0)


def load_tell_length() -> Recognise:
    return tell_length


def load_death() -> Recognise:
    raise MemoryError


@pytest.fixture
def cuts(tmp_path: Path) -> list[Cut]:
    """Three utterances, the second of which is at 8 kHz."""
    made = []
    for number, rate in enumerate((16000, 8000, 16000)):
        path = tmp_path / f"u{number}.wav"
        audio.write(path, 0.1 * np.ones(rate // 2, np.float32), rate)
        made.append(utterance(f"u{number}", path, "Two words", speaker="s"))
    return made


def test_every_utterance_is_decoded_in_order_at_16_khz(cuts: list[Cut]) -> None:
    outcomes = list(decode(cuts, tell_length))
    assert [each.utterance.utt_id for each in outcomes if isinstance(each, Decoded)] == ["u0", "u1", "u2"]
    assert all(isinstance(each, Decoded) and each.heard.audio_seconds == 0.5 for each in outcomes)
    first = outcomes[0]
    assert isinstance(first, Decoded)
    assert (first.utterance.reference, first.utterance.hypothesis) == ("two words", "8000 samples")


def test_audio_that_has_gone_is_named_and_the_rest_is_decoded(cuts: list[Cut], tmp_path: Path) -> None:
    (tmp_path / "u1.wav").unlink()
    outcomes = list(decode(cuts, tell_length))
    assert [type(each) for each in outcomes] == [Decoded, Failed, Decoded]
    assert isinstance(outcomes[1], Failed) and "u1.wav: no such file" in outcomes[1].reason
    assert "\n" not in outcomes[1].reason


@pytest.mark.parametrize("damage", ["text", "empty", "shorter"])
def test_damaged_audio_is_one_line_that_names_the_file(cuts: list[Cut], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "u0.wav"
    if damage == "shorter":
        audio.write(path, np.ones(1000, np.float32))
    else:
        path.write_bytes(b"no audio at all" if damage == "text" else b"")
    with pytest.raises(UserError, match=r"u0\.wav") as caught:
        load_audio(cuts[0])
    assert "\n" not in str(caught.value)


def test_not_a_number_is_refused(cuts: list[Cut], tmp_path: Path) -> None:
    samples = np.zeros(8000, np.float32)
    samples[10] = np.nan
    soundfile.write(tmp_path / "u0.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match=r"u0\.wav: NaN"):
        load_audio(cuts[0])


def test_the_recogniser_hears_a_cut_as_it_hears_the_file(cuts: list[Cut], tmp_path: Path) -> None:
    heard: list[NDArray[np.float32]] = []
    list(decode(cuts[1:2], lambda spoken: heard.append(spoken.samples) or tell_length(spoken)))
    np.testing.assert_array_equal(heard[0], audio.read(tmp_path / "u1.wav"))


def test_processes_give_what_one_process_gives(cuts: list[Cut], tmp_path: Path) -> None:
    (tmp_path / "u1.wav").unlink()
    alone, shared = decode(cuts, tell_length), decode_in_processes(cuts, load_tell_length, jobs=2)
    for one, other in zip(alone, shared, strict=True):
        if isinstance(one, Decoded) and isinstance(other, Decoded):
            assert one.utterance == other.utterance
        else:
            assert one == other


def test_a_process_that_dies_is_one_clear_line(cuts: list[Cut]) -> None:
    with pytest.raises(UserError, match="lower --jobs"):
        list(decode_in_processes(cuts, load_death, jobs=1))


def arguments(bundle: Path, *more: str) -> Namespace:
    return parse(["--model", str(bundle), "--cuts", "none", "--beam", "1", "--vad", "off", *more])


def text(heard: Heard) -> str:
    return " ".join(word.text for word in heard.stream.words)


def test_chunks_do_not_change_the_text(bundle: Path, audio: NDArray[np.float32]) -> None:
    spoken = Spoken("u", audio, "the dog")
    chunks = ("0", "40", "320", "10000")
    texts = [text(bundle_recogniser(arguments(bundle, "--chunk", chunk), {})(spoken)) for chunk in chunks]
    assert texts[0] and len(set(texts)) == 1


def test_utterances_do_not_influence_each_other(bundle: Path, audio: NDArray[np.float32]) -> None:
    recognise = bundle_recogniser(arguments(bundle), {})
    spoken = Spoken("u", audio, "the dog")
    first, second = recognise(spoken), recognise(spoken)
    assert text(first) == text(second) and first.reference == second.reference
    empty = recognise(Spoken("e", np.zeros(0, np.float32), ""))
    assert (text(empty), empty.reference) == ("", ())


def test_the_reference_times_are_those_of_offline_alignment(bundle: Path, audio: NDArray[np.float32]) -> None:
    """Though they are taken from the log-probabilities of the stream, to save a second pass."""
    loaded = load_bundle(bundle)
    offline = emissions(loaded.model, [audio])
    expected = align(offline, spell("the lazy dog", loaded.tokenizer), Timing(loaded.model.frame_seconds))
    heard = bundle_recogniser(arguments(bundle, "--chunk", "100"), {})(Spoken("u", audio, "the lazy dog"))
    assert heard.reference is not None
    assert [(word.text, word.start, word.end) for word in heard.reference] == [
        (word.text, word.start, word.end) for word in expected
    ]


def test_a_reference_that_cannot_be_aligned_has_no_times(bundle: Path, audio: NDArray[np.float32]) -> None:
    recognise = bundle_recogniser(arguments(bundle), {})
    assert recognise(Spoken("u", audio, "42 dogs")).reference is None
    assert recognise(Spoken("u", audio[:800], "the lazy dog")).reference is None


def test_a_bundle_can_be_loaded_in_processes(bundle: Path, cuts: list[Cut]) -> None:
    load = partial(bundle_recogniser, arguments(bundle), {})
    shared = [each.utterance for each in decode_in_processes(cuts, load, 1) if isinstance(each, Decoded)]
    assert shared == [each.utterance for each in decode(cuts, load()) if isinstance(each, Decoded)]
