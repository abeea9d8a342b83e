from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from asr.decoding.language_model import LanguageModel
from asr.errors import UserError
from data_prep import librispeech_lm
from tests.decoding.conftest import ARPA

MODEL = "3-gram.pruned.1e-7"
UPPER = "\n".join(line.upper() if line.startswith("-") else line for line in ARPA.split("\n"))
PACKED = gzip.compress(UPPER.replace("<S>", "<s>").replace("</S>", "</s>").encode(), mtime=0)


class Server(BaseHTTPRequestHandler):
    """One file for every name that ends in .arpa.gz, and the ranges that were asked for."""

    def __init__(self, asked: list[str], *arguments: object) -> None:
        self.asked = asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def answer(self, body: bool) -> None:
        asked = self.headers.get("Range", "bytes=0-")
        first = int(asked.removeprefix("bytes=").rstrip("-"))
        if not self.path.endswith(f"/{MODEL}.arpa.gz"):
            return self.send_error(404)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(PACKED) - first))
        self.end_headers()
        if body:
            self.asked.append(asked)
            self.wfile.write(PACKED[first:])

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def mirror(asked: list[str]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, asked)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def download(mirror: str, folder: Path) -> int:
    return librispeech_lm.main([MODEL, "--output-dir", str(folder), "--mirror", mirror])


def lower_case_arpa(folder: Path) -> Path:
    path = folder / "lower.arpa"
    path.write_text(ARPA)
    return path


def test_a_model_is_downloaded_and_converted_to_lower_case(mirror: str, tmp_path: Path) -> None:
    assert download(mirror, tmp_path) == 0
    found = LanguageModel.open(tmp_path / f"{MODEL}.bin").scores("a b a x")
    expected = LanguageModel.open(lower_case_arpa(tmp_path)).scores("a b a x")
    assert found == pytest.approx(expected, abs=0.01)


def test_a_download_goes_on_where_it_was_interrupted(mirror: str, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / f"{MODEL}.arpa.gz").write_bytes(PACKED[:50])
    assert download(mirror, tmp_path) == 0
    assert asked == ["bytes=50-"]
    assert (tmp_path / f"{MODEL}.arpa.gz").read_bytes() == PACKED


def test_nothing_is_downloaded_or_converted_twice(mirror: str, asked: list[str], tmp_path: Path) -> None:
    download(mirror, tmp_path)
    made = os.stat(tmp_path / f"{MODEL}.bin")
    assert download(mirror, tmp_path) == 0
    assert len(asked) == 1 and os.stat(tmp_path / f"{MODEL}.bin") == made


def test_a_damaged_download_is_named_and_not_converted(mirror: str, tmp_path: Path) -> None:
    (tmp_path / f"{MODEL}.arpa.gz").write_bytes(bytes(50))
    with pytest.raises(UserError, match=r"arpa\.gz: incomplete or damaged: .*delete the file"):
        download(mirror, tmp_path)
    assert not (tmp_path / f"{MODEL}.bin").exists()


def test_no_network_is_a_clear_error(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run again to resume, or try --mirror"):
        librispeech_lm.main(["4-gram", "--output-dir", str(tmp_path), "--mirror", mirror])
