"""Which weight of mine is which of theirs, where names or shapes differ."""

from __future__ import annotations

__all__ = ["Pair", "Pairing", "pair"]

import math
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, permutations, product

import torch
from torch import Tensor

from ..diagnosis import Diagnosis, listed
from ..distance import Weights, close

ROUNDINGS = 8  # of float32; initial weights this near count as equal, as if copied by hand
MOST_AXES = 5  # of a weight; with more, not every order of them is tried
MOST_SAID = 12  # pairs that a report names

Axes = tuple[int, ...]  # the order of mine's axes in theirs, those of length 1 left out


@dataclass(frozen=True)
class Pair:
    """One weight in both.

    Args:
        mine: its name in mine.
        axes: the order that mine's axes have in theirs, those of length 1 left out.
        own: its shape in mine.
        shape: its shape in theirs.
        notes: how it was found, in words; empty if the names say it.
    """

    mine: str
    axes: Axes
    own: torch.Size
    shape: torch.Size
    notes: tuple[str, ...] = ()

    def view(self, mine: Tensor) -> Tensor:
        """Mine's array laid out as theirs: the same memory, so that it stays live."""
        if mine.shape == self.shape and self.axes == _plain(self.axes):
            return mine
        return mine.squeeze().permute(self.axes).reshape(self.shape)

    def back(self, laid: Tensor) -> Tensor:
        """An array that is laid out as theirs, laid out as mine's."""
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return laid.squeeze().permute(inverse).reshape(self.own)


@dataclass(frozen=True)
class Pairing:
    """Which weight of mine is which of theirs.

    Args:
        pairs: name in theirs → pair.
        refusal: what could not be paired, in words; None if there is nothing.
    """

    pairs: Mapping[str, Pair]
    refusal: Diagnosis | None

    def named(self, mine: Weights, theirs: Weights) -> tuple[Weights, Weights]:
        """Both under theirs' names, or mine's if theirs are only numbers; laid out as theirs."""
        names = self._names()
        return (
            {names[name]: pair.view(mine[pair.mine]) for name, pair in self.pairs.items()},
            {names[name]: weight for name, weight in theirs.items()},
        )

    def layout(self) -> dict[str, Pair]:
        """The pairs under the names that `named` gives."""
        names = self._names()
        return {names[name]: pair for name, pair in self.pairs.items()}

    def _names(self) -> dict[str, str]:
        numbers = all(re.fullmatch(r"p?\d+", name) for name in self.pairs)
        return {name: pair.mine if numbers else name for name, pair in self.pairs.items()}

    def __str__(self) -> str:
        """How they were paired, in one line; empty if all have the same name and shape."""
        said = []
        for name, pair in self.pairs.items():
            if pair.notes or name != pair.mine:
                both = name if name == pair.mine else f"{pair.mine} with {name}"
                said.append(both + (f" ({', '.join(pair.notes)})" if pair.notes else ""))
        if len(said) > MOST_SAID:
            said[MOST_SAID:] = [f"and {len(said) - MOST_SAID} more"]
        return f"paired: {', '.join(said)}" if said else ""


def pair(mine: Weights, theirs: Weights, renamed: Collection[str] = ()) -> Pairing:
    """Pair the weights of two trajectories: by name, by equal values, by shape, by order.

    If both have the same names, these make the pairs, where shapes allow it. What is left is paired
    in this order: by equal initial values, transposed or with axes of length 1 more or less, if no
    other weight has them; by name, unless values have shown that names mislead; by a shape that one
    weight alone has on either side; by order, if there is only one weight of a shape between two
    known pairs, or if all of a shape hold the same values, as biases of 0 do.

    Args:
        mine: the initial weights of the one.
        theirs: those of the other.
        renamed: names that the user has given, which overrule all else.
    """
    search = _Search(mine, theirs)
    both = [name for name in mine if name in theirs]
    alike = len(both) == len(mine) == len(theirs)
    search.by_name(both if alike else renamed)
    search.by_values()
    if not alike:
        if not any(
            one != name and {one, name} & {*both} for name, (one, *_) in search.found.items()
        ):
            search.by_name(both)
        search.by_shape()
        search.by_order()
    return Pairing(dict(search.oriented()), search.refusal())


class _Search:
    """The search, pair by pair, until nothing is left or nothing tells.

    Attributes:
        found: name in theirs → name in mine, the ways to lay out mine's values, and how it was
            found.
    """

    def __init__(self, mine: Weights, theirs: Weights) -> None:
        self.mine, self.theirs = mine, theirs
        self.left, self.others = dict(mine), dict(theirs)  # what is yet to be paired
        self.found: dict[str, tuple[str, list[Axes], str]] = {}
        self.sum = cache(lambda weight: weight.double().abs().sum().item())

    def by_name(self, names: Iterable[str]) -> None:
        """Pair what is left of these names on both sides, where the shapes allow it."""
        for name in names:
            if name in self.left and name in self.others:
                self._settle(name, name)

    def refusal(self) -> Diagnosis | None:
        """What is left, in words."""
        mine, theirs = self.left, self.others
        if not mine and not theirs:
            return None
        if mine.keys() == theirs.keys():
            sizes = (f"{n} is {_size(mine[n])} in mine, {_size(theirs[n])} in theirs" for n in mine)
            return Diagnosis("shape", weights=tuple(mine), evidence="; ".join(sizes))
        ours, others = (
            listed([f"{name} {_size(weight)}" for name, weight in weights.items()])
            for weights in (mine, theirs)
        )
        if ours and others:
            unlike = "neither names, shapes nor initial values tell which is which"
            evidence = f"{ours} in mine; {others} in theirs: {unlike}"
        else:
            has, lacks = ("mine", "theirs") if ours else ("theirs", "mine")
            evidence = f"{ours or others} in {has}, which {lacks} does not train, or does not yield"
            evidence += "".join(self._tied(name) for name in mine or theirs)
        lone = (*mine, *(name for name in theirs if name not in mine))
        return Diagnosis("names", weights=lone, evidence=evidence)

    def _tied(self, name: str) -> str:
        """What is said of a weight that begins as another one of the same program does."""
        weights = self.mine if name in self.mine else self.theirs
        one = weights[name]
        twins = (n for n, w in weights.items() if n != name and w.shape == one.shape and one.any())
        twin = next((n for n in twins if torch.equal(weights[n], one)), "")
        return f"; it begins as {twin} does: the other may have one array for both" if twin else ""

    def _settle(self, mine: str, theirs: str, by: str = "") -> None:
        """Make two weights a pair, if one can be laid out as the other."""
        ways = _ways(self.left[mine], self.others[theirs])
        equal = self.equal(mine, theirs) if len(ways) > 1 else ways
        if not equal:
            equal = [axes for axes in ways if axes == _plain(axes)]
        if not equal:
            return
        self.found[theirs] = mine, equal, by
        del self.left[mine], self.others[theirs]

    def equal(self, mine: str, theirs: str) -> list[Axes]:
        """The ways to lay out mine's values so that they are theirs."""
        one, other = self.left[mine], self.others[theirs]
        dtypes = (torch.float32, one.dtype, other.dtype)
        epsilon = ROUNDINGS * max(torch.finfo(dtype).eps for dtype in dtypes)
        sums = self.sum(one), self.sum(other)  # cheaper than to compare them whole
        if not (math.isclose(*sums, rel_tol=2 * epsilon) or all(map(math.isnan, sums))):
            return []
        ways = _ways(one, other)
        return [
            w
            for w in ways
            if close(Pair(mine, w, one.shape, other.shape).view(one), other, epsilon)
        ]

    def by_values(self) -> None:
        """Pair those whose values no other weight has, on either side."""
        equal = {m: [t for t in self.others if self.equal(m, t)] for m in self.left}
        claimed = [t for found in equal.values() for t in found]
        for mine, found in equal.items():
            if len(found) == 1 and claimed.count(found[0]) == 1:
                self._settle(mine, found[0])

    def by_shape(self) -> None:
        """Pair those whose shape no other weight has."""
        self._alone(dict.fromkeys(self.left, 0), dict.fromkeys(self.others, 0), "by shape")

    def by_order(self) -> None:
        """Pair what stands between the same two pairs, and then what holds the same numbers.

        Only if the known pairs stand in the same order on both sides.
        """
        places = {name: place for place, name in enumerate(self.mine)}
        others = {name: place for place, name in enumerate(self.theirs)}
        known = sorted((places[mine], others[theirs]) for theirs, (mine, *_) in self.found.items())
        if any(one[1] > two[1] for one, two in pairwise(known)):
            return
        one, two = ([pair[side] for pair in known] for side in (0, 1))
        self._alone(
            {name: bisect(one, places[name]) for name in self.left},
            {name: bisect(two, others[name]) for name in self.others},
            "by order",
        )
        for mine in list(self.left):
            if mine in self.left:
                ones = [n for n in self.left if _lengths(self.left[n]) == _lengths(self.left[mine])]
                same = [name for name in self.others if self.equal(mine, name)]
                if len(ones) == len(same) and all(self.equal(*two) for two in product(ones, same)):
                    for name, other in zip(ones, same, strict=True):
                        self._settle(name, other, "by order")

    def _alone(self, mine: dict[str, int], theirs: dict[str, int], by: str) -> None:
        """Pair those that are the only ones of their shape at their place, on both sides."""
        groups: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, names, weights in ((0, mine, self.left), (1, theirs, self.others)):
            for name, place in names.items():
                groups[place, tuple(sorted(_lengths(weights[name])))][side].append(name)
        for ones, others in groups.values():
            if len(ones) == len(others) == 1:
                self._settle(ones[0], others[0], by)

    def oriented(self) -> Iterator[tuple[str, Pair]]:
        """Each pair in theirs' order; a symmetric matrix is laid out as the others are."""
        turned = {
            ways[0] != _plain(ways[0])
            for _, ways, _ in self.found.values()
            if len(ways) == 1 and len(ways[0]) > 1
        }
        for theirs in self.theirs:
            if theirs not in self.found:
                continue
            mine, ways, by = self.found[theirs]
            axes = ways[-1] if turned == {True} else ways[0]  # the last one is the transpose
            before, after = self.mine[mine].shape, self.theirs[theirs].shape
            notes = []
            if axes == _plain(axes)[::-1] and (len(axes) > 1 or before == after[::-1] != after):
                notes.append("transposed")
            elif axes != _plain(axes):
                notes.append(f"axes in the order {axes}")
            elif before != after:
                notes.append("reshaped")
            if len(ways) > 1 and (mine != theirs or True in turned):
                notes.append("equal either way round")
            yield theirs, Pair(mine, axes, before, after, (*notes, *filter(None, [by])))


def _plain(axes: Axes) -> Axes:
    return tuple(range(len(axes)))


def _lengths(weight: Tensor) -> list[int]:
    return [length for length in weight.shape if length != 1]


def _ways(mine: Tensor, theirs: Tensor) -> list[Axes]:
    """The orders of mine's axes that give theirs' shape: as they are first, transposed last."""
    lengths, wanted = _lengths(mine), _lengths(theirs)
    if sorted(lengths) != sorted(wanted):
        return []
    plain = tuple(range(len(lengths)))
    orders = permutations(plain) if len(plain) <= MOST_AXES else iter((plain, plain[::-1]))
    return [axes for axes in orders if [lengths[axis] for axis in axes] == wanted]


def _size(weight: Tensor) -> tuple[int, ...]:
    return tuple(weight.shape)
