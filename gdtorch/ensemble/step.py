"""One step of many networks at once, starts innermost: the arithmetic that the engine compiles."""

from __future__ import annotations

__all__ = ["Examples", "Step", "Weights", "add_up", "gradient", "outputs", "sgd_step"]

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..optimizers import SGD

ROUND = 1.5 * 2**23 + 127  # a float32 from here on to 2²⁴ has no fraction
ROUND_BITS = 0x4B400000  # of 1.5 · 2²³
Weights = list[Tensor]  # syn0 feature by feature, then syn1: each of shape (hidden, starts)
Examples = tuple[tuple[tuple[float, ...], float], ...]  # each row's inputs and its target
Step = Callable[[Weights, Weights, Tensor, Tensor], None]


def sgd_step(rule: SGD, gradient: Callable[[Weights], Weights]) -> Step:
    """The step of a rule: `step(weights, velocities, lr, share)`, in place.

    `share` is how much of the gradient goes into the velocity: 1 at the first step, 1 − dampening
    after it. It and `lr` are tensors of one element, in place of the rule's own: as numbers they
    would be compiled into the step. Velocities are empty without momentum.
    """

    def step(weights: Weights, velocities: Weights, lr: Tensor, share: Tensor) -> None:
        """One step of every network, line by line as in `Manual.step`."""
        moved = []
        for i, (weight, grad) in enumerate(zip(weights, gradient(weights), strict=True)):
            if rule.maximize:
                grad = -grad
            if rule.weight_decay != 0:
                grad = grad + rule.weight_decay * weight
            if rule.momentum != 0:
                velocity = rule.momentum * velocities[i] + share * grad
                velocities[i].copy_(velocity)
                grad = grad + rule.momentum * velocity if rule.nesterov else velocity
            moved.append(weight - lr * grad)
        for weight, new in zip(weights, moved, strict=True):
            weight.copy_(new)

    return step


def outputs(inputs: Iterable[Sequence[float]], weights: Weights) -> list[Tensor]:
    """The outputs δ for each row of inputs, each of shape (starts,)."""
    *syn0, syn1 = weights
    return [_sigmoid(add_up(_hidden(x, syn0) * syn1)) for x in inputs]


def gradient(examples: Examples, weights: Weights) -> Weights:
    """∂L/∂syn0 feature by feature, then ∂L/∂syn1, as `SigmoidNet.gradient`, row by row."""
    *syn0, syn1 = weights
    ahead: list[Any] = [0.0] * len(syn0)  # Σ over rows of xᵢ · output_delta · h · (1 − h)
    gradient1: Any = 0.0
    for x, y in examples:
        hidden = _hidden(x, syn0)  # (hidden, starts)
        output = _sigmoid(add_up(hidden * syn1))  # (starts,)
        output_delta = (output - y) * (1 - output) * output
        gradient1 = gradient1 + output_delta * hidden
        slope = output_delta * ((1 - hidden) * hidden)
        ahead = [a if v == 0 else a + _times(v, slope) for v, a in zip(x, ahead, strict=True)]
    return [a * syn1 for a in ahead] + [gradient1]


def _hidden(x: Sequence[float], syn0: Weights) -> Tensor:
    """σ(x · syn0) for one row x, of shape (hidden, starts); an input of 0 or 1 costs no product."""
    terms = [_times(v, weight) for v, weight in zip(x, syn0, strict=True) if v != 0]
    return _sigmoid(reduce(torch.add, terms)) if terms else torch.full_like(syn0[0], 0.5)


def _times(number: float, tensor: Tensor) -> Tensor:
    return tensor if number == 1 else number * tensor


def add_up(tensor: Tensor) -> Tensor:
    """Sum over the first dimension.

    Uncompiled, term by term: `sum` adds in another order where a thread's share of the starts
    ends, and a start's bits must not depend on where that is.
    """
    return tensor.sum(0) if torch.compiler.is_compiling() else reduce(torch.add, tensor.unbind(0))


def _sigmoid(x: Tensor) -> Tensor:
    """σ(x); where it is compiled for the CPU in float32, with `_exp`."""
    if torch.compiler.is_compiling() and x.dtype == torch.float32 and x.device.type == "cpu":
        return 1 / (1 + _exp(-x))
    return torch.sigmoid(x)


def _exp(x: Tensor) -> Tensor:
    """eˣ = 2ⁿ · eʳ in float32, to two ulp for |x| ≤ 87; beyond that it soon is 0, or ∞.

    From |x| = 10¹³ on it may be nan: a network that comes so far has diverged.

    Compiled, `torch.exp` calls a library for every 16 numbers, which costs more than the
    arithmetic; this is in line. (Cephes' expf: r = x − n · log 2 in two parts, then a polynomial.)
    """
    shifted = x * 1.44269504 + ROUND  # rounds to a whole number, whose last bits hold n + 127
    n = shifted - ROUND
    # Kept in range as integers: of floats, clamp has to let nan through, at three times the cost.
    exponent = shifted.view(torch.int32).clamp(ROUND_BITS, ROUND_BITS + 255)
    power = (exponent << 23).view(torch.float32)  # 2ⁿ: n + 127 is in the exponent's bits
    r = x - n * 0.693359375 + n * 2.12194440e-4
    series = 1.9875691500e-4 * r + 1.3981999507e-3
    for coefficient in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        series = series * r + coefficient
    return (series * (r * r) + r + 1) * power
