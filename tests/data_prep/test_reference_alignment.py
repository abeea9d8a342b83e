"""data_prep.reference_alignment: segments of PocketSphinx as words in seconds, and words it does not know."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asr.data.phones import read_phone_times
from asr.errors import UserError
from asr.pronounce import ARPABET, UnknownSound, arpabet
from data_prep import demo, reference_alignment
from data_prep.reference_alignment import Aligned, TimedWord, align, align_in_processes, ctm, timed_words


def test_silences_noises_and_marks_of_pronunciation_are_no_words() -> None:
    segments = [("<s>", 0, 0), ("<sil>", 0, 19), ("the(2)", 20, 29), ("[NOISE]", 30, 39), ("cat", 40, 69)]
    assert [word.text for word in timed_words([*segments, ("</s>", 69, 69)])] == ["the", "cat"]


def test_a_boundary_lies_halfway_between_the_centres_of_two_windows() -> None:
    (word,) = timed_words([("cat", 100, 119)])
    # windows of 25.625 ms from 0.99 s and from 1 s: their centres are at 1.0028 and 1.0128 s
    assert word.start == pytest.approx(1.0078, abs=1e-4) and word.end == pytest.approx(1.2078, abs=1e-4)


def test_words_without_a_pause_between_them_meet() -> None:
    first, second = timed_words([("a", 10, 19), ("cat", 20, 49)])
    assert first.end == second.start


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("ʃ_ˈaɪ_m_ɚ_d_ə", "SH AY M ER D AH"),
        ("f_ˈaɪɚ", "F AY ER"),  # not AY ER from "aɪ" and a lone ɚ by chance: the longest match
        ("v_ˈɪ_l_ɪ_f_ˌɔːɹ_t", "V IH L IH F AO R T"),
        ("b_ˈʌ_ʔ_n̩", "B AH T AH N"),
        ("j_ˈuː_t_ɹ_ɛ_ç_t", "Y UW T R EH K T"),
        ("f_ɹ_ˈæ_n_ʃ_m_ɔ̃", "F R AE N SH M AO N"),
    ],
)
def test_espeak_sounds_become_phones(ipa: str, phones: str) -> None:
    assert arpabet(ipa) == phones


def test_a_sound_without_a_phone_is_named() -> None:
    with pytest.raises(UserError, match="ǃ"):
        arpabet("k_ǃ_a")


def test_every_phone_is_one_of_cmudict() -> None:
    vowels = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
    consonants = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
    assert {phone for phones in ARPABET.values() for phone in phones.split()} == {
        *vowels.split(),
        *consonants.split(),
    }


def test_ctm_has_start_and_duration() -> None:
    assert ctm("84-1-0001", [TimedWord("cat", 0.5, 0.75)]) == "84-1-0001 1 0.500 0.250 cat\n"


def test_espeak_pronounces_with_known_sounds() -> None:
    pytest.importorskip("espeakng_loader")
    from asr.pronounce import Espeak

    espeak = Espeak()
    said = {word: arpabet(espeak.ipa(word, "en-us")) for word in ("quilter's", "shimerda", "moulded")}
    assert said["quilter's"] == "K W IH L T ER Z"
    assert all(said.values())


def test_an_utterance_with_a_sound_that_english_has_not_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Foreign:
        guessed = frozenset({"kung"})

        def __call__(self, samples: object, words: list[str]) -> list[TimedWord] | None:
            if "clicks" in words:
                raise UnknownSound("no phone of CMUdict for 'ǃ'")
            return [TimedWord("kung", 0.0, 1.0)] if "kung" in words else None

    said_in = {"one": "clicks", "two": "kung", "three": "noise"}
    cuts = [SimpleNamespace(id=name, supervisions=[SimpleNamespace(text=said_in[name])]) for name in said_in]
    monkeypatch.setattr(reference_alignment, "_aligner", Foreign)
    monkeypatch.setattr(reference_alignment, "load", lambda cut: None)
    monkeypatch.setattr(reference_alignment, "load_cuts", lambda manifests: cuts)
    monkeypatch.setattr(reference_alignment, "align_in_processes", in_this_process)
    output = tmp_path / "words.ctm"
    assert reference_alignment.main(["--cuts", "any", "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert output.read_text() == "two 1 0.000 1.000 kung\n"
    assert said.err.splitlines() == [
        "one: no phone of CMUdict for 'ǃ'; left out",
        "three: no alignment found; left out",
    ]
    assert "1 utterances, 2 left out; 1 words were pronounced by espeak-ng" in said.out


class Fatal:
    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (1,)  # of the process that unpickles it


def test_a_process_that_dies_is_said_in_one_line() -> None:
    cuts: Any = [Fatal()]
    with pytest.raises(UserError, match="processes died, perhaps for want of memory; lower --jobs"):
        list(align_in_processes(cuts, phones=False, jobs=1))


def in_this_process(cuts: Any, phones: bool, jobs: int) -> Iterator[Aligned]:
    return (align(cut, phones) for cut in cuts)


def test_words_and_phones_of_speech_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    speakers = demo.plan(1, train_size=2, dev_size=2)[6:9]  # the last two of dev, the first of train
    monkeypatch.setattr(demo, "plan", lambda *_, **__: speakers)
    demo.main(["--output-dir", str(tmp_path), "--jobs", "1"])
    words, phones = tmp_path / "words.ctm", tmp_path / "phones.ctm"
    manifest = str(tmp_path / f"{demo.DEV}.jsonl.gz")
    reference_alignment.main(["--cuts", manifest, "--output", str(words), "--phones", str(phones)])
    lines = [line.split() for line in words.read_text().splitlines()]
    said = [text for speaker in speakers[:2] for text in speaker.sentences]
    assert " ".join(line[4] for line in lines) == " ".join(said)
    assert {line[0] for line in lines} >= set(read_phone_times([phones])) > set()
    first = next(line.split() for line in phones.read_text().splitlines() if "SIL" not in line)
    (start,) = {line[2] for line in lines if line[0] == first[0]} & {first[2]}
    assert float(start) > 0  # the first phone begins with the first word
