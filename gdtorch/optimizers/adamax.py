r"""Adamax: Adam with the largest recent gradient in place of the root mean square.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    g ← g + λθ
    m ← β₁m + (1 − β₁)g            from m = 0
    u ← max(β₂u, |g| + ε)          from u = 0
    θ ← θ − γm / ((1 − β₁ᵗ)u)

Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2, which has no ε.
"""

from __future__ import annotations

__all__ = ["Adamax"]

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from .rule import Rule, switch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Adamax(Rule):
    """`torch.optim.Adamax`, as its `_single_tensor_adamax`.

    Args:
        lr: γ, the learning rate.
        betas: β₁ and β₂, how much of m and of u each step keeps.
        eps: ε, added to |g|.
        weight_decay: λ of the penalty λ/2 · θ².
        maximize: ascend instead.
    """

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0
    _: KW_ONLY
    maximize: bool = False

    # Not PyTorch's: what others write.
    decoupled_weight_decay: bool = switch("Keras: θ ← θ − γλθ, past m and u")
    eps_outside_max: bool = switch("Keras: u ← max(β₂u, |g|), divided by as u + ε")

    def step(self, weight: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        """One step, in the order in which it happens."""
        beta1, beta2 = self.betas
        if not state:
            state["step"] = 0
            state["exp_avg"] = weight.new_zeros(weight.shape)
            state["exp_inf"] = weight.new_zeros(weight.shape)
        state["step"] += 1
        first, largest = state["exp_avg"], state["exp_inf"]

        if self.maximize:
            grad = -grad
        if self.weight_decay != 0:
            if self.decoupled_weight_decay:
                weight.mul_(1 - self.lr * self.weight_decay)
            else:
                grad = grad.add(weight, alpha=self.weight_decay)

        first.lerp_(grad, 1 - beta1)
        size = grad.abs()
        if not self.eps_outside_max:
            size.add_(self.eps)
        largest.mul_(beta2)
        largest.copy_(largest.maximum(size))
        if self.eps_outside_max:
            largest = largest + self.eps
        weight.addcdiv_(first, largest, value=-self.lr / (1 - beta1 ** state["step"]))
