r"""Adam: steps scaled by the gradient's first two moments; AdamW, which keeps decay out of them.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    θ ← θ − γλθ                    if decoupled_weight_decay (AdamW), else
    g ← g + λθ
    m ← β₁m + (1 − β₁)g            from m = 0
    v ← β₂v + (1 − β₂)g²           from v = 0
    m̂ ← m / (1 − β₁ᵗ)
    v̂ ← v / (1 − β₂ᵗ)              if amsgrad, the largest v so far in its place
    θ ← θ − γm̂ / (√v̂ + ε)

Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1; amsgrad: Reddi et
al., "On the convergence of Adam and beyond", 2018; AdamW: Loshchilov and Hutter, "Decoupled weight
decay regularization", 2019.
"""

from __future__ import annotations

__all__ = ["Adam", "AdamW"]

from dataclasses import dataclass, field

from .rule import Rule, State, Tensor, buffers, require, switch


@dataclass(frozen=True)
class Adam(Rule):
    """`torch.optim.Adam`, as its `_single_tensor_adam`.

    Args:
        lr: γ, the learning rate.
        betas: β₁ and β₂, how much of m and of v each step keeps.
        eps: ε, added to √v̂.
        weight_decay: λ of the penalty λ/2 · θ², or of the decay by γλθ if that is decoupled.
        amsgrad: divide by the largest v so far, so that no step grows again.
        maximize: ascend instead.
        decoupled_weight_decay: decay the weight itself, past m and v.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0
    amsgrad: bool = False
    decoupled_weight_decay: bool = field(default=False, kw_only=True)

    # Not PyTorch's: what others write.
    eps_in_root: bool = switch("optax, with its eps_root: √(v̂ + ε)")
    eps_before_correction: bool = switch("Kingma and Ba's second form, Keras: ε added to √v")
    no_bias_correction: bool = switch("BERT's Adam: m and v as they are, for m̂ and v̂")
    decay_without_lr: bool = switch("Loshchilov and Hutter: θ ← θ − λθ, whatever the lr")
    max_of_corrected: bool = switch("optax's amsgrad: the largest v̂ so far, not the largest v")
    uncorrected_m: bool = switch("loops by hand: m as it is, and v̂")
    uncorrected_v: bool = switch("loops by hand: m̂, and v as it is")
    inverted_correction: bool = switch("ConvNetJS: m and v times 1 − βᵗ, for m̂ and v̂")
    keeps_corrected: bool = switch("loops by hand: m ← m̂ and v ← v̂, so that corrections add up")
    square_of_m: bool = switch("loops by hand: v averages m², not g²")
    no_root: bool = switch("loops by hand: divided by v̂ + ε, without the root")

    def _check(self) -> None:
        super()._check()
        floats = all(isinstance(beta, float) for beta in self.betas)
        require(floats, "betas must be either both floats or both Tensors")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        beta1, beta2 = self.betas
        first, second, largest = buffers(state, weight, exp_avg=0, exp_avg_sq=0, max_exp_avg_sq=0)
        t = state["step"] = state.get("step", 0) + 1
        grad = self.signed_and_decayed(weight, grad)

        first.lerp_(grad, 1 - beta1)
        squared = first if self.square_of_m else grad
        second.mul_(beta2)
        second.addcmul_(squared, squared, value=1 - beta2)

        correction1, correction2 = 1 - beta1**t, 1 - beta2**t
        if self.inverted_correction:
            correction1, correction2 = 1 / correction1, 1 / correction2
        if self.no_bias_correction or self.uncorrected_m:
            correction1 = 1.0
        if self.no_bias_correction or self.uncorrected_v:
            correction2 = 1.0
        if self.keeps_corrected:
            first.div_(correction1)
            second.div_(correction2)
            correction1 = correction2 = 1.0
        if self.max_of_corrected:
            second = second / correction2
            correction2 = 1.0
        if self.amsgrad:
            second = largest.copy_(second.maximum(largest))

        if self.eps_in_root or self.no_root:
            root = self.root(second / correction2)
        elif self.eps_before_correction:
            root = self.root(second)
            root.div_(correction2**0.5)
        else:
            root = second.sqrt()
            root.div_(correction2**0.5)
            root.add_(self.eps)
        weight.addcdiv_(first, root, value=-self.lr / correction1)


@dataclass(frozen=True)
class AdamW(Adam):
    """`torch.optim.AdamW`: `Adam` with decoupled decay, and some of it unless told otherwise."""

    weight_decay: float = 1e-2
    decoupled_weight_decay: bool = field(default=True, init=False)
