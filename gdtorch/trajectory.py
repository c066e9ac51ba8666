"""Trajectories side by side: after every step, do they hold the same bits, and where do they part?

A trajectory is an iterable of weights, name → array: first the initial weights, then the weights
after each step. The arrays may be live, changed in place by the next step.
"""

from __future__ import annotations

__all__ = ["Inspection", "Lockstep", "Report", "lockstep"]

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .causes import Diagnosis
from .diagnosis import Detective
from .distance import Comparison, Difference, WeightDifference, Weights, farthest
from .explain import explain

Arrays = Mapping[str, Any]  # anything that numpy.asarray or torch.as_tensor takes


class Lockstep:
    """Advance trajectories together, one step at a time, each compared to the reference.

    Iterating yields the number of steps taken, from 0; `differences` then holds, for each
    trajectory but the reference, the largest |mine − theirs| of each weight at that step, and
    `comparisons` what has been seen since step 0. The shortest trajectory ends it.

    Args:
        trajectories: name → trajectory, of the same weights in the same dtype on one device.
        reference: the name of the one that all others are compared to.
    """

    def __init__(self, trajectories: Mapping[str, Iterable[Weights]], reference: str) -> None:
        self.trajectories = trajectories
        self.reference = reference
        self.comparisons = {name: Comparison() for name in trajectories if name != reference}
        self.differences: dict[str, dict[str, float]] = {}

    def __iter__(self) -> Iterator[int]:
        for step, weights in enumerate(zip(*self.trajectories.values(), strict=False)):
            current = dict(zip(self.trajectories, weights, strict=True))
            for name, comparison in self.comparisons.items():
                self.differences[name] = comparison.update(
                    step, current[name], current[self.reference]
                )
            yield step


@dataclass(frozen=True)
class Report:
    """What `lockstep` found; printed, it says what was seen, what it means and what to change.

    Args:
        cause: one word of the table in docs/lockstep.md: why the two part.
        factor: the number that belongs to the cause (mine over theirs, or mine minus theirs), a
            dict weight → multiple for `scale of one weight`, else None.
        steps: how many steps were compared.
        first_difference: the first step at which they differ by more than rounding explains, or in
            any bit, where rounding explains it all; with the weight and the element that differ
            most at that step. None where there is none.
        weights: for each weight, since when and how far it differs.
        diagnosis: the cause with its evidence.
        text: the report in words.
    """

    cause: str
    factor: float | dict[str, float] | None
    steps: int
    first_difference: Difference | None
    weights: dict[str, WeightDifference]
    diagnosis: Diagnosis
    text: str

    @property
    def identical(self) -> bool:
        """Whether both held the same bits throughout."""
        return self.cause == "identical"

    @property
    def agree(self) -> bool:
        """Whether the two are identical, or apart by rounding only."""
        return self.cause in {"identical", "rounding"}

    def __str__(self) -> str:
        return self.text


class Inspection:
    """Two trajectories of the user's own, advanced together; `lockstep` with a look at each step.

    Iterating yields the number of steps taken, from 0; `weights` then holds the weights of both,
    `differences` the largest |mine − theirs| of each weight. `report()` is due at the end.

    Args:
        mine: as `lockstep`; so are all others.
        theirs: the trajectory that mine is held against.
        steps: how many steps to compare at most.
        rows: how many rows the loss is over.
        rename: name → name it is to have.
        lr: learning rate.

    Raises:
        ValueError: the two cannot be compared at all; here or while iterating.
    """

    def __init__(
        self,
        mine: Iterable[Arrays],
        theirs: Iterable[Arrays],
        steps: int = 100,
        *,
        rows: int | None = None,
        rename: Mapping[str, str] | None = None,
        lr: float | None = None,
    ) -> None:
        if steps < 0:
            raise ValueError(f"steps is {steps}; compare 0 steps or more")
        self.read = (_read(mine, "mine", rename or {}), _read(theirs, "theirs", rename or {}))
        self.steps, self.rows = steps, rows
        self.detective = Detective(lr)
        self.comparison = Comparison()
        self.weights: tuple[Weights, Weights] = ({}, {})
        self.differences: dict[str, float] = {}
        self.parting: Difference | None = None

    def __iter__(self) -> Iterator[int]:
        for step, (mine, theirs) in enumerate(zip(*self.read, strict=False)):
            if step == 0 and self._incomparable(mine, theirs):
                return
            mine, theirs = _on_one_device(mine, theirs)
            self.weights = mine, theirs
            self.differences = self.comparison.update(step, mine, theirs)
            self.detective.look(step, mine, theirs, max(self.differences.values()))
            if self.detective.parted and self.parting is None:
                name = max(self.differences, key=lambda name: self.differences[name])
                self.parting = farthest(step, name, mine[name], theirs[name])
            yield step
            if step == self.steps:
                return

    def _incomparable(self, mine: Weights, theirs: Weights) -> bool:
        if set(mine) != set(theirs):
            lone = [*(n for n in mine if n not in theirs), *(n for n in theirs if n not in mine)]
            self.detective.found = Diagnosis("names", weights=tuple(lone))
            return True
        for name, weight in mine.items():
            if weight.shape != theirs[name].shape:
                transposed = weight.shape == theirs[name].shape[::-1]
                evidence = "transposed" if transposed else ""
                self.detective.found = Diagnosis("shape", weights=(name,), evidence=evidence)
                return True
        return False

    def report(self) -> Report:
        """What has been found, once the iteration has ended."""
        diagnosis = self.detective.conclude(identical=self.comparison.identical)
        first = self.parting or self.comparison.first_difference
        text = explain(diagnosis, first, self.rows, self.detective.precisions)
        return Report(
            diagnosis.cause,
            diagnosis.factor,
            self.comparison.steps,
            first,
            self.comparison.weights,
            diagnosis,
            text,
        )


def lockstep(
    mine: Iterable[Arrays],
    theirs: Iterable[Arrays],
    steps: int = 100,
    *,
    rows: int | None = None,
    rename: Mapping[str, str] | None = None,
    lr: float | None = None,
) -> Report:
    """Put two trajectories side by side and say where and why they part.

    Args:
        mine: a trajectory: NumPy arrays, tensors on any device, nested lists, JAX arrays.
        theirs: the trajectory that mine is held against.
        steps: how many steps to compare at most; the shorter trajectory ends it.
        rows: how many rows the loss is over, so that a factor of N or 1/N can be named.
        rename: name → name it is to have, for weights named differently in the two.
        lr: learning rate, so that a weight decay is given as λ and not as lr · λ.

    Raises:
        ValueError: the two cannot be compared at all. Never because they differ.
    """
    inspection = Inspection(mine, theirs, steps, rows=rows, rename=rename, lr=lr)
    for _ in inspection:
        pass
    return inspection.report()


def _read(trajectory: Iterable[Arrays], who: str, rename: Mapping[str, str]) -> Iterator[Weights]:
    """The trajectory's weights as tensors that share memory with its arrays where they can."""
    shapes: dict[str, torch.Size] = {}
    for step, arrays in enumerate(trajectory):
        if not isinstance(arrays, Mapping) or not arrays:
            raise ValueError(
                f"{who}, step {step}: a {type(arrays).__name__} where a mapping name → array "
                "should be; yield one for the initial weights, then one after each step"
            )
        weights = {
            rename.get(name, name): _tensor(array, f"{who}, step {step}: {name}")
            for name, array in arrays.items()
        }
        if len(weights) < len(arrays):
            raise ValueError(f"{who}: rename gives two weights the same name")
        now = {name: weight.shape for name, weight in weights.items()}
        if now != (shapes or now):
            raise ValueError(f"{who}, step {step}: other weights or shapes than at step 0")
        shapes = now
        yield weights
    if not shapes:
        raise ValueError(f"{who} is empty; its first item must be the initial weights")


def _tensor(array: Any, where: str) -> Tensor:  # noqa: ANN401 (what the user has)
    try:
        if not isinstance(array, Tensor):
            array = np.asarray(array)
            if not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            if not array.flags.writeable or any(stride < 0 for stride in array.strides):
                array = array.copy()  # torch reads neither
            array = torch.as_tensor(array)
        tensor: Tensor = array.detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} is no array of numbers ({error})") from error
    if tensor.is_complex() or tensor.numel() == 0 or tensor.layout != torch.strided:
        raise ValueError(f"{where} is empty, complex or sparse; only dense real weights compare")
    return tensor if tensor.is_floating_point() else tensor.double()


def _on_one_device(mine: Weights, theirs: Weights) -> tuple[Weights, Weights]:
    devices = {weight.device for weights in (mine, theirs) for weight in weights.values()}
    if len(devices) == 1:
        return mine, theirs
    return {n: w.cpu() for n, w in mine.items()}, {n: w.cpu() for n, w in theirs.items()}
