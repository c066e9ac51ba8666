"""The mistakes that people make in a gradient, and the words for them.

How each is made is told in `backward.py`.
"""

from __future__ import annotations

__all__ = [
    "CAUSES",
    "LOOK_AHEAD",
    "SHOWN_ELSEWHERE",
    "Break",
    "after_module",
    "breaks",
    "in_words",
    "leaf",
    "other_rows",
    "rows_of",
]

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from .diagnosis import listed
from .tape import Function, Slot, Tape, flattened

CAUSES = {  # the words for them
    *("derivative", "transposed product", "input of the layer", "updated too early"),
    *("bias gradient", "softmax twice", "log_softmax twice", "sigmoid twice", "broadcast"),
    *("batch statistics", "branch cut off", "rows of another step", "look-ahead"),
    *("another function", "overwritten gradient", "unequal micro-batches"),
}
BESIDE = {"before": -1, "after": 1}
WHOLE = {"in_order", "row_by_row", "micro_batches"}  # mistakes that are made in no function
OF_THE_LOSS = {  # mistakes by which the loss is another, too
    *("skipped", "other", "squashed_twice", "flat", "same_shape", "other_rows", "look_ahead"),
    *WHOLE,
}
OF_STATISTICS = [("unbiased",), ("outside",)]  # likewise, of those of a norm
FEW = 8  # places that are said one by one
MOST_ROWS = 64  # that are taken one by one, or in micro-batches


@dataclass(frozen=True)
class Break:
    """One mistake in a gradient.

    Args:
        cause: the report's word for it.
        mine: what mine seems to do, in words; {place} stands for the function's place.
        change: what to write instead.
        what: the mistake, by the name of the method that makes it.
        function: the function in which it is made, by its name; empty where it is none's.
        places: in which of the functions of that name, from 0; empty for all.
        where: these places in words.
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
        return replace(self, places=(), where="", beside=beside)

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


# What may stand where an elementwise function's derivative should, of the derivative that is right
# and the function's input and output: (how that is told, what it is).

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
SLOPES: tuple[tuple[str, Slope], ...] = (
    ("leaves out {plain}", lambda d, *_: torch.ones_like(d)),
    ("takes tanh′ from the input of {name}, 1 − z²,", lambda _d, x, _y: 1 - x * x),
    ("takes σ′ from the input of the {name}, z(1 − z),", lambda _d, x, _y: x * (1 - x)),
    ("has tanh's 1 − {a}² for {plain}", lambda _d, _x, y: 1 - y * y),
    ("has sigmoid's {a}(1 − {a}) for {plain}", lambda _d, _x, y: y * (1 - y)),
    ("has 1 − {a} for {plain}", lambda _d, _x, y: 1 - y),
    ("has the output, {a}, for {plain}", lambda _d, _x, y: y),
    ("has the input, z, for {plain}", lambda _d, x, _y: x),
    ("takes relu's mask for {plain}", lambda _d, x, _y: (x > 0).to(x)),
    ("has σ(z), of the input, for {plain}", lambda _d, x, _y: x.sigmoid()),
    ("has {plain} with the other sign", lambda d, *_: -d),
    ("multiplies by {plain} twice", lambda d, *_: d * d),
    ("leaves the factor out of {plain}, not its mask", lambda d, *_: (d != 0).to(d)),
    ("leaves the mask out of {plain}, not its factor", lambda d, *_: d.max().expand_as(d)),
)
RIGHT = {
    "tanh": "1 − h², with h = tanh(z)",
    "sigmoid": "a(1 − a), with a = σ(z)",
    "relu": "1 where z > 0, else 0",
    "softmax": "p · (g − Σ g · p), not p(1 − p) · g",
    "log_softmax": "g − p · Σ g, with p = softmax(z)",
}
PLAIN = {"tanh": "tanh′", "sigmoid": "σ′", "relu": "relu's mask", "dropout": "dropout's mask"}
ACROSS = {"softmax", "log_softmax"}  # whose derivative is no number for each element
PIECEWISE = {"relu", "leaky_relu", "relu6", "hardtanh", "clamp", "clamp_min", "threshold"}
BY_CONSTANTS = {
    "mul",
    "div",
    "neg",
}  # elementwise functions of one input, where the other is constant
ELEMENTWISE = {
    *("tanh", "sigmoid", "leaky_relu", "elu", "gelu", "silu", "softplus", "selu", "relu6"),
    *("relu", "hardtanh", "softmax", "log_softmax", "celu", "dropout", "logsigmoid", "mish"),
    *("exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "abs", "sin", "cos", "erf"),
    *("reciprocal", "pow", "atan", "sinh", "cosh", "clamp", "clamp_min"),
}
LINEAR_LAYERS = {"matmul": (0, 1), "mm": (0, 1), "mv": (0, 1), "linear": (0, 1), "addmm": (1, 2)}
CONVOLUTIONS = {"conv1d": (0, 1), "conv2d": (0, 1), "conv3d": (0, 1)}
PRODUCTS = LINEAR_LAYERS | CONVOLUTIONS | {"bmm": (0, 1)}
BROADCASTING = {"add", "sub", "mul", "div", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
RESHAPING = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"}
TAKING = {"embedding", "__getitem__", "index_select"}
MOVING = {"t", "transpose", "permute", "__get__", *RESHAPING, *TAKING}  # weights as they are
GATHERING = {"cat", "stack", "embedding"}
LOSSES = {"cross_entropy", "binary_cross_entropy_with_logits", "binary_cross_entropy"}
POOLING = {"max_pool1d": F.avg_pool1d, "max_pool2d": F.avg_pool2d, "max_pool3d": F.avg_pool3d}
ERRORS: dict[str, Callable[[Tensor], Tensor]] = {  # what a loss takes of each error
    "the squared error": torch.square,
    "half the squared error": lambda error: error.square() / 2,
    "the absolute error": torch.abs,
}
OF_ERRORS = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
REDUCING = {"mean", "mse_loss", "l1_loss", "nll_loss", *LOSSES}
OPTIONS: dict[str, tuple[str, int, tuple[Any, ...]]] = {  # option, its place, what it often is
    "leaky_relu": ("negative_slope", 1, (0.01, 0.1, 0.2, 0.3)),
    "elu": ("alpha", 1, (1.0, 0.1, 0.5)),
    "gelu": ("approximate", 9, ("tanh", "none")),
    "softmax": ("dim", 1, (0, 1, 2, 3)),
    "log_softmax": ("dim", 1, (0, 1, 2, 3)),
    "layer_norm": ("eps", 4, (1e-5, 1e-6, 1e-8, 1e-12, 1e-3)),
    "batch_norm": ("eps", 7, (1e-5, 1e-6, 1e-8, 1e-12, 1e-3)),
}


# Mistakes of other functions. In which, and the report's word for them → each of them: what it is,
# with which detail, how it is told, and what to write instead.
ADDITION = ("linear", "addmm", "add")
NORMS = ("batch_norm", "layer_norm")
NORMS_OF_VECTORS = ("norm", "linalg_norm", "linalg_vector_norm")
SCORED = {"cross_entropy": "softmax", "binary_cross_entropy_with_logits": "sigmoid"}
MATRICES = tuple(PRODUCTS.keys() - CONVOLUTIONS.keys())
DELTAS = "for a = x W and its δ: the gradient of W is xᵀ δ, and what is handed down δ Wᵀ"
SLIDING = "slide δ over the input for the kernel, and the flipped kernel over δ for the input"
BIAS = "sum δ over the rows"
BOTH = "for a = b · c: b's gradient is δ · c, and c's is δ · b"
SOFTMAX = "p · (g − Σ g · p), with the sum over the axis of the softmax"
STATISTICS = "let the gradient go through the mean and the variance, too"
ALREADY = "{squash}(z) − y is the derivative with respect to the scores already"
ITSELF = "hands the gradient down by the matrix itself, where its transpose should stand"
AS_IT_IS = "hands the gradient down by the kernel as it is, not flipped"
MISTAKES: dict[tuple[Collection[str], str], tuple[tuple[str, Any, str, str], ...]] = {
    (tuple(PRODUCTS), "input of the layer"): (
        (
            *("before_activation", None),
            "takes a weight's gradient from what comes before the activation",
            "the layer's own input, after the activation: grad_W = aᵀ δ, not zᵀ δ",
        ),
        (
            *("a_step_later", None),
            "takes a weight's gradient from the state after each step, not from the one before it",
            "take it from the state that the weight was multiplied by: that of the step before",
        ),
        *(
            (
                *("input_beside", by),
                f"takes a weight's gradient from the input of the layer {which}",
                "take it from the layer's own input",
            )
            for by, which in ((-1, "before"), (1, "after"))
        ),
    ),
    (("mul",), "derivative"): tuple(
        (what, number, f"{said} {number + 1} of mul", BOTH)
        for what, said in (
            ("bare_factor", "leaves the other factor out of the gradient of factor"),
            ("own_factor", "takes the factor itself for the other one in the gradient of factor"),
            ("before_activation", "takes the input of the activation for factor"),
            ("a_step_later", "takes the factor of the step after for factor"),
        )
        for number in range(2)
    ),
    (("softmax", "log_softmax"), "derivative"): (
        ("summed_over", None, "leaves the sum out of the derivative of {name}", SOFTMAX),
        *(
            ("summed_over", axis, f"sums over axis {axis} in the derivative of {{name}}", SOFTMAX)
            for axis in range(4)
        ),
    ),
    (NORMS_OF_VECTORS, "derivative"): (
        ("times_itself", 1, "does not divide by the norm ({name})", "|v|′ = v / |v|"),
        ("times_itself", -1, "divides by the square of the norm ({name})", "|v|′ = v / |v|"),
    ),
    (tuple(POOLING), "derivative"): (
        (
            *("pooled_evenly", None),
            "spreads the gradient of {name} over all that it was the largest of",
            "give all of it to the largest",
        ),
    ),
    (tuple(OF_ERRORS), "derivative"): tuple(
        ("of_errors", said, f"has the derivative of {said} for that of {{name}}", "write that")
        for said in ERRORS
    ),
    (MATRICES, "transposed product"): (
        ("turned", ("through", "other"), ITSELF, DELTAS),
        ("turned", ("weight", "itself"), "has a weight's gradient transposed", DELTAS),
        ("turned", ("weight", "other"), "multiplies δ by the input, not by its transpose", DELTAS),
        ("turned", ("weight", "output"), "transposes δ where it multiplies the input", DELTAS),
        ("turned", ("through", "output"), "transposes δ where it is handed down", DELTAS),
    ),
    (tuple(CONVOLUTIONS), "transposed product"): (
        ("turned", ("through", "other"), AS_IT_IS, SLIDING),
        ("turned", ("weight", "itself"), "has a kernel's gradient flipped", SLIDING),
    ),
    (tuple(PRODUCTS), "derivative"): (
        (
            *("handed_down_bare", None),
            "hands the gradient down without multiplying by the weight",
            "multiply by the weight's transpose",
        ),
        (
            *("handed_before_derivative", None),
            "hands the error down without the activation's derivative",
            "hand down δ, the error times the activation's derivative, not the error itself",
        ),
    ),
    (ADDITION, "bias gradient"): (
        ("bias_axis", None, "sums a bias's gradient over the wrong axis", BIAS),
        ("bias_of_all", None, "sums a bias's gradient over all outputs, too", BIAS),
        ("one_row", 0, "takes a bias's gradient from the first row alone", BIAS),
        ("one_row", -1, "takes a bias's gradient from the last row alone", BIAS),
        ("of_the_weight", "sum", "has a bias's gradient as the sum of its weight's gradient", BIAS),
        ("of_the_weight", "mean", "has a bias's gradient as the mean of its weight's", BIAS),
    ),
    (tuple(SCORED), "{squash} twice"): (
        (
            *("squashed_twice", None),
            "applies {squash} before {name}, which has one of its own",
            "hand the scores to {name} as they are",
        ),
    ),
    (tuple(SCORED), "derivative"): (
        (
            *("squash_once_more", None),
            *("multiplies the loss's derivative by that of {squash} once more", ALREADY),
        ),
        (
            *("scores_for_probabilities", None),
            *("takes z − y for the derivative of {name}, without the {squash}", "{squash}(z) − y"),
        ),
    ),
    (("cross_entropy",), "derivative"): (
        (
            *("jacobian_once_more", None),
            *("multiplies the loss's derivative by softmax's Jacobian once more", ALREADY),
        ),
        (
            *("target_alone", None),
            *("has the derivative in the target's column alone", "softmax(z) − y in every column"),
        ),
    ),
    (tuple(BROADCASTING), "broadcast"): (
        (
            *("flat", None),
            "subtracts targets of shape (n,) from outputs of shape (n, 1), which gives (n, n)",
            "give both one shape: targets[:, None], or outputs.squeeze(1)",
        ),
        (
            *("same_shape", None),
            "has targets and outputs of one shape, where theirs broadcasts (n,) against (n, 1)",
            "nothing in mine; in theirs give both one shape",
        ),
    ),
    (NORMS, "batch statistics"): (
        (
            "statistics",
            ("mean", "var"),
            "takes mean and variance of {name} as constant",
            STATISTICS,
        ),
        ("statistics", ("var",), "takes the variance of {name} as constant", STATISTICS),
        ("statistics", ("mean",), "takes the mean of {name} as constant", STATISTICS),
        (
            *("statistics", ("sign",)),
            "has the share of {name}'s variance with the other sign",
            "take it away: g − mean(g) − x̂ · mean(g · x̂)",
        ),
        (
            *("statistics", ("outside",)),
            "adds {name}'s eps to the root of the variance",
            "divide by sqrt(var + eps)",
        ),
        ("statistics", ("unbiased",), "divides the variance of {name} by n − 1", "divide it by n"),
        ("statistics", ("bare",), "leaves out {name}'s weight γ on the way back", "multiply by γ"),
        (
            "statistics",
            ("raw",),
            "takes γ's gradient from {name}'s input",
            "take it from (x − μ)/σ",
        ),
    ),
    (tuple(REDUCING), "derivative"): (
        ("scaled", None, "sums where {name} takes the mean", "divide by the count there, too"),
    ),
    (("sum",), "derivative"): (
        ("scaled", None, "averages where theirs sums", "leave out the division there"),
    ),
    (("pow", "square"), "derivative"): (
        ("scaled", None, "leaves the exponent out", "multiply by it: (w²)′ = 2 w"),
    ),
    (tuple(TAKING), "overwritten gradient"): (
        (
            *("last_of_index", None),
            "keeps the last gradient alone of rows that are taken several times",
            "add them up: np.add.at(grad, index, g) for grad[index] += g",
        ),
    ),
}


def breaks(tape: Tape, names: Mapping[int, str]) -> Iterator[Break]:
    """All mistakes that may have been made: everywhere, then from the loss backwards.

    Args:
        tape: of a step of theirs.
        names: `id` of a parameter → its name.
    """
    groups: dict[str, list[Function]] = {}
    for function in tape.functions:
        groups.setdefault(function.name, []).append(function)
    of_weights = _of_weights(tape, names)
    mistakes = [one for name in groups for one in (*_listed_mistakes(name), *_slopes(name))]
    mistakes += [one for some in groups.values() for one in _options(some[0])]
    mistakes += [one for some in groups.values() for one in _cuts(some)]
    everywhere = [list(_everywhere(one, groups[one.function], of_weights)) for one in mistakes]
    yield from (one for some in everywhere for one in some if len(one.places) != 1)
    for name, functions in groups.items():
        yield from _new_weights(tape, name, functions, names)
    yield from _orders(tape, names)
    for end, which in ((0, "first"), (-1, "last")):
        yield Break(
            "overwritten gradient",
            f"keeps the gradient of the {which} use alone of a weight that is used several times",
            "add up the gradients of all uses: += for =",
            "one_use",
            detail=end,
        )
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
        of = f"to input {number + 1} of" if inputs > 1 else "through"
        yield Break(
            "branch cut off",
            f"hands no gradient on {of} {name} ({{place}})",
            "add up what comes back through each input",
            "cut",
            name,
            detail=number,
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


def _everywhere(
    one: Break, functions: list[Function], of_weights: Mapping[int, tuple[Any, ...]]
) -> Iterator[Break]:
    """A mistake in all functions of its name, in some, and in each.

    Some are those fed by the same weights, and all but the last, whose derivative is often written
    apart from the others'.
    """
    count, name = len(functions), one.function
    if count == 1:
        yield replace(one, where=f"the only {name}{_after(functions[0], of_weights)}")
        return
    yield replace(one, where=f"in each of {count} calls of {name}")
    if count > 2:
        places = tuple(range(count - 1))
        yield replace(one, places=places, where=f"in each but the last of {count} calls of {name}")
    alike: dict[Any, list[Function]] = {}
    for function in functions:
        alike.setdefault(of_weights[function.outputs[0]][1], []).append(function)
    groups = list(alike.values())
    for role, some in alike.items():  # with those of the first step, to whom no state is handed
        first = [one for other in alike for one in alike[other] if _begins(other, role)]
        groups += [[*first, *some]] if first else []
    for some in groups:
        if 1 < len(some) < count:
            places = tuple(function.place for function in some)
            numbers = [str(place + 1) for place in places]
            said = listed(numbers if len(numbers) <= FEW else [*numbers[:3], "…", numbers[-1]])
            where = f"{name} number {said} of {count}{_after(some[-1], of_weights)}"
            yield replace(one, places=places, where=where)
    for function in functions:
        where = f"{name} number {function.place + 1} of {count}{_after(function, of_weights)}"
        yield replace(one, places=(function.place,), where=where)


def _begins(first: Any, role: Any) -> bool:  # noqa: ANN401
    """Whether functions of one role are fed as those of another, but for what none feeds."""
    if first == role or not isinstance(first, tuple) or not isinstance(role, tuple):
        return False
    return len(first) == len(role) and all(a in (None, b) for a, b in zip(first, role, strict=True))


def _after(function: Function, of_weights: Mapping[int, tuple[Any, ...]]) -> str:
    """The module that feeds a function, where its weights are named as a module names them."""
    weights = [one for one in of_weights[function.outputs[0]][1] if isinstance(one, str)]
    modules = {one.rpartition(".")[0] for one in weights}
    return f", after module {listed(sorted(modules))}" if all(modules) and modules else ""


def after_module(function: Function, tape: Tape, names: Mapping[int, str]) -> str:
    """The module that feeds a function, as "after module fc1"; empty where names tell of none.

    Args:
        function: of the tape.
        tape: of a step.
        names: `id` of a parameter → its name.
    """
    return _after(function, _of_weights(tape, names)).removeprefix(", ")


def _slopes(name: str) -> Iterator[Break]:
    if name not in ELEMENTWISE | BY_CONSTANTS:
        return
    constant = name in BY_CONSTANTS
    plain = PLAIN.get(name, f"the {'factor' if constant else 'derivative'} of {name}")
    write = f"multiply by {plain}" if constant else f"write {RIGHT.get(name, plain)}"
    last = range(len(SLOPES))[-3:]
    few = (0,) if name in ACROSS else (0, *last) if constant else range(len(SLOPES))
    for number in few:
        said = SLOPES[number][0].format(name=name, plain=plain, a="h" if name == "tanh" else "a")
        yield Break("derivative", f"{said} ({{place}})", write, "slope", name, detail=number)
    derivative = partial(Break, "derivative", function=name, change=write)
    if name in ACROSS:
        said = "the softmax's" if name == "softmax" else f"{name}'s"
        yield derivative(f"reduces {said} Jacobian to its diagonal ({{place}})", what="diagonal")
    elif name in ELEMENTWISE:
        at = f"takes {plain} at the output of {name}, not at its input ({{place}})"
        yield derivative(at, what="of_output")
        again = f"applies {name} once more, where {plain} should stand ({{place}})"
        yield derivative(again, what="applied_again")
    if name in PIECEWISE:
        said = f"takes {name}'s mask from the gradient that comes back ({{place}})"
        yield derivative(said, what="mask_of_gradient")
    if name in ACROSS or name == "sigmoid":
        yield Break(
            f"{name} twice",
            f"has no {name} ({{place}}), which theirs has before a loss that has one of its own",
            f"nothing in mine; in theirs leave out the {name}",
            "skipped",
            name,
        )
    else:
        said = f"leaves {name} out altogether ({{place}})"
        yield Break(
            "another function", said, f"apply {name}, forward and backward", "skipped", name
        )


def _listed_mistakes(name: str) -> Iterator[Break]:
    """Those of the table, and the same function with another option."""
    words = {"name": name, "squash": SCORED.get(name, ""), "place": "({place})"}
    for (where, cause), ones in MISTAKES.items():
        for what, detail, mine, change in ones if name in where else ():
            said, told, write = (x.format(**words) for x in (cause, f"{mine} {{place}}", change))
            yield Break(said, told, write, what, name, detail=detail)
    option, place, values = OPTIONS.get(name, ("", 0, ()))
    for value in values:
        said, change = f"{name} with {option}={value} ({{place}})", f"give both the same {option}"
        other = partial(Break, change=change, function=name, detail=(option, place, value))
        yield other("another function", f"has {said}", what="other")
        yield other("derivative", f"has the derivative of {said}", what="derivative_of_other")


def _options(function: Function) -> Iterator[Break]:
    """The same function without one of the options with which it is called by name."""
    try:
        known = inspect.signature(function.call).parameters
    except ValueError:  # a function of torch's own that does not tell
        return
    for place, (option, parameter) in enumerate(known.items()):
        value, usual = function.kwargs.get(option, parameter.default), parameter.default
        plain = not isinstance(value, Slot) and option not in {"reduction", "inplace", "training"}
        if plain and usual is not parameter.empty and not _alike(value, usual):
            said = f"{function.name} without its {option} ({{place}})"
            change = f"{option}{'' if isinstance(value, Tensor) else f'={value}'}, as theirs has it"
            other = partial(
                Break, change=change, function=function.name, detail=(option, place, usual)
            )
            yield other("another function", f"has {said}", what="other")
            yield other("derivative", f"has the derivative of {said}", what="derivative_of_other")


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
    where = f"{one.where}; it reaches {listed(weights)}"
    return one.mine.format(weights=listed(one.names), place=where)
