"""A cause with its evidence: what is found out of two trajectories, before it is put into words."""

from __future__ import annotations

__all__ = ["Diagnosis", "Edit", "Factor", "listed"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Factor = float | dict[str, float] | None


@dataclass(frozen=True)
class Edit:
    """One change to theirs that makes its steps mine's.

    Args:
        what: an option of the optimizer by its name, or a part of the program: "gradient",
            "schedule", "clip", "adds_up" and the like.
        mine: its value in mine.
        theirs: its value in theirs.
        weights: those that it concerns; none for all.
    """

    what: str
    mine: Any
    theirs: Any
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Why two trajectories part.

    Args:
        cause: one of the words of the table in docs/lockstep.md.
        factor: the number that belongs to the cause, mine over theirs or mine minus theirs.
        step: the step whose update shows it.
        weights: the weights that show it.
        second: a second cause that is there as well, with its factor.
        evidence: what was seen, in words, beyond what the cause says.
        way: of theirs' functions those through which the gradient of these weights goes, and of no
            others, from the loss backwards; empty where that is not known.
        bare: where theirs' updates are all that is known of it, and not its gradients, the learning
            rate by which they were divided, 1 if that is not known; else 0.
        doubt: why nothing is named though something would explain it: "several" causes would, or
            the difference is "hardly" more than rounding; else empty.
        edits: what a replay has shown mine to do otherwise; none where there was no replay.
        theirs: theirs' optimizer as a replay has seen it.
        optimizer_of_mine: mine's, where it was seen and is another.
        same_gradients: whether mine was seen to have theirs' gradients.
        other_gradients: whether theirs takes mine's steps once it has mine's gradients.
        outside: whose weights were seen to change by more than optimizer.step(), "mine" or
            "theirs", where that is why nothing is named; else empty.
        added_to: the weights whose gradients were not 0 in mine when backward() was called, but
            were in theirs.
        reproduced: in how many steps, each from mine's weights, theirs with the edits does as mine.
        residual: the most that is left then, in roundings.
        alike: what else mine may be said to do, in words, since it does the same.
        reduced: the shape of what theirs' loss is reduced from.
        squared: whether that may be squares.
        momentum: mine's, with the edits.
    """

    cause: str
    factor: Factor = None
    step: int = 0
    weights: tuple[str, ...] = ()
    second: tuple[str, Factor] | None = None
    evidence: str = ""
    way: tuple[str, ...] = ()
    bare: float = 0.0
    doubt: str = ""
    edits: tuple[Edit, ...] = ()
    theirs: str = ""
    optimizer_of_mine: str = ""
    same_gradients: bool = False
    other_gradients: bool = False
    outside: str = ""
    added_to: tuple[str, ...] = ()
    reproduced: int = 0
    residual: float = 0.0
    alike: tuple[str, ...] = ()
    reduced: tuple[int, ...] = ()
    squared: bool = True
    momentum: float = 0.0


def listed(names: Sequence[str]) -> str:
    """The names as a sentence has them: a, b and c."""
    if not names:
        return ""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
