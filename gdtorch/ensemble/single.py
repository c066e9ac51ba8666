"""One network for millions of steps: the ensemble's step, compiled for one start, ten a call."""

from __future__ import annotations

__all__ = ["LongRun"]

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..data import Rows
from ..net import SigmoidNet
from ..optimizers import SGD
from ..trainers import Manual
from . import CALL
from .compiler import compiled, try_out
from .step import Weights, sgd_step

SMALL = 65_536  # products; with more, a library's matrix product is faster than fused loops


class LongRun(Manual):
    """`Manual` for one long run: a step of it is `stride` steps, compiled, `CALL` of them a call.

    The arithmetic is in another order, so that the bits may differ from those of `Manual`. `stride`
    changes no bit.

    Args:
        net: what to descend.
        rows: the rows that the loss is over.
        lr: learning rate.
        stride: how many steps at a time, a multiple of `CALL`.
        options: the other options of `torch.optim.SGD`.

    Attributes:
        reason: why the steps could not be compiled, and are taken one by one; empty where they are.

    Raises:
        ValueError: as `Manual`; or `stride` is no multiple of `CALL`.
    """

    def __init__(
        self,
        net: SigmoidNet,
        rows: Rows,
        lr: float,
        *,
        stride: int,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(net, rows, lr, **options)
        if stride < CALL or stride % CALL:
            raise ValueError(f"stride {stride} is no multiple of {CALL}")
        self.stride = stride
        sgd = SGD(lr, **options)
        like = self.weights["syn1"]
        self.rate, self.share = like.new_tensor(lr), like.new_tensor(1 - sgd.dampening)
        self.ten_steps = compiled(partial(_ten_steps, sgd))
        self.reason = ""
        trial = copy.deepcopy(self)
        trial.stride = 2 * CALL
        self.reason = try_out(trial.step)

    def step(self) -> None:
        """Take `stride` steps."""
        for _ in range(self.stride // CALL):
            if self.reason or self.steps == 0:  # the first ones by hand: they begin the velocities
                for _ in range(CALL):
                    super().step()
            else:
                self._call()

    @torch.no_grad()
    def _call(self) -> None:
        velocities = [state["momentum_buffer"] for state in self.state.values() if state]
        self.ten_steps(self.rows, [*self.weights.values()], velocities, self.rate, self.share)
        self.steps += CALL


def _ten_steps(
    rule: SGD, rows: Rows, weights: Weights, velocities: Weights, lr: Tensor, share: Tensor
) -> None:
    step = sgd_step(rule, partial(gradient, rows))
    for _ in range(CALL):
        step(weights, velocities, lr, share)


def gradient(rows: Rows, weights: Weights) -> Weights:
    """∂L/∂syn0 and ∂L/∂syn1 of one network, as `SigmoidNet.gradient`."""
    (x, y), (syn0, syn1) = rows, weights
    hidden = torch.sigmoid(_product(x, syn0))  # (rows, hidden)
    output = torch.sigmoid(_product(hidden, syn1))  # (rows, 1)
    output_delta = (output - y) * (1 - output) * output
    hidden_delta = _product(output_delta, syn1.T) * ((1 - hidden) * hidden)
    return [_product(x.T, hidden_delta), _product(hidden.T, output_delta)]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product a @ b; a small one as a sum of products, which compiles into the loops around."""
    if a.numel() * b.shape[1] > SMALL:
        return a @ b
    return (a.unsqueeze(2) * b).sum(1)
