from __future__ import annotations

from pathlib import Path

import pytest

from asr.decoding.hotwords import Hotword, read_hotwords
from asr.errors import UserError

PIECES = ("<blank>", "<unk>", "▁new", "▁york", "'", *"abcdefghijklmnopqrstuvwxyö")  # no z


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_has_a_phrase_a_line_with_boosts_and_comments(tmp_path: Path) -> None:
    text = "\ufeff# places\nNew  York\nO'Brien\t2.5 \n\nköln # on the Rhine\n"
    assert read_hotwords(write(tmp_path / "list.txt", text), PIECES) == (
        Hotword("new york"),
        Hotword("o'brien", 2.5),
        Hotword("köln"),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--- \t2", "the phrase is empty"),
        ("new york\tmuch", "the boost 'much' is not a number"),
        ("new york\t", "the boost '' is not a number"),
        ("new york\t-1", "the boost of 'new york' has to be above 0, not -1"),
        ("new york\tinf", "the boost of 'new york' has to be above 0, not inf"),
        ("zürich", "the letter 'z' of 'zürich' is in no piece"),
    ],
)
def test_a_bad_line_is_named_with_file_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "list.txt", f"york\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt, line 2: ") as caught:
        read_hotwords(path, PIECES)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_fifty_thousand_hotwords_are_too_many(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "york\n" * 50_000)
    with pytest.raises(UserError, match=r"list\.txt: 50000 hotwords are too many, 20000 at most"):
        read_hotwords(path, PIECES)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["no file", "not text"])
def test_what_is_no_list_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt: .* one phrase a line"):
        read_hotwords(tmp_path / "list.txt", PIECES)
