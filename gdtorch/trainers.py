"""Three ways to take the same step: the post's loop, gradient descent by hand, torch.optim."""

from __future__ import annotations

__all__ = ["SGD", "Manual", "Post", "Torch", "Trainer", "named"]

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import optimizers
from .data import Rows
from .descent import BATCH, Descent, Steepest
from .net import SigmoidNet
from .objective import Objective
from .optimizers import Rule


class Trainer(ABC):
    """A way of following an objective. It is a trajectory: iterate it for weights, step by step.

    Iterating yields `weights` as they are, then again after each step, without end. They are
    live: the next step changes them in place.

    Args:
        objective: what to descend. The trainer works on a copy, whose weights begin as the
            objective's. They are row-major, in their own storage: a view into a larger block takes
            another path through the matrix product and rounds differently.
        rows: the rows that the loss is over.
        descent: which of the rows a step sees, and how far it goes.

    Example:
        >>> trainer = Manual(Quartic(3.0), load_table("xor").learned, lr=0.1)
        >>> [round(weights["x"].item(), 2) for _, weights in zip(range(4), trainer)]
        [3.0, 2.4, 2.27, 2.19]
    """

    name: str
    stride = 1  # how many steps it takes at a time
    lr: float  # the step size of the last step; before the first, the learning rate

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

    Because of that order it is not gradient descent on the loss. `Manual` computes both gradients
    at one point, before it changes any weight.

    Args:
        objective: the post's network, a `SigmoidNet`.
        rows: the post's `Samples` and `Y`.
        lr: the post's `alpha`.

    Raises:
        TypeError: the objective is not a `SigmoidNet`; the post's loop knows no other.
        ValueError: `torch.optim.SGD` refuses this `lr`; the message is its own.

    Example:
        >>> rows, net = load_table("post").learned, SigmoidNet().double()
        >>> lockstep(Post(net, rows), SGD(net, rows, lr=1.0)).first_difference.weight
        'syn0'
    """

    name = "post"

    def __init__(self, objective: Objective, rows: Rows, lr: float | Tensor = 1.0) -> None:
        if not isinstance(objective, SigmoidNet):
            raise TypeError(f"Post trains a SigmoidNet alone, not a {type(objective).__name__}")
        optimizers.SGD(lr)  # type: ignore[arg-type]  # it refuses what torch.optim.SGD does
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
    r"""Gradient descent by hand: the objective's own gradient, and a rule of `gdtorch.optimizers`.

    After every step the weights hold the same bits as those of `Torch` with the same optimizer
    and the same options.

    Args:
        objective: what to descend, by its `gradient(rows)`; rows, descent: see `Trainer`.
        lr: learning rate, a tensor of one element or a number. With `Steepest` the first search
            begins there. It and the options after it are those of `torch.optim.SGD`.
        optimizer: another rule in place of SGD, with its own options.

    Raises:
        TypeError: the objective has no `gradient`; or options are given beside an optimizer.
        ValueError: `torch.optim` refuses these options; the message is its own. Or the descent is
            `Steepest`, and the optimizer is not SGD without momentum and weight decay.

    Example:
        >>> from gdtorch.optimizers import Adam
        >>> net, rows = SigmoidNet().double(), load_table("post").learned
        >>> both = (way(net, rows, lr=0.1, momentum=0.9, nesterov=True) for way in (Manual, SGD))
        >>> lockstep(*both).identical
        True
        >>> adam = Manual(net, rows, optimizer=Adam(lr=0.01, amsgrad=True))
        >>> lockstep(adam, Torch(net, rows, "Adam", lr=0.01, amsgrad=True)).identical
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
        optimizer: Rule | None = None,
        descent: Descent = BATCH,
    ) -> None:
        options: Any = lr, momentum, dampening, weight_decay, nesterov
        sgd = optimizers.SGD(*options, maximize=maximize)
        if optimizer is not None and sgd != optimizers.SGD():
            name = type(optimizer).__name__
            raise TypeError(f"the options go into the optimizer: optimizer={name}(lr=…)")
        self.optimizer: Rule = optimizer or sgd
        _check_objective(type(self).__name__, objective, "gradient")
        if isinstance(descent, Steepest):
            _check_objective("Steepest", objective, "loss")
            _check_steepest(type(self.optimizer).__name__, vars(self.optimizer))
        super().__init__(objective, rows, descent)
        self.lr = float(self.optimizer.lr)
        self.state: dict[str, dict[str, Any]] = {name: {} for name in self.weights}

    def step(self) -> None:
        """One step: the gradient of every weight at one point, then each weight by the rule."""
        rows = self.descent.rows(self.rows, self.steps)
        gradient = self.objective.gradient(rows)
        lr = self.descent.step_size(
            self.objective, rows, gradient, self.lr, maximize=self.optimizer.maximize
        )
        if lr != self.lr:
            self.optimizer = replace(self.optimizer, lr=lr)
            self.lr = lr
        for name, weight in self.weights.items():
            self.optimizer.step(weight, gradient[name], self.state[name])
        self.steps += 1


class Torch(Trainer):
    """An optimizer of `torch.optim` itself, on the gradient of `objective.loss(rows)` by autograd.

    Args:
        objective: what to descend, by its `loss(rows).backward()`; rows, descent: see `Trainer`.
        optimizer: the name of one that `gdtorch.optimizers` has, or any class of that kind.
        options: its options, by name; it refuses wrong ones itself.

    Attributes:
        optimizer: the optimizer itself.
        name: that of its class, in lower case.

    Raises:
        TypeError: the objective has no `loss`.
        ValueError: there is no such optimizer; or it is not plain SGD, with `Steepest`.

    Example:
        >>> adam = Torch(SigmoidNet(), load_table("post").learned, "Adam", lr=0.01)
        >>> adam.name, type(adam.optimizer)
        ('adam', <class 'torch.optim.adam.Adam'>)
    """

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        optimizer: str | type[torch.optim.Optimizer],
        *,
        descent: Descent = BATCH,
        **options: Any,  # noqa: ANN401 (torch.optim's own)
    ) -> None:
        kind: Any = optimizer
        if isinstance(optimizer, str):
            kind = getattr(torch.optim, optimizers.find(optimizer).__name__)
        self.name = kind.__name__.lower()
        _check_objective(type(self).__name__, objective, "loss")
        if isinstance(descent, Steepest):
            _check_steepest(kind.__name__, options)
        super().__init__(objective, rows, descent)
        self.parameters = dict(self.objective.named_parameters())
        # Weight by weight on every device, as `Manual` does it.
        self.optimizer: torch.optim.Optimizer = kind(
            self.parameters.values(), foreach=False, **options
        )
        self.lr = float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """One step of the optimizer."""
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


class SGD(Torch):
    """`Torch` with `torch.optim.SGD`.

    Args:
        objective: what to descend, by its `loss(rows).backward()`; rows: see `Trainer`.
        lr: learning rate.
        options: `descent`, see `Trainer`, and the other options of `torch.optim.SGD`, by name; it
            refuses wrong ones itself.

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
        **options: Any,  # noqa: ANN401 (as of `Torch`)
    ) -> None:
        super().__init__(objective, rows, torch.optim.SGD, lr=lr, **options)


def named(
    name: str, objective: Objective, rows: Rows, rule: Rule, descent: Descent = BATCH
) -> Trainer:
    """The trainer of that name: `post`, `manual`, or else the rule's namesake in `torch.optim`.

    Args:
        name: the trainer's.
        objective: what to descend.
        rows: the rows that the loss is over.
        rule: the optimizer with its options; of these `post` takes lr alone.
        descent: which of the rows a step sees, and how far it goes; `post` sees all, and goes lr.
    """
    if name == "post":
        return Post(objective, rows, rule.lr)
    if name == "manual":
        return Manual(objective, rows, optimizer=rule, descent=descent)
    kind = getattr(torch.optim, type(rule).__name__)
    return Torch(objective, rows, kind, descent=descent, **rule.options())


WANTED = {
    "gradient": "gradient(rows): each parameter's name → ∂loss/∂parameter, derived by hand",
    "loss": "loss(rows): a scalar that autograd can differentiate",
}


def _check_objective(who: str, objective: object, method: str) -> None:
    if not callable(getattr(objective, method, None)):
        what = type(objective).__name__
        raise TypeError(f"{who} needs {what}.{WANTED[method]} (see gdtorch.Objective)")


def _check_steepest(optimizer: str, options: Mapping[str, Any]) -> None:
    """Refuse options that would take a step off the line that was searched."""
    if optimizer != "SGD":
        raise ValueError(f"Steepest searches along the gradient: it takes SGD, not {optimizer}")
    if options.get("momentum", 0) or options.get("weight_decay", 0):
        raise ValueError(
            "Steepest searches along the gradient of the loss alone: no momentum, no weight_decay"
        )


def _row_major(tensor: Tensor) -> Tensor:
    # .contiguous() would keep odd strides of dimensions of size 1, and with them another product.
    return tensor.detach().clone(memory_format=torch.contiguous_format)
