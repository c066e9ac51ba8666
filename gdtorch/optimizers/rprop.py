r"""Rprop: each weight has a step size of its own; only the sign of the gradient counts.

    g ← ∇f(θ)                      −∇f(θ) if maximize
    η ← η₊η                        where g · g′ > 0, with g′ the gradient before, from g′ = 0
    η ← η₋η, g ← 0                 where g · g′ < 0
    η ← min(max(η, Γ_min), Γ_max)  from η = γ
    θ ← θ − η sign(g)
    g′ ← g

Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
algorithm", 1993; as it stands here, iRprop− of Igel and Hüsken, "Improving the Rprop learning
algorithm", 2000.
"""

from __future__ import annotations

__all__ = ["Rprop"]

from dataclasses import dataclass

from .rule import Rule, State, Tensor, buffers, require, switch


@dataclass(frozen=True)
class Rprop(Rule):
    """`torch.optim.Rprop`, as its `_single_tensor_rprop`.

    Args:
        lr: γ, the step size to begin with.
        etas: η₋ and η₊, by which a step size shrinks and grows.
        step_sizes: Γ_min and Γ_max, between which it stays.
        maximize: ascend instead.
    """

    lr: float = 1e-2
    etas: tuple[float, float] = (0.5, 1.2)
    step_sizes: tuple[float, float] = (1e-6, 50)

    # Not PyTorch's: what others write.
    keep_gradient: bool = switch("Rprop− in Igel and Hüsken: where the sign turns, g is not 0")
    backtrack: bool = switch("Riedmiller and Braun: where it turns, the step before is undone")

    def _check(self) -> None:
        super()._check()
        shrink, grow = self.etas
        require(0.0 < shrink < 1.0 < grow, f"Invalid eta values: {shrink}, {grow}")

    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """One step, in the order in which it happens."""
        shrink, grow = self.etas
        before, size, last = buffers(state, weight, prev=0, step_size=float(self.lr), last=0)
        grad = self.signed_and_decayed(weight, grad)

        factor = grad * before
        factor.sign_()
        factor.masked_fill_(factor > 0, grow)
        factor.masked_fill_(factor < 0, shrink)
        factor.masked_fill_(factor == 0, 1)
        turned = factor == shrink
        size.mul_(factor)
        size.clamp_(*self.step_sizes)

        if self.backtrack:
            weight.add_(last.masked_fill(~turned, 0))
        if self.backtrack or not self.keep_gradient:
            grad = grad.masked_fill(turned, 0)
        last.copy_(grad)
        last.sign_()
        last.mul_(size)
        weight.sub_(last)
        before.copy_(grad)
