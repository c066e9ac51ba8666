"""Why two trajectories part: decided from the first steps, where both stood at the same weights."""

from __future__ import annotations

__all__ = ["Detective", "Diagnosis", "listed"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .distance import Weights
from .evidence import GROWTH, Fit, Move, Pair, precision

WEAK = 10  # a difference of less than so many times the rounding fits too many causes
DRIFT = 1e5  # roundings: how far they may have carried the weights in the end

Factor = float | dict[str, float] | None


@dataclass(frozen=True)
class Diagnosis:
    """Why two trajectories part.

    Args:
        cause: one of the words of the README's table.
        factor: the number that belongs to the cause, mine over theirs or mine minus theirs.
        step: the step whose update shows it.
        weights: the weights that show it.
        error: what rounding leaves open of `factor`.
        second: a second cause that is there as well, with its factor.
        evidence: what was seen, in words, beyond what the cause says.
    """

    cause: str
    factor: Factor = None
    step: int = 0
    weights: tuple[str, ...] = ()
    error: float = 0.0
    second: tuple[str, float] | None = None
    evidence: str = ""


class Detective:
    """Look at both trajectories after every step, until the cause is found.

    It keeps at most four copies of the weights: those after step 0 and step 1 of both, then those
    of the step before.

    Args:
        lr: learning rate, so that a weight decay can be given as λ and not as lr · λ.
    """

    def __init__(self, lr: float | None = None) -> None:
        self.lr = lr
        self.found: Diagnosis | None = None
        self.precisions = (torch.float64, torch.float64)
        self.kept: list[Pair] = []  # step 0 at first, then step 1 as well; later the last step
        self.waiting: Fit | None = None  # decay or momentum? the third step decides

    @property
    def parted(self) -> bool:
        """Whether a difference has been seen that rounding does not explain."""
        return self.found is not None or self.waiting is not None

    @property
    def epsilon(self) -> float:
        """Relative rounding error of the lower of both precisions."""
        return max(torch.finfo(dtype).eps for dtype in self.precisions)

    def look(self, step: int, mine: Weights, theirs: Weights, distance: float) -> None:
        """See the weights after `step` steps, and the largest distance of any element."""
        if self.found:
            return
        now = Pair(mine, theirs, distance)
        if step <= 1:
            self.precisions = (precision(mine), precision(theirs))
            self.found = self._initial(self.kept[0] if step else now)
        if not self.found and step:
            self.found = self._step(step, now)
        if not self.found:
            self._keep(step, now)

    def conclude(self, *, identical: bool) -> Diagnosis:
        """The cause, once both trajectories have ended.

        Args:
            identical: whether they held the same bits throughout.
        """
        if self.found:
            return self.found
        if identical:
            return Diagnosis("identical")
        if self.waiting:
            return self._undecided(2)
        last = self.kept[-1]
        largest = max(float(weight.abs().max()) for weight in last.theirs.values())
        if last.distance > DRIFT * self.epsilon * max(1.0, largest):
            return Diagnosis(
                "unexplained",
                evidence="the difference began as small as rounding, but grew beyond it",
            )
        return Diagnosis("rounding" if len(set(self.precisions)) == 1 else "precision")

    def _keep(self, step: int, now: Pair) -> None:
        if step < 2:
            self.kept.append(now.kept())
        elif self.waiting:
            self.kept = [self.kept[1], now.kept()]
        else:
            self.kept = [now.kept(into=self.kept[-1])]

    def _initial(self, now: Pair) -> Diagnosis | None:
        """Do the trajectories begin at the same weights, but for rounding?"""
        if now.distance == 0:
            return None
        for name in now.theirs:
            mine, theirs = now.mine[name].double(), now.theirs[name].double()
            if torch.allclose(mine, theirs, rtol=self.epsilon, atol=0, equal_nan=True):
                continue
            square = mine.ndim == 2 and mine.shape[0] == mine.shape[1]
            if square and torch.allclose(mine.mT, theirs, rtol=self.epsilon, atol=0):
                return Diagnosis("shape", weights=(name,), evidence="transposed")
            return Diagnosis("initial weights", weights=(name,))
        return None

    def _step(self, step: int, now: Pair) -> Diagnosis | None:
        """Judge one step; None while rounding explains it."""
        before = self.kept[-1]
        if step > 2 and not self.waiting and now.distance <= (1 + GROWTH) * before.distance:
            return None
        first = (self.kept[-2].theirs, before.theirs) if step == 2 else None
        move = Move(before, now, self.epsilon, first)
        if self.waiting:
            return self._decay_or_momentum(move, self.waiting)
        if not move.parted:
            return None
        broken = move.broken()
        if broken:
            return Diagnosis("not finite", step=step, weights=tuple(broken))
        if step == 1:
            return self._first(move)
        return self._second(move) if step == 2 else self._later(step, move)

    # The first update: both stood at the same weights, with no history.

    def _first(self, move: Move) -> Diagnosis:
        everywhere = move.fit(move.names, "theirs")
        decay = move.fit(move.parted, "weights")
        if everywhere and decay and _weak(move):
            return _ambiguous(1, move, "scale", "weight decay")
        if everywhere:
            return _scale(1, move.names, everywhere)
        single = self._scale_of_one(move)
        if single:
            return single
        if decay and decay.numbers > 1:
            factor, error = self._decay(decay.coefficients[0]), self._decay(decay.errors[0])
            return Diagnosis("weight decay", factor, 1, tuple(move.parted), abs(error))
        both = move.fit(move.names, "theirs", "weights")
        if both and both.certain and not _weak(move):
            return self._scale_and_decay(move, both)
        agreeing = [name for name in move.moving if name not in move.parted]
        if agreeing and not _weak(move):
            evidence = f"the first update of {listed(agreeing)} agrees"
            return Diagnosis(
                "one weight's update", step=1, weights=tuple(move.parted), evidence=evidence
            )
        return Diagnosis(
            "unexplained",
            step=1,
            weights=tuple(move.parted),
            evidence="the first updates agree in no simple way for any weight",
        )

    def _scale_of_one(self, move: Move) -> Diagnosis | None:
        fits = {name: move.fit([name], "theirs") for name in move.parted}
        known = {name: fit for name, fit in fits.items() if fit}
        if len(known) < len(fits) or not any(fit.numbers > 1 for fit in known.values()):
            return None
        if _weak(move):
            return None
        factor = {name: 1 + fit.coefficients[0] for name, fit in known.items()}
        error = max(fit.errors[0] for fit in known.values())
        return Diagnosis("scale of one weight", factor, 1, tuple(factor), error)

    def _scale_and_decay(self, move: Move, fit: Fit) -> Diagnosis:
        scale, decay = fit.coefficients
        factor, error = self._decay(decay), abs(self._decay(fit.errors[1]))
        if fit.norms[0] < fit.norms[1]:
            return Diagnosis(
                "weight decay", factor, 1, tuple(move.names), error, ("scale", 1 + scale)
            )
        first = _scale(1, move.names, fit)
        return Diagnosis(
            first.cause, first.factor, 1, first.weights, first.error, ("weight decay", factor)
        )

    def _decay(self, coefficient: float) -> float:
        """λ from m − t = −lr · λ · weights, or lr · λ where lr is not known."""
        return -coefficient / (self.lr or 1.0)

    # The second update: both stand at the same weights, and may remember the first.

    def _second(self, move: Move) -> Diagnosis | None:
        memory = move.fit(move.parted, "first")
        schedule = move.fit(move.names, "theirs")
        if memory and schedule and _weak(move):
            return _ambiguous(2, move, "momentum", "step size schedule")
        if memory:
            if self._hidden_decay(move, memory):
                self.waiting = memory
                return None
            return _memory(2, move, memory)
        if schedule:
            return _schedule(2, move, schedule)
        both = move.fit(move.names, "theirs", "first")
        if both and both.certain and not _weak(move):
            fresh, first = 1 + both.coefficients[0], both.coefficients[1]
            # Mine leaves out a part of the fresh gradient, or theirs does: then first < 0.
            if (first > 0 and fresh > 0) or (first < 0 and fresh > 1):
                return Diagnosis("dampening", fresh, 2, tuple(move.names), both.errors[0])
        return Diagnosis(
            "unexplained",
            step=2,
            weights=tuple(move.parted),
            evidence="the first update agrees, the second in no simple way",
        )

    def _hidden_decay(self, move: Move, memory: Fit) -> bool:
        """Could this be a weight decay that the first update, from weights near 0, did not show?"""
        start = self.kept[-2].theirs
        multiple = abs(memory.coefficients[0])
        return all(
            multiple * float(start[name].abs().max()) <= move.noise(name) for name in move.parted
        )

    def _decay_or_momentum(self, move: Move, memory: Fit) -> Diagnosis:
        """From weights at 0, the third step tells a decay from a momentum.

        The two no longer stand at the same weights: to first order in the step size their
        gradients differ as the plain one's did from its first to its second step. What is left
        must then be μ times the other's second update, or lr · λ times its weights.
        """
        (b,) = memory.coefficients
        one, two = self.kept[-2], self.kept[-1]
        missed = {"momentum": 0.0, "weight decay": 0.0}
        for name in move.parted or move.names:
            step1 = one.theirs[name].double()  # the first update, from 0
            mine2, theirs2 = (w[name].double() - step1 for w in (two.mine, two.theirs))
            # Where b > 0, mine has the momentum, or theirs has the decay; and the reverse.
            remembers, plain = (mine2, theirs2) if b > 0 else (theirs2, mine2)
            missed["momentum"] += move.miss(name, b * (plain - step1) + b * remembers)
            decays = two.theirs[name].double() if b > 0 else two.mine[name].double()
            missed["weight decay"] += move.miss(name, b * (remembers - step1) + b * decays)
        cause = min(missed, key=lambda word: missed[word])
        if missed[cause] > max(missed.values()) / WEAK:
            return self._undecided(3)
        if cause == "momentum":
            return _memory(2, move, memory)
        error = abs(self._decay(memory.errors[0]))
        return Diagnosis(cause, self._decay(b), 2, tuple(move.names), error)

    def _undecided(self, step: int) -> Diagnosis:
        return Diagnosis(
            "unexplained",
            step=step,
            evidence=(
                "the weights begin at 0, where momentum and weight decay look alike at step 2, and "
                "no third step tells them apart"
            ),
        )

    def _later(self, step: int, move: Move) -> Diagnosis | None:
        fit = move.fit(move.names, "theirs")
        if fit:
            return _schedule(step, move, fit)
        return Diagnosis(
            "unexplained",
            step=step,
            weights=tuple(move.parted),
            evidence=f"updates agree up to step {step - 1}, then in no simple way",
        )


def _weak(move: Move) -> bool:
    return max(move.signal.values()) < WEAK


def _ambiguous(step: int, move: Move, one: str, other: str) -> Diagnosis:
    evidence = f"the difference is so small that {one} and {other} both explain it"
    return Diagnosis("unexplained", step=step, weights=tuple(move.parted), evidence=evidence)


def _scale(step: int, names: Sequence[str], fit: Fit) -> Diagnosis:
    multiple, error = 1 + fit.coefficients[0], fit.errors[0]
    if abs(multiple + 1) <= max(error, 1e-9):
        return Diagnosis("sign", -1.0, step, tuple(names), error)
    return Diagnosis("scale", multiple, step, tuple(names), error)


def _memory(step: int, move: Move, fit: Fit) -> Diagnosis:
    multiple, error = fit.coefficients[0], fit.errors[0]
    cause = "momentum"
    if abs(abs(multiple) - 1) <= max(error, 1e-9):
        cause, multiple = "gradients not zeroed", round(multiple)
    return Diagnosis(cause, float(multiple), step, tuple(move.parted), error)


def _schedule(step: int, move: Move, fit: Fit) -> Diagnosis:
    multiple, error = 1 + fit.coefficients[0], fit.errors[0]
    return Diagnosis("step size schedule", multiple, step, tuple(move.names), error)


def listed(names: Sequence[str]) -> str:
    """The names as a sentence has them: a, b and c."""
    if not names:
        return ""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
