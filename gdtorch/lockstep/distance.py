"""The distance between two sets of weights: are their bits the same, and if not, how far apart?"""

from __future__ import annotations

__all__ = [
    "Comparison",
    "Difference",
    "WeightDifference",
    "Weights",
    "close",
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
    """One element of one weight that differs between two trajectories at one step.

    Args:
        step: how many steps have been taken; 0 is the initial weights.
        weight: the name of the weight.
        index: which element of it.
        mine: its value in the first trajectory.
        theirs: its value in the second trajectory, the reference.
        absolute: |mine − theirs|; infinite if one of the two is nan.
        ulps: how many steps it is from one to the other, each to the next number of the wider dtype
            (see `ulps_between`); None if one of them is nan.

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
    """How far apart the two values of one weight are, over all steps so far.

    Args:
        first_step: the first step after which they differ in any bit; None while they do not.
        largest: the largest |mine − theirs| of any element at any step so far.
        growth: the factor by which the distance grows a step, on average since the first distance
            that was not 0; None until there are two.
        start: that first step and its distance.
    """

    first_step: int | None = None
    largest: float = 0.0
    growth: float | None = None
    start: tuple[int, float] | None = field(default=None, repr=False)

    def see(self, step: int, distance: float) -> None:
        """Note the largest distance of any element after `step` steps; call it once a step."""
        self.largest = max(self.largest, distance)
        if self.first_step is None:
            self.first_step = step
        if self.start is None and distance > 0:
            self.start = step, distance
        elif self.start:
            self.growth = (distance / self.start[1]) ** (1 / (step - self.start[0]))


@dataclass
class Comparison:
    """How two trajectories differ so far; `update` it with the weights after each step, in order.

    Args:
        steps: the last step compared.
        first_difference: the element with the largest distance, at the first step after which any
            bit differs; None while none does.
        weights: weight → since when and how far the two differ in it.

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

        Weights of two dtypes are compared in the wider one, which holds both exactly. Two nan at
        the same place are no difference. A nan and a number are infinitely far apart. 0 and −0
        differ, by a distance of 0.
        """
        self.steps = step
        largest = {}
        parted = []
        for name, reference in theirs.items():
            difference = self.weights.setdefault(name, WeightDifference())
            largest[name] = 0.0
            if not _same(mine[name], reference):
                largest[name] = _largest(mine[name], reference)
                difference.see(step, largest[name])
                parted.append(name)
        if parted and self.first_difference is None:
            name = max(parted, key=lambda name: largest[name])
            self.first_difference = farthest(step, name, mine[name], theirs[name])
        return largest


def ulps_between(mine: float, theirs: float, dtype: torch.dtype) -> int | None:
    """How many steps it is from mine to theirs, each to the next floating-point number of `dtype`.

    That is 0 from 0 to −0, and 1 from the largest finite number to infinity; None for nan.
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
    """Whether all bits are the same, apart from those of two nan at the same place."""
    integer = _INTEGER[theirs.dtype.itemsize]
    if mine.dtype == theirs.dtype and torch.equal(mine.view(integer), theirs.view(integer)):
        return True
    return not any(_parted(a, b).any() for _, (a, b) in pieces(mine, theirs))


def _largest(mine: Tensor, theirs: Tensor) -> float:
    """The largest |mine − theirs| (see `_distance`), in one quick pass where all is finite."""
    largest = [torch.dist(a, b, p=torch.inf) for _, (a, b) in pieces(mine, theirs)]
    if all(map(torch.isfinite, largest)):
        return max(largest).item()
    return max(_distance(a, b).max().item() for _, (a, b) in pieces(mine, theirs))


def _parted(mine: Tensor, theirs: Tensor) -> Tensor:
    """Where the bits differ, apart from two nan at the same place."""
    integer = _INTEGER[theirs.dtype.itemsize]
    return (mine.view(integer) != theirs.view(integer)) & ~(mine.isnan() & theirs.isnan())


def _distance(mine: Tensor, theirs: Tensor) -> Tensor:
    """|mine − theirs| of each element: 0 where both are the same, infinite where one is nan."""
    distance = (mine - theirs).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    return distance.where(_parted(mine, theirs), 0.0)


def farthest(step: int, name: str, mine: Tensor, theirs: Tensor) -> Difference:
    """Of those elements of one weight that differ, the one with the largest distance."""
    largest, index = -1.0, (0,) * mine.ndim
    for begin, (a, b) in pieces(mine, theirs):
        # Elements that are the same get −1, so that a 0 against a −0 wins over them.
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
    """Cut tensors of one shape into pieces, so that no temporary is as large as a weight.

    Yields:
        For each piece, where it begins in each dimension, and that piece of each tensor. They are
        in the widest of their dtypes, which holds all of them exactly.
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


def close(mine: Tensor, theirs: Tensor, epsilon: float) -> bool:
    """Whether two tensors of one shape agree in each element to a relative error of `epsilon`."""
    return all(
        torch.allclose(a.double(), b.double(), rtol=epsilon, atol=0, equal_nan=True)
        for _, (a, b) in pieces(mine, theirs)
    )
