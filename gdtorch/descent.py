"""Batch, stochastic, steepest: which rows a step sees, and how far it goes."""

from __future__ import annotations

__all__ = ["BATCH", "LARGEST_STEP", "Batch", "Descent", "Steepest", "Stochastic"]

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .data import Rows
from .objective import Objective

LARGEST_STEP = 2.0**100  # about 1e30; the step size if the loss falls along the whole ray
GRID = (0.0, *(2.0**k for k in range(-8, 9)))  # multiples of the last step size
MOVE, MOVES = 15, 14  # by how many powers of two the grid moves, and how often at most
CELLS = 20  # on either side of the lowest point
ROUNDS = 11  # of slopes; 20 · 40¹⁰ > 2⁵³, so the last round has come down to neighbouring floats
POINTS = 5  # on either side of the root; it is interpolated through them


T = TypeVar("T")


class Descent:
    """Which rows a step sees, and how far it goes. Here all rows, and lr; subclasses change that.

    A descent has no state, so trainers can share one, and steps can be asked for in any order.

    Example:
        >>> class Halved(Descent):
        ...     def step_size(self, objective, rows, gradient, lr, /, *, maximize):
        ...         return lr / 2
        >>> manual = Manual(Quartic(3.0), load_table("xor").learned, lr=1.0, descent=Halved())
        >>> manual.step()
        >>> manual.lr
        0.5
    """

    def rows(self, rows: Rows, _step: int, /) -> Rows:
        """The rows that a step sees.

        Args:
            rows: all rows to learn.
            _step: how many steps have been taken before this one.
        """
        return rows

    def step_size(
        self,
        _objective: Objective,
        _rows: Rows,
        _gradient: Mapping[str, Tensor],
        lr: float,
        /,
        *,
        maximize: bool,  # noqa: ARG002 (a subclass reads it)
    ) -> float:
        """How far a step goes along the gradient.

        Args:
            _objective: the objective, at the weights from which the step starts.
            _rows: the rows that the step sees.
            _gradient: parameter name → ∂loss/∂parameter there.
            lr: at the first step, the step size given; later, the step size of the step before.
            maximize: whether the step goes up.
        """
        return lr


class Batch(Descent):
    """All rows at every step, at the learning rate given; also called standard.

    Example:
        >>> len(Batch().rows(load_table("post").learned, 0).inputs)
        7
    """


BATCH = Batch()


class Stochastic(Descent):
    """One row a step, in an order shuffled anew for each epoch, at the learning rate given.

    Args:
        seed: of the shuffles, 0 to 2⁶⁴ − 1; the order depends on nothing else.

    Example:
        >>> rows = load_table("xor").learned
        >>> [Stochastic(seed=7).rows(rows, step).inputs[0].tolist() for step in range(4)]
        [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def rows(self, rows: Rows, step: int, /) -> Rows:
        """The one row that a step sees. An epoch is as many steps as rows, and sees each once."""
        epoch, position = divmod(step, len(rows.inputs))
        row = shuffle(self.seed, epoch, len(rows.inputs))[position]
        return Rows(rows.inputs[row : row + 1], rows.targets[row : row + 1])


@lru_cache(maxsize=4)
def shuffle(seed: int, epoch: int, count: int) -> list[int]:
    """The numbers 0 to count − 1 in the order of an epoch, the same on every machine.

    They are sorted by Philox's raw numbers. NumPy's own `permutation` will not do: its stream may
    change between releases (NEP 19). The second half of Philox's key is the epoch, counted from 1;
    for initial weights it is 0 (see `initial_weights`), so that the two never share numbers.
    """
    key = np.array([seed, epoch + 1], dtype=np.uint64)
    order: list[int] = np.random.Philox(key=key).random_raw(count).argsort().tolist()
    return order


class Steepest(Descent):
    """All rows, and the step size that lowers the loss most along −gradient: exact line search.

    The search is over t in φ(t) = loss(θ − t · g), with the gradient g:

    1. One pass gives φ at 0 and at 17 step sizes, from 2⁻⁸ to 2⁸ times the step before. While the
       lowest is the first or the last of these, the grid moves on, by up to 2²¹⁰.
    2. One pass gives the slope φ′(t) = −⟨∇loss(θ − t · g), g⟩ at 41 step sizes around the lowest.
       From there the search goes downhill until φ′ is 0, and interpolates that root. (φ itself is
       flat around its minimum, so that its values would give only half the digits.)

    With `maximize` it is −loss(θ + t · g) that is lowered.

    No step raises the loss. Where none lowers it, as with a gradient of 0, the step size is 0.
    Where the loss falls along the whole ray, the step size is `LARGEST_STEP`. A loss that is not
    finite is never chosen.

    The objective must take weights with a leading dimension and give a loss and a gradient for
    each set of them, as `SigmoidNet` does. (`torch.func.vmap` would lift that condition, but takes
    three times as long for the post's network.)

    Example:
        >>> manual = Manual(Quartic(3.0), load_table("xor").learned, descent=Steepest())
        >>> manual.step()
        >>> print(f"{manual.weights['x'].item():.6f} {manual.lr:.6f}")
        2.000000 0.166667
    """

    def step_size(
        self,
        objective: Objective,
        rows: Rows,
        gradient: Mapping[str, Tensor],
        lr: float,
        /,
        *,
        maximize: bool,
    ) -> float:
        """The step size that lowers the loss most (see the class); the search begins at lr."""
        ray = _Ray(objective, rows, gradient, maximize=maximize)
        scale = min(max(float(lr), 1 / LARGEST_STEP), LARGEST_STEP)
        for _ in range(MOVES):
            t = [min(scale * factor, LARGEST_STEP) for factor in GRID]
            losses = ray.losses(t)
            lowest = losses.index(min(losses))
            if 0 < lowest < len(t) - 1:
                best = ray.root(*t[lowest - 1 : lowest + 2])
                (loss,) = ray.losses([best])
                return best if loss <= losses[0] else t[lowest]
            too_short = lowest > 0 or losses[-1] == losses[0]
            scale *= 2.0**MOVE if too_short else 2.0**-MOVE
        return 0.0


class _Ray:
    """φ(t) = ±loss(θ ∓ t · g), which is to be lowered, and φ′(t), for many t in one pass."""

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        gradient: Mapping[str, Tensor],
        *,
        maximize: bool,
    ) -> None:
        self.objective, self.rows = objective, rows
        self.sign = -1 if maximize else 1
        # Parameter, its values at t = 0, and the gradient there.
        self.origin = [(n, w, w.data, gradient[n]) for n, w in objective.named_parameters()]
        self.like = self.origin[0][2].new_empty(0)
        self.epsilon = torch.finfo(self.like.dtype).eps

    @torch.no_grad()
    def _along(self, measure: Callable[[Rows], T], t: Sequence[float]) -> T:
        """Measure the objective at each step size, along a leading dimension."""
        steps = self.like.new_tensor(t)
        try:
            for _, weight, here, gradient in self.origin:
                size = steps.view(-1, *[1] * here.dim())
                weight.data = torch.addcmul(here, size, gradient, value=-self.sign)
            return measure(self.rows)
        finally:
            for _, weight, here, _ in self.origin:
                weight.data = here

    def losses(self, t: Sequence[float]) -> list[float]:
        """φ(t), infinite where it is not finite."""
        losses = self._along(self.objective.loss, t).tolist()
        return [self.sign * x if math.isfinite(x) else math.inf for x in losses]

    def slopes(self, t: Sequence[float]) -> list[float]:
        """φ′(t) = −⟨∇loss(θ ∓ t · g), g⟩."""
        there = self._along(self.objective.gradient, t)
        products = [there[n].reshape(len(t), -1) @ g.reshape(-1) for n, _, _, g in self.origin]
        slopes: list[float] = (-torch.stack(products).sum(0)).tolist()
        return slopes

    def root(self, low: float, inside: float, high: float) -> float:
        """The first t downhill from `inside` with a slope of 0; `inside` if there is none."""
        error = math.inf
        for _ in range(ROUNDS):
            t = [low + (inside - low) * k / CELLS for k in range(CELLS)]
            t += [inside + (high - inside) * k / CELLS for k in range(CELLS + 1)]
            slopes = self.slopes(t)
            downhill = range(CELLS + 1, len(t)) if slopes[CELLS] < 0 else range(CELLS, 0, -1)
            # Past the end of all finite losses the slope is nan, which counts as up.
            ups = (k for k in downhill if slopes[k - 1] < 0 and not slopes[k] < 0)
            up = next(ups, None)
            if up is None:
                return inside
            near = slice(max(0, up - POINTS), up + POINTS)
            best = _interpolated(t[near], slopes[near])
            coarse = _interpolated(t[near][1:-1], slopes[near][1:-1])
            low, high = t[up - 1], t[up]
            inside = (low + high) / 2
            error, before = abs(best - coarse) if low <= best <= high else math.inf, error
            # An error that a finer grid has not halved is rounding of the slopes.
            if error <= 1024 * self.epsilon * best or before / 2 <= error < math.inf:
                return best
        return low


def _interpolated(t: Sequence[float], slopes: Sequence[float]) -> float:
    """The t at which the slope is 0, by Lagrange's inverse interpolation; nan if slopes repeat."""
    if len(set(slopes)) < len(slopes):
        return math.nan
    total = 0.0
    for i, product in enumerate(t):
        for j, slope in enumerate(slopes):
            if i != j:
                product *= slope / (slope - slopes[i])
        total += product
    return total
