"""The engine: gradient descent for a block of networks at once, starts innermost, compiled."""

from __future__ import annotations

__all__ = ["BLOCK", "Engine", "State"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ..data import Rows
from ..optimizers import SGD
from .compiler import compiled, try_out
from .step import Examples, Step, Weights, add_up, gradient, outputs, sgd_step

BLOCK = 8192  # starts; so many that the cost of a call does not matter
UNITS_ON_GPU = 1 << 24  # hidden units of a block there; with fewer a GPU waits for Python
MOST_NUMBERS = 128  # of a table: all are written out in the step; half a minute to compile


@dataclass
class State:
    """A block of networks, to save and to restore bit for bit.

    Args:
        weights: of shape (features + 1, hidden, block): syn0 feature by feature, then syn1. Starts
            are innermost, so that one vector instruction works on neighbouring starts.
        velocities: of the weights, in their shape; without momentum, of shape (0, hidden, block).
        count: how many of the block's networks count; the others are padding.
        steps: how many steps have been taken.
    """

    weights: Tensor
    velocities: Tensor
    count: int
    steps: int = 0


class Engine:
    """Advance a block of networks of equal shape, starts innermost.

    Each takes the steps that `Manual` takes, to rounding. A start's bits depend neither on its
    neighbours in the block nor on how many threads there are.

    Args:
        rows: the rows that the loss is over, with one output.
        hidden: hidden units.
        options: `lr`, `momentum`, `dampening`, `weight_decay`, `nesterov` and `maximize` of
            `torch.optim.SGD`, with its defaults.
        dtype: float32 or float64.
        device: where the networks live.
        compiled: whether to compile the step; uncompiled, it is several times slower.

    Attributes:
        block: how many networks it advances, on which a start's bits may depend on a GPU.
        compiled: whether the step is compiled.
        reason: why it could not be compiled; empty if it is, or if nobody asked for it.

    Raises:
        ValueError: `torch.optim.SGD` refuses these options; the message is its own.
    """

    def __init__(
        self,
        rows: Rows,
        hidden: int,
        options: Mapping[str, Any],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        compiled: bool = True,
    ) -> None:
        self.rule = SGD(**options)  # it refuses what torch.optim.SGD refuses
        self.hidden, self.dtype, self.device = hidden, dtype, torch.device(device)
        self.inputs, self.targets = inputs, targets = rows.to(dtype, device)
        numbers = zip(map(tuple, inputs.tolist()), targets.flatten().tolist(), strict=True)
        self.examples: Examples = tuple(numbers)
        self.lr = self._number(self.rule.lr)
        # The first gradient enters the velocity whole; the later ones times 1 − dampening.
        self.shares = self._number(1), self._number(1 - self.rule.dampening)
        if self.device.type == "cpu":
            # Of wide networks fewer are advanced at a time, so that they stay in the cache.
            self.block, self.width = BLOCK, max(64, BLOCK >> ((hidden - 1) // 16).bit_length())
        else:
            self.block = self.width = max(BLOCK, UNITS_ON_GPU >> (hidden - 1).bit_length())
        self.step, self.reason = self._step(compiled=compiled)
        self.compiled = compiled and not self.reason

    @property
    def arithmetic(self) -> str:
        """What else the bits depend on: whether the step is compiled, which torch, which chip."""
        how = "compiled" if self.compiled else "not compiled"
        if self.device.type == "cuda":
            chip = torch.cuda.get_device_name(self.device)
        else:
            chip = torch.backends.cpu.get_cpu_capability()
        return f"{how}, torch {torch.__version__}, {chip}"

    def begin(self, weights: Tensor) -> State:
        """Make a block of networks.

        Args:
            weights: up to `block` starts, of shape (count, size), as `initial_weights` gives them.
        """
        count, size = weights.shape
        block = torch.zeros(size, self.block, dtype=self.dtype, device=self.device)
        block[:, :count] = weights.T
        block = block.view(-1, self.hidden, self.block)
        velocities = torch.zeros_like(block if self.rule.momentum else block[:0])
        return State(block, velocities, count)

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> None:
        """Take this many steps, in place."""
        for weights, velocities in self._parts(state):
            for step in range(state.steps, state.steps + steps):
                self.step(weights, velocities, self.lr, self.shares[step > 0])
        state.steps += steps

    def losses(self, state: State) -> Tensor:
        """L = ½ Σ (y − δ)² of each network, of shape (count,)."""
        error = self.outputs(state, self.inputs) - self.targets
        return add_up(error.square()) / 2

    def outputs(self, state: State, inputs: Tensor) -> Tensor:
        """The output δ, of shape (rows, count), for inputs of shape (rows, features)."""
        numbers = inputs.to(self.dtype).tolist()
        return torch.stack(outputs(numbers, [*state.weights]))[:, : state.count]

    def weights(self, state: State) -> Tensor:
        """The weights, of shape (count, size), as `initial_weights` has them."""
        return state.weights.flatten(0, 1)[:, : state.count].T.contiguous()

    def _step(self, *, compiled: bool) -> tuple[Step, str]:
        """The step, and why it could not be compiled; "" if it is, or was not meant to be."""
        written_out = sgd_step(self.rule, partial(gradient, self.examples))
        if not compiled:
            return written_out, ""
        if self.inputs.numel() + self.targets.numel() > MOST_NUMBERS:
            return written_out, f"a table of more than {MOST_NUMBERS} numbers"
        # One step serves all learning rates and dampenings.
        step = _compiled(replace(self.rule, lr=1.0, dampening=0.0), self.examples)
        size = (self.inputs.shape[1] + 1) * self.hidden
        part = next(self._parts(self.begin(torch.zeros(1, size))))
        reason = try_out(partial(step, *part, self.lr, self.shares[0]))
        return (written_out if reason else step), reason

    def _number(self, number: float) -> Tensor:
        return torch.tensor(float(number), dtype=self.dtype, device=self.device)

    def _parts(self, state: State) -> Iterator[tuple[Weights, Weights]]:
        for begin in range(0, self.block, self.width):
            part = slice(begin, begin + self.width)
            yield [*state.weights[..., part]], [*state.velocities[..., part]]


@cache
def _compiled(rule: SGD, examples: Examples) -> Step:
    """The step compiled, once for every shape and dtype that it meets."""
    return compiled(sgd_step(rule, partial(gradient, examples)))
