"""Where two programs of PyTorch part on the way from the same weights to their losses.

Where mine is PyTorch code as well, its tape can be laid beside that of theirs: the first function
of mine whose values theirs never has is where the two part.
"""

from __future__ import annotations

__all__ = ["CAUSES", "Parting", "parting"]

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .backward import IMPOSSIBLE
from .breaks import after_module
from .diagnosis import listed
from .evidence import of_gradients
from .record import Record, Whole
from .tape import Function, Slot, Tape, tensors

CAUSES = {  # the words for it
    *("another function", "other rows", "rows of another step", "random numbers"),
    "changed gradients",
}
NEAR = 1e-4  # of the largest number: arrays that lie so near are the same, rounded or scaled
PLAIN = bool | int | float | str | None  # values of options
SAME_ROWS = "give both the same rows, in the same order"


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


@dataclass(frozen=True)
class _Call:
    """A function of a tape, with what it has returned."""

    function: Function
    made: tuple[Tensor, ...]


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
        return _afterwards(record.unlike(at.given, at.used))
    whole = at.whole
    if whole is None or whole.mine is None:
        return None
    try:
        cause, mine, change = _Tapes(record, step, whole, whole.mine).told()
    except IMPOSSIBLE:  # mine's loss depends on weights that it does not show, say
        return None
    return Parting(cause, mine, change, tuple(unlike))


def _afterwards(weights: Sequence[str]) -> Parting:
    """What mine makes of its gradients between backward() and step()."""
    return Parting(
        "changed gradients",
        f"changes the gradients of {listed(weights)} between backward() and step(), where theirs "
        "does not, or does otherwise",
        "look at what stands between backward() and step() in both",
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
        others = {id(p): whole.before[n].to(p) for n, p in record.parameters.items()}
        self.calls = _run(mine, ours), _run(whole.tape, others)

    def told(self) -> tuple[str, str, str]:
        """The cause, what mine does, and what to change."""
        ours, others = (self._first_alone(side) for side in (0, 1))
        if ours and others and ours.function.name == others.function.name:
            return self._otherwise(ours, others)
        here = self._call(0, ours) if ours else ""
        there = self._call(1, others) if others else ""
        if ours and others:
            said = f"has other values from its {here} on, where theirs has {there}"
            return (
                "another function",
                said,
                f"let it give what theirs' {_name(others.function)} does",
            )
        if ours:
            said = f"has values that theirs has not, from its {here} on"
            return "another function", said, f"leave out {_name(ours.function)}"
        if others:
            said = f"does without {there}, which theirs has"
            return "another function", said, f"add {_name(others.function)}"
        return (
            "another function",
            "computes the same loss, but hands another gradient on",
            "look for detach(), no_grad(), .data, a hook, or a backward() of its own",
        )

    def _first_alone(self, side: int) -> _Call | None:
        """The first call that the other one has no values of, nor of what comes of it."""
        known = [tensor for call in self.calls[1 - side] for tensor in call.made]
        alone: list[_Call] = []
        reached: set[int] = set()  # slots from which values of the other's come again
        for call in reversed(self.calls[side]):
            slots = set(call.function.outputs)
            if not slots.isdisjoint(reached) or any(self._among(one, known) for one in call.made):
                reached |= call.function.inputs()
            else:
                alone.append(call)
        return alone[-1] if alone else None

    def _among(self, tensor: Tensor, known: Sequence[Tensor]) -> bool:
        return any(self._same(tensor, other) for other in known)

    def _same(self, one: Tensor, other: Tensor) -> bool:
        """Whether two arrays hold the same but for rounding, be one of them transposed."""
        if one.numel() != other.numel():
            return False
        if not one.is_floating_point() or not other.is_floating_point():
            return one.shape == other.shape and torch.equal(one, other)
        off = of_gradients(self.record.epsilon) * float(other.detach().abs().max())
        one, other = one.detach().squeeze(), other.detach().squeeze()
        ways = (other, other.mT) if other.ndim == 2 else (other,)
        return any(
            way.shape == one.shape and bool(((one - way).abs() <= off).all()) for way in ways
        )

    def _call(self, side: int, call: _Call) -> str:
        """A function in words, with its place."""
        function, tape = call.function, self.tapes[side]
        count = sum(one.name == function.name for one in tape.functions)
        number = f"number {function.place + 1} of {count}" if count > 1 else ""
        near = after_module(function, tape, self.names[side])
        said = ", ".join(filter(None, [number, near]))
        return f"{_name(function)} ({said})" if said else _name(function)

    def _otherwise(self, ours: _Call, others: _Call) -> tuple[str, str, str]:
        """The same function in both, by what it was given in mine and in theirs."""
        call, name = self._call(0, ours), _name(ours.function)
        mine, theirs = _arguments(ours.function), _arguments(others.function)
        both = [(n, mine[n], theirs[n]) for n in mine if n in theirs and n != "inplace"]
        for argument, here, there in both:
            plain = isinstance(here, PLAIN) and isinstance(there, PLAIN)
            given = [isinstance(one, (Tensor, Slot)) for one in (here, there)]
            lacking = sorted(given) == [False, True] and (here is None or there is None)
            if lacking or (plain and here != there):
                said = f"has {call} with {argument} {_shown(here)}, theirs has {_shown(there)}"
                return "another function", said, f"give both the same {argument}"
        for _, here, there in both:
            arrays = isinstance(here, Tensor) and isinstance(there, Tensor)
            if arrays and not self._same(here, there):
                return self._other_array(call, here, there)
        state, other = ours.function.generator, others.function.generator
        if state is not None and other is not None and not torch.equal(state, other):
            return (
                "random numbers",
                f"draws other random numbers in {call}",
                "call torch.manual_seed with the same number before both, and draw nothing else",
            )
        return "another function", f"has other values after {call}", f"compare what {name} is given"

    def _other_array(self, call: str, mine: Tensor, theirs: Tensor) -> tuple[str, str, str]:
        """Other numbers that a function is given: rows of data, or other constants."""
        for number, step in enumerate(self.record.steps, start=1):
            if step.whole and number != self.step + 1:
                there = [
                    one for f in step.whole.tape.functions for one in tensors((f.args, f.kwargs))
                ]
                if self._among(mine, there):
                    said = f"gives {call} the rows that theirs has in step {number}"
                    return "rows of another step", said, SAME_ROWS
        sizes = tuple(mine.shape), tuple(theirs.shape)
        said = f"gives {call} another array of shape {sizes[0]}"
        if sizes[0] != sizes[1]:
            return "other rows", f"{said}; theirs is of shape {sizes[1]}", SAME_ROWS
        apart = (mine.double() - theirs.double()).abs()
        share = float((apart > 0).double().mean())
        if float(apart.max()) <= NEAR * float(theirs.double().abs().max()):
            said = f"{said}; the two are at most {float(apart.max()):.2g} apart"
            return "other rows", said, "see in which precision both read and keep their data"
        return "other rows", f"{said}; {share:.0%} of its numbers differ", SAME_ROWS


def _name(function: Function) -> str:
    return "indexing" if function.name == "__getitem__" else function.name


def _run(tape: Tape, weights: Mapping[int, Tensor]) -> list[_Call]:
    """The calls of a tape, with their values at these weights."""
    calls, values = [], tape.beginning(weights)
    for function in tape.functions:
        made = tape.call(function, values)
        values |= zip(function.outputs, made, strict=True)
        calls.append(_Call(function, tuple(one.detach().clone() for one in made)))
    return calls


def _arguments(function: Function) -> dict[str, Any]:
    """Name → what the function was given, or its default."""
    try:
        bound = inspect.signature(function.call).bind(*function.args, **function.kwargs)
    except (ValueError, TypeError):  # of a function in C
        places = {f"argument {k}": one for k, one in enumerate(function.args, start=1)}
        return {**places, **function.kwargs}
    bound.apply_defaults()
    return dict(bound.arguments)


def _shown(value: Any) -> str:  # noqa: ANN401 (whatever a function is given)
    return f"an array of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
