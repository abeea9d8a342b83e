"""The beam under the address and undefined-behaviour sanitizers, by random streams in C++."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from asr import native

DRIVER = Path(__file__).with_name("beam_driver.cc")
SOURCES = (
    *("beam.cc", "trie.cc", "words.cc", "scoring.cc", "hotwords.cc"),
    *("neural.cc", "pronunciations.cc", "look_ahead.cc"),
)


def test_random_streams_are_clean_under_sanitizers(tmp_path: Path) -> None:
    compiler = native.find_compiler(native.DECODER)
    if compiler is None:
        pytest.skip("no C++ compiler")
    program, sources = tmp_path / "driver", native.DECODER.package / "csrc"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    command = [compiler, *flags, "-fno-sanitize-recover=undefined", f"-I{sources}", str(DRIVER)]
    made = subprocess.run(
        [*command, *(str(sources / name) for name in SOURCES), "-o", str(program)],
        capture_output=True,
        text=True,
    )
    if "cannot find" in made.stderr or "unsupported option" in made.stderr:
        pytest.skip("this compiler has no address sanitizer")
    assert made.returncode == 0, made.stderr
    ran = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
