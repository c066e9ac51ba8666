"""The edits of the rule and of the loop around it: what people write otherwise, one at a time."""

from __future__ import annotations

__all__ = [
    "NONE_AT_0",
    "NORM",
    "cause_of",
    "clipped",
    "counts",
    "decays",
    "mutated",
    "now_and_then",
    "of_updates",
    "other_optimizers",
    "rate",
    "scale",
    "singles",
]

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...optimizers import RULES
from ..gradients.mutations import mutants
from ..replaying.replay import Program, options_of
from ..replaying.rules import kept, text_of
from ..replaying.trial import Build, Candidate, Trial, changed

MOST_DECAYS = 12  # weights, each with a decay of its own
CUTS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)  # of the first gradient, at which it may be clipped
NORM = 1e-6  # that torch.nn.utils.clip_grad_norm_ adds to a norm
AVERAGED = {"Adam", "AdamW", "RAdam", "RMSprop", "Adadelta"}  # gradients and their squares
COUNTED = {"Adam", "AdamW", "Adamax", "RAdam"}  # whose steps are, for the bias correction
NONE_AT_0 = {  # options that 0 turns off
    *("momentum", "dampening", "weight_decay", "lr_decay", "initial_accumulator_value"),
}
STARTS = {  # from which an option is fitted, beside theirs
    "momentum": (0.5, 0.9),
    "dampening": (0.5,),
    "weight_decay": (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3),
    "eps": (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "alpha": (0.9, 0.99),
    "rho": (0.9, 0.95),
    "betas[0]": (0.9, 0.5),
    "betas[1]": (0.99, 0.999),
    "lr_decay": (1e-2,),
    "lambd": (1e-4, 1e-2, 1e-1),
    "initial_accumulator_value": (0.1, 1.0),
    "momentum_decay": (4e-3, math.inf),
    "threshold": (4.0,),
}
CAUSES = {  # option or switch → the report's word, where it is not the option's own
    "maximize": "sign",
    "weight_decay": "weight decay",
    "betas[0]": "betas",
    "betas[1]": "betas",
    "eps_in_root": "eps",
    "eps_before_correction": "eps",
    "eps_outside_max": "eps",
    "no_bias_correction": "bias correction",
    "decoupled_weight_decay": "decoupled weight decay",
    "decay_without_lr": "decay without lr",
    "dampen_first": "dampening in the first step",
    "lr_in_velocity": "lr within the velocity",
    "old_velocity": "velocity a step late",
    "uncorrected_m": "bias correction",
    "uncorrected_v": "bias correction",
    "inverted_correction": "bias correction",
    "keeps_corrected": "bias correction",
    "max_of_corrected": "amsgrad",
    "square_of_m": "mean square",
    "no_root": "mean square",
    "keeps_look_ahead": "nesterov",
    "initial_accumulator_value": "initial accumulator",
}


def cause_of(option: str) -> str:
    """The report's word for an option or a switch."""
    return CAUSES.get(option, option.replace("_", " "))


def singles(trial: Trial) -> Iterator[Candidate]:
    """Single edits, the plainest first."""
    yield from factors(trial)
    for when in ("first", "never"):
        if when != trial.theirs.adds_up:
            yield adds_up(when)
    yield Candidate("stale gradient", changed(late=True))
    if trial.theirs.clip:
        yield Candidate("clipping", changed(clip=None))
    yield from _options(trial, frozenset())
    if trial.agreeing:
        yield from _options(trial, frozenset(trial.parted))
    yield Candidate("state reset", changed(resets=1))
    if trial.first:
        yield Candidate("state reset", changed(once=("forgets", trial.first)))
        yield Candidate("gradients not zeroed", changed(once=("adds", trial.first)))
        for one in _options(trial, frozenset()):
            yield replace(one, build=_since(trial.first, one.build))
    yield from _around(trial)
    yield from _clips(trial)
    yield from _borrowed(trial)


def of_updates(trial: Trial) -> Iterator[Candidate]:
    """Edits that can be told from theirs' updates alone, whatever rule has made them."""
    yield from factors(trial)
    for option, start in (("momentum", 0.5), ("weight_decay", 0.01), ("dampening", 0.5)):
        yield Candidate(cause_of(option), _with(option, frozenset()), ((start,),))


def mutated(trial: Trial) -> Iterator[Candidate]:
    """Theirs' rule with a slip in it, where all weights have one rule."""
    rule = trial.rule()
    kinds = {kind for step in trial.window.steps for kind, _ in step.rules.values()}
    if rule is None or len(kinds) > 1 or trial.agreeing or trial.of_theirs:
        return
    text = text_of(rule)
    names = "w", "g", *kept(text)
    for mutant in mutants(text, (names, ("beta1", "beta2")), "lr"):
        yield Candidate("update rule", changed(text=mutant))


def now_and_then(trial: Trial) -> Iterator[Candidate]:
    """What mine may do once in several steps, as at the end of an epoch."""
    for steps in range(2, len(trial.window.steps) // 2 + 1):  # twice, at least
        yield Candidate("state reset", changed(resets=steps))
        yield adds_up(steps)


def adds_up(when: str | int) -> Candidate:
    """Gradients that add up, or do not, or in other steps (see `Program`)."""
    return Candidate("gradients not zeroed", changed(adds_up=when))


def factors(trial: Trial) -> Iterator[Candidate]:
    """Multiples of theirs' gradient, 0 and −1 among them, and sums of it."""
    still = _resting(trial, trial.window.after - trial.window.before)
    if still:
        yield Candidate("weight that never moves", changed(still=still), partial=True)
    unknown = _unstepped(trial)
    if unknown:
        yield Candidate("weight that never moves", changed(free=unknown), partial=True)
    yield Candidate("sign", lambda p, _: replace(p, factor=-p.factor))
    ratio = trial.ratio()
    starts = (*(((ratio,),) if ratio else ()), (1.0,), *((x,) for x in counts(trial)))
    yield Candidate("scale", scale, starts)
    yield Candidate("scale", rate, starts)
    if still != set(trial.parted) and (trial.agreeing or len(trial.parted) > 1):
        yield _scale_of_some(trial)
    if trial.theirs.adds_up != "always":
        yield adds_up("always")


def scale(program: Program, numbers: Sequence[float]) -> Program:
    """A program with a factor of its gradients."""
    return replace(program, factor=program.factor * numbers[0])


def rate(program: Program, numbers: Sequence[float]) -> Program:
    """A program with a factor of its learning rates."""
    return replace(program, rates=tuple(rate * numbers[0] for rate in program.rates))


def counts(trial: Trial) -> list[float]:
    """Factors that a mean for a sum, or a forgotten ½, may have."""
    rows, *outputs = trial.record.reduced or (1,)
    whole: set[float] = {1, rows, math.prod(outputs), rows * math.prod(outputs)}
    whole |= {count / 2 for count in whole}
    return [x for count in whole for x in (float(count), 1 / count) if x != 1]


def _resting(trial: Trial, moved: Tensor) -> frozenset[str]:
    """Weights of those parted that do not move at all."""
    return frozenset(n for n in trial.parted if not moved[:, trial.window.of(n)].any())


def _unstepped(trial: Trial) -> frozenset[str]:
    """Weights of those parted that theirs' optimizer never steps, though it does others."""
    stepped = set().union(*(step.rules for step in trial.window.steps))
    if not stepped:
        return frozenset()
    return _resting(trial, trial.window.predict(trial.theirs) - trial.window.before) - stepped


def _scale_of_some(trial: Trial) -> Candidate:
    names = trial.parted

    def build(program: Program, numbers: Sequence[float]) -> Program:
        return replace(program, factors=dict(zip(names, numbers, strict=True)))

    starts = [tuple(map(trial.ratio, names))]
    if len(names) == 1:
        starts += [(x,) for x in counts(trial)]
    return Candidate("scale of one weight", build, tuple(starts), partial=True)


def _options(trial: Trial, only: frozenset[str]) -> Iterator[Candidate]:
    """Each option and each switch of theirs' rule, for all weights or for some."""
    rule = trial.rule(next(iter(only), ""))
    for option, value in options_of(rule).items() if rule else ():
        cause = cause_of(option)
        if option == "decoupled_weight_decay" and type(rule).__name__ == "SGD":
            cause = "decay outside the velocity"
        if isinstance(value, bool):
            flip = _with(option, only, not value)
            yield Candidate(cause, flip, partial=bool(only))
            if cause == "eps" and type(rule).__name__ != "Adagrad":  # whose v may begin there
                numbers = tuple((x,) for x in STARTS["eps"])
                yield Candidate(cause, _with_eps(flip, only), numbers, partial=bool(only))
        elif option != "lr" or only:  # that of all weights is a scale
            near = (value,) if value else ()
            none = (0.0,) if option in NONE_AT_0 and value else ()
            starts = (*none, *near, *(x for x in STARTS.get(option, ()) if x != value))
            numbers = tuple((x,) for x in starts)
            yield Candidate(cause, _with(option, only), numbers, partial=bool(only))


def _since(step: int, build: Build) -> Build:
    """The same from a step on."""
    return lambda program, numbers: replace(build(program, numbers), since=step)


def _with(option: str, only: frozenset[str], value: bool | None = None) -> Build:
    """Another value of an option; without one, the first number."""

    def build(program: Program, numbers: Sequence[float]) -> Program:
        if option == "dampening" and not 0 <= numbers[0] <= 1:
            raise ValueError("torch takes it, but nobody means it")
        return program.with_option(option, numbers[0] if value is None else value, only)

    return build


def decays(trial: Trial) -> Iterator[Candidate]:
    """A weight decay for each weight."""
    names, rule = trial.window.names, trial.rule()
    if rule is None or not 1 < len(names) <= MOST_DECAYS:
        return

    def build(program: Program, numbers: Sequence[float]) -> Program:
        for name, decay in zip(names, numbers, strict=True):
            program = program.with_option("weight_decay", decay, [name])
        return program

    begin = dict.fromkeys((rule.weight_decay, 0.01))
    yield Candidate("weight decay", build, tuple((decay,) * len(names) for decay in begin))


def _with_eps(flip: Build, only: frozenset[str]) -> Build:
    """Another place of eps, and another eps."""
    return lambda program, x: flip(program, ()).with_option("eps", x[0], only)


def _around(trial: Trial) -> Iterator[Candidate]:
    """What stands around the rule: when it decays, how its averages begin, how t counts."""
    rule = trial.rule()
    if rule and rule.weight_decay:
        yield Candidate("decay after the step", changed(decays_after=True))
    if type(rule).__name__ in AVERAGED:
        yield Candidate("initial accumulator", changed(begins=True))
    if type(rule).__name__ in COUNTED:
        yield Candidate("bias correction", _counted, _counters(trial))
        yield Candidate("state reset", changed(resets=1, counts_on=True))


def _counted(program: Program, numbers: Sequence[float]) -> Program:
    return replace(program, count=tuple(numbers))


def _counters(trial: Trial) -> tuple[tuple[float, float, float], ...]:
    """How t may count: with each weight, not at all, from elsewhere, once in several steps."""
    many = len(trial.window.names)
    return (
        *((many, 0, 1), (many, many - 1, -1), (0, 0, 0), (0, 1, 0), (1, 1, 0), (1, -1, 0)),
        (2, 1, 0),
        *((1 / steps, 0, 0) for steps in range(2, trial.record.window)),
    )


def _clips(trial: Trial) -> Iterator[Candidate]:
    """Gradients clipped, at what mine's first parted update comes to, or somewhere below."""
    at, window = trial.first, trial.window
    norms = {}
    for name in window.names:
        of = window.of(name)
        used, fresh = window.used[at, of].norm(), window.fresh[at, of].norm()
        norms[name] = window.steps[at].norms[name] * float(used / fresh) if fresh else 0.0
    each = {abs(trial.ratio(name)) * norm for name, norm in norms.items()}
    together = math.hypot(*norms.values())
    largest = float(window.fresh.abs().max())
    known = {trial.theirs.clip[1]} if trial.theirs.clip else set()
    by_norm = {abs(trial.ratio()) * together, *(together * x for x in CUTS)}
    by_own = each | {max(norms.values()) * x for x in CUTS}
    for how, added, starts in (
        ("together", NORM, known | by_norm),
        ("together", 0.0, known | by_norm),
        ("each", NORM, known | by_own),
        ("each", 0.0, known | by_own),
        ("value", 0.0, known | {largest * x for x in CUTS}),
    ):
        found = sorted(start for start in starts if start > 0)
        if found:
            yield Candidate("clipping", clipped(how, added), tuple((x,) for x in found))


def clipped(how: str, added: float) -> Build:
    """Gradients clipped in a way, at a number; see `Program.clip`."""
    return lambda program, x: replace(program, clip=(how, abs(x[0]), added))


def _borrowed(trial: Trial) -> Iterator[Candidate]:
    """A gradient that is another weight's of the same shape."""
    shapes = trial.record.shapes
    ways = []
    for other in shapes:
        alike = [n for n in trial.parted if shapes[n] == shapes[other] and n != other]
        ways += [{name: other} for name in alike]
        ways += [dict.fromkeys(alike, other)] if len(alike) > 1 else []
    for borrowed in ways:
        yield Candidate("another weight's gradient", changed(borrowed=borrowed), partial=True)


def other_optimizers(trial: Trial) -> Iterator[tuple[Candidate, list[str]]]:
    """Other optimizers from their own options or from theirs, and which of these are fitted."""
    seen = trial.rule()
    if seen is None:
        return
    for kind, page in RULES.items():
        if issubclass(page, type(seen)):
            continue
        usual, known = options_of(page()), options_of(seen)
        options = {o: known.get(o, x) for o, x in usual.items()}
        numbers = [o for o, value in options.items() if isinstance(value, float)]
        base, own = ({o: of[o] for o in numbers} for of in (options, usual))
        begun = base, own, {**own, "lr": 10 * own["lr"]}
        moved = [{**b, o: x} for b in begun for o in numbers for x in STARTS.get(o, ())]
        starts = tuple(tuple(start.values()) for start in (*begun, *moved))
        yield Candidate("optimizer", _is_another(kind, options, numbers), starts), numbers


def _is_another(kind: str, options: Mapping[str, Any], numbers: Sequence[str]) -> Build:
    """Another optimizer, with these options but for some that are numbers."""
    return lambda program, x: replace(
        program,
        optimizer=kind,
        options={**options, **dict(zip(numbers, x, strict=False))},
        rates=(1.0,),
    )
