"""Where the mistakes of `mistakes.py` may have been made in a program, and those of a whole one.

How each is made is told in `backward.py`.
"""

from __future__ import annotations

__all__ = [
    "CAUSES",
    "LOOK_AHEAD",
    "SHOWN_ELSEWHERE",
    "Break",
    "breaks",
    "constants",
    "in_words",
    "leaf",
    "other_numbers",
    "other_rows",
    "place_of",
    "rows_of",
]

import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Any

from torch import Tensor

from ..diagnosis import listed
from ..observing.tape import Function, Slot, Tape, flattened
from .derivatives import TEXTS, slips
from .functions import ELEMENTWISE, GATHERING, MOVING, NORMS, PRODUCTS, SCORED, TAKING
from .mistakes import ADD_UP_ROWS, APPLIED, MISTAKES, OPTIONS, PLAIN, RIGHT, over_the_others

CAUSES = {  # the words for them
    *("derivative", "transposed product", "input of the layer", "updated too early"),
    *("bias gradient", "softmax twice", "log_softmax twice", "sigmoid twice", "broadcast"),
    *("batch statistics", "branch cut off", "rows of another step", "look-ahead"),
    *("another function", "overwritten gradient", "unequal micro-batches", "other rows"),
    *("derivative of the loss", "term of the loss"),
}
BESIDE = {"before": -1, "after": 1}
WHOLE = {"in_order", "row_by_row", "micro_batches"}  # mistakes that are made in no function
OF_THE_LOSS = {  # mistakes by which the loss is another, too
    *("skipped", "other", "squashed_twice", "flat", "same_shape", "other_rows", "look_ahead"),
    *("other_numbers", "weight_turned", "replaced"),
    *WHOLE,
}
OF_STATISTICS = [("unbiased",), ("outside",), ("rows",), ("more",)]  # likewise, of those of a norm
OF_A_NORM = (
    ", h = g * weight, xhat the normalised x, std what it was divided by, n how many are summed"
)
FEW = 8  # places that are said one by one
MOST_ROWS = 64  # that are taken one by one, or in micro-batches


@dataclass(frozen=True)
class Break:
    """One mistake in a gradient.

    Args:
        cause: the report's word for it.
        mine: what mine seems to do, in words; {place} stands for the function's place, and {given}
            for the one of its inputs that is concerned.
        change: what to write instead, likewise.
        what: the mistake, by the name of the method that makes it; "known" for gradients that
            are, and which the detail returns for a step.
        function: the function in which it is made, by its name; empty where it is none's.
        places: in which of the functions of that name, from 0; empty for all.
        where: these places in words.
        given: the input that is concerned, in words.
        detail: what else belongs to it: an input's number, the names of weights, a distance.
        beside: another mistake that is made as well.
    """

    cause: str
    mine: str
    change: str
    what: str
    function: str = ""
    places: tuple[int, ...] = ()
    where: str = ""
    given: str = ""
    detail: Any = None
    beside: Break | None = None

    @property
    def parts(self) -> tuple[Break, ...]:
        """It and what is made beside it, one by one."""
        return (replace(self, beside=None), *(self.beside.parts if self.beside else ()))

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that it takes as they are after mine's step."""
        return self.detail if self.what == "new_weights" else ()

    @property
    def updates(self) -> int:
        """How often mine then rounds its weights in a step."""
        return max(one.detail[0] if one.what == "row_by_row" else 1 for one in self.parts)

    @property
    def alters_loss(self) -> bool:
        """Whether the loss is another with it, and not its gradient alone."""
        return any(one.what in OF_THE_LOSS or one.detail in OF_STATISTICS for one in self.parts)

    @property
    def breadth(self) -> float:
        """In how many places it is made."""
        return sum(len(one.places) or math.inf for one in self.parts)

    def in_all(self) -> Break:
        """The same mistake in all functions of its name."""
        beside = self.beside and self.beside.in_all()
        return replace(self, places=(), where="", given="", beside=beside)

    def concerns(self, function: Function) -> bool:
        """Whether it is made in this function."""
        here = not self.places or function.place in self.places
        return self.function in ("", function.name) and here


LOOK_AHEAD = Break(
    "look-ahead",
    "takes the gradient ahead of its weights, at w + μ * v, as Nesterov's papers have it",
    "take the gradient at w, or set nesterov=True in theirs",
    "look_ahead",
)
SHOWN_ELSEWHERE = replace(
    LOOK_AHEAD,
    mine="shows w, where theirs shows the point ahead, w + μ * v: both are Nesterov's",
    change="nothing; hold w + μ * v against theirs, and they are the same",
)


def breaks(tape: Tape, names: Mapping[int, str]) -> Iterator[Break]:
    """All mistakes that may have been made: everywhere, then from the loss backwards.

    Args:
        tape: of a step of theirs.
        names: `id` of a parameter → its name.
    """
    groups: dict[str, list[Function]] = {}
    for function in tape.functions:
        groups.setdefault(function.name, []).append(function)
    places = _Places(tape, names)
    mistakes = [one for name in groups for one in _of_the_table(name)]
    mistakes += [one for name in groups for one in _of_a_formula(name)]
    mistakes += [one for some in groups.values() for one in _options(some[0])]
    mistakes += [one for some in groups.values() for one in _cuts(some)]
    everywhere = [list(_everywhere(one, groups[one.function], places)) for one in mistakes]
    yield from (one for some in everywhere for one in some if len(one.places) != 1)
    for name, functions in groups.items():
        yield from _new_weights(tape, name, functions, names)
    yield from _orders(tape, names)
    for end, which in ((0, "first"), (-1, "last")):
        yield Break(
            "overwritten gradient",
            f"keeps the gradient of the {which} use alone of a weight that is used several times",
            "add up the gradients of all uses: += for =, and in PyTorch zero_grad() once a step",
            "one_use",
            detail=end,
        )
        yield Break(
            "overwritten gradient",
            f"keeps the {which} row's gradient of each weight alone",
            ADD_UP_ROWS,
            "one_row",
            detail=end,
        )
    yield from _truncated(tape)
    yield from (other_rows(f"the step {which}", {}, by) for which, by in BESIDE.items())
    yield from _of_rows(tape)
    order = {(function.name, function.place): k for k, function in enumerate(tape.functions)}
    alone = [one for some in everywhere for one in some if len(one.places) == 1]
    yield from sorted(alone, key=lambda one: -order[one.function, one.places[0]])


def other_rows(said: str, places: Mapping[int, int], beside: int = 0) -> Break:
    """Each step is taken with the rows of another one.

    Args:
        said: of which, in words.
        places: the number of a step → that of the step whose rows it takes.
        beside: for all other steps, how many steps away that step is.
    """
    return Break(
        "rows of another step",
        f"takes each step with the rows of {said}",
        "give both the same rows, in the same order",
        "other_rows",
        detail=(tuple(places.items()), beside),
    )


def other_numbers(name: str, place: int, times: Sequence[float], plus: Sequence[float]) -> Break:
    """A function is given multiples of an array that does not depend on the weights.

    Args:
        name: of the function.
        place: the array's, among the arguments.
        times: by what it is multiplied; one number, or one for each column.
        plus: what is added then, likewise.
    """
    said = [
        f"{'' if len(times) == 1 else f'whose column {column} is '}{_multiple(factor, shift)}"
        for column, (factor, shift) in enumerate(zip(times, plus, strict=True))
        if len(times) == 1 or (factor, shift) != (1, 0)
    ]
    more = ", …" if len(said) > FEW else ""
    return Break(
        "other rows",
        f"gives {name} an array {'that is ' * (len(times) == 1)}{listed(said[:FEW])}{more}",
        "give both the same numbers: see how both scale their rows and targets",
        "other_numbers",
        name,
        detail=(place, tuple(times), tuple(plus)),
    )


def _multiple(times: float, plus: float) -> str:
    """A multiple of theirs in words, with what is added to it."""
    more = f", {'plus' if plus > 0 else 'less'} {abs(plus):.6g}" if plus else ""
    return f"{f'{times:.6g} times ' if times != 1 or not plus else ''}theirs{more}"


def constants(tape: Tape) -> dict[tuple[str, int], int]:
    """The functions that are given arrays which depend on no weight, and at which place.

    Each with how many columns these have; 1 if there are none, or not as many in each.
    """
    columns: dict[tuple[str, int], set[int]] = {}
    for function in tape.functions:
        for place, arg in enumerate(function.args):
            if isinstance(arg, Tensor) and arg.ndim and arg.is_floating_point():
                count = arg.shape[1] if arg.ndim > 1 else 1
                columns.setdefault((function.name, place), set()).add(count)
    return {key: counts.pop() if len(counts) == 1 else 1 for key, counts in columns.items()}


def rows_of(one: Break, step: int) -> int:
    """The step whose rows a step is taken with."""
    if one.what != "other_rows":
        return step
    places, beside = one.detail
    return int(dict(places).get(step, step + beside))


def _cuts(functions: list[Function]) -> Iterator[Break]:
    """The gradient is not handed on to one of a function's inputs."""
    inputs, name = max(len(function.slots()) for function in functions), functions[0].name
    for number in range(inputs if inputs > 1 or name in ELEMENTWISE | GATHERING else 0):
        of, change = f"through {name} ({{place}})", "hand on what comes back there"
        if inputs > 1:
            of = f"from {name} ({{place}}) to {{given}}"
            change = f"hand what comes back through {name} on to {{given}}, too"
        yield Break(
            "branch cut off",
            f"hands no gradient on {of}",
            change,
            "cut",
            name,
            detail=number,
        )


def _truncated(tape: Tape) -> Iterator[Break]:
    """No gradient goes from one step of a recurrence, which uses its weights again, to the last."""
    uses: dict[int, Counter[int]] = {}  # slot → how often each weight was used on the way there
    for function in tape.functions:
        before = [uses.get(slot, Counter()) for slot in function.slots()]
        here: Counter[int] = reduce(or_, before, Counter()) + Counter(
            {*function.slots()} & {*tape.leaves}
        )
        uses |= dict.fromkeys(function.outputs, here)
    used: Counter[int] = reduce(or_, uses.values(), Counter())
    again = {slot for slot, times in used.items() if times > 1}
    states: set[int] = set()  # what a later use of such a weight depends on
    for function in reversed(tape.functions):
        if function.inputs() & again or not states.isdisjoint(function.outputs):
            states |= function.inputs() - {*tape.leaves}
    passed = tuple(
        (function.name, function.place, number)
        for function in tape.functions
        for number, slot in enumerate(function.slots())
        if slot in states and 0 < max(uses[slot].values()) < max(uses[function.outputs[0]].values())
    )
    if passed:
        yield Break(
            "branch cut off",
            "hands no gradient on from one step of the recurrence to the step before",
            "carry it on: what comes back to a state (h, c) is added to that of the step before",
            "truncated",
            detail=passed,
        )


def _of_rows(tape: Tape) -> Iterator[Break]:
    """Rows that are taken one by one, or in micro-batches."""
    rows = tape.rows
    if not 1 < rows <= MOST_ROWS:
        return
    for share, said in ((1.0, ""), (1 / rows, f", by 1/{rows} of its gradient")):
        yield Break(
            "updated too early",
            f"updates its weights after each of the {rows} rows{said}",
            "add up the gradients of all rows from the same weights, then update once",
            "row_by_row",
            detail=(rows, share),
        )
    for size in range(2, rows):
        if rows % size:
            yield Break(
                "unequal micro-batches",
                f"averages the means of micro-batches of {size} rows, though the last of them has "
                f"{rows % size}",
                f"weigh each micro-batch by its rows, or divide a sum over all by {rows}",
                "micro_batches",
                detail=(rows, size),
            )


def _of_weights(tape: Tape, names: Mapping[int, str]) -> dict[int, tuple[Any, ...]]:
    """Slot → what tells the function that made it, of those of its name: the weights that feed it.

    A gate of a recurrent network, say, is in each of its steps fed by the same weights.
    """
    near: dict[int, frozenset[Any]] = {
        slot: frozenset([names.get(key, str(key))]) for slot, key in tape.leaves.items()
    }
    found: dict[int, tuple[Any, ...]] = {}
    for function in tape.functions:
        fed = frozenset().union(*(near.get(slot, frozenset()) for slot in function.inputs()))
        if function.name == "__getitem__":
            fed |= {(repr(function.args[1]),)}
        weights = frozenset(one for one in fed if isinstance(one, (str, tuple)))
        role = (function.name, weights or tuple(_near(arg, near) for arg in function.args))
        for number, slot in enumerate(function.outputs):
            found[slot] = role
            if function.name in ELEMENTWISE:
                near[slot] = frozenset([frozenset([role])])
            else:
                near[slot] = fed | ({(number,)} if len(function.outputs) > 1 else set())
    return found


def _near(
    arg: Any,  # noqa: ANN401 (whatever a function is given)
    near: Mapping[int, frozenset[Any]],
) -> frozenset[Any] | None:
    """What feeds an argument; None where no weight does, as with a first state."""
    slots = [slot for slot in flattened(arg) if isinstance(slot, Slot)]
    return frozenset().union(*(near.get(s.number, frozenset()) for s in slots)) if slots else None


class _Places:
    """The functions of a tape in words: where they stand, and what they are given."""

    def __init__(self, tape: Tape, names: Mapping[int, str]) -> None:
        self.tape, self.names = tape, names
        self.of_weights = _of_weights(tape, names)

    def role(self, function: Function) -> Any:  # noqa: ANN401
        """What tells a function of those of its name."""
        return self.of_weights[function.outputs[0]][1]

    def module(self, function: Function) -> str:
        """The module that it is in or that feeds it; empty where names tell of none."""
        weights = [*filter(None, map(self._weight, function.slots()))]
        fed = [one for one in self.role(function) if isinstance(one, str)]
        modules = {one.rpartition(".")[0] for one in weights or fed}
        where = "in" if weights else "after"
        return f"{where} module {listed(sorted(modules))}" if all(modules) and modules else ""

    def after(self, function: Function) -> str:
        """The same, after a comma."""
        module = self.module(function)
        return module and f", {module}"

    def given(self, one: Break, functions: Sequence[Function]) -> str:
        """The input that a mistake concerns, as it is in all of these functions."""
        if one.what == "cut":
            number = f"input {one.detail + 1}"
            inputs = {self._input(function, one.detail) for function in functions}
            return inputs.pop() if len(inputs) == 1 else number
        factors = {_factor(function) for function in functions}
        return factors.pop() if len(factors) == 1 else "the other factor"

    def _input(self, function: Function, number: int) -> str:
        """One of a function's inputs: a weight, or what another function has made."""
        said = [self._weight(slot) or self._made(slot) for slot in function.slots()]
        if number >= len(said):
            return f"input {number + 1}"
        unique = said.count(said[number]) == 1
        return said[number] if unique else f"{said[number]} as input {number + 1}"

    def _weight(self, slot: int) -> str:
        """The weight that stands there, transposed perhaps; empty where there is none."""
        while maker := self.tape.makers.get(slot):
            if maker.name not in MOVING - TAKING:
                return ""
            slot = min(maker.inputs())
        return self.names.get(self.tape.leaves.get(slot, 0), "")

    def _made(self, slot: int) -> str:
        maker = self.tape.makers.get(slot)
        return f"what {maker.name} has made" if maker else "a weight"


def _factor(function: Function) -> str:
    """What a product multiplies by, or a quotient divides by, that depends on no weight."""
    if function.name == "neg":
        return "the minus sign"
    word = "divisor" if function.name == "div" else "factor"
    others = (arg for arg in function.args if not isinstance(arg, Slot))
    number = next(others, None)
    if isinstance(number, Tensor) and number.numel() > 1:
        return f"the {word} of shape {tuple(number.shape)}"
    return f"the other {word}" if number is None else f"the {word} {float(number):.6g}"


def _everywhere(one: Break, functions: list[Function], known: _Places) -> Iterator[Break]:
    """A mistake in all functions of its name, in some, and in each.

    Some are those fed by the same weights, and all but the last, whose derivative is often written
    apart from the others'.
    """
    count, name = len(functions), one.function

    def made(where: str, some: Sequence[Function], *, everywhere: bool = False) -> Break:
        places = () if everywhere else tuple(function.place for function in some)
        given = known.given(one, some) if "{given}" in one.mine else ""
        return replace(one, places=places, where=where, given=given)

    if count == 1:
        where = f"the only {name}{known.after(functions[0])}"
        yield made(where, functions, everywhere=True)
        return
    yield made(f"in each of {count} calls of {name}", functions, everywhere=True)
    if count > 2:
        yield made(f"in each but the last of {count} calls of {name}", functions[:-1])
    alike: dict[Any, list[Function]] = {}
    for function in functions:
        alike.setdefault(known.role(function), []).append(function)
    groups = list(alike.values())
    for role, some in alike.items():  # with those of the first step, to whom no state is handed
        first = [one for other in alike for one in alike[other] if _begins(other, role)]
        groups += [[*first, *some]] if first else []
    for some in groups:
        if 1 < len(some) < count:
            numbers = [str(function.place + 1) for function in some]
            said = listed(numbers if len(numbers) <= FEW else [*numbers[:3], "…", numbers[-1]])
            yield made(f"{name} number {said} of {count}{known.after(some[-1])}", some)
    for function in functions:
        where = f"{name} number {function.place + 1} of {count}{known.after(function)}"
        yield made(where, [function])


def _begins(first: Any, role: Any) -> bool:  # noqa: ANN401
    """Whether functions of one role are fed as those of another, but for what none feeds."""
    if first == role or not isinstance(first, tuple) or not isinstance(role, tuple):
        return False
    return len(first) == len(role) and all(a in (None, b) for a, b in zip(first, role, strict=True))


def place_of(function: Function, tape: Tape, names: Mapping[int, str]) -> str:
    """Where a function stands, as "in module fc1" or "after module fc1"; empty if names don't tell.

    Args:
        function: of the tape.
        tape: of a step.
        names: `id` of a parameter → its name.
    """
    return _Places(tape, names).module(function)


def _of_the_table(name: str) -> Iterator[Break]:
    plain = PLAIN.get(name, f"the derivative of {name}")
    words = {"name": name, "squash": SCORED.get(name, ""), "place": "({place})", "plain": plain}
    text = TEXTS.get(name, "").replace("\n", "; ")
    formula = f"{text}, where y = {name}(x) and g is what comes back" if text else plain
    words |= {"right": RIGHT.get(name, formula), "a": "h" if name == "tanh" else "a"}
    words |= zip(
        ("apply", "applies"), APPLIED.get(name, ("multiply by", "multiplies by")), strict=True
    )
    for (what, where, cause, change), ones in MISTAKES.items():
        for mine, detail in ones.items() if name in where else ():
            told = mine if "{place}" in mine else f"{mine} {{place}}"
            said, does, write = (text.format(**words) for text in (cause, told, change))
            yield Break(said, does, write, what, name, detail=detail)


def _of_a_formula(name: str) -> Iterator[Break]:
    """A slip in the derivative of a function."""
    for right, wrong, formula in slips(name):
        said = f"has `{wrong}` for the derivative of y = {name}(x) ({{place}})"
        change = f"{right}, where g is what comes back{OF_A_NORM if name in NORMS else ''}"
        yield Break("derivative", said, change, "formula", name, detail=formula)


def _options(function: Function) -> Iterator[Break]:
    """The same function with another option, or without one with which it is called by name."""
    name = function.name
    option, place, values = OPTIONS.get(name, ("", 0, ()))
    others = [
        (option, place, value, f"with {option}={value}", f"give both the same {option}")
        for value in values
    ]
    others += _without_options(function)
    if smoothing := function.kwargs.get("label_smoothing"):
        made = partial(over_the_others, smoothing=smoothing)
        how = "with its label_smoothing spread over the other classes alone"
        others.append(
            ("label_smoothing", 5, made, how, "give ε / K to all K classes, the true one, too")
        )
    for *detail, how, change in others:
        said = f"{name} {how} ({{place}})"
        other = partial(Break, change=change, function=name, detail=tuple(detail))
        yield other("another function", f"has {said}", what="other")
        yield other("derivative", f"has the derivative of {said}", what="derivative_of_other")


def _without_options(function: Function) -> Iterator[tuple[str, int, Any, str, str]]:
    """An option with which a function is called, its place, what is usual, and the words."""
    try:
        known = inspect.signature(function.call).parameters
    except ValueError:  # a function of torch's own that does not tell
        return
    for place, (option, parameter) in enumerate(known.items()):
        value, usual = function.kwargs.get(option, parameter.default), parameter.default
        plain = not isinstance(value, Slot) and option not in {"reduction", "inplace", "training"}
        if plain and usual is not parameter.empty and not _alike(value, usual):
            shown = option if isinstance(value, Tensor) else f"{option}={value}"
            yield option, place, usual, f"without its {option}", f"{shown}, as theirs has it"


def _alike(value: Any, other: Any) -> bool:  # noqa: ANN401 (an option's)
    return value is other or (not isinstance(value, Tensor) and bool(value == other))


def _new_weights(
    tape: Tape, name: str, functions: list[Function], names: Mapping[int, str]
) -> Iterator[Break]:
    places = PRODUCTS.get(name, (0, 1))
    if name not in PRODUCTS and name != "mul":
        return
    used: dict[str, None] = {}
    for function in functions:
        for one, other in (places, places[::-1]):
            key = leaf(tape, function.args[one])
            if key is not None and isinstance(function.args[other], Slot):
                used[names.get(key, "")] = None
    used.pop("", None)
    for some in (*([one] for one in used), *([[*used]] if len(used) > 1 else [])):
        yield Break(
            "updated too early",
            "hands the gradient down by the updated {weights}",
            "take all gradients from the weights as they are, then update: keep a copy of "
            "{weights}, or move its update below",
            "new_weights",
            name,
            detail=tuple(some),
        )


def leaf(tape: Tape, arg: Any) -> int | None:  # noqa: ANN401 (whatever a function is given)
    """`id` of the parameter that an argument is, transposed perhaps, or rows of it."""
    while isinstance(arg, Slot) and arg.number not in tape.leaves:
        maker = tape.makers.get(arg.number)
        arg = maker.args[0] if maker and maker.name in MOVING and maker.args else None
        if isinstance(arg, Tensor):  # an embedding's rows; the weight is its second argument
            arg = maker.args[1] if maker and len(maker.args) > 1 else None
    return tape.leaves[arg.number] if isinstance(arg, Slot) else None


def _orders(tape: Tape, names: Mapping[int, str]) -> Iterator[Break]:
    """Each gradient is taken after the update before it, layer by layer or weight by weight."""
    layers: list[tuple[str, ...]] = []
    for function in tape.functions:
        leaves = [tape.leaves[slot] for slot in sorted(function.inputs() & set(tape.leaves))]
        layer = tuple(names[key] for key in leaves if key in names)
        maker = next((tape.makers[s] for s in function.inputs() if s in tape.makers), None)
        before = maker and function.name == "add" and maker.name in PRODUCTS
        if layer and before and layers:
            layers[-1] += layer
        elif layer:
            layers.append(layer)
    singly = [(name,) for layer in layers for name in layer]
    seen = []
    for order in (layers[::-1], layers, singly[::-1], singly):
        if len(order) > 1 and order not in seen:
            seen.append(order)
            yield Break(
                "updated too early",
                f"updates {' then '.join(listed(group) for group in order)}, each before the next "
                "one's gradient is taken",
                "take all gradients from the weights as they are, then update",
                "in_order",
                detail=tuple(order),
            )


def in_words(one: Break, weights: Sequence[str]) -> str:
    """What mine seems to do, with the function's place and the weights that it reaches."""
    where = "; ".join(filter(None, [one.where, f"it reaches {listed(weights)}"]))
    return one.mine.format(weights=listed(one.names), place=where, given=one.given)
