"""What a trainer minimizes: a loss of some weights, with its gradient by hand."""

from __future__ import annotations

__all__ = ["Objective"]

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn

from .data import Rows


class Objective(Protocol):
    """What a trainer minimizes: an `nn.Module` with a loss, and that loss's gradient by hand.

    The trainers use no more of `nn.Module` than the methods below. `Steepest` needs one thing
    more: if the weights have a leading dimension, there is a loss and a gradient for each entry.

    Example:
        >>> import torch
        >>> class Bowl(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        ...     def loss(self, rows):
        ...         return self.w.square().sum() / 2
        ...     def gradient(self, rows):
        ...         return {"w": self.w.detach().clone()}
        >>> rows = load_table("xor").learned  # a bowl has no use for them
        >>> lockstep(Manual(Bowl(), rows, lr=0.1), SGD(Bowl(), rows, lr=0.1)).cause
        'identical'
    """

    def loss(self, rows: Rows) -> Tensor:
        """A scalar that autograd can differentiate."""

    def gradient(self, rows: Rows) -> dict[str, Tensor]:
        """Parameter name → ∂loss/∂parameter, of the parameter's shape, derived by hand."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights, as `nn.Module` gives them."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """The weights to save, as `nn.Module` gives them."""
