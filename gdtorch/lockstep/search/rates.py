"""Edits by which each step is of another length: a schedule of lr, or a factor of each gradient."""

from __future__ import annotations

__all__ = ["SCALES", "beside", "is_of_lr", "scales", "schedule"]

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..replaying.replay import SMALLEST, Program
from ..replaying.schedules import is_plain, lr_at
from ..replaying.trial import Build, Candidate, Fitted, Trial, changed, share
from .candidates import rate
from .plainness import NEARLY_HELD, rounded

SCALES = "scale of each step"
NEWTON = 10  # rounds, where fewer do not do
CLOSE = 0.1  # of rounding, within which a factor of a step is found
NUDGE = 1e-4  # of a factor, by which its derivative is taken


def schedule(trial: Trial, theirs: Program) -> Fitted | None:
    """The learning rate of each step, by least squares."""
    window = trial.window
    known = replace(theirs, free=frozenset())  # what is taken from mine tells no rate
    rates = torch.ones(len(window.steps), dtype=torch.float64)
    for _ in range(2):  # again, for what a small step of theirs has lost to rounding
        made = window.predict(replace(known, rates=tuple(rates.tolist())))
        told = (made - window.before).abs() / window.noise
        rates = rates * window.best_rates(made)
        off = rates.abs() * (1e-9 + told.square().sum(dim=1).clamp(min=SMALLEST).rsqrt())
        rates = torch.tensor(_settled(rates.tolist(), off.tolist()), dtype=torch.float64)
        if not bool((rates >= 0).all()):
            return None
    if not bool(((told > 1).sum(dim=1) >= 3).any()):
        return None
    numbers = tuple(rates.tolist())
    build = changed(rates=numbers)
    return Fitted(Candidate("step size schedule", build, (numbers,)), numbers, math.nan)


def _settled(rates: Sequence[float], off: Sequence[float]) -> list[float]:
    """The rates, each 1 or as the one before where rounding leaves that open."""
    settled, last = [], 1.0
    for one, error in zip(rates, off, strict=True):
        if abs(one - last) > error:
            last = 1.0 if abs(one - 1) <= error else one
        settled.append(last)
    return settled


def is_of_lr(trial: Trial, found: Fitted) -> bool:
    """Whether lr must be what changes: it was seen to, or the changes have a shape."""
    name, steps = trial.parted[0], range(len(found.numbers))
    seen = {lr_at(trial.record, trial.theirs, name, step) for step in steps}
    return trial.sees_mines_rules or len(seen) > 1 or _has_shape(trial, found.numbers)


def _has_shape(trial: Trial, rates: Sequence[float]) -> bool:
    """Whether a schedule has a shape; without one, it might make up for any other mistake."""
    name, first = trial.parted[0], trial.theirs.rates[0]
    lrs = [lr_at(trial.record, trial.theirs, name, step) for step in range(len(rates))]
    return is_plain([lr * one / first for lr, one in zip(lrs, rates, strict=True)], lrs)


def scales(trial: Trial) -> list[tuple[Fitted, ...]]:
    """A factor of each step's gradients, found by Newton's method, one step after the other."""
    if trial.agreeing:
        return []
    window, by = trial.window, [1.0] * len(trial.window.steps)

    def off(step: int, scale: float) -> Tensor:
        by[step] = scale
        made = window.predict(replace(trial.theirs, scales=tuple(by)))
        return (window.after - made)[step] / window.noise[step]

    for step in range(trial.first, len(by)):
        for _ in range(NEWTON):
            now, nudged = by[step], by[step] * (1 + NUDGE)
            rest = off(step, now)
            if bool((rest.abs() <= CLOSE).all()):
                break
            slope = (rest - off(step, nudged)) / (nudged - now)
            by[step] = float(now + share(rest, slope))
        if not bool((off(step, by[step]).abs() <= 1).all()):
            return []
    numbers = tuple(by)
    found = Fitted(Candidate(SCALES, changed(scales=numbers), (numbers,)), numbers, math.nan)
    return [(found,)] if trial.holds(found) else []


def beside(trial: Trial, singles: Sequence[Fitted], seconds: float) -> list[tuple[Fitted, ...]]:
    """Another edit beside a schedule: fitted with each step as long as suits it best.

    Args:
        trial: what is to be explained.
        singles: the other edits, the plainest first.
        seconds: of this thread's time, in which they are fitted.
    """
    tried, deadline = [], time.thread_time() + seconds
    for one in singles:
        if time.thread_time() > deadline:
            break
        if one.candidate.build is not rate:
            free = replace(one.candidate, build=_at_any_rate(one.candidate.build))
            tried.append((rounded(trial, trial.fit(free)), one))
    held = (_with_schedule(trial, *pair) for pair in tried if pair[0].left <= NEARLY_HELD)
    found = [pair for pair in held if pair]
    if not found:
        return []
    edit, rates = max(found, key=_is_plain)
    return [(edit, rates) if any(one != 1 for one in rates.numbers) else (edit,)]


def _is_plain(pair: tuple[Fitted, Fitted]) -> tuple[int, bool, bool]:
    """The plainest has the most of this; some edits make up for a rate, and leave fewer as theirs'.

    A slip in the rule may be what an option is, and a number less plain than a switch.
    """
    edit, rates = pair
    return rates.numbers.count(1.0), edit.candidate.cause != "update rule", not edit.numbers


def _at_any_rate(build: Build) -> Build:
    return lambda program, x: replace(build(program, x), any_rate=True)


def _with_schedule(trial: Trial, fitted: Fitted, one: Fitted) -> tuple[Fitted, Fitted] | None:
    """An edit with numbers found at any rate, and the schedule beside it; None without one."""
    for numbers in _without_a_rate(fitted):
        edit = replace(one, numbers=numbers)
        found = schedule(trial, edit.apply(trial.theirs))
        if found is None or not _has_shape(trial, found.numbers):
            continue
        if trial.holds(edit, found) and not _clips_all(trial, edit):
            return edit, found
    return None


def _without_a_rate(fitted: Fitted) -> list[tuple[float, ...]]:
    """Numbers found with each step as long as fits best.

    Factors of all weights are then known but for one of all: one weight's is taken to be 1.
    """
    if fitted.candidate.cause != "scale of one weight":
        return [fitted.numbers]
    several = fitted.numbers if len(fitted.numbers) > 1 else ()
    return [tuple(float(f"{x / one:.6g}") for x in several) for one in several if one]


def _clips_all(trial: Trial, edit: Fitted) -> bool:
    """Whether an edit clips so low that each step is as long as the schedule makes it."""
    lower = replace(edit, numbers=tuple(x / 2 for x in edit.numbers))
    if edit.candidate.cause != "clipping" or not edit.numbers:
        return False
    found = schedule(trial, lower.apply(trial.theirs))
    return found is not None and trial.holds(lower, found)
