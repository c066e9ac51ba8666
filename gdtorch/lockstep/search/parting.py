"""Where two programs of PyTorch part on the way from the same weights to their losses.

Where mine is PyTorch code as well, its tape can be laid beside that of theirs: the first function
of mine whose values theirs never has is where the two part.
"""

from __future__ import annotations

__all__ = ["CAUSES", "PLAIN", "Parting", "parting", "updated_before"]

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diagnosis import listed
from ..gradients.backward import IMPOSSIBLE
from ..gradients.breaks import place_of
from ..observing.products import advice, in_words
from ..observing.tape import Function, Slot, Tape, flattened, tensors
from ..replaying.record import Record, Whole
from ..rounding import of_gradients

CAUSES = {  # the words for it
    *("another function", "other rows", "rows of another step", "random numbers", "precision"),
    *("changed gradients", "unequal micro-batches"),
}
RUNNING = {"running_mean", "running_var"}  # what momentum has a say in
IDLE = {"inplace", "momentum", "sparse"}  # options of functions that change no gradient
SCALED = {"mul", "div", "truediv", "__mul__", "__rmul__", "__truediv__"}  # as losses are
NEAR = 1e-4  # of the largest number: arrays that lie so near are the same, rounded or scaled
WHOLE_ARRAYS = {"self", "input", "other"}  # of which no name tells more than that they are arrays
PLAIN = bool | int | float | str | None  # values of options
MODES = {False: "call model.train() before it", True: "call model.eval() before it"}  # as mine is
SAME_ROWS = "give both the same rows, in the same order; or see what is made a step too early"
OTHER_NUMBERS = "see how both make that array: its rows, their order, a scaling, a mask"
STATE = "see where both take that array from: a state may be made anew, or carried over"


@dataclass(frozen=True)
class Parting:
    """What mine does otherwise, so that its gradient is another.

    Args:
        cause: the report's word for it.
        mine: what mine does, in words.
        change: what to change.
        weights: whose gradients differ.
    """

    cause: str
    mine: str
    change: str
    weights: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Call:
    """A function of a tape, with what it has returned, on the CPU, and on which device that was."""

    function: Function
    made: tuple[Tensor, ...]
    device: torch.device


def parting(record: Record, step: int) -> Parting | None:
    """Where the gradients of mine and theirs part in a step; None where that cannot be seen.

    Args:
        record: of two programs that both were observed.
        step: from 0.
    """
    at = record.steps[step]
    if at.raw is None or at.given is None:
        return None
    unlike = record.unlike(at.raw, at.fresh)
    if not unlike:
        changed = record.unlike(at.given, at.used)
        own = [name for name in record.unlike(at.given, at.raw) if name in changed]
        return _afterwards(own or changed, by_mine=bool(own)) if changed else None
    whole = at.whole
    if whole is None or whole.mine is None:
        return None
    try:
        told = _Tapes(record, step, whole, whole.mine).told()
    except IMPOSSIBLE:  # mine's loss depends on weights that it does not show, say
        return None
    return told and Parting(*told, tuple(unlike))


def updated_before(record: Record, step: int) -> bool:
    """Whether mine's gradients in a step are theirs, at weights that the step has updated before.

    So it is where several optimizers step in turn, as those of a GAN do.
    """
    at, plain = record.steps[step], record.gradient(step, None)
    if at.raw is None or at.whole is None or plain is None:
        return False
    unlike = {*record.unlike(at.raw, at.fresh)}
    if not unlike & {*record.unlike(plain, at.fresh)}:  # theirs has updated none before
        return False
    now = {**at.whole.after, **{name: at.whole.before[name] for name in unlike}}
    found = record.sampled(at.whole.tape.gradients(record.values(now)), record.parameters)
    return not unlike & {*record.unlike(at.raw, found)}


def _afterwards(weights: Sequence[str], *, by_mine: bool) -> Parting:
    """What one of the two makes of its gradients between backward() and step()."""
    mine, theirs = "changes", "does not, or does otherwise"
    if not by_mine:
        mine, theirs = "does not change", "does"
    return Parting(
        "changed gradients",
        f"{mine} the gradients of {listed(weights)} after backward(), where theirs {theirs}",
        "look at what stands between backward() and step() in both, or within step()",
        tuple(weights),
    )


class _Tapes:
    """The tapes of both, run from mine's weights."""

    def __init__(self, record: Record, step: int, whole: Whole, mine: Tape) -> None:
        self.record, self.step = record, step
        self.tapes = mine, whole.tape
        self.names = (
            {id(parameter): name for name, parameter in record.ours.items()},
            {id(parameter): name for name, parameter in record.parameters.items()},
        )
        ours = {id(p): record.layout[n].back(whole.before[n]).to(p) for n, p in record.ours.items()}
        weights = ours, record.values(whole.before)
        runs = [_run(tape, now) for tape, now in zip(self.tapes, weights, strict=True)]
        self.gradient = record.sampled(runs[0][1], record.ours)
        # Where one has a loss for each of several micro-batches, the other is run in these, too.
        self.single = int(len(mine.losses) > len(whole.tape.losses))
        single, several = self.tapes[self.single], self.tapes[1 - self.single]
        self.parts = _micro_batches(single, several)
        self.all_rows = runs[self.single][0]
        calls = [runs[0][0], runs[1][0]]
        if self.parts:
            calls[self.single] = _in_parts(single, weights[self.single], self.parts)
        self.calls = calls[0], calls[1]

    def told(self) -> tuple[str, str, str] | None:
        """The cause, what mine does, and what to change; None where the tapes do not show it."""
        ours, others = self._first_alone()
        alone = [call for call in (ours, others) if call]
        if self.parts and all(map(_is_scaled, alone)):
            return self._gradients_otherwise()
        counts = [len(tape.losses) for tape in self.tapes]
        if counts[0] != counts[1] and not self.parts:
            said = f"takes {counts[0]} gradients in this step, where theirs takes {counts[1]}"
            change = (
                "take as many backward passes in a step, and set gradients to 0 where theirs does"
            )
            return "changed gradients", said, change
        pair = self._pair(ours, others)
        if pair and (told := self._otherwise(*pair)):
            return told
        here = self._call(0, ours) if ours else ""
        there = self._call(1, others) if others else ""
        if ours and others and ours.function.name == others.function.name:
            change = f"compare what {_name(ours.function)} is given"
            return "another function", f"has other values after {here}", change
        if ours and others:
            said = f"has other values from its {here} on, where theirs has {there}"
            change = f"put theirs' {_name(others.function)} in its place, or before it"
            return "another function", said, change
        if ours:
            said = f"has values that theirs has not, from its {here} on"
            return "another function", said, f"leave out {_name(ours.function)}"
        if others:
            said = f"does without {there} of theirs"
            return "another function", said, f"add {_name(others.function)}"
        return self._gradients_otherwise()

    def _gradients_otherwise(self) -> tuple[str, str, str] | None:
        """What mine does where it has all of theirs' values, but not theirs' gradients."""
        at, same = self.record.steps[self.step], self.record.same
        plain = self.record.gradient(self.step, None)
        if plain is None or at.raw is None:
            return None
        products = at.products_of_mine, at.products
        if products[0] != products[1] and same(self.gradient, plain):  # in full precision
            mine, theirs = map(in_words, products)
            said = f"multiplies matrices {mine}, where theirs does {theirs}"
            return "precision", said, advice(said)
        if not at.products and not same(at.fresh, plain):
            return None  # theirs takes its gradient elsewhere than at the weights before the step
        if not at.products_of_mine and not same(at.raw, self.gradient):
            return (
                "changed gradients",
                "computes what theirs does, but does not have the gradients that come of it",
                "look for a hook, for weights that change before backward(), or for clipping or "
                "zero_grad() between two backward passes of a step",
            )
        if self.parts:
            return self._in_micro_batches()
        for ours in self.calls[0]:
            others = self._counterpart(0, ours)
            if others and (told := self._otherwise(ours, others)):
                return told
        if float((at.raw - at.fresh).abs().max()) <= NEAR * float(at.fresh.abs().max()):
            said = "has values so near theirs' that where the two part is not seen"
            return "another function", said, "compare both in float64: look for an eps, say"
        return (
            "another function",
            "computes the same loss, but hands another gradient on",
            "look for detach(), no_grad(), .data, or a backward() of its own",
        )

    def _in_micro_batches(self) -> tuple[str, str, str]:
        """What differs where one of the two takes its rows in micro-batches."""
        both = f"all rows at once, where theirs takes {len(self.parts)} micro-batches"
        if self.single:
            both = f"{len(self.parts)} micro-batches, where theirs takes all rows at once"
        if mixing := self._mixes_rows():
            return "another function", f"takes {mixing} over {both}", "take it over the same rows"
        return (
            "unequal micro-batches",
            f"takes its loss over {both}, and these do not add up to that",
            "weigh each micro-batch by what its loss is a mean over: its rows, or its targets",
        )

    def _mixes_rows(self) -> str:
        """The first function of all rows that does not take them one by one, if any."""
        order = torch.cat([torch.arange(part.start, part.stop) for part in self.parts])
        for number, call in enumerate(self.all_rows):
            rows, alike = call.made[0], self.calls[self.single][number :: len(self.all_rows)]
            by_rows = rows.ndim > 0 and len(rows) == len(order)
            if by_rows and not self._same(torch.cat([one.made[0] for one in alike]), rows[order]):
                return self._call(self.single, call)
        return ""

    def _first_alone(self) -> tuple[_Call | None, _Call | None]:
        """The first call of each that the other one has no values of."""
        ours, others = self._alone(0), self._alone(1)
        first, other = (next(iter(calls), None) for calls in (ours, others))
        if first and other and first.function.name == other.function.name:
            # Of calls with one name, those belong together that are given the same rows.
            alike = [call for call in others if self._given_alike(first, call)]
            other = next(iter(alike), other)
        return first, other

    def _alone(self, side: int) -> list[_Call]:
        """The calls that the other one has no values of, nor of what comes of them."""
        known = [tensor for call in self.calls[1 - side] for tensor in call.made]
        alone: list[_Call] = []
        reached: set[int] = set()  # slots from which values of the other's come again
        for call in reversed(self.calls[side]):
            slots = set(call.function.outputs)
            if not slots.isdisjoint(reached) or any(self._among(one, known) for one in call.made):
                reached |= call.function.inputs()
            else:
                alone.append(call)
        return alone[::-1]

    def _given_alike(self, one: _Call, other: _Call) -> bool:
        """Whether two calls are of one function, and the first array of both is the same."""
        if one.function.name != other.function.name:
            return False
        rows, others = (next(_constants(call.function), None) for call in (one, other))
        return rows is not None and others is not None and self._same(rows, others)

    def _pair(self, ours: _Call | None, others: _Call | None) -> tuple[_Call, _Call] | None:
        """A call of mine and one of theirs that should do the same, of which one does not."""
        if ours and others and ours.function.name == others.function.name:
            return ours, others
        if others and (own := self._counterpart(1, others, ours)):
            return own, others
        if ours and (other := self._counterpart(0, ours, others)):
            return ours, other
        return None

    def _counterpart(self, side: int, call: _Call, first: _Call | None = None) -> _Call | None:
        """The other one's call at the same place, where both have as many of that function.

        Args:
            side: 0 for a call of mine, 1 for one of theirs.
            call: the call.
            first: before which it stands in the other one, if anywhere.
        """
        name = call.function.name
        own, other = ([c for c in calls if c.function.name == name] for calls in self.calls)
        if len(own) != len(other):
            return None
        here, there = (own, other) if side == 0 else (other, own)
        found, calls = there[here.index(call)], self.calls[1 - side]
        return found if not first or calls.index(found) < calls.index(first) else None

    def _among(self, tensor: Tensor, known: Sequence[Tensor]) -> bool:
        return any(self._same(tensor, other) for other in known)

    def _same(self, one: Tensor, other: Tensor) -> bool:
        """Whether two arrays hold the same but for rounding, be one of them transposed."""
        if one.numel() != other.numel():
            return False
        if not one.is_floating_point() or not other.is_floating_point():
            return one.shape == other.shape and torch.equal(one, other)
        one, other = one.detach().squeeze(), other.detach().squeeze()
        sizes = other.abs()
        largest = sizes.where(sizes.isfinite(), 0.0).max()
        off = float(of_gradients(self.record.epsilon) * largest)
        ways = (other, other.mT) if other.ndim == 2 else (other,)
        return any(
            way.shape == one.shape and torch.allclose(one, way, rtol=0, atol=off, equal_nan=True)
            for way in ways
        )

    def _call(self, side: int, call: _Call) -> str:
        """A function in words, with its place."""
        function, tape = call.function, self.tapes[side]
        count = sum(one.name == function.name for one in tape.functions)
        number = f"number {function.place + 1} of {count}" if count > 1 else ""
        near = place_of(function, tape, self.names[side])
        said = ", ".join(filter(None, [number, near]))
        return f"{_name(function)} ({said})" if said else _name(function)

    def _otherwise(self, ours: _Call, others: _Call) -> tuple[str, str, str] | None:
        """The same function in both, by what it was given in mine and in theirs."""
        call = self._call(0, ours)
        mine, theirs = _arguments(ours.function), _arguments(others.function)
        both = [(n, mine[n], theirs[n]) for n in mine if n in theirs and n not in IDLE]
        for argument, here, there in both:
            plain = isinstance(here, PLAIN) and isinstance(there, PLAIN)
            given = [isinstance(one, (Tensor, Slot)) for one in (here, there)]
            lacking = sorted(given) == [False, True] and (here is None or there is None)
            if lacking or (plain and here != there):
                said = f"has {call} with {argument} {_shown(here)}, theirs has {_shown(there)}"
                change = MODES.get(here) if argument == "training" else None
                return "another function", said, change or f"give both the same {argument}"
        if lone := self._given_to_one(call, mine, theirs):
            return lone
        for argument, here, there in both:
            arrays = isinstance(here, Tensor) and isinstance(there, Tensor)
            if arrays and not self._same(here, there):
                if argument in RUNNING and mine["momentum"] != theirs["momentum"]:
                    return _other_momentum(call, argument, mine, theirs)
                what = "array" if argument in WHOLE_ARRAYS else argument
                return self._other_array(call, what, here, there)
            kinds = [{type(each) for each in flattened([one])} for one in (here, there)]
            if Slot in kinds[1] - kinds[0]:
                said = f"gives {call} a constant, where theirs has what comes of its weights"
                return "another function", said, "hand on what was computed before, undetached"
        return self._drawn_otherwise(call, ours, others)

    def _drawn_otherwise(
        self, call: str, ours: _Call, others: _Call
    ) -> tuple[str, str, str] | None:
        """Other random numbers."""
        states, others_states = ours.function.generators, others.function.generators
        if not states or not others_states:
            return None
        if ours.device != others.device:
            said = f"draws the random numbers of {call} on {ours.device}, theirs on {others.device}"
            return "random numbers", said, "draw them on one device in both, or leave that out"
        if not all(map(torch.equal, states, others_states)):
            return (
                "random numbers",
                f"draws other random numbers in {call}",
                "call torch.manual_seed with the same number before both, and draw nothing else",
            )
        return None

    def _given_to_one(
        self, call: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]
    ) -> tuple[str, str, str] | None:
        """An option, as the axes of a sum, that a function has in one of the two alone."""
        own, others = (
            {n: x for n, x in one.items() if n not in other and x is not None and x is not False}
            for one, other in ((mine, theirs), (theirs, mine))
        )
        (name, value), *_ = [*own.items(), *others.items(), ("", None)]
        if not name or (own and others) or isinstance(value, (Tensor, Slot)):
            return None
        if name in own:
            said = f"has {call} with {name} {value!r}, theirs has none"
            return "another function", said, f"leave out {name}"
        said = f"has {call} without {name}, which is {value!r} in theirs"
        return "another function", said, f"give it that {name}"

    def _other_array(
        self, call: str, what: str, mine: Tensor, theirs: Tensor
    ) -> tuple[str, str, str]:
        """Other numbers that a function is given: rows of data, targets, a state, a mask."""
        arrays = {
            number: [one for f in step.whole.tape.functions for one in _constants(f)]
            for number, step in enumerate(self.record.steps, start=1)
            if step.whole
        }
        at, other = _throughout(mine), _throughout(theirs)
        if at != other and None in (at, other):
            own = "other numbers" if at is None else f"{at:g} throughout"
            others = "other numbers" if other is None else f"{other:g}"
            return "other rows", f"gives {call} {own}, where theirs gives it {others}", STATE
        if self._among(mine, arrays.pop(self.step + 1)):
            return "other rows", f"gives {call} what theirs gives another call", OTHER_NUMBERS
        for number, there in arrays.items():
            if self._among(mine, there):
                said = f"takes step {self.step + 1} with the rows of step {number}: see {call}"
                return "rows of another step", said, SAME_ROWS
        said = f"gives {call} another {what} of shape {tuple(mine.shape)}"
        if mine.shape != theirs.shape:
            said = f"{said}; theirs is of shape {tuple(theirs.shape)}"
            return "other rows", said, OTHER_NUMBERS
        one, two = mine.double(), theirs.double()
        apart = (one - two).abs()
        if float(apart.max()) <= NEAR * float(two.abs().max()):
            said = f"{said}; the two are at most {float(apart.max()):.2g} apart"
            return "other rows", said, "see in which precision both read and keep their data"
        spread = two - two.mean()
        times = float((one * spread).sum() / spread.square().sum())
        plus = float(one.mean() - times * two.mean())
        if float((times * two + plus - one).abs().max()) <= NEAR * float(one.abs().max()):
            more = f", plus {plus:.4g}" if abs(plus) > NEAR * float(two.abs().max()) else ""
            return "other rows", f"{said}: {times:.4g} times theirs{more}", OTHER_NUMBERS
        said += f"; {float((apart > 0).double().mean()):.0%} of its numbers differ"
        known = {
            tuple(row) for one in [theirs, *itertools.chain(*arrays.values())] for row in _rows(one)
        }
        strange = mine.ndim > 1 and known.isdisjoint(map(tuple, _rows(mine)))
        said += ", and theirs has none of its rows" if strange else ""
        return "other rows", said, OTHER_NUMBERS


def _other_momentum(
    call: str, average: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[str, str, str]:
    """BatchNorm's momentum, which changes no gradient until its averages are used."""
    here, there = mine["momentum"], theirs["momentum"]
    said = f"has {call} with momentum {here}, theirs has {there}, and so another {average}"
    return "another function", said, "give both the same momentum"


def _rows(array: Tensor) -> set[tuple[float, ...]]:
    """The rows of an array, each once."""
    return {tuple(row) for row in array.flatten(1).tolist()} if array.ndim > 1 else set()


def _throughout(array: Tensor) -> float | None:
    """The number that an array has in all its elements; None where they differ."""
    first = array.flatten()[:1]
    return float(first) if array.numel() and bool((array == first).all()) else None


def _is_scaled(call: _Call) -> bool:
    """Whether a call makes a loss, as one number, smaller or larger."""
    return call.function.name in SCALED and all(one.numel() == 1 for one in call.made)


def _micro_batches(single: Tape, several: Tape) -> list[slice]:
    """Which rows of a single loss each of several is over, if together they are over all of them.

    Empty where they are not, or where the rows of one do not stand together.
    """
    rows = next((one for f in single.functions for one in _constants(f) if one.ndim), None)
    if rows is None or len(several.losses) <= len(single.losses):
        return []
    arrays = (one for function in several.functions for one in _constants(function))
    parts = [part for one in arrays if (part := _part_of(rows, one))]
    ends = [0, *sorted(part.stop for part in parts)]
    together = ends[:-1] == sorted(part.start for part in parts) and ends[-1] == len(rows)
    return parts if together and len(parts) == len(several.losses) else []


def _part_of(rows: Tensor, array: Tensor) -> slice | None:
    """Where an array stands in another one, as some of its rows."""
    if array.shape[1:] != rows.shape[1:] or array.ndim != rows.ndim or not len(array):
        return None
    begins = (rows == array[0]).reshape(len(rows), -1).all(dim=1).nonzero().flatten().tolist()
    parts = (slice(begin, begin + len(array)) for begin in begins)
    return next((part for part in parts if torch.equal(rows[part], array)), None)


def _name(function: Function) -> str:
    return "indexing" if function.name == "__getitem__" else function.name


def _run(tape: Tape, weights: Mapping[int, Tensor]) -> tuple[list[_Call], dict[int, Tensor]]:
    """The calls of a tape, with their values at these weights, and the gradients."""
    calls, values = [], tape.beginning(weights)
    for function in tape.functions:
        made = tape.call(function, values)
        values |= zip(function.outputs, made, strict=True)
        kept = tuple(one.detach().clone().cpu() for one in made)
        calls.append(_Call(function, kept, made[0].device))
    found = tape.backward(values, tape.trained)
    return calls, tape.by_parameter(values, found)


def _in_parts(tape: Tape, weights: Mapping[int, Tensor], parts: Sequence[slice]) -> list[_Call]:
    """The calls of a tape that is run with some of its rows at a time."""
    try:
        runs = [_run(tape.of_rows(part), weights) for part in parts]
    except IMPOSSIBLE:  # each row of the targets has several elements, say, and they are flattened
        runs = [_run(tape.of_rows(part, flattened=True), weights) for part in parts]
    return [call for calls, _ in runs for call in calls]


def _constants(function: Function) -> Iterator[Tensor]:
    """The arrays that a function was given which do not depend on weights; on the CPU."""
    return (one.cpu() for one in tensors((function.args, function.kwargs)))


def _arguments(function: Function) -> dict[str, Any]:
    """Name → what the function was given, or its default; arrays on the CPU."""
    found = _as_given(function)
    return {name: one.cpu() if isinstance(one, Tensor) else one for name, one in found.items()}


def _as_given(function: Function) -> dict[str, Any]:
    try:
        bound = inspect.signature(function.call).bind(*function.args, **function.kwargs)
    except (ValueError, TypeError):  # of a function in C
        return _by_schema(function)
    bound.apply_defaults()
    return dict(bound.arguments)


def _by_schema(function: Function) -> dict[str, Any]:
    """The same by PyTorch's own declaration of an operator of that name, if there is one."""
    packet, given = getattr(torch.ops.aten, function.name, None), len(function.args)
    known: Sequence[Any] = ()
    for overload in packet.overloads() if packet else ():
        declared = getattr(packet, overload)._schema.arguments
        if given <= sum(not one.kwarg_only for one in declared):
            known = declared
            break
    names = [*(one.name for one in known), *(f"argument {k + 1}" for k in range(given))]
    defaults = {one.name: one.default_value for one in known if one.has_default_value()}
    return {**defaults, **dict(zip(names, function.args, strict=False)), **function.kwargs}


def _shown(value: Any) -> str:  # noqa: ANN401 (whatever a function is given)
    return f"an array of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
