"""What TensorBoard shows of two trajectories: the norms of their weights, and the differences."""

from __future__ import annotations

__all__ = ["PAIR", "end_pair", "log_pair"]

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.utils.tensorboard import summary

from .board import of_differences
from .events import EventFile, show_ranges
from .measure import layout_of_lockstep

PAIR = ("mine", "theirs")


def log_pair(
    files: Mapping[str, EventFile],
    weights: Iterable[Mapping[str, Tensor]],
    differences: Mapping[str, float],
    step: int,
) -> None:
    """Write the norms of both weights after a step, and the largest differences."""
    for part, own in zip(PAIR, weights, strict=True):
        scalars = {f"weight_norm/{name}": weight.norm().item() for name, weight in own.items()}
        if part == "mine":
            scalars |= of_differences(differences)
        files[part].add_scalars(scalars, step)


def end_pair(files: Mapping[str, EventFile], names: Iterable[str], report: str, last: int) -> None:
    """Write the report, and the charts of these weights; its first line is their title."""
    whole = [f"{tag}/{name}" for tag in ("difference", "weight_norm") for name in names]
    show_ranges(files, whole, last)
    charts = layout_of_lockstep(names, report.partition("\n")[0])
    files[""].add(summary.custom_scalars(charts))
    files[""].add(summary.text("summary", report.replace("\n", "\n\n")), last)
