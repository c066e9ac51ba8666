"""The post's f(x) = x⁴/4 − x³ + x²: one weight, its derivative by hand, kinds of points."""

from __future__ import annotations

__all__ = ["NO_ROWS", "Quartic", "at_rest_after", "kind_of_point"]

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .data import Rows

NO_ROWS = Rows(torch.empty(0, 0), torch.empty(0, 0))  # for a trainer, which asks for rows
REST = 1e-9  # |f′| up to which a point counts as at rest


class Quartic(nn.Module):
    r"""The post's f(x) = x⁴/4 − x³ + x², an objective of one weight, in float64.

    With u = x − 1:

        f   = (u² − 1)² / 4
        f′  = u (u² − 1) = x (x − 1) (x − 2)
        f″  = 3u² − 1

    f has a minimum of 0 at x = 0 and at x = 2, and a maximum of ¼ between them, at x = 1. Computed
    from u, f and f′ are exact at these three points, and right to about eps near them. Autograd's
    derivative of f in u is the product by hand times powers of two; those are exact, so that the
    two derivatives have the same bits.

    A weight of shape (n,) holds n points x, and everything is computed for each of them.

    Args:
        x: where to start, one point or several.

    Example:
        >>> top = Quartic(1.0)  # the slope is zero, and it is no minimum
        >>> abs(top.gradient()["x"].item()), top.second_derivative().item()
        (0.0, -1.0)
    """

    def __init__(self, x: float | Sequence[float]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(x, dtype=torch.float64))

    def loss(self, rows: Rows = NO_ROWS) -> Tensor:  # noqa: ARG002 (f has no data)
        """f(x), of x's shape."""
        u = self.x - 1
        return (u.square() - 1).square() / 4

    @torch.no_grad()
    def gradient(self, rows: Rows = NO_ROWS) -> dict[str, Tensor]:  # noqa: ARG002
        """f′(x) = x (x − 1) (x − 2), of x's shape."""
        u = self.x - 1
        return {"x": u * (u.square() - 1)}

    @torch.no_grad()
    def second_derivative(self) -> Tensor:
        """f″(x) = 3x² − 6x + 2, of x's shape."""
        u = self.x - 1
        return 3 * u.square() - 1


def kind_of_point(quartic: Quartic) -> str:
    """`minimum` or `maximum` where |f′| ≤ 10⁻⁹, by the sign of f″; elsewhere `neither`."""
    if not abs(quartic.gradient()["x"].item()) <= REST:  # nan is no point at all
        return "neither"
    return "minimum" if quartic.second_derivative().item() > 0 else "maximum"


def at_rest_after(path: Sequence[float]) -> int | None:
    """The step after which a path moved by no more than 10⁻⁹, f′ being as small; None if it moves.

    Args:
        path: x after each step, from 0, the start.
    """
    quartic = Quartic(path)
    slope, away = quartic.gradient()["x"], quartic.x.detach() - path[-1]
    moving = ((slope.abs() > REST) | (away.abs() > REST)).tolist()
    step = len(path) - moving[::-1].index(True) if True in moving else 0
    return step if step < len(path) else None
