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

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, switch


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

    # Not PyTorch's: what others write.
    decoupled_weight_decay: bool = switch("Keras: θ ← θ − γλθ, past m and u")
    eps_outside_max: bool = switch("Keras: u ← max(β₂u, |g|), divided by as u + ε")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        beta1, beta2 = self.betas
        first, largest = buffers(state, weight, exp_avg=0, exp_inf=0)
        t = state["step"] = state.get("step", 0) + 1
        grad = self.signed_and_decayed(weight, grad)

        first.lerp_(grad, 1 - beta1)
        size = grad.abs()
        if not self.eps_outside_max:
            size.add_(self.eps)
        largest.mul_(beta2)
        largest.copy_(largest.maximum(size))
        if self.eps_outside_max:
            largest = largest + self.eps
        weight.addcdiv_(first, largest, value=-self.lr / (1 - beta1**t))
