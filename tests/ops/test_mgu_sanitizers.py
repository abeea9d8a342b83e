"""Our C under the address, undefined-behaviour and thread sanitizers, by small drivers in C."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from asr import native

# The thread sanitizer cannot see into libgomp, so it gets the threads that compilers without OpenMP get.
CHECKS = {
    "address": ["-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-DMGU_PTHREADS", "-pthread", "-fsanitize=thread"],
}


@pytest.mark.parametrize(
    ("driver", "beside", "check"),  # beside: sources that the driver does not include
    [
        ("mgu_driver.c", ["mgu_products.c"], "address"),
        ("mgu_driver.c", ["mgu_products.c"], "thread"),
        ("step_driver.c", [], "address"),
    ],
)
def test_our_c_is_clean_and_right_under_sanitizers(
    driver: str, beside: list[str], check: str, tmp_path: Path
) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path / "driver"
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-psabi"]
    command = [
        compiler,
        *flags,
        *CHECKS[check],
        f"-I{native.MGU.package / 'csrc'}",
        str(Path(__file__).with_name(driver)),
        *(str(native.MGU.package / "csrc" / name) for name in beside),
        "-lm",
        "-o",
        str(program),
    ]
    made = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in made.stderr or "unsupported option" in made.stderr:
        pytest.skip(f"this compiler has no {check} sanitizer")
    assert made.returncode == 0, made.stderr
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    ran = subprocess.run([program], capture_output=True, text=True, timeout=300, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
