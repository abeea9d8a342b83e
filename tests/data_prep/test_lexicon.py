"""data_prep.lexicon: which words are pronounced, by whom, and in which order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from lhotse import CutSet

from asr.data.manifest import write_cuts
from asr.errors import UserError
from asr.lexicon import Lexicon
from data_prep import lexicon
from data_prep.common import utterance

DICTIONARY = "a AH\na(2) EY\ncat K AE T\nthe DH AH\nthe(2) DH IY\n"
SPOKEN = {"bilbo": "b_ˈɪ_l_b_oʊ", "baggins": "b_ˈæ_ɡ_ɪ_n_z", "!xu": "ǃ_u"}


class SomeEspeak:
    def ipa(self, word: str, voice: str) -> str:
        return SPOKEN[word]


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CMUdict of three words, and an espeak-ng that can say three others."""
    path = tmp_path / "cmudict"
    path.write_text(DICTIONARY)
    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(get_model_path=lambda name: str(path)))
    monkeypatch.setattr(lexicon, "Espeak", SomeEspeak)


@pytest.fixture
def manifest(tmp_path: Path, write_sound: Callable[..., Path]) -> Callable[[str], Path]:
    """Writes one whose only transcript is the text; its path."""

    def write(text: str) -> Path:
        cut = utterance("one", write_sound(tmp_path / "one.wav"), "a")
        cut.supervisions[0].text = text
        write_cuts(CutSet.from_cuts([cut]), tmp_path / "mine.jsonl.gz")
        return tmp_path / "mine.jsonl.gz"

    return write


def made(tmp_path: Path, *arguments: object) -> str:
    output = tmp_path / "made" / "lexicon.txt"
    assert lexicon.main([*map(str, arguments), "--output", str(output)]) == 0
    Lexicon.load(output)
    return output.read_text()


def text(tmp_path: Path, words: str) -> Path:
    (tmp_path / "text.txt").write_text(words)
    return tmp_path / "text.txt"


def test_a_words_usual_pronunciation_comes_first(tmp_path: Path) -> None:
    assert made(tmp_path, "--text", text(tmp_path, "the cat\na cat")) == (
        "a AH\na EY\ncat K AE T\nthe DH AH\nthe DH IY\n"
    )


def test_a_rare_word_of_a_text_is_left_to_cmudict(tmp_path: Path) -> None:
    words = text(tmp_path, "bilbo the cat\nbilbo bilbo baggins")
    assert made(tmp_path, "--text", words) == "bilbo B IH L B OW\ncat K AE T\nthe DH AH\nthe DH IY\n"
    assert "baggins B AE G IH N Z\n" in made(tmp_path, "--text", words, "--least", 1)


def test_the_whole_dictionary_has_what_nobody_wrote_but_for_spellings_that_no_transcript_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cmudict"
    path.write_text(f"a.m. EY EH M\nable-bodied EY B AH L B AA D IY D\nemail IY M EY L\n{DICTIONARY}")
    found = made(tmp_path, "--text", text(tmp_path, "a cat"), "--whole-dictionary")
    assert found == "a AH\na EY\ncat K AE T\nemail IY M EY L\nthe DH AH\nthe DH IY\n"


def test_every_word_of_a_transcript_is_pronounced(tmp_path: Path, manifest: Callable[[str], Path]) -> None:
    words = text(tmp_path, "a cat")
    assert made(tmp_path, "--text", words, "--cuts", manifest("bilbo baggins")) == (
        "a AH\na EY\nbaggins B AE G IH N Z\nbilbo B IH L B OW\ncat K AE T\n"
    )


def test_a_known_lexicon_stays_as_it_is_and_comes_first(
    tmp_path: Path, manifest: Callable[[str], Path]
) -> None:
    known = "the DH IY\nthe DH AH\nbilbo B AY L B OW\n"
    (tmp_path / "known.txt").write_text(known)
    found = made(tmp_path, "--known", tmp_path / "known.txt", "--cuts", manifest("the cat bilbo"))
    assert found == known + "cat K AE T\n"


def test_where_nothing_is_missing_nobody_is_asked(
    tmp_path: Path, manifest: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    monkeypatch.setattr(lexicon, "Espeak", None)
    (tmp_path / "known.txt").write_text(DICTIONARY.replace("(2)", ""))
    found = made(tmp_path, "--known", tmp_path / "known.txt", "--cuts", manifest("the cat"))
    assert found == DICTIONARY.replace("(2)", "")
    with pytest.raises(UserError, match="pip install pocketsphinx"):
        made(tmp_path, "--known", tmp_path / "known.txt", "--cuts", manifest("the dog"))


def test_a_word_that_espeak_cannot_say_is_named(
    tmp_path: Path, manifest: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(tmp_path, "--cuts", manifest("a !xu")) == "a AH\na EY\n"
    out, err = capsys.readouterr()
    assert "1 it cannot say" in out and err.startswith("!xu: ")


def test_words_have_to_come_from_somewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lexicon.main(["--output", str(tmp_path / "lexicon.txt")])
    assert "give --text FILE or --cuts MANIFEST" in capsys.readouterr().err
