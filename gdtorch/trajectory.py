"""Trajectories side by side: after every step, do they hold the same bits, and where do they part?

A trajectory is an iterable of weights, name → array: first the initial weights, then the weights
after each step. The arrays may be live, changed in place by the next step.
"""

from __future__ import annotations

__all__ = ["Lockstep"]

from collections.abc import Iterable, Iterator, Mapping

from .distance import Comparison, Weights


class Lockstep:
    """Advance trajectories together, one step at a time, each compared to the reference.

    Iterating yields the number of steps taken, from 0; `differences` then holds, for each
    trajectory but the reference, the largest |mine − theirs| of each weight at that step, and
    `comparisons` what has been seen since step 0. The shortest trajectory ends it.

    Args:
        trajectories: name → trajectory, of the same weights in the same dtype on one device.
        reference: the name of the one that all others are compared to.
    """

    def __init__(self, trajectories: Mapping[str, Iterable[Weights]], reference: str) -> None:
        self.trajectories = trajectories
        self.reference = reference
        self.comparisons = {name: Comparison() for name in trajectories if name != reference}
        self.differences: dict[str, dict[str, float]] = {}

    def __iter__(self) -> Iterator[int]:
        for step, weights in enumerate(zip(*self.trajectories.values(), strict=False)):
            current = dict(zip(self.trajectories, weights, strict=True))
            for name, comparison in self.comparisons.items():
                self.differences[name] = comparison.update(
                    step, current[name], current[self.reference]
                )
            yield step
