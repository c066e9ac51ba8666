"""The derivatives of torch's functions as text, in which a slip can be made.

What is handed back, `dx`, of what comes back, g, to a function that made y of x. The names of
options are torch's; of a loss t are the targets, and n is the number that its mean is over. Of a
norm, std is what it divides by, and n how many elements its mean is over.
"""

from __future__ import annotations

__all__ = ["Written", "slips"]

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .functions import NORMS
from .mutations import assigned, changed_lines, evaluate, mutants
from .norms import norm_of

if TYPE_CHECKING:
    from .mistakes import Local

CENTERED = "h = g * weight\ndx = (h - total(h) / n - xhat * total(h * xhat) / n) / std"
TEXTS = {
    "tanh": "dx = g * (1 - y ** 2)",
    "sigmoid": "dx = g * y * (1 - y)",
    "exp": "dx = g * y",
    "exp2": "dx = g * y * ln2",
    "log": "dx = g / x",
    "log1p": "dx = g / (1 + x)",
    "sqrt": "dx = g / (2 * y)",
    "rsqrt": "dx = -g * y ** 3 / 2",
    "reciprocal": "dx = -g * y ** 2",
    "sin": "dx = g * cos(x)",
    "cos": "dx = -g * sin(x)",
    "leaky_relu": "dx = g * where(x > 0, 1, negative_slope)",
    "elu": "dx = g * where(x > 0, 1, y + alpha)",
    "selu": "dx = g * where(x > 0, scale, y + scale * alpha)",
    "gelu": "p = (1 + erf(x / root2)) / 2\ndx = g * (p + x * exp(-x ** 2 / 2) / root2pi)",
    "silu": "s = sigmoid(x)\ndx = g * (s + x * s * (1 - s))",
    "softplus": "dx = g * sigmoid(x)",
    "logsigmoid": "dx = g * (1 - sigmoid(x))",
    "mish": "s = softplus(x)\nt = tanh(s)\ndx = g * (t + x * sigmoid(x) * (1 - t ** 2))",
    "softmax": "dx = y * (g - total(g * y))",
    "log_softmax": "dx = g - exp(y) * total(g)",
    "layer_norm": CENTERED,
    "batch_norm": CENTERED,
    "rms_norm": "h = g * weight\ndx = (h - xhat * total(h * xhat) / n) / std",
    "mse_loss": "dx = g * 2 * (x - t) / n",
    "l1_loss": "dx = g * sign(x - t) / n",
    "binary_cross_entropy": "dx = g * ((1 - t) / (1 - x) - t / x) / n",
    "binary_cross_entropy_with_logits": "dx = g * (sigmoid(x) - t) / n",
    "cross_entropy": "dx = g * (softmax(x) - t) / n",
}
NUMBERS = {"ln2": math.log(2), "root2": math.sqrt(2), "root2pi": math.sqrt(2 * math.pi)}
OF_SELU = {"scale": 1.0507009873554805, "alpha": 1.6732632423543772}
OPTIONS = {  # function → its second argument, and what that usually is
    "leaky_relu": ("negative_slope", 0.01),
    "elu": ("alpha", 1.0),
    "softmax": ("dim", -1),
    "log_softmax": ("dim", -1),
}


@dataclass(frozen=True)
class Written:
    """A function's derivative as a text has it.

    Args:
        function: its name.
        text: the lines.
    """

    function: str
    text: str

    def __call__(self, g: Tensor, at: Local) -> Tensor:
        """What is handed back, of what comes back.

        Raises:
            ValueError: the function is called in a way that its derivative above is not for.
        """
        x = at.x.detach().requires_grad_()
        with torch.enable_grad():
            (true,) = torch.autograd.grad(at.call(x), x, g)
        close = math.sqrt(torch.finfo(true.dtype).eps)
        if not torch.allclose(self._made(TEXTS[self.function], g, at), true, close, close):
            raise ValueError("another derivative")
        return self._made(self.text, g, at)

    def _made(self, text: str, g: Tensor, at: Local) -> Tensor:
        option, usual = OPTIONS.get(self.function, ("", 0.0))
        value = at.kwargs.get(option, at.args[1] if option and len(at.args) > 1 else usual)
        names = {**NUMBERS, **OF_SELU, option: value, "x": at.x, "y": at.y, "g": g}
        names["total"] = lambda array: array.sum(value, keepdim=True)
        names["total_of_all"] = Tensor.sum
        names["softmax"] = lambda scores: scores.softmax(1)
        if self.function in NORMS:
            names |= norm_of(self.function, at.args, at.kwargs).names(at.x)
        if at.y.ndim == 0:  # a loss
            targets = at.args[1]
            if self.function == "cross_entropy" and not targets.is_floating_point():
                targets = torch.nn.functional.one_hot(targets, at.x.shape[1])
            names |= {"t": targets, "n": 1 if at.kwargs.get("reduction") == "sum" else at.count}
        evaluate(text, names)
        made: Tensor = names["dx"]
        return made


def slips(function: str) -> Iterator[tuple[str, str, Written]]:
    """A function's derivative with one slip: the lines that are right, those in mine, and both."""
    text = TEXTS.get(function)
    if text:
        made = [name for name in assigned(text) if name != "dx"]
        numbers = [option for option in ("negative_slope", "alpha") if option in text]
        of_norms = ["g", "xhat"] if function in NORMS else []
        for mutant in mutants(text, (("x", "y", *made, *numbers, *of_norms),)):
            yield *changed_lines(text, mutant), Written(function, mutant)
