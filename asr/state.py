"""Recurrent state as data: nested NamedTuples (or tuples) whose leaves are tensors of shape (B, ...).

A server keeps one state a stream. To step many streams at once it stacks their states, runs the model, and
splits the result; nothing here knows what the leaves mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Apply `function` to corresponding leaves of states of one structure, and rebuild that structure."""
    first: Any = states[0]
    if isinstance(first, Tensor):
        return function(*states)  # type: ignore[return-value]
    children = [map_state(function, *parts) for parts in zip(*states, strict=True)]
    return type(first)(*children) if hasattr(first, "_fields") else type(first)(children)


def stack(states: Sequence[State]) -> State:
    """Join states along the batch: streams of batch B1, B2, ... become one state of batch B1 + B2 + ..."""
    return map_state(lambda *leaves: torch.cat(leaves), *states)


def gather(state: State, streams: Sequence[int]) -> State:
    """The state of the given rows of the batch, in that order."""
    return map_state(lambda leaf: leaf[list(streams)], state)


def scatter(state: State, streams: Sequence[int], part: State) -> State:
    """A copy of `state` in which the given rows are those of `part`: the inverse of `gather`."""

    def replace(leaf: Tensor, rows: Tensor) -> Tensor:
        return leaf.index_copy(0, torch.tensor(streams, dtype=torch.long, device=leaf.device), rows)

    return map_state(replace, state, part)


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state in order, for what stores tensors and knows no NamedTuple."""
    return [state] if isinstance(state, Tensor) else [leaf for child in state for leaf in leaves(child)]


def with_leaves(state: State, tensors: Sequence[Tensor]) -> State:
    """The structure of `state` with other tensors: the inverse of `leaves`."""
    rest = iter(tensors)
    return map_state(lambda _: next(rest), state)
