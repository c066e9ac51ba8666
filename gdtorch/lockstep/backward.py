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
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from .breaks import (
    CONVOLUTIONS,
    ELEMENTWISE,
    ERRORS,
    POOLING,
    PRODUCTS,
    RESHAPING,
    SLOPES,
    WHOLE,
    Break,
    leaf,
)
from .tape import Function, Pass, Slot, Tape

# Of a tape that is run otherwise, where something does not fit.
IMPOSSIBLE = (RuntimeError, ValueError, IndexError, TypeError, KeyError)


def gradient(
    tape: Tape,
    weights: Mapping[int, Tensor],
    new: Mapping[int, Tensor],
    names: Mapping[int, str],
    one: Break | None = None,
    rates: Mapping[int, float] | None = None,
    known: Pass | None = None,
) -> dict[int, Tensor] | None:
    """The gradient with a mistake, `id` of a parameter → array; None where it cannot be made.

    Args:
        tape: of the step.
        weights: `id` of a parameter → its values.
        new: the same after mine's step.
        names: `id` of a parameter → its name.
        one: the mistake; None for the true gradient.
        rates: `id` of a parameter → its learning rate, for what updates it several times.
        known: the tape at these weights, with which it is found sooner, if to a few roundings more.
    """
    maker = _Maker(tape, one.parts if one else (), new, names, rates or {}, weights, known)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that broadcast, which is the point
            return maker.whole(weights)
    except IMPOSSIBLE:
        return None


def _held(one: Any) -> Any:  # noqa: ANN401
    """A tensor that hands no gradient on."""
    return one.detach() if isinstance(one, Tensor) else one


def _summed(whole: Tensor, shape: torch.Size, how: str) -> Tensor:
    """A weight's gradient summed, or averaged, over what its bias has not."""
    for axis in range(whole.ndim):
        made: Tensor = getattr(whole, how)(axis)
        if made.numel() == shape.numel():
            return made.reshape(shape)
    raise ValueError("not of one layer")


def _no(path: Tensor) -> Tensor:
    """0, with the gradient of a path."""
    return path - path.detach()


def _as_it_is(path: Tensor) -> Tensor:
    return path


@dataclass(frozen=True)
class _Path:
    """By which an input of a function gets its gradient.

    Args:
        place: the input's.
        given: place → what the function is given there instead.
        then: what is done with what it returns.
    """

    place: int
    given: Mapping[int, Tensor] = field(default_factory=dict)
    then: Callable[[Tensor], Tensor] = _as_it_is


class _Maker:
    """Make mistakes while a tape is run; `instead` is called in place of each function."""

    def __init__(
        self,
        tape: Tape,
        parts: Sequence[Break],
        new: Mapping[int, Tensor],
        names: Mapping[int, str],
        rates: Mapping[int, float],
        weights: Mapping[int, Tensor],
        known: Pass | None,
    ) -> None:
        self.tape, self.names, self.rates, self.after = tape, names, rates, new
        self.known, self.weights = known, weights
        self.order = next((one for one in parts if one.what in WHOLE), None)
        self.parts = [one for one in parts if one is not self.order]

    def whole(self, weights: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The gradients of all rows, or of some at a time, at weights as they are or become."""
        if self.order is None:
            return self.gradients(weights)
        self.known = None  # which is of all rows, and of the weights as they are
        made: dict[int, Tensor] = getattr(self, self.order.what)(weights, *self.order.detail)
        return made

    def in_order(self, weights: Mapping[int, Tensor], *order: tuple[str, ...]) -> dict[int, Tensor]:
        """Each group's gradients where the groups before it are new already."""
        found: dict[int, Tensor] = {}
        now = dict(weights)
        for group in order:
            for key, grad in self.gradients(now).items():
                if self.names[key] in group:
                    found[key], now[key] = grad, self.after[key]
        return found

    def row_by_row(
        self, weights: Mapping[int, Tensor], rows: int, share: float
    ) -> dict[int, Tensor]:
        """What gradient descent moves by, row after row, as one gradient."""
        now = dict(weights)
        for row in range(rows):
            for key, grad in self.gradients(now, slice(row, row + 1)).items():
                now[key] = now[key] - self.rates[key] * share * grad
        return {k: (weights[k] - now[k]) / self.rates[k] for k in self.tape.leaves.values()}

    def micro_batches(
        self, weights: Mapping[int, Tensor], rows: int, size: int
    ) -> dict[int, Tensor]:
        """The mean of the gradients of micro-batches."""
        some = [self.gradients(weights, slice(k, k + size)) for k in range(0, rows, size)]
        return {key: torch.stack([grads[key] for grads in some]).mean(0) for key in some[0]}

    def gradients(
        self, weights: Mapping[int, Tensor], rows: slice | None = None
    ) -> dict[int, Tensor]:
        """The gradients, with the mistakes that are made in functions.

        Raises:
            ValueError: one of them is not possible anywhere.
        """
        self.sums: list[tuple[int, int, str]] = []  # biases, weights, how
        self.made: set[Break] = set()
        self.slopes: dict[int, Tensor] = {}  # slot of what an activation is given → its slope
        tape = self.tape if rows is None else self.tape.of_rows(rows)
        if self.known:
            found = self.known.gradients(self.instead, self._concerned())
        else:
            found = tape.gradients(weights, self.instead if self.parts else None)
        for bias, weight, how in self.sums:
            found[bias] = _summed(found[weight], found[bias].shape, how)
        if len(self.made) < len(self.parts):
            raise ValueError("not made")
        return found

    def _concerned(self) -> list[int]:
        """The numbers of the functions that the mistakes replace."""
        if any(one.what == "handed_before_derivative" for one in self.parts):
            return [*range(len(self.tape.functions))]  # it looks at a later function, too
        return [
            number
            for number, function in enumerate(self.tape.functions)
            if any(one.concerns(function) for one in self.parts)
        ]

    def instead(
        self,
        function: Function,
        args: list[Any],
        kwargs: dict[str, Any],
        values: Mapping[int, Tensor],
    ) -> Any:  # noqa: ANN401 (whatever the function returns)
        concerned = [one for one in self.parts if one.concerns(function)]
        if not concerned and not self.slopes:
            return NotImplemented
        if "inplace" in kwargs:
            kwargs = {**kwargs, "inplace": False}
        self.function, self.args, self.kwargs, self.values = function, list(args), kwargs, values
        self.at = next((k for k, arg in enumerate(function.args) if isinstance(arg, Slot)), 0)
        if function.name in ELEMENTWISE and function.slots()[0] in self.slopes:
            self.slopes[function.slots()[0]] = self._derivative(self.args[self.at])
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

    @property
    def new(self) -> dict[int, Tensor]:
        """The weights that are taken as they are after mine's step."""
        return {key: self.after[key] for key in self.after if self.names[key] in self.one.names}

    def _run(self, args: list[Any]) -> Any:  # noqa: ANN401
        return self.function.run(args, self.kwargs)

    def _with(self, path: Tensor) -> Tensor:
        """The function's value, with the gradient of a path."""
        made: Tensor = self._run(self.args).detach()
        return made + _no(path)

    def _with_slope(self, slope: Tensor) -> Tensor:
        """The function's value, with another derivative, element by element."""
        inputs = self.args[self.at]
        made = self._with(inputs * slope.detach())
        if made.shape != inputs.shape:
            raise ValueError("not element by element")
        return made

    def _derivative(self, at: Tensor) -> Tensor:
        inputs, args = at.detach().requires_grad_(), list(self.args)
        args[self.at] = inputs
        (made,) = torch.autograd.grad(self._run(args).sum(), inputs)
        return made

    def _apart(self, paths: Sequence[_Path]) -> Tensor:
        """The function's value, where the gradients of some inputs come by paths of their own."""
        made: Tensor = self._run(self.args).detach()
        for place, arg in enumerate(self.args):
            if isinstance(arg, Tensor) and arg.requires_grad:
                args = [_held(one) if k != place else one for k, one in enumerate(self.args)]
                mine = [path for path in paths if path.place == place]
                for path in mine:
                    for k, one in path.given.items():
                        args[k] = one
                given = self._run(args)
                for path in mine:
                    given = path.then(given)
                made = made + _no(given)
        return made

    def slope(self) -> Any:  # noqa: ANN401
        if len(self.function.slots()) != 1:
            return NotImplemented
        inputs, made = self.args[self.at].detach(), self._run(self.args).detach()
        _, written = SLOPES[self.one.detail]
        return self._with_slope(written(self._derivative(inputs), inputs, made))

    def diagonal(self) -> Any:  # noqa: ANN401
        made = self._run(self.args).detach()
        softmax = self.function.name == "softmax"
        return self._with_slope(made * (1 - made) if softmax else 1 - made.exp())

    def of_output(self) -> Any:  # noqa: ANN401
        return self._with_slope(self._derivative(self._run(self.args)))

    def applied_again(self) -> Any:  # noqa: ANN401
        args = list(self.args)
        args[self.at] = self._run(self.args).detach()
        return self._with_slope(self._run(args))

    def mask_of_gradient(self) -> Any:  # noqa: ANN401
        path = self.args[self.at] * 1
        path.register_hook(lambda grad: grad * (grad > 0))
        return self._with(path)

    def skipped(self) -> Any:  # noqa: ANN401
        return self.args[self.at] if len(self.function.slots()) == 1 else NotImplemented

    def _other(self) -> Any:  # noqa: ANN401
        """What the function returns with another option."""
        option, place, value = self.one.detail
        args, kwargs = list(self.args), dict(self.kwargs)
        if len(args) > place:
            args[place] = value
        else:
            kwargs[option] = value
        return self.function.run(args, kwargs)

    def other(self) -> Any:  # noqa: ANN401
        return self._other()

    def derivative_of_other(self) -> Any:  # noqa: ANN401
        return self._with(self._other())

    def scaled(self) -> Any:  # noqa: ANN401
        made, name = self._run(self.args), self.function.name
        count = self.args[0].numel() / made.numel()
        if self.kwargs.get("reduction", "mean") != "mean":
            return NotImplemented
        if name in {"pow", "square"}:
            factor = 1 / (self.args[1] if name == "pow" else 2)
        elif name in {"cross_entropy", "nll_loss"}:
            factor = len(self.args[0])
        else:
            factor = 1 / count if name == "sum" else count
        return made.detach() + factor * _no(made)

    def last_of_index(self) -> Any:  # noqa: ANN401
        whole = [a for a in self.args if isinstance(a, Tensor) and a.dtype == torch.long]
        if len(whole) != 1:
            return NotImplemented
        index = whole[0]
        made, flat = self._run(self.args), index.flatten().tolist()
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

    def _product(self) -> tuple[int, int]:
        """The places of a product's two inputs: what is handed through, and the weight."""
        one, other = PRODUCTS[self.function.name]
        if leaf(self.tape, self.function.args[other]) is not None:
            return one, other
        return other, one

    def _pair(self) -> tuple[int, int]:
        """The places of what is multiplied: of which the gradient is wrong, and of the other."""
        if self.function.name in PRODUCTS:
            return self._product()[::-1]
        place: int = self.one.detail
        if not all(isinstance(one, Tensor) for one in self.args[:2]):
            raise ValueError("not two tensors")
        return place, 1 - place

    def bare_factor(self) -> Any:  # noqa: ANN401
        place, other = self._pair()
        if not self.args[other].requires_grad:
            return NotImplemented  # a constant, which is told as such
        return _Path(place, {other: torch.ones_like(self.args[other])})

    def own_factor(self) -> Any:  # noqa: ANN401
        place, other = self._pair()
        return _Path(place, {other: self.args[place].detach()})

    def input_beside(self) -> Any:  # noqa: ANN401
        weight, through = self._pair()
        products = [one for one in self.tape.functions if one.name in PRODUCTS]
        outputs = [one.outputs for one in products]
        number = outputs.index(self.function.outputs) + self.one.detail
        if not 0 <= number < len(products):
            return NotImplemented
        beside = products[number].args[PRODUCTS[products[number].name][0]]
        given = self.true.values[beside.number] if isinstance(beside, Slot) else beside
        if given.shape != self.args[through].shape:
            return NotImplemented
        return _Path(weight, {through: given.detach()})

    def times_itself(self) -> Any:  # noqa: ANN401
        made = self._run(self.args)
        return self._with(made * made.detach() ** self.one.detail)

    def a_step_later(self) -> Any:  # noqa: ANN401
        place, other = self._pair()
        return _Path(place, {other: self._later(other)})

    def _later(self, place: int) -> Tensor:
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
                    return self.true.values[number].detach()
        raise ValueError("no step later")

    def summed_over(self) -> Any:  # noqa: ANN401
        axis, path, p = self.one.detail, self.args[self.at] * 1, self._run(self.args).detach()
        if axis is not None and p.shape[axis] == 1:
            return NotImplemented  # no sum
        if self.function.name == "log_softmax":
            path.register_hook(lambda g: g - p.exp() * g.sum(axis, keepdim=True))
        elif axis is None:
            path.register_hook(lambda g: p * g)
        else:
            path.register_hook(lambda g: p * (g - (p * g).sum(axis, keepdim=True)))
        return self._with(path)

    def pooled_evenly(self) -> Any:  # noqa: ANN401
        given = {k: v for k, v in self.kwargs.items() if k in {"stride", "padding", "ceil_mode"}}
        return self._with(POOLING[self.function.name](*self.args[:4], **given))

    def of_errors(self) -> Any:  # noqa: ANN401
        errors = ERRORS[self.one.detail](self.args[0] - self.args[1])
        reduction = self.kwargs.get("reduction", "mean")
        return self._with(errors if reduction == "none" else getattr(errors, reduction)())

    def before_activation(self) -> Any:  # noqa: ANN401
        weight, through = self._pair()
        slot = self.function.args[through]
        maker = self.tape.makers.get(slot.number) if isinstance(slot, Slot) else None
        while maker is not None and maker.name in RESHAPING:
            maker = self.tape.makers.get(min(maker.inputs()))
        if maker is None or maker.name not in ELEMENTWISE:
            return NotImplemented
        before = self.values[maker.args[0].number].reshape(self.args[through].shape)
        return _Path(weight, {through: before.detach()})

    def turned(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        which, what = self.one.detail
        place = through if which == "through" else weight
        if what == "output":
            return _Path(place, then=self._turned)
        if what == "itself":
            return _Path(place, {place: self._turned(self.args[place])})
        other = through + weight - place
        return _Path(place, {other: self._turned(self.args[other]).detach()})

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
        slot = activation.slots()[0]
        self.slopes.setdefault(slot, torch.empty(0))  # to be found once it is run

        def undone(path: Tensor) -> Tensor:
            path = path * 1
            path.register_hook(lambda grad: grad / self.slopes[slot].reshape(grad.shape))
            return path

        return _Path(through, then=undone)

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
        if key not in self.new:
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

    def _bias(self) -> tuple[int, Tensor, Tensor] | None:
        """A bias's place, itself, and what the function returns; None where there is no bias."""
        for place, arg in enumerate(self.function.args):
            if not isinstance(arg, Slot) or arg.number not in self.tape.leaves:
                continue
            bias, made = self.args[place], self._run(self.args)
            if made.ndim == 2 and bias.numel() == max(bias.shape) < made.numel():
                return place, bias, made
        return None

    def _biased(self, path: Callable[[Tensor, Tensor], Tensor]) -> Any:  # noqa: ANN401
        found = self._bias()
        if found is None:
            return NotImplemented
        place, bias, made = found
        args = list(self.args)
        args[place] = bias.detach()
        return self._run(args) + _no(path(bias, made))

    def bias_axis(self) -> Any:  # noqa: ANN401
        def path(bias: Tensor, made: Tensor) -> Tensor:
            column = bias.ndim == 2 and bias.shape[0] > 1
            return (bias.reshape(1, -1) if column else bias.reshape(-1, 1)).expand_as(made)

        return self._biased(path)

    def bias_of_all(self) -> Any:  # noqa: ANN401
        return self._biased(lambda bias, made: bias.sum().expand_as(made))

    def one_row(self) -> Any:  # noqa: ANN401
        return self._biased(partial(_one_row, self.one.detail))

    def of_the_weight(self) -> Any:  # noqa: ANN401
        found = self._bias()
        if found is None:
            return NotImplemented
        place, _, made = found
        weights = self.function.inputs() & set(self.tape.leaves)
        for slot in self.function.inputs():  # of a sum, whose product is a function of its own
            maker = self.tape.makers.get(slot)
            weights |= maker.inputs() & set(self.tape.leaves) if maker else set()
        bias = self.function.args[place].number
        for slot in weights - {bias}:
            keys = self.tape.leaves[bias], self.tape.leaves[slot]
            self.sums.append((*keys, self.one.detail))
        return made

    def squashed_twice(self) -> Any:  # noqa: ANN401
        scores = self.args[0]
        squash = scores.softmax(1) if self.function.name == "cross_entropy" else scores.sigmoid()
        return self._run([squash, *self.args[1:]])

    def _of_scores(self, slope: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Any:  # noqa: ANN401
        """The loss, with another derivative by its scores z, of z, p and y."""
        z, y = self.args[0].detach(), self.args[1].detach()
        if self.function.name == "cross_entropy":
            p = z.softmax(1)
            y = y if y.is_floating_point() else F.one_hot(y, z.shape[1]).to(z)
            count = len(z)
        else:
            p, count = z.sigmoid(), z.numel()
        if self.kwargs.get("reduction", "mean") == "sum":
            count = 1
        made: Tensor = self._run(self.args).detach()
        return made + _no((self.args[0] * slope(z, p, y)).sum() / count)

    def squash_once_more(self) -> Any:  # noqa: ANN401
        return self._of_scores(lambda _, p, y: (p - y) * p * (1 - p))

    def jacobian_once_more(self) -> Any:  # noqa: ANN401
        return self._of_scores(lambda _, p, y: p * ((p - y) - ((p - y) * p).sum(1, keepdim=True)))

    def scores_for_probabilities(self) -> Any:  # noqa: ANN401
        return self._of_scores(lambda z, _, y: z - y)

    def target_alone(self) -> Any:  # noqa: ANN401
        return self._of_scores(lambda _, p, y: (p - y) * y)

    def flat(self) -> Any:  # noqa: ANN401
        one, other = self._two_tensors()
        if one.shape != other.shape or one.ndim != 2 or one.shape[1] != 1:
            return NotImplemented
        return self._run([*self._one_reshaped((len(one),)), *self.args[2:]])

    def same_shape(self) -> Any:  # noqa: ANN401
        one, other = self._two_tensors()
        if one.shape == other.shape or one.numel() != other.numel():
            return NotImplemented
        shape = max(one, other, key=Tensor.dim).shape
        return self._run([*self._one_reshaped(shape), *self.args[2:]])

    def _two_tensors(self) -> tuple[Tensor, Tensor]:
        one, other = self.args[:2]
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            raise ValueError("not two tensors")  # noqa: TRY004 (caught where shapes are)
        return one, other

    def _one_reshaped(self, shape: Sequence[int]) -> list[Any]:
        """Both of two inputs; that of which no weight asks a gradient in another shape."""
        one, other = self.args[0], self.args[1]
        if one.requires_grad:
            return [one, other.reshape(shape)]
        return [one.reshape(shape), other]

    def statistics(self) -> Any:  # noqa: ANN401
        x, kwargs, batch = self.args[0], self.kwargs, self.function.name == "batch_norm"
        if batch and not kwargs.get("training"):
            return NotImplemented
        given = {**dict(zip(("weight", "bias"), self.args[3 if batch else 2 :], strict=False))}
        given |= {k: kwargs[k] for k in ("weight", "bias") if k in kwargs}
        across = [0, *range(2, x.ndim)] if batch else list(range(-len(self.args[1]), 0))
        mean = x.mean(across, keepdim=True)
        var = x.var(across, keepdim=True, unbiased="unbiased" in self.one.detail)
        if "mean" in self.one.detail:
            mean = mean.detach()
        if "var" in self.one.detail:
            var = var.detach()
        if "sign" in self.one.detail:
            var = 2 * var.detach() - var
        eps = kwargs.get("eps", 1e-5)
        made = (x - mean) / (
            var.sqrt() + eps if "outside" in self.one.detail else (var + eps).sqrt()
        )
        shape = (1, -1, *(1,) * (x.ndim - 2)) if batch else tuple(self.args[1])
        if given.get("weight") is not None:
            weight = given["weight"].reshape(shape)
            handed = made * (1 if "bare" in self.one.detail else weight.detach())
            own = (x if "raw" in self.one.detail else made).detach() * weight
            made = (made * weight).detach() + _no(handed) + _no(own)
        if given.get("bias") is not None:
            made = made + given["bias"].reshape(shape)
        return made


def _one_row(row: int, bias: Tensor, made: Tensor) -> Tensor:
    """A bias that is added to one row alone."""
    column = bias.ndim == 2 and bias.shape[0] > 1
    mask = torch.zeros_like(made)
    (mask.mT if column else mask)[row] = 1
    return bias * mask
