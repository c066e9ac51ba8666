"""Three ways to take the same step: the post's loop, gradient descent by hand, torch.optim.SGD."""

from __future__ import annotations

__all__ = ["SGD", "Manual", "Post", "Trainer"]

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from .data import Rows
from .descent import BATCH, Descent
from .net import SigmoidNet
from .objective import Objective
from .optimizers import Options, check_descent, check_options


class Trainer(ABC):
    """A way of following an objective, and a trajectory: iterate it for weights, step by step.

    Iterating yields `weights` as they stand, then again after each step, without end. They are
    live: the next step changes them in place.

    Args:
        objective: what to descend. The trainer works on a copy of its own, whose weights begin
            where the objective's stand: row-major, in their own storage, for a view into a larger
            block takes another path through the matrix product and rounds differently.
        rows: the rows that the loss is over.
        descent: which of the rows a step sees, and how far it goes.

    Example:
        >>> trainer = Manual(Quartic(3.0), load_table("xor").learned, lr=0.1)
        >>> [round(weights["x"].item(), 2) for _, weights in zip(range(4), trainer)]
        [3.0, 2.4, 2.27, 2.19]
    """

    name: ClassVar[str]
    stride = 1  # how many steps it takes at a time
    lr: float  # how far the last step went; before the first, the learning rate

    def __init__(self, objective: Objective, rows: Rows, descent: Descent = BATCH) -> None:
        self.objective = copy.deepcopy(objective)
        for _, weight in self.objective.named_parameters():
            weight.data = _row_major(weight.data)
        self.weights = {n: w.detach() for n, w in self.objective.named_parameters()}
        self.rows = Rows(*map(_row_major, rows))
        self.descent = descent
        self.steps = 0

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

    Example:
        >>> rows, net = load_table("post").learned, SigmoidNet().double()
        >>> lockstep(Post(net, rows), SGD(net, rows, lr=1.0)).first_difference.weight
        'syn0'
    """

    name = "post"

    def __init__(self, objective: Objective, rows: Rows, lr: float | Tensor = 1.0) -> None:
        if not isinstance(objective, SigmoidNet):
            raise TypeError(f"Post trains a SigmoidNet alone, not a {type(objective).__name__}")
        check_options(lr)
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
        objective: what to descend, by its `gradient(rows)`; rows, descent: see `Trainer`.
        lr: learning rate, a tensor of one element or a number; named, like all others, and
            meant as in `torch.optim.SGD`. With `Steepest`, where its first search begins.
        momentum: μ, 0 for none.
        dampening: how much of a fresh gradient to leave out of the velocity.
        weight_decay: λ of the penalty λ/2 · θ².
        nesterov: look ahead along the velocity; needs a momentum and no dampening.
        maximize: ascend instead.

    Raises:
        ValueError: the options are such as `torch.optim.SGD` refuses, in its words; or there is
            momentum or weight decay with `Steepest`.

    Example:
        >>> net, rows = SigmoidNet().double(), load_table("post").learned
        >>> both = (way(net, rows, lr=0.1, momentum=0.9, nesterov=True) for way in (Manual, SGD))
        >>> lockstep(*both).identical
        True
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
        descent: Descent = BATCH,
    ) -> None:
        check_options(lr, momentum, dampening, weight_decay, nesterov)
        check_descent(descent, momentum, weight_decay)
        super().__init__(objective, rows, descent)
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
        rows = self.descent.rows(self.rows, self.steps)
        gradient = self.objective.gradient(rows)
        self.lr = self.descent.step_size(
            self.objective, rows, gradient, self.lr, maximize=self.maximize
        )
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
        self.steps += 1


class SGD(Trainer):
    """`torch.optim.SGD` itself, on the gradient of `objective.loss(rows)` by autograd.

    Args:
        objective: what to descend, by its `loss(rows).backward()`; rows, descent: see `Trainer`.
        lr: learning rate.
        options: the other options of `torch.optim.SGD`, by name; it raises what it refuses.

    Example:
        >>> type(SGD(SigmoidNet(), load_table("post").learned, lr=1.0).optimizer)
        <class 'torch.optim.sgd.SGD'>
    """

    name = "sgd"

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        lr: float | Tensor = 1e-3,
        *,
        descent: Descent = BATCH,
        **options: Unpack[Options],
    ) -> None:
        check_descent(descent, options.get("momentum", 0), options.get("weight_decay", 0))
        super().__init__(objective, rows, descent)
        self.parameters = dict(self.objective.named_parameters())
        # foreach=False: weight by weight on every device, as `Manual` does it.
        self.optimizer = torch.optim.SGD(self.parameters.values(), lr, foreach=False, **options)
        self.lr = float(lr)

    def step(self) -> None:
        """One step of `torch.optim.SGD`."""
        rows = self.descent.rows(self.rows, self.steps)
        self.optimizer.zero_grad()
        self.objective.loss(rows).backward()
        gradient = {n: w.grad for n, w in self.parameters.items() if w.grad is not None}
        (group,) = self.optimizer.param_groups
        group["lr"] = self.descent.step_size(
            self.objective, rows, gradient, group["lr"], maximize=group["maximize"]
        )
        self.lr = float(group["lr"])
        self.optimizer.step()
        self.steps += 1


def _row_major(tensor: Tensor) -> Tensor:
    # .contiguous() would keep odd strides of dimensions of size 1, and with them another product.
    return tensor.detach().clone(memory_format=torch.contiguous_format)
