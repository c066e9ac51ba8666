"""Question 2: one step on the weights, and what it does to the output of every row."""

from __future__ import annotations

__all__ = ["linear_step", "one_step", "step_at"]

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.nn.utils import vector_to_parameters

from ..data import Rows, Table
from ..net import SigmoidNet
from ..trainers import Manual
from .answer import Answer, bound

ALPHA = 1.0
POINTS = (0, 1, 10, 100)  # steps of training before the step that is measured


def one_step(net: SigmoidNet, table: Table, path: Tensor) -> Answer:
    """Question 2: one step at each of several points of training, and one of a linear layer.

    Args:
        net: the post's network.
        table: its rows to learn are those that the loss is over.
        path: weights after 0, 1, 2 … steps of training, of shape (steps + 1, n).

    Returns:
        An answer with these facts:

        - rows: each row's label.
        - targets: y of each row.
        - points: a step at each of several points of training, see `step_at`.
        - linear_error: of 1.4.2 for one linear layer: the largest difference of any row.
        - linear_right: how many rows a step on a linear layer moves towards their target.
        - linear_still: how many rows it cannot move, for their x·xᵀ is 0.
    """
    rows, theta = table.learned, net.syn0.detach()[:, :1]
    predicted, happened = linear_step(rows, theta)
    wanted = rows.targets - rows.inputs @ theta
    facts: dict[str, Any] = {
        "rows": list(table.learned_labels),
        "targets": rows.targets.flatten().tolist(),
        "points": [step_at(net, rows, path[before], before) for before in POINTS],
        "linear_error": (predicted - happened).abs().max().item(),
        "linear_right": int((happened * wanted > 0).sum()),
        "linear_still": int((rows.inputs == 0).all(dim=1).sum()),
    }
    count = len(rows.targets)
    heads = (f"{row}: {y:g}" for row, y in zip(facts["rows"], facts["targets"], strict=True))
    cells = [["row: target", "", *heads, "right", "alone"]]
    for point in facts["points"]:
        shares = [f"{point['right']} of {count}", f"{point['alone_right']} of {count}"]
        predictions = map(_signed, point["predicted"])
        cells.append([f"step {point['before'] + 1}", "1.4.2", *predictions, "", ""])
        cells.append(["", "real", *map(_signed, point["happened"]), *shares])
    still = facts["linear_still"]
    zero = f", and {still} cannot move at all: its x·xᵀ is 0" if still else ""
    return Answer(
        "2-one-step",
        "Question 2: why may the gradient of δ be used for θ?",
        "x·xᵀ > 0, so that every δ moves the right way (1.4.2)",
        facts,
        [
            f"1.4.2 with J·Jᵀ (J = ∂δ/∂θ) in place of x·xᵀ, against one real step at alpha "
            f"{ALPHA:g}. right: rows that moved the right way; alone: rows that do so in a step "
            "that sees no other row.",
            cells,
            f"One linear layer, for which 1.4.2 is exact: difference "
            f"{bound(facts['linear_error'])}; {facts['linear_right']} of {count} rows move the "
            f"right way{zero}.",
        ],
    )


def _signed(change: float) -> str:
    return f"{change:+.4f}".replace("-", "−")


def step_at(net: SigmoidNet, rows: Rows, theta: Tensor, before: int) -> dict[str, Any]:
    """One step of `Manual` from one point of training: 1.4.2's prediction, and what happened.

    Args:
        net: the post's network.
        rows: the rows that the loss is over.
        theta: the weights there, of shape (n,).
        before: steps of training before it.

    Returns:
        - before: as given.
        - predicted: change of each row's output by 1.4.2, with J·Jᵀ in place of x·xᵀ.
        - happened: change of each row's output.
        - right: how many rows moved towards their target.
        - alone_right: how many rows move towards their target in a step on that row alone.
    """
    here = SigmoidNet(*net.syn0.shape).to(theta.dtype)
    vector_to_parameters(theta, here.parameters())
    weights = {name: weight.detach() for name, weight in here.named_parameters()}

    def outputs(weights: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(here, weights, (rows.inputs,))
        return result

    output = outputs(weights)  # δ
    neg_grad = rows.targets - output
    jacobian: dict[str, Tensor] = jacrev(outputs)(weights)
    j = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)  # ∂δ/∂θ, (rows, n)
    predicted = ALPHA * (j @ j.T) @ neg_grad  # 1.4.2

    def change(seen: Rows) -> Tensor:
        trainer = Manual(here, seen, ALPHA)
        trainer.step()
        return outputs(trainer.weights) - output

    happened = change(rows)
    alone = torch.stack(
        [change(Rows(x[None], y[None]))[i] for i, (x, y) in enumerate(zip(*rows, strict=True))]
    )
    return {
        "before": before,
        "predicted": predicted.flatten().tolist(),
        "happened": happened.flatten().tolist(),
        "right": int((happened * neg_grad > 0).sum()),
        "alone_right": int((alone * neg_grad > 0).sum()),
    }


def linear_step(rows: Rows, theta: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a linear layer δ = x · θ: the change of δ by 1.4.2, and as it happens."""
    x, y = rows
    neg_grad = y - x @ theta
    stepped = theta + ALPHA * x.mT @ neg_grad  # 1.4.1
    return ALPHA * (x @ x.mT) @ neg_grad, x @ stepped - x @ theta
