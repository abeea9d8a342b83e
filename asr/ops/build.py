"""Finding or making the shared library of the C operator. Knows nothing about torch: setup.py loads it too.

In this order: the library that came with the wheel, the one in the user's cache, a compiler. A library's name
holds a hash of everything that it is made from, so that an old one is never taken for the present one.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parent
SOURCE = PACKAGE / "csrc" / "mgu.c"
HEADERS = [PACKAGE / "csrc" / "mgu_kernels.h"]
FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fvisibility=hidden", "-fPIC", "-shared"]
# OpenMP shares torch's pool of threads; a compiler without it (Apple's) gets threads of its own.
THREADING = [["-fopenmp"], ["-DMGU_PTHREADS", "-pthread"]]


class BuildError(Exception):
    """No library could be made; the message is one line saying why."""


def library_name() -> str:
    """File name of the library made from the present sources."""
    made_from = [sys.platform, platform.machine(), *FLAGS, *THREADING[0], *THREADING[1]]
    digest = hashlib.sha256("\n".join(made_from).encode())
    for path in [SOURCE, *HEADERS]:
        digest.update(path.read_bytes())
    return f"_mgu_{digest.hexdigest()[:16]}.so"


def cache_directory() -> Path:
    """Per-user directory for compiled libraries."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"


def find_or_build() -> Path:
    """Path of the library, compiled now if need be (a few seconds). Raises `BuildError`."""
    name = library_name()
    try:
        for path in (PACKAGE / name, cache_directory() / name):
            if path.is_file():
                return path
        compile_library(cache_directory() / name)
        return cache_directory() / name
    except (OSError, RuntimeError) as error:  # RuntimeError: Path.home() of a user without one
        raise BuildError(f"cannot write {name} to the user's cache: {error}") from error


def compile_library(path: Path) -> None:
    """Compile the sources to `path`, which appears complete or not at all. Raises `BuildError`, OSError."""
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CC") or "cc", "gcc", "clang"])), None)
    if compiler is None:
        raise BuildError("no C compiler (cc, gcc or clang) on the PATH")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as directory:
        made = Path(directory) / path.name
        for threading in THREADING:
            command = [compiler, *FLAGS, *threading, str(SOURCE), "-o", str(made)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode == 0:
                os.replace(made, path)
                return
    lines = result.stderr.strip().splitlines() or ["no message"]
    raise BuildError(f"{compiler} failed on {SOURCE.name}: {lines[0]}")
