"""data_prep.tsv: every bad row named, every good one kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr import audio
from asr.data.manifest import load_cuts
from asr.errors import UserError
from data_prep import tsv


@pytest.fixture
def folder(tmp_path: Path, write_sound: Callable[..., Path]) -> Path:
    for name in ("a.wav", "b.flac", "sub/c.wav"):
        write_sound(tmp_path / name)
    return tmp_path


def prepare(table: Path, *flags: str) -> int:
    return tsv.main([str(table), "--output", str(table.parent / "out.jsonl.gz"), *flags])


def table(folder: Path, *lines: str, name: str = "t.tsv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def test_paths_and_texts_become_a_manifest(folder: Path) -> None:
    lines = ("path\ttext\tspeaker\tlanguage", 'a.wav\tHe said "go"!\ts1\ten', "sub/c.wav\tDon't.\tunknown\t")
    assert prepare(table(folder, *lines)) == 0
    first, second = load_cuts([folder / "out.jsonl.gz"])
    assert [first.id, second.id] == ["a", "sub/c"]
    assert first.supervisions[0].text == "he said go"
    assert (first.supervisions[0].speaker, first.supervisions[0].language) == ("s1", "en")
    assert (second.supervisions[0].speaker, second.supervisions[0].language) == (None, None)
    assert second.load_audio().shape == (1, 1600)


def test_csv_with_quotes_and_a_byte_order_mark_is_read(folder: Path) -> None:
    path = table(folder, "\ufefftext,utt_id,path", '"Well, yes",u1,a.wav', "no,u2,b.flac", name="t.csv")
    assert prepare(path) == 0
    assert {cut.id: cut.supervisions[0].text for cut in load_cuts([folder / "out.jsonl.gz"])} == {
        "u1": "well yes",
        "u2": "no",
    }


def test_the_audio_may_lie_elsewhere(folder: Path) -> None:
    (folder / "tables").mkdir()
    path = table(folder / "tables", "path\ttext", "a.wav\tyes")
    assert prepare(path, "--audio-root", str(folder)) == 0


def test_each_bad_row_is_named_and_the_rest_prepared(
    folder: Path, capsys: pytest.CaptureFixture[str], write_sound: Callable[..., Path]
) -> None:
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no audio" * 100)
    audio.write(folder / "none.wav", np.zeros(0))
    audio.write(folder / "silent.wav", np.zeros(1600))
    long = write_sound(folder / "long.flac", 3.0)
    (folder / "cut.flac").write_bytes(long.read_bytes()[:-20000])
    bad = {
        "gone.wav\tyes": "no such file",
        "a.wav\t": "empty text",
        "\tyes": "empty path",
        "a.wav\t?!": "no word",
        "a.wav": "1 columns",
        "a.wav\tyes\tno": "3 columns",
        "sub\tyes": "directory",
        "empty.wav\tyes": "empty",
        "none.wav\tyes": "no samples",
        "text.wav\tyes": "not audio",
        "cut.flac\tyes": "truncated",
        "silent.wav\tyes": "silence",
        "b.flac\tthe same file again": "already on line 2",
    }
    assert prepare(table(folder, "path\ttext", "b.flac\tyes", *bad, "sub/c.wav\tyes")) == 1
    errors = capsys.readouterr()
    for line, (row, reason) in enumerate(bad.items(), start=3):
        assert any(f"line {line}:" in said and reason in said for said in errors.err.splitlines()), (
            row,
            reason,
        )
    assert len(errors.err.splitlines()) == len(bad)
    assert "2 utterances" in errors.out and "13 bad rows" in errors.out
    assert len(load_cuts([folder / "out.jsonl.gz"])) == 2


def test_a_row_that_is_not_utf8_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.tsv").write_bytes(b"path\ttext\na.wav\tcaf\xe9\nb.flac\tcaf\xc3\xa9\n")
    assert prepare(folder / "t.tsv") == 1
    assert "line 2: not UTF-8" in capsys.readouterr().err


def test_an_unclosed_quote_swallows_no_rows_unseen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(folder, "path,text", "b.flac,yes", 'a.wav,"yes', "sub/c.wav,no", name="t.csv")
    assert prepare(path) == 1
    assert "quote" in capsys.readouterr().err


def test_many_channels_are_averaged_with_a_remark(
    folder: Path, write_sound: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(folder / "eight.wav", channels=8)
    assert prepare(table(folder, "path\ttext", "eight.wav\tyes")) == 0
    assert "8 channels were averaged" in capsys.readouterr().err
    (cut,) = load_cuts([folder / "out.jsonl.gz"])
    assert cut.load_audio().shape[0] == 8  # the training averages them


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no column 'path'"),
        (b"path\tsentence\na.wav\tyes\n", "no column 'text'"),
        (b"path\ttext\n", "no good row"),
        (b"path\ttext\ngone.wav\tyes\n", "no good row"),
        ("path\ttext\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_table_without_anything_good_is_a_clear_error(folder: Path, content: bytes, reason: str) -> None:
    (folder / "t.tsv").write_bytes(content)
    (folder / "out.jsonl.gz").write_bytes(b"from before")
    with pytest.raises(UserError, match=rf"t\.tsv.*{reason}"):
        prepare(folder / "t.tsv")
    assert (folder / "out.jsonl.gz").read_bytes() == b"from before"


def test_a_missing_table_and_a_wrong_output_name_are_clear_errors(folder: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.tsv"):
        prepare(folder / "gone.tsv")
    with pytest.raises(UserError, match=r"jsonl\.gz"):
        tsv.main([str(table(folder, "path\ttext", "a.wav\tyes")), "--output", str(folder / "out.json")])
