"""The corpus of tones that tests of training share."""

from tests.training.conftest import corpus

__all__ = ["corpus"]
