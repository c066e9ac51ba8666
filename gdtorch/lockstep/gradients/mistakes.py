"""The table of mistakes that people make in a gradient, with the words for them.

How each is made is told in `backward.py`. Slips in a formula are not here: see `derivatives.py`.
"""

from __future__ import annotations

__all__ = [
    "ADD_UP_ROWS",
    "APPLIED",
    "MISTAKES",
    "OPTIONS",
    "PLAIN",
    "RIGHT",
    "Local",
    "over_the_others",
]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from ..observing.tape import Function
from .functions import (
    ACROSS,
    ACTIVATIONS,
    ADDITION,
    BROADCASTING,
    BY_CONSTANTS,
    CENTERED,
    CONVOLUTIONS,
    ELEMENTWISE,
    MATRICES,
    NORMS,
    NORMS_OF_VECTORS,
    OF_CLASSES,
    OF_ERRORS,
    PIECEWISE,
    POOLING,
    PRODUCTS,
    REDUCING,
    SCORED,
    TAKING,
    WITH_A_LOSS,
    WITHOUT_A_LOSS,
)


@dataclass(frozen=True)
class Local:
    """What is at hand where the derivative of one function is written.

    Args:
        function: that one.
        call: the same, of the one input that depends on the weights.
        args: what it was given.
        kwargs: likewise.
        x: that input.
    """

    function: Function
    call: Callable[[Tensor], Tensor]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    x: Tensor

    @cached_property
    def y(self) -> Tensor:
        """What it returned."""
        return self.call(self.x)

    @cached_property
    def d(self) -> Tensor:
        """The derivative that is right; that of the sum, where x has more elements than y."""
        return self.slope(self.x)

    @cached_property
    def p(self) -> Tensor:
        """Of a loss of scores, the probabilities."""
        of_classes = self.function.name in OF_CLASSES
        return self.x.softmax(1) if of_classes else self.x.sigmoid()

    @property
    def count(self) -> float:
        """Over how many a mean is taken."""
        return len(self.x) if self.function.name in OF_CLASSES else self.x.numel() / self.y.numel()

    def slope(self, at: Tensor) -> Tensor:
        """The derivative at another input."""
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            (made,) = torch.autograd.grad(self.call(at).sum(), at)
        return made


RIGHT = {  # of functions that are not in `derivatives.py`, or not as one writes them
    "tanh": "1 − h², with h = tanh(z)",
    "sigmoid": "a(1 − a), with a = σ(z)",
    "relu": "1 where z > 0, else 0",
    "softmax": "p · (g − Σ g · p), with the sum over the axis of the softmax",
    "log_softmax": "g − p · Σ g, with p = softmax(z), and the sum over the axis of the softmax",
    "pow": "n · z^(n − 1), with n the exponent",
    "square": "2 z",
    "abs": "the sign of z",
    "expm1": "e^z",
    "sinh": "cosh(z)",
    "cosh": "sinh(z)",
    "atan": "1 / (1 + z²)",
    "erf": "2 exp(−z²) / √π",
}
PLAIN = {
    "tanh": "tanh′",
    "sigmoid": "σ′",
    "relu": "relu's mask",
    "dropout": "dropout's mask",
    **dict.fromkeys(("mul", "div", "neg"), "{given}"),  # which depends on the place
}
APPLIED = {"div": ("divide by", "divides by"), "neg": ("apply", "applies")}
OPTIONS: dict[str, tuple[str, int, tuple[Any, ...]]] = {  # option, its place, what it often is
    "leaky_relu": ("negative_slope", 1, (0.01, 0.1, 0.2, 0.3)),
    "elu": ("alpha", 1, (1.0, 0.1, 0.5)),
    "gelu": ("approximate", 9, ("tanh", "none")),
    "softmax": ("dim", 1, (0, 1, 2, 3)),
    "log_softmax": ("dim", 1, (0, 1, 2, 3)),
    "layer_norm": ("eps", 4, (1e-5, 1e-6, 1e-8, 1e-12, 1e-3)),
    "batch_norm": ("eps", 7, (1e-5, 1e-6, 1e-8, 1e-12, 1e-3)),
    "rms_norm": ("eps", 3, (1e-5, 1e-6, 1e-8, 1e-12, 1e-3)),
}


# What is handed back through a function, of g, the gradient that comes back to it.
Formula = Callable[[Tensor, Local], Tensor]


def _at_0(sign: int, g: Tensor, at: Local) -> Tensor:
    """The derivative of the absolute value, or of a mean of such, with another one at 0."""
    apart = at.x - at.args[1] if at.function.name == "l1_loss" else at.x
    return g * at.d.where(apart != 0, sign / (at.count if at.y.ndim == 0 else 1))


def _half_squared(mine: Tensor, theirs: Tensor, reduction: str = "mean") -> Tensor:
    return F.mse_loss(mine, theirs, reduction=reduction) / 2


def _through_softmax(g: Tensor, p: Tensor, axis: int) -> Tensor:
    return p * (g - (p * g).sum(axis, keepdim=True))


def _summed_over(axis: int, g: Tensor, at: Local) -> Tensor:
    if at.x.shape[axis] == 1:
        raise ValueError("no sum")
    if at.function.name == "log_softmax":
        return g - at.y.exp() * g.sum(axis, keepdim=True)
    return _through_softmax(g, at.y, axis)


def _other_probabilities(made: Callable[[Tensor], Tensor]) -> Formula:
    """The derivative of a loss of scores with something else for its probabilities."""

    def formula(g: Tensor, at: Local) -> Tensor:
        count = 1 if at.kwargs.get("reduction") == "sum" else at.count
        return g * (at.d + (made(at.x) - at.p) / count)

    return formula


def over_the_others(scores: Tensor, smoothing: float) -> float:
    """The label smoothing that leaves the true class 1 − ε, and gives the others ε / (K − 1)."""
    return smoothing * scores.shape[1] / (scores.shape[1] - 1)


OVER_AN_AXIS: dict[str, Formula] = {
    f"sums over axis {axis} in the derivative of {{name}}": partial(_summed_over, axis)
    for axis in range(4)
}
LEFT_OUT: dict[str, Formula] = {"leaves out {plain}": lambda g, _: g}
TWICE: dict[str, Formula] = {"{applies} {plain} twice": lambda g, at: g * at.d * at.d}
OF_A_CONSTANT: dict[str, Formula] = {
    **LEFT_OUT,
    **TWICE,
    "leaves the scale out of {plain}, not its zeros": lambda g, at: g * (at.d != 0),
    "leaves the zeros out of {plain}, not its scale": lambda g, at: g * at.d.max(),
}
OF_AN_ELEMENT: dict[str, Formula] = {
    **LEFT_OUT,
    "takes tanh′ from the input of {name}, 1 − z²,": lambda g, at: g * (1 - at.x**2),
    "takes σ′ from the input of the {name}, z(1 − z),": lambda g, at: g * at.x * (1 - at.x),
    "has tanh's 1 − {a}² for {plain}": lambda g, at: g * (1 - at.y**2),
    "has sigmoid's {a}(1 − {a}) for {plain}": lambda g, at: g * at.y * (1 - at.y),
    "has 1 − {a} for {plain}": lambda g, at: g * (1 - at.y),
    "has the output, {a}, for {plain}": lambda g, at: g * at.y,
    "has the input, z, for {plain}": lambda g, at: g * at.x,
    "takes relu's mask for {plain}": lambda g, at: g * (at.x > 0),
    "has sigmoid's σ(z)(1 − σ(z)) for {plain}": lambda g, at: (
        g * at.x.sigmoid() * (1 - at.x.sigmoid())
    ),
    "has tanh's 1 − tanh(z)² for {plain}": lambda g, at: g * (1 - at.x.tanh() ** 2),
    "has σ(z), of the input, for {plain}": lambda g, at: g * at.x.sigmoid(),
    "has {plain} with the other sign": lambda g, at: -g * at.d,
    **TWICE,
    "takes {plain} at the output of {name}, not at its input": lambda g, at: g * at.slope(at.y),
    "applies {name} once more, where {plain} should stand": lambda g, at: g * at.call(at.y),
}

# Words for which there is no room in the table below.
OWN_INPUT = "take it from the layer's own input, after the activation: grad_W = aᵀ δ"
OWN_ROW = "multiply each row's δ by its own input, then add up: xᵀ δ"
STEP_BEFORE = "take it from the state that the weight was multiplied by: that of the step before"
UNACTIVATED = "takes a weight's gradient from what comes before the activation"
AFTER_STEP = "takes a weight's gradient from the state after each step, not from the one before it"
DELTAS = "for a = x W and its δ: the gradient of W is xᵀ δ, and what is handed down δ Wᵀ"
ITSELF = "hands the gradient down by the matrix itself, where its transpose should stand"
SLIDING = "slide δ over the input for the kernel, and the flipped kernel over δ for the input"
ERROR = "hand down δ, the error times the activation's derivative, not the error itself"
STATISTICS = "let the gradient go through the mean and the variance, too"
MEAN_SQUARE = "let the gradient go through the mean square, too"
BIAS = "sum δ over the rows"
BOTH = "for a = b · c: b's gradient is δ · c, and c's is δ · b"
ONE_SHAPE = "give both one shape: targets[:, None], or outputs.squeeze(1)"
SHAPE_IN_THEIRS = "nothing in mine; in theirs give both one shape"
NOTHING = "nothing in mine; in theirs leave out the {name}"
APPLY = "apply {name}, forward and backward"
EXPONENT = "multiply by it: (w²)′ = 2 w"
ADD_UP = "add them up: np.add.at(grad, index, g) for grad[index] += g"
ADD_UP_OUTPUTS = "add up what comes back to all outputs: += for ="
ADD_UP_ROWS = "add up the gradients of all rows: += for ="
UNLIKE = "has targets and outputs of one shape, where theirs broadcasts (n,) against (n, 1)"
BEFORE_LOSS = "has no {name} {place}, which theirs has before a loss that has one of its own"
FACTORS = {
    "ones": "leaves the other factor out of the gradient of factor",
    "itself": "takes the factor itself for the other one in the gradient of factor",
    "before_activation": "takes the input of the activation for factor",
    "a_step_later": "takes the factor of the step after for factor",
}
SCORES = "{squash}(z) − y, in every column: that is the derivative by the scores z already"
SQUASH_AGAIN = "multiplies the loss's derivative by that of {squash} once more"
SOFTMAX_AGAIN = "multiplies the loss's derivative by softmax's Jacobian once more"
UNSQUASHED = "takes z − y for the derivative of {name}, without the {squash}"

# The method of `backward.py` that makes a mistake, the functions in which it is made, the report's
# word for it, and what to write instead → what mine does, and what else that method takes.
MISTAKES: dict[tuple[str, Collection[str], str, str], Mapping[str, Any]] = {
    ("factor", tuple(PRODUCTS), "input of the layer", STEP_BEFORE): {
        AFTER_STEP: ("a_step_later", None),
    },
    ("factor", tuple(PRODUCTS), "input of the layer", OWN_INPUT): {
        UNACTIVATED: ("before_activation", None),
        "takes a weight's gradient from the input of the layer before": ("of_layer", None, -1),
        "takes a weight's gradient from the input of the layer after": ("of_layer", None, 1),
    },
    ("factor", tuple(PRODUCTS), "input of the layer", OWN_ROW): {
        f"multiplies each row's δ by the {which} row's input in a weight's gradient": (
            *("of_row", None, number),
        )
        for number, which in ((-1, "last"), (0, "first"))
    },
    ("weight_of_one_row", tuple(PRODUCTS), "overwritten gradient", ADD_UP_ROWS): {
        f"keeps the {which} row's gradient of a weight alone": number
        for number, which in ((-1, "last"), (0, "first"))
    },
    ("factor", ("mul",), "derivative", BOTH): {
        f"{said} {number + 1} of mul": (what, number)
        for what, said in FACTORS.items()
        for number in range(2)
    },
    ("formula", ("softmax",), "derivative", "write {right}"): {
        **LEFT_OUT,
        "leaves the sum out of the derivative of {name}": lambda g, at: g * at.y,
        "reduces the softmax's Jacobian to its diagonal": lambda g, at: g * at.y * (1 - at.y),
        "has 1 − p for the derivative of {name}": lambda g, at: g * (1 - at.y),
        **OVER_AN_AXIS,
    },
    ("formula", ("log_softmax",), "derivative", "write {right}"): {
        **LEFT_OUT,
        "reduces log_softmax's Jacobian to its diagonal": lambda g, at: g * (1 - at.y.exp()),
        "sums over all axes in the derivative of {name}": lambda g, at: g - at.y.exp() * g.sum(),
        **OVER_AN_AXIS,
    },
    ("scaled", NORMS_OF_VECTORS, "derivative", "|v|′ = v / |v|"): {
        "does not divide by the norm ({name})": lambda at: at.y,
        "divides by the square of the norm ({name})": lambda at: 1 / at.y,
    },
    ("pooled_evenly", tuple(POOLING), "derivative", "give all of it to the largest"): {
        "spreads the gradient of {name} over all that it was the largest of": None,
    },
    ("of_errors", tuple(OF_ERRORS), "derivative", "write that"): {
        "has the derivative of the squared error for that of {name}": F.mse_loss,
        "has the derivative of half the squared error for that of {name}": _half_squared,
        "has the derivative of the absolute error for that of {name}": F.l1_loss,
    },
    ("turned", MATRICES, "transposed product", DELTAS): {
        ITSELF: ("through", "other"),
        "has a weight's gradient transposed": ("weight", "itself"),
        "multiplies δ by the input, not by its transpose": ("weight", "other"),
        "transposes δ where it multiplies the input": ("weight", "output"),
        "transposes δ where it is handed down": ("through", "output"),
    },
    ("weight_turned", MATRICES, "transposed product", "transpose it once more, or once less"): {
        "multiplies by a weight's transpose where theirs does by the weight itself": None,
    },
    ("turned", tuple(CONVOLUTIONS), "transposed product", SLIDING): {
        "hands the gradient down by the kernel as it is, not flipped": ("through", "other"),
        "has a kernel's gradient flipped": ("weight", "itself"),
    },
    ("handed_down_bare", tuple(PRODUCTS), "derivative", "multiply by the weight's transpose"): {
        "hands the gradient down without multiplying by the weight": None,
    },
    ("handed_by_gradient", tuple(PRODUCTS), "derivative", "multiply by the weight's transpose"): {
        "hands the gradient down by a weight's gradient, not by the weight": None,
    },
    ("handed_by_one", tuple(PRODUCTS), "overwritten gradient", ADD_UP_OUTPUTS): {
        f"hands down what comes back to the {which} output alone": number
        for number, which in ((-1, "last"), (0, "first"))
    },
    ("handed_before_derivative", tuple(PRODUCTS), "derivative", ERROR): {
        "hands the error down without the activation's derivative": None,
    },
    ("bias", tuple(ADDITION), "bias gradient", BIAS): {
        "sums a bias's gradient over the wrong axis": lambda g: g.sum(1),
        "sums a bias's gradient over all outputs, too": lambda g: g.sum().expand(g.shape[1]),
        "takes a bias's gradient from the first row alone": lambda g: g[0],
        "takes a bias's gradient from the last row alone": lambda g: g[-1],
    },
    ("bias_of_weight", tuple(ADDITION), "bias gradient", BIAS): {
        "has a bias's gradient as the sum of its weight's gradient": torch.sum,
        "has a bias's gradient as the mean of its weight's": torch.mean,
    },
    ("squashed_twice", tuple(SCORED), "{squash} twice", "hand the scores to {name} as they are"): {
        "applies {squash} before {name}, which has one of its own": None,
    },
    ("formula", tuple(SCORED), "derivative", SCORES): {
        SQUASH_AGAIN: lambda g, at: g * at.d * at.p * (1 - at.p),
        UNSQUASHED: _other_probabilities(lambda z: z),
    },
    ("formula", ("cross_entropy",), "derivative", SCORES): {
        SOFTMAX_AGAIN: lambda g, at: _through_softmax(g * at.d, at.p, 1),
        "takes the softmax of {name} over axis 0": _other_probabilities(lambda z: z.softmax(0)),
        # There alone p − y is below 0.
        "has the derivative in the target's column alone": lambda g, at: g * at.d.clamp(max=0),
    },
    ("formula", tuple(OF_ERRORS), "derivative", "leave that out: no activation is there"): {
        "multiplies the error of {name} by σ′, a(1 − a),": lambda g, at: (
            g * at.d * at.x * (1 - at.x)
        ),
        "multiplies the error of {name} by tanh′, 1 − a²,": lambda g, at: g * at.d * (1 - at.x**2),
        "multiplies the error of {name} by relu's mask": lambda g, at: g * at.d * (at.x > 0),
    },
    ("flat", tuple(BROADCASTING), "broadcast", ONE_SHAPE): {
        "subtracts targets of shape (n,) from outputs of shape (n, 1), which gives (n, n)": None,
    },
    ("same_shape", tuple(BROADCASTING), "broadcast", SHAPE_IN_THEIRS): {UNLIKE: None},
    ("statistics", CENTERED, "batch statistics", STATISTICS): {
        "takes mean and variance of {name} as constant": ("mean", "var"),
        "takes the variance of {name} as constant": ("var",),
        "takes the mean of {name} as constant": ("mean",),
    },
    ("statistics", ("rms_norm",), "batch statistics", MEAN_SQUARE): {
        "takes the mean square of {name} as constant": ("var",),
    },
    ("statistics", CENTERED, "batch statistics", "take it away: g − mean(g) − x̂ · mean(g · x̂)"): {
        "has the share of {name}'s variance with the other sign": ("sign",),
    },
    ("statistics", NORMS, "batch statistics", "divide by sqrt(var + eps)"): {
        "adds {name}'s eps to the root of the variance": ("outside",),
    },
    ("statistics", ("batch_norm",), "batch statistics", "take them over all places, too"): {
        "takes {name}'s mean and variance over the rows alone, for each place": ("rows",),
    },
    ("statistics", ("layer_norm",), "batch statistics", "take them over the last axes alone"): {
        "takes {name}'s mean and variance over one axis more": ("more",),
    },
    ("statistics", CENTERED, "batch statistics", "divide it by n"): {
        "divides the variance of {name} by n − 1": ("unbiased",),
    },
    ("statistics", NORMS, "batch statistics", "multiply by γ"): {
        "leaves out {name}'s weight γ on the way back": ("bare",),
    },
    ("statistics", NORMS, "batch statistics", "take it from (x − μ)/σ"): {
        "takes γ's gradient from {name}'s input": ("raw",),
        "takes γ's gradient from {name}'s input less its mean, not divided by σ": ("centered",),
    },
    ("scaled", tuple(REDUCING), "derivative", "divide by the count there, too"): {
        "sums where {name} takes the mean": lambda at: at.count,
    },
    ("scaled", ("sum",), "derivative", "leave out the division there"): {
        "averages where theirs sums": lambda at: 1 / at.count,
    },
    ("scaled", ("pow",), "derivative", EXPONENT): {
        "leaves the exponent out": lambda at: 1 / at.args[1],
    },
    ("scaled", ("square",), "derivative", EXPONENT): {"leaves the exponent out": lambda _: 0.5},
    ("last_of_index", tuple(TAKING), "overwritten gradient", ADD_UP): {
        "keeps the last gradient alone of rows that are taken several times": "in all",
        "keeps one gradient alone of what is taken several times for a row of data": "in each row",
    },
    ("formula", ELEMENTWISE - ACROSS - BY_CONSTANTS, "derivative", "write {right}"): OF_AN_ELEMENT,
    ("formula", BY_CONSTANTS, "derivative", "{apply} {plain}"): OF_A_CONSTANT,
    ("formula", PIECEWISE, "derivative", "write {right}"): {
        "takes {name}'s mask from the gradient that comes back": lambda g, _: g * (g > 0),
    },
    ("replaced", ("gelu",), "another function", APPLY): {
        "approximates {name} as z · σ(1.702 z)": lambda z: z * (1.702 * z).sigmoid(),
    },
    ("replaced", ("sigmoid",), "another function", "look which of the two the gate multiplies"): {
        "has 1 − σ(z) where theirs has σ(z)": lambda z: (-z).sigmoid(),
    },
    ("replaced", ACTIVATIONS, "another function", APPLY): {
        f"applies {name} where theirs applies {{name}}": call
        for name, call in (("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("relu", torch.relu))
    },
    ("formula", ("relu",), "derivative", "write {right}"): {
        "has 1 for the derivative of {name} at 0, where torch has 0": lambda g, at: g * (at.x >= 0),
    },
    ("formula", ("abs", "l1_loss"), "derivative", "write 0 there"): {
        f"has {sign} for the derivative of {{name}} at 0, where torch has 0": partial(_at_0, sign)
        for sign in (1, -1)
    },
    ("skipped", WITH_A_LOSS, "{name} twice", NOTHING): {BEFORE_LOSS: None},
    ("skipped", ("neg",), "another function", "turn the sign round there"): {
        "has the other sign where theirs has {name}": None,
    },
    ("skipped", WITHOUT_A_LOSS - {"neg"}, "another function", APPLY): {
        "leaves {name} out altogether": None,
    },
}
