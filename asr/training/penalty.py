"""What layers ask to be added to the loss of the frames that they have put out: a divergence, for one.

A layer asks by having a method `penalty`: outputs (B, T, H) of a call -> nats a frame (B, T), a function of
these and of its parameters. Most have none, and then there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn


@contextmanager
def penalties(model: nn.Module) -> Iterator[list[Tensor]]:
    """What the layers ask for, (B, T) each, in the calls of the model meanwhile."""
    asked: list[Tensor] = []

    def ask(layer: nn.Module, _: object, results: tuple[Tensor, object]) -> None:
        asked.append(layer.penalty(results[0]))  # type: ignore[operator]

    with ExitStack() as hooks:
        for layer in model.modules():
            if hasattr(layer, "penalty"):
                hooks.callback(layer.register_forward_hook(ask).remove)
        yield asked
