"""Question 4: does training converge? The sharpness along it, against the limit 2/lr."""

from __future__ import annotations

__all__ = ["Course", "Stability", "follow", "stability"]

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from ..curvature import flat_weights, loss_function, spectra
from ..data import Rows
from ..net import SigmoidNet
from ..trainers import Manual, Trainer
from .answer import Answer, aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = (0.1, 1.0, 3.0, 10.0)


def follow(trainer: Trainer, steps: int) -> Tensor:
    """All weights after 0, 1 … `steps` steps of a trainer, of shape (steps + 1, n)."""
    return torch.stack([flat_weights(trainer.objective) for _ in islice(trainer, steps + 1)])


@dataclass(frozen=True)
class Course:
    """Training at one learning rate.

    Args:
        lr: learning rate.
        limit: 2/lr; below it, near enough to a minimum, a step lowers the loss.
        peak: the largest eigenvalue of the Hessian, at its largest along training.
        peak_step: after how many steps.
        above: steps taken from a point whose sharpness is above the limit.
        rose: steps that raised the loss.
        rose_below: those of them from a point whose sharpness is not above the limit.
        loss: after the last step.
    """

    lr: float
    limit: float
    peak: float
    peak_step: int
    above: int
    rose: int
    rose_below: int
    loss: float


@dataclass(frozen=True)
class Stability(Answer):
    """Question 4.

    Args:
        courses: training at each learning rate.
        sharpness: largest eigenvalue of the Hessian, of shape (learning rates, steps + 1).
        losses: of the same shape.
    """

    name: ClassVar = "4-sharpness"
    question: ClassVar = "Question 4: will it converge?"
    post: ClassVar = "asks how one can be sure, and leaves it there"

    courses: Sequence[Course]
    sharpness: Tensor
    losses: Tensor

    def measured(self) -> list[str]:
        """Sharpness, limit and loss at each learning rate."""
        steps = self.losses.shape[1] - 1
        header = ["lr", "2/lr", "sharpness, peak", "at step", "above", "loss rose", "though below"]
        rows = [
            [
                f"{c.lr:g}",
                f"{c.limit:.2f}",
                f"{c.peak:.2f}",
                str(c.peak_step),
                str(c.above),
                str(c.rose),
                str(c.rose_below),
                f"{c.loss:.4f}",
            ]
            for c in self.courses
        ]
        return [
            "Close to a minimum a step lowers the loss while the sharpness, the Hessian's largest "
            f"eigenvalue, is below 2/lr. Of {steps} steps, how many began with a sharpness above "
            "that, how many raised the loss, and how many did so though they began below it:",
            aligned([[*header, f"loss after {steps}"], *rows]),
        ]

    def figure(self) -> Figure:
        """Sharpness over its limit along training, and the loss under it."""
        from ..figures import stability

        return stability([course.lr for course in self.courses], self.sharpness, self.losses)


def stability(net: SigmoidNet, rows: Rows, steps: int) -> Stability:
    """Train at each learning rate; measure loss and sharpness after every step.

    Args:
        net: where to begin, in float64.
        rows: the rows that the loss is over.
        steps: how many.
    """
    paths = [follow(Manual(net, rows, lr), steps) for lr in RATES]
    sharpness = torch.stack([spectra(net, rows, path)[:, -1] for path in paths])
    losses = torch.stack([vmap(loss_function(net, rows))(path) for path in paths])
    courses = []
    for lr, sharp, loss in zip(RATES, sharpness, losses, strict=True):
        peak, above, rose = int(sharp.argmax()), sharp[:-1] > 2 / lr, loss.diff() > 0
        began_above, raised, raised_below = (int(n.sum()) for n in (above, rose, rose & ~above))
        courses.append(
            Course(
                lr,
                limit=2 / lr,
                peak=sharp[peak].item(),
                peak_step=peak,
                above=began_above,
                rose=raised,
                rose_below=raised_below,
                loss=loss[-1].item(),
            )
        )
    return Stability(courses, sharpness, losses)
