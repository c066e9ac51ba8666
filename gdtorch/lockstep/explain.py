"""A diagnosis in words that a learner understands: what was seen, what it means, what to change."""

from __future__ import annotations

__all__ = ["explain", "in_ulps"]

from collections.abc import Sequence

import torch

from .diagnosis import Diagnosis, listed
from .distance import Difference
from .words import describe, heading, usual_factors

MEANING = {
    "identical": "The two are the same, bit for bit. There is nothing to change.",
    "rounding": "The two do the same arithmetic in another order, and each order rounds "
    "differently. Neither is wrong; there is nothing to change.",
    "precision": "The two do the same, one of them in a lower precision. Give both the same "
    "dtype, and check that no array was made without one.",
    "names": "Pass rename={...} for those that are the same. Yield the others in both, and give "
    "them to both optimizers; or take them out.",
    "shape": "The two have different sizes. Give both the same layers.",
    "initial weights": "The two do not begin at the same weights, so nothing later can be "
    "compared. Copy the initial weights of one into the other. A model that is made outside the "
    "function that trains it goes on where it was.",
    "sign": "One descends and the other ascends. Look for a minus sign: w -= lr * g goes down.",
    "scale": "A factor in the learning rate or in the loss, if later steps are off by it as well, "
    "which the first does not tell.",
    "scale of one weight": "A factor in the gradient of those weights alone, or a learning rate of "
    "their own.",
    "weight decay": "One of the two adds more λ · weights to the gradient than the other (λ · w² "
    "in the loss adds 2λ · w). Set weight_decay alike in both; if it is, and both have Nesterov's "
    "momentum, then one of them adds the decay outside its velocity.",
    "momentum": "One of the two carries more of its last update into the next. Set momentum alike "
    "in both; if it is, and lr changes here, then one of them has lr within its velocity: "
    "v = μ · v + lr · g is not lr · (μ · v + g).",
    "decay outside the velocity": "One of the two adds its weight decay to the gradient, as "
    "torch.optim.SGD does, so that the velocity carries it on; the other adds it to the finished "
    "step, as AdamW does. Updates it to the same place in both.",
    "gradients not zeroed": "Gradients add up from step to step. Call optimizer.zero_grad() (or "
    "set the sums to 0) before each backward pass.",
    "dampening": "One of the two leaves a part of each fresh gradient out of its velocity, as "
    "torch.optim.SGD does with dampening, or as an average (1 − β) · g + β · v does.",
    "step size schedule": "One of the two changes its learning rate at that step. Give both the "
    "same schedule.",
    "one weight's update": "Either the gradient formula of those weights is wrong, or it was "
    "computed from weights that the same step had changed already: compute all gradients first, "
    "then update.",
    "not finite": "An overflow, a division by 0, a logarithm of 0 or a nan in the data: look at "
    "that step.",
    "unexplained": "No single cause in the list explains this.",
}
REPLAYED = {  # where so much has been tried that no more is guessed
    "unexplained": "Mine has other rows or another loss, three mistakes at once, or one that "
    "docs/lockstep.md does not list. Give mine theirs' rows, loss, gradients and optimizer, one "
    "after the other: with the one that differs the two agree.",
    "one weight's update": "The gradient of those weights is wrong, or what the optimizer makes of "
    "it, in a way that was not found; the others are right.",
}
SAME_GRADIENTS = (
    "Both optimizers are given the same gradients. Look at what mine's makes of them, and at what "
    "else changes its weights: before step(), after it, or in its state."
)
OTHER_GRADIENTS = (
    "Mine's rows, its loss or its backward pass is another. Give mine theirs' rows, then theirs' "
    "loss: with the one that differs the gradients agree. torch.autograd.gradcheck tests a "
    "backward() of your own."
)
FROM_THE_FIRST = "Different rows, another loss or another rule (Adam, L1) are likely."
LATER = (
    "Other rows from there on, a random number or a rule that sets in late (clipping, a schedule "
    "with momentum) are likely; or both run away, and rounding with them: try a smaller lr."
)
SEVERAL = (
    "More than one cause explains this. More steps, other initial weights or a larger lr may tell "
    "them apart."
)
USUAL = (0.4, 0.995)  # momenta that a factor may come from
MANY_ULPS = 10_000  # past that the number tells nobody anything


def explain(
    diagnosis: Diagnosis,
    first: Difference | None,
    rows: int | None,
    precisions: Sequence[torch.dtype],
    steps: int,
    lr: float | None,
) -> str:
    """The report in words.

    Args:
        diagnosis: what was found.
        first: where they part.
        rows: how many rows the loss is over, if that is known.
        precisions: the precision that mine and theirs have run in.
        steps: how many steps were compared.
        lr: learning rate, by which a decay has been divided.
    """
    if diagnosis.edits:
        return describe(diagnosis, _where(first), rows)
    seen = f"Seen: {_seen(diagnosis, precisions, steps, lr)}."
    means = f"Means: {_meaning(diagnosis)}"
    lines = [*heading(diagnosis), seen, _where(first), means]
    if diagnosis.cause.startswith("scale"):
        factor = diagnosis.factor
        for value in factor.values() if isinstance(factor, dict) else (factor,):
            lines += _candidates(value or 0.0, diagnosis, rows)
        if diagnosis.evidence:
            lines.append(f"So few numbers are explained by {diagnosis.evidence}.")
    if diagnosis.second:
        second, factor = diagnosis.second
        lines.append(f"There as well: {second}, {factor:.6g}. {MEANING[second]}")
    if precisions[0] != precisions[1] and diagnosis.cause != "precision":
        lines.append(f"Also: {_precisions(precisions)}.")
    return "\n".join(line for line in lines if line)


def _meaning(diagnosis: Diagnosis) -> str:
    """What to make of it."""
    cause = diagnosis.cause
    if diagnosis.several:
        return SEVERAL
    if diagnosis.same_gradients:
        return SAME_GRADIENTS
    if diagnosis.other_gradients:
        return OTHER_GRADIENTS
    if diagnosis.theirs and cause in REPLAYED:
        return REPLAYED[cause]
    if cause == "unexplained":
        return f"{MEANING[cause]} {FROM_THE_FIRST if diagnosis.step <= 1 else LATER}"
    return MEANING[cause]


def _seen(
    diagnosis: Diagnosis, precisions: Sequence[torch.dtype], steps: int, lr: float | None
) -> str:
    each = f"after each of {steps} steps" if steps else "before the first step; none was compared"
    cause, factor, names = diagnosis.cause, diagnosis.factor, listed(diagnosis.weights)
    several = len(diagnosis.weights) > 1
    seen = {
        "identical": f"every weight has the same bits {each}",
        "rounding": "the distance is what the order of the arithmetic allows",
        "precision": _precisions(precisions),
        "names": f"not to be paired: {diagnosis.evidence}",
        "shape": diagnosis.evidence,
        "initial weights": f"{names} {'differ' if several else 'differs'} before the first step"
        + (diagnosis.evidence and f"; {diagnosis.evidence}"),
        "sign": "my first update is theirs with the other sign",
        "not finite": diagnosis.evidence
        or f"after step {diagnosis.step} {names} {'are' if several else 'is'} finite in one of the "
        "two only, or "
        "infinite with two signs",
    }
    if cause in seen:
        return seen[cause]
    if isinstance(factor, dict):
        error = diagnosis.error
        by = [f"{n} by {_number(k, error)}" for n, k in factor.items() if abs(k) > error]
        still = listed([n for n, k in factor.items() if abs(k) <= error])
        parts = [f"theirs is multiplied, {listed(by)}"] if by else []
        parts += [f"{still} {'do' if ' ' in still else 'does'} not move"] if still else []
        return f"in my first update {', and '.join(parts)}; the others agree"
    if factor is None:
        return f"{diagnosis.evidence}; apart: {names}" if names else diagnosis.evidence
    number, who = _number(abs(factor), diagnosis.error), "mine" if factor > 0 else "theirs"
    decay = f"{'lr · ' if lr else ''}{number} · "
    signed = {
        "weight decay": f"the first updates differ by {decay}weights; {who} has more decay"
        if diagnosis.step == 1
        else f"the second updates differ by {decay}weights that began at or near 0; {who} has more "
        "decay",
        "momentum": f"the second updates differ by {number} · the first; {who} has more momentum",
        "decay outside the velocity": f"the second updates differ by {decay}the initial weights: "
        f"{who} carries no decay on in the velocity, the other does",
        "gradients not zeroed": f"the second update of {who} holds the first once more",
    }
    if cause in signed:
        return f"{signed[cause]} ({names})"
    number = _number(factor, diagnosis.error)
    return {
        "scale": f"my first update is {number} times theirs, in every weight",
        "dampening": f"my second update has {number} times their fresh gradient",
        "step size schedule": f"updates agree up to step {diagnosis.step - 1}; the next one is "
        f"{number} times theirs, in every weight",
    }[cause]


def in_ulps(first: Difference) -> str:
    """A difference in ulps, where they are so few that they tell anything; else empty."""
    if first.ulps is None or first.ulps >= MANY_ULPS:
        return ""
    return "1 ulp" if first.ulps == 1 else f"{first.ulps} ulps"


def _where(first: Difference | None) -> str:
    if first is None:
        return ""
    index = "".join(f"[{i}]" for i in first.index)
    ulps = f" ({few})" if (few := in_ulps(first)) else ""
    return (
        f"First difference: step {first.step}, {first.weight}{index}: {first.mine!r} against "
        f"{first.theirs!r}, {first.absolute:.2e}{ulps} apart."
    )


def _candidates(factor: float, diagnosis: Diagnosis, rows: int | None) -> list[str]:
    """What a factor may come from, where it is one of the usual ones."""
    error = diagnosis.error
    known = dict(usual_factors(rows or 0))
    lines = [text for value, text in known.items() if _near(factor, value, error)]
    if abs(factor) <= error:
        lines.append("mine updates other arrays than those that it yields, or its lr begins at 0")
    for value, sign in ((factor - 1, "+"), (1 - factor, "−")):
        if USUAL[0] <= value <= USUAL[1] and _near(value * 100, round(value * 100), error * 100):
            lines.append(f"1 {sign} momentum, with a momentum of {value:.2g}")
    return [f"Perhaps: {', or '.join(lines)}."] if lines else []


def _near(value: float, other: float, error: float) -> bool:
    return abs(value - other) <= max(error, 1e-6 * abs(other))


def _number(value: float, error: float) -> str:
    return f"{value:.6g}" if error < 1e-5 * abs(value) else f"{value:.6g} ± {error:.1g}"


def _precisions(precisions: Sequence[torch.dtype]) -> str:
    mine, theirs = (str(dtype).removeprefix("torch.") for dtype in precisions)
    return f"mine runs in {mine}, theirs in {theirs}"
