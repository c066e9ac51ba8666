"""Question 5: is it a global minimum? The Hessian's signs, a loss without minimum, its surface."""

from __future__ import annotations

__all__ = ["minimum", "surface"]

from collections.abc import Mapping
from itertools import islice, pairwise

import torch
from torch import Tensor
from torch.func import vmap

from ..curvature import flat_weights, loss_function, spectra
from ..data import Rows
from ..net import SigmoidNet
from ..trainers import Manual
from .answer import Answer

DECADES = (1_000, 10_000, 100_000)  # steps
GRID = 120  # points of the surface along each axis
MARGIN = 0.15  # on each side, as a share of the paths' extent


def minimum(net: SigmoidNet, rows: Rows, path: Tensor) -> Answer:
    """Question 5: the Hessian's spectrum at both ends of a path, and where longer training leads.

    Args:
        net: where to begin, in float64.
        rows: the rows that the loss is over.
        path: weights after 0, 1, 2 … steps, of shape (steps + 1, n).

    Returns:
        Of these facts:

        - steps: of the training at whose ends the Hessian was taken.
        - negative: how many of the Hessian's eigenvalues are negative at the start, at the end.
        - extremes: the smallest and the largest at the start, at the end.
        - falls: loss and Euclidean norm of all weights after so many steps, further and further on.
    """
    steps = len(path) - 1
    values = spectra(net, rows, path[[0, -1]])
    negative = (values < 0).sum(dim=1).tolist()
    extremes = values[:, [0, -1]].tolist()
    places = [
        f"at {place}: {count} of the Hessian's {values.shape[1]} eigenvalues are negative "
        f"({least:.1e} to {largest:.1e})"
        for place, count, (least, largest) in zip(
            ("the start", f"step {steps}"), negative, extremes, strict=True
        )
    ]
    trainer = Manual(net, rows, 1.0)
    falls, table = [], [["steps", "loss", "weight norm"]]
    for step, _ in enumerate(islice(trainer, DECADES[-1] + 1)):
        if step in DECADES:
            loss = trainer.objective.loss(rows).item()
            norm = torch.linalg.vector_norm(flat_weights(trainer.objective)).item()
            falls.append({"steps": step, "loss": loss, "weight_norm": norm})
            table.append([f"{step}", f"{loss:.2e}", f"{norm:.2f}"])
    ends = [(fall["loss"], -fall["weight_norm"]) for fall in falls]
    further = "Further on"
    if all(one[0] > two[0] and one[1] > two[1] for one, two in pairwise(ends)):
        further = "Nor is there a minimum to reach: the loss keeps falling as the weights grow"
    return Answer(
        "5-spectrum",
        "Question 5: is it a global minimum?",
        "yes, because the target function is convex",
        {"steps": steps, "negative": negative, "extremes": extremes, "falls": falls},
        [
            *places,
            f"A convex function has no negative one. {further}:",
            table,
        ],
        "spectrum",
        {"spectra": values, "steps": steps},
    )


def surface(net: SigmoidNet, rows: Rows, paths: Mapping[str, Tensor]) -> Answer:
    """The loss on the plane through the path of `sgd`, with the paths of all laid onto it.

    Args:
        net: the network; its own weights do not matter.
        rows: the rows that the loss is over.
        paths: for each of post, manual and sgd, weights after each step, of shape (steps + 1, n).

    Returns:
        Of these facts:

        - variance: share of the path's variance along the first two principal directions, which
          span the plane.
        - loss: at the end of the path, and where its shadow falls on the plane.
        - post_apart: largest distance of the post's path from the reference at the same step.
        - same_bits: whether the paths of manual and sgd are the same.
    """
    path = paths["sgd"]
    centre = path.mean(dim=0)
    _, deviations, directions = torch.linalg.svd(path - centre, full_matrices=False)
    plane = directions[:2]  # (2, n)
    variance = (deviations**2 / (deviations**2).sum())[:2].tolist()
    shadows = {name: (points - centre) @ plane.T for name, points in paths.items()}

    every = torch.cat(list(shadows.values()))
    low, high = every.amin(dim=0), every.amax(dim=0)
    margin = MARGIN * (high - low)
    spread = torch.linspace(0, 1, GRID, dtype=path.dtype)
    axes = torch.lerp((low - margin)[:, None], (high + margin)[:, None], spread)
    loss = vmap(loss_function(net, rows))
    points = torch.cartesian_prod(axes[1], axes[0]).flip(dims=(1,))  # the first axis runs fastest
    losses = loss(centre + points @ plane).reshape(GRID, GRID)
    ends = loss(torch.stack([path[-1], centre + shadows["sgd"][-1] @ plane])).tolist()
    post_apart = torch.linalg.vector_norm(paths["post"] - path, dim=1).max().item()
    same_bits = torch.equal(paths["manual"], path)

    return Answer(
        "6-surface",
        "The loss surface",
        "shows none",
        {"variance": variance, "loss": ends, "post_apart": post_apart, "same_bits": same_bits},
        [
            f"The plane through the path's first two principal directions holds {variance[0]:.1%} "
            f"and {variance[1]:.1%} of its variance. At the path's end the loss is {ends[0]:.4f}, "
            f"under it on the plane {ends[1]:.4f}. manual and sgd take this path "
            f"{'in the same bits' if same_bits else 'not in the same bits'}; post strays from it "
            f"by up to {post_apart:.2f}.",
        ],
        "surface",
        {"axes": axes, "losses": losses, "paths": shadows, "variance": variance},
    )
