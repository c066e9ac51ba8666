"""Questions 1 and 3: the gradient three ways, the steepest direction, and the derivative on θ."""

from __future__ import annotations

__all__ = ["both_ways", "three_ways"]

from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from ..curvature import flat_weights, loss_function
from ..data import Rows
from ..net import SigmoidNet
from .answer import Answer, bound

EXPONENTS = range(1, 13)  # h = 1e-1 … 1e-12
DIRECTIONS = 1000
LENGTH = 1e-3  # of the step along each direction; so short that the loss changes as the slope says


def three_ways(net: SigmoidNet, rows: Rows, seed: int) -> Answer:
    """Question 1: gradients by hand, by autograd and by the quotient 1.3.4; the steepest direction.

    Args:
        net: the network, in float64.
        rows: the rows that the loss is over.
        seed: of the random directions.

    Returns:
        An answer with these facts. A difference is the largest one in a weight, relative to that
        weight's largest derivative:

        - by_hand: weight → difference of the gradient by hand from autograd's.
        - by_quotient: weight → difference of the quotient from autograd's at the best h.
        - best_step: the h whose larger difference is the smallest.
        - rise: how much one step of `LENGTH` along the gradient raises the loss.
        - largest_random_rise: the same for the best of the random directions.
        - steeper: how many random directions raise the loss as much as the gradient or more.
    """
    loss, theta = loss_function(net, rows), flat_weights(net)
    weights = dict(net.named_parameters())
    sizes = [weight.numel() for weight in weights.values()]
    autograd = torch.cat([g.flatten() for g in by_autograd(net, rows)])
    gradient = torch.cat([g.flatten() for g in net.gradient(rows).values()])

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

    facts: dict[str, Any] = {
        "by_hand": dict(zip(weights, differences(gradient), strict=True)),
        "by_quotient": dict(zip(weights, errors[best].tolist(), strict=True)),
        "best_step": steps[best].item(),
        "rise": rises[0].item(),
        "largest_random_rise": rises[1:].max().item(),
        "steeper": int((rises[1:] >= rises[0]).sum()),
    }
    table = [
        ["", *weights],
        ["by hand", *map(bound, facts["by_hand"].values())],
        [f"quotient, h = {facts['best_step']:.0e}", *map(bound, facts["by_quotient"].values())],
    ]
    return Answer(
        "1-difference-quotient",
        "Question 1: how does the code work?",
        "the gradient, by the chain rule; no direction is steeper (1.3.1 to 1.3.6)",
        facts,
        [
            "largest difference from autograd, relative to the weight's largest derivative:",
            table,
            "The quotient is 1.3.4 as printed, one-sided. Of h = 1e-01 to 1e-12 this one is best: "
            "a larger h leaves the curve, a smaller one drowns in rounding.",
            f"1.3.6: a step of {LENGTH:g} along the gradient raises the loss by "
            f"{facts['rise']:.2e}; along {DIRECTIONS} random directions it does so by "
            f"{facts['largest_random_rise']:.2e} at most, and {facts['steeper']} of them are as "
            "steep.",
        ],
        "quotient_error",
        {"steps": steps, "errors": errors, "weights": list(weights)},
    )


def both_ways(net: SigmoidNet, rows: Rows) -> Answer:
    """Question 3: ∂L/∂θ by hand and by autograd, and the shapes of what is multiplied.

    Args:
        net: the network.
        rows: the rows that the loss is over.

    Returns:
        An answer with these facts:

        - products: weight → shapes of the two matrices whose product is its gradient by hand.
        - shapes: weight → shape of that gradient.
        - autograd_shapes: weight → shape of autograd's.
        - same_bits: whether the two hold the same bits.
    """
    by_hand = net.gradient(rows)
    autograd = dict(zip(by_hand, by_autograd(net, rows), strict=True))
    hidden, output = net.layers(rows.inputs)
    facts: dict[str, Any] = {
        "products": {
            "syn0": (tuple(rows.inputs.mT.shape), tuple(hidden.shape)),
            "syn1": (tuple(hidden.mT.shape), tuple(output.shape)),
        },
        "shapes": {name: tuple(gradient.shape) for name, gradient in by_hand.items()},
        "autograd_shapes": {name: tuple(gradient.shape) for name, gradient in autograd.items()},
        "same_bits": all(torch.equal(by_hand[name], autograd[name]) for name in by_hand),
    }
    table = [["by hand", "shapes", "product", "autograd"]]
    for name, factors in (("syn0", "xᵀ · ∂L/∂(x · syn0)"), ("syn1", "Hᵀ · ∂L/∂(H · syn1)")):
        multiplied = "{} · {}".format(*facts["products"][name])
        shapes = [str(facts[key][name]) for key in ("shapes", "autograd_shapes")]
        table.append([f"∂L/∂{name} = {factors}", multiplied, *shapes])
    agree = "the same bits" if facts["same_bits"] else "not the same bits"
    return Answer(
        "3-theta",
        "Question 3: what of the derivative with respect to θ itself?",
        "quite complicated, the derivative of a matrix, a disaster",
        facts,
        [
            "two products of matrices by hand, loss.backward() by autograd:",
            table,
            f"by hand and by autograd: {agree}",
        ],
    )


def by_autograd(net: SigmoidNet, rows: Rows) -> tuple[Tensor, ...]:
    """∂L/∂θ by autograd, as `loss.backward()` computes it, one tensor for each parameter."""
    return torch.autograd.grad(net.loss(rows), list(net.parameters()))
