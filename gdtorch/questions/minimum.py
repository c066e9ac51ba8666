"""Question 5: is it a global minimum? The Hessian's signs, a loss without minimum, its surface."""

from __future__ import annotations

__all__ = ["Fall", "Minimum", "Surface", "minimum", "surface"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from ..curvature import flat_weights, loss_function, spectra
from ..data import Rows
from ..net import SigmoidNet
from ..trainers import Manual
from .answer import Answer, aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECADES = (1_000, 10_000, 100_000)  # steps
GRID = 120  # points of the surface along each axis
MARGIN = 0.15  # of the paths' extent, on each side


@dataclass(frozen=True)
class Fall:
    """How far a long training has come: steps, loss, Euclidean norm of all weights."""

    steps: int
    loss: float
    weight_norm: float


@dataclass(frozen=True)
class Minimum(Answer):
    """Question 5.

    Args:
        steps: of the training at whose ends the Hessian was taken.
        negative: how many of the Hessian's eigenvalues are negative at the start, at the end.
        extremes: the smallest and the largest at the start, at the end.
        falls: loss and weight norm, further and further on.
        spectra: eigenvalues at the start and at the end, ascending, of shape (2, n).
    """

    name: ClassVar = "5-spectrum"
    question: ClassVar = "Question 5: is it a global minimum?"
    post: ClassVar = "yes, because the target function is convex"

    steps: int
    negative: tuple[int, int]
    extremes: Sequence[tuple[float, float]]
    falls: Sequence[Fall]
    spectra: Tensor

    def measured(self) -> list[str]:
        """Signs of the Hessian's eigenvalues, and the loss of a long training."""
        count = self.spectra.shape[1]
        places = zip(("the start", f"step {self.steps}"), self.negative, self.extremes, strict=True)
        rows = [[f"{f.steps}", f"{f.loss:.2e}", f"{f.weight_norm:.2f}"] for f in self.falls]
        return [
            *(
                f"at {place}: {negative} of the Hessian's {count} eigenvalues are negative "
                f"({ends[0]:.1e} to {ends[1]:.1e})"
                for place, negative, ends in places
            ),
            "A convex function has no negative one. Nor is there a minimum to reach: the loss "
            "keeps falling as the weights grow:",
            aligned([["steps", "loss", "weight norm"], *rows]),
        ]

    def figure(self) -> Figure:
        """Both spectra, eigenvalue by eigenvalue."""
        from ..figures import spectrum

        return spectrum(self.spectra, self.steps)


def minimum(net: SigmoidNet, rows: Rows, path: Tensor) -> Minimum:
    """The Hessian's spectrum at both ends of a path, and where a longer training leads.

    Args:
        net: where to begin, in float64.
        rows: the rows that the loss is over.
        path: weights after 0, 1, 2 … steps, of shape (steps + 1, n).
    """
    values = spectra(net, rows, path[[0, -1]])
    start, end = (values < 0).sum(dim=1).tolist()
    trainer, falls = Manual(net, rows, 1.0), []
    for step, _ in enumerate(islice(trainer, DECADES[-1] + 1)):
        if step in DECADES:
            norm = torch.linalg.vector_norm(flat_weights(trainer.objective)).item()
            falls.append(Fall(step, trainer.objective.loss(rows).item(), norm))
    extremes = [(v[0].item(), v[-1].item()) for v in values]
    return Minimum(len(path) - 1, (start, end), extremes, falls, values)


@dataclass(frozen=True)
class Surface(Answer):
    """The loss on the plane through the training path's first two principal directions.

    Args:
        variance: share of the path's variance along the one and the other direction.
        loss: at the end of the path, and where its shadow falls on the plane.
        post_apart: largest distance of the post's path from the reference at the same step.
        same_bits: whether the paths of manual and sgd are the same.
        axes: coordinates of the plane's points, of shape (2, points).
        losses: over the plane, of shape (points, points), the second coordinate first.
        shadows: name → path on the plane, of shape (steps + 1, 2).
    """

    name: ClassVar = "6-surface"
    question: ClassVar = "The loss surface"
    post: ClassVar = "shows none"

    variance: tuple[float, float]
    loss: tuple[float, float]
    post_apart: float
    same_bits: bool
    axes: Tensor
    losses: Tensor
    shadows: Mapping[str, Tensor]

    def measured(self) -> list[str]:
        """What the plane shows of the path, and what it does not."""
        first, second = self.variance
        together = "in the same bits" if self.same_bits else "not in the same bits"
        return [
            f"The plane through the path's first two principal directions holds {first:.1%} and "
            f"{second:.1%} of its variance. At the path's end the loss is {self.loss[0]:.4f}, "
            f"under it on the plane {self.loss[1]:.4f}. manual and sgd take this path {together}; "
            f"post strays from it by up to {self.post_apart:.2f}.",
        ]

    def facts(self) -> dict[str, object]:
        """The numbers for a program, without the paths."""
        return {k: v for k, v in super().facts().items() if k != "shadows"}

    def figure(self) -> Figure:
        """Contours of the loss with the paths on it."""
        from ..figures import surface

        return surface(self.axes, self.losses, self.shadows, self.variance)


def surface(net: SigmoidNet, rows: Rows, paths: Mapping[str, Tensor]) -> Surface:
    """Lay a plane through the path of `sgd`, and the paths of all onto it.

    Args:
        net: the network; its own weights do not matter.
        rows: the rows that the loss is over.
        paths: for each of post, manual and sgd, weights after each step, of shape (steps + 1, n).
    """
    path = paths["sgd"]
    centre = path.mean(dim=0)
    _, deviations, directions = torch.linalg.svd(path - centre, full_matrices=False)
    plane = directions[:2]  # (2, n)
    shares = (deviations**2 / (deviations**2).sum())[:2].tolist()
    shadows = {name: (points - centre) @ plane.T for name, points in paths.items()}

    every = torch.cat(list(shadows.values()))
    low, high = every.amin(dim=0), every.amax(dim=0)
    margin = MARGIN * (high - low)
    axes = torch.stack(
        [
            torch.linspace(a, b, GRID, dtype=path.dtype)
            for a, b in zip(low - margin, high + margin, strict=True)
        ]
    )
    loss = vmap(loss_function(net, rows))
    points = torch.cartesian_prod(axes[1], axes[0]).flip(dims=(1,))  # the first axis runs fastest
    losses = loss(centre + points @ plane).reshape(GRID, GRID)
    ends = torch.stack([path[-1], centre + shadows["sgd"][-1] @ plane])
    return Surface(
        (shares[0], shares[1]),
        tuple(loss(ends).tolist()),
        torch.linalg.vector_norm(paths["post"] - path, dim=1).max().item(),
        torch.equal(paths["manual"], path),
        axes,
        losses,
        shadows,
    )
