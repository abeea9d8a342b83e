"""Recurrent state as data: nested NamedTuples (or tuples) whose leaves are tensors of shape (B, ...).

A server keeps one state a stream, packed into a row. To step many streams at once it puts their rows
together, unpacks them, runs the model, and packs the result; nothing here knows what the leaves mean.
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


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state in order, for what stores tensors and knows no NamedTuple."""
    return [state] if isinstance(state, Tensor) else [leaf for child in state for leaf in leaves(child)]


def with_leaves(state: State, tensors: Sequence[Tensor]) -> State:
    """The structure of `state` with other tensors: the inverse of `leaves`."""
    rest = iter(tensors)
    return map_state(lambda _: next(rest), state)


def pack(state: State) -> Tensor:
    """A state as one tensor (B, D), whose rows a server can keep: few copies for however many leaves."""
    return torch.cat([leaf.flatten(1) for leaf in leaves(state)], 1)


def unpack(packed: Tensor, like: State) -> State:
    """The state of (B, D), with the structure and the shapes of `like`: the inverse of `pack`."""
    shapes = [leaf.shape[1:] for leaf in leaves(like)]
    parts = packed.split([shape.numel() for shape in shapes], 1)
    return with_leaves(like, [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)])


def rows(packed: Tensor) -> list[Tensor]:
    """Those of (B, D), each (1, D) with memory of its own: a view would keep the whole batch alive for as
    long as its stream is silent. One row is the whole, and no copy."""
    return [packed] if packed.size(0) == 1 else [row.clone() for row in packed.split(1)]


def together(states: Sequence[Tensor]) -> Tensor:
    """Rows as one tensor (B, D): the inverse of `rows`."""
    return states[0] if len(states) == 1 else torch.cat(list(states))
