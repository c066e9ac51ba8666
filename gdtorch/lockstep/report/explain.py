"""A diagnosis in words that a learner understands: what was seen, what it means, what to change."""

from __future__ import annotations

__all__ = ["explain", "in_ulps"]

from collections.abc import Sequence

from ..diagnosis import Diagnosis, listed
from ..distance import Difference
from ..observing.products import advice
from .words import phrase, source

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
    "one weight's update": "Either the gradient formula of those weights is wrong, or it was "
    "computed from weights that the same step had changed already: compute all gradients first, "
    "then update.",
    "not finite": "An overflow, a division by 0, a logarithm of 0 or a nan in the data: look at "
    "that step. If both run away, a smaller lr tells more.",
    "unexplained": "No single cause in the list explains this.",
}
ONE_BY_ONE = (
    "Give mine theirs' rows, loss, gradients and optimizer, one after the other: with the one that "
    "differs the two agree."
)
REPLAYED = {  # where so much has been tried that no more is guessed
    "unexplained": f"What mine does otherwise was not found. {ONE_BY_ONE}",
    "one weight's update": "The gradient of those weights is wrong, or what the optimizer makes of "
    "it, in a way that was not found; the others are right.",
}
ON_THE_WAY = (
    "What the weights with the same steps get is right. Look first at the functions on the way "
    "back to the weights that are apart alone, and at what mine gives them: {}."
)
SAME_GRADIENTS = (
    "Both optimizers are given the same gradients. Look at what mine's makes of them, and at what "
    "else changes its weights: before step(), after it, or in its state."
)
OTHER_GRADIENTS = (
    "Mine's rows, its loss or its backward pass is another. Give mine theirs' rows, then theirs' "
    "loss: with the one that differs the gradients agree. torch.autograd.gradcheck tests a "
    "backward() of your own."
)
OUTSIDE = {
    "mine": "Look at what else changes mine's weights there: an average put in their place, a "
    "clamp, a weight set by hand.",
    "theirs": "Look at what else changes theirs' weights there (a clamp, an average put in their "
    "place, a weight set by hand), and whether mine does the same at the same place.",
}
ADDED_TO = (
    "Gradients of the step before, or of another loss, are still in them: call zero_grad() where "
    "theirs does, or keep that loss from reaching them, as detach() does."
)
LATER = (
    "Until step {} the two do the same: look at what sets in there. Or both run away, and rounding "
    "with them: try a smaller lr."
)
DOUBTS = {
    "several": "More than one cause explains this. More steps, other initial weights or a larger "
    "lr may tell them apart.",
    "hardly": "It is a difference of about that size, or rounding that adds up. Compare both in "
    "float64: rounding is far less there, and a mistake as large as here.",
}
FIRST_OF_SEVERAL = {"another function", "other rows", "rows of another step", "random numbers"}
MANY_ULPS = 10_000  # past that the number tells nobody anything


def explain(
    diagnosis: Diagnosis,
    first: Difference | None,
    rows: int | None,
    precisions: Sequence[str],
    steps: int,
) -> str:
    """The report in words.

    Args:
        diagnosis: what was found.
        first: where they part.
        rows: how many rows the loss is over, if that is known.
        precisions: what mine and theirs run in.
        steps: how many steps were compared.
    """
    unlike = precisions[0] != precisions[1] and diagnosis.cause != "precision"
    also = f"Also: {_precisions(precisions)}." if unlike else ""
    if diagnosis.edits:
        return "\n".join(filter(None, [_describe(diagnosis, _where(first), rows), also]))
    seen = f"Seen: {_seen(diagnosis, precisions, steps)}."
    means = _meaning(diagnosis)
    if diagnosis.cause == "precision" and "products" in seen:
        means = f"The two do the same, but for the rounding of such products: {advice(seen)}."
    lines = [*_heading(diagnosis), seen, _where(first), f"Means: {means}", also]
    return "\n".join(line for line in lines if line)


def _describe(diagnosis: Diagnosis, where: str, rows: int | None) -> str:
    """The report on what a replay has found, line by line."""
    by_lr = any(other.startswith("has lr ") for other in diagnosis.alike)
    phrases = [phrase(edit, diagnosis.bare, by_lr=by_lr) for edit in diagnosis.edits]
    said = [
        ": ".join(filter(None, [mine, source(edit, diagnosis, rows)]))
        for edit, (mine, _) in zip(diagnosis.edits, phrases, strict=True)
    ]
    changes = dict.fromkeys(change for _, change in phrases)
    lines = [
        *_heading(diagnosis),
        f"mine:   the same, but it {', and it '.join(said)}",
        *(f"Or:     it {other}, which does the same" for other in diagnosis.alike),
        f"Seen:   {diagnosis.evidence}" if diagnosis.evidence else "",
        where,
        f"Shown:  with {_given(diagnosis)}, theirs takes mine's next step from mine's weights in "
        f"{diagnosis.reproduced} of {diagnosis.reproduced} steps, to {diagnosis.residual:.1g} of "
        "rounding.",
        f"Change: {'; '.join(changes)}.",
        "Compare the two again then: this is the first function in which they part, and more may."
        if diagnosis.cause in FIRST_OF_SEVERAL and diagnosis.other_gradients
        else "",
    ]
    return "\n".join(line for line in lines if line)


def _heading(diagnosis: Diagnosis) -> list[str]:
    """The cause, and the optimizers that were seen."""
    lines = [f"cause: {diagnosis.cause}"]
    if diagnosis.theirs:
        lines.append(f"theirs: {diagnosis.theirs}")
    if diagnosis.optimizer_of_mine:
        lines.append(f"seen in mine: {diagnosis.optimizer_of_mine}")
    return lines


def _given(diagnosis: Diagnosis) -> str:
    """With what theirs takes mine's steps."""
    if not diagnosis.other_gradients:
        return "that"
    return "mine's gradients and the rest" if diagnosis.second else "mine's gradients"


def _meaning(diagnosis: Diagnosis) -> str:
    """What to make of it."""
    cause = diagnosis.cause
    if diagnosis.doubt:
        return DOUBTS[diagnosis.doubt]
    if diagnosis.outside:
        return OUTSIDE[diagnosis.outside]
    if diagnosis.added_to:
        return ADDED_TO
    if diagnosis.same_gradients:
        return SAME_GRADIENTS
    if diagnosis.other_gradients:
        return OTHER_GRADIENTS
    if diagnosis.way:
        return ON_THE_WAY.format(listed(diagnosis.way))
    if diagnosis.theirs and not diagnosis.bare and cause in REPLAYED:
        return REPLAYED[cause]
    if cause == "unexplained":
        later = f" {LATER.format(diagnosis.step)}" if diagnosis.step > 1 else ""
        return f"{MEANING[cause]} {ONE_BY_ONE}{later}"
    return MEANING[cause]


def _seen(diagnosis: Diagnosis, precisions: Sequence[str], steps: int) -> str:
    each = f"after each of {steps} steps" if steps else "before the first step; none was compared"
    cause, names = diagnosis.cause, listed(diagnosis.weights)
    several = len(diagnosis.weights) > 1
    seen = {
        "identical": f"every weight has the same bits {each}",
        "rounding": "the distance is what the order of the arithmetic allows",
        "precision": _precisions(precisions),
        "names": f"not to be paired: {diagnosis.evidence}",
        "shape": diagnosis.evidence,
        "initial weights": f"{names} {'differ' if several else 'differs'} before the first step"
        + (diagnosis.evidence and f"; {diagnosis.evidence}"),
        "not finite": diagnosis.evidence
        or f"after step {diagnosis.step} {names} {'are' if several else 'is'} finite in one of the "
        "two only, or not finite in two ways",
    }
    apart = f"{diagnosis.evidence}; apart: {names}" if names else diagnosis.evidence
    return seen.get(cause, apart)


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


def _precisions(precisions: Sequence[str]) -> str:
    mine, theirs = precisions
    return f"mine runs in {mine}, theirs in {theirs}"
