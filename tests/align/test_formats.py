"""CTM goes out and comes back; TextGrids cover the recording."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr.align.ctm import read_ctm, write_ctm
from asr.align.textgrid import write_textgrid
from asr.errors import UserError
from asr.transcript import Word

WORDS = [Word("the", 0.1, 0.25, 0.5), Word('"dog"', 0.25, 0.5, 1.0)]


def test_ctm_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ctm"
    path.write_text(write_ctm("u1", WORDS) + ";; a comment\n\n" + write_ctm("two words", WORDS[:1]))
    read = read_ctm(path)
    assert list(read) == ["u1", "two_words"]
    for word, expected in zip(read["u1"], WORDS, strict=True):
        assert (word.text, word.confidence) == (expected.text, expected.confidence)
        assert (word.start, word.end) == pytest.approx((expected.start, expected.end))


def test_ctm_without_confidence_or_order_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.ctm").write_text("u A 1.5 0.5 world\nu A 0.5 0.25 hello\n")
    assert read_ctm(tmp_path / "a.ctm")["u"] == [Word("hello", 0.5, 0.75, 1.0), Word("world", 1.5, 2.0, 1.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no words"),
        ("u 1 0.5 0.1 a\nu 1 0.5 0.1\n", "line 2 has 4 fields"),
        ("u 1 now 0.1 a\n", "line 1: .*must be numbers"),
        ("u 1 0.5 -0.1 a\n", "line 1: .*0 or more"),
        ("u 1 nan 0.1 a\n", "line 1: .*0 or more"),
    ],
)
def test_what_is_not_ctm_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.ctm").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_ctm(tmp_path / "a.ctm")
    assert "\n" not in str(caught.value) and "a.ctm" in str(caught.value)


def test_a_missing_ctm_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.ctm.*asr align"):
        read_ctm(tmp_path / "nothing.ctm")


def intervals(grid: str) -> list[tuple[float, float, str]]:
    found = re.findall(r"xmin = (\S+)\n +xmax = (\S+)\n +text = \"(.*)\"\n", grid)
    return [(float(start), float(end), text) for start, end, text in found]


def test_a_textgrid_covers_the_recording_without_gaps() -> None:
    grid = write_textgrid(WORDS, 0.8)
    assert intervals(grid) == [
        (0.0, 0.1, ""),
        (0.1, 0.25, "the"),
        (0.25, 0.5, '""dog""'),
        (0.5, 0.8, ""),
    ]
    assert "intervals: size = 4" in grid and grid.count("xmax = 0.800") == 3


@pytest.mark.parametrize(
    "words",
    [
        [],
        [Word("a", 0.0, 0.0, 1.0), Word("b", 0.0, 0.0, 1.0)],
        [Word("a", 0.0, 0.3, 1.0), Word("b", 0.1, 0.2, 1.0)],
        [Word("a", 0.5, 0.5, 1.0)],
    ],
)
def test_no_interval_of_a_textgrid_is_empty_or_overlaps(words: list[Word]) -> None:
    found = intervals(write_textgrid(words, 0.5))
    assert [text for *_, text in found if text] == [word.text for word in words]
    assert all(start < end for start, end, _ in found)
    assert [end for _, end, _ in found][:-1] == [start for start, *_ in found][1:]
    assert found[0][0] == 0
