"""The mistakes that people make in a gradient, each made on the tape of theirs.

A function of the tape is replaced by one that has the same value and another derivative: the
gradient then is what mine would be, had it been derived with that mistake.
"""

from __future__ import annotations

__all__ = [
    "CAUSES",
    "IMPOSSIBLE",
    "LOOK_AHEAD",
    "SHOWN_ELSEWHERE",
    "Break",
    "after_module",
    "breaks",
    "gradient",
    "in_words",
    "other_rows",
    "rows_of",
]

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from .diagnosis import listed
from .tape import Function, Pass, Slot, Tape, flattened

CAUSES = {  # the words for them
    *("derivative", "transposed product", "input of the layer", "updated too early"),
    *("bias gradient", "softmax twice", "log_softmax twice", "sigmoid twice", "broadcast"),
    *("batch statistics", "branch cut off", "rows of another step", "look-ahead"),
    *("another function", "overwritten gradient", "unequal micro-batches"),
}
BESIDE = {"before": -1, "after": 1}
WHOLE = {"in_order", "row_by_row", "micro_batches"}  # mistakes that are made in no function
# Of a tape that is run otherwise, where something does not fit.
IMPOSSIBLE = (RuntimeError, ValueError, IndexError, TypeError, KeyError)
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
            key = _leaf(tape, function.args[one])
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


def _leaf(tape: Tape, arg: Any) -> int | None:  # noqa: ANN401 (whatever a function is given)
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


# Making them.


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
        if _leaf(self.tape, self.function.args[other]) is not None:
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
        key = _leaf(self.tape, arg)
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
