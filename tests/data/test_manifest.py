from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from lhotse import CutSet

from asr.data.manifest import load_cuts, write_cuts
from asr.errors import UserError
from tests.training.conftest import write_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("manifest"), "a", 5, seed=0)


def test_what_is_written_is_read(manifest: Path, tmp_path: Path) -> None:
    cuts = load_cuts([manifest])
    write_cuts(cuts, tmp_path / "new" / "b.jsonl.gz")
    assert list(load_cuts([tmp_path / "new" / "b.jsonl.gz"])) == list(cuts)


def test_a_write_that_fails_leaves_the_old_manifest_and_nothing_else(manifest: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl.gz"
    write_cuts(load_cuts([manifest]), path)
    before = path.read_bytes()

    class Broken(CutSet):
        def to_file(self, path: object) -> None:
            Path(str(path)).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cuts(Broken(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def assert_one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_cuts([tmp_path / "none.jsonl.gz"])
    assert_one_line(error, "none.jsonl.gz", "data_prep")


@pytest.mark.parametrize(
    "content",
    [b"text", gzip.compress(b'{"id": "x"'), gzip.compress(b'{"type": "MonoCut"}\n'), gzip.compress(b"")],
    ids=["no gzip", "half a line", "no cut", "empty"],
)
def test_an_unreadable_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError) as error:
        load_cuts([tmp_path / "bad.jsonl.gz"])
    assert_one_line(error, "bad.jsonl.gz")


def test_a_truncated_manifest_is_named(manifest: Path, tmp_path: Path) -> None:
    content = manifest.read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError) as error:
        load_cuts([tmp_path / "cut.jsonl.gz"])
    assert_one_line(error, "cut.jsonl.gz")


def test_two_utterances_of_one_id_are_refused(manifest: Path) -> None:
    with pytest.raises(UserError) as error:
        load_cuts([manifest, manifest])
    assert_one_line(error, "a-000")


def test_audio_that_has_gone_is_named_with_its_manifest(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, "gone", 4, seed=0)
    (tmp_path / "wav" / "gone-002.wav").unlink()
    load_cuts([manifest])
    with pytest.raises(UserError) as error:
        load_cuts([manifest], check_audio=True)
    assert_one_line(error, "gone-002.wav", "gone.jsonl.gz")
