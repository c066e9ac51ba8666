"""Three ways to take the same step: the post's loop, gradient descent by hand, torch.optim.SGD."""

from __future__ import annotations

__all__ = ["SGD", "Manual", "Options", "Post", "Trainer"]

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, TypedDict, Unpack

import torch
from torch import Tensor

from .data import Rows
from .net import SigmoidNet
from .objective import Objective


class Options(TypedDict, total=False):
    """The options of `torch.optim.SGD` beside `lr` (see `Manual`)."""

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool


class Trainer(ABC):
    """A way of following an objective, and a trajectory: iterate it for weights, step by step.

    Iterating yields `weights` as they stand, then again after each step, without end. They are
    live: the next step changes them in place.

    Args:
        objective: what to descend. The trainer works on a copy of its own, whose weights begin
            where the objective's stand: row-major, in their own storage, for a view into a larger
            block takes another path through the matrix product and rounds differently.
        rows: the rows that the loss is over.
    """

    name: ClassVar[str]

    def __init__(self, objective: Objective, rows: Rows) -> None:
        self.objective = copy.deepcopy(objective)
        for _, weight in self.objective.named_parameters():
            weight.data = _row_major(weight.data)
        self.weights = {n: w.detach() for n, w in self.objective.named_parameters()}
        self.rows = Rows(*map(_row_major, rows))

    @abstractmethod
    def step(self) -> None:
        """Take one step: change the weights in place."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield self.weights
        while True:
            self.step()
            yield self.weights


class Post(Trainer):
    """The post's loop as printed: syn1 first, then syn0 with the syn1 just changed.

    That order makes it no gradient descent on the loss; `Manual` moves both from one point.

    Args:
        objective: the post's network, a `SigmoidNet`.
        rows: the post's `Samples` and `Y`.
        lr: the post's `alpha`.

    Raises:
        TypeError: the objective is not a `SigmoidNet`; the post's loop knows no other.
        ValueError: as `torch.optim.SGD` for `lr`.
    """

    name = "post"

    def __init__(self, objective: Objective, rows: Rows, lr: float | Tensor = 1.0) -> None:
        if not isinstance(objective, SigmoidNet):
            raise TypeError(f"Post trains a SigmoidNet alone, not a {type(objective).__name__}")
        _check_options(lr)
        super().__init__(objective, rows)
        self.lr = float(lr)

    def step(self) -> None:
        """One pass of the post's loop, statement for statement."""
        samples, y = self.rows
        syn0, syn1 = self.weights["syn0"], self.weights["syn1"]
        alpha = self.lr

        hidden = torch.sigmoid(samples @ syn0)
        output = torch.sigmoid(hidden @ syn1)

        syn1 += -1 * alpha * (hidden.T @ ((output - y) * output * (1 - output)))
        syn0 += (
            -1
            * alpha
            * (
                samples.T
                @ (((output - y) * output * (1 - output)) @ syn1.T * hidden * (1 - hidden))
            )
        )


class Manual(Trainer):
    r"""Gradient descent by hand, with every option of `torch.optim.SGD` written out.

    With the gradient g of the loss at the weights θ, and v the velocity of each weight:

        g ← −g                          if maximize
        g ← g + weight_decay · θ
        v ← g                           at the first step, if momentum
        v ← momentum · v + (1 − dampening) · g     after it
        g ← g + momentum · v            if nesterov, else g ← v
        θ ← θ − lr · g

    The weights hold the same bits as those of `SGD` after every step.

    Args:
        objective: what to descend, by `objective.gradient(rows)`.
        rows: the rows that the loss is over.
        lr: learning rate, a tensor of one element or a number; named, like all others, and
            meant as in `torch.optim.SGD`.
        momentum: μ, 0 for none.
        dampening: how much of a fresh gradient to leave out of the velocity.
        weight_decay: λ of the penalty λ/2 · θ².
        nesterov: look ahead along the velocity; needs a momentum and no dampening.
        maximize: ascend instead.

    Raises:
        ValueError: the options are such as `torch.optim.SGD` refuses, in its words.
    """

    name = "manual"

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        _check_options(lr, momentum, dampening, weight_decay, nesterov)
        super().__init__(objective, rows)
        self.lr = float(lr)
        self.momentum = momentum
        self.dampening = dampening
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.maximize = maximize
        self.velocity: dict[str, Tensor] = {}

    def step(self) -> None:
        """One step, mirroring `torch.optim.sgd._single_tensor_sgd` line by line.

        Each `add` with `alpha` is one fused operation that rounds once; written `a + alpha * b`
        it would round twice, and differ from SGD in the last bits.
        """
        gradient = self.objective.gradient(self.rows)
        for name, weight in self.weights.items():
            grad = gradient[name]
            if self.maximize:
                grad = -grad
            if self.weight_decay != 0:
                grad = grad.add(weight, alpha=self.weight_decay)
            if self.momentum != 0:
                if name in self.velocity:
                    velocity = self.velocity[name]
                    velocity.mul_(self.momentum).add_(grad, alpha=1 - self.dampening)
                else:
                    velocity = self.velocity[name] = grad.clone()
                grad = grad.add(velocity, alpha=self.momentum) if self.nesterov else velocity
            weight.add_(grad, alpha=-self.lr)


class SGD(Trainer):
    """`torch.optim.SGD` itself, on the gradient of `objective.loss(rows)` by autograd.

    Args:
        objective: what to descend, by `objective.loss(rows).backward()`.
        rows: the rows that the loss is over.
        lr: learning rate.
        options: the other options of `torch.optim.SGD`, by name; it raises what it refuses.
    """

    name = "sgd"

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        lr: float | Tensor = 1e-3,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(objective, rows)
        weights = (weight for _, weight in self.objective.named_parameters())
        # foreach=False: weight by weight on every device, as `Manual` does it.
        self.optimizer = torch.optim.SGD(weights, lr, foreach=False, **options)

    def step(self) -> None:
        """One step of `torch.optim.SGD`."""
        self.optimizer.zero_grad()
        self.objective.loss(self.rows).backward()
        self.optimizer.step()


def _row_major(tensor: Tensor) -> Tensor:
    # .contiguous() would keep odd strides of dimensions of size 1, and with them another product.
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _check_options(
    lr: float | Tensor,
    momentum: float = 0,
    dampening: float = 0,
    weight_decay: float = 0,
    nesterov: bool = False,
) -> None:
    """Refuse what `torch.optim.SGD` refuses, in the same words."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if lr < 0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if momentum < 0:
        raise ValueError(f"Invalid momentum value: {momentum}")
    if weight_decay < 0:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}")
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
