"""Of edits that do the same, which is the plainest: few digits, usual factors, no number at all."""

from __future__ import annotations

__all__ = [
    "LIMITS",
    "NEARLY_HELD",
    "WHOLE",
    "is_a_limit",
    "is_round",
    "order",
    "plain_cause",
    "rank",
    "rounded",
]

import math
from collections.abc import Sequence
from dataclasses import replace

from ..gradients.breaks import CAUSES as BROKEN_CAUSES
from ..replaying.trial import Fitted, Trial
from .candidates import NONE_AT_0, cause_of, counts

FACTORS = frozenset({"scale", "scale of one weight", "clipping"})  # whose number is no option's
WHOLE = frozenset({"alpha", "rho"})  # averages that keep all at 1, and so take nothing in
LIMITS = WHOLE | {"eps"}
UNLIKELY = BROKEN_CAUSES | {"update rule"}  # of which there are very many to try
NEARLY_HELD = 100  # roundings that a mistake may leave, before its own rounding is looked at
LESS_PLAIN = 10  # times what it leaves, for such a mistake or a slip beside another edit
AS_WELL = 1.5  # times what a fit leaves: the true number leaves 1.3 times as much at most
NOTHING = 1e-4  # below which a number may as well be 0
USUAL = 0.2  # how far a factor that decides little may lie from one of the usual ones
ZERO = {  # cause → what a number near 0 may as well be
    **{cause_of(option): (0.0,) for option in NONE_AT_0},
    "eps": (1e-8, 1e-10, 1e-6),
    "term of the loss": (0.0,),
}


def rounded(trial: Trial, fitted: Fitted, causes: Sequence[str] = ()) -> Fitted:
    """The same with numbers of as few digits as take mine's steps as well.

    Args:
        trial: what is to be explained.
        fitted: what to round.
        causes: to which each number belongs, if not all to its own.
    """
    if not fitted.left <= NEARLY_HELD:  # a fit may follow rounding, and then not hold itself
        return fitted
    if fitted.numbers and not trial.holds(fitted):  # what later steps alone tell
        again = trial.fit(replace(fitted.candidate, starts=(fitted.numbers,)), trial.window)
        fitted = replace(again, left=trial.left(again))
        if not trial.largest(fitted) <= NEARLY_HELD:
            return fitted
    most = AS_WELL * fitted.left + 0.01
    for digits in range(1, 7):  # all at once, as one may make up for another
        plain = tuple(float(f"{number:.{digits}g}") for number in fitted.numbers)
        if _does_as_well(trial, replace(fitted, numbers=plain), most):
            fitted = replace(fitted, numbers=plain)
            break
    for k, number in enumerate(fitted.numbers):
        usual = [x for x in counts(trial) if math.isclose(x, number, rel_tol=USUAL)]
        if abs(number) < NOTHING:
            usual += ZERO.get(causes[k] if causes else fitted.candidate.cause, ())
        for plainer in (*usual, *(float(f"{number:.{digits}g}") for digits in range(1, 7))):
            numbers = (*fitted.numbers[:k], plainer, *fitted.numbers[k + 1 :])
            if _does_as_well(trial, replace(fitted, numbers=numbers), most):
                fitted = replace(fitted, numbers=numbers)
                break
    return fitted


def _does_as_well(trial: Trial, fitted: Fitted, most: float) -> bool:
    return trial.left(fitted) <= most and trial.holds(fitted)


def order(trial: Trial, one: Fitted) -> tuple[bool, int, bool, bool]:
    """Of edits that do the same, the plainest has the least of this.

    A number that may as well be twice as large tells the least. Under an optimizer that divides by
    the gradient's size, so that eps may stand for a factor, fewer digits tell more, and a factor of
    the gradient tells less than an option, unless it is a usual one. Any number tells less than a
    switch.
    """
    factor = one.candidate.cause in FACTORS and one.candidate.cause != "clipping"
    unusual = not (factor and set(one.numbers) <= set(counts(trial)))
    adaptive = type(trial.rule()).__name__ not in {"SGD", "ASGD", "NoneType"}
    digits = sum(map(_digits, one.numbers)) if unusual and adaptive else 0
    return is_a_limit(trial, one), digits, factor and unusual and adaptive, any(one.numbers)


def _digits(number: float) -> int:
    """How many digits a number has, the zeros before and behind them not counted; 17 at most."""
    return next((n for n in range(1, 17) if number == float(f"{number:.{n}g}")), 17)


def is_a_limit(trial: Trial, *edits: Fitted, of: frozenset[str] = FACTORS) -> bool:
    """Whether a number of the edits is only known to be extreme: it can be doubled or halved.

    Of a cause in `of`; what decides nothing is not asked of the others.
    """
    for k, fitted in enumerate(edits):
        if not any(fitted.numbers) or fitted.candidate.cause not in of:
            continue
        if of is FACTORS and set(fitted.numbers) <= set(counts(trial)):
            continue
        for by in (0.5, 2.0):
            other = replace(fitted, numbers=tuple(by * x for x in fitted.numbers))
            if trial.holds(*edits[:k], other, *edits[k + 1 :]):
                return True
        if fitted.candidate.cause in WHOLE and fitted.numbers == (1.0,):  # nothing is forgotten
            return True
    return False


def is_round(edit: Fitted) -> bool:
    """Whether an option's numbers are of few digits, or a clipping's; a factor may be of any.

    A slip in the rule never is: it may be what an option is that another edit hides.
    """
    if edit.candidate.cause == "update rule":
        return False
    factor = edit.candidate.cause in FACTORS - {"clipping"}
    return factor or all(x == float(f"{x:.3g}") for x in edit.numbers)


def plain_cause(edit: Fitted) -> str:
    """The plainest word for an edit, by its numbers."""
    if edit.candidate.cause == "scale" and edit.numbers == (-1.0,):
        return "sign"
    if edit.candidate.cause == "scale of one weight" and set(edit.numbers) <= {0.0, 1.0}:
        return "weight that never moves"
    return edit.candidate.cause


def rank(left: float, *edits: Fitted) -> float:
    """What edits leave, and more the more numbers they have, for a slip and a wrong gradient."""
    broken = sum(one.candidate.cause in UNLIKELY for one in edits)
    numbers = sum(abs(number) > NOTHING for one in edits for number in one.numbers)
    return float(f"{left * LESS_PLAIN**broken * 1.1**numbers:.3g}")
