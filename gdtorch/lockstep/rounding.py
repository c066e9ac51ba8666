"""How much rounding may do in a step, and in which precision weights have run."""

from __future__ import annotations

__all__ = [
    "GROWTH",
    "coarser",
    "coarsest_dtype",
    "moved",
    "of_gradients",
    "precision",
]

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from .distance import Weights, pieces

# A step's rounding is taken in three parts: one rounding of each weight that is stored; so many
# of the gradient's largest element, since it is a sum that cancels; and one of the number 1, for
# a gradient that cancels to 0 is still made of numbers of about that size.
GRADIENT = 64
COARSEST = 2.0**-4  # but no more of it: in low precisions, sums are taken in a higher one
GROWTH = 10  # how much a step may stretch the distance of two trajectories, and be mere rounding


def of_gradients(epsilon: float) -> float:
    """Rounding of a gradient, relative to its largest element."""
    return min(GRADIENT * epsilon, COARSEST)


def coarser(precisions: Iterable[torch.dtype]) -> float:
    """Relative rounding error of the lowest of some precisions."""
    return max(torch.finfo(dtype).eps for dtype in precisions)


def coarsest_dtype(weights: Weights) -> torch.dtype:
    """The dtype with the largest rounding error of those that the weights have."""
    return max({w.dtype for w in weights.values()}, key=lambda dtype: torch.finfo(dtype).eps)


def moved(before: Weights, after: Weights) -> bool:
    """Whether any element has changed."""
    return any(
        not torch.equal(a, b) for name in after for a, b in _chunks(before[name], after[name])
    )


def precision(weights: Weights) -> torch.dtype:
    """The precision that these weights have run in: float32, if float64 holds nothing beyond it.

    Numbers of a few bits, as in a toy that begins at 0 or 1, are no sign of a low precision.
    """
    dtype = coarsest_dtype(weights)
    if dtype != torch.float64:
        return dtype
    single = _exact(weights, torch.float32) and not _exact(weights, torch.bfloat16)
    return torch.float32 if single else torch.float64


def _exact(weights: Weights, dtype: torch.dtype) -> bool:
    parts = (part for weight in weights.values() for (part,) in _chunks(weight))
    return all(torch.equal(part, part.to(dtype).double()) for part in parts)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape in float64, flat, a piece at a time."""
    for _, parts in pieces(*tensors):
        yield tuple(part.detach().double().flatten() for part in parts)
