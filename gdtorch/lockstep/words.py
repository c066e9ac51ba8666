"""A finding in words: what mine does otherwise, how well that is shown, and the line to change."""

from __future__ import annotations

__all__ = ["describe", "diagnose", "heading", "phrase", "usual_factors"]

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .breaks import CAUSES as BROKEN
from .breaks import SHOWN_ELSEWHERE, Break
from .breaks import in_words as broken_in_words
from .diagnosis import Diagnosis, Edit, Factor, listed
from .edits import SCALES, SECONDS_OF_BREAKS, Finding, Progress, find, silent, theirs_program
from .parting import CAUSES as PARTED
from .parting import PLAIN, parting, updated_before
from .record import Record, Rule, has_page
from .replay import Program, make_rule, options_of
from .schedules import lr_at, near, schedule

MOST_ALIKE = 3  # named
UNKNOWN = (
    "theirs' own steps are not what its optimizer makes of its gradients, so none can be replayed; "
    "if it takes several steps between two yields, let it yield after each"
)

# Edit → what mine does, and what to write instead; {mine} and {theirs} are the values.
WORDS = {
    "sign": (
        "steps the other way",
        "look for a minus sign: w -= lr * g goes down",
    ),
    "adds_up_always": (
        "adds each gradient to those of the steps before",
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
}
BOTH_WAYS = {  # flag of PyTorch's → what has it, and what mine is to write to have it
    "nesterov": ("Nesterov's momentum", "step along g + μ * v, not along v"),
    "amsgrad": ("amsgrad", "divide by the root of the largest v so far"),
    "centered": ("centering", "divide by sqrt(v − mean(g)²)"),
}
CLIPPED = {
    "together": "by the norm of all of them together",
    "each": "each weight's by its own norm",
    "value": "element by element",
}


def edits_of(
    theirs: Program, program: Program, record: Record, parted: Sequence[str]
) -> tuple[Edit, ...]:
    """What a program that takes mine's steps does otherwise than theirs."""
    concerned = tuple(n for n in parted if not program.only or n in program.only)
    only = concerned if len(concerned) < len(record.parts) else ()
    edits: list[Edit] = []
    if program.mines_rule:
        edits += options_edits(record, parted)
    elif program.optimizer != theirs.optimizer:
        mine = signature(program.optimizer, program.options)
        edits.append(Edit("optimizer", mine, in_words(record, theirs)))
    elif program.broken != SHOWN_ELSEWHERE:
        edits += _other_options(program, seen_options(record, theirs, parted[0]), only)
    edits += _other_rates(theirs, program, record, parted[0])
    if program.broken:
        for one in program.broken.parts:
            weights = reached(one, record, program)
            change = one.change.format(weights=listed(one.names))
            edits.append(Edit(one.cause, broken_in_words(one, weights), change, weights))
    edits += gradient_edits(theirs, program)
    if record.turned:
        edits = [_the_other_way(edit) for edit in edits]
    if program.still == set(record.parts):
        edits = [Edit("still_all", True, False) if e.what == "still" else e for e in edits]
    return tuple(_seen_as_lr(edit, record) for edit in edits)


def _other_options(
    program: Program, seen: Mapping[str, Any], only: tuple[str, ...]
) -> Iterator[Edit]:
    """The options that a program has otherwise than they were seen in theirs."""
    for option, value in program.options.items():
        if not math.isclose(value, seen.get(option, False), rel_tol=1e-6):
            yield Edit(option, value, seen.get(option, False), only)


def _other_rates(theirs: Program, program: Program, record: Record, name: str) -> Iterator[Edit]:
    """The learning rates that a program has otherwise than theirs."""
    rates = [rate / theirs.rates[0] for rate in program.rates]
    if program.scales:
        yield Edit("scales", tuple(rates), (1.0,) * len(rates))
    elif len(rates) > 1:
        lrs = tuple(lr_at(record, theirs, name, step) for step in range(len(rates)))
        edited = tuple(lr * rate for lr, rate in zip(lrs, rates, strict=True))
        yield Edit("schedule", edited, lrs)
    elif rates != [1.0] and record.bare:  # where lr cannot be told from the gradient
        yield Edit("gradient", rates[0], 1.0)
    elif rates != [1.0]:
        lr = seen_options(record, theirs, name)["lr"]
        yield Edit("lr", lr * rates[0], lr)


def _the_other_way(edit: Edit) -> Edit:
    """What theirs does otherwise than mine, as what mine does."""
    if edit.what == "gradient":
        return replace(edit, mine=1 / edit.mine)
    if edit.what == "still":
        return Edit("moves", True, False, edit.mine)
    return replace(edit, mine=edit.theirs, theirs=edit.mine)


def _seen_as_lr(edit: Edit, record: Record) -> Edit:
    """A factor of the gradient as one of lr, where mine was seen to have such an lr."""
    at = record.steps[0]
    names = edit.weights or tuple(record.parts)
    if edit.what != "gradient" or not {*names} <= at.rules_of_mine.keys() & at.rules.keys():
        return edit
    pairs = {(at.rules_of_mine[name][1]["lr"], at.rules[name][1]["lr"]) for name in names}
    mine, theirs = pairs.pop()
    if pairs or not theirs or not near([mine / theirs], [edit.mine]):
        return edit
    return Edit("lr", mine, theirs, edit.weights)


def _refuted(edit: Edit, record: Record) -> bool:
    """Whether mine was seen to have another value of an option than an edit says."""
    at = record.steps[0]
    for name in edit.weights or record.parts:
        kind, options = at.rules_of_mine.get(name, (None, {}))
        if kind and has_page(kind):
            seen = options_of(make_rule(kind.__name__, options))
            if edit.what in seen and not near([edit.mine], [seen[edit.what]]):
                return True
    return False


def options_edits(record: Record, parted: Sequence[str]) -> Iterator[Edit]:
    """In what mine's optimizer, as it was seen, is another than theirs, or has other options."""
    of_mine, of_theirs = record.steps[0].rules_of_mine, record.steps[0].rules
    weights: dict[tuple[str, Any, Any], list[str]] = {}
    for name in parted:
        (kind, options), (other, others) = of_mine[name], of_theirs[name]
        mine, theirs = signature(kind.__name__, options), signature(other.__name__, others)
        unlike = [("optimizer", mine, theirs)]
        if kind is other:
            known = options_of(make_rule(other.__name__, others))
            own = options_of(make_rule(kind.__name__, options)).items()
            unlike = [(o, value, known[o]) for o, value in own if value != known[o]]
        for one in unlike:
            weights.setdefault(one, []).append(name)
    for one, names in weights.items():
        yield Edit(*one, tuple(names) if len(names) < len(record.parts) else ())
    name = parted[0]
    steps = [step for step in record.steps if name in step.rules and name in step.rules_of_mine]
    lrs = tuple(float(step.rules_of_mine[name][1]["lr"]) for step in steps)
    other_lrs = tuple(float(step.rules[name][1]["lr"]) for step in steps)
    as_long = tuple(lr * lrs[0] / other_lrs[0] if other_lrs[0] else lr for lr in other_lrs)
    if not near(lrs, as_long):
        yield Edit("schedule", lrs, as_long)


def reached(one: Break, record: Record, program: Program) -> tuple[str, ...]:
    """The weights whose gradients a program has wrong, for one of its mistakes."""
    differ: set[str] = set()
    for step in range(len(record.steps)):
        made, true = record.gradient(step, one), record.gradient(step, None)
        if made is not None and true is not None:
            differ.update(record.unlike(made, true))
    return tuple(n for n in record.parts if n in program.spoiled and (n in differ or not differ))


def gradient_edits(theirs: Program, program: Program) -> Iterator[Edit]:
    """What a program does otherwise with its gradients, and with its weights."""
    if program.own:  # mine's, as its optimizer was given them
        theirs = replace(theirs, clip=None, adds_up="never")
    factor = program.factor / theirs.factor
    if factor == -1:
        yield Edit("sign", -1, 1)
    elif factor != 1:
        yield Edit("gradient", factor, 1.0)
    factors = {name: own for name, own in program.factors.items() if own != 1}
    while factors:
        own = next(iter(factors.values()))
        alike = tuple(name for name, other in factors.items() if near([other], [own]))
        yield Edit("gradient", own, 1.0, alike)
        factors = {name: other for name, other in factors.items() if name not in alike}
    for field in ("adds_up", "late", "resets", "begins", "count", "decays_after", "clip", "still"):
        mine, others = getattr(program, field), getattr(theirs, field)
        if mine != others:
            both = (tuple(sorted(x)) if isinstance(x, frozenset) else x for x in (mine, others))
            yield Edit(field, *both)
    for weight, other in program.borrowed.items():
        yield Edit("borrowed", other, weight, (weight,))
    if program.free:
        yield Edit("moves", True, False, tuple(sorted(program.free)))


def seen_options(record: Record, theirs: Program, name: str) -> dict[str, Any]:
    """The options with which theirs steps a weight, of the first step that it does."""
    if theirs.optimizer:
        return options_of(make_rule(theirs.optimizer, theirs.options))
    for step in record.steps:
        if name in step.rules:
            kind, options = step.rules[name]
            return options_of(make_rule(kind.__name__, {**options, **theirs.options}))
    return {"lr": 1.0}


def signature(kind: str, options: Mapping[str, Any]) -> str:
    """An optimizer as one writes it: its learning rate, and what is not as PyTorch has it."""
    usual = make_rule(kind, {}).options()
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
    return _signatures(record.steps[0].rules)


def _signatures(rules: Mapping[str, Rule]) -> str:
    """Those of torch.optim's optimizers that were seen, each once."""
    known = (rule for rule in rules.values() if has_page(rule[0]))
    seen = dict.fromkeys(signature(kind.__name__, options) for kind, options in known)
    return "; ".join(seen)


def phrase(edit: Edit, bare: float = 0.0) -> tuple[str, str]:
    """What mine does otherwise, and what to change for it to do as theirs.

    Args:
        edit: one of a report's.
        bare: see `Diagnosis`; then theirs' value is not known, but how much more or less mine has.
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
        return tuple(text.format(mine=mine, weights=weights) for text in WORDS[key])  # type: ignore[return-value]
    if key in TOLD:
        return TOLD[key](mine, theirs)
    if key == "gradient" and bare:
        factor = f"take the factor {mine:.6g} out of lr, the gradient or the loss"
        return f"makes {mine:.6g} times theirs' update{of}", factor
    if key == "gradient":
        return _multiple(mine, listed(edit.weights))
    if isinstance(mine, bool):
        return f"has {key}{of} {mine}, theirs has {theirs}", f"{key}{of} {theirs}, not {mine}"
    if bare:
        what = "lr * weight_decay" if key == "weight_decay" and bare == 1 else key
        than = "more" if mine > theirs else "less"
        return f"has {abs(mine - theirs):.6g} {than} {what}{of} than theirs", f"set {key} alike"
    return (
        f"has {key}{of} {mine:.6g}, theirs has {theirs:.6g}",
        f"{key}{of} {theirs:.6g}, not {mine:.6g}",
    )


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
    had = "a step too early" if begin > 0 else "a step too late"
    return f"begins to count t {had}", "let t be 1 in the first step, 2 in the second"


def _multiple(factor: float, weights: str) -> tuple[str, str]:
    if factor == 0:
        return f"does not move {weights}", f"update {weights}, too"
    where = f"the gradient of {weights}" if weights else "the loss, the gradient or lr"
    return (
        f"has {factor:.6g} times the gradient{weights and f' of {weights}'}",
        f"take the factor {factor:.6g} out of {where}",
    )


def _clipping(
    mine: tuple[str, float, float] | None, theirs: tuple[str, float, float] | None
) -> tuple[str, str]:
    how, most, added = mine or theirs or ("value", math.inf, 0.0)
    if mine and theirs and mine[:2] == theirs[:2]:
        here, there = f"{added:g} to the norm", f"{theirs[2]:g} to the norm, as theirs does"
        return f"adds {here} before it clips the gradients", f"add {there}"
    clip = f"at {most:.6g}, {CLIPPED[how]}"
    if mine is None:
        return "does not clip gradients", f"clip them {clip}"
    return f"clips gradients {clip}", "clip as theirs does, or not at all"


def _schedule(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """What mine's learning rates are, by name or by the first ones that differ."""
    pairs = zip(mine, theirs, strict=True)
    first = next((k for k, pair in enumerate(pairs) if not near(pair[:1], pair[1:])), 0)
    shown = ", ".join(f"{lr:.4g}" for lr in mine[first : first + 4])
    return schedule(mine, theirs) or f"has another lr from step {first + 1} on: {shown}, …"


def _resetting(steps: int) -> tuple[str, str]:
    after = "each step" if steps == 1 else f"every {steps} steps"
    return f"forgets its velocities or averages after {after}", "make them once, before the loop"


TOLD: dict[str, Callable[[Any, Any], tuple[str, str]]] = {
    "resets": lambda mine, _: _resetting(mine),
    "adds_up": lambda mine, _: (
        f"sets its gradients to 0 once in {mine} steps, and adds them up in between",
        "call optimizer.zero_grad() (or set the sums to 0) before each backward pass",
    ),
    "count": lambda mine, _: _counting(*mine),
    "clip": lambda mine, theirs: _clipping(mine, theirs),
    "schedule": lambda mine, theirs: (_schedule(mine, theirs), "give both the same schedule"),
    "scales": lambda mine, _: (
        f"makes {', '.join(f'{rate:.4g}' for rate in mine[:4])}, … times theirs' update",
        "look for what changes from step to step: lr, what the loss of a batch is divided by "
        "(rows, tokens, weights of classes), or how gradients are clipped",
    ),
    "optimizer": lambda mine, theirs: (f"is {mine}", f"use {theirs}"),
}


def heading(diagnosis: Diagnosis) -> list[str]:
    """The cause, and the optimizers that were seen."""
    lines = [f"cause: {diagnosis.cause}"]
    if diagnosis.theirs:
        lines.append(f"theirs: {diagnosis.theirs}")
    if diagnosis.optimizer_of_mine:
        lines.append(f"seen in mine: {diagnosis.optimizer_of_mine}")
    return lines


def describe(diagnosis: Diagnosis, where: str, rows: int | None) -> str:
    """The report on what a replay has found, line by line."""
    phrases = [phrase(edit, diagnosis.bare) for edit in diagnosis.edits]
    said = [
        ": ".join(filter(None, [mine, source(edit, diagnosis, rows)]))
        for edit, (mine, _) in zip(diagnosis.edits, phrases, strict=True)
    ]
    changes = dict.fromkeys(change for _, change in phrases)
    lines = [
        *heading(diagnosis),
        f"mine:   the same, but it {', and it '.join(said)}",
        *(f"Or:     it {other}, which does the same" for other in diagnosis.alike),
        where,
        f"Shown:  with {_given(diagnosis)}, theirs takes mine's next step from mine's weights in "
        f"{diagnosis.reproduced} of {diagnosis.reproduced} steps, to {diagnosis.residual:.1g} of "
        "rounding.",
        f"Change: {'; '.join(changes)}.",
        "Compare the two again then: this is the first function in which they part, and more may."
        if diagnosis.other_gradients
        else "",
    ]
    return "\n".join(line for line in lines if line)


def _given(diagnosis: Diagnosis) -> str:
    """With what theirs takes mine's steps."""
    if not diagnosis.other_gradients:
        return "that"
    return "mine's gradients and the rest" if diagnosis.second else "mine's gradients"


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
        of_all = f"a mean over all {outputs} outputs, too, where theirs takes that over rows"
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
    if momentum and near([factor], [1 - momentum]):
        found[f"1 − momentum, with a momentum of {momentum:.4g}, as an average has it"] = None
    return ", or ".join(found)


def diagnose(
    record: Record,
    lr: float | None,
    seconds: float = SECONDS_OF_BREAKS,
    progress: Progress = silent,
) -> Diagnosis:
    """What the replay says of a record.

    Args:
        record: what was kept of both.
        lr: learning rate, so that a weight decay is given as λ; None for lr · λ.
        seconds: how long to look for mistakes in the gradient.
        progress: called with how many of these were tried, and how many there are.
    """
    broken = record.broken
    sound = record.until(broken[0]) if broken else record
    theirs = theirs_program(sound) if sound.steps and sound.observed else None
    found = Diagnosis("rounding")
    if theirs:
        found = _found(find(sound, theirs, seconds, progress), sound, lr)
    elif sound.steps:
        found = _of_updates(sound, lr)
    if broken and found.cause == "rounding":
        return Diagnosis("not finite", step=broken[0], weights=broken[1])
    return found


def _of_updates(record: Record, lr: float | None) -> Diagnosis:
    """What the updates of both tell, whatever has made them.

    Mine's are made of theirs', or else theirs' of mine's, where that has more momentum, say.
    """
    rate = lr or 1.0
    theirs = Program(optimizer="SGD", options={"lr": rate})
    way = record.by_updates(rate)
    found = _found(find(way, theirs), way, lr)
    if not found.edits and not found.several and found.cause != "rounding":
        way = record.mirrored().by_updates(rate)
        other = _found(find(way, theirs), way, lr)
        found = other if other.edits else found
    if found.cause == "unexplained" and record.observed:
        step = found.step - 1
        seen = "; ".join(dict.fromkeys(_seen_in_both(record, step))) or found.evidence
        same = record.same_gradients(step, step + 1)
        found = replace(found, evidence=UNKNOWN if record.known else seen, same_gradients=same)
    if record.observed:  # whatever rule it is, its updates need not be multiples of the loss
        found = replace(found, reduced=(), squared=False)
    return found if found.cause == "rounding" else replace(found, bare=rate)


def _seen_in_both(record: Record, step: int) -> Iterator[str]:
    """In what mine was seen to be another than theirs, where nothing is replayed."""
    at = record.steps[step]
    if one := parting(record, step):
        yield f"mine {one.mine}"
    for name, (kind, options) in at.rules_of_mine.items():
        other, others = at.rules.get(name, (None, {}))
        for option, value in options.items() if kind is other else ():
            there = others.get(option)
            if isinstance(value, PLAIN) and isinstance(there, PLAIN) and value != there:
                yield f"mine's {kind.__name__} has {option} {value}, theirs has {there}"


def _found(found: Finding, record: Record, lr: float | None) -> Diagnosis:
    """A finding as a diagnosis."""
    if found.beyond:
        step, name = found.beyond
        seen = f"elements of {name} differ that are not in the sample of them that is replayed"
        return Diagnosis("unexplained", step=step, weights=(name,), evidence=seen)
    if not found.step:
        return Diagnosis("rounding")
    theirs = in_words(record, found.theirs)
    of_mine = _signatures(record.steps[0].rules_of_mine)
    base = Diagnosis(
        "unexplained",
        step=found.step,
        weights=found.weights,
        theirs=theirs,
        optimizer_of_mine=of_mine if of_mine != theirs else "",
    )
    if found.program.own:
        return _beside(found, base, record)
    if found.weak or found.several or not found.causes:
        return _unnamed(found, base, record)
    edits = edits_of(found.theirs, found.program, record, found.weights)
    numbers = [factor_of(cause, edits, record, found, lr) for cause in found.causes]
    if len(found.program.rates) > 1:
        first = next(k for k, rate in enumerate(found.program.rates) if rate != 1.0)
        base = replace(base, step=first + 1)
    alike: dict[str, None] = {}
    # Where a weight does not move, it may be many things, all of them 0.
    still = found.causes[0] == "weight that never moves"
    for cause, program in () if still else found.alike:
        other_way = (
            cause != found.causes[0] or program.broken or program.rates != found.program.rates
        )
        if other_way and not alike_factors(cause, program):
            others = edits_of(found.theirs, program, record, found.weights)
            if others != edits and not any(_refuted(edit, record) for edit in others):
                said = (phrase(edit, record.bare)[0] for edit in others)
                alike[", and it ".join(said)] = None
    return replace(
        base,
        cause=found.causes[0],
        reduced=record.reduced,
        squared=record.squared,
        momentum=seen_options(record, found.program, found.weights[0]).get("momentum", 0.0),
        alike=tuple(alike)[:MOST_ALIKE],
        factor=numbers[0],
        second=(found.causes[1], numbers[1]) if len(numbers) > 1 else None,
        edits=edits,
        reproduced=found.steps,
        residual=found.largest,
    )


def _beside(found: Finding, base: Diagnosis, record: Record) -> Diagnosis:
    """What is known where theirs takes mine's steps once it has mine's gradients."""
    edits = edits_of(found.theirs, found.program, record, found.weights)
    shown = replace(base, edits=edits, reproduced=found.steps, residual=found.largest)
    if found.causes and updated_before(record, found.step - 1):
        return replace(shown, cause=found.causes[0])
    one = parting(record, found.step - 1)
    if one is None:
        seen = "with mine's gradients theirs takes mine's steps: the gradient is what differs"
        strange = listed(record.steps[found.step - 1].strange)
        seen += f"; what {strange} does was not seen" if strange else ""
        return replace(base, evidence=seen, other_gradients=True)
    return replace(
        shown,
        cause=one.cause,
        other_gradients=True,
        second=(found.causes[0], None) if found.causes else None,
        edits=(Edit(one.cause, one.mine, one.change, one.weights), *edits),
    )


def _unnamed(found: Finding, base: Diagnosis, record: Record) -> Diagnosis:
    """What is known where no cause is named."""
    base = replace(base, same_gradients=found.same)
    if found.weak:
        seen = f"the difference is hardly more than rounding: {found.largest:.2g} times as much"
        return replace(base, evidence=seen, several=True)
    if found.several:
        seen = f"{listed(found.several)} look alike in so few steps, and each explains them"
        return replace(base, evidence=seen, several=True)
    tried = f"none of {found.tried} changes to theirs that were tried gives"
    if found.looked:
        tried = "of {:,} mistakes in the gradient {:,} were tried until time was up; {}".format(
            *found.looked[::-1], tried
        )
    if not found.agreeing:
        return replace(base, evidence=f"{tried} mine's steps{_outside(record)}")
    seen = f"{listed(found.agreeing)} take the same steps in both; {tried} those of the others"
    return replace(base, cause="one weight's update", evidence=seen + _outside(record))


def _outside(record: Record) -> str:
    """Where mine's weights were seen to change outside of its optimizer."""
    steps = enumerate(record.steps, start=1)
    first = next((number for number, step in steps if step.outside), None)
    said = f"; mine's weights change before step {first} by more than optimizer.step()"
    return said if first else ""


def alike_factors(cause: str, program: Program) -> bool:
    """Whether factors of some weights are one of all."""
    return cause == "scale of one weight" and len({*program.factors.values()}) == 1


def factor_of(
    cause: str, edits: Sequence[Edit], record: Record, found: Finding, lr: float | None
) -> Factor:
    """The number that belongs to a cause: mine over theirs, or mine minus theirs."""
    by = {edit.what: edit for edit in edits if not edit.weights or edit.what != "gradient"}
    if cause == "sign":
        return -1.0
    if cause == "scale":
        by_lr = found.program.rates[0] / found.theirs.rates[0]
        factor = by_lr * found.program.factor / found.theirs.factor
        return 1 / factor if record.turned else factor
    if cause == "scale of one weight":
        return dict(found.program.factors)
    if cause == "gradients not zeroed":
        return -1.0 if by["adds_up"].mine == "never" else 1.0
    if cause in {"step size schedule", SCALES}:
        return next(rate for rate in found.program.rates if rate != 1.0)
    rate = 1.0 if lr else float(seen_options(record, found.theirs, found.weights[0])["lr"])
    if cause == "momentum":
        return float(by["momentum"].mine - by["momentum"].theirs)
    if cause == "weight decay":
        return rate * float(by["weight_decay"].mine - by["weight_decay"].theirs)
    if cause == "dampening":
        return float((1 - by["dampening"].mine) / (1 - by["dampening"].theirs))
    if cause == "decay outside the velocity":
        options = seen_options(record, found.program, found.weights[0])
        strength = float(options["momentum"] * options["weight_decay"] * rate)
        return strength if by["decoupled_weight_decay"].mine else -strength
    return None
