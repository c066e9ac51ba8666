r"""Rprop: each weight has a step size of its own; only the sign of the gradient counts.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    η ← η₊η                        where g · g′ > 0, with g′ the gradient before, from g′ = 0
    η ← η₋η, g ← 0                 where g · g′ < 0
    η ← min(max(η, Γ_min), Γ_max)  from η = γ
    θ ← θ − η sign(g)
    g′ ← g

Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
algorithm", 1993; as it stands here, iRprop− of Igel and Hüsken, "Improving the Rprop learning
algorithm", 2000.
"""

from __future__ import annotations

__all__ = ["Rprop"]

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from .rule import Rule, require, switch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rprop(Rule):
    """`torch.optim.Rprop`, as its `_single_tensor_rprop`.

    Args:
        lr: γ, the step size to begin with.
        etas: η₋ and η₊, by which a step size shrinks and grows.
        step_sizes: Γ_min and Γ_max, between which it stays.
        maximize: ascend instead.
    """

    lr: float = 1e-2
    etas: tuple[float, float] = (0.5, 1.2)
    step_sizes: tuple[float, float] = (1e-6, 50)
    _: KW_ONLY
    maximize: bool = False

    # Not PyTorch's: what others write.
    keep_gradient: bool = switch("Rprop− in Igel and Hüsken: where the sign turns, g is not 0")
    backtrack: bool = switch("Riedmiller and Braun: where it turns, the step before is undone")

    def _check(self) -> None:
        super()._check()
        shrink, grow = self.etas
        require(0.0 < shrink < 1.0 < grow, f"Invalid eta values: {shrink}, {grow}")

    def step(self, weight: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        """One step, in the order in which it happens."""
        if not state:
            state["prev"] = weight.new_zeros(weight.shape)
            state["step_size"] = weight.new_full(weight.shape, float(self.lr))
            state["last"] = weight.new_zeros(weight.shape)
        shrink, grow = self.etas
        size = state["step_size"]

        if self.maximize:
            grad = -grad
        factor = grad * state["prev"]
        factor.sign_()
        factor.masked_fill_(factor > 0, grow)
        factor.masked_fill_(factor < 0, shrink)
        factor.masked_fill_(factor == 0, 1)
        turned = factor == shrink
        size.mul_(factor)
        size.clamp_(*self.step_sizes)

        if self.backtrack:
            weight.add_(state["last"].masked_fill(~turned, 0))
        if self.backtrack or not self.keep_gradient:
            grad = grad.masked_fill(turned, 0)
        state["last"] = grad.sign() * size
        weight.sub_(state["last"])
        state["prev"].copy_(grad)
