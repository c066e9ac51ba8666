"""What networks side by side amount to: every scalar of one step, for all of them in one pass."""

from __future__ import annotations

__all__ = ["measure"]

import torch

from .data import Table
from .net import SigmoidNet, squared_error

MANY_ROWS = 16  # a chart with more lines than that tells nobody anything


@torch.no_grad()
def measure(networks: SigmoidNet, table: Table) -> tuple[list[str], list[list[float]]]:
    """Every scalar that the weights of networks side by side amount to.

    The norms of the gradient are those of the loss over all rows learned, at these weights.

    Args:
        networks: weights with a leading dimension, one network each.
        table: the rows to learn and held out.

    Returns:
        The tags, and for each network a value for each tag.
    """
    output = networks(table.learned.inputs)  # (networks, rows, 1)
    right = (output > 0.5) == (table.learned.targets > 0.5)  # the same side of ½
    scalars = {
        "loss": squared_error(output, table.learned.targets),
        "accuracy": right.to(output.dtype).mean(dim=(-2, -1)),
    }
    if table.held_out_labels:
        held_out = networks(table.held_out.inputs)
        scalars["held_out/loss"] = squared_error(held_out, table.held_out.targets)
    for name, gradient in networks.gradient(table.learned).items():
        weights = networks.get_parameter(name)
        scalars[f"gradient_norm/{name}"] = torch.linalg.vector_norm(gradient, dim=(-2, -1))
        scalars[f"weight_norm/{name}"] = torch.linalg.vector_norm(weights, dim=(-2, -1))
    tags, values = list(scalars), [torch.stack(list(scalars.values()), dim=1)]
    if 0 < len(table.held_out_labels) <= MANY_ROWS:
        tags += [f"held_out/{label}" for label in table.held_out_labels]
        values.append(held_out.flatten(1))
    if len(table.learned_labels) + len(table.held_out_labels) <= MANY_ROWS:
        tags += [f"prediction/{label}" for label in table.learned_labels]
        values.append(output.flatten(1))
    return tags, torch.cat(values, dim=1).tolist()
