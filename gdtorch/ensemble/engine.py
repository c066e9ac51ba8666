"""The step over a block of starts: an eager stand-in."""

from __future__ import annotations

__all__ = ["BLOCK", "Engine", "State"]

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data import Rows

BLOCK = 1024


@dataclass
class State:
    """Weights of a block of networks, starts innermost."""

    syn0: Tensor  # (features, hidden, count)
    syn1: Tensor  # (hidden, count)
    velocity: list[Tensor] = field(default_factory=list)
    steps: int = 0


class Engine:
    """Advance a block of networks of equal shape, starts innermost."""

    def __init__(
        self,
        rows: Rows,
        hidden: int,
        options: Mapping[str, float],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        compiled: bool = True,
    ) -> None:
        self.rows = rows.to(dtype, device)
        self.hidden = hidden
        self.options = dict(options)
        self.dtype, self.device = dtype, device
        self.compiled = False
        self.reason = "this is the stand-in" if compiled else "asked not to"

    def begin(self, weights: Tensor) -> State:
        """Begin."""
        features = self.rows.inputs.shape[1]
        weights = weights.to(self.device, self.dtype).T.contiguous()
        syn0, syn1 = weights.split([features * self.hidden, self.hidden])
        return State(syn0.reshape(features, self.hidden, -1).clone(), syn1.clone())

    def _forward(self, state: State, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features, hidden, count = state.syn0.shape
        h = torch.sigmoid((inputs @ state.syn0.view(features, -1)).view(-1, hidden, count))
        return h, torch.sigmoid((h * state.syn1).sum(1))

    def _gradient(self, state: State) -> list[Tensor]:
        inputs, targets = self.rows
        h, o = self._forward(state, inputs)
        d = (o - targets) * (1 - o) * o
        hd = d[:, None] * state.syn1 * (1 - h) * h
        g0 = (inputs.T @ hd.view(len(inputs), -1)).view_as(state.syn0)
        return [g0, (d[:, None] * h).sum(0)]

    @torch.no_grad()
    def advance(self, state: State, steps: int) -> None:
        """Advance."""
        o = self.options
        for _ in range(steps):
            gradients = self._gradient(state)
            for i, (weight, g) in enumerate(zip((state.syn0, state.syn1), gradients, strict=True)):
                if o["maximize"]:
                    g = -g
                if o["weight_decay"]:
                    g = g + o["weight_decay"] * weight
                if o["momentum"]:
                    if len(state.velocity) <= i:
                        state.velocity.append(g.clone())
                    else:
                        state.velocity[i].mul_(o["momentum"]).add_(g, alpha=1 - o["dampening"])
                    v = state.velocity[i]
                    g = g + o["momentum"] * v if o["nesterov"] else v
                weight.add_(g, alpha=-o["lr"])
            state.steps += 1

    @torch.no_grad()
    def outputs(self, state: State, inputs: Tensor) -> Tensor:
        """Outputs."""
        return self._forward(state, inputs)[1]

    @torch.no_grad()
    def losses(self, state: State) -> Tensor:
        """Losses."""
        inputs, targets = self.rows
        return (self.outputs(state, inputs) - targets).square().sum(0) / 2

    @torch.no_grad()
    def gradient_norms(self, state: State) -> Tensor:
        """Norms."""
        g0, g1 = self._gradient(state)
        return (g0.square().sum((0, 1)) + g1.square().sum(0)).sqrt()

    def weights(self, state: State) -> Tensor:
        """Weights."""
        return torch.cat([state.syn0.flatten(0, 1), state.syn1]).T.contiguous()
