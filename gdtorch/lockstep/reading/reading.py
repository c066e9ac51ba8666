"""What a user's trajectory yields, as tensors; what cannot be compared is refused."""

from __future__ import annotations

__all__ = [
    "Arrays",
    "Trajectory",
    "check_memory",
    "named",
    "on_one_device",
    "one_thread",
    "plain_defaults",
    "read",
    "tensor",
]

import traceback
from collections.abc import Callable, Generator, ItemsView, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from inspect import iscoroutine, isroutine
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from ..distance import Weights
from .training import Training

# A module; arrays by name, nested or not; pairs (name, array); a list or a tuple of arrays, each
# of which is anything that numpy.asarray or torch.as_tensor takes.
Arrays = Module | Mapping[str, Any] | Iterable[Any]
STORED: tuple[type, ...] = (list, tuple, type(iter([])), type(iter(())))
Trajectory = Iterable[Arrays] | Callable[[], Iterable[Arrays] | None]
YIELD = "use `yield {...}`: first with the initial weights, then with those after each step"
Watching = Callable[[], AbstractContextManager[object]]


def check_memory(mine: Weights, theirs: Weights) -> None:
    """Refuse arrays that both trajectories change: whatever they do would look the same."""
    for name, weight in mine.items():
        if weight.data_ptr() == theirs[name].data_ptr():
            raise ValueError(
                f"mine and theirs yield the same memory for {name}, so that each changes the "
                "other's; let each begin with a copy of its own"
            )


def read(
    trajectory: Trajectory, who: str, watching: Watching = nullcontext
) -> Generator[Weights, None, None]:
    """The weights of a trajectory as tensors, which share memory with its arrays if they can.

    Args:
        trajectory: or a function that returns one or trains with an optimizer of torch.optim.
        who: its name in messages.
        watching: makes a context in which each step is taken.
    """
    shapes: dict[str, torch.Size] = {}
    step, last = None, dict[str, Tensor]()
    with closing(_items(trajectory, who, watching)) as items:
        for step, (arrays, stored) in enumerate(items):
            where = f"{who}, step {step}"
            weights = {
                name: tensor(array, f"{where}: {name}")
                for name, array in named(arrays, where).items()
            }
            now = {name: weight.shape for name, weight in weights.items()}
            if now != (shapes or now):
                raise ValueError(f"{where}: other weights or shapes than at step 0")
            if stored and any(_is_same(weights[name], last.get(name)) for name in weights):
                raise ValueError(
                    f"{where} is the same memory as step {step - 1}, so that all would look like "
                    "the last one; copy them: append array.copy() or tensor.clone(), not the array"
                )
            shapes, last = now, weights
            yield weights
    if not shapes:
        raise ValueError(f"{who} is empty; its first item must be the initial weights")
    if step == 0:  # another item was asked for; a report on nothing must not reassure
        raise ValueError(
            f"{who} ended before its first step; yield the weights after each step, in a loop"
        )


def _items(
    trajectory: Any,  # noqa: ANN401 (what the user has)
    who: str,
    watching: Watching,
) -> Generator[tuple[Arrays, bool], None, None]:
    """The steps, each taken while watched, and whether all of them are stored, as in a list."""
    call = ""
    if isroutine(trajectory) or isinstance(trajectory, partial):
        training = Training(trajectory, who, watching)
        with closing(iter(training)) as steps:
            for weights in steps:
                yield weights, False
        if training.weights:
            return
        if training.made is None:
            raise ValueError(
                f"{who} takes {training.passes} backward passes and no step of torch.optim, in the "
                "thread that called it; step an optimizer there, or yield the weights after each "
                "step"
            )
        trajectory, call = training.made, "()"
    if isinstance(trajectory, (Mapping, Module, str)) or not isinstance(trajectory, Iterable):
        _refuse(trajectory, who, call)
    stored = isinstance(trajectory, STORED)
    items = iter(trajectory)
    while True:
        try:
            with watching():
                item = next(items)
        except StopIteration:
            return
        yield item, stored


def _refuse(trajectory: object, who: str, call: str) -> NoReturn:
    kind = type(trajectory).__name__
    if iscoroutine(trajectory):
        trajectory.close()  # or Python warns that nobody has awaited it
    if call:
        raise ValueError(
            f"{who}() returns an object of type {kind}; it must yield weights: use `yield` in a "
            "loop, not `return`; or step an optimizer of torch.optim"
        )
    function = callable(trajectory) and not isinstance(trajectory, Module)
    hint = "call it" if function else "yield the weights, in a loop"
    if trajectory is None:
        hint = "pass a function that trains itself, train and not train()"
    raise ValueError(
        f"{who} is an object of type {kind}, where an iterable of weights should be; {hint}"
    )


def named(weights: object, where: str, remedy: str = YIELD) -> dict[str, Any]:
    """The arrays of a module, a mapping (nested or not), pairs (name, array) or a sequence.

    Names within names are joined by /; arrays without names are 0, 1, 2, …

    Args:
        weights: as `Arrays`.
        where: their place in messages.
        remedy: what to do if these are no weights.
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
        kind = type(weights).__name__
        raise ValueError(
            f"{where} is an object of type {kind}, where a mapping name → array with at least one "
            f"should be; {remedy}"
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
        # A list of numbers is an array; one of arrays that have axes is a tree.
        arrays = isinstance(inner, (list, tuple)) and any(
            isinstance(one, Mapping) or getattr(one, "ndim", 0) for one in inner
        )
        if isinstance(inner, Mapping) or arrays:
            yield from _leaves(inner, f"{within}{name}/")
        else:
            yield f"{within}{name}", inner


def tensor(array: Any, where: str) -> Tensor:  # noqa: ANN401 (what the user has)
    """An array of any library as a tensor, which shares its memory if it can."""
    try:
        if not isinstance(array, Tensor):
            array = np.asarray(array)
            if not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            if not array.flags.writeable or any(stride < 0 for stride in array.strides):
                array = array.copy()  # torch reads neither
            array = torch.as_tensor(array, device="cpu")
        found: Tensor = array.detach()
        odd = found.is_complex() or found.layout != torch.strided
        odd = odd or found.is_nested or found.is_quantized
        odd = odd or found.untyped_storage().device.type == "meta"  # on which there are no numbers
        if not odd and found.numel() > 0:
            compares = found.is_floating_point() and found.itemsize > 1
            return found if compares else found.double()
    except Exception as error:  # whatever a user's object raises when asked for its numbers
        raise ValueError(f"{where} is no array of numbers ({_said(error)})") from error
    raise ValueError(f"{where} is empty, complex or sparse; only dense real weights compare")


def _is_same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.data_ptr() == other.data_ptr()


def _said(error: Exception) -> str:
    """What an exception says, even if its own `__str__` fails."""
    return "".join(traceback.format_exception_only(error)).strip()


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Within the block, PyTorch's own default dtype and device hold, whatever the user has set."""
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with nullcontext() if device.type == "cpu" else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, torch uses one thread: more would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_one_device(mine: Weights, theirs: Weights) -> tuple[Weights, Weights]:
    """Both as they are, or on the CPU where they lie on several devices."""
    devices = {weight.device for weights in (mine, theirs) for weight in weights.values()}
    if len(devices) == 1:
        return mine, theirs
    return {n: w.cpu() for n, w in mine.items()}, {n: w.cpu() for n, w in theirs.items()}
