"""The MGU recurrence as one autograd function over all T, with back-propagation through time by hand.

Autograd would record about ten small operations a step; here a step of the backward is three. Works for every
dtype and device. Legend: `B` batch, `T` time, `D` input features, `H` hidden units; inside, time comes first.

The gradient of every pre-activation is linear in dh, the gradient of the state, with coefficients that need
nothing but the forward's values, so that they are computed for all T at once:

    d pre_n = dh * (1 - f) * (1 - n^2)
    d pre_f = dh * f * (1 - f) * (h - n + (1 - f) * (1 - n^2) * product)     product = W_hn h + b_hn
    d h     = dh * f + [d pre_f, f * d pre_n] W_hh

Without the reset gate the term with the product is missing, and `d pre_n` enters the last line without f.
Nothing is ever divided by f, which underflows to zero.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mgu(
    inputs: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, bias_hn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `asr.ops.reference.mgu`; under autocast too in the weights' precision."""
    inputs, hidden = inputs.to(weight_hh.dtype), hidden.to(weight_hh.dtype)
    with torch.autocast(inputs.device.type, enabled=False):
        outputs = _MGU.apply(inputs, hidden, weight_ih, weight_hh, bias, bias_hn)  # (B, T, H)
    return outputs, outputs[:, -1] if inputs.shape[1] else hidden


class _MGU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        hidden: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        bias_hn: Tensor | None,
    ) -> Tensor:
        size = hidden.shape[1]
        gates = (inputs.transpose(0, 1) @ weight_ih.T).add_(bias)  # (T, B, 2H): projection, then f and n
        states = gates.new_empty(gates.shape[0] + 1, *hidden.shape)  # (T + 1, B, H)
        states[0] = hidden
        product = None if bias_hn is None else torch.empty_like(states[1:])  # (T, B, H)
        recurrent_weight = weight_hh.T
        for t, gate in enumerate(gates.unbind(0)):
            recurrent = states[t] @ recurrent_weight  # (B, 2H)
            f, n = gate.split(size, -1)
            f.add_(recurrent[:, :size]).sigmoid_()
            if product is None or bias_hn is None:
                n.add_(recurrent[:, size:]).tanh_()
            else:
                torch.add(recurrent[:, size:], bias_hn, out=product[t])
                n.addcmul_(f, product[t]).tanh_()
            torch.lerp(n, states[t], f, out=states[t + 1])
        ctx.save_for_backward(inputs, weight_ih, weight_hh, states, gates, product)
        return states[1:].transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight_ih, weight_hh, states, gates, product = ctx.saved_tensors
        size = states.shape[-1]
        f, n = gates.split(size, -1)  # (T, B, H)
        through_n = (1 - f) * (1 - n * n)
        through_f = f * (1 - f) * (states[:-1] - n + (0 if product is None else through_n * product))
        grad_recurrent = torch.cat([through_f, through_n if product is None else f * through_n], -1)
        grad_states = grad_outputs.transpose(0, 1).clone(memory_format=torch.contiguous_format)  # (T, B, H)
        carried = torch.zeros_like(states[0])
        for t in reversed(range(grad_states.shape[0])):
            grad = grad_states[t].add_(carried)  # (B, H)
            step = grad_recurrent[t].view(-1, 2, size).mul_(grad.unsqueeze(1)).view(-1, 2 * size)
            carried = torch.addmm(grad * f[t], step, weight_hh)
        grad_projection = torch.cat([grad_recurrent[..., :size], grad_states * through_n], -1).flatten(0, 1)
        grad_bias_hn = None if product is None else grad_recurrent[..., size:].sum((0, 1))
        time_first = inputs.transpose(0, 1).flatten(0, 1)  # (T * B, D)
        return (
            (grad_projection @ weight_ih).unflatten(0, gates.shape[:2]).transpose(0, 1),
            carried,
            grad_projection.T @ time_first,
            grad_recurrent.flatten(0, 1).T @ states[:-1].flatten(0, 1),
            grad_projection.sum(0),
            grad_bias_hn,
        )
