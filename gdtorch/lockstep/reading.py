"""What a user's trajectory yields, as tensors; and what cannot be compared, refused."""

from __future__ import annotations

__all__ = ["Arrays", "Trajectory", "check_memory", "named", "on_one_device", "read"]

import traceback
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from inspect import isfunction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from .distance import Weights

# A module; arrays by name, nested or not; pairs (name, array); a list or a tuple of arrays, each
# of which is anything that numpy.asarray or torch.as_tensor takes.
Arrays = Module | Mapping[str, Any] | Iterable[Any]
STORED: tuple[type, ...] = (list, tuple, type(iter([])), type(iter(())))
Trajectory = Iterable[Arrays] | Callable[[], Iterable[Arrays]]


def check_memory(mine: Weights, theirs: Weights) -> None:
    """Refuse arrays that both trajectories change: whatever they do would look the same."""
    for name, weight in mine.items():
        if weight.data_ptr() == theirs[name].data_ptr():
            raise ValueError(
                f"mine and theirs yield the same memory for {name}, so that each changes the "
                "other's; let each begin with a copy of its own"
            )


def read(
    trajectory: Trajectory,
    who: str,
    through: Callable[[Iterable[Arrays]], Iterator[Arrays]] = iter,
) -> Iterator[Weights]:
    """The trajectory's weights as tensors that share memory with its arrays where they can."""
    if isfunction(trajectory):
        trajectory = trajectory()
    if isinstance(trajectory, (Mapping, Module, str)) or not isinstance(trajectory, Iterable):
        hint = (
            "; call it"
            if callable(trajectory) and not isinstance(trajectory, Module)
            else "; yield the weights, in a loop"
        )
        kind = type(trajectory).__name__
        raise ValueError(  # noqa: TRY004 (what cannot be compared is a ValueError throughout)
            f"{who} is an object of type {kind}, where an iterable of weights should be{hint}"
        )
    shapes: dict[str, torch.Size] = {}
    stored = isinstance(trajectory, STORED)  # all of it was there before the first was looked at
    step, last = None, dict[str, Tensor]()
    for step, arrays in enumerate(through(trajectory)):
        where = f"{who}, step {step}"
        weights = {
            name: _tensor(array, f"{where}: {name}") for name, array in named(arrays, where).items()
        }
        now = {name: weight.shape for name, weight in weights.items()}
        if now != (shapes or now):
            raise ValueError(f"{where}: other weights or shapes than at step 0")
        if stored and any(_is_same(weights[name], last.get(name)) for name in weights):
            raise ValueError(
                f"{where} is the same memory as step {step - 1}, so that each step would look like "
                "the last one; copy them: append {name: array.copy() ...}, or .clone() of a tensor"
            )
        shapes, last = now, weights
        yield weights
    if not shapes:
        raise ValueError(f"{who} is empty; its first item must be the initial weights")
    if step == 0:  # and another item was asked for; of nothing compared, no report may reassure
        raise ValueError(
            f"{who} ended before its first step; yield the weights after each step, in a loop"
        )


def named(weights: object, where: str) -> dict[str, Any]:
    """The arrays of a module, a mapping, nested or not, of pairs (name, array), or of a sequence.

    Names within names are joined by /; arrays without names are 0, 1, 2, …
    """
    if isinstance(weights, Module):
        weights = dict(weights.named_parameters())
    leaves: list[tuple[str, Any]] = []
    try:
        if isinstance(weights, Mapping):
            leaves = list(_leaves(weights))
        elif isinstance(weights, (list, tuple, Iterator, ItemsView)):
            leaves = list(_leaves(list(weights)))
    except Exception as error:
        raise ValueError(f"{where}: names and arrays cannot be read ({_said(error)})") from error
    if not leaves:
        raise ValueError(
            f"{where} is an object of type {type(weights).__name__}, where a mapping name → array "
            "with at least one should be; use `yield {...}`: first with the initial weights, then "
            "with those after each step"
        )
    arrays = dict(leaves)
    if len(arrays) < len(leaves):
        raise ValueError(f"{where}: two names are the same text; rename one")
    return arrays


def _leaves(tree: Any, within: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """The arrays of a tree with their names."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(tree, Mapping):
        items = tree.items()
    elif all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in tree):
        items = tree
    else:
        items = enumerate(tree)
    for name, inner in items:
        # A list of numbers is an array; one of arrays that have axes is a layer.
        layer = isinstance(inner, (list, tuple)) and any(getattr(one, "ndim", 0) for one in inner)
        if isinstance(inner, Mapping) or (layer and not isinstance(tree, Mapping)):
            yield from _leaves(inner, f"{within}{name}/")
        else:
            yield f"{within}{name}", inner


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
        odd = tensor.is_complex() or tensor.layout != torch.strided
        odd = odd or tensor.is_nested or tensor.is_quantized
        odd = odd or tensor.untyped_storage().device.type == "meta"  # on which there are no numbers
        if not odd and tensor.numel() > 0:
            compares = tensor.is_floating_point() and tensor.itemsize > 1
            return tensor if compares else tensor.double()
    except Exception as error:  # what an object does that is asked for its numbers
        raise ValueError(f"{where} is no array of numbers ({_said(error)})") from error
    raise ValueError(f"{where} is empty, complex or sparse; only dense real weights compare")


def _is_same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.data_ptr() == other.data_ptr()


def _said(error: Exception) -> str:
    """What an exception says, be it one that cannot."""
    return "".join(traceback.format_exception_only(error)).strip()


def on_one_device(mine: Weights, theirs: Weights) -> tuple[Weights, Weights]:
    """Both as they are, or on the CPU where they lie on several devices."""
    devices = {weight.device for weights in (mine, theirs) for weight in weights.values()}
    if len(devices) == 1:
        return mine, theirs
    return {n: w.cpu() for n, w in mine.items()}, {n: w.cpu() for n, w in theirs.items()}
