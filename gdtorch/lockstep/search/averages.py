"""A decay so small that no step shows it by itself: rounding hides it, but not in the mean of many.

In float32 a decay of 1e-4 at a learning rate of 1e-3 moves a weight by less than one rounding a
step. Rounding goes either way, and the decay always towards 0.
"""

from __future__ import annotations

__all__ = ["hidden_decay"]

from collections.abc import Iterator

import torch
from torch import Tensor

from ..replaying.replay import IMPOSSIBLE
from ..replaying.trial import A_LITTLE, Candidate, Fitted, Trial

LEAST = 20  # steps
SURE = 100  # standard errors
ROUNDS = 3  # of the secant method, since a rule may not be linear in its decay
BEGIN = 1e-5
DIGITS = 2  # that a decay has
CLOSE = 1e-3  # of what it is more, by which a decay of so few digits may be off
WITHIN = 5  # standard errors, likewise


def hidden_decay(trial: Trial) -> tuple[Fitted, float] | None:
    """The decay that mine has on average, and how many standard errors that is from theirs."""
    if trial.record.bare or len(trial.all.steps) < LEAST:
        return None
    rule = next(filter(None, trial.all.rules(trial.theirs, trial.all.names[0])), None)
    if rule is None:
        return None
    theirs, mine = rule.weight_decay, rule.weight_decay + BEGIN
    made = trial.all.predict(trial.theirs)
    try:
        for _ in range(ROUNDS):
            more, error, moved = _by_decay(trial, made, theirs, mine)
            # A coefficient such as 1 − lr · λ is rounded, too, and the same way in each step.
            if not abs(more) > SURE * error or abs(more) * moved < trial.record.epsilon / 2:
                return None
            mine = max(theirs + more, 0.0)
        for plain in _of_few_digits(mine):
            fitted = _decayed(plain)
            if (
                abs(plain - mine) <= max(WITHIN * error, CLOSE * abs(more))
                and trial.all.missed(fitted.apply(trial.theirs)).max() <= A_LITTLE
            ):
                return fitted, abs(more) / error
    except IMPOSSIBLE:
        return None
    return None


def _decayed(decay: float) -> Fitted:
    candidate = Candidate("weight decay", lambda p, x: p.with_option("weight_decay", x[0]))
    return Fitted(candidate, (decay,))


def _of_few_digits(decay: float) -> Iterator[float]:
    yield 0.0
    yield from (float(f"{decay:.{digits}g}") for digits in range(1, DIGITS + 1))


def _by_decay(
    trial: Trial, made: Tensor, theirs: float, other: float
) -> tuple[float, float, float]:
    """How much more mine decays than theirs, by least squares, and the standard error of that.

    Beside the decay, each update may be so many times theirs. The third number is by which share of
    its size a decay of 1 moves a weight in a step.

    Args:
        trial: what is to be explained.
        made: what theirs makes of mine's weights.
        theirs: its decay.
        other: another one, by which its effect is measured.
    """
    replay = trial.all
    left = (replay.after - made) / replay.noise
    by_decay = (replay.predict(_decayed(other).apply(trial.theirs)) - made) / (other - theirs)
    ways = torch.stack([by_decay, made - replay.before]).flatten(1) / replay.noise.flatten()
    inverse = torch.linalg.inv(ways @ ways.T)
    found = inverse @ (ways @ left.flatten())
    rest = left.flatten() - found @ ways
    # Robust against errors of unlike sizes (White, 1980).
    error: Tensor = ((inverse @ ways)[0] * rest).square().sum().sqrt()
    moved = by_decay.abs().sum() / replay.before.abs().sum()
    return float(found[0]), float(error), float(moved)
