"""The `asr` command: finds the sub-command's module, and turns what a user can mend into one line.

Modules are imported when they are called, so that `asr transcribe` never loads what training needs.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Callable

from asr.errors import UserError

COMMANDS = {
    "train": ("asr.training.command", "train a model from a YAML config"),
    "tokenizer": ("asr.tokenizer", "train the SentencePiece tokenizer on manifests"),
    "lm": ("asr.lm", "an n-gram language model from text; perplexity"),
    "neural-lm": ("asr.neural_lm.command", "a neural language model from text, beside the n-grams"),
    "evaluate": ("asr.evaluation.command", "word error rate with confidence intervals"),
    "align": ("asr.align.command", "times of the words of a known text: CTM, TextGrid, JSON, SRT"),
    "calibrate": ("asr.calibrate.command", "fit a bundle's decoding settings on development data"),
    "transcribe": ("asr.transcribe", "transcribe files or standard input, chunk by chunk"),
    "average": ("asr.training.average", "the mean of the weights of models and checkpoints"),
    "pack": ("asr.pack", "write a bundle in a quarter of the space, to give away"),
    "bench": ("asr.bench", "how fast it is: recurrence, step, end-to-end, decoding, streams, training, gpu"),
    "inspect": ("asr.inspect.command", "a picture of what a model does with a recording"),
    "mic": ("asr.mic", "transcribe a microphone while you speak"),
    "serve": ("asr.serving.command", "a server: the page in the browser, websockets, HTTP"),
}


def run(main: Callable[[], int | None]) -> None:
    """Call a command's main function and exit with its status; errors of the user's are one line, exit 2."""
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        status = fail(str(error))
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit fails again
        status = 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        status = fail(f"{error.filename or 'output'}: no space left on the disk; free some and run again")
    sys.exit(status)


class at_least:
    """An argparse type: a number not below `least`; argparse says the rest."""

    def __init__(self, least: float, kind: type[int] | type[float]) -> None:
        self.least, self.kind = least, kind

    def __call__(self, text: str) -> int | float:
        number = self.kind(text)
        if not number >= self.least:
            raise argparse.ArgumentTypeError(f"{text} is below {self.least}")
        return number


def fail(message: str) -> int:
    print(f"asr: error: {message}", file=sys.stderr)
    return 2


def dispatch(argv: list[str]) -> int:
    """`asr NAME ARGUMENTS...` -> the exit status of that command."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print("usage: asr COMMAND ...   (asr COMMAND --help tells more)\n")
        print("\n".join(f"  {command:<12}{help}" for command, (_, help) in COMMANDS.items()))
        return 0 if argv else 2
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
    return importlib.import_module(COMMANDS[name][0]).main(argv[1:])


def main() -> None:
    run(lambda: dispatch(sys.argv[1:]))
