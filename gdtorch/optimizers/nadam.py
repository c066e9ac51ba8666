r"""NAdam: Adam that looks ahead along its momentum, as Nesterov does, on a schedule of its own.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    θ ← θ − γλθ                    if decoupled_weight_decay, else
    g ← g + λθ
    μ_t ← β₁(1 − ½ · 0.96^(tψ))
    m ← β₁m + (1 − β₁)g            from m = 0
    v ← β₂v + (1 − β₂)g²           from v = 0
    m̂ ← μ_{t+1} m / (1 − μ₁ ⋯ μ_{t+1}) + (1 − μ_t)g / (1 − μ₁ ⋯ μ_t)
    v̂ ← v / (1 − β₂ᵗ)
    θ ← θ − γm̂ / (√v̂ + ε)

Dozat, "Incorporating Nesterov momentum into Adam", 2016.
"""

from __future__ import annotations

__all__ = ["NAdam"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, switch


@dataclass(frozen=True)
class NAdam(Rule):
    """`torch.optim.NAdam`, as its `_single_tensor_nadam`.

    Args:
        lr: γ, the learning rate.
        betas: β₁ and β₂, how much of m and of v each step keeps.
        eps: ε, added to √v̂.
        weight_decay: λ of the penalty λ/2 · θ², or of the decay by γλθ if that is decoupled.
        momentum_decay: ψ, how soon μ rises from β₁/2 to β₁; at once with `math.inf`.
        decoupled_weight_decay: decay the weight itself, past m and v.
        maximize: ascend instead.
    """

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    # Not PyTorch's: what others write.
    eps_in_root: bool = switch("optax, with its eps_root: √(v̂ + ε)")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        import torch

        beta1, beta2 = self.betas
        first, second = buffers(state, weight, exp_avg=0, exp_avg_sq=0)
        t = state["step"] = state.get("step", 0) + 1
        grad = self.signed_and_decayed(weight, grad)

        mu = beta1 * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * self.momentum_decay))
        products = state.setdefault("mu_product", torch.ones(()))
        products.mul_(mu)
        product = products.item()  # of the default dtype, and so rounded to float32

        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2)
        second.addcmul_(grad, grad, value=1 - beta2)
        root = self.root(second / (1 - beta2**t))
        weight.addcdiv_(grad, root, value=-self.lr * (1 - mu) / (1 - product))
        weight.addcdiv_(first, root, value=-self.lr * mu_next / (1 - product * mu_next))
