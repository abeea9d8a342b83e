from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from asr.cli import COMMANDS, dispatch, run
from asr.errors import UserError


def status(main: Callable[[], int | None]) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        run(main)
    return end.value.code


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


def test_the_exit_status_is_that_of_the_command() -> None:
    assert status(lambda: None) == 0
    assert status(lambda: 1) == 1


def test_what_a_user_can_mend_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(raising(UserError("here.wav: no such file: check the path"))) == 2
    assert capsys.readouterr().err == "asr: error: here.wav: no such file: check the path\n"


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(raising(OSError(errno.ENOSPC, "No space left on device", "out.json"))) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(PermissionError):
        run(raising(PermissionError(errno.EACCES, "Permission denied", "out.json")))


def test_ctrl_c_is_status_130() -> None:
    assert status(raising(KeyboardInterrupt())) == 130


def test_an_unknown_command_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no command 'transcibe'; there are: .*transcribe"):
        dispatch(["transcibe"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        dispatch([command, "--help"])
    assert end.value.code == 0
    assert "--" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(command in listed for command in COMMANDS)
