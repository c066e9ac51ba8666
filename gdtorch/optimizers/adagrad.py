r"""Adagrad: the gradient divided by the root of the sum of all its squares so far.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    g ← g + λθ
    γ̃ ← γ / (1 + (t − 1)η)
    s ← s + g²                     from s = initial_accumulator_value
    θ ← θ − γ̃g / (√s + ε)

Duchi et al., "Adaptive subgradient methods for online learning and stochastic optimization", 2011.
"""

from __future__ import annotations

__all__ = ["Adagrad"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, switch


@dataclass(frozen=True)
class Adagrad(Rule):
    """`torch.optim.Adagrad`, as its `_single_tensor_adagrad`.

    Args:
        lr: γ, the learning rate.
        lr_decay: η, how fast lr falls with the steps.
        weight_decay: λ of the penalty λ/2 · θ².
        initial_accumulator_value: where s begins.
        eps: ε, added to √s.
        maximize: ascend instead.
    """

    lr: float = 1e-2
    lr_decay: float = 0
    weight_decay: float = 0
    initial_accumulator_value: float = 0
    eps: float = 1e-10

    # Not PyTorch's: what others write.
    eps_in_root: bool = switch("Keras, optax: √(s + ε)")
    no_root: bool = switch("loops by hand: divided by s + ε, without the root")
    decoupled_weight_decay: bool = switch("Keras: θ ← θ − γλθ, past s")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        (squares,) = buffers(state, weight, sum=self.initial_accumulator_value)
        t = state["step"] = state.get("step", 0) + 1
        grad = self.signed_and_decayed(weight, grad)

        rate = self.lr / (1 + (t - 1) * self.lr_decay)
        squares.addcmul_(grad, grad)
        weight.addcdiv_(grad, self.root(squares), value=-rate)
