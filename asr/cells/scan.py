"""A recurrence whose step is one product with the state, and else elementwise: most gated cells are.

    product_t = weight h_{t-1} + bias
    h_t, ...  = step(inputs_t, product_t, h_{t-1}, ...)

In `step` each hidden unit sees its own row of inputs, product and states, and no other unit's. Then the
derivative of a new state by an old one or by a gate is a number a unit; autograd finds these for all T at
once, and what has to go back step by step is a few small operations, whatever the cell computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# inputs (..., G * H), product (..., P * H), states (..., H) -> new states (..., H)
Step = Callable[..., tuple[Tensor, ...]]


def scan(
    step: Step,
    inputs: Tensor,  # (B, T, G * H), whatever depends on the inputs alone
    states: tuple[Tensor, ...],  # (B, H) each; the first is the one that is multiplied, and put out
    weight: Tensor,  # (P * H, H)
    bias: Tensor,  # (P * H,)
    visible: Tensor | None = None,  # (B, H), a factor on the state where it is multiplied, alone
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All first states (B, T, H), and the last states (B, H)."""
    with torch.autocast(inputs.device.type, enabled=False):
        outputs, *final = _Scan.apply(step, inputs.to(weight.dtype), weight, bias, visible, *states)
    return outputs, tuple(final)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        step: Step,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        visible: Tensor | None,
        *states: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs = inputs.transpose(0, 1).contiguous()  # (T, B, G * H)
        history = [states]
        for given in inputs.unbind(0):
            seen = states[0] if visible is None else states[0] * visible
            states = step(given, torch.addmm(bias, seen, weight.T), *states)
            history.append(states)
        reached = [torch.stack(each) for each in zip(*history, strict=True)]  # (T + 1, B, H) each
        ctx.step = step
        ctx.save_for_backward(inputs, weight, bias, visible, *reached)
        return reached[0][1:].transpose(0, 1).contiguous(), *(each[-1].clone() for each in reached)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, *grad_final: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, bias, visible, *reached = ctx.saved_tensors
        before = [each[:-1].detach().requires_grad_() for each in reached]  # (T, B, H) each
        seen = before[0].detach() if visible is None else before[0].detach() * visible
        product = torch.addmm(bias, seen.flatten(0, 1), weight.T).unflatten(0, seen.shape[:2])
        inputs, product = inputs.detach().requires_grad_(), product.requires_grad_()
        with torch.enable_grad():
            after = ctx.step(inputs, product, *before)
            slopes = [_slopes(state, [product, *before]) for state in after]
        by_product = torch.stack([own[0] for own in slopes], 1)  # (T, S, B, P * H) of S states
        by_product = by_product.unflatten(-1, (-1, seen.size(-1)))  # (T, S, B, P, H)
        by_state = torch.stack([torch.stack(own[1:], 1) for own in slopes], 1)  # (T, S, S, B, H): of, by

        grad_after = by_state.new_empty(len(inputs), len(after), *seen.shape[1:])  # (T, S, B, H)
        carried = torch.stack(grad_final)  # (S, B, H)
        grad_steps = grad_outputs.transpose(0, 1)
        for t in reversed(range(len(grad_steps))):
            carried[0] += grad_steps[t]
            grad_after[t] = carried
            through = (carried.unsqueeze(2) * by_product[t]).sum(0).flatten(1) @ weight
            carried = (carried.unsqueeze(1) * by_state[t]).sum(0)
            carried[0] += through if visible is None else through * visible
        grad_inputs, grad_product = torch.autograd.grad(after, [inputs, product], grad_after.unbind(1))
        grad_product = grad_product.flatten(0, 1)
        grad_weight = grad_product.T @ seen.flatten(0, 1)
        return None, grad_inputs.transpose(0, 1), grad_weight, grad_product.sum(0), None, *carried


def _slopes(state: Tensor, by: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The derivatives of a new state by what made it, unit by unit."""
    return torch.autograd.grad(state.sum(), by, retain_graph=True, materialize_grads=True, allow_unused=True)
