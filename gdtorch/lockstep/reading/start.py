"""The weights before the first step: do both begin alike, and in which precision do they run?"""

from __future__ import annotations

__all__ = ["Start"]

from dataclasses import replace

from torch import Tensor

from ..diagnosis import Diagnosis
from ..distance import Weights, close
from ..rounding import coarser, coarsest_dtype, moved, of_gradients, precision


class Start:
    """The initial weights of both, copied.

    Args:
        mine: name → array.
        theirs: name → array of the same shape.
        distance: the largest |mine − theirs| of any element.

    Attributes:
        refusal: why nothing later can be compared; None where both begin alike.
        precisions: in which mine and theirs run, as far as their weights tell.
    """

    def __init__(self, mine: Weights, theirs: Weights, distance: float) -> None:
        self.distance = distance
        self.theirs = {name: weight.detach().clone() for name, weight in theirs.items()}
        self.mine = self.theirs  # one copy, where both hold the same
        if distance:
            self.mine = {name: weight.detach().clone() for name, weight in mine.items()}
        self.precisions = precision(mine), precision(theirs)
        self.refusal = self._compared()
        # No report is made of them: the weights before a step may be of few bits by choice.
        self.precisions = coarsest_dtype(mine), coarsest_dtype(theirs)

    def settle(self, mine: Weights, theirs: Weights) -> None:
        """See the weights after the first step, which tell in which precision they run."""
        if not self.refusal:
            pairs = (self.mine, mine), (self.theirs, theirs)
            ours, others = (precision(b) if moved(a, b) else coarsest_dtype(b) for a, b in pairs)
            self.precisions = ours, others
            self.refusal = self._compared()
        if self.refusal:
            self._look_for_shift(mine, theirs)

    def has_moved(self, mine: Weights, theirs: Weights) -> bool:
        """Whether any weight of either is another by now."""
        return moved(self.mine, mine) or moved(self.theirs, theirs)

    def _compared(self) -> Diagnosis | None:
        """Do they begin at the same weights, but for rounding?"""
        epsilon = coarser(self.precisions)
        pairs = self.theirs.items() if self.distance else ()
        unlike = tuple(n for n, theirs in pairs if not close(self.mine[n], theirs, epsilon))
        return Diagnosis("initial weights", weights=unlike) if unlike else None

    def _look_for_shift(self, mine: Weights, theirs: Weights) -> None:
        """See whether one begins where the other is after its first step."""
        for who, other, start, second in (
            ("mine", "theirs", self.mine, theirs),
            ("theirs", "mine", self.theirs, mine),
        ):
            if self.refusal and all(self._near(start[name], second[name]) for name in start):
                evidence = (
                    f"{who} begins where {other} is after the first step: what it holds before "
                    "the first step is missing"
                )
                self.refusal = replace(self.refusal, evidence=evidence)

    def _near(self, start: Tensor, second: Tensor) -> bool:
        """Whether they are the same, but for the rounding of one step."""
        epsilon = coarser(self.precisions)
        rounding = of_gradients(epsilon) * float(second.abs().max())
        return float((start - second).abs().max()) <= rounding
