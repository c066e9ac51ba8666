"""The mistakes that people make in a gradient, each made on the tape of theirs.

A function of the tape is replaced by one that has the same value and another derivative: the
gradient then is what mine would be, had it been derived with that mistake.
"""

from __future__ import annotations

__all__ = [
    "CAUSES",
    "LOOK_AHEAD",
    "SHOWN_ELSEWHERE",
    "Break",
    "breaks",
    "gradient",
    "in_words",
]

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from .diagnosis import listed
from .tape import Function, Slot, Tape

CAUSES = {  # the words for them
    *("derivative", "transposed product", "input of the layer", "updated too early"),
    *("bias gradient", "softmax twice", "log_softmax twice", "sigmoid twice", "broadcast"),
    *("batch statistics", "branch cut off", "rows of another step", "look-ahead"),
}
MOST_PLACES = 100  # of one function, that are looked at one by one


@dataclass(frozen=True)
class Break:
    """One mistake in a gradient.

    Args:
        cause: the report's word for it.
        mine: what mine seems to do, in words; {place} stands for the function's place.
        change: what to write instead.
        what: the mistake, by the name of the method that makes it.
        function: the function in which it is made, by its name; empty where it is none's.
        place: in which of the functions of that name, from 0; None for all.
        detail: what else belongs to it: an input's number, the names of weights, a distance.
    """

    cause: str
    mine: str
    change: str
    what: str
    function: str = ""
    place: int | None = None
    detail: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that it takes as they are after mine's step."""
        return self.detail if self.what == "new_weights" else ()

    def concerns(self, function: Function) -> bool:
        """Whether it is made in this function."""
        return function.name == self.function and self.place in (None, function.place)


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


# Derivatives of elementwise functions. Name → (what is right, its common mistakes); a mistake is
# (how it is written, what it is of the function's input x and its output y).

Slope = Callable[[Tensor, Tensor], Tensor]
WRITTEN: dict[str, tuple[str, tuple[tuple[str, Slope], ...]]] = {
    "tanh": (
        "1 − h², with h = tanh(z)",
        (
            ("takes tanh′ from the input of tanh, 1 − z²,", lambda x, _: 1 - x * x),
            ("has 1 − h for tanh′", lambda _, y: 1 - y),
            ("has sigmoid's h(1 − h) for tanh′", lambda _, y: y * (1 - y)),
        ),
    ),
    "sigmoid": (
        "a(1 − a), with a = σ(z)",
        (
            ("takes σ′ from the input of the sigmoid, z(1 − z),", lambda x, _: x * (1 - x)),
            ("has a alone for σ′", lambda _, y: y),
            ("has 1 − a alone for σ′", lambda _, y: 1 - y),
            ("has tanh's 1 − a² for σ′", lambda _, y: 1 - y * y),
        ),
    ),
    "relu": (
        "1 where z > 0, else 0",
        (("multiplies by relu(z) instead of its mask", lambda _, y: y),),
    ),
    "softmax": (
        "p · (g − Σ g · p), not p(1 − p) · g",
        (("reduces the softmax's Jacobian to its diagonal", lambda _, y: y * (1 - y)),),
    ),
    "log_softmax": (
        "g − p · Σ g, with p = softmax(z)",
        (("reduces log_softmax's Jacobian to its diagonal", lambda _, y: 1 - y.exp()),),
    ),
}
RELU_LIKE = ("leaky_relu", "elu", "gelu", "silu", "softplus", "selu", "relu6", "hardtanh")
for _name in RELU_LIKE:
    WRITTEN[_name] = (
        f"the derivative of {_name}",
        (("takes relu's mask for it", lambda x, _: (x > 0).to(x.dtype)),),
    )
ELEMENTWISE = {
    *WRITTEN,
    *("exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "abs", "sin", "cos", "erf"),
    *("reciprocal", "pow", "dropout", "logsigmoid", "mish", "atan", "sinh", "cosh"),
}
ACROSS = {"softmax", "log_softmax"}  # whose derivative is no number for each element
RANDOMLY = {"dropout"}
PRODUCTS = {"matmul": (0, 1), "mm": (0, 1), "mv": (0, 1), "linear": (0, 1), "addmm": (1, 2)}
BROADCASTING = {"add", "sub", "mul", "div", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
RESHAPING = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"}
LOSSES = {"cross_entropy", "binary_cross_entropy_with_logits", "binary_cross_entropy"}
PLAIN = {"tanh": "tanh′", "sigmoid": "σ′", "relu": "relu's mask", "dropout": "dropout's mask"}


def breaks(tape: Tape, names: Mapping[int, str]) -> Iterator[Break]:
    """All mistakes that may have been made, the plainest first.

    Args:
        tape: of a step of theirs.
        names: `id` of a parameter → its name.
    """
    groups: dict[str, list[Function]] = {}
    for function in tape.functions:
        groups.setdefault(function.name, []).append(function)
    for make in (_slopes, _products, _biases, _whole_losses, _shapes, _statistics):
        for name, functions in groups.items():
            for one in make(name):
                yield from _everywhere(one, functions)
    for name, functions in groups.items():
        yield from _new_weights(tape, name, functions, names)
    yield from _orders(tape, names)
    for name, functions in groups.items():
        yield from _cuts(name, functions)
    for by, words in ((-1, "the step before"), (1, "the step after")):
        yield Break(
            "rows of another step",
            f"takes each step with the rows of {words}",
            "give both the same rows, in the same order",
            "other_rows",
            detail=by,
        )


def _everywhere(one: Break, functions: list[Function]) -> Iterator[Break]:
    """A mistake in each of the functions of its name alone, and in all of them."""
    if len(functions) > 1:
        for function in functions[:MOST_PLACES]:
            yield replace(one, place=function.place)
    yield one


def _slopes(name: str) -> Iterator[Break]:
    if name not in ELEMENTWISE:
        return
    right, mistakes = WRITTEN.get(name, (f"the derivative of {name}", ()))
    derivative = partial(Break, "derivative", function=name)
    plain = PLAIN.get(name, f"the derivative of {name}")
    yield derivative(f"leaves out {plain} ({{place}})", f"multiply by {right}", "left_out")
    for number, (written, _) in enumerate(mistakes):
        yield derivative(f"{written} ({{place}})", f"write {right}", "written", detail=number)
    if name in ACROSS or name == "sigmoid":
        yield Break(
            f"{name} twice",
            f"has no {name} ({{place}}), which theirs has before a loss that has one of its own",
            f"nothing in mine; in theirs leave out the {name}",
            "skipped",
            name,
        )
    if name in ACROSS or name in RANDOMLY:
        return
    yield derivative(
        f"takes {plain} at the output of {name}, not at its input ({{place}})",
        f"write {right}",
        "of_output",
    )
    yield derivative(
        f"multiplies by {plain} twice ({{place}})", f"multiply once, by {right}", "twice"
    )
    yield derivative(f"has {plain} with the other sign ({{place}})", f"write {right}", "sign")


def _products(name: str) -> Iterator[Break]:
    if name not in PRODUCTS:
        return
    yield Break(
        "input of the layer",
        "takes a weight's gradient from what comes before the activation ({place})",
        "the layer's own input, after the activation: grad_W = aᵀ δ, not zᵀ δ",
        "before_activation",
        name,
    )
    product = partial(Break, "transposed product", function=name)
    yield product(
        "hands the gradient down by the weight itself, where its transpose should stand ({place})",
        "transpose the weight in the product that hands the gradient down",
        "handed_down_transposed",
    )
    yield product(
        "has a weight's gradient transposed ({place})",
        "transpose the product that makes the weight's gradient",
        "gradient_transposed",
    )
    yield Break(
        "derivative",
        "hands the gradient down without multiplying by the weight ({place})",
        "multiply by the weight's transpose",
        "handed_down_bare",
        name,
    )


def _new_weights(
    tape: Tape, name: str, functions: list[Function], names: Mapping[int, str]
) -> Iterator[Break]:
    if name not in PRODUCTS:
        return
    used: dict[str, None] = {}
    for function in functions:
        through, weight = (function.args[place] for place in PRODUCTS[name])
        for slot, other in ((weight, through), (through, weight)):
            if isinstance(slot, Slot) and isinstance(other, Slot) and slot.number in tape.leaves:
                used[names.get(tape.leaves[slot.number], "")] = None
    used.pop("", None)
    for some in (*([one] for one in used), *([[*used]] if len(used) > 1 else [])):
        yield Break(
            "updated too early",
            "hands the gradient down by {weights} after {weights} was updated",
            "take all gradients from the weights as they are, then update: keep a copy of "
            "{weights}, or move its update below",
            "new_weights",
            name,
            detail=tuple(some),
        )


def _biases(name: str) -> Iterator[Break]:
    if name not in {"linear", "addmm", "add"}:
        return
    bias = partial(Break, "bias gradient", function=name)
    right = "sum δ over the rows"
    yield bias("sums a bias's gradient over the wrong axis ({place})", right, "bias_axis")
    yield bias("takes a bias's gradient from the first row alone ({place})", right, "first_row")
    yield bias("takes a bias's gradient from the last row alone ({place})", right, "last_row")
    for how in ("sum", "mean"):
        yield bias(
            f"takes a bias's gradient as the {how} of its weight's gradient ({{place}})",
            f"{right} themselves, not the weight's gradient",
            "of_the_weight",
            detail=how,
        )


def _whole_losses(name: str) -> Iterator[Break]:
    if name not in LOSSES:
        return
    squash = "softmax" if name == "cross_entropy" else "σ"
    derivative = partial(Break, "derivative", function=name)
    if name != "binary_cross_entropy":
        yield Break(
            "softmax twice" if name == "cross_entropy" else "sigmoid twice",
            f"applies {squash} before {name}, which has one of its own",
            f"hand the scores to {name} as they are",
            "squashed_twice",
            name,
        )
        yield derivative(
            f"multiplies the loss's derivative by that of {squash} once more",
            f"{squash}(z) − y is the derivative with respect to the scores already",
            "squash_once_more",
        )
        if name == "cross_entropy":
            yield derivative(
                "multiplies the loss's derivative by softmax's Jacobian once more",
                "softmax(z) − y is the derivative with respect to the scores already",
                "jacobian_once_more",
            )
        yield derivative(
            f"takes z − y for the derivative of {name}, without the {squash}",
            f"{squash}(z) − y",
            "scores_for_probabilities",
        )
    if name == "cross_entropy":
        yield derivative(
            "has the derivative in the target's column alone",
            "softmax(z) − y in every column",
            "target_alone",
        )


def _shapes(name: str) -> Iterator[Break]:
    if name in BROADCASTING:
        broadcast = partial(Break, "broadcast", function=name)
        yield broadcast(
            "subtracts targets of shape (n,) from outputs of shape (n, 1), which gives (n, n) "
            "({place})",
            "give both one shape: targets[:, None], or outputs.squeeze(1)",
            "flat",
        )
        yield broadcast(
            "has targets and outputs of one shape, where theirs broadcasts (n,) against (n, 1) to "
            "(n, n) ({place})",
            "nothing in mine; in theirs give both one shape",
            "same_shape",
        )


def _statistics(name: str) -> Iterator[Break]:
    if name in {"batch_norm", "layer_norm"}:
        statistics = partial(Break, "batch statistics", what="statistics", function=name)
        through = "let the gradient go through the mean and the variance, too"
        for parts, what in ((("mean", "var"), "both"), (("var",), "variance"), (("mean",), "mean")):
            words = "the mean and the variance" if what == "both" else f"the {what}"
            yield statistics(f"takes {words} of {name} as constant", through, detail=parts)
        yield statistics(
            f"divides the variance of {name} by n − 1", "divide it by n", detail=("unbiased",)
        )


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


def _cuts(name: str, functions: list[Function]) -> Iterator[Break]:
    """The gradient is not handed on to one of a function's inputs."""
    inputs = max(_slotted(function) for function in functions)
    for number in range(inputs if inputs > 1 else 0):
        yield from _everywhere(
            Break(
                "branch cut off",
                f"hands no gradient on to input {number + 1} of {name} ({{place}})",
                "add up what comes back through each input",
                "cut",
                name,
                detail=number,
            ),
            functions,
        )


def _slotted(function: Function) -> int:
    return sum(isinstance(arg, Slot) for arg in function.args)


def in_words(one: Break, tape: Tape | None, weights: Sequence[str]) -> str:
    """What mine seems to do, with the function's place and the weights that it reaches."""
    if tape is None or "{place}" not in one.mine:
        return one.mine.format(weights=listed(one.names), place="")
    count = sum(function.name == one.function for function in tape.functions)
    if count == 1:
        place = f"the only {one.function}"
    elif one.place is None:
        place = f"in each of the {count} {one.function}"
    else:
        place = f"{one.function} number {one.place + 1} of {count}"
    return one.mine.format(place=f"{place}; it reaches {listed(weights)}")


# Making them.


def gradient(
    tape: Tape,
    weights: Mapping[int, Tensor],
    new: Mapping[int, Tensor],
    names: Mapping[int, str],
    one: Break | None = None,
) -> dict[int, Tensor] | None:
    """The gradient with a mistake, `id` of a parameter → array; None where it cannot be made.

    Args:
        tape: of the step.
        weights: `id` of a parameter → its values.
        new: the same after mine's step.
        names: `id` of a parameter → its name.
        one: the mistake; None for the true gradient.
    """
    try:
        if one is None:
            return tape.gradients(weights)
        if one.what == "in_order":
            return _in_order(tape, weights, new, names, one.detail)
        maker = _Maker(tape, one, {key: new[key] for key in new if names[key] in one.names})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that broadcast, which is the point
            found = tape.gradients(weights, maker.instead)
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit
        return None
    for bias, weight, how in maker.sums:
        made = _summed(found[weight], found[bias].shape, how)
        if made is not None:
            found[bias] = made
            maker.made = True
    return found if maker.made else None


def _in_order(
    tape: Tape,
    weights: Mapping[int, Tensor],
    new: Mapping[int, Tensor],
    names: Mapping[int, str],
    order: tuple[tuple[str, ...], ...],
) -> dict[int, Tensor]:
    """Each group's gradients where the groups before it are new already."""
    found: dict[int, Tensor] = {}
    now = dict(weights)
    for group in order:
        grads = tape.gradients(now)
        for key in grads:
            if names[key] in group:
                found[key], now[key] = grads[key], new[key]
    return found


def _summed(whole: Tensor, shape: torch.Size, how: str) -> Tensor | None:
    """A weight's gradient summed, or averaged, over what its bias has not."""
    for axis in range(whole.ndim):
        made: Tensor = getattr(whole, how)(axis)
        if made.numel() == shape.numel():
            return made.reshape(shape)
    return None


def _no(path: Tensor) -> Tensor:
    """0, with the gradient of a path."""
    return path - path.detach()


class _Maker:
    """Make a mistake while a tape is run; `instead` is called in place of each function."""

    def __init__(self, tape: Tape, one: Break, new: Mapping[int, Tensor]) -> None:
        self.tape, self.one, self.new = tape, one, new
        self.made = False
        self.sums: list[tuple[int, int, str]] = []  # biases, weights, how

    def instead(
        self,
        function: Function,
        args: list[Any],
        kwargs: dict[str, Any],
        values: Mapping[int, Tensor],
    ) -> Any:  # noqa: ANN401 (whatever the function returns)
        if not self.one.concerns(function):
            return NotImplemented
        if "inplace" in kwargs:
            kwargs = {**kwargs, "inplace": False}
        self.function, self.args, self.kwargs, self.values = function, list(args), kwargs, values
        changed = getattr(self, self.one.what)()
        self.made = self.made or changed is not NotImplemented
        return changed

    def _run(self, args: list[Any]) -> Any:  # noqa: ANN401
        return self.function.run(args, self.kwargs)

    def _with_slope(self, slope: Tensor) -> Tensor:
        """The function's value, with another derivative, element by element."""
        made: Tensor = self._run(self.args).detach()
        return made + _no(self.args[0] * slope.detach())

    def _derivative(self, at: Tensor) -> Tensor:
        inputs = at.detach().requires_grad_()
        outputs = self._run([inputs, *self.args[1:]])
        (made,) = torch.autograd.grad(outputs.sum(), inputs)
        return made

    def _apart(self, paths: Mapping[int, list[Any]]) -> Tensor:
        """The function's value, with the gradient of each input by a path of its own.

        Args:
            paths: an input's place → what the function is given, in its path, instead.
        """
        made: Tensor = self._run(self.args).detach()
        for place, arg in enumerate(self.args):
            if isinstance(arg, Tensor) and arg.requires_grad:
                given = paths.get(place, self.args)
                path = [
                    one.detach() if isinstance(one, Tensor) and k != place else one
                    for k, one in enumerate(given)
                ]
                made = made + _no(self._run(path))
        return made

    def left_out(self) -> Any:  # noqa: ANN401
        return self._with_slope(torch.ones_like(self.args[0]))

    def written(self) -> Any:  # noqa: ANN401
        inputs, made = self.args[0].detach(), self._run(self.args).detach()
        _, slope = WRITTEN[self.function.name][1][self.one.detail]
        return self._with_slope(slope(inputs, made))

    def of_output(self) -> Any:  # noqa: ANN401
        return self._with_slope(self._derivative(self._run(self.args)))

    def twice(self) -> Any:  # noqa: ANN401
        return self._with_slope(self._derivative(self.args[0]).square())

    def sign(self) -> Any:  # noqa: ANN401
        return self._with_slope(-self._derivative(self.args[0]))

    def skipped(self) -> Any:  # noqa: ANN401
        return self.args[0]

    def _product(self) -> tuple[int, int]:
        """The places of a product's two inputs: what is handed through, and the weight."""
        one, other = PRODUCTS[self.function.name]
        leaf = self.function.args[other]
        if isinstance(leaf, Slot) and leaf.number in self.tape.leaves:
            return one, other
        return other, one

    def before_activation(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        slot = self.function.args[through]
        maker = self.tape.makers.get(slot.number) if isinstance(slot, Slot) else None
        while maker is not None and maker.name in RESHAPING:
            maker = self.tape.makers.get(min(maker.inputs()))
        if maker is None or maker.name not in ELEMENTWISE:
            return NotImplemented
        args = list(self.args)
        args[through] = self.values[maker.args[0].number].reshape(args[through].shape)
        return self._apart({weight: args})

    def handed_down_transposed(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        return self._with_transposed(through, weight)

    def gradient_transposed(self) -> Any:  # noqa: ANN401
        _, weight = self._product()
        return self._with_transposed(weight, weight)

    def _with_transposed(self, place: int, weight: int) -> Any:  # noqa: ANN401
        """The gradient of one input by the transpose of a square weight."""
        args = list(self.args)
        if args[weight].ndim != 2 or args[weight].shape[0] != args[weight].shape[1]:
            return NotImplemented
        args[weight] = args[weight].mT
        return self._apart({place: args})

    def handed_down_bare(self) -> Any:  # noqa: ANN401
        through, _ = self._product()
        inputs = self.args[through]
        made = self._run([a.detach() if a is inputs else a for a in self.args])
        if made.shape != inputs.shape or not inputs.requires_grad:
            return NotImplemented
        return made + _no(inputs)

    def new_weights(self) -> Any:  # noqa: ANN401
        through, weight = self._product()
        slot = self.function.args[weight]
        key = self.tape.leaves.get(slot.number) if isinstance(slot, Slot) else None
        inputs = self.args[through]
        if (
            key is None
            or key not in self.new
            or not (isinstance(inputs, Tensor) and inputs.requires_grad)
        ):
            return NotImplemented
        args = list(self.args)
        args[weight] = self.new[key]
        return self._apart({through: args})

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

    def first_row(self) -> Any:  # noqa: ANN401
        return self._biased(partial(_one_row, 0))

    def last_row(self) -> Any:  # noqa: ANN401
        return self._biased(partial(_one_row, -1))

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
        made = (x - mean) / (var + kwargs.get("eps", 1e-5)).sqrt()
        shape = (1, -1, *(1,) * (x.ndim - 2)) if batch else tuple(self.args[1])
        if given.get("weight") is not None:
            made = made * given["weight"].reshape(shape)
        if given.get("bias") is not None:
            made = made + given["bias"].reshape(shape)
        return made

    def cut(self) -> Any:  # noqa: ANN401
        places = [k for k, arg in enumerate(self.function.args) if isinstance(arg, Slot)]
        if self.one.detail >= len(places) or len(places) < 2:
            return NotImplemented
        args = list(self.args)
        args[places[self.one.detail]] = args[places[self.one.detail]].detach()
        return self._run(args)


def _one_row(row: int, bias: Tensor, made: Tensor) -> Tensor:
    """A bias that is added to one row alone."""
    column = bias.ndim == 2 and bias.shape[0] > 1
    mask = torch.zeros_like(made)
    (mask.mT if column else mask)[row] = 1
    return bias * mask
