"""What README and recipes tell users to type exists: every command, every option, every file."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from asr.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("recipes/*/*"))]
LINKS = re.compile(r"\]\((?!http)([^)#]+)\)")


def commands() -> list[list[str]]:
    """Each `asr ...` and `python -m ...` of the pages, split as a shell would."""
    found = []
    for page in PAGES:
        if page.suffix in (".md", ".sh"):
            text = page.read_text(encoding="utf-8").replace("\\\n", " ")
            lines = re.findall(r"^[ \t|]*(?:.*\| )?((?:asr|python -m) [a-z].*)$", text, re.MULTILINE)
            found += [shlex.split(line, comments=True) for line in lines if "`" not in line]
    return found


@cache
def help_of(module: str) -> str:
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        importlib.import_module(module).main(["--help"])
    return text.getvalue()


def module_of(command: list[str]) -> str:
    return COMMANDS[command[1]][0] if command[0] == "asr" else command[2]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_option_that_is_written_down_exists(command: list[str]) -> None:
    options = [word.split("=")[0] for word in command if word.startswith("--")]
    known = help_of(module_of(command))
    assert known
    assert [option for option in options if option not in known] == []


def test_the_pages_have_commands_to_check() -> None:
    assert {"transcribe", "evaluate", "train", "tokenizer"} <= {
        command[1] for command in commands() if command[0] == "asr"
    }


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=str)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in LINKS.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
