"""One step of two trajectories as evidence: least squares against candidates, up to rounding."""

from __future__ import annotations

__all__ = [
    "Fit",
    "Snapshot",
    "Updates",
    "chunks",
    "coarsest_dtype",
    "largest",
    "moved",
    "of_gradients",
    "precision",
]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .distance import Weights, pieces

# A step's rounding is taken in three parts: one rounding of each weight that is stored; so many
# of the gradient's largest element, since it is a sum that cancels; and one of the number 1, for
# a gradient that cancels to 0 is still made of numbers of about that size.
GRADIENT = 64
COARSEST = 2.0**-4  # but no more of it: in low precisions, sums are taken in a higher one
GROWTH = 10  # how much a step may stretch the distance of two trajectories, and be mere rounding


@dataclass(frozen=True)
class Snapshot:
    """The weights of both trajectories after one step.

    Args:
        mine: name → array, of the one.
        theirs: name → array of the same shape and dtype, of the reference.
        distance: the largest |mine − theirs| of any element of any weight.
    """

    mine: Weights
    theirs: Weights
    distance: float

    def kept(self, into: Snapshot | None = None) -> Snapshot:
        """A copy that the next step does not change; one copy, where both hold the same.

        Args:
            into: a pair that is kept no longer, whose memory is used again.
        """
        theirs = _copy(self.theirs, into.theirs if into else None)
        if self.distance == 0:
            return Snapshot(theirs, theirs, 0.0)
        spare = into.mine if into and into.mine is not into.theirs else None
        return Snapshot(_copy(self.mine, spare), theirs, self.distance)


def _copy(weights: Weights, into: Weights | None) -> Weights:
    if into is None:
        return {name: weight.detach().clone() for name, weight in weights.items()}
    for name, weight in weights.items():
        into[name].copy_(weight.detach())
    return into


@dataclass(frozen=True)
class Fit:
    """Coefficients that explain a difference of updates up to rounding.

    Args:
        coefficients: one for each candidate vector.
        errors: what rounding leaves open of each.
        norms: Euclidean norm of each candidate's share in the difference.
        numbers: how many elements the fit explains that rounding does not.
    """

    coefficients: tuple[float, ...]
    errors: tuple[float, ...]
    norms: tuple[float, ...]
    numbers: int

    @property
    def certain(self) -> bool:
        """Whether the numbers suffice for so many candidates."""
        return self.numbers >= 2 * len(self.coefficients)


class Updates:
    """One step of both trajectories: mine − theirs of the updates, and what may explain it.

    With m and t the two updates, the difference m − t is fitted to a sum of candidates, each
    times a number: "theirs" (t itself), "weights" (the weights before the step), "first" (the
    first update of all, theirs) and "start" (the initial weights).

    Args:
        before: the weights of both before the step.
        after: the weights of both after it.
        epsilon: relative rounding error of one operation, in the lower precision of the two.
        first: the weights before and after the first step of all, for "first" and "start".
    """

    def __init__(
        self,
        before: Snapshot,
        after: Snapshot,
        epsilon: float,
        first: tuple[Weights, Weights] | None = None,
    ) -> None:
        self.before, self.after, self.first = before, after, first
        self.names = list(after.theirs)
        self.epsilon = epsilon
        self.scale = {name: self._scale(name) for name in self.names}
        self.signal = {name: self._signal(name) for name in self.names}

    @property
    def parted(self) -> list[str]:
        """The weights whose updates differ by more than rounding explains."""
        return [name for name in self.names if self.signal[name] > 1]

    @property
    def moving(self) -> list[str]:
        """The weights that move in the reference by more than rounding."""
        return [n for n in self.names if any((t.abs() > x).any() for _, t, x in self._updates(n))]

    def broken(self) -> list[str]:
        """The weights with an element that is finite in one only, or infinite with two signs."""
        names = []
        for name in self.names:
            for m, t in chunks(self.after.mine[name], self.after.theirs[name]):
                opposite = (m == -t) & m.isinf()
                if ((m.isfinite() != t.isfinite()) | opposite).any():
                    names.append(name)
                    break
        return names

    def fit(self, names: Sequence[str], *candidates: str) -> Fit | None:
        """Fit the difference in these weights to candidates, all weights by the same numbers.

        Returns:
            The fit, or None where rounding does not explain what it leaves, or where the
            candidates cannot be told apart.
        """
        count = len(candidates)
        gram, solution = torch.zeros(count, count).double(), torch.zeros(count).double()
        for _, columns, noise in self._columns(names, candidates):
            weighted = columns / noise
            gram += weighted @ weighted.T
        if not (gram.isfinite().all() and gram.diag().all()):
            return None
        size = gram.diag().sqrt()
        correlation = gram / torch.outer(size, size)
        if torch.linalg.det(correlation) < 1e-9 * count:
            return None
        for _ in range(3):  # refined: candidates may be nearly parallel
            moment = torch.zeros(count).double()
            for difference, columns, noise in self._columns(names, candidates):
                moment += (columns / noise) @ ((difference - solution @ columns) / noise)
            solution = solution + torch.linalg.solve(correlation, moment / size) / size
        errors = torch.linalg.inv(correlation).diag().sqrt() / size
        return self._checked(names, candidates, solution, errors)

    def _checked(
        self, names: Sequence[str], candidates: Sequence[str], solution: Tensor, errors: Tensor
    ) -> Fit | None:
        gain = 1 + solution.abs().sum()
        squares, numbers = torch.zeros(len(candidates)).double(), 0
        for difference, columns, noise in self._columns(names, candidates):
            shares = solution[:, None] * columns
            if ((difference - shares.sum(dim=0)).abs() > gain * noise).any():
                return None
            squares += shares.square().sum(dim=1)
            numbers += int((difference.abs() > gain * noise).sum())
        norms = squares.sqrt().tolist()
        return Fit(tuple(solution.tolist()), tuple(errors.tolist()), tuple(norms), numbers)

    def _columns(
        self, names: Sequence[str], candidates: Sequence[str]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Difference (n), candidates (count, n) and noise (n), a chunk of a weight at a time."""
        for name in names:
            weights = chunks(self.before.theirs[name])
            first = chunks(*(w[name] for w in self.first)) if self.first else None
            for (mine, theirs, noise), (start,) in zip(self._updates(name), weights, strict=True):
                known = {"theirs": theirs, "weights": start}
                if first is not None:
                    begin, end = next(first)
                    known |= {"first": end - begin, "start": begin}
                yield mine - theirs, torch.stack([known[c] for c in candidates]), noise

    def _updates(self, name: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Updates of both, and the most that rounding makes of their difference."""
        flat = self.epsilon + of_gradients(self.epsilon) * self.scale[name]
        flat += GROWTH * self.before.distance
        for mine, theirs, stored in self._stored(name):
            yield mine, theirs, stored + flat

    def _stored(self, name: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Updates of both, and the most that storing the weights makes of their difference."""
        pairs = (self.before.mine, self.before.theirs, self.after.mine, self.after.theirs)
        for m0, t0, m1, t1 in chunks(*(weights[name] for weights in pairs)):
            # What is not finite is no evidence here: `broken` looks at that.
            finite = (m0 + t0 + m1 + t1).isfinite()
            stored = self.epsilon * (m1.abs() + t1.abs())
            mine, theirs = (m1 - m0).where(finite, 0.0), (t1 - t0).where(finite, 0.0)
            yield mine, theirs, stored.where(finite, 0.0)

    def _scale(self, name: str) -> float:
        """The largest element of both updates."""
        largest = [max(m.abs().max(), t.abs().max()) for m, t, _ in self._stored(name)]
        return float(max(largest, default=0.0))

    def _signal(self, name: str) -> float:
        """The largest difference of the updates, in units of what rounding explains."""
        largest = [((m - t).abs() / noise).max() for m, t, noise in self._updates(name)]
        return float(max(largest, default=0.0))


def of_gradients(epsilon: float) -> float:
    """Rounding of a gradient, relative to its largest element."""
    return min(GRADIENT * epsilon, COARSEST)


def coarsest_dtype(weights: Weights) -> torch.dtype:
    """The dtype with the largest rounding error of those that the weights have."""
    return max({w.dtype for w in weights.values()}, key=lambda dtype: torch.finfo(dtype).eps)


def moved(before: Weights, after: Weights) -> bool:
    """Whether any element has changed."""
    return any(
        not torch.equal(a, b) for name in after for a, b in chunks(before[name], after[name])
    )


def precision(weights: Weights) -> torch.dtype:
    """The precision that these weights have run in: float32, if float64 holds nothing beyond it.

    Numbers of a few bits, as in a toy that begins at 0 or 1, are no sign of a low precision.
    """
    dtype = coarsest_dtype(weights)
    if dtype != torch.float64:
        return dtype
    single = _exact(weights, torch.float32) and not _exact(weights, torch.bfloat16)
    return torch.float32 if single else torch.float64


def _exact(weights: Weights, dtype: torch.dtype) -> bool:
    parts = (part for weight in weights.values() for (part,) in chunks(weight))
    return all(torch.equal(part, part.to(dtype).double()) for part in parts)


def largest(weights: Weights) -> float:
    """The largest magnitude of any element."""
    return max(float(torch.linalg.vector_norm(w, torch.inf)) for w in weights.values())


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape in float64, flat, a piece at a time."""
    for _, parts in pieces(*tensors):
        yield tuple(part.detach().double().flatten() for part in parts)
