"""The distance of two sets of weights: do they hold the same bits, and if not, how far apart?"""

from __future__ import annotations

__all__ = [
    "Comparison",
    "Difference",
    "WeightDifference",
    "Weights",
    "farthest",
    "pieces",
    "ulps_between",
]

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
PIECE = 1 << 16  # numbers: half a megabyte in float64, which stays in cache


@dataclass(frozen=True)
class Difference:
    """One element of one weight, at one step, in which two trajectories differ.

    Args:
        step: after how many steps; 0 is the initial weights.
        weight: the name of the weight.
        index: which element of it.
        mine: its value in the one trajectory.
        theirs: its value in the other, the reference.
        absolute: |mine − theirs|; infinite where one of the two is nan.
        ulps: how many floating-point numbers of the weight's dtype lie between the two, the
            nearer end counted; None where one of them is nan.

    Example:
        >>> mine, theirs = {"w": [1.0, 2.0]}, {"w": [1.0, 2.0 + 2**-51]}
        >>> apart = lockstep([mine], [theirs], steps=0).first_difference
        >>> apart.index, apart.ulps
        ((1,), 1)
    """

    step: int
    weight: str
    index: tuple[int, ...]
    mine: float
    theirs: float
    absolute: float
    ulps: int | None


@dataclass
class WeightDifference:
    """How far one weight has parted.

    Args:
        first_step: the first step after which it differs in any bit; None while it does not.
        largest: the largest |mine − theirs| of any element at any step so far.
        growth: by how much the distance has grown a step, on average, since the first that was
            not 0; None until there are two.
    """

    first_step: int | None = None
    largest: float = 0.0
    growth: float | None = None
    start: tuple[int, float] | None = field(default=None, repr=False)

    def see(self, step: int, distance: float) -> None:
        """Take in the largest distance of any element after `step` steps."""
        self.largest = max(self.largest, distance)
        if self.first_step is None:
            self.first_step = step
        if self.start is None and distance > 0:
            self.start = step, distance
        elif self.start and step > self.start[0]:
            self.growth = (distance / self.start[1]) ** (1 / (step - self.start[0]))


@dataclass
class Comparison:
    """What two trajectories have shown so far; `update` it with the weights after each step.

    Args:
        steps: the last step compared.
        first_difference: at the first step at which they differ in any bit, the element with the
            largest distance; None while there is none.
        weights: for each weight, since when and how far it differs.

    Example:
        >>> from torch import tensor
        >>> comparison = Comparison()
        >>> comparison.update(0, {"w": tensor([1.0, 2.0])}, {"w": tensor([1.0, 2.5])})
        {'w': 0.5}
        >>> comparison.first_difference.index
        (1,)
    """

    steps: int = 0
    first_difference: Difference | None = None
    weights: dict[str, WeightDifference] = field(default_factory=dict)

    @property
    def identical(self) -> bool:
        """Whether all weights held the same bits after every step so far."""
        return self.first_difference is None

    def update(self, step: int, mine: Weights, theirs: Weights) -> dict[str, float]:
        """Compare the weights after `step` steps; weight → largest |mine − theirs|.

        Two dtypes are compared in the wider of both, in which the numbers are the same.
        Two nan at the same place are no difference; a nan against a number is an infinite one;
        0 against −0 differs, by 0.
        """
        self.steps = step
        largest = {}
        parted: list[tuple[float, str]] = []
        for name, reference in theirs.items():
            difference = self.weights.setdefault(name, WeightDifference())
            largest[name] = 0.0
            if not _same(mine[name], reference):
                largest[name] = _largest(mine[name], reference)
                difference.see(step, largest[name])
                parted.append((largest[name], name))
        if parted and self.first_difference is None:
            _, name = max(parted, key=lambda item: item[0])
            self.first_difference = farthest(step, name, mine[name], theirs[name])
        return largest


def ulps_between(mine: float, theirs: float, dtype: torch.dtype) -> int | None:
    """How many steps from one floating-point number of `dtype` to the next lead from one to other.

    0 and −0 are no step apart, the largest finite number and infinity are one; None for nan.
    (Goldberg, "What every computer scientist should know about floating-point arithmetic", 1991.)
    """
    if math.isnan(mine) or math.isnan(theirs):
        return None
    a, b = (_ordinal(value, dtype) for value in (mine, theirs))
    return abs(a - b)


def _ordinal(value: float, dtype: torch.dtype) -> int:
    # Sign and magnitude: floating-point numbers of one sign are ordered as their bits are.
    bits = torch.tensor(value, dtype=dtype).view(_INTEGER[dtype.itemsize]).item()
    magnitude = int(bits) & ((1 << (8 * dtype.itemsize - 1)) - 1)
    return -magnitude if bits < 0 else magnitude


_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _same(mine: Tensor, theirs: Tensor) -> bool:
    """Whether all bits are the same, or at least every difference is nan against nan."""
    integer = _INTEGER[theirs.dtype.itemsize]
    if mine.dtype == theirs.dtype and torch.equal(mine.view(integer), theirs.view(integer)):
        return True
    return not any(_parted(a, b).any() for _, (a, b) in pieces(mine, theirs))


def _largest(mine: Tensor, theirs: Tensor) -> float:
    """The largest |mine − theirs| (see `_distance`); one pass, unless something is not finite."""
    largest = [torch.dist(a, b, p=torch.inf) for _, (a, b) in pieces(mine, theirs)]
    if all(map(torch.isfinite, largest)):
        return max(largest).item()
    return max(_distance(a, b).max().item() for _, (a, b) in pieces(mine, theirs))


def _parted(mine: Tensor, theirs: Tensor) -> Tensor:
    """Where the bits differ, nan against nan left out."""
    integer = _INTEGER[theirs.dtype.itemsize]
    return (mine.view(integer) != theirs.view(integer)) & ~(mine.isnan() & theirs.isnan())


def _distance(mine: Tensor, theirs: Tensor) -> Tensor:
    """|mine − theirs| element by element: 0 where both are the same, infinite for one nan."""
    distance = (mine - theirs).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return distance.where(_parted(mine, theirs), 0.0)


def farthest(step: int, name: str, mine: Tensor, theirs: Tensor) -> Difference:
    """The element of one weight with the largest distance, of those that differ."""
    largest, index = -1.0, (0,) * mine.ndim
    for begin, (a, b) in pieces(mine, theirs):
        # −1 keeps an equal pair behind a 0 against a −0.
        distance = _distance(a, b).where(_parted(a, b), -1.0)
        far = int(distance.argmax())
        if distance.flatten()[far] > largest:
            largest = distance.flatten()[far].item()
            within = np.unravel_index(far, a.shape)
            index = tuple(int(i) + start for i, start in zip(within, begin, strict=True))
    wide = torch.promote_types(mine.dtype, theirs.dtype)
    x, y = mine[index].item(), theirs[index].item()
    return Difference(step, name, index, x, y, largest, ulps_between(x, y, wide))


def pieces(*tensors: Tensor) -> Iterator[tuple[tuple[int, ...], tuple[Tensor, ...]]]:
    """Tensors of one shape, a piece at a time, so that no temporary is as large as a weight.

    Yields:
        Where the piece begins in each dimension, and that piece of each tensor, all in the widest
        of their dtypes, in which the numbers are the same.
    """
    shape = tensors[0].shape
    wide = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    if shape.numel() <= PIECE:
        yield (0,) * len(shape), tuple(tensor.to(wide) for tensor in tensors)
        return
    along = max(range(len(shape)), key=lambda dim: shape[dim])
    length = max(1, PIECE * shape[along] // shape.numel())
    for at in range(0, shape[along], length):
        begin = tuple(at if dim == along else 0 for dim in range(len(shape)))
        size = min(length, shape[along] - at)
        yield begin, tuple(tensor.narrow(along, at, size).to(wide) for tensor in tensors)
