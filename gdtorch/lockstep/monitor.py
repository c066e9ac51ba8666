"""Why two trajectories part: decided from the first steps, where both stood at the same weights."""

from __future__ import annotations

__all__ = ["Monitor"]

import math
from dataclasses import replace

import torch
from torch import Tensor

from .causes import first_update, later_update, second_update
from .diagnosis import Diagnosis
from .distance import Weights, close
from .rounding import (
    GROWTH,
    Snapshot,
    Updates,
    coarsest_dtype,
    largest,
    moved,
    of_gradients,
    precision,
)

DRIFT = 1e5  # roundings: how far they may have carried the weights in the end


class Monitor:
    """Look at both trajectories after every step, until the cause is found.

    It keeps at most three copies of the weights: those of both after the last step, and, until the
    third, those of the reference one step earlier.

    Args:
        lr: learning rate, so that a weight decay can be given as λ and not as lr · λ.
    """

    def __init__(self, lr: float | None = None) -> None:
        self.lr = lr or 1.0
        self.found: Diagnosis | None = None
        self.precisions = (torch.float64, torch.float64)
        self.before: Snapshot | None = None  # after the last step
        self.earlier: Weights | None = None  # the reference, one step before that

    @property
    def parted(self) -> bool:
        """Whether a difference has been seen that rounding does not explain."""
        return self.found is not None

    @property
    def epsilon(self) -> float:
        """Relative rounding error of the lower of both precisions."""
        return max(torch.finfo(dtype).eps for dtype in self.precisions)

    def begin(self, mine: Weights, theirs: Weights, distance: float) -> Snapshot:
        """See the initial weights, and copy them."""
        now = Snapshot(mine, theirs, distance)
        guesses = precision(mine), precision(theirs)
        self.found = self._initial(now, max(torch.finfo(dtype).eps for dtype in guesses))
        # No report is made of them: the weights before a step may be of few bits by choice.
        self.precisions = coarsest_dtype(mine), coarsest_dtype(theirs)
        self.before = now.kept()
        return self.before

    def settle(self, mine: Weights, theirs: Weights) -> None:
        """See the weights after the first step: in which precision do the two run?"""
        if self.before and not self.found:
            pairs = ((self.before.mine, mine), (self.before.theirs, theirs))
            ours, others = (precision(b) if moved(a, b) else coarsest_dtype(b) for a, b in pairs)
            self.precisions = ours, others
            self.found = self._initial(self.before, self.epsilon)

    def look_for_shift(self, mine: Weights, theirs: Weights) -> None:
        """See whether one begins where the other is after its first step, given that step."""
        if not self.before or not self.found or self.found.cause != "initial weights":
            return
        starts = ("mine", self.before.mine, theirs), ("theirs", self.before.theirs, mine)
        for who, start, second in starts:
            if all(self._near(start[name], second[name]) for name in start):
                other = "theirs" if who == "mine" else "mine"
                evidence = (
                    f"{who} begins where {other} is after the first step: what it holds before "
                    "the first step is missing"
                )
                self.found = replace(self.found, evidence=evidence)

    def _near(self, start: Tensor, second: Tensor) -> bool:
        """Whether they are the same, but for the rounding of one step."""
        rounding = of_gradients(self.epsilon) * float(second.abs().max())
        return float((start - second).abs().max()) <= rounding

    def look(self, step: int, mine: Weights, theirs: Weights, distance: float) -> None:
        """See the weights after `step` steps, from 1 on, and the largest distance."""
        if self.before and not self.found:
            now = Snapshot(mine, theirs, distance)
            self.found = self._step(step, self.before, now)
            if not self.found:
                self._keep(step, now)

    def conclude(self, *, identical: bool) -> Diagnosis:
        """The cause, once both trajectories have ended.

        Args:
            identical: whether they held the same bits throughout.
        """
        if self.found:
            return self.found
        last = self.before
        if last and last.distance > DRIFT * self.epsilon * max(1.0, largest(last.theirs)):
            return Diagnosis(
                "unexplained",
                evidence="the difference began as small as rounding, but grew beyond it",
            )
        return self.agreement(identical=identical)

    def agreement(self, *, identical: bool) -> Diagnosis:
        """The cause where the two agree."""
        if identical:
            return Diagnosis("identical")
        return Diagnosis("rounding" if len(set(self.precisions)) == 1 else "precision")

    def _keep(self, step: int, now: Snapshot) -> None:
        if self.before and step == 1:
            self.earlier, self.before = self.before.theirs, None
        else:
            self.earlier = None
        self.before = now.kept(into=self.before)

    def _initial(self, now: Snapshot, epsilon: float) -> Diagnosis | None:
        """Do the trajectories begin at the same weights, but for rounding by `epsilon`?"""
        if now.distance == 0:
            return None
        for name, theirs in now.theirs.items():
            if not close(now.mine[name], theirs, epsilon):
                return Diagnosis("initial weights", weights=(name,))
        return None

    def _step(self, step: int, before: Snapshot, now: Snapshot) -> Diagnosis | None:
        """Judge one step; None while rounding explains it."""
        stretched = (1 + GROWTH) * before.distance if step > 2 else 0.0
        if now.distance <= stretched and now.distance < math.inf:
            return None
        first = (self.earlier, before.theirs) if self.earlier else None
        updates = Updates(before, now, self.epsilon, first)
        if now.distance == math.inf and (broken := updates.broken()):
            return Diagnosis("not finite", step=step, weights=tuple(broken))
        if not updates.parted:
            return None
        if step == 1:
            return first_update(updates, self.lr)
        return second_update(updates, self.lr) if step == 2 else later_update(step, updates)
