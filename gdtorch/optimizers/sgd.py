r"""Stochastic gradient descent, with momentum.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    g ← g + λθ
    b ← g                          at the first step, if μ ≠ 0
    b ← μb + (1 − τ)g              after it
    g ← g + μb                     if nesterov, else g ← b
    θ ← θ − γg

Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Nesterov's as in
Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
"""

from __future__ import annotations

__all__ = ["SGD"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, require, switch


@dataclass(frozen=True)
class SGD(Rule):
    """`torch.optim.SGD`, as its `_single_tensor_sgd`.

    Args:
        lr: γ, the learning rate.
        momentum: μ, 0 for none.
        dampening: τ, how much of a fresh gradient to leave out of the velocity b.
        weight_decay: λ of the penalty λ/2 · θ².
        nesterov: look ahead along the velocity; needs a momentum and no dampening.
        maximize: ascend instead.
    """

    lr: float = 1e-3
    momentum: float = 0
    dampening: float = 0
    weight_decay: float = 0
    nesterov: bool = False

    # Not PyTorch's: what others write.
    decoupled_weight_decay: bool = switch("Keras, and whoever knows AdamW: decay outside b")
    dampen_first: bool = switch("whoever lets b begin at 0: the first gradient times 1 − τ, too")
    lr_in_velocity: bool = switch("Keras, Sutskever: b ← μb + γg, and θ ← θ − b")
    old_velocity: bool = switch("loops that move the weight first: the step takes the b before")
    keeps_look_ahead: bool = switch("Nesterov's in place: b ← g + μb, too, once b is updated")

    def _check(self) -> None:
        require(not self.lr < 0, f"Invalid learning rate: {self.lr}")
        require(not self.momentum < 0, f"Invalid momentum value: {self.momentum}")
        require(not self.weight_decay < 0, f"Invalid weight_decay value: {self.weight_decay}")
        require(
            not self.nesterov or (self.momentum > 0 and self.dampening == 0),
            "Nesterov momentum requires a momentum and zero dampening",
        )

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        grad = self.signed_and_decayed(weight, grad)
        rate = self.lr
        if self.lr_in_velocity:
            grad = grad.mul(self.lr)
            rate = 1
        if self.momentum != 0:
            first = not state
            if first:
                state["momentum_buffer"] = weight.new_zeros(weight.shape)
            velocity = state["momentum_buffer"]
            taken = velocity.clone() if self.old_velocity else velocity
            if first and not self.dampen_first:
                velocity.copy_(grad)
            else:
                velocity.mul_(self.momentum)
                velocity.add_(grad, alpha=1 - self.dampening)
            grad = grad.add(taken, alpha=self.momentum) if self.nesterov else taken
            if self.keeps_look_ahead:
                velocity.copy_(grad)
        # With `alpha` this rounds once; `weight - rate * grad` would round twice.
        weight.add_(grad, alpha=-rate)
