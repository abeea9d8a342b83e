"""When phones were said, from an aligner's CTM; and what a model with phones as tokens says of each frame.

P phones with silence, T frames, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.align.ctm import read_ctm
from asr.errors import UserError
from asr.phones import INDEX, LETTERS, PHONES, SILENCE


class PhoneTimes(NamedTuple):
    """Of an utterance as recorded: ids (N,), the second in which each phone begins (N,), and all end."""

    ids: NDArray[np.int64]
    starts: NDArray[np.float64]
    end: float

    @property
    def said(self) -> str:
        """The letters of the phones, silence left out."""
        return "".join(LETTERS[PHONES[phone]] for phone in self.ids if phone != SILENCE)

    def labels(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """What is said at each of `seconds` (K,)."""
        labels = self.ids[np.maximum(np.searchsorted(self.starts, seconds, side="right") - 1, 0)]
        return np.where((seconds < self.starts[0]) | (seconds >= self.end), SILENCE, labels)


def read_phone_times(paths: Sequence[Path]) -> dict[str, PhoneTimes]:
    """CTM files of phones -> times of each utterance; UserError for what is no phone."""
    times = {}
    for path in paths:
        for recording, phones in read_ctm(path).items():
            unknown = {phone.text for phone in phones} - set(INDEX)
            if unknown:
                raise UserError(
                    f"{path}: {recording} has a phone {min(unknown)!r}; known are {' '.join(PHONES)}"
                )
            times[recording] = PhoneTimes(
                np.array([INDEX[phone.text] for phone in phones]),
                np.array([phone.start for phone in phones]),
                phones[-1].end,
            )
    return times


def without_places(log_probs: Tensor) -> Tensor:
    """Of a `PhoneTokenizer`'s tokens (..., V), of which each phone's first is as likely as both, its other
    one never: the best path of phones, wherever in a word they are."""
    phones = phone_log_probs(log_probs)
    blank, begins = phones.split([1, len(PHONES) - 1], -1)
    never = torch.full_like(begins, -torch.inf)
    return torch.cat([blank, never[..., :1], begins, never], -1)


def phone_log_probs(log_probs: Tensor) -> Tensor:
    """Of a `PhoneTokenizer`'s tokens (..., V) -> of phones (..., P): both tokens of one; blank is silence."""
    blank, _, begins, continues = log_probs.split([1, 1, len(PHONES) - 1, len(PHONES) - 1], -1)
    return torch.cat([blank, torch.logaddexp(begins, continues)], -1)
