"""data_prep.librispeech: a tree or a download becomes a manifest, whole or not at all, once."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import lhotse.utils
import pytest
from lhotse import CutSet

import data_prep.librispeech as librispeech
from asr.data.manifest import load_cuts
from asr.errors import UserError

SOME_MD5 = "0" * 32


def prepare(tree: Path, output: Path, *flags: str) -> int:
    arguments = ["--corpus-dir", str(tree), "--parts", "dev-clean", "--output-dir", str(output), *flags]
    return librispeech.main(arguments)


def test_a_tree_becomes_a_manifest_with_normalised_text(tree: Path, tmp_path: Path) -> None:
    assert prepare(tree, tmp_path / "out") == 0
    cuts = list(load_cuts([tmp_path / "out" / "dev-clean.jsonl.gz"]))
    assert [cut.id for cut in cuts] == ["174-1-0000", "174-1-0001", "84-1-0000", "84-1-0001"]
    said = cuts[2].supervisions[0]
    assert (said.text, said.speaker, said.language) == ("it's number 0", "84", "en")
    assert cuts[2].load_audio().shape == (1, 1600)
    assert Path(cuts[2].recording.sources[0].source).is_absolute()


def test_the_folder_above_the_tree_does_as_well(tree: Path, tmp_path: Path) -> None:
    assert prepare(tree.parent, tmp_path / "out") == 0
    assert len(load_cuts([tmp_path / "out" / "dev-clean.jsonl.gz"])) == 4


def test_half_a_part_is_prepared(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "dev-clean/84/1/84-1-0001.flac").unlink()
    assert prepare(tree, tmp_path) == 0
    assert len(load_cuts([tmp_path / "dev-clean.jsonl.gz"])) == 3
    assert "1 of 4 utterances have no audio" in capsys.readouterr().err


def test_unreadable_audio_is_named_and_the_rest_prepared(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "dev-clean/84/1/84-1-0001.flac").write_bytes(b"no audio")
    assert prepare(tree, tmp_path) == 1
    assert len(load_cuts([tmp_path / "dev-clean.jsonl.gz"])) == 3
    assert "84-1-0001.flac" in capsys.readouterr().err


def test_an_up_to_date_manifest_is_kept_and_says_so(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tree, tmp_path)
    before = (tmp_path / "dev-clean.jsonl.gz").stat()
    capsys.readouterr()
    assert prepare(tree, tmp_path) == 0
    assert "up to date" in capsys.readouterr().out
    assert (tmp_path / "dev-clean.jsonl.gz").stat().st_ino == before.st_ino
    prepare(tree, tmp_path, "--force")
    assert (tmp_path / "dev-clean.jsonl.gz").stat().st_ino != before.st_ino


def test_a_changed_tree_is_prepared_again(
    tree: Path, tmp_path: Path, write_sound: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tree, tmp_path)
    transcript = tree / "dev-clean/84/1/84-1.trans.txt"
    transcript.write_text(transcript.read_text() + "84-1-0002 A NEW ONE\n")
    write_sound(transcript.parent / "84-1-0002.flac")
    prepare(tree, tmp_path)
    assert len(load_cuts([tmp_path / "dev-clean.jsonl.gz"])) == 5
    transcript.write_text(transcript.read_text().replace("NEW", "GOOD"))
    prepare(tree, tmp_path)
    assert "a good one" in {cut.supervisions[0].text for cut in load_cuts([tmp_path / "dev-clean.jsonl.gz"])}
    assert "up to date" not in capsys.readouterr().out


def test_a_damaged_manifest_is_made_again(tree: Path, tmp_path: Path) -> None:
    prepare(tree, tmp_path)
    manifest = tmp_path / "dev-clean.jsonl.gz"
    manifest.write_bytes(manifest.read_bytes()[:-30])
    assert prepare(tree, tmp_path) == 0
    assert len(load_cuts([manifest])) == 4


def test_an_interrupted_run_leaves_no_half_written_manifest(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cuts: CutSet, path: str) -> None:
        Path(path).write_bytes(b"half a manifest")
        raise KeyboardInterrupt

    monkeypatch.setattr(CutSet, "to_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(tree, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("part", ["train-clean-5", "nonsense"])
def test_a_part_that_is_not_there_is_a_clear_error(tree: Path, tmp_path: Path, part: str) -> None:
    with pytest.raises(UserError, match=part):
        librispeech.main(["--corpus-dir", str(tree), "--parts", part, "--output-dir", str(tmp_path)])


def test_an_unknown_part_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-clean-10.*there are"):
        librispeech.main(["--parts", "train-clean-10", "--output-dir", str(tmp_path)])


def test_an_empty_part_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "LibriSpeech/dev-clean").mkdir(parents=True)
    with pytest.raises(UserError, match="no utterance"):
        prepare(tmp_path, tmp_path)


# Download: from a folder that stands for OpenSLR


@pytest.fixture
def mirror(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    archive = tmp_path / "mirror" / "12" / "dev-clean.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, "LibriSpeech")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(librispeech.ARCHIVES, "dev-clean", (12, md5))
    return archive.parent.parent.as_uri()


def download(mirror: str, output: Path) -> int:
    return librispeech.main(["--parts", "dev-clean", "--output-dir", str(output), "--mirror", mirror])


def test_a_part_is_downloaded_checked_unpacked_and_prepared(mirror: str, tmp_path: Path) -> None:
    assert download(mirror, tmp_path / "data") == 0
    assert len(load_cuts([tmp_path / "data" / "dev-clean.jsonl.gz"])) == 4


def test_nothing_is_downloaded_twice(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download(mirror, tmp_path / "data")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a second download")

    monkeypatch.setattr(librispeech, "resumable_download", refuse)
    assert download(mirror, tmp_path / "data") == 0
    (tmp_path / "data/LibriSpeech/dev-clean/.completed").unlink()  # as if it was interrupted while unpacking
    (tmp_path / "data/LibriSpeech/dev-clean/84/1/84-1-0001.flac").unlink()
    assert download(mirror, tmp_path / "data") == 0
    assert len(load_cuts([tmp_path / "data" / "dev-clean.jsonl.gz"])) == 4


def test_a_damaged_archive_is_named_and_not_unpacked(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(librispeech.ARCHIVES, "dev-clean", (12, SOME_MD5))
    with pytest.raises(UserError, match=r"dev-clean\.tar\.gz.*MD5"):
        download(mirror, tmp_path / "data")
    assert not (tmp_path / "data" / "LibriSpeech").exists()


def test_no_network_is_a_clear_error(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run again to resume"):
        download(mirror + "/nowhere", tmp_path / "data")


def test_every_part_of_lhotse_has_a_checksum() -> None:
    from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH

    assert set(librispeech.ARCHIVES) == {*LIBRISPEECH, *MINI_LIBRISPEECH}
    assert all(len(md5) == 32 for _, md5 in librispeech.ARCHIVES.values())
    assert librispeech.resumable_download is lhotse.utils.resumable_download
