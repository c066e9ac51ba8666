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

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, require, switch


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

    # Not PyTorch's: what others write.
    decoupled_weight_decay: bool = switch("Keras: θ ← θ − γλθ, past v and u")

    def _check(self) -> None:
        super()._check()
        require(0.0 <= self.rho <= 1.0, f"Invalid rho value: {self.rho}")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        square, moved = buffers(state, weight, square_avg=0, acc_delta=0)
        grad = self.signed_and_decayed(weight, grad)

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
