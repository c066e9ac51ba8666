"""Questions 1 and 3: the gradient three ways, uphill as nothing else, and on θ directly."""

from __future__ import annotations

__all__ = ["BothWays", "ThreeWays", "both_ways", "three_ways"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from ..curvature import flat_weights, loss_function
from ..data import Rows
from ..net import SigmoidNet
from .answer import Answer, aligned, bound

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPONENTS = range(1, 13)  # h = 1e-1 … 1e-12
DIRECTIONS = 1000
LENGTH = 1e-3  # of the step along each direction: its loss changes in line with the slope


@dataclass(frozen=True)
class ThreeWays(Answer):
    """Question 1. Differences are the largest of a weight's, relative to its largest derivative.

    Args:
        by_hand: weight → difference of the gradient by hand from autograd's.
        steps: h of the difference quotients, of shape (h,).
        quotients: difference of the quotient 1.3.4 from autograd, of shape (h, weights).
        best_step: the h whose larger difference is the smallest.
        by_quotient: weight → difference of the quotient from autograd at that h.
        rise: of the loss, one step of `LENGTH` along the gradient.
        largest_random_rise: of the loss, the same step along the best of the random directions.
        steeper: how many random directions raise the loss as much as the gradient or more.
    """

    name: ClassVar = "1-difference-quotient"
    question: ClassVar = "Question 1: how does the code work?"
    post: ClassVar = "the gradient, by the chain rule; no direction is steeper (1.3.1 to 1.3.6)"

    by_hand: Mapping[str, float]
    by_quotient: Mapping[str, float]
    best_step: float
    steps: Tensor
    quotients: Tensor
    rise: float
    largest_random_rise: float
    steeper: int

    def measured(self) -> list[str]:
        """The differences from autograd, and the rises of the loss."""
        ways = {"by hand": self.by_hand, f"quotient, h = {self.best_step:.0e}": self.by_quotient}
        rows = [[way, *map(bound, errors.values())] for way, errors in ways.items()]
        return [
            "largest difference from autograd, relative to the weight's largest derivative:",
            aligned([["", *self.by_hand], *rows]),
            "The quotient is 1.3.4 as printed, one-sided. Of h = 1e-01 to 1e-12 this one is best: "
            "a larger h leaves the curve, a smaller one drowns in rounding.",
            f"1.3.6: a step of {LENGTH:g} along the gradient raises the loss by {self.rise:.2e}; "
            f"along {DIRECTIONS} random directions it does so by {self.largest_random_rise:.2e} at "
            f"most, and {self.steeper} of them are as steep.",
        ]

    def figure(self) -> Figure:
        """The quotient's error against h."""
        from ..figures import quotient_error

        return quotient_error(self.steps, self.quotients, list(self.by_hand))


def three_ways(net: SigmoidNet, rows: Rows, seed: int) -> ThreeWays:
    """Gradients by hand, by autograd and by the quotient 1.3.4, and the steepest direction.

    Args:
        net: the network, in float64.
        rows: the rows that the loss is over.
        seed: of the random directions.
    """
    loss, theta = loss_function(net, rows), flat_weights(net)
    weights = dict(net.named_parameters())
    sizes = [weight.numel() for weight in weights.values()]
    autograd = torch.cat([g.flatten() for g in by_autograd(net, rows)])
    by_hand = torch.cat([g.flatten() for g in net.gradient(rows).values()])

    def differences(gradient: Tensor) -> list[float]:
        parts = zip(gradient.split(sizes), autograd.split(sizes), strict=True)
        return [((mine - ours).abs().max() / ours.abs().max()).item() for mine, ours in parts]

    steps = torch.tensor([10.0**-k for k in EXPONENTS], dtype=theta.dtype)
    axes = torch.eye(len(theta), dtype=theta.dtype)  # e₁ … eₙ of 1.3.4
    losses = vmap(loss)
    quotients = [(losses(theta + h * axes) - loss(theta)) / h for h in steps]
    errors = torch.tensor([differences(quotient) for quotient in quotients], dtype=theta.dtype)
    best = int(errors.amax(dim=1).argmin())

    generator = torch.Generator().manual_seed(seed % 2**63)
    random = torch.randn(DIRECTIONS, len(theta), dtype=theta.dtype, generator=generator)
    directions = torch.cat([autograd[None], random])
    directions /= torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    rises = losses(theta + LENGTH * directions) - loss(theta)
    return ThreeWays(
        dict(zip(weights, differences(by_hand), strict=True)),
        dict(zip(weights, errors[best].tolist(), strict=True)),
        steps[best].item(),
        steps,
        errors,
        rises[0].item(),
        rises[1:].max().item(),
        int((rises[1:] >= rises[0]).sum()),
    )


@dataclass(frozen=True)
class BothWays(Answer):
    """Question 3.

    Args:
        products: weight → shapes of the two matrices whose product is its gradient by hand.
        shapes: weight → shape of that gradient.
        autograd_shapes: weight → shape of autograd's.
        same_bits: whether the two hold the same bits.
    """

    name: ClassVar = "3-theta"
    question: ClassVar = "Question 3: what of the derivative with respect to θ itself?"
    post: ClassVar = "quite complicated, the derivative of a matrix, a disaster"

    products: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    shapes: Mapping[str, tuple[int, ...]]
    autograd_shapes: Mapping[str, tuple[int, ...]]
    same_bits: bool

    def measured(self) -> list[str]:
        """The shapes, and whether the two ways agree."""
        factors = {"syn0": "xᵀ · ∂L/∂(x · syn0)", "syn1": "Hᵀ · ∂L/∂(H · syn1)"}
        rows = [
            [
                f"∂L/∂{name} = {factors[name]}",
                "{} · {}".format(*self.products[name]),
                str(self.shapes[name]),
                str(self.autograd_shapes[name]),
            ]
            for name in self.products
        ]
        agree = "the same bits" if self.same_bits else "not the same bits"
        return [
            "two products of matrices by hand, loss.backward() by autograd:",
            aligned([["by hand", "shapes", "product", "autograd"], *rows]),
            f"by hand and by autograd: {agree}",
        ]


def by_autograd(net: SigmoidNet, rows: Rows) -> tuple[Tensor, ...]:
    """∂L/∂θ by autograd, as `loss.backward()` computes it, one tensor for each parameter."""
    return torch.autograd.grad(net.loss(rows), list(net.parameters()))


def both_ways(net: SigmoidNet, rows: Rows) -> BothWays:
    """∂L/∂θ by hand and by autograd, and the shapes of what is multiplied."""
    by_hand = net.gradient(rows)
    autograd = dict(zip(by_hand, by_autograd(net, rows), strict=True))
    hidden, output = net.layers(rows.inputs)
    return BothWays(
        {
            "syn0": (tuple(rows.inputs.mT.shape), tuple(hidden.shape)),
            "syn1": (tuple(hidden.mT.shape), tuple(output.shape)),
        },
        {name: tuple(gradient.shape) for name, gradient in by_hand.items()},
        {name: tuple(gradient.shape) for name, gradient in autograd.items()},
        all(torch.equal(by_hand[name], autograd[name]) for name in by_hand),
    )
