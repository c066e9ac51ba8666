"""How a function that normalises is called: over which axes, with which weight, bias and eps."""

from __future__ import annotations

__all__ = ["Norm", "norm_of"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .functions import CENTERED

PARAMETERS = {  # function → what its arguments after the first are
    "batch_norm": (
        *("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    "layer_norm": ("normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("normalized_shape", "weight", "eps"),
}


@dataclass(frozen=True)
class Norm:
    """A call of such a function.

    Args:
        axes: over which its mean and variance are taken.
        weight: by which it multiplies, in a shape that broadcasts; None for none.
        bias: what it adds, likewise.
        eps: what it adds to the variance.
        centered: whether it takes the mean away.
    """

    axes: list[int]
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    centered: bool

    def names(self, x: Tensor) -> dict[str, Any]:
        """What its derivative is written with, of its input."""
        mean = x.mean(self.axes, keepdim=True) if self.centered else 0
        std = ((x - mean).square().mean(self.axes, keepdim=True) + self.eps).sqrt()
        return {
            "xhat": (x - mean) / std,
            "std": std,
            "weight": x.new_ones(()) if self.weight is None else self.weight,
            "n": math.prod(x.shape[axis] for axis in self.axes),
            "total": lambda array: array.sum(self.axes, keepdim=True),
        }


def norm_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Norm:
    """How the function of this name is called.

    Raises:
        ValueError: it normalises by running statistics.
    """
    x, *others = args
    given = {**dict(zip(PARAMETERS[name], others, strict=False)), **kwargs}
    if name == "batch_norm":
        if not given.get("training"):
            raise ValueError("running statistics")
        shape, axes = (1, -1, *(1,) * (x.ndim - 2)), [0, *range(2, x.ndim)]
    else:
        shape = tuple(given["normalized_shape"])
        axes = list(range(-len(shape), 0))
    weight, bias = (
        None if given.get(one) is None else given[one].reshape(shape) for one in ("weight", "bias")
    )
    centered = name in CENTERED
    eps = given.get("eps", 1e-5 if centered else None)
    return Norm(axes, weight, bias, torch.finfo(x.dtype).eps if eps is None else eps, centered)
