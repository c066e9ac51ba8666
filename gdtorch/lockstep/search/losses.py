"""Another loss than theirs: a term of it left out or scaled, weights of rows, targets, all of it.

Mine's gradients are linear in the terms of its loss, and in its derivative by the model's outputs.
That is found by least squares. There must be more equations, one for each element of a gradient,
than unknowns: then it gives mine's steps only if the backward pass from there on is right.
"""

from __future__ import annotations

__all__ = ["any_multiple", "by_outputs", "by_terms"]

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diagnosis import listed
from ..gradients.breaks import Break
from ..observing.tape import Pass
from ..replaying.replay import Program
from ..replaying.trial import A_LITTLE, SCREEN, Build, Candidate, Fitted, Trial, changed
from .plainness import NEARLY_HELD, rounded

MOST = 256  # outputs, of all rows
ELEMENTS = 512  # of the gradients, each of which makes an equation
SPARE = 0.25  # of the unknowns, by which there must be more equations
SURE = 10  # times its error, beyond which a number is another one
DIGITS = 4  # of the weights of rows
FEW = 8  # rows that are said
CHAIN = 3  # functions by which a term is named
TIMES = ((0.0,), (2.0,), (-1.0,))  # multiples of a term that are tried first

LOSS = "has another derivative of its loss by the outputs"
OTHER = "another loss, or with rows that are repeated or left out"
WEIGHTS = "weigh the rows alike: look for a mask, for rows left out, for weights of rows or classes"
TARGETS = "compare the targets of both, row by row, and the derivative"
ANOTHER = "compare where both backward passes begin: the outputs, the targets, the derivative"


@dataclass(frozen=True, eq=False)
class _Known:
    """Gradients that are known: step → gradient, or the sum of two of which one is multiplied."""

    whole: Mapping[int, Tensor]
    part: Mapping[int, Tensor] | None = None
    times: float = 0.0

    def __call__(self, step: int) -> Tensor | None:
        found = self.whole.get(step)
        if found is None or self.part is None:
            return found
        return found + self.times * self.part[step]


def by_terms(trial: Trial) -> list[Fitted]:
    """Theirs with another multiple of each term of its loss, one at a time."""
    record = trial.record
    whole: dict[int, Tensor] = {}
    parts: list[dict[int, Tensor]] = []
    said: list[str] = []
    for step, seen in enumerate(trial.window.steps):
        ran = record.run(step)
        if ran is None:
            return []
        terms = [slot for slot in ran.tape.terms if ran.slopes.get(slot) is not None]
        whole[step], parts = seen.fresh, parts or [{} for _ in terms]
        if len(terms) < 2 or len(terms) != len(parts):
            return []
        for part, slot in zip(parts, terms, strict=True):
            made = ran.through(slot, ran.slopes[slot])
            part[step] = record.sampled(made, record.parameters)
        if step == trial.first:
            said = [f"{_term(ran, slot)} in step {step + 1})" for slot in terms]
    builds = [_with_term(trial, whole, *term) for term in zip(parts, said, strict=True)]
    fits = [trial.fit(Candidate("term of the loss", build, TIMES)) for build in builds]
    return [rounded(trial, one) if one.left <= NEARLY_HELD else one for one in fits]


def any_multiple(trial: Trial, fitted: Fitted) -> bool:
    """Whether a number that is 1 in theirs may as well be twice as far from that."""
    return trial.holds(replace(fitted, numbers=tuple(2 * x - 1 for x in fitted.numbers)))


def _with_term(
    trial: Trial, whole: Mapping[int, Tensor], part: Mapping[int, Tensor], term: str
) -> Build:
    """A multiple of a term: the number."""
    every = frozenset(trial.record.parts)

    def build(program: Program, numbers: Sequence[float]) -> Program:
        (times,) = numbers
        mine, change = f"has {times:.6g} times {term}", f"take the factor {times:.6g} out of it"
        if 0 < times < 1:
            change = f"multiply it by {1 / times:.4g}"
        if times == 0:
            mine, change = f"leaves out {term}", "add it, and what it gives to the gradient"
        elif times == -1:
            mine, change = f"has the other sign before {term}", "turn that sign round"
        known = _Known(whole, part, times - 1)
        broken = Break("term of the loss", mine, change, "known", detail=known)
        return replace(program, broken=broken, spoiled=every)

    return build


def _term(ran: Pass, slot: int) -> str:
    """A term of a loss by its value, and by the functions that make it."""
    names: list[str] = []
    maker = ran.tape.makers.get(slot)
    while maker and len(names) < CHAIN:
        names.append(maker.name)
        slots = maker.slots()
        maker = ran.tape.makers.get(slots[0]) if len(slots) == 1 else None
    value = float(ran.values[slot].detach().sum())
    return f"a term of the loss ({' of '.join(names)}, which is {value:.4g}"


@dataclass(frozen=True)
class _Step:
    """What is known of a step; of some elements of the gradients.

    Args:
        ran: the tape of theirs' loss, run at mine's weights.
        slot: the outputs'.
        slope: the derivative of theirs' loss by the outputs, flat.
        ways: how the gradients depend on it, of shape (elements, outputs).
        mine: mine's gradients.
        off: by how much they may be off.
    """

    ran: Pass
    slot: int
    slope: Tensor
    ways: Tensor
    mine: Tensor
    off: Tensor

    def gradients(self, slope: Tensor) -> dict[int, Tensor]:
        """The gradients that another derivative gives, by the `id` of the parameter."""
        outputs = self.ran.values[self.slot]
        return self.ran.through(self.slot, slope.to(outputs).reshape(outputs.shape))


def by_outputs(trial: Trial) -> list[Fitted]:
    """Theirs with another loss, if it takes mine's steps; the plainest way to say so."""
    # Mine's sums may be of larger numbers than those from which their rounding is taken.
    held = (one for one in _losses(trial) if trial.largest(one) <= A_LITTLE)
    return [*itertools.islice(held, 1)]


def _losses(trial: Trial) -> Iterator[Fitted]:
    """Theirs with other weights of its rows, with other targets, with another loss altogether."""
    steps = _steps(trial)
    if steps and len({one.ran.values[one.slot].shape for one in steps}) == 1:
        yield from _of_the_same_rows(trial, steps)
    others = [one for step in steps if (one := _solved(trial, [step], [step.ways]))]
    if steps and len(others) == len(steps):
        slopes = [one.slope + more for one, (more, _) in zip(steps, others, strict=True)]
        yield _edit(trial, steps, slopes, f"{LOSS}, as with {OTHER}", ANOTHER)


def _of_the_same_rows(trial: Trial, steps: Sequence[_Step]) -> Iterator[Fitted]:
    """What may be the same in each step: the weights of its rows, and the targets."""
    some, slopes = steps[trial.first :][:SCREEN], [one.slope for one in steps]
    rows = len(steps[0].ran.values[steps[0].slot])
    weights = _solved(trial, some, [_by_rows(one, rows) for one in some])
    if weights:
        for by in ((1 + weights[0]).round(decimals=DIGITS) + 0.0, 1 + weights[0]):  # no -0
            each = by.repeat_interleave(len(slopes[0]) // rows)
            said = f"weighs the rows in its loss: {_weights(by.tolist())}"
            yield _edit(trial, steps, [each * slope for slope in slopes], said, WEIGHTS)
    targets = _solved(trial, some, [one.ways for one in some])
    if targets:
        said = f"{LOSS}{_where(*targets, rows)}, off by the same in each step"
        made = [slope + targets[0] for slope in slopes]
        yield _edit(trial, steps, made, f"{said}, as with other targets", TARGETS)


def _edit(
    trial: Trial, steps: Sequence[_Step], slopes: Sequence[Tensor], mine: str, change: str
) -> Fitted:
    """Theirs with these derivatives of its loss by the outputs."""
    known = _Known(
        {
            number: trial.record.sampled(one.gradients(slope), trial.record.parameters)
            for number, (one, slope) in enumerate(zip(steps, slopes, strict=True))
        }
    )
    broken = Break("derivative of the loss", mine, change, "known", detail=known)
    build = changed(broken=broken, spoiled=frozenset(trial.record.parts))
    return Fitted(Candidate(broken.cause, build, broken=broken))


def _steps(trial: Trial) -> list[_Step]:
    """The steps that are looked at; none where mine's gradients or the outputs are not known."""
    record, found = trial.record, []
    grads = _of_mine(trial)
    count = len(trial.window.weight_of)
    chosen = torch.linspace(0, count - 1, min(count, ELEMENTS)).round().long()
    chosen = torch.cat([chosen, trial.small.chosen]).unique()
    for number, (mine, off) in enumerate(grads):
        ran = record.run(number)
        slot = ran.tape.outputs if ran else None
        if ran is None or slot is None:
            return []
        outputs, slope = ran.values[slot], ran.slopes.get(slot)
        if slope is None or not 1 < outputs.numel() <= MOST:
            return []
        slope = slope.flatten().cpu().double()
        one = _Step(ran, slot, slope, slope, mine[chosen], off[chosen])
        made = map(one.gradients, torch.eye(len(slope)))
        ways = [record.sampled(grad, record.parameters)[chosen] for grad in made]
        found.append(replace(one, ways=torch.stack(ways, dim=1)))
    return found


def _of_mine(trial: Trial) -> list[tuple[Tensor, Tensor]]:
    """Mine's gradients in each step, and by how much they may be off; none where none is told.

    Its weights tell them if theirs is SGD, whose steps are linear in them.
    """
    window, theirs = trial.window, trial.theirs
    kinds = {type(rule).__name__ for name in window.names for rule in window.rules(theirs, name)}
    if kinds != {"SGD"} or theirs.clip or theirs.adds_up != "never":
        return []
    shift, found = torch.zeros_like(window.after), []
    for step in range(len(window.steps)):
        nudged = shift.clone()
        nudged[step] = 1
        made, there = window.predict(theirs, torch.stack([shift, nudged]))
        slope = (there - made)[step]
        shift[step] = (window.after - made)[step] / slope
        grads = window.gradients(theirs, shift)[step]
        found.append((grads, window.noise[step] / slope.abs()))
    return found


def _by_rows(step: _Step, rows: int) -> Tensor:
    """How the gradients depend on a weight of each row, of shape (elements, rows)."""
    return (step.ways * step.slope).reshape(len(step.ways), rows, -1).sum(dim=2)


def _solved(
    trial: Trial, steps: Sequence[_Step], ways: Sequence[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """Numbers that give mine's gradients in some steps, the smallest ones, by least squares.

    Args:
        trial: what is to be explained.
        steps: these steps.
        ways: how the gradients depend on the numbers, in each of them.

    Returns:
        The numbers, 0 where mine's are theirs, and how far each may be off: infinitely where they
        are not told apart. None where a step alone has too few equations.
    """
    left = torch.cat([(one.mine - one.ways @ one.slope) / one.off for one in steps])
    made = [way / one.off[:, None] for one, way in zip(steps, ways, strict=True)]
    equations, unknown = int(made[0].any(dim=1).sum()), made[0].shape[1]
    if not bool(left.isfinite().all()) or equations < (1 + SPARE) * unknown:
        return None
    u, sizes, v = torch.linalg.svd(torch.cat(made), full_matrices=False)
    told = sizes > trial.record.epsilon * len(u) * sizes[0]
    inverse = v[told].T / sizes[told]
    numbers = inverse @ (u[:, told].T @ left)
    off = inverse.norm(dim=1) if bool(told.all()) else torch.full_like(numbers, torch.inf)
    return numbers, off


def _weights(weights: Sequence[float]) -> str:
    """The weights of the rows, those of most rows last."""
    rows: dict[str, list[int]] = {}
    for row, weight in enumerate(weights):
        rows.setdefault(f"{weight:.6g}", []).append(row)
    usual = max(rows, key=lambda weight: len(rows[weight]))
    if len(rows) > FEW:
        return f"by {', '.join(f'{weight:.4g}' for weight in weights[:FEW])}, …"
    others = [f"{_rows(some)} by {weight}" for weight, some in rows.items() if weight != usual]
    return f"{', '.join(others)}, the others by {usual} ({len(weights)} rows, counted from 0)"


def _where(numbers: Tensor, off: Tensor, rows: int) -> str:
    """In which rows some numbers, one for each output, are not 0; empty if that is not told."""
    beyond = (numbers.abs() > SURE * off).reshape(rows, -1).any(dim=1)
    some = beyond.nonzero().flatten().tolist()
    known = some and len(some) < rows
    return f" in {_rows(some)} (of {rows}, counted from 0)" if known else ""


def _rows(rows: Sequence[int]) -> str:
    """Rows by their numbers."""
    said = [str(row) for row in rows]
    many = len(said) > FEW
    shown = f"{', '.join(said[:FEW])}, …" if many else listed(said)
    return f"row{'s' * (len(rows) > 1)} {shown}"
