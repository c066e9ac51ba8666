r"""RAdam: Adam that divides by √v̂ only once v has seen enough gradients, with small steps at first.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    θ ← θ − γλθ                    if decoupled_weight_decay, else
    g ← g + λθ
    m ← β₁m + (1 − β₁)g            from m = 0
    v ← β₂v + (1 − β₂)g²           from v = 0
    m̂ ← m / (1 − β₁ᵗ)
    ρ∞ ← 2 / (1 − β₂) − 1
    ρ ← ρ∞ − 2tβ₂ᵗ / (1 − β₂ᵗ)
    l ← √(1 − β₂ᵗ) / (√v + ε)
    r ← √((ρ − 4)(ρ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρ))
    θ ← θ − γm̂rl                   if ρ > 5, else θ ← θ − γm̂

Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.
"""

from __future__ import annotations

__all__ = ["RAdam"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, switch


@dataclass(frozen=True)
class RAdam(Rule):
    """`torch.optim.RAdam`, as its `_single_tensor_radam`.

    Args:
        lr: γ, the learning rate.
        betas: β₁ and β₂, how much of m and of v each step keeps.
        eps: ε, added to √v.
        weight_decay: λ of the penalty λ/2 · θ², or of the decay by γλθ if that is decoupled.
        decoupled_weight_decay: decay the weight itself, past m and v.
        maximize: ascend instead.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0
    decoupled_weight_decay: bool = False

    # Not PyTorch's: what others write.
    eps_in_root: bool = switch("optax, with its eps_root: √(v̂ + ε)")
    eps_after_correction: bool = switch("optax: ε added to √v̂, as in Adam")
    threshold: float = switch("Liu et al.: divide from ρ > 4 on", default=5.0)

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        beta1, beta2 = self.betas
        first, second = buffers(state, weight, exp_avg=0, exp_avg_sq=0)
        t = state["step"] = state.get("step", 0) + 1
        grad = self.signed_and_decayed(weight, grad)

        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2)
        second.addcmul_(grad, grad, value=1 - beta2)

        correction = 1 - beta2**t
        enough = 2 / (1 - beta2) - 1
        seen = enough - 2 * t * beta2**t / correction
        step = first / (1 - beta1**t)
        step = step * self.lr
        if seen > self.threshold:
            if self.eps_in_root:
                root = second.add(self.eps * correction)
                root.sqrt_()
            elif self.eps_after_correction:
                root = second.sqrt()
                root.add_(self.eps * correction**0.5)
            else:
                root = self.root(second)
            rectified = (seen - 4) * (seen - 2) * enough / ((enough - 4) * (enough - 2) * seen)
            step = step * (correction**0.5 / root)  # in torch a product with 1/root, rounded
            step = step * rectified**0.5
        weight.add_(step, alpha=-1)
