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

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from .rule import Rule

if TYPE_CHECKING:
    from torch import Tensor


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
    _: KW_ONLY
    maximize: bool = False

    def step(self, weight: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        """One step, in the order in which it happens."""
        import torch

        if not state:
            state["step"] = 0
            state["eta"] = torch.tensor(float(self.lr))  # of the default dtype, and so rounded
            state["mu"] = torch.ones(())  # to float32
            state["ax"] = weight.new_zeros(weight.shape)
        state["step"] += 1
        t, average = state["step"], state["ax"]
        eta, mu = state["eta"].item(), state["mu"].item()

        if self.maximize:
            grad = -grad
        if self.weight_decay != 0:
            grad = grad.add(weight, alpha=self.weight_decay)

        weight.mul_(1 - self.lambd * eta)
        weight.add_(grad, alpha=-eta)
        if mu == 1:
            average.copy_(weight)
        else:
            apart = weight - average
            apart.mul_(mu)
            average.add_(apart)
        state["eta"].fill_(self.lr / (1 + self.lambd * self.lr * t) ** self.alpha)
        state["mu"].fill_(1 / max(1, t - self.t0))
