"""The Hessian of a loss: its extreme eigenvalues."""

from __future__ import annotations

__all__ = ["extremes"]

import math

import torch
from torch import Tensor
from torch.func import functional_call, hessian

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

    matrix = hessian(loss)(torch.cat([weight.flatten() for weight in weights.values()]))
    if not matrix.isfinite().all():
        return math.nan, math.nan
    eigenvalues = torch.linalg.eigvalsh(matrix)
    return eigenvalues[0].item(), eigenvalues[-1].item()
