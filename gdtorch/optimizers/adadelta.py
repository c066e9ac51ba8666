r"""Adadelta: RMSprop whose learning rate is the root mean square of its own recent steps.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    g ← g + λθ
    v ← ρv + (1 − ρ)g²             from v = 0
    Δ ← √(u + ε) / √(v + ε) · g
    u ← ρu + (1 − ρ)Δ²             from u = 0
    θ ← θ − γΔ

Zeiler, "ADADELTA: an adaptive learning rate method", 2012, which has no γ.
"""

from __future__ import annotations

__all__ = ["Adadelta"]

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from .rule import Rule, require, switch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Adadelta(Rule):
    """`torch.optim.Adadelta`, as its `_single_tensor_adadelta`.

    Args:
        lr: γ, by which Δ is multiplied.
        rho: ρ, how much of v and of u each step keeps.
        eps: ε, added to v and to u.
        weight_decay: λ of the penalty λ/2 · θ².
        maximize: ascend instead.
    """

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6
    weight_decay: float = 0
    _: KW_ONLY
    maximize: bool = False

    # Not PyTorch's: what others write.
    decoupled_weight_decay: bool = switch("Keras: θ ← θ − γλθ, past v and u")

    def _check(self) -> None:
        super()._check()
        require(0.0 <= self.rho <= 1.0, f"Invalid rho value: {self.rho}")

    def step(self, weight: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        """One step, in the order in which it happens."""
        if not state:
            state["square_avg"] = weight.new_zeros(weight.shape)
            state["acc_delta"] = weight.new_zeros(weight.shape)
        square, moved = state["square_avg"], state["acc_delta"]

        if self.maximize:
            grad = -grad
        if self.weight_decay != 0:
            if self.decoupled_weight_decay:
                weight.mul_(1 - self.lr * self.weight_decay)
            else:
                grad = grad.add(weight, alpha=self.weight_decay)

        square.mul_(self.rho)
        square.addcmul_(grad, grad, value=1 - self.rho)
        root = square.add(self.eps)
        root.sqrt_()
        delta = moved.add(self.eps)
        delta.sqrt_()
        delta.div_(root)
        delta.mul_(grad)
        moved.mul_(self.rho)
        moved.addcmul_(delta, delta, value=1 - self.rho)
        weight.add_(delta, alpha=-self.lr)
