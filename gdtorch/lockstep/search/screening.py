"""Of the many mistakes that a gradient may have: those that leave the least of mine's steps."""

from __future__ import annotations

__all__ = ["Progress", "Screening", "left_at_any_rate", "silent"]

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..gradients.breaks import (
    LOOK_AHEAD,
    SHOWN_ELSEWHERE,
    Break,
    breaks,
    constants,
    other_numbers,
    other_rows,
)
from ..replaying.replay import IMPOSSIBLE, Program, Replay
from ..replaying.trial import SECONDS, Build, Candidate, Fitted, Trial, changed, share
from ..rounding import of_gradients
from .losses import any_multiple
from .plainness import NEARLY_HELD, rounded

LATER = 3  # more steps than the first that differs, by which mistakes are screened
BROKEN = 8  # of them, that are tried with another edit
NUDGE = 1e-3  # of a number, by which its derivative is taken
MOST_PAIRS = 3000  # of mistakes in the gradient, that are tried
PARTLY = 3  # mistakes beside which a second one is tried: those that explain the most weights
AT_ANY_RATE = 2  # times what is left, for a mistake that needs another factor as well
ALONG = 1e-6  # of the cosine of two steps that may be the same
MOST_COLUMNS = 12  # of an array, each of which may be scaled otherwise
MOST_SAID = 4  # steps that take the rows of others

Progress = Callable[[int, int], object]


def silent(_tried: int, _of: int) -> None:
    """Nothing is shown of how far the search has come."""


class Screening:
    """Mistakes in the gradient, tried on the first step that differs, then on some more.

    Args:
        trial: what is to be explained.
        seconds: how long to try them; None for not at all.
        progress: called with how many were tried, and how many there are.

    Attributes:
        candidates: the mistakes that change the first step's gradient.
        looked: how many were tried, and of how many, where time was up.
    """

    def __init__(self, trial: Trial, seconds: float | None, progress: Progress) -> None:
        self.trial, self.record, self.progress = trial, trial.record, progress
        self.looked: tuple[int, int] | None = None
        self.until = math.inf  # of this thread's time
        self.candidates: list[Candidate] = []
        if seconds is None:
            return
        self.limit = time.monotonic() + seconds
        tape, true = self.record.tape(trial.first), self.record.gradient(trial.first, None)
        if not tape or true is None:
            return
        if not self.record.same(true, self.record.steps[trial.first].fresh):
            return
        self.true = true
        self.first = Replay(self.record, trial.theirs, trial.first + 1, trial.small.chosen)
        names = {id(parameter): name for name, parameter in self.record.parameters.items()}
        self.candidates = [*self._made(list(breaks(tape, names))), *_ahead(trial)]

    def least(self, candidates: Sequence[Candidate] | None = None) -> list[Fitted]:
        """Of the candidates those that leave the least, the ones that concern all weights first."""
        candidates = self.candidates if candidates is None else candidates
        if not candidates:
            return []
        trial, count = self.trial, len(self.first.steps) + LATER
        few = Replay(self.record, trial.theirs, count, trial.small.chosen)
        left = [(Fitted(candidate), math.nan) for candidate in candidates]
        for replay in (self.first, few, trial.small):
            left = [(one, self._left(replay, one)) for one, _ in left]
            holding = [(one, rest) for one, rest in left if rest <= NEARLY_HELD]
            if not holding:
                break
            left = holding
        # Of those that hold, those that leave the other weights right.
        left.sort(key=lambda pair: (pair[1] > 1, pair[0].candidate.partial, pair[1]))
        found = [replace(one, left=rest) for one, rest in left[:BROKEN]]
        return sorted(found, key=lambda one: one.candidate.partial)

    def _left(self, replay: Replay, fitted: Fitted) -> float:
        """What a mistake leaves; as if it were far too much, once time is up."""
        if time.thread_time() > self.until:
            return math.inf
        return left_at_any_rate(replay, fitted.apply(self.trial.theirs))

    def scaled_data(self) -> list[Fitted]:
        """Theirs with the numbers of an array, of rows or targets, say, multiplied and shifted."""
        trial = self.trial
        found: list[Fitted] = []
        tape = self.record.tape(trial.first)
        if not self.candidates or not tape:
            return []
        last = len(self.first.steps) + LATER
        replay = Replay(self.record, trial.theirs, last, trial.small.chosen)
        replay.small = NUDGE  # what is computed in the weights' own precision needs a larger one
        for (name, place), columns in sorted(constants(tape).items()):
            for count in {1, columns} if columns <= MOST_COLUMNS else {1}:
                build = _with_other_numbers(name, place, count, frozenset(trial.parted))
                candidate = Candidate("other rows", build, ((1.0,) * 2 * count,))
                found += self._scaled(trial.fit(candidate, replay))
        return found

    def _scaled(self, fitted: Fitted) -> Iterator[Fitted]:
        """The same with rounder numbers, if it says more than a factor of the gradient would."""
        trial = self.trial
        made = self.record.gradient(trial.first, fitted.apply(trial.theirs).broken)
        if made is None or self.record.same(made, share(made, self.true) * self.true):
            return
        if fitted.left <= NEARLY_HELD:
            fitted = rounded(trial, fitted)
            if not any_multiple(trial, fitted):
                yield fitted

    def two_at_a_time(self) -> list[Fitted]:
        """Two mistakes at a time, for a while, that leave the least."""
        own = [one for one in self.candidates if one.broken and one.broken.what != "other_rows"]
        if not own:
            return []
        right = {one: self._right_weights(one) for one in own}
        most = sorted((one for one in own if right[one]), key=right.__getitem__, reverse=True)
        # Where one mistake explains some weights, the other one is sought for the rest.
        both = itertools.product(most[:PARTLY], own) if most else itertools.combinations(own, 2)
        two = [
            replace(one.broken, beside=other.broken)
            for other, one in itertools.islice(both, MOST_PAIRS)
            if one.broken
        ]
        looked, self.limit = self.looked, min(self.limit, time.monotonic() + SECONDS)
        self.until = time.thread_time() + 2 * SECONDS
        found = self.least(self._made(two))
        self.looked = looked  # of single ones
        return found

    def reordered(self) -> Iterator[Fitted]:
        """Theirs with the rows in another order: in each step those that go mine's way most."""
        trial, record = self.trial, self.record
        every = range(trial.first, len(trial.window.steps))
        moved = torch.nn.functional.normalize(record.stack("after") - record.stack("before"))
        places: dict[int, int] = {}
        for step in every:
            if trial.agreeing or not self.candidates or time.monotonic() > self.limit + SECONDS:
                return
            taken = record.gradients(step, [other_rows("", {step: other}) for other in every])
            ways = torch.stack([moved[step] if made is None else made for made in taken])
            along = -(torch.nn.functional.normalize(ways) @ moved[step])
            best = along.isclose(along.max(), rtol=0, atol=ALONG)
            if bool(best.all()):
                return  # all have the same rows
            if not best[step - trial.first]:
                places[step] = trial.first + int(best.int().argmax())
        if places:
            pairs = [f"step {place + 1} in step {step + 1}" for step, place in places.items()]
            said = ", ".join([*pairs[:MOST_SAID], *(["…"] if len(pairs) > MOST_SAID else [])])
            yield Fitted(self._candidate(other_rows(f"another one: of {said}", places)))

    def _candidate(self, one: Break, *, partial: bool = False) -> Candidate:
        build = changed(broken=one, spoiled=frozenset(self.trial.parted))
        return Candidate(one.cause, build, ((),), partial, one)

    def _made(self, tried: Sequence[Break]) -> list[Candidate]:
        """Mistakes that change the first step's gradient, each another; until time is up."""
        trial, record, true = self.trial, self.record, self.true
        whole, raw = record.steps[trial.first].whole, None
        if trial.sees_mine and whole and whole.mine:
            raw = record.steps[trial.first].raw  # then no other one can be the cause
        known: dict[tuple[float, ...], Candidate] = {}
        chance = torch.Generator().manual_seed(0)
        # Two gradients are taken for the same where these products are, to rounding.
        onto = torch.randn(len(true), 2, generator=chance, dtype=true.dtype)
        rounding = of_gradients(record.epsilon) * true.norm()
        for number, made in enumerate(record.gradients(trial.first, tried)):
            one = tried[number]
            if time.monotonic() > self.limit or self.progress(number + 1, len(tried)):
                self.looked = self.looked or (number, len(tried))
                break
            if made is None or not self._differs(made, trial.parted):
                continue
            if record.same(made, share(made, true) * true):
                continue  # a factor of the gradient is the plainer word
            if raw is not None and not self._can_be_mines(one, made, raw):
                continue
            trial.tried += 1
            key = tuple((made @ onto / rounding).round().tolist())
            same = known[key].broken if key in known else None
            if same and not (one.breadth < same.breadth and one.in_all() == same.in_all()):
                continue  # unless it is the same in fewer places
            known[key] = self._candidate(one, partial=self._differs(made, trial.agreeing))
            if trial.first == 0:  # else the steps before have it, too, if they do not show it
                self.first.suppose(known[key].build(trial.theirs, ()), {0: made})
        return [*known.values()]

    def _can_be_mines(self, one: Break, made: Tensor, raw: Tensor) -> bool:
        """Whether mine's gradient, which was seen, is the one with this mistake, or a multiple."""
        whole, factor = self.record.steps[self.trial.first].whole, share(raw, made)
        if not whole or not whole.mine or self.record.unlike(factor * made, raw):
            return False
        same = self.record.same_loss(whole.mine.value, float(factor) * whole.tape.value)
        return same or one.alters_loss

    def _right_weights(self, candidate: Candidate) -> int:
        """How many of the weights that have parted a candidate explains in the first step."""
        missed = self.first.missed(candidate.build(self.trial.theirs, ()))[-1]
        return sum(bool((missed[self.first.of(n)] <= 1).all()) for n in self.trial.parted)

    def _differs(self, made: Tensor, names: Sequence[str]) -> bool:
        """Whether a gradient differs from the true one in some of these weights."""
        parts = (self.record.parts[name] for name in names)
        finite = bool(made.isfinite().all())
        return finite and any(not self.record.same(made[part], self.true[part]) for part in parts)


def _with_other_numbers(name: str, place: int, count: int, spoiled: frozenset[str]) -> Build:
    """Multiples of an array or of its columns, and what is added to them: the numbers, less 1."""

    def build(program: Program, numbers: Sequence[float]) -> Program:
        plus = [number - 1 for number in numbers[count:]]
        broken = other_numbers(name, place, numbers[:count], plus)
        return replace(program, broken=broken, spoiled=spoiled)

    return build


def _ahead(trial: Trial) -> Iterator[Candidate]:
    """The gradient at w + μ * v, with the velocity as it is or as Nesterov's papers have it."""
    every = frozenset(trial.record.parts)
    rules = trial.record.steps[trial.first].rules.values()
    if any(options.get("momentum") for _, options in rules):
        yield Candidate("look-ahead", changed(broken=LOOK_AHEAD, spoiled=every))
        elsewhere = changed(broken=SHOWN_ELSEWHERE, spoiled=every)
        yield Candidate(
            "look-ahead", lambda p, x: elsewhere(p, x).with_option("nesterov", value=False)
        )


def left_at_any_rate(replay: Replay, program: Program) -> float:
    """What a program leaves; or more than that with each step as long as fits mine's best.

    A loss that is ½ of a sum where theirs is a mean is often there beside a wrong derivative.
    """
    try:
        left = replay.left(program)
        if left <= 1:
            return left
        return min(left, AT_ANY_RATE * replay.left(replace(program, any_rate=True)))
    except IMPOSSIBLE:
        return math.inf
