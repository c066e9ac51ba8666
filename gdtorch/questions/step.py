"""Question 2: one step on the weights, and what it does to the output of every row."""

from __future__ import annotations

__all__ = ["OneStep", "Step", "linear_step", "one_step", "step_at"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from ..data import Rows
from ..net import SigmoidNet
from ..trainers import Manual
from .answer import Answer, aligned, bound

ALPHA = 1.0
POINTS = (0, 1, 10, 100)  # steps of training before the one that is watched


@dataclass(frozen=True)
class Step:
    """One step of gradient descent, from one point of training.

    Args:
        before: steps of training before it.
        predicted: change of each row's output by 1.4.2, with J·Jᵀ in place of x·xᵀ.
        happened: change of each row's output.
        right: how many rows moved towards their target.
        alone_right: how many rows move towards their target in a step on that row alone.
    """

    before: int
    predicted: Sequence[float]
    happened: Sequence[float]
    right: int
    alone_right: int


@dataclass(frozen=True)
class OneStep(Answer):
    """Question 2.

    Args:
        rows: each row's bits.
        targets: y of each row.
        points: a step at each of several points of training.
        linear_error: of 1.4.2 for one linear layer: the largest difference of any row.
        linear_right: how many rows a step on a linear layer moves towards their target.
        linear_still: how many rows it cannot move, for their x·xᵀ is 0.
    """

    name: ClassVar = "2-one-step"
    question: ClassVar = "Question 2: why may the gradient of δ be used for θ?"
    post: ClassVar = "x·xᵀ > 0, so that every δ moves the right way (1.4.2)"

    rows: Sequence[str]
    targets: Sequence[float]
    points: Sequence[Step]
    linear_error: float
    linear_right: int
    linear_still: int

    def measured(self) -> list[str]:
        """Predictions and what happened, row by row."""
        count = len(self.targets)
        heads = (f"{row}: {y:g}" for row, y in zip(self.rows, self.targets, strict=True))
        cells = [["row: target", "", *heads, "right", "alone"]]
        for step in self.points:
            cells += [
                [f"step {step.before + 1}", "1.4.2", *map(_signed, step.predicted), "", ""],
                [
                    "",
                    "real",
                    *map(_signed, step.happened),
                    f"{step.right} of {count}",
                    f"{step.alone_right} of {count}",
                ],
            ]
        return [
            f"1.4.2 with J·Jᵀ (J = ∂δ/∂θ) in place of x·xᵀ, against one real step at alpha "
            f"{ALPHA:g}. right: rows that moved the right way; alone: rows that do so in a step "
            "that sees no other row.",
            aligned(cells),
            f"One linear layer, for which 1.4.2 is exact: difference {bound(self.linear_error)}; "
            f"{self.linear_right} of {count} rows move the right way, and {self.linear_still} "
            "cannot move at all: its x·xᵀ is 0.",
        ]


def _signed(change: float) -> str:
    return f"{change:+.4f}".replace("-", "−")


def one_step(net: SigmoidNet, rows: Rows, path: Tensor) -> OneStep:
    """One step at each of several points of training, and one of a linear layer.

    Args:
        net: the post's network.
        rows: the rows that the loss is over.
        path: weights after 0, 1, 2 … steps of training, of shape (steps + 1, n).
    """
    points = [step_at(net, rows, path[before], before) for before in POINTS]
    predicted, happened = linear_step(rows, net.syn0.detach()[:, :1])
    wanted = rows.targets - rows.inputs @ net.syn0.detach()[:, :1]
    return OneStep(
        ["".join(f"{bit:g}" for bit in row) for row in rows.inputs.tolist()],
        rows.targets.flatten().tolist(),
        points,
        (predicted - happened).abs().max().item(),
        int((happened * wanted > 0).sum()),
        int((rows.inputs == 0).all(dim=1).sum()),
    )


def step_at(net: SigmoidNet, rows: Rows, theta: Tensor, before: int) -> Step:
    """One step of `Manual` from the weights θ, (n,): 1.4.2's prediction, and what happened."""
    weights = dict(net.named_parameters())
    parts = theta.split([weight.numel() for weight in weights.values()])
    values = {n: p.view(w.shape) for (n, w), p in zip(weights.items(), parts, strict=True)}
    here = SigmoidNet(*net.syn0.shape).to(theta.dtype)
    here.load_state_dict(values)

    output: Tensor = here(rows.inputs).detach()  # δ
    neg_grad = rows.targets - output
    jacobian: dict[str, Tensor] = jacrev(lambda w: functional_call(here, w, (rows.inputs,)))(values)
    j = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)  # ∂δ/∂θ, (rows, n)
    predicted = ALPHA * (j @ j.T) @ neg_grad  # 1.4.2

    def change(seen: Rows) -> Tensor:
        trainer = Manual(here, seen, ALPHA)
        trainer.step()
        stepped: Tensor = functional_call(here, trainer.weights, (rows.inputs,))
        return stepped - output

    happened = change(rows)
    alone = torch.stack(
        [change(Rows(x[None], y[None]))[i] for i, (x, y) in enumerate(zip(*rows, strict=True))]
    )
    return Step(
        before,
        predicted.flatten().tolist(),
        happened.flatten().tolist(),
        int((happened * neg_grad > 0).sum()),
        int((alone * neg_grad > 0).sum()),
    )


def linear_step(rows: Rows, theta: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a linear layer δ = x · θ: the change of δ by 1.4.2, and as it happens."""
    x, y = rows
    neg_grad = y - x @ theta
    stepped = theta + ALPHA * x.mT @ neg_grad  # 1.4.1
    return ALPHA * (x @ x.mT) @ neg_grad, x @ stepped - x @ theta
