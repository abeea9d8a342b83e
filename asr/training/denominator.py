"""The denominator of maximum mutual information (MMI): all that could have been said, by n-grams of tokens.

CTC says how likely the reference is; this says how likely everything is, the reference included. Training on
the difference (CTC-CRF, arXiv 1904.13143; lattice-free MMI, Povey et al. 2016) makes the reference likelier
than its rivals. Sums over alignments are those of CTC: a token sounds for one or more frames, blanks may come
between tokens and have to between equal ones. B batch, T frames, V vocabulary with the blank at 0, S states,
A arcs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asr.ops import cpu
from asr.text import BLANK


class DenominatorGraph(NamedTuple):
    """What can follow what. A state is a history: below V of the last token alone, 0 at the beginning; above
    of more tokens, in the order in which they were said. A token follows in a history with the sum of its
    weights there and, times `backoff`, in the history without its oldest token: n-grams are interpolated.

    tokens (S,): the last one of a history. lower (S,): the history without its oldest token; below V itself,
    where `unigrams` are what is lower. backoff (S,): the share of what follows that is left to them. offsets
    (S + 1,): where the arcs of a state begin. targets, weights (A,): to which state an arc leads, with what
    share of what follows; none to the token itself. again_targets, again_weights (S,): the arc to that; -1
    and 0 for none. unigrams (V,). Whole numbers are int64.
    """

    tokens: Tensor
    lower: Tensor
    backoff: Tensor
    offsets: Tensor
    targets: Tensor
    weights: Tensor
    again_targets: Tensor
    again_weights: Tensor
    unigrams: Tensor

    def to(self, device: torch.device) -> DenominatorGraph:
        return DenominatorGraph(*(tensor.to(device) for tensor in self))


def denominator_graph(sequences: Iterable[Sequence[int]], vocabulary: int, order: int) -> DenominatorGraph:
    """Of n-grams of up to `order` (2 or more) tokens of the sequences.

    Smoothed by Witten and Bell (1991): each order with the one below it, the unigrams with the even
    distribution; none to the blank.
    """
    texts = [(BLANK, *sequence) for sequence in sequences]
    ngrams: Counter[tuple[int, ...]] = Counter()
    for n in range(2, order + 1):
        ngrams.update(
            ngram for text in texts for ngram in zip(*(text[first:] for first in range(n)), strict=False)
        )
    states: dict[tuple[int, ...], int] = {(token,): token for token in range(vocabulary)}
    for ngram in ngrams:  # shorter ones first, so that what is lower has a lower number
        states.setdefault(ngram[:-1], len(states))

    def longest(history: tuple[int, ...]) -> int:
        while history not in states:
            history = history[1:]
        return states[history]

    arcs = sorted((states[ngram[:-1]], longest(ngram), count) for ngram, count in ngrams.items())
    source, target, count = np.array(arcs, np.int64).reshape(-1, 3).T
    tokens = np.array([history[-1] for history in states])
    lower = np.array([states[history[1:] or history] for history in states])
    seen = np.bincount(source, count, len(states))
    kinds = np.bincount(source, minlength=len(states)).clip(min=1)
    weight = count / (seen + kinds)[source]
    again = tokens[source] == tokens[target]
    again_target, again_weight = np.full(len(states), -1), np.zeros(len(states))
    again_target[source[again]], again_weight[source[again]] = target[again], weight[again]
    first = np.searchsorted(source[~again], np.arange(len(states) + 1))

    said = np.bincount([token for text in texts for token in text[1:]], minlength=vocabulary)
    even = np.full(vocabulary, 1 / (vocabulary - 1))
    even[BLANK] = 0.0
    different = max(1, np.count_nonzero(said))
    unigrams = (said + different * even) / (said.sum() + different)

    def real(numbers: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(numbers.astype(np.float32))

    def whole(numbers: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64))

    return DenominatorGraph(
        tokens=whole(tokens),
        lower=whole(lower),
        backoff=real(kinds / (seen + kinds)),
        offsets=whole(first),
        targets=whole(target[~again]),
        weights=real(weight[~again]),
        again_targets=whole(again_target),
        again_weights=real(again_weight),
        unigrams=real(unigrams),
    )


def log_denominator(log_probs: Tensor, frames: Tensor, graph: DenominatorGraph) -> Tensor:
    """log_probs (B, T, V) and frames (B,) of them that count -> (B,): ln of the sum over all token sequences.

    Differentiable in log_probs. On a CPU in C where that is there.
    """
    if log_probs.device.type == "cpu" and cpu.is_available():
        return _InC.apply(log_probs, frames, graph)
    return _Scaled.apply(log_probs, frames, graph)


class _InC(torch.autograd.Function):
    """Value and gradient at once: asr/ops/csrc/denominator.c."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, frames: Tensor, graph: DenominatorGraph) -> Tensor:
        given = log_probs.detach().float().contiguous()
        total = torch.empty(len(given), dtype=torch.float64)
        occupied = torch.zeros_like(given)
        lengths = frames.long().contiguous()
        pointers = (tensor.data_ptr() for tensor in (given, lengths, *graph, total, occupied))
        if cpu.loaded().denominator(
            *pointers, *given.shape, len(graph.tokens), cpu.threads(), cpu.instruction_set()
        ):
            raise MemoryError("not enough memory for the sums of the denominator")
        ctx.save_for_backward(occupied)
        return total.to(log_probs.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (occupied,) = ctx.saved_tensors
        return occupied * gradients[0][:, None, None], None, None


class _Scaled(torch.autograd.Function):
    """Anywhere. Forward and backward sums as probabilities, scaled to 1 in each frame.

    Two parts of a state: its last token sounds, or blanks have followed. (B, S) each; both: (2, B, S).
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, frames: Tensor, graph: DenominatorGraph) -> Tensor:
        batch, time, vocabulary = log_probs.shape
        states, steps = len(graph.tokens), _Steps(graph, vocabulary)
        outputs = log_probs.detach().float().exp().transpose(0, 1).contiguous()  # (T, B, V)
        parts = outputs.new_zeros(time + 1, 2, batch, states)
        parts[0, 0, :, BLANK] = 1.0
        reached = outputs.new_empty(time, batch, states)
        scales = outputs.new_ones(time, batch)
        for frame in range(time):
            here = outputs[frame]
            reached[frame] = steps.enter(parts[frame])
            made = torch.stack(
                [parts[frame].sum(0) * here[:, BLANK, None], reached[frame] * here[:, graph.tokens]]
            )
            scales[frame] = made.sum((0, 2))
            parts[frame + 1] = made / scales[frame, :, None]
        counts = torch.arange(time, device=frames.device)[:, None] < frames
        total = (scales.double().log() * counts).sum(0)
        ctx.save_for_backward(outputs, parts, reached, scales, frames)
        ctx.graph, ctx.steps = graph, steps
        return total.to(log_probs.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        outputs, parts, reached, scales, frames = ctx.saved_tensors
        graph, steps = ctx.graph, ctx.steps
        occupied = torch.zeros_like(outputs)
        after = torch.ones_like(parts[0])  # of the states behind this frame
        for frame in range(len(outputs) - 1, -1, -1):
            inside = frame < frames
            here = outputs[frame] / scales[frame, :, None]
            blank, said = here[:, BLANK, None] * after[0], here[:, graph.tokens] * after[1]
            occupied[frame].index_add_(1, graph.tokens, reached[frame] * said)
            occupied[frame, :, BLANK] = (parts[frame].sum(0) * blank).sum(1)
            occupied[frame] *= inside[:, None]
            after = torch.where(inside[:, None], blank + steps.leave(said), after)
        return occupied.transpose(0, 1) * gradients[0][:, None, None], None, None


class _Steps:
    """From a frame's states to those that sound in the next one, and back. Both are linear."""

    def __init__(self, graph: DenominatorGraph, vocabulary: int) -> None:
        self.graph, self.vocabulary = graph, vocabulary
        states = torch.arange(len(graph.tokens), device=graph.tokens.device)
        self.sources = states.repeat_interleave(graph.offsets.diff())
        self.repeated = states[graph.again_targets >= 0]
        self.again_targets = graph.again_targets[self.repeated]
        self.again_weights = graph.again_weights[self.repeated]
        state, below, share = states[vocabulary:], graph.lower[vocabulary:], graph.backoff[vocabulary:]
        falls = [(state, below, share)]  # of each state, each one below it, and the share that it is given
        while len(state):
            longer = below >= vocabulary
            state, share = state[longer], share[longer] * graph.backoff[below[longer]]
            below = graph.lower[below[longer]]
            falls.append((state, below, share))
        self.fallen, self.below, self.left = (torch.cat(each) for each in zip(*falls, strict=True))

    def enter(self, parts: Tensor) -> Tensor:
        """(2, B, S) -> (B, S)."""
        graph, own = self.graph, slice(self.vocabulary)
        masses = parts.index_add(2, self.below, parts[:, :, self.fallen] * self.left)
        made = parts[1].index_add(1, graph.targets, masses.sum(0)[:, self.sources] * graph.weights)
        made.index_add_(1, self.again_targets, masses[0][:, self.repeated] * self.again_weights)
        given = masses[:, :, own] * graph.backoff[own]
        made[:, own] += graph.unigrams * (given.sum((0, 2))[:, None] - given[1])
        made[:, BLANK] = 0.0
        return made

    def leave(self, said: Tensor) -> Tensor:
        """The transpose: (B, S) -> (2, B, S)."""
        graph, own = self.graph, slice(self.vocabulary)
        said = said.clone()
        said[:, BLANK] = 0.0
        found = torch.zeros_like(said).index_add_(1, self.sources, said[:, graph.targets] * graph.weights)
        masses = torch.stack([found, found])
        masses[0].index_add_(1, self.repeated, said[:, self.again_targets] * self.again_weights)
        given = said[:, own] * graph.unigrams
        every = given.sum(1, keepdim=True)
        masses[:, :, own] += torch.stack([every.expand_as(given), every - given]) * graph.backoff[own]
        made = masses.index_add(2, self.fallen, masses[:, :, self.below] * self.left)
        made[1] += said
        return made
