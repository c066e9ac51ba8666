"""Counts over very many networks, as integers: their sum has the same bits in any order."""

from __future__ import annotations

__all__ = ["COUNTS", "EDGES", "HELD_OUT_BINS", "QUANTILES", "Tally", "checkpoints"]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Each start is one of the first four. The last two count a sample of those that are stuck.
COUNTS = ("learned", "stuck", "falling", "diverged", "held_out", "plateau", "saddle")
SHARES = ("learned", "held_out", "stuck", "falling", "diverged")
QUANTILES = (0, 1, 50, 99, 100)  # per cent
EDGES = 1e-16 * 1.01 ** np.arange(3900)  # of the loss's bins, up to 7, and one below and above
HELD_OUT_BINS = 100  # of the output for the row held out, over [0, 1]
NONE = np.iinfo(np.int64).max  # stands for the number of a start that does not exist


def checkpoints(steps: int) -> Integers:
    """The steps after which rows are checked: 0, then 10 or up to 5 % apart, at last `steps`.

    A check costs as much as a few compiled steps.
    """
    at = [0]
    while at[-1] < steps:
        at.append(min(steps, at[-1] + max(10, at[-1] // 200 * 10)))
    return np.array(at)


@dataclass(eq=False)
class Tally:
    """Counts of networks; `+` is exact, commutative and associative.

    So the sum has the same bits in any order and on any number of processes.

    Args:
        counted: for each of `COUNTS`, how many networks.
        losses: histogram of the loss: below `EDGES`, between each two of them, above.
        held_out: histogram of the output for the row held out.
        first_right: how many had all rows right at each checkpoint, and at none before.
        lowest_counted: for each of `COUNTS`, the lowest start.
        lowest_by_loss: the lowest start in each bin of the loss.
        least: the least loss, and the lowest start that has it. A loss is here by the bits of its
            float64: of floats that are not negative, these are in the floats' order.
        greatest: the greatest loss, its bits negated, so that the least of these is the greatest.
    """

    counted: Integers
    losses: Integers
    held_out: Integers
    first_right: Integers
    lowest_counted: Integers
    lowest_by_loss: Integers
    least: Integers
    greatest: Integers

    @classmethod
    def empty(cls, steps: int) -> Tally:
        """The tally of no networks that take so many steps."""
        kinds, bins = len(COUNTS), len(EDGES) + 1
        return cls(
            counted=np.zeros(kinds, np.int64),
            losses=np.zeros(bins, np.int64),
            held_out=np.zeros(HELD_OUT_BINS, np.int64),
            first_right=np.zeros(len(checkpoints(steps)), np.int64),
            lowest_counted=np.full(kinds, NONE),
            lowest_by_loss=np.full(bins, NONE),
            least=np.array([NONE, NONE]),
            greatest=np.array([NONE, NONE]),
        )

    @classmethod
    def of(
        cls,
        starts: Integers,
        losses: Floats,
        held_out: Floats,
        first_right: Integers,
        kinds: Mapping[str, Integers],
        steps: int,
    ) -> Tally:
        """The tally of networks, which are given by arrays with one entry for each.

        Args:
            starts: their numbers.
            losses: L, perhaps not finite.
            held_out: the outputs for the rows held out, of shape (rows, networks).
            first_right: the checkpoint at which first all rows were right; −1 where none was.
            kinds: for each of `COUNTS`, the numbers of the starts that are of that kind.
            steps: how many they have taken.
        """
        tally = cls.empty(steps)
        for number, kind in enumerate(COUNTS):
            tally.counted[number] = len(kinds[kind])
            tally.lowest_counted[number] = kinds[kind].min(initial=NONE)
        finite = np.isfinite(losses)
        losses = np.where(finite, losses, np.inf)
        bins = np.searchsorted(EDGES, losses, side="right")
        np.add.at(tally.losses, bins, 1)
        np.minimum.at(tally.lowest_by_loss, bins, starts)
        outputs = (held_out[:, finite] * HELD_OUT_BINS).astype(np.int64)
        np.add.at(tally.held_out, outputs.clip(0, HELD_OUT_BINS - 1), 1)
        np.add.at(tally.first_right, first_right[first_right >= 0], 1)
        bits = losses.view(np.int64)
        for end, keys in ((tally.least, bits), (tally.greatest, -bits)):
            end[0] = keys.min(initial=NONE)
            end[1] = starts[keys == end[0]].min(initial=NONE)
        return tally

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.counted + other.counted,
            self.losses + other.losses,
            self.held_out + other.held_out,
            self.first_right + other.first_right,
            np.minimum(self.lowest_counted, other.lowest_counted),
            np.minimum(self.lowest_by_loss, other.lowest_by_loss),
            min(self.least, other.least, key=tuple),
            min(self.greatest, other.greatest, key=tuple),
        )

    @property
    def vector(self) -> Integers:
        """All the integers one after the other, to write and to send."""
        return np.concatenate(list(vars(self).values()))

    def like(self, vector: Integers) -> Tally:
        """The tally whose `vector` this is, of as many steps as this one."""
        sizes = [len(part) for part in vars(self).values()]
        return Tally(*np.split(vector, np.cumsum(sizes)[:-1]))

    @property
    def counts(self) -> dict[str, int]:
        """How many networks are of each kind."""
        return dict(zip(COUNTS, self.counted.tolist(), strict=True))

    @property
    def starts(self) -> int:
        """How many networks have been counted."""
        return int(self.losses.sum())

    def telling(self) -> dict[str, int]:
        """The starts that are worth a run of their own, by what each stands for.

        Each is the lowest of its kind: of those with the greatest loss, those in the median's bin
        of the loss, those on a plateau, and those at a saddle, if there are any.
        """
        at_median = self.lowest_by_loss[_bin(self.losses, 50)]
        starts = {"the worst": int(self.greatest[1]), "the median": int(at_median)}
        for kind, start in zip(COUNTS, self.lowest_counted.tolist(), strict=True):
            if kind in {"plateau", "saddle"} and start < NONE:
                starts[f"stuck on a {kind}"] = start
        return starts

    def facts(self, steps: int) -> dict[str, Any]:
        """What became of the networks in so many steps, for a program."""
        counts = self.counts
        return {
            "starts": self.starts,
            "counts": counts,
            "shares": {kind: counts[kind] / self.starts for kind in SHARES},
            "median_steps": self.median_steps(steps),
            "loss": {str(percent): self.loss(percent) for percent in QUANTILES},
        }

    def histograms(self) -> dict[str, tuple[Floats, Integers]]:
        """What is shown of all networks → the n + 1 edges of its bins, and their n counts."""
        return {
            "held_out": (np.linspace(0, 1, HELD_OUT_BINS + 1), self.held_out),
            # The first and the last bin of the losses are left out: they have no width.
            "log10_loss": (np.log10(EDGES), self.losses[1:-1]),
        }

    def loss(self, percent: int) -> float:
        """The least loss that so many per cent of the networks do not exceed.

        Exact for 0 and 100; else the middle of a bin 1 % wide, hence within 0.5 %, from
        10⁻¹⁶ on.
        """
        least, greatest = np.array([self.least[0], -self.greatest[0]]).view(np.float64).tolist()
        if percent in (0, 100):
            return float(greatest if percent else least)
        at = _bin(self.losses, percent)
        if at in (0, len(EDGES)):
            middle = EDGES[0] if at == 0 else math.inf
        else:
            middle = math.sqrt(EDGES[at - 1] * EDGES[at])
        return float(min(max(middle, least), greatest))

    def median_steps(self, steps: int) -> int | None:
        """The median of the first checkpoint with all rows right, of those that had one."""
        at = checkpoints(steps)
        return int(at[_bin(self.first_right, 50)]) if self.first_right.any() else None


def _bin(histogram: Integers, percent: int) -> int:
    """The bin of the entry that so many per cent of all do not exceed."""
    rank = max(1, -(-int(histogram.sum()) * percent // 100))
    return int(np.searchsorted(histogram.cumsum(), rank))
