"""What one step of two trajectories shows: each cause against the evidence, the simplest first."""

from __future__ import annotations

__all__ = ["first_update", "later_update", "second_update"]

import math
from collections.abc import Sequence
from dataclasses import replace

from .diagnosis import Diagnosis, listed
from .rounding import Fit, Updates

NO_CHANGE = 1e-6  # of a learning rate: nobody's schedule, but rounding that has grown
WEAK = 10  # a difference of less than so many times the rounding fits too many causes
OUTSIDE = "decay outside the velocity"


def first_update(updates: Updates, lr: float) -> Diagnosis:
    """The first update: both stood at the same weights, with no history.

    Args:
        updates: the first step, in which the two part.
        lr: learning rate, so that a weight decay can be given as λ; 1 for lr · λ.
    """
    everywhere = updates.fit(updates.names, "theirs")
    decay = updates.fit(updates.parted, "weights")
    if everywhere and decay and _weak(updates):
        return _ambiguous(1, updates, "scale", "weight decay")
    if everywhere:
        scale = _scale(updates.names, everywhere)
        other = f"a weight decay of {-decay.coefficients[0] / lr:.6g} as well" if decay else ""
        return replace(scale, evidence=other)
    single = _scale_of_one(updates)
    if single:
        return single
    if decay and decay.numbers > 1:
        factor, error = -decay.coefficients[0] / lr, decay.errors[0] / lr
        return Diagnosis("weight decay", factor, 1, tuple(updates.parted), error)
    both = updates.fit(updates.names, "theirs", "weights")
    if both and both.certain and not _weak(updates):
        return _scale_and_decay(updates, both, lr)
    agreeing = [name for name in updates.moving if name not in updates.parted]
    if agreeing and not _weak(updates):
        evidence = f"the first update of {listed(agreeing)} agrees"
        return Diagnosis(
            "one weight's update", step=1, weights=tuple(updates.parted), evidence=evidence
        )
    return _unexplained(1, updates, "the first updates differ, by no simple rule")


def _scale(names: Sequence[str], fit: Fit) -> Diagnosis:
    multiple, error = 1 + fit.coefficients[0], fit.errors[0]
    if abs(multiple + 1) <= max(error, 1e-9):
        return Diagnosis("sign", -1.0, 1, tuple(names), error)
    return Diagnosis("scale", multiple, 1, tuple(names), error)


def _scale_of_one(updates: Updates) -> Diagnosis | None:
    fits = {name: updates.fit([name], "theirs") for name in updates.parted}
    known = {name: fit for name, fit in fits.items() if fit}
    if len(known) < len(fits) or not any(fit.numbers > 1 for fit in known.values()):
        return None
    if _weak(updates):
        return None
    factor = {name: 1 + fit.coefficients[0] for name, fit in known.items()}
    error = max(fit.errors[0] for fit in known.values())
    return Diagnosis("scale of one weight", factor, 1, tuple(factor), error)


def _scale_and_decay(updates: Updates, fit: Fit, lr: float) -> Diagnosis:
    decay, error = -fit.coefficients[1] / lr, fit.errors[1] / lr
    scale = _scale(updates.names, fit)
    if fit.norms[0] < fit.norms[1]:
        second = ("scale", 1 + fit.coefficients[0])
        return Diagnosis("weight decay", decay, 1, tuple(updates.names), error, second)
    return replace(scale, second=("weight decay", decay))


def second_update(updates: Updates, lr: float) -> Diagnosis:
    """The second update: both stand at the same weights still, and may remember the first.

    Args:
        updates: the second step.
        lr: as `first_update`.
    """
    memory = updates.fit(updates.parted, "first")
    schedule = updates.fit(updates.names, "theirs")
    if memory and schedule and _weak(updates):
        return _ambiguous(2, updates, "momentum", "step size schedule")
    if memory:
        return _memory(updates, memory)
    if schedule:
        return _schedule(2, updates, schedule)
    both = updates.fit(updates.names, "theirs", "first")
    if both and both.certain and not _weak(updates):
        fresh, first = 1 + both.coefficients[0], both.coefficients[1]
        # Mine leaves out a part of the fresh gradient, or theirs does: then first < 0.
        if (first > 0 and fresh > 0) or (first < 0 and fresh > 1):
            return Diagnosis("dampening", fresh, 2, tuple(updates.names), both.errors[0])
    outside = updates.fit(updates.parted, "start")
    if outside and outside.numbers > 1:
        return _outside(updates, outside, lr)
    return _unexplained(2, updates, "the first updates agree, the second differ by no simple rule")


def _outside(updates: Updates, fit: Fit, lr: float) -> Diagnosis:
    """A velocity carries the first step's decay, λ · the initial weights, on in one of the two."""
    # A decay that sets in at the second step is a multiple of the weights as they are by then.
    if _weak(updates) or updates.fit(updates.parted, "weights"):
        return _ambiguous(2, updates, OUTSIDE, "a weight decay that sets in late")
    factor, error = fit.coefficients[0] / lr, fit.errors[0] / lr
    return Diagnosis(OUTSIDE, factor, 2, tuple(updates.parted), error)


def later_update(step: int, updates: Updates) -> Diagnosis:
    """An update after the second, the first that rounding does not explain."""
    fit = updates.fit(updates.names, "theirs")
    if fit and abs(fit.coefficients[0]) > NO_CHANGE:
        return _schedule(step, updates, fit)
    return _unexplained(
        step, updates, f"updates agree to step {step - 1}, then part by no simple rule"
    )


def _weak(updates: Updates) -> bool:
    return max(updates.signal.values()) < WEAK


def _ambiguous(step: int, updates: Updates, one: str, other: str) -> Diagnosis:
    evidence = f"the difference is so small that {one} and {other} both explain it"
    return replace(_unexplained(step, updates, evidence), several=True)


def _unexplained(step: int, updates: Updates, evidence: str) -> Diagnosis:
    return Diagnosis("unexplained", step=step, weights=tuple(updates.parted), evidence=evidence)


def _memory(updates: Updates, fit: Fit) -> Diagnosis:
    multiple, error = fit.coefficients[0], fit.errors[0]
    cause = "momentum"
    if abs(abs(multiple) - 1) <= max(error, 1e-9):
        cause, multiple = "gradients not zeroed", math.copysign(1, multiple)
    return Diagnosis(cause, multiple, 2, tuple(updates.parted), error)


def _schedule(step: int, updates: Updates, fit: Fit) -> Diagnosis:
    multiple, error = 1 + fit.coefficients[0], fit.errors[0]
    return Diagnosis("step size schedule", multiple, step, tuple(updates.names), error)
