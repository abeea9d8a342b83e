"""Finding or making our shared libraries. Knows nothing about torch: setup.py loads it too.

In this order: the library that came with the wheel, the one in the user's cache, a compiler. A library's name
holds a hash of everything that it is made from, so that an old one is never taken for the present one.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("asr")

PACKAGE = Path(__file__).parent
_FLAGS = ("-O3", "-fno-math-errno", "-fvisibility=hidden", "-fPIC", "-shared")
_SUFFIXES = {".c", ".cc", ".h"}


class BuildError(Exception):
    """No library could be made; the message is one line saying why."""


class Library(NamedTuple):
    """What a library is made from. Not a dataclass: those need the module to be imported by its name."""

    name: str
    package: Path  # where a wheel holds the library, and, in csrc, its sources
    compilers: tuple[str, ...]
    variable: str  # the environment's name for the compiler
    flags: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...]  # the first that compiles

    @property
    def sources(self) -> list[Path]:
        return sorted(path for path in (self.package / "csrc").iterdir() if path.suffix in {".c", ".cc"})


# OpenMP shares torch's pool of threads; a compiler without it (Apple's) gets threads of its own.
MGU = Library(
    name="mgu",
    package=PACKAGE / "ops",
    compilers=("cc", "gcc", "clang"),
    variable="CC",
    flags=("-std=gnu11", *_FLAGS),
    alternatives=(("-fopenmp",), ("-DMGU_PTHREADS", "-pthread")),
)
DECODER = Library(
    name="decoder",
    package=PACKAGE / "decoding",
    compilers=("c++", "g++", "clang++"),
    variable="CXX",
    flags=("-std=c++17", *_FLAGS),
    alternatives=(("-pthread",),),
)


def file_name(library: Library) -> str:
    """File name of the library made from the present sources."""
    made_from = [sys.platform, platform.machine(), *library.flags, *sum(library.alternatives, ())]
    digest = hashlib.sha256("\n".join(made_from).encode())
    for path in sorted((library.package / "csrc").iterdir()):
        if path.suffix in _SUFFIXES:
            digest.update(path.read_bytes())
    return f"_{library.name}_{digest.hexdigest()[:16]}.so"


def cache_directory() -> Path:
    """Per-user directory for compiled libraries."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"


def find_or_build(library: Library) -> Path:
    """Path of the library, compiled now if need be. Raises `BuildError`."""
    name = file_name(library)
    try:
        for path in (library.package / name, cache_directory() / name):
            if path.is_file():
                return path
        log.warning("compiling the %s library, once: up to a minute", library.name)
        compile_library(library, cache_directory() / name)
        return cache_directory() / name
    except (OSError, RuntimeError) as error:  # RuntimeError: Path.home() of a user without one
        raise BuildError(f"cannot write {name} to the user's cache: {error}") from error


def find_compiler(library: Library) -> str | None:
    """The environment's choice, or the first that is there."""
    first, *others = library.compilers
    return next(filter(None, map(shutil.which, [os.environ.get(library.variable) or first, *others])), None)


def compile_library(library: Library, path: Path) -> None:
    """Compile the sources to `path`, which appears complete or not at all. Raises `BuildError`, OSError."""
    compiler = find_compiler(library)
    if compiler is None:
        *some, last = library.compilers
        kind = "C++" if library.variable == "CXX" else "C"
        raise BuildError(f"no {kind} compiler ({', '.join(some)} or {last}) on the PATH")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sources = [str(source) for source in library.sources]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as directory:
        made = Path(directory) / path.name
        for alternative in library.alternatives:
            command = [compiler, *library.flags, *alternative, *sources, "-o", str(made)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode == 0:
                os.replace(made, path)
                return
    lines = result.stderr.strip().splitlines() or ["no message"]
    raise BuildError(f"{compiler} failed on the {library.name} library: {lines[0]}")
