"""lockstep in tests of your own: assertions whose message is the report."""

from __future__ import annotations

__all__ = ["assert_gradient", "assert_lockstep"]

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from .lockstep import Trajectory, lockstep

LR = 2.0**-7  # of the steps of descent; a power of two, which rounds no gradient


def assert_lockstep(
    mine: Trajectory,
    theirs: Trajectory,
    steps: int = 50,
    *,
    rows: int | None = None,
    rename: Mapping[str, str] | None = None,
    lr: float | None = None,
) -> None:
    """Assert that two programs take the same steps, but for rounding.

    The arguments are those of `gdtorch.lockstep`. docs/testing.md has examples.

    Raises:
        AssertionError: they do not; the message is the report, with the line to change.
        ValueError: the two cannot be compared at all.

    Example:
        >>> from gdtorch.testing import assert_lockstep
        >>> assert_lockstep([{"w": 2.0}, {"w": 1.2}], [{"w": 2.0}, {"w": 1.2}])
        >>> assert_lockstep([{"w": 2.0}, {"w": 2.8}], [{"w": 2.0}, {"w": 1.2}])
        Traceback (most recent call last):
            ...
        AssertionError: cause: sign
        ...
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the report alone
    report = lockstep(mine, theirs, steps, rows=rows, rename=rename, lr=lr)
    if not report:
        raise AssertionError(str(report))


def assert_gradient(
    gradient: Callable[[dict[str, Any]], Mapping[str, Any]],
    loss: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    weights: Mapping[str, Any],
    *,
    rows: int | None = None,
) -> None:
    """Assert that a gradient derived by hand is autograd's, here and after some steps of descent.

    Args:
        gradient: it takes the weights, name → NumPy array, and returns name → gradient.
        loss: it takes the same weights, name → tensor, and returns the loss.
        weights: where to begin, name → array.
        rows: how many rows the loss is over, so that a factor of N or 1/N can be named.

    Raises:
        AssertionError: it is not; the message names the derivative that is wrong.
        TypeError: the weights or the gradient are no arrays by name, or the loss is no tensor.
        ValueError: a gradient is missing, or has another shape than its weight.

    Example:
        >>> from gdtorch.testing import assert_gradient
        >>> assert_gradient(lambda w: {"w": w["w"] ** 3}, lambda w: (w["w"] ** 4).sum() / 4,
        ...                 {"w": [1.0, 2.0]})
    """
    __tracebackhide__ = True
    if not isinstance(weights, Mapping):
        raise TypeError("weights: give a mapping, name → array")
    start = {name: np.array(weight) for name, weight in weights.items()}
    start = {n: w if w.dtype.kind == "f" else w.astype(float) for n, w in start.items()}

    def by_hand() -> Iterator[dict[str, Any]]:
        now = start
        while True:
            yield now
            slope = _checked(gradient(now), start)
            now = {name: weight - LR * slope[name] for name, weight in now.items()}

    def by_autograd() -> Iterator[dict[str, torch.Tensor]]:
        now = {name: torch.tensor(array, requires_grad=True) for name, array in start.items()}
        optimizer = torch.optim.SGD(now.values(), lr=LR)
        while True:
            yield now
            optimizer.zero_grad()
            value = loss(now)
            if not isinstance(value, torch.Tensor):
                kind = type(value).__name__
                raise TypeError(f"loss returns an object of type {kind}; it must return a tensor")
            value.backward()
            optimizer.step()

    assert_lockstep(by_hand(), by_autograd(), 20, rows=rows)


def _checked(gradient: object, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A gradient as arrays by name, each of the shape of its weight."""
    if not isinstance(gradient, Mapping):
        kind = type(gradient).__name__
        raise TypeError(f"gradient returns an object of type {kind}; it must return name → array")
    slope = {name: np.asarray(array) for name, array in gradient.items()}
    for name, weight in weights.items():
        if name not in slope:
            raise ValueError(f"gradient returns {', '.join(slope)}, and none of {name}")
        if slope[name].shape != weight.shape:
            shapes = f"{slope[name].shape}, and {name} is {weight.shape}"
            raise ValueError(f"the gradient of {name} has the shape {shapes}")
    return slope
