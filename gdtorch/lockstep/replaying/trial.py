"""A trial: the steps of mine that are to be explained, and what an edit of theirs leaves."""

from __future__ import annotations

__all__ = ["SECONDS", "Build", "Candidate", "Fitted", "Trial", "changed", "edited", "share"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...optimizers import Rule
from ..gradients.breaks import Break
from .record import Record
from .replay import IMPOSSIBLE, SMALLEST, Program, Replay

SCREEN = 12  # steps from the first that differs on, by which numbers are fitted first
ELEMENTS = 256  # by which they are fitted first
NEARLY = 1e4  # roundings
RARELY = 0.1  # of the elements of all steps
A_LITTLE = 2  # roundings, which may be left
SELDOM = 3e-4  # of the elements of all steps, in which they may
FAR = 100  # roundings, beyond which a step is surely another one
BEYOND = 10  # times the rounding of a sample, times elements in all for one of the sample
SECONDS = 2.5  # of this thread, so that a busy machine finds as much; for each kind of search
FITTED = 2  # starts from which the numbers of an edit are fitted

Build = Callable[[Program, Sequence[float]], Program]  # numbers → a program edited


@dataclass(frozen=True)
class Candidate:
    """An edit to try: a program and numbers → the program edited, and where numbers begin."""

    cause: str
    build: Build
    starts: tuple[tuple[float, ...], ...] = ((),)
    partial: bool = False  # whether it concerns some weights alone
    broken: Break | None = None  # the mistake in the gradient that it is


@dataclass(frozen=True)
class Fitted:
    """A candidate with its numbers, and the root mean square of what it leaves, in roundings."""

    candidate: Candidate
    numbers: tuple[float, ...] = ()
    left: float = 0.0

    def wide(self) -> tuple[tuple[float, ...], ...]:
        """Numbers to begin with beside another edit; alone, some may have made up for it."""
        return tuple(dict.fromkeys((self.numbers, *self.candidate.starts)))

    def apply(self, program: Program) -> Program:
        """The program edited."""
        return self.candidate.build(program, self.numbers)


def changed(**changes: Any) -> Build:  # noqa: ANN401
    """Other fields of a program."""

    def build(program: Program, _: Sequence[float]) -> Program:
        return replace(program, **changes)

    return build


def edited(program: Program, edits: Sequence[Fitted]) -> Program:
    """A program with all of some edits."""
    for edit in edits:
        program = edit.apply(program)
    return program


def share(one: Tensor, other: Tensor) -> Tensor:
    """How many times the other one it is, by least squares."""
    return one @ other / other.square().sum().clamp(min=SMALLEST)


class Trial:
    """Theirs as a program, and the steps that its edits are tried on.

    Args:
        record: what was kept.
        theirs: the program to edit.
        of_theirs: whether theirs' own steps are to be found, and not mine's.

    Attributes:
        all: the replay of all steps.
        worst: the most that theirs leaves in them, in roundings.
        step: the first step that rounding does not explain; None, and nothing below, without one.
        window: the replay of the steps that are looked at.
        small: the same of few steps and elements, by which numbers are fitted.
        parted: the weights that rounding does not explain.
        agreeing: those that it does, though they move.
        same: whether mine's gradients are theirs.
        sees_mine: whether mine's gradients were seen, and an edit has to give them.
        sees_mines_rules: whether its optimizer was seen as well.
        tried: how many edits were tried.
    """

    def __init__(self, record: Record, theirs: Program, *, of_theirs: bool = False) -> None:
        self.record, self.theirs, self.of_theirs = record, theirs, of_theirs
        self.sees_mine = record.sees_mine and not of_theirs and not theirs.own
        self.sees_mines_rules = record.sees_mines_rules and self.sees_mine
        self.same = theirs.own
        self.tried = 0
        self.all = Replay(record, theirs, of_theirs=of_theirs)
        missed = self.all.missed(theirs)
        self.worst = float(missed.max())
        # Rounding is measured, not bounded: in so many steps, one of them goes a little beyond.
        seldom = float((missed > 1).double().mean()) < SELDOM
        beyond = missed > (A_LITTLE if seldom else 1)
        steps = beyond.any(dim=1).nonzero().flatten().tolist()
        self.step = steps[0] if steps else None
        if self.step is None:
            return
        last = min(self.step + record.window, record.runaway(self.step + 1))
        self.same |= self.sees_mine and record.same_gradients(self.step, last)
        self.window = Replay(record, theirs, last=last, of_theirs=of_theirs)
        missed = self.window.missed(theirs)
        moves = self.window.predict(theirs) != self.window.before
        of = {name: self.window.of(name) for name in self.window.names}
        self.parted = tuple(n for n in of if (missed[:, of[n]] > 1).any())
        self.agreeing = tuple(n for n in of if n not in self.parted and moves[:, of[n]].any())
        chosen = _telling(missed.amax(dim=0))
        screen = min(last, self.step + SCREEN)
        self.small = Replay(record, theirs, screen, chosen, of_theirs=of_theirs)

    @property
    def first(self) -> int:
        """The first step that rounding does not explain, from 0."""
        return self.step or 0

    def beyond(self) -> tuple[int, str] | None:
        """The first step in which elements outside the sample differ, and their weight."""
        record, noise = self.record, self.all.noise
        rounding = {name: noise[:, self.all.of(name)].amax(dim=1) for name in record.parts}
        for number, step in enumerate(record.steps):
            for name, places in record.places.items():
                times = BEYOND * math.prod(record.shapes[name]) / len(places)
                if step.apart.get(name, 0.0) > times * rounding[name][number]:
                    return number + 1, name
        return None

    def rule(self, name: str = "") -> Rule | None:
        """The first rule by which theirs steps a weight, or any."""
        rules = self.window.rules(self.theirs, name or self.window.names[0])
        return next(filter(None, rules), None)

    def ratio(self, name: str | None = None) -> float:
        """Mine's first parted update over theirs, by least squares, in one weight or in all."""
        where = slice(None) if name is None else self.window.of(name)
        before = self.window.before[self.first, where]
        made = self.window.predict(self.theirs)[self.first, where] - before
        mine = self.window.after[self.first, where] - before
        return float(mine @ made / (made @ made)) if made.any() else 1.0

    def holds(self, *fitted: Fitted) -> bool:
        """Whether theirs with these edits takes mine's steps to rounding."""
        return self.largest(*fitted) <= 1

    def largest(self, *fitted: Fitted) -> float:
        """The most that theirs with these edits leaves, in roundings."""
        program, left = edited(self.theirs, fitted), math.inf
        try:
            if self.sees_mines_rules and not self.window.has_mines_gradients(program):
                return math.inf
            for replay in (self.small, self.window):  # the small one refuses most, and is quick
                missed = replay.missed(program)
                left, far = float(missed.max()), float((missed > NEARLY).double().mean())
                if left > 1 and far < RARELY:  # the edited program may round by more
                    noise = replay.rounding(program)
                    if replay.tells(noise):
                        left = float(replay.missed(program, noise).max())
                if left > 1:
                    break
        except IMPOSSIBLE:
            return math.inf
        return left

    def ends(self, program: Program, count: int) -> int | None:
        """The step, if any, from which theirs with edits of its rule no longer does as mine.

        Of mistakes in the gradient, and of schedules, nothing is known beyond the window.

        Args:
            program: theirs with these edits.
            count: in how many steps it has been shown to do as mine.
        """
        nothing_left = count == len(self.all.steps)
        if nothing_left or program.broken or program.scales or len(program.rates) > 1:
            return None
        try:
            missed = self.all.missed(program)[count : self.record.runaway(count)]
        except IMPOSSIBLE:  # with the options that theirs has there
            return None
        later = (missed > FAR).any(dim=1).nonzero().flatten().tolist()
        return count + later[0] + 1 if later else None

    def left(self, fitted: Fitted) -> float:
        """The root mean square of what it leaves in a few steps and elements, in roundings."""
        try:
            return self.small.left(fitted.apply(self.theirs))
        except IMPOSSIBLE:
            return math.inf

    def fit(self, candidate: Candidate, replay: Replay | None = None) -> Fitted:
        """A candidate with the numbers that leave the least, in few steps or in those given."""
        replay = replay or self.small
        self.tried += replay is self.small
        best = Fitted(candidate, candidate.starts[0], math.inf)
        for start in self._promising(candidate):
            numbers, left = replay.fit(lambda x: candidate.build(self.theirs, x), start)
            if left < best.left:
                best = Fitted(candidate, tuple(numbers), left)
            if left < 1:
                break
        return best

    def _promising(self, candidate: Candidate) -> Sequence[tuple[float, ...]]:
        """Of many numbers to begin with those that leave the least, first."""
        if len(candidate.starts) <= FITTED:
            return candidate.starts
        left = {x: self.left(Fitted(candidate, x)) for x in candidate.starts}
        return sorted(candidate.starts, key=left.__getitem__)[:FITTED]


def _telling(missed: Tensor) -> Tensor:
    """Elements to fit by: the half of them that differs most, and an even half."""
    if len(missed) <= ELEMENTS:
        return torch.arange(len(missed))
    even = torch.linspace(0, len(missed) - 1, ELEMENTS // 2).round().long()
    most: Tensor = torch.cat([even, missed.topk(ELEMENTS // 2).indices]).unique()
    return most
