"""Replay: theirs with an edit, from mine's weights at every step, against what mine made of them.

A cause is named only where theirs, with that one mistake made, gives mine's next weights to
rounding, at every step looked at.
"""

from __future__ import annotations

__all__ = ["IMPOSSIBLE", "SMALLEST", "Program", "Replay", "make_rule", "options_of"]

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...optimizers import RULES, Rule
from ..gradients.breaks import Break, rows_of
from ..rounding import GROWTH, of_gradients
from .record import Record, Step
from .rules import take

IMPOSSIBLE = (ValueError, RuntimeError, ArithmeticError)  # of a rule, with an option out of range
SMALLEST = 1e-300  # so that nothing is divided by 0
MEMORY = 1 - 1e-6  # how much the slowest average keeps
PATIENCE = 2  # rounds that may gain little
ROUNDS = 12  # of Gauss–Newton
# Roundings of a step whose η, or product of μ, is of torch's default dtype, not the weights'.
IN_DEFAULT_DTYPE = {"ASGD": 2, "NAdam": 10}
AVERAGES = {"exp_avg": 1, "grad_avg": 1, "exp_avg_sq": 2, "square_avg": 2}  # of which power
MOST = 0.5  # of the elements that differ
TINY = 1e3  # roundings of 1
BY_CHANCE = 10  # times as far goes a step, at most, whose gradients are nothing but rounding
TURNED = 1e-4  # of a step that goes the other way, whose size is rounded, too
OTHERS = 4  # roundings of the largest gradient: one that cancels is a sum of numbers so large


@dataclass(frozen=True)
class Program:
    """A training program: which gradient it takes, and what its optimizer makes of that.

    Args:
        optimizer: another optimizer than theirs, by its name in `torch.optim`.
        options: options that differ from theirs, or the other optimizer's, all of them.
        factor: of every gradient.
        factors: weight → a factor of its gradient alone.
        scales: a factor of each step's gradients, once they are clipped; empty for none.
        adds_up: when gradients add up: "never", "always", in the "first" step, which has two, or
            over so many steps, after which they are set to 0.
        late: whether a step takes the gradient of the step before; the first one its own.
        clip: how gradients are clipped ("together", "each" or by "value"), at what, and what is
            added to the norm; PyTorch adds 1e-6.
        used: whether it starts from the gradients that theirs' optimizer was given, with all that
            was done to them, and not from those of the backward passes.
        own: whether it starts from those that mine's optimizer was given.
        mines_rule: whether its optimizer and options are those that were seen in mine.
        text: its rule as text, with a slip; empty for the rule as its page has it.
        resets: after how many steps the optimizer forgets its state, each time; 0 for never.
        counts_on: whether it then goes on counting its steps.
        once: what it does once, before a step: it "forgets" its state, or "adds" that step's
            gradient to the one before.
        begins: whether its averages begin at the first gradient, and at its square.
        count: how t counts: what a step adds, where it begins after 1, and what each further
            weight adds; it is rounded down.
        decays_after: whether the decay is taken from the weights once they are updated.
        rates: a factor of the learning rate at each step, or one for all.
        any_rate: whether each step is as long as fits mine's best, whatever the rates.
        still: weights that it does not move.
        free: weights that mine moves and theirs does not, so that nothing is known of them.
        borrowed: weight → the weight whose gradient it is given.
        since: the step from which its options differ.
        own_options: weight → what it alone has otherwise of the options.
        broken: a mistake in its gradient.
        spoiled: the weights whose gradient has it.
    """

    optimizer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    factors: Mapping[str, float] = field(default_factory=dict)
    scales: tuple[float, ...] = ()
    adds_up: str | int = "never"
    late: bool = False
    clip: tuple[str, float, float] | None = None
    used: bool = True
    own: bool = False
    mines_rule: bool = False
    text: str = ""
    resets: int = 0
    counts_on: bool = False
    once: tuple[str, int] = ("", 0)
    begins: bool = False
    count: tuple[float, ...] = ()
    decays_after: bool = False
    rates: tuple[float, ...] = (1.0,)
    any_rate: bool = False
    still: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    borrowed: Mapping[str, str] = field(default_factory=dict)
    since: int = 0
    own_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    broken: Break | None = None
    spoiled: frozenset[str] = frozenset()

    def seen(self, step: Step) -> Mapping[str, Any]:
        """Weight → the optimizer's class and options, of those seen in a step, that it has."""
        return step.rules_of_mine if self.mines_rule else step.rules

    def with_option(
        self,
        name: str,
        value: Any,  # noqa: ANN401 (as an optimizer has it)
        weights: Iterable[str] = (),
    ) -> Program:
        """The same program with another option of its optimizer, for some weights or for all."""
        own = {weight: {**self.own_options.get(weight, {}), name: value} for weight in weights}
        if own:
            return replace(self, own_options={**self.own_options, **own})
        return replace(self, options={**self.options, name: value})

    def options_of(self, weight: str) -> dict[str, Any]:
        """The options that differ from theirs for a weight."""
        return {**self.options, **self.own_options.get(weight, {})}


def make_rule(kind: str, options: Mapping[str, Any], rate: float = 1.0) -> Rule:
    """A rule of `optimizers/` from the options of a parameter group.

    Args:
        kind: the optimizer's name in `torch.optim`.
        options: name → value; those that the rule does not have are ignored. One of a pair is
            named by its place, as in `betas[0]`.
        rate: a factor of the learning rate.

    Raises:
        ValueError: an option is out of its range.
    """
    page = RULES["Adam" if kind == "AdamW" else kind]
    known = _known(page)
    values = {name: value for name, value in options.items() if name in known}
    for name, value in options.items():
        whole, _, place = name.partition("[")
        if place:
            both = list(values.get(whole, known[whole]))
            both[int(place[0])] = value
            values[whole] = tuple(both)
    if kind == "AdamW":
        values.setdefault("decoupled_weight_decay", True)
    if rate != 1.0:
        values["lr"] = rate * values.get("lr", known["lr"])
    return page(**values)


@cache
def _known(page: type[Rule]) -> dict[str, Any]:
    """What a rule can be given: its options with their defaults, and its switches."""
    return {**page().options(), **dict.fromkeys(page.switches())}


def options_of(rule: Rule) -> dict[str, Any]:
    """The options and switches of a rule; those that are pairs as two, each by its place."""
    values: dict[str, Any] = {}
    for field_ in fields(rule):
        value = getattr(rule, field_.name)
        if isinstance(value, tuple):
            values |= {f"{field_.name}[{place}]": number for place, number in enumerate(value)}
        else:
            values[field_.name] = value
    return values


def _without_averages(state: dict[str, Any]) -> dict[str, Any]:
    """What an optimizer keeps, with all arrays set to 0."""
    return {n: torch.zeros_like(x) if isinstance(x, Tensor) else x for n, x in state.items()}


class Replay:
    """The steps of a record, taken again by programs.

    Args:
        record: what was kept of both.
        theirs: theirs as a program, whose rounding is measured.
        last: after which step it ends.
        chosen: which elements of the sample; None for all.
        of_theirs: whether theirs' own steps are looked at, and not mine's.
    """

    def __init__(
        self,
        record: Record,
        theirs: Program,
        last: int | None = None,
        chosen: Tensor | None = None,
        *,
        of_theirs: bool = False,
    ) -> None:
        self.record, self.steps = record, record.steps[:last]
        self.names = list(record.parts)
        sizes = torch.tensor([part.stop - part.start for part in record.parts.values()])
        self.weight_of = torch.arange(len(self.names)).repeat_interleave(sizes)
        self.chosen = torch.arange(len(self.weight_of)) if chosen is None else chosen
        self.weight_of = self.weight_of[self.chosen]
        self.before, after = self._stack("before"), self._stack("after")
        if of_theirs:
            after = self.before + self._stack("predicted") - self._stack("base")
        self.after = after
        self.used, self.fresh = self._stack("used"), self._stack("fresh")
        self.given = self._stack("given") if record.sees_mine else self.used
        self.carried = torch.tensor([[step.carried] for step in self.steps], dtype=torch.float64)
        self.grouped: dict[tuple[Any, ...], list[tuple[Tensor, str]]] = {}
        self.broken: dict[tuple[Break, frozenset[str], bool], Tensor] = {}
        self.norms = self._of_steps(lambda step, name: step.norms[name])
        self.largest = self._largest_element("fresh")
        kind = type(next(filter(None, self.rules(theirs, self.names[0])), None)).__name__
        self.small = 1e-3 if kind in IN_DEFAULT_DTYPE else 1e-6  # differences that show in a step
        self.coefficients = self._coefficients(theirs)
        self.noise = self.rounding(theirs)
        self.apart = self.missed(theirs) * self.noise

    def _stack(self, what: str) -> Tensor:
        return torch.stack([getattr(step, what)[self.chosen] for step in self.steps])

    def _largest_element(self, what: str) -> Tensor:
        """The largest element of each weight's gradient so far, of shape (steps, weights)."""
        parts = self.record.parts
        sizes = self._of_steps(lambda step, n: float(getattr(step, what)[parts[n]].abs().max()))
        return sizes.cummax(0).values

    def _of_steps(self, number: Callable[[Step, str], float]) -> Tensor:
        """A number of each weight in each step, of shape (steps, weights)."""
        rows = [[number(step, name) for name in self.names] for step in self.steps]
        return torch.tensor(rows, dtype=torch.float64)

    def _groups(self, program: Program) -> list[tuple[Tensor, str]]:
        """The elements that are stepped alike, or each weight's, with a weight that has them."""
        own = [program.own_options.get(name) for name in self.names]
        alike_with = [own.index(options) for options in own]
        each = bool(program.count)
        key = tuple(alike_with), each, program.mines_rule
        if key in self.grouped:
            return self.grouped[key]
        alike: dict[str, list[int]] = {}
        for number, name in enumerate(self.names):
            rules = [program.seen(step).get(name) for step in self.steps]
            history = repr([alike_with[number], each and name, *rules])
            alike.setdefault(history, []).append(number)
        groups = []
        for numbers in alike.values():
            at = torch.isin(self.weight_of, torch.tensor(numbers)).nonzero().flatten()
            groups.append((at, self.names[numbers[0]]))
        return self.grouped.setdefault(key, groups)

    def of(self, name: str) -> Tensor:
        """Which elements belong to a weight, as booleans."""
        return self.weight_of == self.names.index(name)

    def rules(self, program: Program, name: str) -> Iterator[Rule | None]:
        """The rule by which a program takes each step of a weight; None where there is none."""
        edited = program.options_of(name)
        known: tuple[Any, float, bool] | None = None
        rule = None
        for number, step in enumerate(self.steps):
            seen = program.seen(step).get(name)
            rate = program.rates[min(number, len(program.rates) - 1)]
            if (seen, rate, number < program.since) != known:
                known = seen, rate, number < program.since
                if program.optimizer:
                    rule = make_rule(program.optimizer, program.options, rate)
                elif seen is None:
                    rule = None
                else:
                    options = edited if number >= program.since else {}
                    rule = make_rule(seen[0].__name__, {**seen[1], **options}, rate)
            yield rule

    def gradients(self, program: Program, shift: Tensor | None = None) -> Tensor:
        """The gradients that a program's optimizer is given, of shape (steps, elements)."""
        grads = self._broken(program)
        if shift is not None:
            grads = grads + shift
        for name, other in program.borrowed.items():
            grads = grads.clone()
            grads[:, self.of(name)] = grads[:, self.of(other)]
        if program.late:
            grads = torch.cat([grads[:1], grads[:-1]])
        if program.adds_up == "always":
            grads = grads.cumsum(0)
        elif program.adds_up == "first":
            grads = torch.cat([2 * grads[:1], grads[1:]])
        elif isinstance(program.adds_up, int):
            grads = torch.cat([some.cumsum(0) for some in grads.split(program.adds_up)])
        what, step = program.once
        if what == "adds" and step < len(grads):
            grads = grads.clone()
            grads[step] += grads[step - 1]
        return self._scaled(program, grads)

    def _scaled(self, program: Program, grads: Tensor) -> Tensor:
        """Gradients with the program's factors, clipped as it clips them."""
        if program.factor != 1.0 or program.factors:
            by = torch.full((len(self.names),), program.factor, dtype=torch.float64)
            for name, factor in program.factors.items():
                by[self.names.index(name)] *= factor
            grads = grads * by[self.weight_of]
        if program.clip:
            grads = self._clipped(grads, *program.clip)
        if program.scales:
            scales = torch.tensor(program.scales[: len(grads)], dtype=torch.float64)
            grads = grads * scales[:, None]
        return grads

    def _broken(self, program: Program) -> Tensor:
        """The gradients, with the program's mistake."""
        if program.own:
            return self.given
        if program.broken is None:
            return self.used if program.used else self.fresh
        key = program.broken, program.spoiled, program.used
        if key not in self.broken:
            made = (self.record.gradient(step, key[0]) for step in range(len(self.steps)))
            self.suppose(program, dict(enumerate(made)))
        return self.broken[key]

    def suppose(self, program: Program, made: Mapping[int, Tensor | None]) -> None:
        """Take these for the gradients of some steps with a program's mistake, others as right."""
        grads = (self.used if program.used else self.fresh).clone()
        where = torch.stack([self.of(name) for name in program.spoiled]).any(dim=0)
        for step, gradient in made.items():
            if gradient is not None:
                grads[step, where] = gradient[self.chosen][where]
        if program.broken:
            self.broken[program.broken, program.spoiled, program.used] = grads

    def _clipped(self, grads: Tensor, how: str, most: float, added: float) -> Tensor:
        if how == "value":
            return grads.clamp(-most, most)
        fresh, given = self._norms(self.fresh), self._norms(grads)
        norms = torch.where(fresh > 0, self.norms * given / fresh, given)
        if how == "together":
            norms = norms.norm(dim=1, keepdim=True).expand_as(norms)
        return grads * (most / (norms + added)).clamp(max=1.0)[:, self.weight_of]

    def _norms(self, grads: Tensor) -> Tensor:
        """Each weight's norm of the elements that are looked at, of shape (steps, weights)."""
        squares = grads.new_zeros(len(grads), len(self.names))
        return squares.index_add_(1, self.weight_of, grads.square()).sqrt()

    def predict(
        self, program: Program, shifts: Tensor | None = None, rounded: float = 0.0
    ) -> Tensor:
        """What a program makes of mine's weights, of shape (steps, elements), or of the shifts'.

        Args:
            program: the program.
            shifts: are added to the gradients, of shape (ways, steps, elements): one way each time.
            rounded: by which share is off what a step passes on to the next, to the shift's side.
        """
        if shifts is None:
            grads = self.gradients(program)
        else:
            grads = torch.stack([self.gradients(program, shift) for shift in shifts])
        made = self.before.expand(grads.shape).clone()
        for at, name in self._groups(program):
            if len(at) == made.shape[-1]:
                self._take(program, name, made, grads, shifts, rounded)
            else:
                weights, off = made[..., at], None if shifts is None else shifts[..., at]
                self._take(program, name, weights, grads[..., at], off, rounded)
                made[..., at] = weights
        for name in program.still:
            made[..., self.of(name)] = self.before[:, self.of(name)]
        if program.any_rate:
            made = self.before + self.best_rates(made)[..., None] * (made - self.before)
        for name in program.free:
            made[..., self.of(name)] = self.after[:, self.of(name)]
        last = len(self.steps) - 1
        if program.broken and rows_of(program.broken, last) > last:
            made[..., -1, :] = self.after[-1]  # the rows of the step after it are not known
        return made

    def _take(
        self,
        program: Program,
        name: str,
        weights: Tensor,
        grads: Tensor,
        shifts: Tensor | None,
        rounded: float,
    ) -> None:
        """Take all steps of weights that are stepped alike, in place."""
        state: dict[str, Any] = {}
        steps = zip(self.rules(program, name), weights.unbind(-2), grads.unbind(-2), strict=True)
        for step, (rule, weight, grad) in enumerate(steps):
            if rule is None:
                continue
            if program.once == ("forgets", step):
                state = {}
            self._step(program, rule, weight, grad, state, step, name)
            if program.resets and (step + 1) % program.resets == 0:
                state = _without_averages(state) if program.counts_on else {}
            if shifts is not None:
                off = rounded * shifts[..., step, :].sign()
                for kept in state.values():
                    if isinstance(kept, Tensor) and kept.shape == off.shape:
                        kept.mul_(1 + off)
                        off = -off  # of two averages, one up and one down: their errors add up

    def _step(
        self,
        program: Program,
        rule: Rule,
        weights: Tensor,
        grad: Tensor,
        state: dict[str, Any],
        step: int,
        name: str,
    ) -> None:
        """One step of a rule, with what the program does otherwise around it."""
        decay = 0.0
        if program.decays_after:
            decay = rule.weight_decay * (1 if rule.decay_without_lr else rule.lr)
            rule = replace(rule, weight_decay=0.0)  # type: ignore[call-arg]
        if (program.begins or program.count) and not state:
            rule.step(torch.zeros_like(weights), torch.zeros_like(grad), state)
            for average, power in AVERAGES.items():
                if program.begins and average in state:
                    state[average] = grad**power
            state["step"] = 0
        if program.count:
            add, begin, each = program.count
            t = 1 + add * step + begin + each * self.names.index(name)
            state["step"] = max(1, math.floor(t + 1e-3)) - 1
        if program.text:
            take(program.text, rule, weights, grad, state)
        else:
            rule.step(weights, grad, state)
        if decay:
            weights.mul_(1 - decay)

    def best_rates(self, made: Tensor) -> Tensor:
        """The factor of each step by which it fits mine's best, by least squares in roundings."""
        steps = (made - self.before) / self.noise
        mine = (self.after - self.before) / self.noise
        return (mine * steps).sum(dim=-1) / steps.square().sum(dim=-1).clamp(min=SMALLEST)

    def rounding(self, program: Program) -> Tensor:
        """By how much rounding may move what a program makes of mine's weights.

        The sum of one rounding each of what mine and theirs store; of how far the step moves if
        the gradients and the averages are off by their own rounding, all to one side or with random
        signs; and of the rounding of the rule's coefficients.
        """
        epsilon = self.record.epsilon
        off = self._rounding_of_gradients(program)
        nominal = self.predict(program)
        chance = torch.Generator().manual_seed(0)
        signs = (torch.randint(0, 2, off.shape, generator=chance) * 2 - 1).double()
        same = torch.ones_like(off)
        ways = torch.stack([same, -same, signs, -signs])
        made = self.predict(program, off * ways, 2 * epsilon).sub_(nominal).abs_()
        moved = (1 + TURNED) * made.nan_to_num_(nan=0.0, posinf=math.inf).amax(dim=0)
        # By such gradients a rule that divides by their averages steps as chance will have it.
        nothing = self.gradients(program).abs().cummax(dim=0).values <= off
        moved = torch.where(nothing, BY_CHANCE * moved, moved)
        moved += epsilon * self.coefficients * (nominal - self.before).abs()
        updates = program.broken.updates if program.broken else 1
        stored = 2 * epsilon * updates * torch.maximum(self.before.abs(), self.after.abs())
        noise = stored + moved + (1 + GROWTH) * self.carried + SMALLEST
        return noise.nan_to_num(nan=SMALLEST, posinf=SMALLEST)

    def _rounding_of_gradients(self, program: Program) -> Tensor:
        """By how much the gradients may be off, of shape (steps, elements)."""
        epsilon, largest = self.record.epsilon, self._largest(program)
        every = largest.amax(1, keepdim=True)
        # Where no gradient was ever more than rounding, it is made of numbers of about 1.
        off = epsilon * (OTHERS * every + (every < TINY * epsilon))
        off = (off + of_gradients(epsilon) * largest)[:, self.weight_of]
        off = off + torch.stack([step.kinks[self.chosen] for step in self.steps])
        return off + self._curvature() * self.carried  # theirs is taken at other weights than mine

    def _curvature(self) -> Tensor:
        """How much theirs' gradient changes for a change of the weights, so far; (steps, 1)."""
        made = [(stack[1:] - stack[:-1]).abs().amax(1) for stack in (self.fresh, self.before)]
        ratio = made[0] / made[1].clamp(min=SMALLEST)
        known = ratio.where(ratio.isfinite() & (made[1] > 0), 0.0)
        return torch.cat([known.new_zeros(1), known]).cummax(0).values[:, None]

    def has_mines_gradients(self, program: Program) -> bool:
        """Whether a program's gradients are those that mine's optimizer was given."""
        apart = (self.gradients(program) - self.given).abs()
        moves = torch.ones(len(self.weight_of), dtype=torch.bool)
        for name in program.still | program.free:
            moves &= ~self.of(name)
        off = self._rounding_of_gradients(replace(program, own=True))  # which may be the larger
        return bool((apart <= off)[:, moves].all())

    def _largest(self, program: Program) -> Tensor:
        """The largest element of the gradients so far, theirs or the program's."""
        largest = self.largest.clone()
        if program.own:
            largest = torch.maximum(largest, self._largest_element("given"))
        for step in range(len(self.steps)) if program.broken else ():
            made = self.record.gradient(step, program.broken)
            if made is not None:
                for number, name in enumerate(self.names):
                    size = made[self.record.parts[name]].abs().max()
                    largest[step, number] = torch.maximum(largest[step, number], size)
        return largest

    def _coefficients(self, program: Program) -> float:
        """How many of its roundings a step may be off: 1 − β is known only to a rounding of 1."""
        rule = next(filter(None, self.rules(program, self.names[0])), None)
        numbers = options_of(rule).values() if rule else ()
        roundings = sum(1 / (1 - x) for x in numbers if isinstance(x, float) and 0.5 <= x < MEMORY)
        default = torch.finfo(torch.get_default_dtype()).eps / self.record.epsilon
        return roundings + IN_DEFAULT_DTYPE.get(type(rule).__name__, 0) * default

    def missed(self, program: Program, noise: Tensor | None = None) -> Tensor:
        """|what a program makes − mine's next weights|, in roundings; infinite for nan."""
        made = self.predict(program)
        apart = (made - self.after).abs().nan_to_num(nan=math.inf, posinf=math.inf)
        alike = (made == self.after) | (made.isnan() & self.after.isnan())
        apart = apart.masked_fill(alike, 0.0)
        return apart / (self.noise if noise is None else noise)

    def tells(self, noise: Tensor) -> bool:
        """Whether an edit that rounds by so much can explain that theirs and mine differ.

        If most of the differences are less than that, it would explain anything.
        """
        parted = self.apart > self.noise
        return bool((self.apart > noise)[parted].double().mean() > MOST)

    def left(self, program: Program) -> float:
        """The root of the mean square of what a program misses, in roundings."""
        return float(self.missed(program).square().mean().sqrt())

    def fit(
        self, build: Callable[[Sequence[float]], Program], start: Sequence[float]
    ) -> tuple[list[float], float]:
        """Numbers of a program by damped Gauss–Newton (Levenberg; Marquardt, 1963).

        Args:
            build: numbers → program.
            start: where to begin.

        Returns:
            The numbers, and the root of the mean square of what is missed, in roundings.
        """
        x = torch.tensor(start, dtype=torch.float64)
        now = self.rest(build, x)
        if now is None:
            return list(start), math.inf
        damping = 1e-3
        for number in range(ROUNDS if start else 0):
            jacobian = self.jacobian(build, x, now)
            if jacobian is None:
                break
            error = float(now.square().mean())
            while damping < 1e4:
                moved, there = self._moved(build, x, now, jacobian, damping)
                if there is not None and float(there.square().mean()) < error:
                    break
                damping *= 10
            else:
                break
            x, now, damping = moved, there, max(damping / 30, 1e-12)
            left = float(now.square().mean())
            slow = left > error / 2  # where numbers fit, each round gains by far more
            if left < 1e-6 or (slow and number >= PATIENCE):
                break
        return x.tolist(), float(now.square().mean().sqrt())

    def _moved(
        self,
        build: Callable[[Sequence[float]], Program],
        x: Tensor,
        now: Tensor,
        jacobian: Tensor,
        damping: float,
    ) -> tuple[Tensor, Tensor | None]:
        """The numbers after a damped step, and what is missed there; None where it cannot be run.

        Most ranges end at 0: a number that would leave its range stays there, beside the others.
        """
        gram, slope = jacobian.T @ jacobian, jacobian.T @ now
        damped = gram + damping * torch.diag(gram.diag())
        moved, free = x.clone(), gram.diag() > 0
        for _ in range(2):
            if free.any():
                downhill = slope + gram @ (moved - x)
                moved[free] -= torch.linalg.solve(damped[free][:, free], downhill[free])
            there = self.rest(build, moved)
            if there is not None:
                break
            ends = free & (x >= 0) & (moved < 0)
            moved, free = torch.where(ends, 0.0, x), free & ~ends
        return moved, there

    def rest(self, build: Callable[[Sequence[float]], Program], x: Tensor) -> Tensor | None:
        """What a program with these numbers misses, in roundings; None if it cannot be run."""
        try:
            rest = ((self.predict(build(x.tolist())) - self.after) / self.noise).flatten()
        except IMPOSSIBLE:
            return None
        return rest if bool(rest.isfinite().all()) else None

    def jacobian(
        self, build: Callable[[Sequence[float]], Program], x: Tensor, now: Tensor
    ) -> Tensor | None:
        """How what is missed depends on each number, by differences; None if on one it does not."""
        columns = []
        for k, number in enumerate(x.tolist()):
            small = self.small * max(abs(number), 1e-6)
            for by in (small, -small):
                moved = x.clone()
                moved[k] += by
                there = self.rest(build, moved)
                if there is not None:
                    columns.append((there - now) / by)
                    break
        if len(columns) < len(x):
            return None
        jacobian = torch.stack(columns, dim=1)
        gram = (jacobian * jacobian).sum(dim=0)
        return jacobian if bool(gram.any() and gram.isfinite().all()) else None
