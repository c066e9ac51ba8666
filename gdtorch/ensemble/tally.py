"""What is counted over very many networks, in integers: tallies add up to the same bits."""

from __future__ import annotations

__all__ = ["COUNTS", "QUANTILES", "Networks", "Tally", "checkpoints"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Of all starts each is one of the first four; the Hessian has told the last two of a sample apart.
COUNTS = ("learned", "stuck", "falling", "diverged", "held_out", "plateau", "saddle")
QUANTILES = (0, 1, 50, 99, 100)  # per cent
EDGES = 1e-16 * 1.01 ** np.arange(3900)  # of the loss's bins, up to 7; below and above is one each
HELD_OUT_BINS = 100  # of the output for the row held out, over [0, 1]
NONE = np.iinfo(np.int64).max  # a start's number where there is none


def checkpoints(steps: int) -> Integers:
    """The steps after which rows are checked: 0, then 10 or up to 5 % apart, at last `steps`.

    A check costs as much as a few compiled steps.
    """
    at = [0]
    while at[-1] < steps:
        at.append(min(steps, at[-1] + max(10, at[-1] // 200 * 10)))
    return np.array(at)


class Networks(NamedTuple):
    """What has become of networks, for `Tally.of` to count; each array has one entry a network.

    Args:
        starts: their numbers.
        losses: L, perhaps not finite.
        learned: whether all rows learned are right.
        held_out: the output for the row held out.
        held_out_right: whether that is right.
        first_right: the checkpoint at which first all rows were right; −1 where none was.
        stuck: whether no step to come would matter (see `gdtorch.ensemble.stuck`).
    """

    starts: Integers
    losses: Floats
    learned: NDArray[np.bool_]
    held_out: Floats
    held_out_right: NDArray[np.bool_]
    first_right: Integers
    stuck: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tally:
    r"""Counts of networks; `+` is exact, commutative and associative.

    So the sum has the same bits in whatever order, and on however many processes, it was added up.

    Args:
        vector: of shape (length,): for each of `COUNTS` a number of networks; histograms of the
            loss, the output held out and the first checkpoint with all rows right; for each of
            `COUNTS` and each bin of the loss the lowest start there; at last the least loss and the
            greatest, each with its lowest start. Floats are there by their bits, which, where no
            float is negative, are in the floats' order.
        checkpoints: how many there are.
    """

    vector: Integers
    checkpoints: int

    @classmethod
    def empty(cls, checkpoints: int) -> Tally:
        """The tally of no networks."""
        bins = len(EDGES) + 1
        sums = len(COUNTS) + bins + HELD_OUT_BINS + checkpoints
        ends = [NONE, NONE, -1, NONE]
        lowest = np.full(len(COUNTS) + bins, NONE)
        return cls(np.concatenate([np.zeros(sums, np.int64), lowest, ends]), checkpoints)

    @classmethod
    def of(cls, networks: Networks, checkpoints: int) -> Tally:
        """The tally of networks."""
        tally = cls.empty(checkpoints)
        finite = np.isfinite(networks.losses)
        losses = np.where(finite, networks.losses, np.inf)
        bins = np.searchsorted(EDGES, losses, side="right")
        np.add.at(tally.losses, bins, 1)
        np.minimum.at(tally.lowest_by_loss, bins, networks.starts)
        held_out = (networks.held_out[finite] * HELD_OUT_BINS).astype(np.int64)
        np.add.at(tally.held_out, held_out.clip(0, HELD_OUT_BINS - 1), 1)
        np.add.at(tally.first_right, networks.first_right[networks.first_right >= 0], 1)
        wrong = finite & ~networks.learned
        members = {
            "learned": finite & networks.learned,
            "stuck": wrong & networks.stuck,
            "falling": wrong & ~networks.stuck,
            "diverged": ~finite,
            "held_out": finite & networks.held_out_right,
        }
        for kind, member in members.items():
            tally.note(kind, networks.starts[member])
        if len(losses):
            bits = losses.view(np.int64)
            for end, value in ((slice(-4, -2), bits.min()), (slice(-2, None), bits.max())):
                tally.vector[end] = value, networks.starts[bits == value].min()
        return tally

    def note(self, kind: str, starts: Integers) -> None:
        """Count these starts as of a kind, one of `COUNTS`, in place."""
        at = COUNTS.index(kind)
        self.vector[at] += len(starts)
        self._lowest[at] = min([self._lowest[at], *starts.tolist()])

    def __add__(self, other: Tally) -> Tally:
        first, second = self.vector, other.vector
        sums = len(first) - len(self._lowest) - 4
        least = min(first[-4:-2].tolist(), second[-4:-2].tolist())
        greatest = min(
            (first[-2:].tolist(), second[-2:].tolist()), key=lambda end: (-end[0], end[1])
        )
        lowest = np.minimum(self._lowest, other._lowest)
        vector = np.concatenate([first[:sums] + second[:sums], lowest, least, greatest])
        return Tally(vector, self.checkpoints)

    @property
    def counts(self) -> dict[str, int]:
        """How many networks are of each kind."""
        return dict(zip(COUNTS, self.vector.tolist(), strict=False))

    @property
    def losses(self) -> Integers:
        """Histogram of the loss: below `EDGES`, between each two of them, above."""
        return self._part(0, len(EDGES) + 1)

    @property
    def held_out(self) -> Integers:
        """Histogram of the output for the row held out."""
        return self._part(len(EDGES) + 1, HELD_OUT_BINS)

    @property
    def first_right(self) -> Integers:
        """How many had all rows right at each checkpoint, and at none before."""
        return self._part(len(EDGES) + 1 + HELD_OUT_BINS, self.checkpoints)

    @property
    def lowest_by_loss(self) -> Integers:
        """The lowest start in each bin of the loss."""
        return self._lowest[len(COUNTS) :]

    @property
    def _lowest(self) -> Integers:
        return self.vector[-4 - len(COUNTS) - len(EDGES) - 1 : -4]

    def _part(self, offset: int, length: int) -> Integers:
        return self.vector[len(COUNTS) + offset :][:length]

    @property
    def starts(self) -> int:
        """How many networks have been counted."""
        return int(self.losses.sum())

    def lowest(self, kind: str) -> int | None:
        """The lowest start of a kind, one of `COUNTS`; None where there is none."""
        start = int(self._lowest[COUNTS.index(kind)])
        return start if start < NONE else None

    @property
    def worst(self) -> int:
        """The lowest start of those with the greatest loss."""
        return int(self.vector[-1])

    @property
    def median(self) -> int:
        """The lowest start of those in the median's bin of the loss."""
        return int(self.lowest_by_loss[_bin(self.losses, 50)])

    def loss(self, percent: int) -> float:
        """The least loss that so many per cent of the networks do not exceed.

        Exact for 0 and 100; else the middle of a bin 1 % wide, hence within 0.5 %, from
        10⁻¹⁶ on.
        """
        ends = self.vector[[-4, -2]].view(np.float64).tolist()
        if percent in (0, 100):
            return float(ends[percent // 100])
        at = _bin(self.losses, percent)
        if at in (0, len(EDGES)):
            middle = EDGES[0] if at == 0 else math.inf
        else:
            middle = math.sqrt(EDGES[at - 1] * EDGES[at])
        return float(min(max(middle, ends[0]), ends[1]))

    def median_steps(self, at: Sequence[int]) -> int | None:
        """The median of the first checkpoint with all rows right, of those that had one."""
        return int(at[_bin(self.first_right, 50)]) if self.first_right.any() else None


def _bin(histogram: Integers, percent: int) -> int:
    """The bin of the entry that so many per cent of all do not exceed."""
    rank = max(1, -(-int(histogram.sum()) * percent // 100))
    return int(np.searchsorted(histogram.cumsum(), rank))
