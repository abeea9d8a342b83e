"""Compiles the native libraries into the wheel; everything else about the package is in pyproject.toml.

A wheel is also built where there is no compiler: a library is then compiled at first use, or done without.
"""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# By its path: an isolated build does not have the package on its own path.
_spec = importlib.util.spec_from_file_location("native", Path(__file__).parent / "asr" / "native.py")
assert _spec is not None and _spec.loader is not None
native = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(native)

LIBRARIES = {"asr.ops._mgu": native.MGU, "asr.decoding._decoder": native.DECODER}


def library(name: str) -> native.Library:
    """By the extension's name, of which setuptools sometimes gives the last part alone."""
    return next(library for full, library in LIBRARIES.items() if full.endswith(name))


class BuildLibraries(build_ext):
    """Plain shared libraries, loaded with ctypes: no Python.h, no torch headers."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1]) / native.file_name(library(fullname)))

    def build_extension(self, ext: Extension) -> None:
        try:
            native.compile_library(library(ext.name), Path(self.get_ext_fullpath(ext.name)))
        except native.BuildError as error:
            self.warn(f"{ext.name} is left out of this wheel: {error}")


class AnyPython(bdist_wheel):
    """One wheel for every Python of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def extension(name: str) -> Extension:
    root = Path(__file__).parent
    sources = [str(path.relative_to(root)) for path in library(name).sources]
    return Extension(name, sources=sources, optional=True)


setup(
    ext_modules=[extension(name) for name in LIBRARIES],
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": AnyPython},
)
