"""The denominator of maximum mutual information (MMI): all that could have been said, by a bigram of tokens.

CTC says how likely the reference is; this says how likely everything is, the reference included. Training on
the difference (CTC-CRF, arXiv 1904.13143; lattice-free MMI, Povey et al. 2016) makes the reference likelier
than its rivals. Sums over alignments are those of CTC: a token sounds for one or more frames, blanks may come
between tokens and have to between equal ones. B batch, T frames, V vocabulary with the blank at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from asr.ops import cpu
from asr.text import BLANK


def bigram(sequences: Iterable[Sequence[int]], vocabulary: int) -> Tensor:
    """Token sequences -> (V, V): the probability of a token after another; row 0: at the beginning.

    Smoothed by Witten and Bell (1991) with the unigram, that with the even distribution; none to the blank.
    """
    pairs = torch.zeros(vocabulary * vocabulary, dtype=torch.float64)
    for sequence in sequences:
        tokens = torch.tensor([BLANK, *sequence])
        if len(tokens) > 1:
            pairs.index_add_(0, tokens[:-1] * vocabulary + tokens[1:], pairs.new_ones(len(tokens) - 1))
    counts = pairs.view(vocabulary, vocabulary)
    even = torch.full((vocabulary,), 1 / (vocabulary - 1), dtype=torch.float64)
    even[BLANK] = 0.0
    return _witten_bell(counts, _witten_bell(counts.sum(0, keepdim=True), even)).float()


def _witten_bell(counts: Tensor, lower: Tensor) -> Tensor:
    total, kinds = counts.sum(-1, keepdim=True), (counts > 0).sum(-1, keepdim=True).clamp(min=1)
    return (counts + kinds * lower) / (total + kinds)


def log_denominator(log_probs: Tensor, frames: Tensor, transitions: Tensor) -> Tensor:
    """log_probs (B, T, V) and frames (B,) of them that count -> (B,): ln of the sum over all token sequences.

    transitions: of `bigram`. Differentiable in log_probs. On a CPU in C where that is there: 10 times faster.
    """
    tensors = (log_probs, frames, transitions)
    if all(tensor.device.type == "cpu" for tensor in tensors) and cpu.is_available():
        return _InC.apply(*tensors)
    return _Scaled.apply(*tensors)


class _InC(torch.autograd.Function):
    """Value and gradient at once: asr/ops/csrc/denominator.c."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, frames: Tensor, transitions: Tensor) -> Tensor:
        given = log_probs.detach().float().contiguous()
        total = torch.empty(len(given), dtype=torch.float64)
        occupied = torch.zeros_like(given)
        lengths, matrix = frames.long().contiguous(), transitions.float().contiguous()
        pointers = (tensor.data_ptr() for tensor in (given, lengths, matrix, total, occupied))
        library = cpu.library()
        assert not isinstance(library, str)
        if library.denominator(*pointers, *given.shape, cpu.threads()):
            raise MemoryError("not enough memory for the sums of the denominator")
        ctx.save_for_backward(occupied)
        return total.to(log_probs.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (occupied,) = ctx.saved_tensors
        return occupied * gradients[0][:, None, None], None, None


class _Scaled(torch.autograd.Function):
    """Anywhere. Forward and backward sums as probabilities, scaled to 1 in each frame.

    Two states a token that was said last: it sounds, or blanks have followed. Token 0 is the beginning.
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, frames: Tensor, transitions: Tensor) -> Tensor:
        batch, time, vocabulary = log_probs.shape
        outputs = log_probs.detach().float().exp().transpose(0, 1).contiguous()  # (T, B, V)
        enter = transitions
        again = transitions.diagonal()  # a token after itself: only through a blank
        silent = outputs.new_zeros(time + 1, batch, vocabulary)
        sounding = outputs.new_zeros(time + 1, batch, vocabulary)
        silent[0, :, BLANK] = 1.0
        total = torch.zeros(batch, dtype=torch.float64, device=log_probs.device)
        scales = outputs.new_ones(time, batch, 1)
        for frame in range(time):
            here, both = outputs[frame], silent[frame] + sounding[frame]
            said = torch.addmm(sounding[frame] * (1 - again), both, enter)
            made = torch.cat([both * here[:, BLANK : BLANK + 1], said * here], 1)
            made[:, vocabulary + BLANK] = 0.0
            scales[frame] = made.sum(1, keepdim=True)
            made = made / scales[frame]
            silent[frame + 1], sounding[frame + 1] = made.split(vocabulary, 1)
        counts = torch.arange(time, device=frames.device)[:, None] < frames
        total = (scales.squeeze(2).double().log() * counts).sum(0)
        ctx.save_for_backward(outputs, silent, sounding, scales, frames, transitions)
        return total.to(log_probs.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        outputs, silent, sounding, scales, frames, transitions = ctx.saved_tensors
        time, batch, vocabulary = outputs.shape
        enter, again = transitions.T.contiguous(), transitions.diagonal()
        occupied = torch.empty_like(outputs)
        after = outputs.new_ones(batch, 2 * vocabulary)  # of the states behind this frame: silent, sounding
        for frame in range(time - 1, -1, -1):
            inside = (frame < frames)[:, None]
            quiet, loud = after.split(vocabulary, 1)
            here = outputs[frame] / scales[frame]
            blank = here[:, BLANK : BLANK + 1] * quiet
            said = here * loud
            said[:, BLANK] = 0.0
            both = silent[frame] + sounding[frame]
            found = torch.addmm(sounding[frame] * (1 - again), both, transitions) * said
            found[:, BLANK] = (both * blank).sum(1)
            occupied[frame] = found * inside
            entered = torch.addmm(blank, said, enter)
            before = torch.cat([entered, entered + said * (1 - again)], 1)
            after = torch.where(inside, before, after)
        return occupied.transpose(0, 1) * gradients[0][:, None, None], None, None
