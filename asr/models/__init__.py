"""The models that come with the package, by name, a bundle in a directory beside this file each; a reader."""

from __future__ import annotations

import argparse
from pathlib import Path

SHIPPED = Path(__file__).parent
DEFAULT = "en-small"
READING = SHIPPED / "reading.ogg"  # seven seconds of LibriSpeech dev-clean (1988-147956-0020, CC BY 4.0)


def shipped() -> list[str]:
    """Their names."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.yaml"))


def find_model(model: str | Path) -> Path:
    """The directory of a bundle: the one given, or else that of a model of the package."""
    named = SHIPPED / model
    plain = Path(model).name == str(model)
    return named if plain and named.is_dir() and not Path(model).is_dir() else Path(model)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option of commands that use a model."""
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="MODEL",
        help=f"a directory that training wrote, or the name of a model of the package ({DEFAULT})",
    )
