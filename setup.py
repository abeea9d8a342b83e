"""Compiles the C operator into the wheel; everything else about the package is in pyproject.toml.

A wheel is also built where there is no compiler: the operator is then compiled at first use, or done without.
"""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# By its path: importing the package would import torch, which an isolated build does not have.
_spec = importlib.util.spec_from_file_location(
    "operator_build", Path(__file__).parent / "asr" / "ops" / "build.py"
)
assert _spec is not None and _spec.loader is not None
operator_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(operator_build)


class BuildOperator(build_ext):
    """The operator is a plain shared library, loaded with ctypes: no Python.h, no torch headers."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1]) / operator_build.library_name())

    def build_extension(self, ext: Extension) -> None:
        try:
            operator_build.compile_library(Path(self.get_ext_fullpath(ext.name)))
        except operator_build.BuildError as error:
            self.warn(f"the C operator is left out of this wheel: {error}")


class AnyPython(bdist_wheel):
    """One wheel for every Python of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("asr.ops._mgu", sources=["asr/ops/csrc/mgu.c"], optional=True)],
    cmdclass={"build_ext": BuildOperator, "bdist_wheel": AnyPython},
)
