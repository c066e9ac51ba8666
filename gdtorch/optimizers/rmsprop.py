r"""RMSprop: the gradient divided by the root mean square of recent gradients.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    g ← g + λθ
    v ← αv + (1 − α)g²             from v = 0
    ĝ ← αĝ + (1 − α)g              if centered, from ĝ = 0
    ṽ ← v − ĝ²                     if centered, else v
    b ← μb + g / (√ṽ + ε)          from b = 0
    θ ← θ − γb

Hinton, lecture 6e of "Neural networks for machine learning", 2012; centered: Graves, "Generating
sequences with recurrent neural networks", 2013.
"""

from __future__ import annotations

__all__ = ["RMSprop"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, require, switch


@dataclass(frozen=True)
class RMSprop(Rule):
    """`torch.optim.RMSprop`, as its `_single_tensor_rmsprop`.

    Args:
        lr: γ, the learning rate.
        alpha: α, how much of v each step keeps.
        eps: ε, added to √ṽ.
        weight_decay: λ of the penalty λ/2 · θ².
        momentum: μ, 0 for none.
        centered: divide by the gradient's standard deviation.
        maximize: ascend instead.
    """

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0
    momentum: float = 0
    centered: bool = False

    # Not PyTorch's: what others write.
    eps_in_root: bool = switch("TensorFlow, Keras, optax: √(ṽ + ε)")
    initial_accumulator_value: float = switch("TensorFlow 1: v begins at 1", default=0.0)
    lr_in_velocity: bool = switch("TensorFlow, Keras: b ← μb + γg / √ṽ, and θ ← θ − b")
    no_root: bool = switch("loops by hand: divided by ṽ + ε, without the root")
    decoupled_weight_decay: bool = switch("Keras: θ ← θ − γλθ, past v and b")

    def _check(self) -> None:
        super()._check()
        require(self.alpha >= 0.0, f"Invalid alpha value: {self.alpha}")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        square, mean, velocity = buffers(
            state, weight, square_avg=self.initial_accumulator_value, grad_avg=0, momentum_buffer=0
        )
        grad = self.signed_and_decayed(weight, grad)

        square.mul_(self.alpha)
        square.addcmul_(grad, grad, value=1 - self.alpha)
        if self.centered:
            mean.lerp_(grad, 1 - self.alpha)
            square = square.addcmul(mean, mean, value=-1)
        root = self.root(square)

        if self.momentum > 0:
            velocity.mul_(self.momentum)
            velocity.addcdiv_(grad, root, value=self.lr if self.lr_in_velocity else 1)
            weight.add_(velocity, alpha=-1 if self.lr_in_velocity else -self.lr)
        else:
            weight.addcdiv_(grad, root, value=-self.lr)
