"""Copies of what a loop of any kind trains, step by step: a trajectory, or a file of one."""

from __future__ import annotations

__all__ = ["Recorder"]

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from .reading import Arrays, named, tensor
from .training import weights_of

CALL = "call the recorder with arrays by name, record(W1=W1, b1=b1), or with the model"


class Recorder:
    """Record the weights of any loop, which stays as it is.

    Call it once before the loop and once after each step. It copies what it is given. Then it
    is a trajectory for `lockstep`, as often as you like.

    Example:
        >>> record, w = Recorder(), 2.0
        >>> record(w=w)
        >>> for _ in range(3):
        ...     w -= 0.1 * w**3
        ...     record(w=w)
        >>> len(record), lockstep(record, [{"w": [2.0]}, {"w": [1.2]}]).agree
        (4, True)
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Tensor]] = []

    def __call__(self, /, *weights: Arrays, **arrays: Any) -> None:  # noqa: ANN401
        """Copy the weights as they are now.

        Args:
            weights: a module, a mapping name → array, or what else a trajectory may yield; or
                arrays, which are then named 0, 1, 2, …
            arrays: arrays by name, instead or as well.

        Raises:
            ValueError: these are no weights, or not those of the entry before.
        """
        where = f"entry {len(self.entries)} of the record"
        whole = len(weights) == 1 and not hasattr(weights[0], "ndim")
        given = (named(weights[0] if whole else weights, where, CALL) if weights else {}) | arrays
        now = {
            name: tensor(array, f"{where}: {name}").cpu().clone()
            for name, array in named(given, where, CALL).items()
        }
        if self.entries and _shapes(now) != _shapes(self.entries[0]):
            raise ValueError(f"{where}: other weights or shapes than in entry 0")
        self.entries.append(now)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @contextmanager
    def steps_of(self, optimizer: Optimizer) -> Iterator[Recorder]:
        """Within the block, record what an optimizer trains: before its first step, and after each.

        Example:
            >>> import torch
            >>> model, record = torch.nn.Linear(2, 1), Recorder()
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> with record.steps_of(optimizer):
            ...     model(torch.ones(2)).sum().backward()
            ...     optimizer.step()
            >>> [list(weights) for weights in record]
            [['weight', 'bias'], ['weight', 'bias']]
        """
        weights = weights_of(optimizer)
        hooks = [
            optimizer.register_step_pre_hook(lambda *_: None if self.entries else self(weights)),
            optimizer.register_step_post_hook(lambda *_: self(weights)),
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file as `numpy.savez` does: name → array of shape (entries, *shape).

        As there, a name that does not end in .npz is given that ending.

        Raises:
            ValueError: nothing is recorded.
            OSError: the file cannot be written.
        """
        if not self.entries:
            raise ValueError(
                "nothing is recorded; call the recorder before the loop, and after each step"
            )
        path = os.fspath(path)
        with zipfile.ZipFile(path if path.endswith(".npz") else f"{path}.npz", "w") as file:
            for name in self.entries[0]:
                steps = torch.stack([entry[name] for entry in self.entries])
                wide = steps.float() if steps.dtype == torch.bfloat16 else steps  # NumPy has none
                with file.open(f"{name}.npy", "w", force_zip64=True) as array:
                    np.lib.format.write_array(array, wide.numpy(), allow_pickle=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recorder:
        """Read a file that `save` has written, or any other program.

        Args:
            path: an archive as `numpy.savez` writes it, name → array. Each array's first axis is
                the step: first the initial weights, then those after each step.

        Raises:
            ValueError: it is no such file.
            OSError: it cannot be read.
        """
        with Path(path).open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError(f"{path} is no .npz file; write it with numpy.savez")
            try:
                with np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
            except Exception as error:
                raise ValueError(f"{path} is damaged, or holds objects ({error})") from error
        steps = {name: tensor(array, f"{path}: {name}") for name, array in arrays.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in steps.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            said = ", ".join(f"{name} {tuple(array.shape)}" for name, array in steps.items())
            raise ValueError(
                f"{path}: the first axis of each array must be the steps, the same number in all; "
                f"it has {said or 'no array'}"
            )
        record = cls()
        (count,) = {*lengths.values()}
        record.entries = [{n: array[k] for n, array in steps.items()} for k in range(count)]
        return record


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}
