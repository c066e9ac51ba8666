"""What is said of one of several trainers: the same bits as the reference, or where and why not."""

from __future__ import annotations

__all__ = ["verdict"]

import math
from collections.abc import Callable

from torch.nn import Module

from ..text import count
from ..trainers import Trainer
from .report.explain import in_ulps
from .report.words import phrase
from .trajectory import Lockstep, lockstep

LATE = 100  # steps; where a trainer parts later, no reason is looked for
SHOWN = 2  # steps after the parting that are replayed as well


def verdict(
    trainer: Trainer, together: Lockstep, net: Module, fresh: Callable[[str], Trainer] | None
) -> str:
    """Whether a trainer holds the same bits as the reference; if not, where and why they part.

    Args:
        trainer: one that is not the reference.
        together: what compared it.
        net: the network that the trainers began with.
        fresh: a trainer's name → the same one at the initial weights, to find out why it parts;
            None if steps are compiled, since those round otherwise.
    """
    name, stride, comparison = trainer.name, together.stride, together.comparisons[trainer.name]
    first, taken = comparison.first_difference, count(comparison.steps, "step")
    if first is None:
        same, begun = f"{name} = {together.reference}", dict(net.named_parameters())
        still = all(weight.equal(begun[name]) for name, weight in trainer.weights.items())
        if comparison.steps and still:
            return (
                f"{same}, but no weight moved in either: each of {taken} was too short to change "
                "one"
            )
        each = f"every {stride} of " if stride > 1 else "each of " if comparison.steps != 1 else ""
        size = sum(weight.numel() for weight in begun.values())
        return f"{same}: the same bits in all {size} weights after {each}{taken}"
    parted = (
        f"{name} ≠ {together.reference}: they part {'at' if stride == 1 else 'by'} step "
        f"{first.step} in {first.weight} by up to {first.absolute:.1e}"
    )
    if fresh is None:
        return f"{parted}; compiled steps round otherwise"
    if first.step <= LATE and math.isfinite(first.absolute):
        why = _why(fresh(name), fresh(together.reference), first.step + SHOWN)
        if why:
            return f"{parted}, because {why}"
    return f"{parted} ({', '.join(filter(None, [in_ulps(first), f'at {list(first.index)}']))})"


def _why(mine: Trainer, theirs: Trainer, steps: int) -> str:
    """Why a trainer parts from its reference, found by a replay of the first steps."""
    try:
        report = lockstep(mine, theirs, steps)
    except ArithmeticError:  # where a step cannot be taken
        return ""
    if report.agree:
        return "each rounds in its own order"
    whys = [phrase(edit)[0] for edit in report.edits]
    return f"{mine.name} {' and '.join(whys)}" if whys else ""
