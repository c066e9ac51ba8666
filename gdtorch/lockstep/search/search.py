"""The search for the smallest edit with which theirs takes mine's steps.

First come single edits of the rule and of the loop, then mistakes in the gradient, then two edits
at a time, another optimizer, another edit beside a schedule, two mistakes in the gradient, and
another loss.
"""

from __future__ import annotations

__all__ = ["SECONDS_OF_BREAKS", "Finding", "find", "search"]

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..replaying.record import LEAST, Record, has_page
from ..replaying.replay import Program
from ..replaying.schedules import near
from ..replaying.trial import SECONDS, Build, Candidate, Fitted, Trial, changed, edited, share
from . import candidates, rates
from .averages import hidden_decay
from .candidates import cause_of
from .losses import any_multiple, by_outputs, by_terms
from .plainness import (
    LIMITS,
    WHOLE,
    is_a_limit,
    is_round,
    order,
    plain_cause,
    rank,
    rounded,
)
from .screening import Progress, Screening, left_at_any_rate, silent

SECONDS_OF_BREAKS = 30.0
ROUNDER = 1.0  # seconds in which a pair of rounder numbers is looked for
LIKELY = 100  # pairs of other edits that are tried
SLIPS = 8  # in theirs' rule, that are tried with another edit
RIDGE = 1e-12  # of least squares, for vectors that are nearly the same
WEAK = 4  # roundings: a smaller difference tells no cause from another
WEAK_UPDATES = 10  # the same, where theirs' updates are all that is known of its rounding
FEW = 3  # steps, from the first that differs on, which cannot tell a memory from a decay
AT_ONCE = {  # causes that the first such steps show whole
    *("sign", "scale", "scale of one weight", "gradients not zeroed", "weight that never moves"),
}
NO_SCHEDULE = {"ASGD", "Rprop"}  # which look at lr in their first step alone

Edits = tuple[Fitted, ...]
# With all that mine makes of its gradients, as its optimizer was given them.
MINES_GRADIENTS = Fitted(
    Candidate("", lambda p, _: replace(p, own=True, clip=None, adds_up="never"))
)
MINES_RULE = Fitted(Candidate("optimizer", changed(mines_rule=True)))


@dataclass(frozen=True)
class Finding:
    """What the search has found.

    Args:
        trial: what was to be explained.
        edits: those that take mine's steps, one or two each, the plainest first; and others that do
            the same. Empty where there are none.
        looked: how many mistakes in the gradient were tried, and of how many, where time was up.
        whole: the trial of all steps, where the edits take only the first of mine's.
        errors: where rounding hides it in each step, and the mean of many shows it, from how many
            standard errors it is known.
    """

    trial: Trial
    edits: Sequence[Edits] = ()
    looked: tuple[int, int] | None = None
    whole: Trial | None = None
    errors: float = 0.0

    @property
    def ends(self) -> int | None:
        """The step from which the plainest edits no longer take mine's steps, if any does."""
        trial = self.whole or self.trial
        return trial.ends(self.program, len(self.trial.window.steps))

    @property
    def program(self) -> Program:
        """Theirs with the plainest edits."""
        return edited(self.trial.theirs, self.edits[0] if self.edits else ())

    @property
    def causes(self) -> tuple[str, ...]:
        """The words for them, the first one the report's."""
        return tuple(filter(None, map(plain_cause, self.edits[0] if self.edits else ())))

    @property
    def weak(self) -> bool:
        """Whether the difference is hardly more than rounding, so that much would explain it."""
        return self.trial.worst < (WEAK_UPDATES if self.trial.record.bare else WEAK)

    @property
    def unclear(self) -> list[str]:
        """The words for all edits, where so few steps cannot tell them apart; else none."""
        causes = {one.candidate.cause for edits in self.edits for one in edits}
        several = len(self.edits if self.trial.record.bare else causes) > 1
        few = self.edits and len(self.trial.window.steps) - self.trial.first < FEW
        return sorted(causes) if few and several and self.causes[0] not in AT_ONCE else []


def find(
    record: Record,
    theirs: Program,
    seconds: float = SECONDS_OF_BREAKS,
    progress: Progress = silent,
) -> Finding:
    """What makes theirs' steps mine's.

    Args:
        record: what was kept of both.
        theirs: the program that theirs was seen to be.
        seconds: how long to look for mistakes in the gradient.
        progress: called with how many of these were tried, and how many there are.
    """
    trial = Trial(record.rounded_as_mine(), theirs)
    if Finding(trial).weak and (decay := hidden_decay(trial)):
        return Finding(trial, [(decay[0],)], errors=decay[1])
    if trial.step is None:
        return Finding(trial)
    found = Finding(trial, *search(trial, seconds, progress))
    few = trial.first + LEAST
    if found.edits or record.bare or len(trial.window.steps) < few + LEAST:
        return found
    begun = Trial(trial.record.until(few + 1), theirs)
    edits = _rounded(map(begun.fit, candidates.singles(begun)), begun)
    return Finding(begun, edits, whole=trial) if edits else found


def search(
    trial: Trial, seconds: float = 0.0, progress: Progress = silent
) -> tuple[list[Edits], tuple[int, int] | None]:
    """The smallest edits that take mine's steps, alike ones all.

    Args:
        trial: what is to be explained.
        seconds: how long to look for mistakes in the gradient.
        progress: called with how many of these were tried, and how many there are.

    Returns:
        The edits, none where none is found; and how many mistakes in the gradient were tried, of
        how many, where time was up.
    """
    if trial.record.bare:
        return _of_updates(trial), None
    singles = [trial.fit(candidate) for candidate in candidates.singles(trial)]
    found = _rounded(singles, trial)
    if not found and trial.agreeing:  # then no edit of all weights can be the cause
        singles = [one for one in singles if one.candidate.partial]
    schedule = None if found else rates.schedule(trial, trial.theirs)
    of_each_step = _each([schedule] if schedule else [], trial)
    if schedule and of_each_step and rates.is_of_lr(trial, schedule):
        found = of_each_step
    if not found:
        slips, several = _slips(trial), [*map(trial.fit, candidates.decays(trial))]
        found = _each(slips, trial) or _rounded(several, trial)
        singles += [*slips, *several]
    factors = {edits[0].candidate.cause for edits in found} <= {"scale of one weight", "lr"}
    looking = factors and not trial.of_theirs and not trial.same
    terms = by_terms(trial) if looking else []
    singles += terms
    held = [edits for edits in _each(terms, trial) if not any_multiple(trial, *edits)]
    screening = Screening(trial, seconds if looking and not held else None, progress)
    broken = screening.least()
    # One mistake that leaves the other weights right is plainer than some factors.
    plain = [one for one in broken if not (found and one.candidate.partial)]
    found = [*held, *_each(plain, trial), *found]
    found = found or _first_of(_two_edits(trial, screening, [*singles, *broken]))
    # Some pairs of options make one rule of another: then that one is the plainer word.
    of = LIMITS if found and len(found[0]) > 1 else WHOLE
    if not trial.agreeing and (not found or is_a_limit(trial, *found[0], of=of)):
        found = _other_optimizer(trial) or found
    found = found or _first_of(_last(trial, screening, [*singles, *broken], of_each_step))
    return found, screening.looked


def _first_of(ways: Iterator[list[Edits]]) -> list[Edits]:
    """What the first way finds that finds anything."""
    return next(filter(None, ways), [])


def _two_edits(
    trial: Trial, screening: Screening, singles: Sequence[Fitted]
) -> Iterator[list[Edits]]:
    """What is tried where one edit alone does not do."""
    yield _now_and_then(trial)
    yield _clipped_multiple(trial)
    yield _as_seen_in_mine(trial)
    yield _each(screening.scaled_data(), trial)
    yield _pairs(trial, singles)
    yield rates.scales(trial)


def _last(
    trial: Trial, screening: Screening, singles: Sequence[Fitted], of_each_step: list[Edits]
) -> Iterator[list[Edits]]:
    """What is tried where no optimizer does either.

    Args:
        trial: what is to be explained.
        screening: of mistakes in the gradient.
        singles: single edits, none of which does alone.
        of_each_step: a schedule that takes mine's steps, if one does.
    """
    if not trial.agreeing and type(trial.rule()).__name__ not in NO_SCHEDULE:
        yield rates.beside(trial, singles, SECONDS)
        yield of_each_step  # without a shape, too: no other edit makes each step a multiple
    yield _each(screening.two_at_a_time(), trial)
    yield _each(screening.reordered(), trial)
    yield [(one,) for one in by_outputs(trial)]
    yield _beside_mines_gradients(trial)


def _rounded(edits: Iterable[Fitted], trial: Trial) -> list[Edits]:
    """Those that take mine's steps, with round numbers, the plainest first."""
    found = _each([rounded(trial, one) for one in edits], trial)
    return sorted(found, key=lambda edits: order(trial, *edits))


def _slips(trial: Trial) -> list[Fitted]:
    """Theirs' rule with one slip in it: those that leave the least, at any rate."""
    tried = [Fitted(one) for one in candidates.mutated(trial)]
    left = [(left_at_any_rate(trial.small, one.apply(trial.theirs)), one) for one in tried]
    trial.tried += len(tried)
    left.sort(key=lambda pair: pair[0])
    return [replace(one, left=rest) for rest, one in left[:SLIPS]]


def _each(edits: Iterable[Fitted], trial: Trial) -> list[Edits]:
    """Those that take mine's steps, each by itself."""
    return [(one,) for one in edits if trial.holds(one)]


def _of_updates(trial: Trial) -> list[Edits]:
    """What can be told from theirs' updates alone, whatever rule has made them."""
    singles = [trial.fit(candidate) for candidate in candidates.of_updates(trial)]
    schedule = rates.schedule(trial, trial.theirs)
    tried = [rounded(trial, one) for one in singles]
    if schedule and len({*schedule.numbers}) > 1:  # else it is a factor
        tried.append(schedule)
    holding = sorted(filter(trial.holds, tried), key=partial(order, trial))
    holding.sort(key=lambda one: not _is_shown(trial, one))
    if holding and _is_shown(trial, holding[0]):
        return [(one,) for one in holding]
    of = {one.candidate.cause: one for one in singles}
    pairs = (of["scale"], of["weight decay"]), (of["momentum"], of["dampening"])
    held = (pair for pair in _that_hold(trial, pairs, SECONDS) if _is_shown(trial, *pair))
    return [*itertools.islice(held, 1)]


def _is_shown(trial: Trial, *edits: Fitted) -> bool:
    """Whether edits that hold explain more numbers than they have; a factor of all need not."""
    numbers = sum(len(one.numbers) for one in edits if one.candidate.cause != "scale")
    dampening = (x for one in edits if one.candidate.cause == "dampening" for x in one.numbers)
    if not all(0 < share < 1 for share in dampening):
        return False
    return int((trial.window.apart > trial.window.noise).sum()) > numbers


def _now_and_then(trial: Trial) -> list[Edits]:
    """What mine does once in several steps, as at the end of an epoch."""
    tried = (Fitted(one) for one in candidates.now_and_then(trial))
    return [*itertools.islice(((one,) for one in tried if trial.holds(one)), 1)]


def _clipped_multiple(trial: Trial) -> list[Edits]:
    """Mine's loss is a multiple of theirs, as its gradients show, and clipped by their norm."""
    shares, levels = [], []
    for step in trial.window.steps:
        if not trial.sees_mine or step.raw is None or step.given is None:
            return []
        ratio = share(step.raw, step.fresh)
        if not trial.record.same(step.raw, ratio * step.fresh):
            return []
        shares.append(float(ratio))
        levels.append(float(share(step.given, step.fresh)) * math.hypot(*step.norms.values()))
    if not near(shares, shares[:1] * len(shares)) or near(shares, [1.0] * len(shares)):
        return []
    times = float(f"{shares[0]:.6g}")
    scale = Fitted(Candidate("scale", candidates.scale), (times,))
    level = float(f"{max(levels):.6g}")
    for added in (candidates.NORM, 0.0):
        clip = Candidate("clipping", candidates.clipped("together", added))
        edits = scale, Fitted(clip, (level,))
        if trial.holds(*edits):
            return [edits]
    return []


def _as_seen_in_mine(trial: Trial) -> list[Edits]:
    """Mine's gradients, or else its optimizer, as they were seen, in the place of theirs."""
    if trial.sees_mine and trial.holds(MINES_GRADIENTS):
        return [(MINES_GRADIENTS,)]
    rules = trial.record.steps[trial.first].rules_of_mine
    known = all(n in rules and has_page(rules[n][0]) for n in trial.parted)
    return [(MINES_RULE,)] if known and not trial.of_theirs and trial.holds(MINES_RULE) else []


def _beside_mines_gradients(trial: Trial) -> list[Edits]:
    """What mine's optimizer makes of mine's gradients otherwise than theirs would."""
    if not trial.sees_mine or trial.same:
        return []
    inner = Trial(trial.record, MINES_GRADIENTS.apply(trial.theirs))
    found = [] if inner.step is None else search(inner)[0]
    return [(MINES_GRADIENTS, *edits) for edits in found]


def _other_optimizer(trial: Trial) -> list[Edits]:
    """Another optimizer, with all of its numbers fitted."""
    deadline = time.thread_time() + SECONDS
    for candidate, numbers in candidates.other_optimizers(trial):
        if time.thread_time() > deadline:
            break
        fitted = rounded(trial, trial.fit(candidate), [*map(cause_of, numbers)])
        keeps_all = WHOLE & {o for o, x in zip(numbers, fitted.numbers, strict=True) if x == 1}
        if trial.holds(fitted) and not keeps_all:
            return [(fitted,)]
    return []


def _pairs(trial: Trial, singles: Sequence[Fitted]) -> list[Edits]:
    """Two edits at a time: the first that hold, or others with rounder numbers."""
    pairs = _likely(trial, singles)
    fixed = [pair for pair in pairs if not any(map(_takes_long, pair))]
    # What another edit does is not seen while theirs still clips what mine does not.
    undone = [pair for pair in pairs if any(_undoes(one, trial.theirs) for one in pair)]
    ways = (_that_hold(trial, some, SECONDS) for some in (undone, [*fixed, *pairs[:LIKELY]]))
    found = next(itertools.chain.from_iterable(ways), None)
    if found is None or all(map(is_round, found)):
        return [found] if found else []
    # A number that is not round may have made up for another edit.
    kept = {id(edit.candidate) for edit in found if is_round(edit)}
    others = [pair for pair in pairs if kept & {id(one.candidate) for one in pair}]
    rounder = (pair for pair in _that_hold(trial, others, ROUNDER) if all(map(is_round, pair)))
    return [next(rounder, found)]


def _undoes(edit: Fitted, theirs: Program) -> bool:
    """Whether theirs, with an edit, no longer clips its gradients, or adds them up."""
    made = edit.apply(theirs)
    clips = theirs.clip is not None and made.clip is None
    return clips or (theirs.adds_up != "never" and made.adds_up == "never")


def _takes_long(edit: Fitted) -> bool:
    """Whether an edit has numbers to fit, or is one of very many."""
    return bool(edit.numbers) or edit.candidate.cause == "update rule"


def _likely(trial: Trial, singles: Sequence[Fitted]) -> list[tuple[Fitted, Fitted]]:
    """Pairs of edits, those first whose changes of theirs' steps nearly add up to mine's.

    How nearly is told to first order, by least squares: each change may be taken any number of
    times, and the numbers of both edits may move.
    """
    replay = trial.small

    def missed(*edits: Fitted) -> Tensor | None:
        return replay.rest(lambda _: edited(trial.theirs, edits), torch.zeros(0))

    rest = missed()
    if rest is None:
        return []
    shown: list[tuple[Fitted, Tensor]] = []  # with its change, and that by each of its numbers
    mute = []
    for one in sorted(singles, key=lambda one: rank(one.left, one)):
        there, slopes = missed(one), None
        if there is not None and one.numbers:
            build = partial(one.candidate.build, trial.theirs)
            numbers = torch.tensor(one.numbers, dtype=torch.float64)
            slopes = replay.jacobian(build, numbers, there)
        if there is None or (slopes is None and torch.equal(there, rest)):
            mute.append(one)
        else:
            rows = [there - rest, *(() if slopes is None else slopes.T)]
            shown.append((one, torch.stack(rows)))
    pairs = [
        (one, two, _left_by(rest, changes, others))
        for (one, changes), (two, others) in itertools.combinations(shown, 2)
    ]
    for (one, changes), two in itertools.product(shown, mute):
        # It may show beside the first, as dampening does beside momentum; or in later steps.
        both = missed(one, two)
        if both is not None:
            other = both - rest - changes[0]
            pairs.append((one, two, _left_by(rest, changes, other[None])))
    pairs.sort(key=lambda pair: rank(pair[2], *pair[:2]))
    return [(one, two) for one, two, _ in pairs]


def _left_by(rest: Tensor, *changes: Tensor) -> float:
    """The size of what is left of a vector by the rows of matrices, each with any factor."""
    basis = torch.nn.functional.normalize(torch.cat(changes))
    along, size = basis @ rest, float(rest @ rest)
    gram = basis @ basis.T + RIDGE * torch.eye(len(basis), dtype=basis.dtype)
    made = float(along @ torch.linalg.solve(gram, along))
    return math.sqrt(max(RIDGE * size, size - made))


def _that_hold(
    trial: Trial, pairs: Iterable[tuple[Fitted, Fitted]], seconds: float
) -> Iterator[Edits]:
    """Pairs that take mine's steps, or the one of them that does alone, until time is up."""
    deadline = time.thread_time() + seconds
    for one, two in pairs:
        if time.thread_time() > deadline:
            break
        count = len(one.numbers)
        causes = [e.candidate.cause for e in (one, two) for _ in e.numbers]
        build = _one_after_the_other(one.candidate.build, two.candidate.build, count)
        starts = tuple(a + b for a, b in itertools.product(one.wide(), two.wide()))
        fitted = rounded(trial, trial.fit(Candidate("", build, starts)), causes)
        if trial.holds(fitted):
            numbers = fitted.numbers
            pair = replace(one, numbers=numbers[:count]), replace(two, numbers=numbers[count:])
            alone = [(part,) for part in pair if trial.holds(part)]
            if alone:  # its numbers were found beside the other edit
                yield alone[0]
            else:  # that a part of each fresh gradient is left out is the plainer word
                yield pair[::-1] if two.candidate.cause == "dampening" else pair


def _one_after_the_other(one: Build, two: Build, count: int) -> Build:
    """Two edits, the first one with so many of the numbers."""
    return lambda program, x: two(one(program, x[:count]), x[count:])
