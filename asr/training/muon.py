"""Muon: what a step adds to a matrix is its momentum, turned into the nearest orthogonal matrix.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the size of a step as in Liu et
al. 2025 (arXiv 2502.16982), so that a rate means what it means to AdamW, which moves all else. Other than in
torch.optim.Muon, kernels of convolutions count as matrices, and those of the same size are turned together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from asr.training.precision import has_bfloat16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5: the steepest slope at zero that ends near 1
ITERATIONS = 3  # singular values that are small stay so; five, the usual number, gained nothing
MOMENTUM = 0.95
LIKE_ADAMW = 0.2  # root mean square of what AdamW's steps are, in rates
SMALLEST = 16  # rows or columns; with fewer it is a handful of filters, a channel each


def is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and min(parameter.flatten(1).shape) >= SMALLEST


def orthogonal(matrices: Tensor) -> Tensor:
    """(N, R, C) -> (N, R, C) with singular values near 1, or smaller where they were very small; bfloat16 is
    enough where the machine has it, else float32."""
    x, y, z = NEWTON_SCHULZ
    wide = matrices.size(1) <= matrices.size(2)
    kind = torch.bfloat16 if has_bfloat16(matrices.device) else torch.float32
    made = (matrices if wide else matrices.mT).to(kind)
    made = made / made.float().flatten(1).norm(dim=1).clamp(min=1e-7).to(kind)[:, None, None]
    for _ in range(ITERATIONS):
        gram = made @ made.mT
        made = torch.baddbmm(made, torch.baddbmm(gram, gram, gram, beta=y, alpha=z), made, beta=x)
    return made if wide else made.mT


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for those parameters that are matrices (`is_matrix`), AdamW for the others.

    weight_decay: on matrices alone. betas: AdamW's. tables: of rows that are looked up, a word each; they are
    no matrices.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        rate: float,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        tables: Iterable[Tensor] = (),
    ) -> None:
        rows = {id(table) for table in tables}
        matrices = [each for each in parameters if is_matrix(each) and id(each) not in rows]
        others = [each for each in parameters if not is_matrix(each) or id(each) in rows]
        groups = [
            {"params": matrices, "matrices": True, "weight_decay": weight_decay},
            {"params": others, "matrices": False, "weight_decay": 0.0},
        ]
        super().__init__(groups, {"lr": rate, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [each for each in group["params"] if each.grad is not None]
            (self._turn if group["matrices"] else self._adamw)(given, group)
        return loss

    def _turn(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            alike[matrix.shape].append(matrix)
        for same in alike.values():
            for each in same:
                if not self.state[each]:
                    self.state[each]["momentum"] = torch.zeros_like(each)
            moments = [self.state[each]["momentum"] for each in same]
            gradients = [each.grad for each in same if each.grad is not None]
            torch._foreach_lerp_(moments, gradients, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(gradients, moments, MOMENTUM)  # Nesterov's
            turned = orthogonal(torch.stack([each.flatten(1) for each in ahead]))
            size = LIKE_ADAMW * max(turned.shape[1:]) ** 0.5
            torch._foreach_mul_(same, 1 - group["lr"] * group["weight_decay"])
            steps = [each.view(same[0].shape) for each in turned.contiguous().to(same[0].dtype)]
            torch._foreach_add_(same, steps, alpha=-group["lr"] * size)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for each in parameters:
            if not self.state[each]:
                self.state[each] = {
                    "mean": torch.zeros_like(each),
                    "square": torch.zeros_like(each),
                    "step": torch.zeros(()),
                }
        states = [self.state[each] for each in parameters]
        mean, square, steps = ([state[key] for state in states] for key in ("mean", "square", "step"))
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [each.grad for each in parameters if each.grad is not None],
            mean,
            square,
            [],
            steps,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
            fused=True,
        )
