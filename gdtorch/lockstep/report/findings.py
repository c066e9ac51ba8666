"""What a replay has found, as a diagnosis: the cause, its number, and what mine does otherwise."""

from __future__ import annotations

__all__ = ["diagnose"]

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..diagnosis import Diagnosis, Edit, Factor, listed
from ..gradients.breaks import SHOWN_ELSEWHERE, Break
from ..gradients.breaks import in_words as broken_in_words
from ..gradients.mutations import changed_lines
from ..replaying.record import Record, Step, has_page
from ..replaying.replay import Program, make_rule, options_of
from ..replaying.rules import text_of
from ..replaying.schedules import RESTS, lr_at, near, schedule
from ..replaying.trial import Fitted, Trial, edited
from ..search.parting import PLAIN, parting, updated_before
from ..search.rates import SCALES
from ..search.screening import Progress, silent
from ..search.search import SECONDS_OF_BREAKS, Finding, find
from ..search.theirs import theirs_program
from .words import in_words, phrase, signature, signatures

MOST_ALIKE = 3  # named
FIELDS = (  # of a program, each of which is an edit where it is another one
    *("adds_up", "late", "resets", "counts_on", "once", "begins", "count", "decays_after"),
    *("clip", "still"),
)
CAUSES = {  # a cause, and what the report says of it → the plainer word
    ("scale", "schedule"): "step size schedule",
    ("momentum", "adds_up"): "gradients not zeroed",
    ("optimizer", "changed gradients"): "changed gradients",
}
OUTSIDE = {
    who: f"{whose} weights change before step {{}} by more than optimizer.step()"
    for who, whose in (("mine", "mine's"), ("theirs", "theirs'"))
}
UNKNOWN = (
    "theirs' own steps are not what its optimizer makes of its gradients, so none can be replayed; "
    "if it takes several steps between two yields, let it yield after each"
)


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
        mine_lower, theirs_lower = sound.products
        way = sound.in_full() if theirs_lower and not mine_lower else sound
        found = _found(find(way, theirs, seconds, progress), way, lr)
    elif sound.steps:
        found = _of_updates(sound, lr)
    if broken and found.cause == "rounding":
        return Diagnosis("not finite", step=broken[0], weights=broken[1])
    return found


def _of_updates(record: Record, lr: float | None) -> Diagnosis:
    """What the updates of both tell, whatever has made them.

    Mine's are made of theirs', or else theirs' of mine's, where that has more momentum, say.
    """
    if record.apart_by_rounding:  # which takes no replay to see
        return Diagnosis("rounding")
    rate = lr or 1.0
    theirs = Program(optimizer="SGD", options={"lr": rate})
    way = record.by_updates(rate)
    found = _found(find(way, theirs), way, lr)
    if not found.edits and not found.doubt and found.cause != "rounding":
        way = record.mirrored().by_updates(rate)
        other = _found(find(way, theirs), way, lr)
        found = other if other.edits else found
    if found.cause == "unexplained" and record.observed:
        step = found.step - 1
        seen = "; ".join(dict.fromkeys(_seen_in_both(record, step))) or found.evidence
        same = record.same_gradients(step, step + 1)
        found = replace(found, evidence=seen, same_gradients=same)
        if record.known:
            found = _not_replayed(found, record)
        found = _with_gradients_added_to(found, record, step)
    if record.observed:  # whatever rule it is, its updates need not be multiples of the loss
        found = replace(found, reduced=(), squared=False)
    return found if found.cause == "rounding" else replace(found, bare=rate)


def _not_replayed(found: Diagnosis, record: Record) -> Diagnosis:
    """A diagnosis that tells why theirs' steps are not those of the optimizer that was seen."""
    first = next((k for k, step in enumerate(record.steps, start=1) if step.outside), 0)
    if not first:
        return replace(found, evidence=UNKNOWN)
    seen = f"{OUTSIDE['theirs'].format(first)}, so that none of its steps can be replayed"
    return replace(found, evidence=seen, outside="theirs")


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
    trial = found.trial
    if found.errors:
        return _on_average(found, record, lr)
    if trial.step is None and (beyond := trial.beyond()):
        step, name = beyond
        seen = f"elements of {name} differ that are not in the sample of them that is replayed"
        return Diagnosis("unexplained", step=step, weights=(name,), evidence=seen)
    if trial.step is None:
        return Diagnosis("rounding")
    theirs = in_words(record, trial.theirs)
    of_mine = signatures(record.steps[0].rules_of_mine)
    base = Diagnosis(
        "unexplained",
        step=trial.step + 1,
        weights=trial.parted,
        theirs=theirs,
        optimizer_of_mine=of_mine if of_mine != theirs else "",
    )
    if found.weak or found.unclear or not found.edits:
        return _unnamed(found, base, record)
    found = _as_seen(found, record)
    edits = _edits_of(trial.theirs, found.program, record, trial.parted)
    if not edits and not found.program.own:
        return _unnamed(replace(found, edits=()), base, record)
    shown = replace(
        base,
        edits=edits,
        reproduced=len(trial.window.steps),
        residual=trial.largest(*found.edits[0]),
    )
    if found.program.own:
        return _beside(found, base, shown, record)
    causes = found.causes
    if len(causes) == 1:  # of two, it is not known which edits belong to which
        causes = (_cause_by(causes[0], edits),)
    numbers = [_factor_of(cause, edits, record, found, lr) for cause in causes]
    if len(scales := found.program.scales or found.program.rates) > 1:
        first = next(k for k, scale in enumerate(scales) if scale != 1.0)
        shown = replace(shown, step=first + 1)
    passes, same_loss = _losses(record, trial.step)
    other = _other_function(record, trial.step) if causes == ("scale",) else ""
    return replace(
        shown,
        cause=causes[0],
        evidence="; ".join(
            filter(None, [passes, other, _since(found.program), _until(found.ends)])
        ),
        reduced=() if same_loss else record.reduced,
        squared=record.squared and not same_loss and not other,
        momentum=_seen_options(record, found.program, trial.parted[0]).get("momentum", 0.0),
        alike=tuple(dict.fromkeys(_alike(found, edits, record)))[:MOST_ALIKE],
        factor=numbers[0],
        second=(causes[1], numbers[1]) if len(numbers) > 1 else None,
    )


def _on_average(found: Finding, record: Record, lr: float | None) -> Diagnosis:
    """A finding that no single step shows."""
    trial, names = found.trial, tuple(record.parts)
    edits = _edits_of(trial.theirs, found.program, record, names)
    count = len(trial.all.steps)
    return Diagnosis(
        found.causes[0],
        factor=_factor_of(found.causes[0], edits, record, found, lr),
        step=1,
        weights=names,
        theirs=in_words(record, trial.theirs),
        edits=edits,
        reproduced=count,
        residual=float(trial.all.missed(found.program).max()),
        evidence=f"rounding hides it in each step, but not in the mean of {count}: there it is "
        f"{found.errors:,.0f} times its standard error",
    )


def _since(program: Program) -> str:
    """What is said of options that differ from a step on."""
    return f"so it is from step {program.since + 1} on" if program.since else ""


def _as_seen(found: Finding, record: Record) -> Finding:
    """A finding with those edits last of which mine was seen to have other options."""
    if not record.steps[0].rules_of_mine:
        return found

    def is_refuted(edits: Sequence[Fitted]) -> bool:
        program = edited(found.trial.theirs, edits)
        seen = _edits_of(found.trial.theirs, program, record, found.trial.parted)
        return any(_refuted(edit, record) for edit in seen)

    return replace(found, edits=sorted(found.edits, key=is_refuted))


def _cause_by(cause: str, edits: Sequence[Edit]) -> str:
    """The report's word for a cause, where the edits that make it have a plainer one."""
    return next((CAUSES[cause, e.what] for e in edits if (cause, e.what) in CAUSES), cause)


def _until(step: int | None) -> str:
    """What is said of edits that explain mine's steps only up to one."""
    return f"so it is until step {step}, where mine does something else again" if step else ""


def _losses(record: Record, step: int) -> tuple[str, bool]:
    """How often both were seen to call backward() in a step, if unlike; whether of one loss."""
    whole = record.steps[step].whole
    if whole is None or whole.mine is None:
        return "", False
    mine, theirs = (len(tape.losses) for tape in (whole.mine, whole.tape))
    same = record.same_loss(whole.mine.value / mine, whole.tape.value / theirs)
    said = f"mine takes {mine} gradients in a step, theirs takes {theirs}"
    return said if mine != theirs else "", same


def _other_function(record: Record, step: int) -> str:
    """What makes the factor of a loss, where both are seen to compute it there; else empty."""
    one = parting(record, step)
    both = one and one.cause == "another function" and "theirs has" in one.mine
    return f"mine {one.mine}" if one and both else ""


def _alike(found: Finding, edits: Sequence[Edit], record: Record) -> Iterator[str]:
    """What else mine may be said to do, in words, since it does the same."""
    if found.causes[0] == "weight that never moves":  # it may be many things, all of them 0
        return
    for one, *_ in found.edits[1:]:
        cause, program = one.candidate.cause, one.apply(found.trial.theirs)
        same = cause == found.causes[0] and program.rates == found.program.rates
        of_all = cause == "scale of one weight" and len({*program.factors.values()}) == 1
        if (same and not program.broken) or of_all:
            continue
        others = _edits_of(found.trial.theirs, program, record, found.trial.parted)
        if others != edits and not any(_refuted(edit, record) for edit in others):
            yield ", and it ".join(phrase(edit, record.bare)[0] for edit in others)


def _beside(found: Finding, base: Diagnosis, shown: Diagnosis, record: Record) -> Diagnosis:
    """What is known where theirs takes mine's steps once it has mine's gradients."""
    step = found.trial.first
    if found.causes and updated_before(record, step):
        return replace(shown, cause=found.causes[0])
    one = parting(record, step)
    if one is None:
        seen = "with mine's gradients theirs takes mine's steps: the gradient is what differs"
        strange = listed(list(dict.fromkeys(record.steps[step].strange)))
        seen += f"; what is done in {strange} was not seen" if strange else ""
        shown = replace(base, evidence=seen, other_gradients=True)
        return _with_gradients_added_to(shown, record, step)
    return replace(
        shown,
        cause=one.cause,
        other_gradients=True,
        second=(found.causes[0], None) if found.causes else None,
        edits=(Edit(one.cause, one.mine, one.change, one.weights), *shown.edits),
    )


def _unnamed(found: Finding, base: Diagnosis, record: Record) -> Diagnosis:
    """What is known where no cause is named."""
    trial = found.trial
    if found.weak:
        seen = f"the difference is hardly more than rounding: {trial.worst:.2g} times as much"
        return replace(base, evidence=seen, doubt="hardly")
    if found.unclear:
        seen = f"{listed(found.unclear)} look alike in so few steps, and each explains them"
        return replace(base, evidence=seen, doubt="several")
    alone = _stepped_by_one(record, trial.parted)
    base = replace(base, same_gradients=trial.same and not alone)
    tried = f"none of {trial.tried:,} changes to theirs that were tried gives mine's steps"
    if alone:
        tried = f"mine {alone.mine}: {alone.theirs}; {tried}"
    if found.looked:
        tried = "of {:,} mistakes in the gradient {:,} were tried until time was up; {}".format(
            *found.looked[::-1], tried
        )
    outside, first = _outside(record)
    if outside:
        tried += f"; {OUTSIDE[outside].format(first)}"
        base = replace(base, outside=outside if first == base.step else "")
    if not trial.agreeing:
        return replace(base, evidence=tried)
    seen = (
        f"the steps of {listed(trial.agreeing)} are the same in both, the others' are not; {tried}"
    )
    return replace(base, cause="one weight's update", evidence=seen, way=_way(trial, record))


def _way(trial: Trial, record: Record) -> tuple[str, ...]:
    """The functions through which the gradient of the weights that part goes, and of no others."""
    tape = record.tape(trial.first)
    keys = {name: id(parameter) for name, parameter in record.parameters.items()}
    if tape is None or not keys:
        return ()
    wrong, right = ({keys[name] for name in names} for names in (trial.parted, trial.agreeing))
    return tuple(tape.leading_to(wrong, right))


def _outside(record: Record) -> tuple[str, int]:
    """Of which of the two weights were seen to change outside of its optimizer, and in which step.

    That of the first step in which it is so in one of them alone.
    """
    for number, step in enumerate(record.steps, start=1):
        if step.outside != step.outside_of_mine:
            return "mine" if step.outside_of_mine else "theirs", number
    return "", 0


def _with_gradients_added_to(found: Diagnosis, record: Record, step: int) -> Diagnosis:
    """A diagnosis that tells which gradients mine adds to more often, in as many passes."""
    at = record.steps[step]
    whole, added = at.whole, at.added_to_of_mine
    names = tuple(name for name, count in added.items() if count > at.added_to.get(name, 0))
    if not names or not whole or not whole.mine or len(whole.mine.losses) != len(whole.tape.losses):
        return found
    said = f"the gradients of {listed(names)} were not 0 in mine when backward() was called"
    return replace(found, evidence=f"{found.evidence}; {said}", added_to=names)


def _edits_of(
    theirs: Program, program: Program, record: Record, parted: Sequence[str]
) -> tuple[Edit, ...]:
    """What a program that takes mine's steps does otherwise than theirs."""
    edits: list[Edit] = []
    if program.mines_rule:
        edits += _options_of_mine(record, parted)
    elif program.optimizer != theirs.optimizer:
        mine = signature(program.optimizer, program.options)
        edits.append(Edit("optimizer", mine, in_words(record, theirs)))
    elif program.broken != SHOWN_ELSEWHERE:
        edits += _other_options(program, theirs, record, parted)
    if program.text:
        kind, options = _rule_seen(record, theirs, parted[0])
        there, here = changed_lines(text_of(make_rule(kind, options)), program.text)
        edits.append(Edit("update rule", here, there))
    edits += _other_rates(theirs, program, record, parted[0])
    if program.broken:
        for one in program.broken.parts:
            weights = _reached(one, record, program)
            change = one.change.format(weights=listed(one.names), given=one.given)
            edits.append(Edit(one.cause, broken_in_words(one, weights), change, weights))
    edits += _gradient_edits(theirs, program)
    if record.turned:
        edits = [_the_other_way(edit) for edit in edits]
    if program.still == set(record.parts):
        edits = [Edit("still_all", True, False) if e.what == "still" else e for e in edits]
    return tuple(_plainly(_seen_as_lr(edit, record)) for edit in edits)


def _other_options(
    program: Program, theirs: Program, record: Record, parted: Sequence[str]
) -> Iterator[Edit]:
    """The options that a program has otherwise than they were seen in theirs, and for which."""
    weights: dict[tuple[str, Any], list[str]] = {}
    for name in record.parts:
        seen = _seen_options(record, theirs, name)
        for option, value in program.options_of(name).items():
            # A number is fitted to the weights that have parted: of others it may nearly be theirs.
            near = 1e-6 if name in parted else 1e-3
            if not math.isclose(value, seen.get(option, False), rel_tol=near):
                weights.setdefault((option, value), []).append(name)
    for (option, value), names in weights.items():
        there = _seen_options(record, theirs, names[0]).get(option, False)
        yield Edit(option, value, there, tuple(names) if len(names) < len(record.parts) else ())


def _other_rates(theirs: Program, program: Program, record: Record, name: str) -> Iterator[Edit]:
    """The learning rates that a program has otherwise than theirs."""
    rates = [rate / theirs.rates[0] for rate in program.rates]
    if len(rates) > 1:
        lrs = tuple(lr_at(record, theirs, name, step) for step in range(len(rates)))
        edited = tuple(lr * rate for lr, rate in zip(lrs, rates, strict=True))
        yield Edit("schedule", edited, lrs)
    elif rates != [1.0] and record.bare:  # where lr cannot be told from the gradient
        yield Edit("gradient", rates[0], 1.0)
    elif rates != [1.0]:
        count = range(len(record.steps))
        lrs = tuple(lr_at(record, theirs, name, step) for step in count)
        edited = tuple(rates[0] * lr for lr in lrs)
        if schedule(edited, lrs).startswith("is a step"):
            yield Edit("schedule", edited, lrs)
            return
        lr = _seen_options(record, theirs, name)["lr"]
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


def _plainly(edit: Edit) -> Edit:
    """An option as what it comes to: a momentum of 1 adds up, and an lr of 0 moves nothing."""
    if edit.what == "momentum" and (edit.mine, edit.theirs) == (1.0, 0.0):
        return Edit("adds_up", "always", "never", edit.weights)
    if edit.what == "lr" and abs(edit.mine) <= RESTS * abs(edit.theirs):
        return Edit("gradient", 0.0, 1.0, edit.weights)
    return edit


def _refuted(edit: Edit, record: Record) -> bool:
    """Whether mine was seen to have another value of an option than an edit says."""
    at = record.steps[0]
    for name in edit.weights or record.parts:
        kind, options = at.rules_of_mine.get(name, (None, {}))
        if kind:  # a class of the user's own may have options of the same names
            seen = options_of(make_rule(kind.__name__, options)) if has_page(kind) else options
            value = seen.get(edit.what)
            if isinstance(value, int | float) and not near([edit.mine], [value]):
                return True
    return False


def _options_of_mine(record: Record, parted: Sequence[str]) -> Iterator[Edit]:
    """In what mine's optimizer, as it was seen, is another than theirs, or has other options."""
    weights: dict[tuple[str, Any, Any], list[str]] = {}
    if alone := _stepped_by_one(record, parted):
        yield alone
    stepped = {name: steps for name in parted if (steps := [*_stepped(record, name)])}
    for name, steps in stepped.items():
        (kind, options), (other, others) = steps[0].rules_of_mine[name], steps[0].rules[name]
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
    if not stepped:
        return
    name, steps = next(iter(stepped.items()))
    lrs = tuple(float(step.rules_of_mine[name][1]["lr"]) for step in steps)
    other_lrs = tuple(float(step.rules[name][1]["lr"]) for step in steps)
    as_long = tuple(lr * lrs[0] / other_lrs[0] if other_lrs[0] else lr for lr in other_lrs)
    if not near(lrs, as_long):
        yield Edit("schedule", lrs, as_long)


def _stepped_by_one(record: Record, parted: Sequence[str]) -> Edit | None:
    """The first weights that one of the two steps where the other has no gradient of them."""
    for number, step in enumerate(record.steps, start=1):
        mine, theirs = ([n for n in parted if n in by] for by in (step.rules_of_mine, step.rules))
        own = [name for name in mine if name not in theirs]
        others = [name for name in theirs if name not in mine]
        if own:
            said = f"steps {listed(own)} in step {number}, where theirs has no gradient of them"
        elif others and step.rules_of_mine:
            said = f"has no gradient of {listed(others)} in step {number}, where theirs steps them"
        else:
            continue
        change = (
            "set gradients to None in both, or to 0 in both: with one of 0 momentum, averages and "
            "decay go on"
        )
        return Edit("changed gradients", said, change, (*(own or others),))
    return None


def _stepped(record: Record, name: str) -> Iterator[Step]:
    """The steps in which both were seen to step a weight."""
    return (step for step in record.steps if name in step.rules and name in step.rules_of_mine)


def _reached(one: Break, record: Record, program: Program) -> tuple[str, ...]:
    """The weights whose gradients a program has wrong, for one of its mistakes."""
    differ: set[str] = set()
    for step in range(len(record.steps)):
        made, true = record.gradient(step, one), record.gradient(step, None)
        if made is not None and true is not None:
            differ.update(record.unlike(made, true))
    return tuple(n for n in record.parts if n in program.spoiled and (n in differ or not differ))


def _gradient_edits(theirs: Program, program: Program) -> Iterator[Edit]:
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
    if program.scales:
        yield Edit("scales", program.scales, (1.0,) * len(program.scales))
    for field in FIELDS:
        mine, others = getattr(program, field), getattr(theirs, field)
        if mine != others:
            both = (tuple(sorted(x)) if isinstance(x, frozenset) else x for x in (mine, others))
            yield Edit(field, *both)
    for weight, other in program.borrowed.items():
        yield Edit("borrowed", other, weight, (weight,))
    if program.free:
        yield Edit("moves", True, False, tuple(sorted(program.free)))


def _seen_options(record: Record, theirs: Program, name: str) -> dict[str, Any]:
    """The options with which theirs steps a weight, of the first step that it does."""
    kind, options = _rule_seen(record, theirs, name)
    return options_of(make_rule(kind, options)) if kind else {"lr": 1.0}


def _rule_seen(record: Record, theirs: Program, name: str) -> tuple[str, Mapping[str, Any]]:
    """The optimizer's name and options, of the first step in which theirs steps a weight."""
    if theirs.optimizer:
        return theirs.optimizer, theirs.options
    seen = (step.rules[name] for step in record.steps if name in step.rules)
    kind, options = next(seen, (None, {}))
    return (kind.__name__, {**options, **theirs.options}) if kind else ("", {})


def _factor_of(
    cause: str, edits: Sequence[Edit], record: Record, found: Finding, lr: float | None
) -> Factor:
    """The number that belongs to a cause: mine over theirs, or mine minus theirs."""
    by = {edit.what: edit for edit in edits if not edit.weights or edit.what != "gradient"}
    if cause == "sign":
        return -1.0
    if cause == "scale":
        theirs = found.trial.theirs
        by_lr = found.program.rates[0] / theirs.rates[0]
        factor = by_lr * found.program.factor / theirs.factor
        return 1 / factor if record.turned else factor
    if cause == "scale of one weight":
        return dict(found.program.factors)
    if cause == "gradients not zeroed":
        return -1.0 if "adds_up" in by and by["adds_up"].mine == "never" else 1.0
    if cause in {"step size schedule", SCALES}:
        return next(x for x in found.program.scales or found.program.rates if x != 1.0)
    name = next(iter(record.parts)) if found.errors else found.trial.parted[0]
    rate = 1.0 if lr else float(_seen_options(record, found.trial.theirs, name)["lr"])
    if cause == "momentum":
        return float(by["momentum"].mine - by["momentum"].theirs)
    if cause == "weight decay":
        return rate * float(by["weight_decay"].mine - by["weight_decay"].theirs)
    if cause == "dampening":
        return float((1 - by["dampening"].mine) / (1 - by["dampening"].theirs))
    if cause == "decay outside the velocity":
        options = _seen_options(record, found.program, name)
        strength = float(options["momentum"] * options["weight_decay"] * rate)
        return strength if by["decoupled_weight_decay"].mine else -strength
    return None
