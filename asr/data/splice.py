"""Speech cut between words and put together in another order, so that no sentence can be learnt by heart.

A recurrence that has read the same few hours thirty times knows what comes next. What it hears is taken apart
here: the words stay, with their sounds, and what stood between them is new each time. The words of one
recording alone, so that there is one voice, one room and one microphone. Lam et al. (Interspeech 2021) put
words of other recordings in a word's place, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.data.phones import PhoneTimes
from asr.phones import SILENCE

FADE = 0.005  # seconds in which one piece goes over into the next


class Spliced(NamedTuple):
    samples: NDArray[np.float32]
    tokens: list[int]
    times: PhoneTimes


def splice(
    samples: NDArray[np.float32],
    rate: int,
    tokens: Sequence[int],
    times: PhoneTimes,
    word_starts: Sequence[bool],
    rng: np.random.Generator,
) -> Spliced:
    """Samples (S,) at `rate`, tokens (U,), and when their U phones were said, with silence between -> all
    three with words in another order, cut at every other place between words on average. A pause stays with
    the word before it, and what is before the first word and behind the last where it is.

    word_starts (U,): whether a token is a word's first.
    """
    spoken = np.flatnonzero(times.ids != SILENCE)
    assert len(spoken) == len(tokens)
    inner = np.flatnonzero(word_starts)[1:]
    places = [0, *inner[rng.random(len(inner)) < 0.5].tolist(), len(tokens)]
    edges = [*spoken[places[:-1]], spoken[-1] + 1]  # of pieces, in phones as `places` are in tokens
    seconds = np.append(times.starts, times.end)
    frames = np.minimum(np.round(seconds * rate).astype(int), len(samples))

    order = rng.permutation(len(places) - 1)
    spans = [(frames[edges[k]], frames[edges[k + 1]]) for k in order]
    joined = _join(samples, [(0, frames[edges[0]]), *spans, (frames[edges[-1]], len(samples))], rate)
    ids, starts, position = [times.ids[: edges[0]]], [times.starts[: edges[0]]], seconds[edges[0]]
    for first, last in [*((edges[k], edges[k + 1]) for k in order), (edges[-1], len(times.ids))]:
        ids.append(times.ids[first:last])
        starts.append(times.starts[first:last] + (position - seconds[first]))
        position += seconds[last] - seconds[first]
    said = [token for k in order for token in tokens[places[k] : places[k + 1]]]
    return Spliced(joined, said, PhoneTimes(np.concatenate(ids), np.concatenate(starts), times.end))


def _join(samples: NDArray[np.float32], spans: Sequence[tuple[int, int]], rate: int) -> NDArray[np.float32]:
    """The spans of `samples` (S,), S in all, one after the other; what comes after one fades out beneath the
    beginning of the next."""
    rise = np.linspace(0, 1, round(FADE * rate), dtype=np.float32)
    joined = np.zeros(len(samples), np.float32)
    position = 0
    for first, last in spans:
        piece = samples[first : last + len(rise)].copy()
        if position:
            head = piece[: len(rise)]
            head *= rise[: len(head)]
        tail = piece[last - first :]
        tail *= 1 - rise[: len(tail)]
        room = joined[position : position + len(piece)]
        room += piece[: len(room)]
        position += last - first
    return joined
