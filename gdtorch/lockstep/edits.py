"""The edits: what people write otherwise, each tried by replaying it, the smallest first."""

from __future__ import annotations

__all__ = ["SECONDS_OF_BREAKS", "Finding", "Progress", "find", "silent", "theirs_program"]

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..optimizers import RULES, Rule
from .breaks import CAUSES as BROKEN_CAUSES
from .breaks import LOOK_AHEAD, SHOWN_ELSEWHERE, Break, breaks, other_rows
from .record import Record, has_page
from .replay import IMPOSSIBLE, SMALLEST, Program, Replay, options_of
from .rounding import of_gradients
from .schedules import is_plain, lr_at

SCREEN = 12  # steps from the first that differs on, by which numbers are fitted first
ELEMENTS = 256  # by which they are fitted first
NEARLY = 1e4  # roundings
RARELY = 0.1  # of the elements of all steps
SCALES = "scale of each step"
NEWTON = 3  # rounds
NUDGE = 1e-4  # of a factor, by which its derivative is taken
NO_SCHEDULE = {"ASGD", "Rprop"}  # which look at lr in their first step alone
A_LITTLE = 2  # roundings, which may be left
SELDOM = 3e-4  # of the elements of all steps, in which they may
WEAK = 4  # roundings: a smaller difference tells no cause from another
WEAK_UPDATES = 10  # the same, where theirs' updates are all that is known of its rounding
FEW = 3  # steps, from the first that differs on, which cannot tell a memory from a decay
AT_ONCE = {  # causes that the first such steps show whole
    *("sign", "scale", "scale of one weight", "gradients not zeroed", "weight that never moves"),
}
BEYOND = 10  # times the rounding of a sample, times elements in all for one of the sample
FACTORS = frozenset({"scale", "scale of one weight", "clipping"})  # whose number is no option's
WHOLE = frozenset({"alpha", "rho"})  # averages that keep all at 1, and so take nothing in
LIMITS = WHOLE | {"eps"}
ALONG = 1e-6  # of the cosine of two steps that may be the same
MOST_SAID = 4  # steps that take the rows of others
MOST_PAIRS = 3000  # of mistakes in the gradient, that are tried
RIDGE = 1e-12  # of least squares, for vectors that are nearly the same
LIKELY = 100  # pairs of other edits that are tried
PARTLY = 3  # mistakes beside which a second one is tried: those that explain the most weights
BROKEN = 8  # mistakes in the gradient that are tried with another edit
NEARLY_HELD = 100  # roundings that a mistake may leave, before its own rounding is looked at
AT_ANY_RATE = 2  # times what is left, for a mistake that needs another factor as well
LESS_PLAIN = 10  # times what it leaves, for a mistake in the gradient beside another edit
ROUNDER = 1.0  # seconds in which a pair of rounder numbers is looked for
FITTED = 2  # starts from which the numbers of an edit are fitted
AS_WELL = 1.5  # times what a fit leaves: the true number leaves 1.3 times as much at most
NOTHING = 1e-4  # below which a number may as well be 0
USUAL = 0.2  # how far a factor that decides little may lie from one of the usual ones
CUTS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)  # of the first gradient, at which it may be clipped
NORM = 1e-6  # that torch.nn.utils.clip_grad_norm_ adds to a norm
CUT = 1e-4  # of a gradient, which has then been clipped
SECONDS = 2.5  # of this thread, so that a busy machine finds as much; for pairs and optimizers
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


ZERO = {  # cause → what a number near 0 may as well be
    **{CAUSES.get(option, option.replace("_", " ")): (0.0,) for option in NONE_AT_0},
    "eps": (1e-8, 1e-10, 1e-6),
}
SECONDS_OF_BREAKS = 30.0
Progress = Callable[[int, int], object]
Build = Callable[[Program, Sequence[float]], Program]  # numbers → a program edited


def silent(_tried: int, _of: int) -> None:
    """Nothing is shown of how far the search has come."""


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
    numbers: tuple[float, ...]
    left: float

    def wide(self) -> tuple[tuple[float, ...], ...]:
        """Numbers to begin with beside another edit; alone, some may have made up for it."""
        return tuple(dict.fromkeys((self.numbers, *self.candidate.starts)))

    def apply(self, program: Program) -> Program:
        """The program edited."""
        return self.candidate.build(program, self.numbers)


@dataclass(frozen=True)
class Finding:
    """What the replay has found.

    Args:
        causes: the words for it, the first one the report's; empty where nothing was found.
        program: theirs with the edits.
        theirs: the program that theirs was seen to be.
        step: the first step that rounding does not explain.
        weights: the weights that show it.
        steps: how many steps the program was shown to take as mine does.
        largest: the most that it leaves in any of them, in roundings.
        agreeing: weights that rounding explains, though they move.
        tried: how many edits were tried.
        weak: whether the difference is hardly more than rounding, so that much would explain it.
        several: the words, where so few steps cannot tell them apart.
        alike: other programs that do the same.
        same: whether mine was seen to have theirs' gradients.
        beyond: the first step in which elements differ that are not in the sample, and the weight.
        looked: how many mistakes in the gradient were tried, and of how many, where time was up.
    """

    causes: tuple[str, ...]
    program: Program
    theirs: Program
    step: int = 0
    weights: tuple[str, ...] = ()
    steps: int = 0
    largest: float = 0.0
    alike: tuple[tuple[str, Program], ...] = ()
    looked: tuple[int, int] | None = None
    same: bool = False
    beyond: tuple[int, str] | None = None
    agreeing: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    tried: int = 0
    weak: bool = False


# With all that mine makes of its gradients, as its optimizer was given them.
MINES_GRADIENTS = Fitted(
    Candidate("", lambda p, _: replace(p, own=True, clip=None, adds_up="never")), (), 0.0
)
MINES_RULE = Fitted(Candidate("optimizer", lambda p, _: replace(p, mines_rule=True)), (), 0.0)


class _Search:
    """The search for a program that takes mine's steps.

    Args:
        record: what was kept.
        theirs: the program to edit.
        of_theirs: whether theirs' own steps are to be found, and not mine's.
        seconds: how long to look for mistakes in the gradient.
        progress: called with how many of these were tried, and how many there are.
    """

    def __init__(
        self,
        record: Record,
        theirs: Program,
        *,
        of_theirs: bool = False,
        seconds: float = 0.0,
        progress: Progress = silent,
    ) -> None:
        self.record, self.theirs, self.of_theirs = record, theirs, of_theirs
        self.seconds, self.progress = seconds, progress
        self.sees_mine = record.sees_mine and not of_theirs and not theirs.own
        self.sees_mines_rules = record.sees_mines_rules and self.sees_mine
        self.same = theirs.own  # whether mine's gradients are theirs
        self.looked: tuple[int, int] | None = None
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
        self.parted = tuple(
            n for n in self.window.names if (missed[:, self.window.of(n)] > 1).any()
        )
        moves = self.window.predict(theirs) != self.window.before
        self.agreeing = tuple(
            n
            for n in self.window.names
            if n not in self.parted and bool(moves[:, self.window.of(n)].any())
        )
        chosen = self._telling(missed.amax(dim=0))
        screen = min(last, self.step + SCREEN)
        self.small = Replay(record, theirs, screen, chosen, of_theirs=of_theirs)

    def _telling(self, missed: Tensor) -> Tensor:
        """Elements to fit by: the half of them that differs most, and an even half."""
        if len(missed) <= ELEMENTS:
            return torch.arange(len(missed))
        even = torch.linspace(0, len(missed) - 1, ELEMENTS // 2).round().long()
        most: Tensor = torch.cat([even, missed.topk(ELEMENTS // 2).indices]).unique()
        return most

    def run(self) -> list[tuple[Fitted, ...]]:
        """The smallest edits that take mine's steps, alike ones all; empty where there are none."""
        self.deadline = time.thread_time() + SECONDS
        if self.record.bare:
            return self._of_updates()
        singles = [self._fit(candidate) for candidate in self._singles()]
        found: list[tuple[Fitted, ...]] = [
            (one,) for one in map(self._rounded, singles) if self.holds(one)
        ]
        found.sort(key=lambda edits: self._plainness(*edits))
        if not found and self.agreeing:  # then no edit of all weights can be the cause
            singles = [fitted for fitted in singles if fitted.candidate.partial]
        if not found and (schedule := self._schedule(self.theirs)) and self.holds(schedule):
            found = [(schedule,)] if self._is_of_lr(schedule) else []
        factors = {edits[0].candidate.cause for edits in found} <= {"scale of one weight", "lr"}
        candidates = [] if not factors or self.of_theirs or self.same else self._candidates()
        if candidates:
            broken = sorted(self._least(candidates), key=lambda one: one.candidate.partial)
            # One mistake that leaves the other weights right is plainer than some factors.
            plain = [one for one in broken if not (found and one.candidate.partial)]
            found = [*((one,) for one in plain if self.holds(one)), *found]
            singles += broken
        if not found:
            found = self._now_and_then() or self._as_seen_in_mine()
        if not found:
            self.deadline = time.thread_time() + SECONDS
            found = self._pairs(singles) or self._scales()
        # Some pairs of options make one rule of another: then that one is the plainer word.
        of = LIMITS if found and len(found[0]) > 1 else WHOLE
        if not self.agreeing and (not found or self._is_a_limit(*found[0], of=of)):
            self.deadline = time.thread_time() + SECONDS
            found = self._others() or found
        if not found and not self.agreeing and type(self._rule()).__name__ not in NO_SCHEDULE:
            self.deadline = time.thread_time() + SECONDS
            found = self._schedules(singles)
        if not found and candidates:
            found = [(one,) for one in self._two_breaks(candidates) if self.holds(one)]
            found = found or [(one,) for one in self._reordered() if self.holds(one)]
        return found or self._beside_mines_gradients()

    def _of_updates(self) -> list[tuple[Fitted, ...]]:
        """Edits that can be told from theirs' updates alone, whatever rule has made them."""
        every = frozenset[str]()
        options = (
            Candidate("momentum", _with("momentum", every), ((0.5,),)),
            Candidate("weight decay", _with("weight_decay", every), ((0.01,),)),
            Candidate("dampening", _with("dampening", every), ((0.5,),)),
        )
        singles = [self._fit(candidate) for candidate in (*self._factors(), *options)]
        schedule = self._schedule(self.theirs)
        rounded = [*map(self._rounded, singles)]
        if schedule and len({*schedule.numbers}) > 1:  # else it is a factor
            rounded.append(schedule)
        holding = sorted(filter(self.holds, rounded), key=self._plainness)
        holding.sort(key=lambda one: not self._is_shown(one))
        if holding and self._is_shown(holding[0]):
            return [(one,) for one in holding]
        of = {one.candidate.cause: one for one in singles}
        pairs = (of["scale"], of["weight decay"]), (of["momentum"], of["dampening"])
        held = (pair for pair in self._that_hold(pairs) if self._is_shown(*pair))
        return [*itertools.islice(held, 1)]

    def _is_shown(self, *edits: Fitted) -> bool:
        """Whether edits that hold explain more numbers than they have; a factor of all need not."""
        numbers = sum(len(one.numbers) for one in edits if one.candidate.cause != "scale")
        dampening = (x for one in edits if one.candidate.cause == "dampening" for x in one.numbers)
        if not all(0 < share < 1 for share in dampening):
            return False
        return int((self.window.apart > self.window.noise).sum()) > numbers

    def _now_and_then(self) -> list[tuple[Fitted, ...]]:
        """What mine does once in several steps, as at the end of an epoch."""
        for steps in range(2, len(self.window.steps) // 2 + 1):  # twice, at least
            for one in (
                Candidate("state reset", _changed(resets=steps)),
                Candidate("gradients not zeroed", _changed(adds_up=steps)),
            ):
                fitted = Fitted(one, (), 0.0)
                if self.holds(fitted):
                    return [(fitted,)]
        return []

    def _as_seen_in_mine(self) -> list[tuple[Fitted, ...]]:
        """Mine's gradients, or else its optimizer, as they were seen, in the place of theirs."""
        if self.sees_mine and self.holds(MINES_GRADIENTS):
            return [(MINES_GRADIENTS,)]
        rules = self.record.steps[self.step or 0].rules_of_mine
        known = all(n in rules and has_page(rules[n][0]) for n in self.parted)
        return [(MINES_RULE,)] if known and not self.of_theirs and self.holds(MINES_RULE) else []

    def _beside_mines_gradients(self) -> list[tuple[Fitted, ...]]:
        """What mine's optimizer makes of mine's gradients otherwise than theirs would."""
        if not self.sees_mine or self.same:
            return []
        search = _Search(self.record, MINES_GRADIENTS.apply(self.theirs))
        found = [] if search.step is None else search.run()
        return [(MINES_GRADIENTS, *edits) for edits in found]

    def _candidates(self) -> list[Candidate]:
        """The mistakes in the gradient that change the first step."""
        first, record = self.step or 0, self.record
        tape, true = record.tape(first), record.gradient(first, None)
        if not tape or true is None or not record.same(true, record.steps[first].fresh):
            return []
        self.limit = time.monotonic() + self.seconds
        self.first = Replay(record, self.theirs, first + 1, self.small.chosen)
        names = {id(parameter): name for name, parameter in record.parameters.items()}
        return [*self._made(list(breaks(tape, names)), true), *self._ahead()]

    def _two_breaks(self, candidates: Sequence[Candidate]) -> list[Fitted]:
        """Two mistakes in the gradient at a time, for a while, that leave the least."""
        own = [one for one in candidates if one.broken and one.broken.what != "other_rows"]
        right = {one: self._right_weights(one) for one in own}
        most = sorted((one for one in own if right[one]), key=right.__getitem__, reverse=True)
        # Where one mistake explains some weights, the other one is sought for the rest.
        both = itertools.product(most[:PARTLY], own) if most else itertools.combinations(own, 2)
        two = [
            replace(one.broken, beside=other.broken)
            for other, one in itertools.islice(both, MOST_PAIRS)
            if one.broken
        ]
        true = self.record.gradient(self.step or 0, None)
        looked, self.limit = self.looked, min(self.limit, time.monotonic() + SECONDS)
        found = self._least(self._made(two, true)) if true is not None else []
        self.looked = looked  # of single ones
        return sorted(found, key=lambda one: one.candidate.partial)

    def _reordered(self) -> Iterator[Fitted]:
        """Theirs with the rows in another order: in each step those that go mine's way most."""
        first, count, record = self.step or 0, len(self.window.steps), self.record
        every = range(first, count)
        moved = torch.nn.functional.normalize(record.stack("after") - record.stack("before"))
        places: dict[int, int] = {}
        for step in every:
            if self.agreeing or time.monotonic() > self.limit + SECONDS:
                return
            taken = record.gradients(step, [other_rows("", {step: other}) for other in every])
            ways = torch.stack([moved[step] if made is None else made for made in taken])
            along = -(torch.nn.functional.normalize(ways) @ moved[step])
            best = along.isclose(along.max(), rtol=0, atol=ALONG)
            if bool(best.all()):
                return  # all have the same rows
            if not best[step - first]:
                places[step] = first + int(best.int().argmax())
        if not places:
            return
        pairs = [f"step {place + 1} in step {step + 1}" for step, place in places.items()]
        said = ", ".join([*pairs[:MOST_SAID], *(["…"] if len(pairs) > MOST_SAID else [])])
        one = other_rows(f"another one: of {said}", places)
        build = _changed(broken=one, spoiled=frozenset(self.parted))
        yield Fitted(Candidate(one.cause, build, ((),), broken=one), (), 0.0)

    def _made(self, tried: Sequence[Break], true: Tensor) -> list[Candidate]:
        """Mistakes that change the first step's gradient, each another; until time is up."""
        first, record = self.step or 0, self.record
        whole = record.steps[first].whole
        # Where mine's own gradient is known, no other one can be the cause.
        raw = record.steps[first].raw if self.sees_mine and whole and whole.mine else None
        known: dict[tuple[float, ...], Candidate] = {}
        chance = torch.Generator().manual_seed(0)
        # Two gradients are taken for the same where these products are, to rounding.
        onto = torch.randn(len(true), 2, generator=chance, dtype=true.dtype)
        rounding = of_gradients(record.epsilon) * true.norm()
        for number, made in enumerate(record.gradients(first, tried)):
            one = tried[number]
            if time.monotonic() > self.limit or self.progress(number + 1, len(tried)):
                self.looked = self.looked or (number, len(tried))
                break
            if made is None or not self._differs(made, true, self.parted):
                continue
            if record.same(made, _share(made, true) * true):
                continue  # a factor of the gradient is the plainer word
            if raw is not None and not self._can_be_mines(one, made, raw):
                continue
            self.tried += 1
            key = tuple((made @ onto / rounding).round().tolist())
            same = known[key].broken if key in known else None
            if same and not (one.breadth < same.breadth and one.in_all() == same.in_all()):
                continue  # unless it is the same in fewer places
            build = _changed(broken=one, spoiled=frozenset(self.parted))
            spoils = self._differs(made, true, self.agreeing)
            known[key] = Candidate(one.cause, build, ((),), spoils, one)
            if first == 0:  # else the steps before have it, too, if they do not show it
                self.first.suppose(build(self.theirs, ()), {first: made})
        return [*known.values()]

    def _can_be_mines(self, one: Break, made: Tensor, raw: Tensor) -> bool:
        """Whether mine's gradient, which was seen, is the one with this mistake, or a multiple."""
        whole, factor = self.record.steps[self.step or 0].whole, _share(raw, made)
        if not whole or not whole.mine or self.record.unlike(factor * made, raw):
            return False
        close = math.sqrt(self.record.epsilon)
        same_loss = math.isclose(
            whole.mine.value, float(factor) * whole.tape.value, rel_tol=close, abs_tol=close
        )
        return same_loss or one.alters_loss

    def _least(self, candidates: Sequence[Candidate]) -> list[Fitted]:
        """The candidates that leave the least."""
        few = Replay(self.record, self.theirs, len(self.first.steps) + FEW, self.small.chosen)
        left = [(Fitted(candidate, (), 0.0), math.nan) for candidate in candidates]
        for replay in (self.first, few, self.small):
            left = [(one, _left_at_any_rate(replay, one.apply(self.theirs))) for one, _ in left]
            holding = [(one, rest) for one, rest in left if rest <= NEARLY_HELD]
            if not holding:
                break
            left = holding
        # Of those that hold, those that leave the other weights right.
        left.sort(key=lambda pair: (pair[1] > 1, pair[0].candidate.partial, pair[1]))
        return [replace(one, left=rest) for one, rest in left[:BROKEN]]

    def _right_weights(self, candidate: Candidate) -> int:
        """How many of the weights that have parted a candidate explains in the first step."""
        missed = self.first.missed(candidate.build(self.theirs, ()))[-1]
        return sum(bool((missed[self.first.of(name)] <= 1).all()) for name in self.parted)

    def _ahead(self) -> Iterator[Candidate]:
        """The gradient at w + μ * v, with the velocity as it is or as Nesterov's papers have it."""
        every = frozenset(self.record.parts)
        rules = self.record.steps[self.step or 0].rules.values()
        if any(options.get("momentum") for _, options in rules):
            yield Candidate("look-ahead", _changed(broken=LOOK_AHEAD, spoiled=every))
            elsewhere = _changed(broken=SHOWN_ELSEWHERE, spoiled=every)
            yield Candidate(
                "look-ahead", lambda p, x: elsewhere(p, x).with_option("nesterov", value=False)
            )

    def _differs(self, made: Tensor, true: Tensor, names: Sequence[str]) -> bool:
        """Whether a gradient differs from the true one in some of these weights."""
        parts = (self.record.parts[name] for name in names)
        finite = bool(made.isfinite().all())
        return finite and any(not self.record.same(made[part], true[part]) for part in parts)

    def _pairs(self, singles: Sequence[Fitted]) -> list[tuple[Fitted, ...]]:
        """Two edits at a time: the first that hold, or others with rounder numbers."""
        pairs = self._likely(singles)
        fixed = [pair for pair in pairs if not any(one.numbers for one in pair)]  # soon tried
        found = next(self._that_hold([*fixed, *pairs[:LIKELY]]), None)
        if found is None or all(map(_is_round, found)):
            return [found] if found else []
        # A number that is not round may have made up for another edit.
        kept = {id(edit.candidate) for edit in found if _is_round(edit)}
        others = [pair for pair in pairs if kept & {id(one.candidate) for one in pair}]
        self.deadline = time.thread_time() + ROUNDER
        rounder = (pair for pair in self._that_hold(others) if all(map(_is_round, pair)))
        return [next(rounder, found)]

    def _likely(self, singles: Sequence[Fitted]) -> list[tuple[Fitted, Fitted]]:
        """Pairs of edits, those first whose changes of theirs' steps nearly add up to mine's.

        How nearly is told to first order, by least squares: each change may be taken any number of
        times, and the numbers of both edits may move.
        """
        replay = self.small

        def missed(*edits: Fitted) -> Tensor | None:
            return replay.rest(lambda _: _edited(self.theirs, edits), torch.zeros(0))

        rest = missed()
        if rest is None:
            return []
        shown: list[tuple[Fitted, Tensor]] = []  # with its change, and that by each of its numbers
        mute = []
        for one in sorted(singles, key=_rank):
            there, slopes = missed(one), None
            if there is not None and one.numbers:
                build = partial(one.candidate.build, self.theirs)
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
        pairs.sort(key=lambda pair: _plainly(pair[2], *pair[:2]))
        return [(one, two) for one, two, _ in pairs]

    def _that_hold(self, pairs: Iterable[tuple[Fitted, Fitted]]) -> Iterator[tuple[Fitted, ...]]:
        """Pairs that take mine's steps, or the one of them that does alone, until time is up."""
        for one, two in pairs:
            if time.thread_time() > self.deadline:
                break
            count = len(one.numbers)
            causes = [e.candidate.cause for e in (one, two) for _ in e.numbers]
            build = _one_after_the_other(one.candidate.build, two.candidate.build, count)
            starts = tuple(a + b for a, b in itertools.product(one.wide(), two.wide()))
            both = Candidate("", build, starts)
            fitted = self._rounded(self._fit(both), causes)
            if self.holds(fitted):
                numbers = fitted.numbers
                pair = replace(one, numbers=numbers[:count]), replace(two, numbers=numbers[count:])
                alone = [(part,) for part in pair if self.holds(part)]
                if alone:  # its numbers were found beside the other edit
                    yield alone[0]
                else:  # that a part of each fresh gradient is left out is the plainer word
                    yield pair[::-1] if two.candidate.cause == "dampening" else pair

    def _others(self) -> list[tuple[Fitted, ...]]:
        """Another optimizer, from its own options or from theirs, with all numbers fitted."""
        seen = self._rule()
        for kind, page in RULES.items():
            if seen is None or issubclass(page, type(seen)) or time.thread_time() > self.deadline:
                continue
            usual, known = options_of(page()), options_of(seen)
            options = {o: known.get(o, x) for o, x in usual.items()}
            numbers = [o for o, value in options.items() if isinstance(value, float)]

            base, own = ({o: of[o] for o in numbers} for of in (options, usual))
            begun = base, own, {**own, "lr": 10 * own["lr"]}
            moved = [{**b, o: x} for b in begun for o in numbers for x in STARTS.get(o, ())]
            starts = tuple(tuple(start.values()) for start in (*begun, *moved))
            candidate = Candidate("optimizer", _is_another(kind, options, numbers), starts)
            causes = [CAUSES.get(o, o.replace("_", " ")) for o in numbers]
            fitted = self._rounded(self._fit(candidate), causes)
            keeps_all = WHOLE & {o for o, x in zip(numbers, fitted.numbers, strict=True) if x == 1}
            if self.holds(fitted) and not keeps_all:
                return [(fitted,)]
        return []

    def _rounded(self, fitted: Fitted, causes: Sequence[str] = ()) -> Fitted:
        """The same with numbers of as few digits as take mine's steps as well.

        Args:
            fitted: what to round.
            causes: to which each number belongs, if not all to its own.
        """
        if not fitted.left <= NEARLY_HELD:  # a fit may follow rounding, and then not hold itself
            return fitted
        if fitted.numbers and not self.holds(fitted):  # what later steps alone tell
            again = self._fit(replace(fitted.candidate, starts=(fitted.numbers,)), self.window)
            fitted = replace(again, left=self._left(again))
            if not self.largest(fitted) <= NEARLY_HELD:
                return fitted
        most = AS_WELL * fitted.left + 0.01
        for digits in range(1, 7):  # all at once, as one may make up for another
            plain = tuple(float(f"{number:.{digits}g}") for number in fitted.numbers)
            rounded = replace(fitted, numbers=plain)
            if self._left(rounded) <= most and self.holds(rounded):
                fitted = rounded
                break
        numbers = list(fitted.numbers)
        for k, number in enumerate(numbers):
            usual = [x for x in self._counts() if math.isclose(x, number, rel_tol=USUAL)]
            if abs(number) < NOTHING:
                usual += ZERO.get(causes[k] if causes else fitted.candidate.cause, ())
            for plainer in (*usual, *(float(f"{number:.{digits}g}") for digits in range(1, 7))):
                numbers[k] = plainer
                rounded = replace(fitted, numbers=tuple(numbers))
                if self._left(rounded) <= most and self.holds(rounded):
                    break
            else:
                numbers[k] = number
        return replace(fitted, numbers=tuple(numbers))

    def _plainness(self, one: Fitted) -> tuple[bool, bool, bool]:
        """Of edits that do the same, the plainest has the least of this.

        A number that may as well be twice as large tells the least; a factor of the gradient less
        than an option, unless it is a usual one; and any number less than a switch.
        """
        factor = one.candidate.cause in FACTORS and one.candidate.cause != "clipping"
        unusual = factor and not set(one.numbers) <= set(self._counts())
        adaptive = type(self._rule()).__name__ not in {"SGD", "ASGD", "NoneType"}
        return self._is_a_limit(one), unusual and adaptive, any(one.numbers)

    def _rule(self, name: str = "") -> Rule | None:
        """The first rule by which theirs steps a weight, or any."""
        return next(
            filter(None, self.window.rules(self.theirs, name or self.window.names[0])), None
        )

    def _counts(self) -> list[float]:
        """Factors that a mean for a sum, or a forgotten ½, may have."""
        rows, *outputs = self.record.reduced or (1,)
        counts: set[float] = {1, rows, math.prod(outputs), rows * math.prod(outputs)}
        counts |= {count / 2 for count in counts}
        return [x for count in counts for x in (float(count), 1 / count) if x != 1]

    def _is_a_limit(self, *edits: Fitted, of: frozenset[str] = FACTORS) -> bool:
        """Whether a number of the edits is only known to be extreme: it can be doubled or halved.

        Of a cause in `of`; what decides nothing is not asked of the others.
        """
        for k, fitted in enumerate(edits):
            if not any(fitted.numbers) or fitted.candidate.cause not in of:
                continue
            if of is FACTORS and set(fitted.numbers) <= set(self._counts()):
                continue
            for by in (0.5, 2.0):
                other = replace(fitted, numbers=tuple(by * x for x in fitted.numbers))
                if self.holds(*edits[:k], other, *edits[k + 1 :]):
                    return True
            if fitted.candidate.cause in WHOLE and fitted.numbers == (1.0,):  # nothing is forgotten
                return True
        return False

    def _left(self, fitted: Fitted) -> float:
        """The root mean square of what it leaves, in roundings."""
        try:
            return self.small.left(fitted.apply(self.theirs))
        except IMPOSSIBLE:
            return math.inf

    def holds(self, *fitted: Fitted) -> bool:
        """Whether theirs with these edits takes mine's steps to rounding."""
        return self.largest(*fitted) <= 1

    def largest(self, *fitted: Fitted) -> float:
        """The most that theirs with these edits leaves, in roundings."""
        program, left = _edited(self.theirs, fitted), math.inf
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

    def _fit(self, candidate: Candidate, replay: Replay | None = None) -> Fitted:
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
        left = {x: self._left(Fitted(candidate, x, math.nan)) for x in candidate.starts}
        return sorted(candidate.starts, key=left.__getitem__)[:FITTED]

    def _singles(self) -> Iterator[Candidate]:
        """Single edits, the plainest first."""
        every = not self.agreeing
        yield from self._factors()
        for adds_up in ("first", "never"):
            if adds_up != self.theirs.adds_up:
                yield Candidate("gradients not zeroed", _changed(adds_up=adds_up))
        yield Candidate("stale gradient", _changed(late=True))
        if self.theirs.clip:
            yield Candidate("clipping", _changed(clip=None))
        yield from self._options(frozenset())
        if not every:
            yield from self._options(frozenset(self.parted))
        yield Candidate("state reset", _changed(resets=1))
        yield from self._around()
        yield from self._clips()
        yield from self._borrowed()

    def _factors(self) -> Iterator[Candidate]:
        """Multiples of theirs' gradient, 0 and −1 among them, and sums of it."""
        still = self._resting(self.window.after - self.window.before)
        if still:
            yield Candidate("weight that never moves", _changed(still=still), partial=True)
        unknown = self._unstepped()
        if unknown:
            yield Candidate("weight that never moves", _changed(free=unknown), partial=True)
        yield Candidate("sign", lambda p, _: replace(p, factor=-p.factor))
        ratio = self._ratio()
        starts = (*(((ratio,),) if ratio else ()), (1.0,), *((x,) for x in self._counts()))
        yield Candidate("scale", lambda p, x: replace(p, factor=p.factor * x[0]), starts)
        yield Candidate("scale", _rate, starts)
        if still != set(self.parted) and (self.agreeing or len(self.parted) > 1):
            yield self._scale_of_some()
        if self.theirs.adds_up != "always":
            yield Candidate("gradients not zeroed", _changed(adds_up="always"))

    def _resting(self, moved: Tensor) -> frozenset[str]:
        """Weights of those parted that do not move at all."""
        return frozenset(n for n in self.parted if not moved[:, self.window.of(n)].any())

    def _unstepped(self) -> frozenset[str]:
        """Weights of those parted that theirs' optimizer never steps, though it does others."""
        stepped = set().union(*(step.rules for step in self.window.steps))
        if not stepped:
            return frozenset()
        made = self.window.predict(self.theirs) - self.window.before
        return self._resting(made) - stepped

    def _options(self, only: frozenset[str]) -> Iterator[Candidate]:
        """Each option and each switch of theirs' rule, for all weights or for some."""
        rule = self._rule(next(iter(only), ""))
        for option, value in options_of(rule).items() if rule else ():
            cause = CAUSES.get(option, option.replace("_", " "))
            if option == "decoupled_weight_decay" and type(rule).__name__ == "SGD":
                cause = "decay outside the velocity"
            if isinstance(value, bool):
                flip = _with(option, only, not value)
                yield Candidate(cause, flip, partial=bool(only))
                if cause == "eps" and type(rule).__name__ != "Adagrad":  # whose v may begin there
                    numbers = tuple((x,) for x in STARTS["eps"])
                    yield Candidate(cause, _with_eps(flip), numbers, partial=bool(only))
            elif option != "lr" or only:  # that of all weights is a scale
                near = (value,) if value else ()
                none = (0.0,) if option in NONE_AT_0 and value else ()
                starts = (*none, *near, *(x for x in STARTS.get(option, ()) if x != value))
                numbers = tuple((x,) for x in starts)
                yield Candidate(cause, _with(option, only), numbers, partial=bool(only))

    def _ratio(self, name: str | None = None) -> float:
        """Mine's first parted update over theirs, by least squares, in one weight or in all."""
        step, where = self.step or 0, slice(None) if name is None else self.window.of(name)
        before = self.window.before[step, where]
        made = self.window.predict(self.theirs)[step, where] - before
        mine = self.window.after[step, where] - before
        return float(mine @ made / (made @ made)) if made.any() else 1.0

    def _scale_of_some(self) -> Candidate:
        names = self.parted

        def build(program: Program, numbers: Sequence[float]) -> Program:
            return replace(program, factors=dict(zip(names, numbers, strict=True)))

        starts = [tuple(map(self._ratio, names))]
        if len(names) == 1:
            starts += [(x,) for x in self._counts()]
        return Candidate("scale of one weight", build, tuple(starts), partial=True)

    def _around(self) -> Iterator[Candidate]:
        """What stands around the rule: when it decays, how its averages begin, how t counts."""
        rule = self._rule()
        if rule and rule.weight_decay:
            yield Candidate("decay after the step", _changed(decays_after=True))
        if type(rule).__name__ in AVERAGED:
            yield Candidate("initial accumulator", _changed(begins=True))
        if type(rule).__name__ in COUNTED:
            yield Candidate("bias correction", _counted, self._counters())

    def _counters(self) -> tuple[tuple[float, float, float], ...]:
        """How t may count: with each weight, not at all, from elsewhere, once in several steps."""
        many = len(self.window.names)
        return (
            *((many, 0, 1), (many, many - 1, -1), (0, 0, 0), (0, 1, 0), (1, 1, 0), (1, -1, 0)),
            *((1 / steps, 0, 0) for steps in range(2, self.record.window)),
        )

    def _clips(self) -> Iterator[Candidate]:
        """Gradients clipped, at what mine's first parted update comes to, or somewhere below."""
        at = self.step or 0
        step, window = self.window.steps[at], self.window
        norms = {}
        for name in window.names:
            of = window.of(name)
            used, fresh = window.used[at, of].norm(), window.fresh[at, of].norm()
            norms[name] = step.norms[name] * float(used / fresh) if fresh else 0.0
        each = {abs(self._ratio(name)) * norm for name, norm in norms.items()}
        together = math.hypot(*norms.values())
        largest = float(window.fresh.abs().max())
        known = {self.theirs.clip[1]} if self.theirs.clip else set()
        by_norm = {abs(self._ratio()) * together, *(together * x for x in CUTS)}
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
                yield Candidate("clipping", _clipped(how, added), tuple((x,) for x in found))

    def _borrowed(self) -> Iterator[Candidate]:
        """A gradient that is another weight's of the same shape."""
        shapes = self.record.shapes
        ways = []
        for other in shapes:
            alike = [n for n in self.parted if shapes[n] == shapes[other] and n != other]
            ways += [{name: other} for name in alike]
            ways += [dict.fromkeys(alike, other)] if len(alike) > 1 else []
        for borrowed in ways:
            yield Candidate("another weight's gradient", _changed(borrowed=borrowed), partial=True)

    def _schedule(self, theirs: Program) -> Fitted | None:
        """The learning rate of each step, by least squares."""
        window = self.window
        known = replace(theirs, free=frozenset())  # what is taken from mine tells no rate
        rates = torch.ones(len(window.steps), dtype=torch.float64)
        for _ in range(2):  # again, for what a small step of theirs has lost to rounding
            made = window.predict(replace(known, rates=tuple(rates.tolist())))
            told = (made - window.before).abs() / window.noise
            rates = rates * window.best_rates(made)
            off = rates.abs() * (1e-9 + told.square().sum(dim=1).clamp(min=SMALLEST).rsqrt())
            rates = torch.tensor(_settled(rates.tolist(), off.tolist()), dtype=torch.float64)
            if not bool((rates >= 0).all()):
                return None
        if not bool(((told > 1).sum(dim=1) >= 3).any()):
            return None
        numbers = tuple(rates.tolist())
        build = _changed(rates=numbers)
        return Fitted(Candidate("step size schedule", build, (numbers,)), numbers, math.nan)

    def _is_of_lr(self, schedule: Fitted) -> bool:
        """Whether lr must be what changes: it was seen to, or the changes have a shape."""
        name, steps = self.parted[0], range(len(schedule.numbers))
        seen = {lr_at(self.record, self.theirs, name, step) for step in steps}
        return self.sees_mines_rules or len(seen) > 1 or self._is_plain(schedule.numbers)

    def _scales(self) -> list[tuple[Fitted, ...]]:
        """A factor of each step's gradients, found by Newton's method, one step after the other."""
        if self.agreeing:
            return []
        window, scales = self.window, [1.0] * len(self.window.steps)

        def off(step: int, scale: float) -> Tensor:
            scales[step] = scale
            made = window.predict(replace(self.theirs, scales=tuple(scales)))
            return (window.after - made)[step] / window.noise[step]

        for step in range(self.step or 0, len(scales)):
            for _ in range(NEWTON):
                now, nudged = scales[step], scales[step] * (1 + NUDGE)
                rest = off(step, now)
                by = (rest - off(step, nudged)) / (nudged - now)
                scales[step] = float(now + _share(rest, by))
            if not bool((off(step, scales[step]).abs() <= 1).all()):
                return []
        numbers = tuple(scales)
        found = Fitted(Candidate(SCALES, _changed(scales=numbers), (numbers,)), numbers, math.nan)
        return [(found,)] if self.holds(found) else []

    def _is_plain(self, rates: Sequence[float]) -> bool:
        """Whether a schedule has a shape; without one, it might make up for any other mistake."""
        name, first = self.parted[0], self.theirs.rates[0]
        lrs = [lr_at(self.record, self.theirs, name, step) for step in range(len(rates))]
        return is_plain([lr * rate / first for lr, rate in zip(lrs, rates, strict=True)], lrs)

    def _clips_all(self, edit: Fitted) -> bool:
        """Whether an edit clips so low that each step is as long as the schedule makes it."""
        lower = replace(edit, numbers=tuple(x / 2 for x in edit.numbers))
        if edit.candidate.cause != "clipping" or not edit.numbers:
            return False
        schedule = self._schedule(lower.apply(self.theirs))
        return schedule is not None and self.holds(lower, schedule)

    def _schedules(self, singles: Sequence[Fitted]) -> list[tuple[Fitted, ...]]:
        """Another edit beside a schedule: fitted with each step as long as suits it best."""
        tried = []
        for one in singles:
            if time.thread_time() > self.deadline:
                break
            if one.candidate.build is not _rate:
                free = replace(one.candidate, build=_at_any_rate(one.candidate.build))
                tried.append((self._rounded(self._fit(free)), one))
        tried.sort(key=lambda pair: _rank(pair[0]))
        held = (self._beside_a_schedule(*pair) for pair in tried if pair[0].left <= NEARLY_HELD)
        found = [pair for pair in held if pair]
        if not found:
            return []
        # Some make up for a rate: the plainest leaves theirs' rate in the most steps.
        edit, schedule = max(found, key=lambda p: (p[1].numbers.count(1.0), not p[0].numbers))
        return [(edit, schedule) if any(rate != 1 for rate in schedule.numbers) else (edit,)]

    def _beside_a_schedule(self, fitted: Fitted, one: Fitted) -> tuple[Fitted, Fitted] | None:
        """An edit with numbers found at any rate, and the schedule beside it; None without one."""
        for numbers in _without_a_rate(fitted):
            edit = replace(one, numbers=numbers)
            schedule = self._schedule(edit.apply(self.theirs))
            if schedule is None or not self._is_plain(schedule.numbers):
                continue
            if self.holds(edit, schedule) and not self._clips_all(edit):
                return edit, schedule
        return None


def _without_a_rate(fitted: Fitted) -> list[tuple[float, ...]]:
    """Numbers found with each step as long as fits best.

    Factors of all weights are then known but for one of all: one weight's is taken to be 1.
    """
    if fitted.candidate.cause != "scale of one weight":
        return [fitted.numbers]
    several = fitted.numbers if len(fitted.numbers) > 1 else ()
    return [tuple(float(f"{x / one:.6g}") for x in several) for one in several if one]


def _share(one: Tensor, other: Tensor) -> Tensor:
    """How many times the other one it is, by least squares."""
    return one @ other / other.square().sum().clamp(min=SMALLEST)


def _left_by(rest: Tensor, *changes: Tensor) -> float:
    """The size of what is left of a vector by the rows of matrices, each with any factor."""
    basis = torch.nn.functional.normalize(torch.cat(changes))
    along, size = basis @ rest, float(rest @ rest)
    gram = basis @ basis.T + RIDGE * torch.eye(len(basis), dtype=basis.dtype)
    made = float(along @ torch.linalg.solve(gram, along))
    return math.sqrt(max(RIDGE * size, size - made))


def _left_at_any_rate(replay: Replay, program: Program) -> float:
    """What a program leaves; or more than that with each step as long as fits mine's best.

    A loss that is ½ of a sum where theirs is a mean is often there beside a wrong derivative.
    """
    left = replay.left(program)
    if left <= 1:
        return left
    return min(left, AT_ANY_RATE * replay.left(replace(program, any_rate=True)))


def _edited(program: Program, edits: Sequence[Fitted]) -> Program:
    """A program with all of some edits."""
    for edit in edits:
        program = edit.apply(program)
    return program


def _settled(rates: Sequence[float], off: Sequence[float]) -> list[float]:
    """The rates, each 1 or as the one before where rounding leaves that open."""
    settled, last = [], 1.0
    for rate, error in zip(rates, off, strict=True):
        if abs(rate - last) > error:
            last = 1.0 if abs(rate - 1) <= error else rate
        settled.append(last)
    return settled


def _is_round(edit: Fitted) -> bool:
    """Whether an option's numbers are of few digits, or a clipping's; a factor may be of any."""
    factor = edit.candidate.cause in FACTORS - {"clipping"}
    return factor or all(x == float(f"{x:.3g}") for x in edit.numbers)


def _plain_cause(edit: Fitted) -> str:
    """The plainest word for an edit, by its numbers."""
    if edit.candidate.cause == "scale" and edit.numbers == (-1.0,):
        return "sign"
    if edit.candidate.cause == "scale of one weight" and set(edit.numbers) <= {0.0, 1.0}:
        return "weight that never moves"
    return edit.candidate.cause


def _rank(fitted: Fitted) -> float:
    """What it leaves; of two that leave about the same, the plainer one is better."""
    return _plainly(fitted.left, fitted)


def _plainly(left: float, *edits: Fitted) -> float:
    """What edits leave, and more the more numbers they have, and for a wrong gradient."""
    broken = sum(one.candidate.cause in BROKEN_CAUSES for one in edits)
    numbers = sum(abs(number) > NOTHING for one in edits for number in one.numbers)
    return float(f"{left * LESS_PLAIN**broken * 1.1**numbers:.3g}")


def _changed(**changes: Any) -> Build:  # noqa: ANN401
    """Other fields of a program."""

    def build(program: Program, _: Sequence[float]) -> Program:
        return replace(program, **changes)

    return build


def _one_after_the_other(one: Build, two: Build, count: int) -> Build:
    """Two edits, the first one with so many of the numbers."""
    return lambda program, x: two(one(program, x[:count]), x[count:])


def _at_any_rate(build: Build) -> Build:
    return lambda program, x: replace(build(program, x), any_rate=True)


def _is_another(kind: str, options: Mapping[str, Any], numbers: Sequence[str]) -> Build:
    """Another optimizer, with these options but for some that are numbers."""
    return lambda program, x: replace(
        program,
        optimizer=kind,
        options={**options, **dict(zip(numbers, x, strict=False))},
        rates=(1.0,),
    )


def _clipped(how: str, added: float) -> Build:
    return lambda program, x: replace(program, clip=(how, abs(x[0]), added))


def _counted(program: Program, numbers: Sequence[float]) -> Program:
    return replace(program, count=tuple(numbers))


def _rate(program: Program, numbers: Sequence[float]) -> Program:
    return replace(program, rates=tuple(rate * numbers[0] for rate in program.rates))


def _with(option: str, only: frozenset[str], value: bool | None = None) -> Build:
    """Another value of an option; without one, the first number."""

    def build(program: Program, numbers: Sequence[float]) -> Program:
        if option == "dampening" and not 0 <= numbers[0] <= 1:
            raise ValueError("torch takes it, but nobody means it")
        edited = program.with_option(option, numbers[0] if value is None else value)
        return replace(edited, only=only or program.only)

    return build


def _with_eps(flip: Build) -> Build:
    """Another place of eps, and another eps."""
    return lambda program, numbers: flip(program, ()).with_option("eps", numbers[0])


def theirs_program(record: Record) -> Program | None:
    """The program that theirs was seen to be; None where its own steps are not explained."""
    program = Program()
    if record.foreign:
        return None
    if not record.known:  # it has none of torch.optim's optimizers, or one of its own
        grads, moved = record.stack("fresh"), record.stack("predicted") - record.stack("base")
        lr = -float((grads * moved).sum() / grads.square().sum().clamp(min=1e-300))
        program = Program(optimizer="SGD", options={"lr": abs(lr)}, factor=math.copysign(1, lr))
    try:
        search = _Search(record, program, of_theirs=True)
        if search.step is None:
            return _as_it_takes_gradients(search.all, program)
    except (KeyError, ValueError, TypeError):  # an optimizer that is not of torch.optim
        return None
    found = search.run()
    return _as_one_rate(_edited(program, found[0])) if found else None


def _as_one_rate(program: Program) -> Program:
    """The program with a factor of its gradient as one of lr, where that is the same."""
    if program.optimizer != "SGD" or len(program.rates) > 1 or program.options.get("weight_decay"):
        return program
    lr = program.options["lr"] * program.rates[0] * abs(program.factor)
    options = {**program.options, "lr": float(f"{lr:.6g}")}
    return replace(program, options=options, factor=math.copysign(1, program.factor), rates=(1.0,))


def _as_it_takes_gradients(replay: Replay, program: Program) -> Program:
    """The program with what theirs makes of its gradients: whether it adds them up, or clips."""
    used, fresh = replay.used, replay.fresh
    off = (
        of_gradients(replay.record.epsilon)
        * used.abs().amax(dim=1, keepdim=True).cummax(dim=0).values
    )
    if bool(((used - fresh).abs() <= off).all()):
        return program
    shares = torch.stack(
        [
            (used * fresh)[:, replay.of(n)].sum(dim=1)
            / fresh[:, replay.of(n)].square().sum(dim=1).clamp(min=SMALLEST)
            for n in replay.names
        ],
        dim=1,
    )
    cut = (shares - 1).abs() > CUT
    levels = {
        "together": (shares * (replay.norms.norm(dim=1, keepdim=True) + NORM))[cut],
        "each": (shares * (replay.norms + NORM))[cut],
        "value": used.abs()[used.abs() < (1 - CUT) * fresh.abs()],
    }
    ways: list[dict[str, Any]] = [{"adds_up": "always"}, {"adds_up": "first"}]
    for how, level in levels.items():
        if len(level):
            ways.append({"clip": (how, float(f"{float(level.median()):.6g}"), NORM)})
            ways.append({"clip": (how, float(level.median()), NORM)})
    for way in ways:
        seen = replace(program, used=False, **way)
        if bool(((used - replay.gradients(seen)).abs() <= off).all()):
            return seen
    return program


def _beyond(replay: Replay) -> tuple[int, str] | None:
    """The first step in which a weight differs, in elements outside the sample, and the weight."""
    record = replay.record
    rounding = {name: replay.noise[:, replay.of(name)].amax(dim=1) for name in record.parts}
    for number, step in enumerate(record.steps):
        for name, places in record.places.items():
            most = BEYOND * math.prod(record.shapes[name]) / len(places) * rounding[name][number]
            if step.apart.get(name, 0.0) > most:
                return number + 1, name
    return None


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
    record = record.rounded_as_mine()
    search = _Search(record, theirs, seconds=seconds, progress=progress)
    if search.step is None:
        beyond = _beyond(search.all)
        steps = len(record.steps)
        return Finding((), theirs, theirs, steps=steps, largest=search.worst, beyond=beyond)
    found = search.run()
    causes = {one.candidate.cause for pair in found for one in pair}
    few = len(search.window.steps) - search.step < FEW and found
    base = Finding(
        (),
        theirs,
        theirs,
        step=search.step + 1,
        weights=search.parted,
        largest=search.worst,
        agreeing=search.agreeing,
    )
    if search.worst < (WEAK_UPDATES if record.bare else WEAK):
        return replace(base, weak=True)
    if not found:
        return replace(base, tried=search.tried, looked=search.looked, same=search.same)
    unclear = len(found if record.bare else causes) > 1
    if few and unclear and found[0][0].candidate.cause not in AT_ONCE:
        return replace(base, several=tuple(sorted(causes)))
    return replace(
        base,
        causes=tuple(filter(None, map(_plain_cause, found[0]))),
        program=_edited(theirs, found[0]),
        steps=len(search.window.steps),
        largest=search.largest(*found[0]),
        alike=tuple((one[0].candidate.cause, one[0].apply(theirs)) for one in found[1:]),
    )
