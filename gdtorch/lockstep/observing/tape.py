"""The functions of torch by which a program came from its weights to its loss: the tape.

With it the gradient can be computed again: at other weights, with the rows of another step, or with
one of its functions replaced. What does not depend on the weights is kept as it was.
"""

from __future__ import annotations

__all__ = ["Function", "Pass", "Recording", "Slot", "Tape", "flattened", "tensors"]

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from .formulas import FORMULAS

# Functions that draw random numbers: their generator is set back, so they draw the same ones.
RANDOM = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("rrelu", "gumbel_softmax", "bernoulli", "multinomial", "normal", "rand_like", "randn_like"),
}

ADDING, SCALING = {"add", "sub"}, {"add", "sub", "rsub", "__rsub__", "neg", "mul", "div"}


@dataclass(frozen=True)
class Slot:
    """Stands in place of a tensor that depends on the weights."""

    number: int


@dataclass(frozen=True)
class Function:
    """One call of a function of torch.

    Args:
        name: its `__name__`, as in `torch.tanh`.
        call: the function itself.
        args: its arguments, with slots.
        kwargs: likewise.
        outputs: the slots of what it returned.
        generators: the states of torch's random generators before, if it draws from one.
        place: how many of the same name stand before it on the tape.
    """

    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    generators: Sequence[Tensor] | None
    place: int = 0

    def slots(self) -> list[int]:
        """The slots that it was given, in their order."""
        return [one.number for one in flattened((self.args, self.kwargs)) if isinstance(one, Slot)]

    def inputs(self) -> set[int]:
        """The slots that it was given."""
        return set(self.slots())

    def given(
        self, values: Mapping[int, Tensor], cut: Collection[int] = ()
    ) -> tuple[list[Any], dict[str, Any]]:
        """Its arguments with tensors in the slots; those in `cut` hand no gradient on."""
        numbers = itertools.count()

        def value(slot: Slot) -> Tensor:
            tensor = values[slot.number]
            return tensor.detach() if next(numbers) in cut else tensor

        args, kwargs = _replaced((self.args, dict(self.kwargs)), Slot, value)
        return list(args), kwargs

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Call it again; nothing of the program's own is changed."""
        args = list(args)
        if "inplace" in kwargs:
            kwargs = {**kwargs, "inplace": False}
        if self.name in {"batch_norm", "instance_norm"} and len(args) > 2:
            args[1:3] = [_copied(average) for average in args[1:3]]
        elif self.name.endswith("_") and args and not isinstance(self.args[0], Slot):
            args[0] = _copied(args[0])
        if self.generators is None:
            return self.call(*args, **kwargs)
        present = generators()
        set_generators(self.generators)
        try:
            return self.call(*args, **kwargs)
        finally:
            set_generators(present)


def generators() -> list[Tensor]:
    """The states of torch's random generators: the CPU's and, once CUDA is in use, each GPU's."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *gpus]


def set_generators(states: Sequence[Tensor]) -> None:
    """Set torch's random generators to states that `generators` has given."""
    torch.set_rng_state(states[0])
    for gpu, state in enumerate(states[1:]):
        torch.cuda.set_rng_state(state, gpu)


Instead = Callable[[Function, list[Any], dict[str, Any], Mapping[int, Tensor]], Any]


@dataclass(frozen=True)
class Tape:
    """The calls from the weights to the loss, in their order.

    Args:
        functions: the calls on which the loss depends.
        leaves: slot → `id` of the parameter that stood there.
        parameters: slot → that parameter.
        frozen: the slots of those that take no gradient.
        losses: the slots of which the gradient was taken, each with the gradient that it was
            given; None for a loss that is one number.
        makers: slot → the call that it is from.
        value: of the losses, all together.
    """

    functions: tuple[Function, ...]
    leaves: Mapping[int, int]
    parameters: Mapping[int, Tensor]
    frozen: Collection[int]
    losses: tuple[tuple[int, Any], ...]
    makers: Mapping[int, Function]
    value: float

    @property
    def rows(self) -> int:
        """How many rows of data there seem to be: the length of the first array on the tape."""
        given = (tensors((function.args, function.kwargs)) for function in self.functions)
        return next((len(one) for one in itertools.chain(*given) if one.ndim), 0)

    def of_rows(self, rows: slice, *, flattened: bool = False) -> Tape:
        """The tape with only some of the rows of data; of several elements each, if flattened."""

        def some(tensor: Tensor) -> Tensor:
            each, rest = divmod(len(tensor), self.rows) if tensor.ndim else (0, 1)
            if rest or each == 0 or (each > 1 and not flattened):
                return tensor
            return tensor[each * rows.start : each * rows.stop]

        functions = []
        for function in self.functions:
            args, kwargs = _replaced((function.args, dict(function.kwargs)), Tensor, some)
            functions.append(replace(function, args=args, kwargs=kwargs))
        return replace(self, functions=tuple(functions))

    @property
    def outputs(self) -> int | None:
        """The slot of the model's outputs: the first one through which all leads from the weights.

        None where there is no such slot, as where the loss has a penalty of the weights.
        """
        found, open_ways = None, {slot for slot, _ in self.losses}
        for function in reversed(self.functions):
            if not open_ways.isdisjoint(self.leaves):
                break
            if not open_ways.isdisjoint(function.outputs):
                open_ways = (open_ways - {*function.outputs}) | function.inputs()
            if len(open_ways) == 1 and open_ways.isdisjoint(self.leaves):
                (found,) = open_ways
        return found

    @property
    def terms(self) -> list[int]:
        """The slots of the numbers of which the loss is a sum, each with a factor perhaps."""
        found, ahead = [], [slot for slot, _ in self.losses]
        while ahead:
            slot = ahead.pop()
            maker = self.makers.get(slot)
            inputs = maker.slots() if maker else []
            if maker and maker.name in (ADDING if len(inputs) > 1 else SCALING):
                ahead += inputs
            else:
                found.append(slot)
        return found

    def leading_to(self, leaves: Collection[int], others: Collection[int]) -> list[str]:
        """The functions on the way from the loss to all of some leaves, and to none of others.

        From the loss backwards, each name once. The first of them leads to the others as well. A
        function that is given one of those leaves is on its way, unless one of its name gives one
        of the others its gradient at the same place.

        Args:
            leaves: `id` of each parameter.
            others: likewise.
        """
        behind = {slot: {key} for slot, key in self.leaves.items()}
        for function in self.functions:
            inputs = [behind[slot] for slot in function.inputs()]
            behind |= dict.fromkeys(function.outputs, set().union(*inputs))
        right = {place for f in self.functions for place in self._places_of(f, others)}
        found = [
            function.name
            for function in reversed(self.functions)
            if any(
                behind[slot].issuperset(leaves) and behind[slot].isdisjoint(others)
                for slot in function.inputs()
            )
            or not right.issuperset(self._places_of(function, leaves))
        ]
        return list(dict.fromkeys(found))

    def _places_of(self, function: Function, leaves: Collection[int]) -> set[tuple[str, int]]:
        """The places at which a function is given some leaves, each with the function's name."""
        args = enumerate(function.args)
        slots = [(place, arg.number) for place, arg in args if isinstance(arg, Slot)]
        return {(function.name, k) for k, slot in slots if self.leaves.get(slot) in leaves}

    def gradients(
        self, weights: Mapping[int, Tensor], instead: Instead | None = None
    ) -> dict[int, Tensor]:
        """The gradients of the losses.

        Args:
            weights: `id` of each parameter → its values.
            instead: called in place of each function, with it, what it is given, and the tensors
                so far by their slots; returns what the function is to return, or NotImplemented
                for what it did.

        Raises:
            RuntimeError, TypeError, ValueError, IndexError: what torch says of a call that is not
                possible.
        """
        values = self.beginning(weights)
        self.forward(values, instead)
        return self.by_parameter(values, self.backward(values, self.trained))

    @property
    def trained(self) -> list[int]:
        """The slots of the parameters that take a gradient."""
        return [slot for slot in self.leaves if slot not in self.frozen]

    def beginning(self, weights: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The weights by their slots; those not given, as a teacher's, are as they are now."""
        values = {}
        for slot, key in self.leaves.items():
            value = weights.get(key, self.parameters[slot]).detach()
            values[slot] = value if slot in self.frozen else value.clone().requires_grad_()
        return values

    def forward(
        self, values: dict[int, Tensor], instead: Instead | None = None, begin: int = 0
    ) -> None:
        """Call the functions from one on; what they return is put among the values."""
        for function in self.functions[begin:]:
            values |= zip(function.outputs, self.call(function, values, instead), strict=True)

    def call(
        self, function: Function, values: Mapping[int, Tensor], instead: Instead | None = None
    ) -> list[Tensor]:
        """Call one function, or what it is replaced by."""
        args, kwargs = function.given(values)
        with torch.enable_grad():
            made = instead(function, args, kwargs, values) if instead else NotImplemented
            if made is NotImplemented:
                made = function.run(args, kwargs)
        return [args[0]] if made is None else [*tensors(made)]

    def backward(
        self, values: Mapping[int, Tensor], slots: Sequence[int], *, again: bool = False
    ) -> list[Tensor | None]:
        """The derivatives of the losses by some values; the last time, or once more."""
        losses = [(values[slot], grad) for slot, grad in self.losses if values[slot].requires_grad]
        roots, given = zip(*losses, strict=True)
        of = [values[slot] for slot in slots]
        found = torch.autograd.grad(roots, of, given, allow_unused=True, retain_graph=again)
        return list(found)

    def unfolded(self, weights: Mapping[int, Tensor]) -> Tape:
        """The tape with recurrent layers and attention written out, step by step."""
        if not any(function.name in FORMULAS for function in self.functions):
            return self
        recording, values = Recording(), self.beginning(weights)
        keys = {id(values[slot]): key for slot, key in self.leaves.items()}

        def written_out(
            function: Function, args: list[Any], kwargs: dict[str, Any], _: Mapping[int, Tensor]
        ) -> Any:  # noqa: ANN401 (whatever the function returns)
            formula = FORMULAS.get(function.name)
            return formula(*args, **kwargs) if formula else NotImplemented

        with recording:
            self.forward(values, written_out)
        for slot, grad in self.losses:
            recording.backward([values[slot]], [grad])
        tape = recording.tape()
        if tape is None:
            return self
        return replace(tape, leaves={slot: keys[key] for slot, key in tape.leaves.items()})

    def by_parameter(
        self, values: Mapping[int, Tensor], found: Sequence[Tensor | None]
    ) -> dict[int, Tensor]:
        """`id` of each parameter → its gradient, of what is found for its slot."""
        return {
            self.leaves[slot]: torch.zeros_like(values[slot]) if grad is None else grad
            for slot, grad in zip(self.trained, found, strict=True)
        }


class Pass:
    """A tape run at some weights, of which functions are then replaced, time after time.

    Args:
        tape: the tape.
        weights: `id` of each parameter → its values.
    """

    def __init__(self, tape: Tape, weights: Mapping[int, Tensor]) -> None:
        self.tape, self.weights = tape, weights
        self.values = tape.beginning(weights)
        # As each was made: what F.linear returns, to which it adds the bias in place, is at 1.
        versions = {slot: value._version for slot, value in self.values.items()}
        for function in tape.functions:
            self.values |= zip(function.outputs, tape.call(function, self.values), strict=True)
            versions |= {slot: self.values[slot]._version for slot in function.outputs}
        self.kept = all(self.values[slot]._version == at for slot, at in versions.items())
        slots = [slot for slot, value in self.values.items() if value.requires_grad]
        self.slopes = dict(zip(slots, tape.backward(self.values, slots, again=True), strict=True))

    def gradients(self, instead: Instead, numbers: Sequence[int]) -> dict[int, Tensor]:
        """The gradients of the losses, to a few roundings.

        Args:
            instead: as `Tape.gradients` has it.
            numbers: of the functions that it replaces.
        """
        tape = self.tape
        if not self.kept:  # functions that change their input in place have to be called anew
            return tape.gradients(self.weights, instead)
        first, values = tape.functions[numbers[0]], dict(self.values)
        made = tape.call(first, values, instead)
        true = [values[slot] for slot in first.outputs]
        if len(numbers) == 1 and all(map(torch.equal, made, true)):
            return self._beside(first, made)
        values |= zip(first.outputs, made, strict=True)
        tape.forward(values, instead, numbers[0] + 1)
        return tape.by_parameter(values, tape.backward(values, tape.trained, again=True))

    def through(self, slot: int, slope: Tensor | None) -> dict[int, Tensor]:
        """The gradients that come through one value, by the `id` of the parameter.

        Args:
            slot: the value's.
            slope: what comes back to it; that of the losses is in `slopes`.
        """
        of = [self.values[leaf] for leaf in self.tape.trained]
        found = torch.autograd.grad(
            self.values[slot], of, slope, retain_graph=True, allow_unused=True
        )
        return self.tape.by_parameter(self.values, found)

    def _beside(self, function: Function, made: Sequence[Tensor]) -> dict[int, Tensor]:
        """The gradients where one function returns the same, and hands back others.

        They are the true ones, and by how much what it hands back is other than what it did.
        """
        ways = []
        for slot, one in zip(function.outputs, made, strict=True):
            slope = self.slopes.get(slot)
            if slope is not None:
                ways += [(one, slope), (self.values[slot], -slope)]
        roots, given = zip(*(way for way in ways if way[0].requires_grad), strict=True)
        leaves = [self.values[slot] for slot in self.tape.trained]
        more = torch.autograd.grad(roots, leaves, given, retain_graph=True, allow_unused=True)
        true = self.tape.by_parameter(self.values, [self.slopes[s] for s in self.tape.trained])
        by = self.tape.by_parameter(self.values, more)
        return {key: true[key] + by[key] for key in true}


class Recording(TorchFunctionMode):
    """Note calls while a program runs, and make the tape of a step of them.

    Within a `with` block all calls are noted; without one, those that `note` is told of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots: dict[int, int] = {}
        self.kept: list[Tensor] = []  # so that no other tensor gets the `id` of one of these
        self.leaves: dict[int, int] = {}
        self.frozen: set[int] = set()
        self.functions: list[Function] = []
        self.losses: list[tuple[int, Any]] = []
        self.value = 0.0
        self.strange: tuple[str, ...] = ()  # what the losses went through that is not seen

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,  # noqa: ANN401 (as torch has it)
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        drawn_from = self.drawn_from(getattr(function, "__name__", ""))
        made = function(*args, **(kwargs or {}))
        self.note(function, args, kwargs or {}, made, drawn_from)
        return made

    def drawn_from(self, name: str) -> Sequence[Tensor] | None:
        """The states of torch's random generators, before a call that draws from one."""
        return generators() if name in RANDOM else None

    def note(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        made: Any,  # noqa: ANN401 (whatever the function returns)
        drawn_from: Sequence[Tensor] | None,
    ) -> None:
        """Note one call, if one of its arguments depends on a weight."""
        if not any(map(self._depends, tensors((args, kwargs)))):
            return  # which most are
        slotted, named = _replaced((args, dict(kwargs)), Tensor, self._slotted)
        name = getattr(call, "__name__", "")
        outputs = [args[0]] if name == "__setitem__" else [*tensors(made)]
        if any(self.slots.get(id(output)) in self.leaves for output in outputs):
            return  # a weight itself, as nn.init fills it
        numbers = tuple(self._new(output) for output in outputs)
        if numbers:
            self.functions.append(Function(name, call, slotted, named, numbers, drawn_from))

    def backward(self, roots: Sequence[Tensor], given: Sequence[Any]) -> None:
        """Note the tensors of which the gradient was taken."""
        for root, grad in zip(roots, given, strict=True):
            self.losses.append((self.slots.get(id(root), -1), grad))
            self.value += float(root.detach().sum())

    def tape(self) -> Tape | None:
        """The tape of what was noted; None if a loss came from elsewhere."""
        needed = {slot for slot, _ in self.losses}
        functions = []
        for function in reversed(self.functions):
            if needed.intersection(function.outputs):
                functions.append(function)
                needed |= function.inputs()
        known = {slot for function in functions for slot in function.outputs} | set(self.leaves)
        nodes = [self.kept[slot].grad_fn for slot in sorted(needed - known) if slot >= 0]
        self.strange = tuple(dict.fromkeys(node.name() for node in nodes if node))
        if not needed or not needed <= known:
            return None
        counts: dict[str, int] = {}
        placed = []
        for function in reversed(functions):
            place = counts[function.name] = counts.get(function.name, -1) + 1
            placed.append(replace(function, place=place))
        leaves = {slot: key for slot, key in self.leaves.items() if slot in needed}
        parameters = {slot: self.kept[slot] for slot in leaves}
        makers = {slot: function for function in placed for slot in function.outputs}
        losses, frozen = tuple(self.losses), self.frozen & leaves.keys()
        return Tape(tuple(placed), leaves, parameters, frozen, losses, makers, self.value)

    def _depends(self, tensor: Tensor) -> bool:
        """Whether it is a weight, or was computed from one."""
        # A frozen weight is one that mine may train: its values are to be mine's in a replay.
        known = id(tensor) in self.slots or tensor.requires_grad
        return known or isinstance(tensor, Parameter)

    def _slotted(self, tensor: Tensor) -> Tensor | Slot:
        number = self.slots.get(id(tensor))
        if number is None and self._depends(tensor):
            number = self._new(tensor)
            if tensor.is_leaf:
                self.leaves[number] = id(tensor)
                if not tensor.requires_grad:
                    self.frozen.add(number)
        return tensor if number is None else Slot(number)

    def _new(self, tensor: Tensor) -> int:
        number = self.slots[id(tensor)] = len(self.kept)
        self.kept.append(tensor)
        return number


def _replaced(nested: Any, kind: type, by: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Tuples, lists and dicts with everything of a kind in them replaced."""
    if isinstance(nested, kind):
        return by(nested)
    if type(nested) in (tuple, list):
        return type(nested)(_replaced(one, kind, by) for one in nested)
    if type(nested) is dict:
        return {key: _replaced(one, kind, by) for key, one in nested.items()}
    return nested


def flattened(nested: Any) -> Iterator[Any]:  # noqa: ANN401
    """What tuples, lists and dicts hold, one by one."""
    if isinstance(nested, (tuple, list)):
        for one in nested:
            yield from flattened(one)
    elif isinstance(nested, dict):
        yield from flattened(list(nested.values()))
    else:
        yield nested


def tensors(nested: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """The tensors in tuples, lists and dicts."""
    return (one for one in flattened(nested) if isinstance(one, Tensor))


def _copied(value: Any) -> Any:  # noqa: ANN401
    return value.clone() if isinstance(value, Tensor) else value
