"""The gradient of a tape with a mistake in it.

A function of the tape is replaced by one that has the same value and another derivative: the
gradient then is what mine would be, had it been derived with that mistake.
"""

from __future__ import annotations

__all__ = ["IMPOSSIBLE", "gradient"]

import itertools
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ..observing.tape import Function, Pass, Slot, Tape
from .breaks import WHOLE, Break, leaf
from .functions import (
    ADDITION,
    CONVOLUTIONS,
    ELEMENTWISE,
    MOVING,
    NORMS,
    POOLING,
    PRODUCTS,
    RESHAPING,
)
from .mistakes import Local
from .norms import norm_of

# Of a tape that is run otherwise, where something does not fit.
IMPOSSIBLE = (RuntimeError, ValueError, IndexError, TypeError, KeyError)
Arrays = Mapping[int, Tensor]  # `id` of a parameter → an array of its shape


def gradient(
    tape: Tape,
    weights: Arrays,
    new: Arrays,
    names: Mapping[int, str],
    one: Break | None = None,
    rates: Mapping[int, float] | None = None,
    known: Pass | None = None,
) -> Arrays | None:
    """The gradient with a mistake; None where it cannot be made.

    Args:
        tape: of the step.
        weights: the parameters' values.
        new: the same after mine's step.
        names: `id` of a parameter → its name.
        one: the mistake; None for the true gradient.
        rates: `id` of a parameter → its learning rate, for what updates it several times.
        known: the tape at these weights, with which it is found sooner, if to a few roundings more.
    """
    parts = one.parts if one else ()
    orders = [part for part in parts if part.what in WHOLE]
    inside = [part for part in parts if part.what not in WHOLE]

    def at(now: Arrays, rows: slice | None = None) -> Arrays:
        some = tape if rows is None else tape.of_rows(rows)
        return _Maker(some, now, inside, new, names, None if orders else known).gradients()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that broadcast, which is the point
            if not orders:
                return at(weights)
            (order,) = orders  # two cannot be made at once
            if order.what == "in_order":
                return _in_order(at, weights, new, names, order.detail)
            if order.what == "row_by_row":
                return _row_by_row(at, weights, rates or {}, *order.detail)
            return _in_micro_batches(at, weights, *order.detail)
    except IMPOSSIBLE:
        return None


At = Callable[..., Arrays]  # the gradient at some weights, of all rows or of some


def _in_order(
    at: At, weights: Arrays, new: Arrays, names: Mapping[int, str], order: Sequence[Sequence[str]]
) -> Arrays:
    """Each group's gradients where the groups before it are new already."""
    found: dict[int, Tensor] = {}
    now = dict(weights)
    for group in order:
        for key, grad in at(now).items():
            if names[key] in group:
                found[key], now[key] = grad, new[key]
    return found


def _row_by_row(
    at: At, weights: Arrays, rates: Mapping[int, float], rows: int, share: float
) -> Arrays:
    """What gradient descent moves by, row after row, as one gradient."""
    now = dict(weights)
    for row in range(rows):
        moved = at(now, slice(row, row + 1))
        for key, grad in moved.items():
            now[key] = now[key] - rates[key] * share * grad
    return {key: (weights[key] - now[key]) / rates[key] for key in moved}


def _in_micro_batches(at: At, weights: Arrays, rows: int, size: int) -> Arrays:
    """The mean of the gradients of micro-batches."""
    some = [at(weights, slice(k, k + size)) for k in range(0, rows, size)]
    return {key: torch.stack([grads[key] for grads in some]).mean(0) for key in some[0]}


def _held(one: Any) -> Any:  # noqa: ANN401
    """A tensor that hands no gradient on."""
    return one.detach() if isinstance(one, Tensor) else one


def _no(path: Tensor) -> Tensor:
    """0, with the gradient of a path."""
    return path - path.detach()


class _Handed(torch.autograd.Function):
    """A value; to the input that it is of, a gradient is handed as a formula has it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, formula: Callable[[Tensor], Tensor]) -> Tensor:  # noqa: ANN401, ARG004
        ctx.formula = formula
        return value.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return ctx.formula(g), None, None


_handed: Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor] = _Handed.apply


@dataclass(frozen=True)
class _Path:
    """By which an input of a function gets its gradient.

    Args:
        place: the input's.
        given: place → what the function is given there instead.
        formula: what is made of the gradient that comes back first.
    """

    place: int
    given: Mapping[int, Tensor] = field(default_factory=dict)
    formula: Callable[[Tensor], Tensor] | None = None


def _local(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Local:
    place = next((k for k, arg in enumerate(function.args) if isinstance(arg, Slot)), 0)

    def call(x: Tensor) -> Tensor:
        made: Tensor = function.run([*args[:place], x, *args[place + 1 :]], kwargs)
        return made

    return Local(function, call, args, kwargs, args[place])


class _Maker:
    """Make mistakes while a tape is run; `instead` is called in place of each function."""

    def __init__(
        self,
        tape: Tape,
        weights: Arrays,
        parts: Sequence[Break],
        new: Arrays,
        names: Mapping[int, str],
        known: Pass | None,
    ) -> None:
        self.tape, self.weights, self.parts = tape, weights, parts
        self.new, self.names, self.known = new, names, known
        self.made: set[Break] = set()

    def gradients(self) -> Arrays:
        """The gradients.

        Raises:
            ValueError: one of the mistakes is not possible anywhere.
        """
        if self.known:
            functions = enumerate(self.tape.functions)
            concerned = [k for k, f in functions if any(one.concerns(f) for one in self.parts)]
            found = self.known.gradients(self.instead, concerned)
        else:
            found = self.tape.gradients(self.weights, self.instead if self.parts else None)
        if len(self.made) < len(self.parts):
            raise ValueError("not made")
        return found

    def instead(
        self,
        function: Function,
        args: list[Any],
        kwargs: dict[str, Any],
        values: Mapping[int, Tensor],
    ) -> Any:  # noqa: ANN401 (whatever the function returns)
        concerned = [one for one in self.parts if one.concerns(function)]
        self.function, self.args, self.kwargs, self.values = function, list(args), kwargs, values
        paths: list[_Path] = []
        for one in concerned:
            self.one = one
            changed = getattr(self, one.what)()
            if changed is NotImplemented:
                continue
            self.made.add(one)
            if not isinstance(changed, _Path):
                return changed
            paths.append(changed)
        return self._apart(paths) if paths else NotImplemented

    @cached_property
    def true(self) -> Pass:
        """The tape without mistakes."""
        return self.known or Pass(self.tape, self.weights)

    def _run(self, args: list[Any]) -> Any:  # noqa: ANN401
        return self.function.run(args, self.kwargs)

    def _with(self, path: Any) -> Any:  # noqa: ANN401 (several tensors, as of split: not made)
        """The function's value, with the gradient of a path."""
        return self._value() + _no(path) if isinstance(path, Tensor) else NotImplemented

    def _value(self) -> Tensor:
        made: Tensor = self._run(self.args).detach()
        return made

    def _apart(self, paths: Sequence[_Path]) -> Tensor:
        """The function's value, where the gradients of some inputs come by paths of their own."""
        made = self._value()
        for place, arg in enumerate(self.args):
            if isinstance(arg, Tensor) and arg.requires_grad:
                args = [_held(one) if k != place else one for k, one in enumerate(self.args)]
                mine = [path for path in paths if path.place == place]
                for path in mine:
                    for k, one in path.given.items():
                        args[k] = one
                given = self._run(args)
                for path in mine:
                    if path.formula:
                        given = _handed(given, given.detach(), path.formula)
                made = made + _no(given)
        return made

    def formula(self) -> Any:  # noqa: ANN401
        formula, local = self.one.detail, _local(self.function, self.args, self.kwargs)
        alike = local.y.shape in (local.x.shape, ())  # no input that was broadcast, say
        single = len(self.function.slots()) == 1 or self.function.name in NORMS
        if not single or not alike:
            return NotImplemented
        made = _handed(local.x, local.y.detach(), lambda g: formula(g, local))
        own = local.call(local.x.detach())  # with the gradients of a norm's own weight and bias
        return made + _no(own) if own.requires_grad else made

    def scaled(self) -> Any:  # noqa: ANN401
        if self.kwargs.get("reduction", "mean") != "mean":
            return NotImplemented
        factor = self.one.detail(_local(self.function, self.args, self.kwargs))
        return self._with(self._run(self.args) * _held(factor))

    def pooled_evenly(self) -> Any:  # noqa: ANN401
        given = {k: v for k, v in self.kwargs.items() if k in {"stride", "padding", "ceil_mode"}}
        return self._with(POOLING[self.function.name](*self.args[:4], **given))

    def of_errors(self) -> Any:  # noqa: ANN401
        reduction = self.kwargs.get("reduction", "mean")
        return self._with(self.one.detail(*self.args[:2], reduction=reduction))

    def skipped(self) -> Any:  # noqa: ANN401
        slots = self.function.slots()
        return self.values[slots[0]] if len(slots) == 1 else NotImplemented

    def replaced(self) -> Any:  # noqa: ANN401
        return self.one.detail(self.args[0]) if len(self.function.slots()) == 1 else NotImplemented

    def other(self) -> Any:  # noqa: ANN401
        option, place, value = self.one.detail
        value = value(self.args[0]) if callable(value) else value
        args, kwargs = list(self.args), dict(self.kwargs)
        if len(args) > place:
            args[place] = value
        else:
            kwargs[option] = value
        return self.function.run(args, kwargs)

    def other_numbers(self) -> Any:  # noqa: ANN401
        place, times, plus = self.one.detail
        args = list(self.args)
        if len(args) <= place or not isinstance(args[place], Tensor) or args[place].requires_grad:
            return NotImplemented
        given: Tensor = args[place]
        columns = [1, len(times), *[1] * (given.ndim - 2)] if len(times) > 1 else []
        by, more = (given.new_tensor(numbers).reshape(columns or -1) for numbers in (times, plus))
        args[place] = by * given + more
        return self._run(args)

    def derivative_of_other(self) -> Any:  # noqa: ANN401
        return self._with(self.other())

    def last_of_index(self) -> Any:  # noqa: ANN401
        whole = [a for a in self.args if isinstance(a, Tensor) and a.dtype == torch.long]
        if len(whole) != 1:
            return NotImplemented
        index = whole[0]
        made, flat = self._run(self.args), index.flatten().tolist()
        if self.one.detail == "in each row":
            length = index[0].numel()
            flat = [(number // length, row) for number, row in enumerate(flat)]
        last = {row: number for number, row in enumerate(flat)}
        keep = torch.tensor([last[row] == number for number, row in enumerate(flat)]).to(made)
        return self._with(made * keep.reshape(index.shape + (1,) * (made.ndim - index.ndim)))

    def one_use(self) -> Any:  # noqa: ANN401
        uses: dict[int, list[Function]] = {}
        for function in self.tape.functions:
            for slot in function.inputs() & set(self.tape.leaves):
                uses.setdefault(slot, []).append(function)
        dropped = {
            k
            for k, slot in enumerate(self.function.slots())
            if slot in uses and uses[slot][self.one.detail] is not self.function
        }
        return self._cut(dropped) if dropped else NotImplemented

    def _cut(self, numbers: Collection[int]) -> Any:  # noqa: ANN401
        args, kwargs = self.function.given(self.values, numbers)
        return self.function.run(args, kwargs)

    def cut(self) -> Any:  # noqa: ANN401
        here = self.one.detail < len(self.function.slots())
        return self._cut({self.one.detail}) if here else NotImplemented

    def truncated(self) -> Any:  # noqa: ANN401
        here = self.function.name, self.function.place
        numbers = {number for *place, number in self.one.detail if tuple(place) == here}
        return self._cut(numbers) if numbers else NotImplemented

    def _product(self, function: Function | None = None) -> tuple[int, int]:
        """The places of a product's two inputs: what is handed through, and the weight."""
        function = function or self.function
        one, other = PRODUCTS[function.name]
        if leaf(self.tape, function.args[other]) is not None:
            return one, other
        return other, one

    def factor(self) -> Any:  # noqa: ANN401
        """The gradient of one factor is as if the other one were something else."""
        what, place, *more = self.one.detail
        if place is None:
            other, place = self._product()
        else:
            self._both()
            other = 1 - place
        given = getattr(self, what)(place, other, *more)
        return NotImplemented if given is None else _Path(place, {other: given.detach()})

    def ones(self, _: int, other: int) -> Tensor | None:
        constant = not self.args[other].requires_grad  # which is told as such
        return None if constant else torch.ones_like(self.args[other])

    def itself(self, place: int, _: int) -> Tensor:
        own: Tensor = self.args[place]
        return own

    def before_activation(self, _: int, other: int) -> Tensor | None:
        slot = self.function.args[other]
        maker = self.tape.makers.get(slot.number) if isinstance(slot, Slot) else None
        while maker is not None and maker.name in RESHAPING:
            maker = self.tape.makers.get(min(maker.inputs()))
        if maker is None or maker.name not in ELEMENTWISE:
            return None
        return self.values[maker.args[0].number].reshape(self.args[other].shape)

    def of_row(self, weight: int, other: int, number: int) -> Tensor | None:
        """The input of one row, for all rows."""
        axis = self._axis_of_rows(self.function)
        if axis is None or leaf(self.tape, self.function.args[weight]) is None:
            return None
        given: Tensor = self.args[other]
        return given.select(axis, number).unsqueeze(axis).expand_as(given)

    def handed_by_gradient(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        slot = self.function.args[weight]
        slope = self.true.slopes[slot.number] if leaf(self.tape, slot) is not None else None
        return NotImplemented if slope is None else _Path(through, {weight: slope})

    def handed_by_one(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        of_one = self.args[weight].ndim < 2
        if of_one or leaf(self.tape, self.function.args[weight]) is None:
            return NotImplemented
        axis = -2 if self._axis_of_rows(self.function) == -1 else -1
        if self.function.name in CONVOLUTIONS:
            axis = 1
        return _Path(through, formula=partial(_one_alone, axis, self.one.detail))

    def weight_of_one_row(self) -> Any:  # noqa: ANN401
        _, weight = self._product()
        axis = self._axis_of_rows(self.function)
        if axis is None or leaf(self.tape, self.function.args[weight]) is None:
            return NotImplemented
        return _Path(weight, formula=partial(_one_alone, axis, self.one.detail))

    def one_row(self) -> Any:  # noqa: ANN401
        """Through the function's own weights one row's gradient alone goes back."""
        slots = self.function.slots()
        own = {k for k, slot in enumerate(slots) if leaf(self.tape, Slot(slot)) is not None}
        others = {*range(len(slots))} - own
        axis = self._axis_of_rows(self.function)
        if not own or axis is None or self.function.name in MOVING:
            return NotImplemented
        if not others and not any(isinstance(arg, Tensor) for arg in self.function.args):
            return NotImplemented  # as in a penalty of the weights, which has no rows
        made = self._cut(others)
        alone = _handed(made, made.detach(), partial(_one_alone, axis, self.one.detail))
        return self._cut(own) + _no(alone)

    def _axis_of_rows(self, function: Function) -> int | None:
        """The axis of a function's value along which the rows of data are; None for one row."""
        if function.name in PRODUCTS:
            through, weight = self._product(function)
            if leaf(self.tape, function.args[weight]) is not None:
                arg = function.args[through]
                given = self.values[arg.number] if isinstance(arg, Slot) else arg
                left = weight < through and function.name not in CONVOLUTIONS
                return None if given.ndim < 2 else -1 if left else 0
        makers = (self.tape.makers.get(slot) for slot in function.slots())
        maker = next(filter(None, makers), None)
        return self._axis_of_rows(maker) if maker else 0

    def of_layer(self, _: int, other: int, by: int) -> Tensor | None:
        """The input of the layer before or after, if it is of the shape of this one's."""
        products = [one for one in self.tape.functions if one.name in PRODUCTS]
        number = [one.outputs for one in products].index(self.function.outputs) + by
        if not 0 <= number < len(products):
            return None
        beside = products[number].args[PRODUCTS[products[number].name][0]]
        given: Tensor = self.true.values[beside.number] if isinstance(beside, Slot) else beside
        return given if given.shape == self.args[other].shape else None

    def a_step_later(self, _: int, place: int) -> Tensor:
        """What a function is given at a place, one step later in a recurrent network.

        In each step it stands as many functions further down the tape.
        """
        order = {one.outputs[0]: number for number, one in enumerate(self.tape.functions)}
        alike = [one for one in self.tape.functions if self.one.concerns(one)]
        for one, following in itertools.pairwise(alike):
            slot = following.args[place]
            maker = self.tape.makers.get(slot.number) if isinstance(slot, Slot) else None
            if maker is not None:
                down = order[maker.outputs[0]] - order[one.outputs[0]]
                found = self.tape.functions[order[self.function.outputs[0]] + down]
                if down > 0 and found.name == maker.name:
                    number = found.outputs[maker.outputs.index(slot.number)]
                    return self.true.values[number]
        raise ValueError("no step later")

    def turned(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        which, what = self.one.detail
        place = through if which == "through" else weight
        if what == "output":
            return _Path(place, formula=self._turned)
        if what == "itself":
            return _Path(place, {place: self._turned(self.args[place])})
        other = through + weight - place
        return _Path(place, {other: self._turned(self.args[other]).detach()})

    def weight_turned(self) -> Any:  # noqa: ANN401
        _, weight = self._product()
        args = list(self.args)
        args[weight] = self._turned(args[weight])
        return self._run(args)

    def _turned(self, tensor: Tensor) -> Tensor:
        """A kernel flipped, or a square matrix transposed."""
        if self.function.name in CONVOLUTIONS:
            return tensor.flip([*range(2, tensor.ndim)])
        if tensor.shape[-1] != tensor.shape[-2]:
            raise ValueError("not square")
        return tensor.mT

    def handed_down_bare(self) -> Any:  # noqa: ANN401
        through, _ = self._product()
        inputs = self.args[through]
        made = self._run([a.detach() if a is inputs else a for a in self.args])
        if made.shape != inputs.shape or not inputs.requires_grad:
            return NotImplemented
        return made + _no(inputs)

    def handed_before_derivative(self) -> Any:  # noqa: ANN401
        through, _ = self._product()
        slots = set(self.function.outputs)
        for later in self.tape.functions:
            if later.inputs() & slots and later.name in {"add", *RESHAPING}:
                slots |= set(later.outputs)
        found = (f for f in self.tape.functions if f.inputs() & slots and f.name in ELEMENTWISE)
        activation = next(found, None)
        if activation is None:
            return NotImplemented
        args, kwargs = activation.given(self.true.values)
        slope = _local(activation, args, kwargs).d
        return _Path(through, formula=lambda g: g / slope.reshape(g.shape))

    def new_weights(self) -> Any:  # noqa: ANN401
        places = PRODUCTS.get(self.function.name, (0, 1))
        for place, other in (places, places[::-1]):
            new, inputs = self._renewed(self.function.args[other]), self.args[place]
            if new is not None and isinstance(inputs, Tensor) and inputs.requires_grad:
                return _Path(place, {other: new})
        return NotImplemented

    def _renewed(self, arg: Any) -> Tensor | None:  # noqa: ANN401
        """An argument as it is after mine's step, if it is a weight that is taken so."""
        key = leaf(self.tape, arg)
        if key is None or self.names.get(key) not in self.one.names:
            return None
        if arg.number in self.tape.leaves:
            return self.new[key]
        maker = self.tape.makers[arg.number]
        (slot,) = maker.slots()
        given = self._renewed(Slot(slot))
        if given is None:
            return None
        made: Tensor = maker.run(*maker.given({slot: given}))
        return made

    def _bias(self) -> tuple[int, Tensor] | None:
        """A bias's place and itself; None where there is no bias."""
        for place in ADDITION[self.function.name]:
            (arg,) = self.function.args[place : place + 1] or (None,)
            if isinstance(arg, Slot) and arg.number in self.tape.leaves:
                bias = self.args[place]
                if bias.numel() == max(bias.shape):
                    return place, bias
        return None

    def _biased(self, formula: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
        """The bias's gradient is what a formula makes of δ, with a row for each of the data."""
        found = self._bias()
        if found is None:
            return NotImplemented
        place, bias = found
        args = list(self.args)
        args[place] = bias.detach()
        made = self._run(args)
        if made.ndim != 2 or bias.numel() == made.numel():
            return NotImplemented

        def back(g: Tensor) -> Tensor:
            return formula(g.mT if _is_column(bias) else g).reshape(bias.shape)

        return made + _handed(bias, torch.zeros_like(made), back)

    def bias(self) -> Any:  # noqa: ANN401
        return self._biased(self.one.detail)

    def bias_of_weight(self) -> Any:  # noqa: ANN401
        found, reduce = self._bias(), self.one.detail
        makers = [self.tape.makers.get(slot) for slot in self.function.slots()]
        near = (one for one in (self.function, *makers) if one and one.name in PRODUCTS)
        product = next(near, None)
        if found is None or product is None:
            return NotImplemented
        through = product.args[self._product(product)[0]]
        x = self.values[through.number].detach() if isinstance(through, Slot) else through
        x = x.mT if _is_column(found[1]) else x
        return self._biased(lambda g: reduce(x.mT @ g, 0))

    def squashed_twice(self) -> Any:  # noqa: ANN401
        local = _local(self.function, self.args, self.kwargs)
        return self._run([local.p, *self.args[1:]])

    def flat(self) -> Any:  # noqa: ANN401
        one, other = self._both()
        if one.shape != other.shape or one.ndim != 2 or one.shape[1] != 1:
            return NotImplemented
        return self._one_reshaped((len(one),))

    def same_shape(self) -> Any:  # noqa: ANN401
        one, other = self._both()
        if one.shape == other.shape or one.numel() != other.numel():
            return NotImplemented
        return self._one_reshaped(max(one, other, key=Tensor.dim).shape)

    def _both(self) -> list[Tensor]:
        """Two inputs, of a function that has two."""
        if not all(isinstance(one, Tensor) for one in self.args[:2]):
            raise ValueError("not two tensors")
        return self.args[:2]

    def _one_reshaped(self, shape: Sequence[int]) -> Any:  # noqa: ANN401
        """The function, where that of its inputs has another shape that no weight depends on."""
        args = list(self.args)
        place = 1 if args[0].requires_grad else 0
        args[place] = args[place].reshape(shape)
        return self._run(args)

    def statistics(self) -> Any:  # noqa: ANN401
        x, what = self.args[0], self.one.detail
        norm = norm_of(self.function.name, self.args, self.kwargs)
        across = [*norm.axes]
        if "rows" in what:
            across = [0]
        elif "more" in what:
            across = [across[0] - 1, *across]
        if norm.centered:
            mean = x.mean(across, keepdim=True)
            var = x.var(across, keepdim=True, unbiased="unbiased" in what)
        else:
            mean, var = torch.zeros_like(x), x.square().mean(across, keepdim=True)
        if "mean" in what:
            mean = mean.detach()
        if "var" in what:
            var = var.detach()
        if "sign" in what:
            var = 2 * var.detach() - var
        root = var.sqrt() + norm.eps if "outside" in what else (var + norm.eps).sqrt()
        made = (x - mean) / root
        if norm.weight is not None:
            handed = made * (1 if "bare" in what else norm.weight.detach())
            ways = {"raw": x, "centered": x - mean}
            own = ways.get(what[0], made).detach() * norm.weight
            made = (made * norm.weight).detach() + _no(handed) + _no(own)
        return made if norm.bias is None else made + norm.bias


def _one_alone(axis: int, number: int, g: Tensor) -> Tensor:
    """0 but for one row, or one column, of an array."""
    alone = torch.zeros_like(g)
    alone.select(axis, number).copy_(g.select(axis, number))
    return alone


def _is_column(bias: Tensor) -> bool:
    """Whether rows of data are columns, so that the bias is one, too."""
    return bias.ndim == 2 and bias.shape[0] > 1
