r"""ASGD: gradient descent at a falling rate, which also keeps the average of its weights.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    g ← g + λθ
    θ ← θ − κηθ                    from η = γ
    θ ← θ − ηg
    a ← a + μ(θ − a)               from μ = 1, so that a is θ while μ is 1
    η ← γ / (1 + κγt)^α
    μ ← 1 / max(1, t − t₀)

No step uses a: read the average from `state["ax"]`.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

from __future__ import annotations

__all__ = ["ASGD"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers


@dataclass(frozen=True)
class ASGD(Rule):
    """`torch.optim.ASGD`, as its `_single_tensor_asgd`.

    Args:
        lr: γ, the learning rate to begin with.
        lambd: κ, how fast the weight itself decays, and how fast η falls.
        alpha: α, the power by which η falls.
        t0: t₀, the step at which to begin to average.
        weight_decay: λ of the penalty λ/2 · θ².
        maximize: ascend instead.
    """

    lr: float = 1e-2
    lambd: float = 1e-4
    alpha: float = 0.75
    t0: float = 1e6
    weight_decay: float = 0

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        import torch

        (average,) = buffers(state, weight, ax=0)
        # Of the default dtype, and so rounded to float32.
        eta = state.setdefault("eta", torch.tensor(float(self.lr)))
        mu = state.setdefault("mu", torch.ones(()))
        t = state["step"] = state.get("step", 0) + 1
        grad = self.signed_and_decayed(weight, grad)

        weight.mul_(1 - self.lambd * eta.item())
        weight.add_(grad, alpha=-eta.item())
        if mu == 1:
            average.copy_(weight)
        else:
            apart = weight - average
            apart.mul_(mu)
            average.add_(apart)
        eta.fill_(self.lr / (1 + self.lambd * self.lr * t) ** self.alpha)
        mu.fill_(1 / max(1, t - self.t0))
