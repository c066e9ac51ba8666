"""Learning rates step by step: theirs, and what mine's are called beside them."""

from __future__ import annotations

__all__ = ["RESTS", "is_plain", "lr_at", "near", "schedule"]

import math
from collections.abc import Sequence
from itertools import pairwise

from .record import Record
from .replay import Program

SELDOM = 0.25  # of the steps
RESTS = 1e-9  # of the largest learning rate, below which one is 0 but for rounding


def lr_at(record: Record, theirs: Program, name: str, step: int) -> float:
    """Theirs' learning rate at a step."""
    seen = record.steps[step].rules.get(name)
    rate = theirs.rates[min(step, len(theirs.rates) - 1)]
    lr = theirs.options["lr"] if theirs.optimizer or seen is None else seen[1]["lr"]
    return rate * float(lr)


def schedule(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """What mine's learning rates are beside theirs, step by step; empty where that has no name."""
    constant = near(theirs, [theirs[0]] * len(theirs))
    moves = next((k for k, lr in enumerate(mine) if lr > RESTS * max(mine)), 0)
    if moves and near(mine[moves:], theirs[moves:]):
        return f"takes no step until step {moves + 1}"
    if not constant and near(mine[:-1], theirs[1:]):
        return "is a step ahead in the schedule"
    if not constant and near(mine[1:], theirs[:-1]):
        return "is a step behind in the schedule"
    if near(mine, [mine[0]] * len(mine)):
        return f"has a constant lr of {mine[0]:.6g}"
    rates = [a / b if b else math.inf for a, b in zip(mine, theirs, strict=True)]
    first = next((k for k, rate in enumerate(rates) if not near([rate], [1.0])), 0)
    tail = rates[first:]
    if first and len(tail) == 1:
        return f"has {tail[0]:.6g} times lr in step {first + 1}"
    if first and near(tail, tail[:1] * len(tail)):
        return f"has {tail[0]:.6g} times lr from step {first + 1} on"
    if near(tail[1:], [1.0] * len(tail[1:])):
        return f"has {tail[0]:.6g} times lr in step {first + 1} alone"
    shape = _shape([lr / mine[0] for lr in mine]) if mine[0] else ""
    return f"has an lr that {shape}, from {mine[0]:.6g} on" if shape else ""


def is_plain(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether learning rates have a name, or change but seldom."""
    changes = sum(not near([a], [b]) for a, b in pairwise(mine))
    return bool(schedule(mine, theirs)) or changes <= len(mine) * SELDOM


def _shape(rates: Sequence[float]) -> str:
    """How learning rates change that begin at 1."""
    count = len(rates)
    if count < 4:
        return ""
    if near(rates, [rates[1] ** k for k in range(count)]):
        return f"is multiplied by {rates[1]:.6g} at each step"
    if all(rates):
        grow = 1 / rates[1] - 1
        if near([1 / rate for rate in rates], [1 + grow * k for k in range(count)]):
            return f"is divided by 1 + {grow:.6g} t"
    if near(rates, [(1 + k) ** -0.5 for k in range(count)]):
        return "is divided by the root of t"
    slope = rates[1] - 1
    if near(rates, [1 + slope * k for k in range(count)]):
        how = "grows" if slope > 0 else "falls"
        return f"{how} by {_share(abs(slope))} of the first lr at each step"
    top = max(range(count), key=lambda k: rates[k])
    if top > 1 and near(rates, [1 + slope * min(k, top) for k in range(count)]):
        return f"warms up over {top} steps"
    half = min(range(1, count), key=lambda k: abs(rates[k] - 0.5))
    if 0 < rates[half] < 1:
        length = half * math.pi / math.acos(2 * rates[half] - 1)
        if near(rates, [(1 + math.cos(math.pi * k / length)) / 2 for k in range(count)]):
            return f"falls as a cosine over {length:.4g} steps"
    return ""


def _share(number: float) -> str:
    """A number, as 1/n where it is that."""
    whole = round(1 / number)
    return f"1/{whole}" if whole > 1 and near([number * whole], [1.0]) else f"{number:.6g}"


def near(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether numbers are the same but for what a fit leaves."""
    pairs = zip(one, other, strict=True)
    return bool(one) and all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in pairs)
