"""What `quartic` prints: what became of each start, in words and as facts."""

from __future__ import annotations

__all__ = ["Walk", "facts", "outcome", "text"]

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..lockstep import Comparison
from .report import aligned, count, in_words

SETTINGS = ("steps", "descent", "lr", "maximize")


@dataclass(frozen=True)
class Walk:
    """What became of one start.

    Args:
        start: the number that it is called by.
        path: x after each step, from 0, the start.
        f: f at the last of them; so are the next three.
        gradient: f′.
        second_derivative: f″.
        kind: minimum, maximum or neither.
        rest: the step from which on |f′| was 0 but for 10⁻⁹; None if it is still moving.
        ran_away: whether the next step would have gone past all bounds.
        comparison: of `manual` with `sgd`.
    """

    start: str
    path: list[float]
    f: float
    gradient: float
    second_derivative: float
    kind: str
    rest: int | None
    ran_away: bool
    comparison: Comparison

    @property
    def steps(self) -> int:
        """How many steps it took."""
        return len(self.path) - 1


def _heading(options: argparse.Namespace) -> str:
    steps = count(options.steps, "step")
    return f"f(x) = x⁴/4 − x³ + x², float64; {steps} of {in_words(vars(options))}"


def text(options: argparse.Namespace, walks: Sequence[Walk]) -> list[str]:
    """What became of each start, for a person."""
    header = ["from", "came to rest at", "f there", "f″ there", "kind of point", "after step"]
    lines = [_heading(options), "", *aligned([header, *map(_cells, walks)]), ""]
    lines += [
        f"from {walk.start}: the gradient {_zero(walk)}, on a {walk.kind}, so no step moves x"
        for walk in walks
        if walk.path[0] == walk.path[-1] and walk.gradient == 0
    ]
    apart = [walk for walk in walks if not walk.comparison.identical]
    for walk in apart:
        first = walk.comparison.first_difference
        lines.append(
            f"from {walk.start}: manual ≠ sgd, first after step {first.step if first else 0}"
        )
    if not apart:
        starts = "every start" if len(walks) == len(options.starts) else "each start above"
        lines.append(f"manual = sgd: the same bits of x after each step, from {starts}")
    return lines


def _zero(walk: Walk) -> str:
    return "is zero" if walk.path[0] in {0.0, 1.0, 2.0} else "rounds to zero"


def _cells(walk: Walk) -> list[str]:
    if walk.ran_away:
        return [walk.start, "ran away", "", "", "", str(walk.steps)]
    if walk.rest is None:
        where = f"not at rest: {walk.path[-1]:.6g}"
        return [walk.start, where, f"{walk.f:.6f}", f"{walk.second_derivative:.2f}", walk.kind, ""]
    numbers = [
        f"{round(walk.path[-1], 6) + 0.0:.6f}",
        f"{walk.f:.6f}",
        f"{walk.second_derivative:.2f}",
    ]
    return [walk.start, *numbers, walk.kind, str(walk.rest)]


def outcome(walk: Walk) -> str:
    """What became of a start, in a few words."""
    if walk.ran_away:
        return f"ran away after step {walk.steps}"
    moving = "not at rest" if walk.rest is None else walk.kind
    return f"{moving}, at {round(walk.path[-1], 6) + 0.0:.3g}"  # 0, not −0


def facts(options: argparse.Namespace, folder: Path, walks: Sequence[Walk]) -> dict[str, Any]:
    """Everything that is printed, for a program."""
    return {
        "run": str(folder),
        "settings": {key: getattr(options, key) for key in SETTINGS},
        "starts": {
            walk.start: {
                "x": walk.path[-1],
                "f": walk.f,
                "gradient": walk.gradient,
                "second_derivative": walk.second_derivative,
                "kind": walk.kind,
                "steps": walk.steps,
                "at_rest_after": walk.rest,
                "ran_away": walk.ran_away,
                "identical": walk.comparison.identical,
            }
            for walk in walks
        },
    }
