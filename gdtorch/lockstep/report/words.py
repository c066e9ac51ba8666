"""An edit in words: what mine does otherwise, and the line to change."""

from __future__ import annotations

__all__ = ["in_words", "phrase", "signature", "signatures", "source"]

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..diagnosis import Diagnosis, Edit, listed
from ..gradients.breaks import CAUSES as BROKEN
from ..replaying.record import Record, Rule, has_page
from ..replaying.replay import Program, make_rule
from ..replaying.schedules import near, schedule
from ..search.parting import CAUSES as PARTED

# Edit → what mine does, and what to write instead; {mine} is its value there, {weights} are those
# that it concerns, and {of} says so where it is not all of them.
WORDS = {
    "sign": (
        "steps the other way",
        "look for a minus sign in the update, where w -= lr * g goes down, or in the error, where "
        "pred − y belongs, and not y − pred",
    ),
    "adds_up_always": (
        "adds each gradient{of} to those of the steps before",
        "call optimizer.zero_grad() (or set the sums to 0) before each backward pass",
    ),
    "adds_up_first": (
        "has the gradient of the first step twice",
        "call optimizer.zero_grad() (or set the sums to 0) before the first step, too",
    ),
    "zeroed": (
        "takes each step with the gradient of that step alone",
        "if theirs is to do so, call optimizer.zero_grad() before each backward pass",
    ),
    "late": (
        "takes each step with the gradient of the step before",
        "compute the gradient from the weights as they are, then take the step",
    ),
    "maximize": (
        "steps {weights} the other way",
        "look for a minus sign in the gradient of {weights}",
    ),
    "still": (
        "does not move {weights}",
        "update {weights}, too; if mine does, see that their gradients are not cut off on the way",
    ),
    "still_all": (
        "moves no weight",
        "see that a gradient reaches step(): zero_grad() belongs before backward(); and that the "
        "arrays which it shows are those that it updates",
    ),
    "moves": ("moves {weights}, which theirs does not", "leave out the update of {weights}"),
    "borrowed": (
        "gives {weights} the gradient of {mine}",
        "look for {mine} where {weights} should stand in the backward pass",
    ),
    "decoupled_weight_decay": (
        "takes the decay from the weights, as AdamW does",
        "add weight_decay * w to the gradient",
    ),
    "coupled_weight_decay": (
        "adds the decay to the gradient, and does not take it from the weights",
        "w -= lr * weight_decay * w, and leave the gradient as it is",
    ),
    "dampen_first": (
        "multiplies the first gradient by 1 − dampening, too",
        "let the velocity begin with the first gradient as it is",
    ),
    "lr_in_velocity": (
        "has lr within the velocity, v = μ * v + lr * g, so that an old lr goes on",
        "multiply by lr last: v = μ * v + g, then w -= lr * v",
    ),
    "old_velocity": (
        "steps with the velocity of the step before",
        "update the velocity first, then the weights",
    ),
    "eps_in_root": (
        "adds eps within the root",
        "divide by sqrt(v) + eps, not by sqrt(v + eps)",
    ),
    "eps_before_correction": (
        "adds eps before the bias correction",
        "divide by sqrt(v / (1 − β₂ᵗ)) + eps, not by sqrt(v) + eps before the correction",
    ),
    "no_bias_correction": (
        "has no bias correction",
        "divide m by 1 − β₁ᵗ and v by 1 − β₂ᵗ, with t = 1 in the first step",
    ),
    "uncorrected_m": ("does not correct m", "divide m by 1 − β₁ᵗ, too"),
    "uncorrected_v": ("does not correct v", "divide v by 1 − β₂ᵗ, too"),
    "inverted_correction": (
        "multiplies by the bias correction",
        "divide m by 1 − β₁ᵗ and v by 1 − β₂ᵗ",
    ),
    "keeps_corrected": (
        "puts the corrected m and v in the place of m and v, so that corrections add up",
        "give m / (1 − β₁ᵗ) and v / (1 − β₂ᵗ) names of their own",
    ),
    "max_of_corrected": (
        "takes the largest corrected v",
        "take the largest v so far, and correct that",
    ),
    "square_of_m": ("averages the square of m in v", "average g² in v, not m²"),
    "no_root": ("divides by v, without the root", "divide by sqrt(v)"),
    "keeps_look_ahead": (
        "goes on with Nesterov's g + μ * v in the place of v",
        "step along g + μ * v, but keep v as it was",
    ),
    "keep_gradient": (
        "steps along the gradient where its sign has turned, too",
        "set the gradient to 0 where its sign has turned",
    ),
    "backtrack": (
        "takes the last step back where the sign has turned",
        "do not move the weight where the sign has turned",
    ),
    "begins": (
        "begins its averages with the first gradient and its square",
        "begin them at 0",
    ),
    "counts_on": ("goes on counting its steps", "keep the averages as the count is kept"),
    "constant_mu": (
        "has a μ that is β₁ throughout",
        "let it rise to β₁, as theirs does: μ = β₁ (1 − ½ · 0.96^(t · momentum_decay))",
    ),
    "decays_after": (
        "decays the weights once they are updated",
        "decay them as they were before the step",
    ),
    "decay_without_lr": (
        "takes weight_decay * w from the weights without lr",
        "multiply the decay by lr: w -= lr * weight_decay * w",
    ),
}
BY_VALUE = {  # edit and value in mine → its words above
    ("adds_up", "always"): "adds_up_always",
    ("adds_up", "first"): "adds_up_first",
    ("adds_up", "never"): "zeroed",
    ("decoupled_weight_decay", False): "coupled_weight_decay",
    ("momentum_decay", math.inf): "constant_mu",
}
BOTH_WAYS = {  # flag of PyTorch's → what has it, and what mine is to write to have it
    "nesterov": ("Nesterov's momentum", "step along g + μ * v, not along v"),
    "amsgrad": ("amsgrad", "divide by the root of the largest v so far"),
    "centered": ("centering", "divide by sqrt(v − mean(g)²)"),
}
SCALE, LEAST_POWER = 2.0**16, 8  # of a GradScaler: where it begins, and what is no accident
CLIPPED = {
    "together": "by the norm of all of them together",
    "each": "each weight's by its own norm",
    "value": "element by element",
}


def signature(kind: str, options: Mapping[str, Any]) -> str:
    """An optimizer as one writes it: its learning rate, and what is not as its class has it."""
    given = inspect.signature(getattr(torch.optim, kind)).parameters
    usual = make_rule(kind, {name: one.default for name, one in given.items()}).options()
    shown = [
        f"{name}={_short(value)}"
        for name, value in make_rule(kind, options).options().items()
        if name == "lr" or value != usual[name]
    ]
    return f"{kind}({', '.join(shown)})"


def _short(value: Any) -> str:  # noqa: ANN401 (an option's)
    """A value without the digits in which a schedule's arithmetic has rounded."""
    return repr(float(f"{value:.12g}") if isinstance(value, float) else value)


def in_words(record: Record, theirs: Program) -> str:
    """Theirs' optimizer as it was seen."""
    if record.bare:
        return ""
    kinds = listed(sorted({kind.__name__ for kind, _ in record.steps[0].rules.values()}))
    if theirs.optimizer:
        seen = signature(theirs.optimizer, theirs.options)
        return f"{kinds}, which does as {seen}" if kinds else f"{seen}, by hand"
    return signatures(record.steps[0].rules)


def signatures(rules: Mapping[str, Rule]) -> str:
    """Those of torch.optim's optimizers that were seen, each once."""
    known = (rule for rule in rules.values() if has_page(rule[0]))
    seen = dict.fromkeys(signature(kind.__name__, options) for kind, options in known)
    return "; ".join(seen)


def phrase(edit: Edit, bare: float = 0.0, *, by_lr: bool = False) -> tuple[str, str]:
    """What mine does otherwise, and what to change for it to do as theirs.

    Args:
        edit: one of a report's.
        bare: see `Diagnosis`; then theirs' value is not known, but how much more or less mine has.
        by_lr: whether another lr would do the same.
    """
    of = f" of {listed(edit.weights)}" if edit.weights else ""
    mine, theirs = edit.mine, edit.theirs
    if edit.what in BROKEN | PARTED:
        return mine, theirs
    key = BY_VALUE.get((edit.what, mine), edit.what)
    if key in BOTH_WAYS:
        what, how = BOTH_WAYS[key]
        if mine:
            return f"has {what}{of}, which theirs has not", f"leave it out, or set {key} in theirs"
        return f"does without {what}{of}", how
    if key in WORDS:
        weights = listed(mine if key == "still" else edit.weights)
        return tuple(text.format(mine=mine, weights=weights, of=of) for text in WORDS[key])  # type: ignore[return-value]
    if key in TOLD:
        return TOLD[key](mine, theirs)
    if key == "gradient" and bare:
        factor = f"take the factor {mine:.6g} out of lr, the gradient or the loss"
        return f"makes {mine:.6g} times theirs' update{of}", factor
    if key == "gradient":
        return _multiple(mine, listed(edit.weights), by_lr=by_lr)
    if isinstance(mine, bool):
        return f"has {key}{of} {mine}, theirs has {theirs}", f"{key}{of} {theirs}, not {mine}"
    if bare:
        what = "lr * weight_decay" if key == "weight_decay" and bare == 1 else key
        than = "more" if mine > theirs else "less"
        return f"has {abs(mine - theirs):.6g} {than} {what}{of} than theirs", f"set {key} alike"
    here, there = _told_apart(mine, theirs)
    return f"has {key}{of} {here}, theirs has {there}", f"{key}{of} {there}, not {here}"


def _told_apart(*numbers: float) -> list[str]:
    """Two numbers with as many digits as tell them apart, six at least."""
    for digits in range(6, 18):
        said = [f"{number:.{digits}g}" for number in numbers]
        if said[0] != said[1]:
            break
    return said


def _counting(add: float, begin: float, each: float) -> tuple[str, str]:
    if each:
        return (
            "counts t with each weight that it updates",
            "add 1 to t once a step, outside the loop over the weights",
        )
    if not add:
        return f"corrects every step as with t = {1 + begin:.0f}", "add 1 to t in each step"
    if add < 1:
        return f"adds 1 to t in every {1 / add:.0f}th step", "add 1 to t in each step"
    if add > 1:
        return f"adds {add:.0f} to t in each step", "add 1 to t in each step"
    had = "a step too early" if begin > 0 else "a step too late"
    return f"begins to count t {had}", "let t be 1 in the first step, 2 in the second"


def _multiple(factor: float, weights: str, *, by_lr: bool) -> tuple[str, str]:
    if factor == 0:
        return f"does not move {weights}", f"update {weights}, too"
    where = "the loss, the gradient or lr" if by_lr else "the loss or the gradient"
    where = f"the gradient of {weights}" if weights else where
    times, _ = _told_apart(factor, 1.0)
    return (
        f"has {times} times the gradient{weights and f' of {weights}'}",
        f"take the factor {times} out of {where}",
    )


def _clipping(
    mine: tuple[str, float, float] | None, theirs: tuple[str, float, float] | None
) -> tuple[str, str]:
    here, there = (clip and f"at {clip[1]:.6g}, {CLIPPED[clip[0]]}" for clip in (mine, theirs))
    if mine is None:
        return "does not clip gradients", f"clip them {there}"
    if _are_scaled(mine[1], theirs and theirs[1]):
        said = f"clips gradients that are still scaled, {here}"
        return said, "call scaler.unscale_(optimizer) before it clips"
    if theirs is None:
        return f"clips gradients {here}", "do not clip them, as theirs does not in these steps"
    if mine[:2] == theirs[:2]:
        added = [f"{clip[2]:g}" if clip[2] else "nothing" for clip in (mine, theirs)]
        return (
            f"adds {added[0]} to the norm before it clips the gradients",
            f"add {added[1]} to the norm, as theirs does",
        )
    return f"clips gradients {here}", f"clip them {there}"


def _are_scaled(most: float, theirs: float | None) -> bool:
    """Whether gradients seem to be clipped that a `GradScaler` has multiplied by a power of two."""
    if theirs is None:  # which is not seen where no gradient is so large
        unscaled = most * SCALE
        return most != float(f"{most:.3g}") and near([unscaled], [float(f"{unscaled:.2g}")])
    power = math.log2(theirs / most)
    return power >= LEAST_POWER and near([power], [round(power)])


def _schedule(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """What mine's learning rates are, by name or by the first ones that differ."""
    pairs = zip(mine, theirs, strict=True)
    first = next((k for k, pair in enumerate(pairs) if not near(pair[:1], pair[1:])), 0)
    here, there = (", ".join(f"{x:.4g}" for x in lrs[first : first + 4]) for lrs in (mine, theirs))
    other = f"has another lr from step {first + 1} on: {here}, … where theirs has {there}, …"
    return schedule(mine, theirs) or other


def _like(theirs: Sequence[float]) -> str:
    """The line to change: what theirs' learning rates are, where that has a name."""
    said = schedule(theirs, [theirs[0]] * len(theirs))
    return f"give both the same schedule{said and f'; theirs {said}'}"


def _scales(mine: Sequence[float]) -> str:
    """Factors of the gradients, step by step, from the first one that is not 1."""
    other = [step for step, x in enumerate(mine) if not near([x], [1.0])]
    factors = [f"{mine[step]:.4g}" for step in other]
    if len({*factors}) == 1:
        steps = ", ".join(str(step + 1) for step in other[:4])
        more = ", …" if len(other) > 4 else ""
        return f"has {factors[0]} times the gradient in step{'s' * (len(other) > 1)} {steps}{more}"
    shown = ", ".join(f"{x:.4g}" for x in mine[other[0] :][:4])
    return f"has {shown}, … times the gradient, step by step, from step {other[0] + 1} on"


def _resetting(steps: int) -> tuple[str, str]:
    after = "each step" if steps == 1 else f"every {steps} steps"
    return (
        f"forgets its velocities or averages after {after}",
        "make these once, before the loop",
    )


def _once(what: str, step: int) -> tuple[str, str]:
    if what == "forgets":
        made = "its optimizer is made anew there"
        return f"forgets its velocities or averages before step {step + 1}", f"see whether {made}"
    return (
        f"adds the gradient of step {step} to that of step {step + 1}",
        "call optimizer.zero_grad() (or set the sums to 0) before that backward pass, too",
    )


TOLD: dict[str, Callable[[Any, Any], tuple[str, str]]] = {
    "resets": lambda mine, _: _resetting(mine),
    "once": lambda mine, _: _once(*mine),
    "adds_up": lambda mine, _: (
        f"sets its gradients to 0 once in {mine} steps, and adds them up in between",
        "call optimizer.zero_grad() (or set the sums to 0) before each backward pass",
    ),
    "count": lambda mine, _: _counting(*mine),
    "clip": lambda mine, theirs: _clipping(mine, theirs),
    "schedule": lambda mine, theirs: (_schedule(mine, theirs), _like(theirs)),
    "scales": lambda mine, _: (
        _scales(mine),
        "look for what changes from step to step: lr, what the loss of a batch is divided by "
        "(rows, tokens, weights of classes), or how gradients are clipped",
    ),
    "optimizer": lambda mine, theirs: (f"is {mine}", f"use {theirs}"),
    "update rule": lambda mine, theirs: (
        f"has `{mine}` for `{theirs}`",
        f"{theirs}, with w the weight, g its gradient and t the step",
    ),
}


def usual_factors(rows: int, outputs: int = 1) -> list[tuple[float, str]]:
    """Factors that a loss may have beside theirs, with where they come from; none of them is 1.

    Args:
        rows: how many rows the loss is over; 0 where that is not known.
        outputs: how many outputs each row has.
    """
    usual = [
        (2.0, "a ½ missing from the squared error"),
        (0.5, "a ½ too many in the squared error"),
    ]
    reduced = {rows: f"{rows} rows"} if rows > 1 else {}
    if outputs > 1:
        reduced[rows * outputs] = f"all {rows * outputs} elements"
        of_rows = f"a mean over the rows where theirs takes that over all {outputs} outputs, too"
        of_all = f"a mean over all {outputs} outputs, too, where theirs takes it over the rows"
        usual += [
            (outputs, of_rows),
            (outputs / 2, f"{of_rows}, and a ½"),
            (1 / outputs, of_all),
            (2 / outputs, f"{of_all}, without their ½"),
        ]
    for number, over in reduced.items():
        usual += [
            (number, f"a sum over {over} where theirs takes the mean"),
            (number / 2, f"½ of a sum over {over} where theirs takes the mean"),
            (1 / number, f"a mean over {over} where theirs takes the sum"),
            (2 / number, f"a mean over {over} where theirs takes ½ of the sum"),
        ]
    return [(float(number), text) for number, text in usual if number != 1]


def source(edit: Edit, diagnosis: Diagnosis, rows: int | None) -> str:
    """What a factor of the gradient may be, where it is one of the usual ones.

    Args:
        edit: one of a finding's.
        diagnosis: the finding.
        rows: how many rows theirs' loss is over, if that is known.
    """
    if edit.what != "gradient" or not edit.mine:
        return ""
    reduced, momentum = diagnosis.reduced, diagnosis.momentum
    count, *outputs = (*((rows,) if rows else ()), *reduced[1 if rows else 0 :]) or (1,)
    usual = usual_factors(count, math.prod(outputs))
    factor = edit.mine / edit.theirs
    found = {text: None for number, text in usual if near([factor], [number])}
    if edit.weights or not diagnosis.squared:  # of the former it is not the loss
        found = {text: None for text in found if "½" not in text}
    if edit.weights:
        found = {text: None for text in found if "outputs" not in text}
    if momentum and near([factor], [1 - momentum]):
        found[f"1 − momentum, with a momentum of {momentum:.4g}, as an average has it"] = None
    return ", or ".join(found)
