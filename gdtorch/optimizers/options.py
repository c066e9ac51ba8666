"""The options of torch.optim.SGD, and what it refuses."""

from __future__ import annotations

__all__ = ["Options", "check_descent", "check_options"]

from typing import TypedDict

from torch import Tensor

from ..descent import Descent, Steepest


class Options(TypedDict, total=False):
    """The options of `torch.optim.SGD` beside `lr` (see `Manual`)."""

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool


def check_options(
    lr: float | Tensor,
    momentum: float = 0,
    dampening: float = 0,
    weight_decay: float = 0,
    nesterov: bool = False,
) -> None:
    """Refuse what `torch.optim.SGD` refuses, in the same words."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if lr < 0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if momentum < 0:
        raise ValueError(f"Invalid momentum value: {momentum}")
    if weight_decay < 0:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}")
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")


def check_descent(descent: Descent, momentum: float, weight_decay: float) -> None:
    """Refuse what would turn a step aside from the line that was searched.

    Raises:
        ValueError: there is momentum or weight decay with `Steepest`.
    """
    if isinstance(descent, Steepest) and (momentum or weight_decay):
        raise ValueError(
            "Steepest searches along the gradient of the loss alone: no momentum, no weight_decay"
        )
