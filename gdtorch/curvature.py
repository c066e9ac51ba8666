"""The Hessian of a loss: its extreme eigenvalues."""

from __future__ import annotations

__all__ = ["extremes", "stable_limit"]

import math

import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev

from .data import Rows
from .objective import Objective


def extremes(objective: Objective, rows: Rows) -> tuple[float, float]:
    """Smallest and largest eigenvalue of the loss's Hessian at the objective's weights."""

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.objective = objective

        def forward(self) -> Tensor:
            return objective.loss(rows)

    module = Loss()
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    sizes = [weight.numel() for weight in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(weights.items(), flat.split(sizes), strict=True)
        value: Tensor = functional_call(module, {n: p.view_as(w) for (n, w), p in parts}, ())
        return value

    matrix = jacrev(grad(loss))(torch.cat([weight.flatten() for weight in weights.values()]))
    if not matrix.isfinite().all():
        return math.nan, math.nan
    eigenvalues = torch.linalg.eigvalsh(matrix)
    return eigenvalues[0].item(), eigenvalues[-1].item()


def stable_limit(
    lr: float,
    momentum: float = 0,
    dampening: float = 0,
    weight_decay: float = 0,
    nesterov: bool = False,
) -> float:
    r"""The sharpness up to which steps are stable: on a quadratic, they converge just below it.

    Along an eigenvector with eigenvalue h, weight decay λ turns the gradient into (h + λ) x. With
    a = lr (h + λ), momentum μ and dampening d, two steps of `torch.optim.SGD` are tied by

        x″ = (1 + μ − (1 − d) a) x′ − μ x                   momentum
        x″ = (1 + μ)(1 − a) x′ − μ (1 − a) x                Nesterov (d = 0)

    The roots of z² − bz + c lie within the unit circle where |c| < 1 and |b| < 1 + c, which is
    (1 − d) a < 2 (1 + μ), and for Nesterov a < 2 (1 + μ) / (1 + 2μ). Hence

        h < 2 (1 + μ) / ((1 − d) lr) − λ,    h < 2 (1 + μ) / ((1 + 2μ) lr) − λ.

    Dampening counts with momentum alone, as in `torch.optim.SGD`.

    Args:
        lr: learning rate.
        momentum: μ, below 1; no step is stable above.
        dampening: d, below 1.
        weight_decay: λ.
        nesterov: whether the momentum is Nesterov's.

    Returns:
        The limit; infinite for an `lr` of 0 or a dampening of 1, nan for a momentum or dampening
        above 1, which have none.
    """
    if momentum >= 1 or (momentum > 0 and dampening > 1):
        return math.nan
    scale = lr * (1 - dampening if momentum else 1) * (1 + 2 * momentum if nesterov else 1)
    return 2 * (1 + momentum) / scale - weight_decay if scale > 0 else math.inf
