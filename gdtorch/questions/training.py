"""Question 4: does training converge? The sharpness along it, against the limit 2/lr."""

from __future__ import annotations

__all__ = ["follow", "stability"]

from itertools import islice

import torch
from torch import Tensor
from torch.func import vmap

from ..curvature import flat_weights, loss_function, spectra
from ..data import Rows
from ..net import SigmoidNet
from ..trainers import Manual, Trainer
from .answer import Answer

RATES = (0.1, 1.0, 3.0, 10.0)


def follow(trainer: Trainer, steps: int) -> Tensor:
    """All weights after 0, 1 … `steps` steps of a trainer, of shape (steps + 1, n)."""
    return torch.stack([flat_weights(trainer.objective) for _ in islice(trainer, steps + 1)])


def stability(net: SigmoidNet, rows: Rows, steps: int) -> Answer:
    """Question 4: train at each learning rate; measure loss and sharpness after every step.

    Args:
        net: where to begin, in float64.
        rows: the rows that the loss is over.
        steps: how many.

    Returns:
        An answer with one fact, `courses`: for each learning rate

        - lr: learning rate.
        - limit: 2/lr; below it, near enough to a minimum, a step lowers the loss.
        - peak: the greatest sharpness during training.
        - peak_step: the steps taken when it was reached.
        - above: how many steps began where the sharpness was above the limit.
        - rose: how many steps raised the loss.
        - rose_below: how many of these began where it was not above the limit.
        - loss: after the last step.
    """
    paths = [follow(Manual(net, rows, lr), steps) for lr in RATES]
    sharpness = torch.stack([spectra(net, rows, path)[:, -1] for path in paths])
    losses = torch.stack([vmap(loss_function(net, rows))(path) for path in paths])
    header = ["lr", "2/lr", "sharpness, peak", "at step", "above", "loss rose", "though below"]
    courses, table = [], [[*header, f"loss after {steps}"]]
    for lr, sharp, loss in zip(RATES, sharpness, losses, strict=True):
        limit, peak, last = 2 / lr, sharp.max().item(), loss[-1].item()
        above, rose = sharp[:-1] > limit, loss.diff() > 0
        counts = {
            "peak_step": int(sharp.argmax()),
            "above": int(above.sum()),
            "rose": int(rose.sum()),
            "rose_below": int((rose & ~above).sum()),
        }
        courses.append({"lr": lr, "limit": limit, "peak": peak, **counts, "loss": last})
        ends = [f"{lr:g}", f"{limit:.2f}", f"{peak:.2f}"]
        table.append([*ends, *map(str, counts.values()), f"{last:.4f}"])
    return Answer(
        "4-sharpness",
        "Question 4: will it converge?",
        "asks how one can be sure, and leaves it there",
        {"courses": courses},
        [
            "Close to a minimum a step lowers the loss while the sharpness, the Hessian's largest "
            f"eigenvalue, is below 2/lr. Of {steps} steps, how many began with a sharpness above "
            "that, how many raised the loss, and how many did so though they began below it:",
            table,
        ],
        "stability",
        {"rates": RATES, "sharpness": sharpness, "losses": losses},
    )
