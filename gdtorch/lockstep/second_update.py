"""Does the factor of two first updates last? What the second ones tell, from other weights by then.

With theirs u and then t, and mine c · u and then m: to first order in the step size, theirs is
t = a · u + d, where d comes from how the gradient has changed, and a from what the rule carries on:
1 for plain descent, 1 + μ with a momentum, between 1 and 1.5 with Nesterov's, and times the change
of the learning rate. Mine has gone c times as far, so that a factor k of its second step gives
m = k · (a · u + c · d) = k · a · (1 − c) · u + k · c · t. Where the gradient is linear in the
weights this is exact; elsewhere, what a fit of m to u and t leaves over tells how far to trust it.
"""

from __future__ import annotations

__all__ = ["SecondUpdate", "second_factor"]

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from .distance import Weights
from .evidence import Snapshot, chunks

TRUST = 4  # what a fit leaves over, so many times, is the most that it may be wrong by
EXACT = 1e-6  # of a factor: more than fits in float64 are wrong by
FAR = 3  # times theirs that mine goes, or theirs mine
FEW = 3  # numbers, which a fit to two candidates is still tested by
MANY = 10  # numbers, by which what the fit leaves over is no accident


@dataclass(frozen=True)
class SecondUpdate:
    """What the second updates say of a factor c in the first.

    Args:
        kind: "fits"; "ahead", it fits, and so does a schedule that multiplies by c, or by 1 / c, at
            each step, one step ahead; "nesterov", of one alone; "changes"; "open", it cannot be
            told.
        factor: that of the second updates.
        error: the most that it is wrong by.
    """

    kind: str = "open"
    factor: float = math.nan
    error: float = math.inf


def second_factor(
    start: Weights, one: Snapshot, two: Snapshot, c: float, error: float
) -> SecondUpdate:
    """Whether the factor c of the first updates is one of the second as well.

    Args:
        start: the initial weights.
        one: the weights after the first step.
        two: the weights after the second.
        c: the factor of the first updates, mine over theirs.
        error: what rounding leaves open of it.
    """
    if two.distance == math.inf or c == 0:
        return SecondUpdate()

    def total(product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
        return sum(product(*updates).item() for updates in _updates(start, one, two))

    uu = total(lambda u, _t, _m: u @ u)
    along_t, along_m = total(lambda u, t, _m: u @ t) / uu, total(lambda u, _t, m: u @ m) / uu
    dd = total(lambda u, t, _m: (t - along_t * u).square().sum())
    numbers = total(lambda u, _t, _m: (u != 0).sum())
    if not 0 < dd < math.inf or numbers < FEW:
        return SecondUpdate()

    def left(slope: float) -> float:
        """The norm of what is beside u in m and not slope times what is beside u in t."""
        rest = along_m - slope * along_t
        return math.sqrt(total(lambda u, t, m: (m - slope * t - rest * u).square().sum()))

    slope = total(lambda u, t, m: (t - along_t * u) @ (m - along_m * u)) / dd
    factor, wrong = slope / c, TRUST * (left(slope) / math.sqrt(dd) / abs(c) + error) + EXACT
    # The same, were the factor to last: then a alone is to be found, and more closely.
    part = c * (1 - c)
    carried = (along_m - c * c * along_t) / part
    astray = TRUST * (left(c * c) / math.sqrt(uu) / abs(part) + error / abs(1 - c)) + EXACT
    if abs(factor - c) > wrong:
        # Far apart, as where a sigmoid saturates, the first order tells nothing of the second.
        near = 1 / FAR < c < FAR and 1 / FAR < along_m / (c * along_t) < FAR
        sure = near and numbers >= MANY and abs(factor - c) > 2 * wrong
        return SecondUpdate("changes" if sure else "open", factor, wrong)
    kind = _kind(c, carried, astray) if wrong < abs(c) / 2 else "open"
    # A factor that might as well be 1 by then is not seen to last.
    tells = kind == "nesterov" or wrong < min(abs(c), abs(1 - c)) / 2
    return SecondUpdate(kind if tells else "open", factor, wrong)


def _updates(
    start: Weights, one: Snapshot, two: Snapshot
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Theirs first, theirs second and mine second, a piece at a time."""
    for name in start:
        stood = (start[name], one.theirs[name], one.mine[name], two.theirs[name], two.mine[name])
        for t0, t1, m1, t2, m2 in chunks(*stood):
            yield t1 - t0, t2 - t1, m2 - m1


def _kind(c: float, carried: float, astray: float) -> str:
    """What a factor may be that lasts, by how much of the first update theirs carries on."""
    momentum = max(c, 1 / c) - 1
    # A momentum in both carries on less than 2; Nesterov's in one alone looks like c + 1 / c,
    # which for a small one is so little more that it takes thrice the care.
    if carried - 3 * astray > 2 and 0 < momentum < 1 and abs(carried - c - 1 / c) <= astray:
        return "nesterov"
    if 1 - astray <= carried and carried + astray < 2:
        return "fits"
    if astray < 0.1 and min(abs(carried - c), abs(carried - 1 / c)) <= astray:
        return "ahead"
    return "open"
