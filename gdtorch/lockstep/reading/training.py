"""Programs that train with torch.optim, as they are: their weights by name, and step by step."""

from __future__ import annotations

__all__ = ["Training", "weights_of"]

import contextvars
import gc
import random
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Semaphore, Thread
from types import FrameType, ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim.optimizer import Optimizer
from torch.overrides import TorchFunctionMode

from ..observing.observe import hooks
from ..observing.tape import generators, set_generators

T = TypeVar("T")


def weights_of(*optimizers: Optimizer) -> dict[str, Tensor]:
    """What optimizers train, name → parameter.

    The names are those that they were given, or else those in the innermost module that holds all
    of their parameters, or else p0, p1, … in order.
    """
    parameters, given = dict[int, Tensor](), dict[int, str]()
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        parameters |= {id(one): one for one in group["params"]}
        given |= zip(map(id, group["params"]), group.get("param_names", ()), strict=False)
    if not len(set(given.values())) == len(given) == len(parameters):
        held = [names for names in map(_names, _all(Module)) if parameters.keys() <= names.keys()]
        given = min(held, key=lambda names: sum(map(len, names.values())), default={})
    return {given.get(key, f"p{k}"): one for k, (key, one) in enumerate(parameters.items())}


def _all(kind: type[T]) -> Iterator[T]:
    """All objects of a kind that the garbage collector knows."""
    for one in gc.get_objects():
        if issubclass(type(one), kind):  # isinstance would ask the object, which may do anything
            yield one


def _names(module: Module) -> dict[int, str]:
    try:
        return {id(parameter): name for name, parameter in module.named_parameters()}
    except Exception:  # it is half made, or its class has its own idea of parameters
        return {}


PATIENCE = 100  # how often a function may catch the exception that ends it
RANDOM: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (generators, set_generators),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
]
MOST_PASSES = 1000  # backward passes without a step; after so many none is expected


class _Enough(BaseException):
    """Ends a function that trains, once as many of its steps have been seen as are asked for."""


class Training:
    """A function that trains with optimizers of torch.optim, stopped after each step.

    Iterating yields its weights, live: before the first step, then after each. A step is complete
    when each parameter was in one optimizer's step. The optimizers are the first that steps, those
    that the function has made by then, and those that its variables hold. The function runs in a
    thread of its own. It waits while the caller has the weights, and ends with the iteration, be
    that complete or not. Its random numbers begin where the caller's stand, a GPU's once CUDA is in
    use, and are then its own; the caller's stay there. What the function raises is raised here.

    Args:
        function: it takes no arguments.
        who: its name in messages.
        watching: makes a context in which it runs.

    Attributes:
        steps: how many have been taken.
        passes: how many backward passes there were since the last one.
        waiting: the `id` of each parameter that has yet to be stepped in the present one.
        made: what the function has returned.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        who: str,
        watching: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.function, self.who, self.watching = function, who, watching
        self.weights: dict[str, Tensor] = {}
        self.steps = self.passes = self.refusals = 0
        self.waiting: set[int] = set()
        self.made: Any = None
        self.ended = self.stopped = self.passed = False
        self.error: BaseException | None = None
        self.go, self.here = Semaphore(0), Semaphore(0)

    def __iter__(self) -> Generator[dict[str, Tensor], None, None]:
        device = torch.get_default_device()  # which is this thread's own, as are context variables
        run = partial(contextvars.copy_context().run, self._run, device)
        thread = Thread(target=run, daemon=True)
        thread.start()
        drawn = [get() for get, _ in RANDOM]
        try:
            while True:
                with _random_numbers(drawn):
                    self.go.release()
                    self.here.acquire()
                if self.ended:
                    break
                yield self.weights
        finally:
            self.stopped = True
            self.go.release()
            while not self.ended:
                self.here.acquire()
            if self.refusals > PATIENCE:  # it goes on for ever, and no thread can be killed
                raise ValueError(
                    f"{self.who} catches what is to end it, in its loop; let it catch `Exception`"
                ) from None
            thread.join()
        if self.error:
            raise self.error

    def _run(self, device: torch.device) -> None:
        """What the thread does."""
        self.go.acquire()
        thread, earlier = threading.get_ident(), [*_all(Optimizer)]

        def before(optimizer: Optimizer, *_: object) -> None:
            if threading.get_ident() == thread and not self.weights:
                made = [one for one in _all(Optimizer) if one not in earlier]
                self.weights = weights_of(optimizer, *made, *_in_reach(sys._getframe()))
                self._hand_over()

        def after(optimizer: Optimizer, *_: object) -> None:
            if threading.get_ident() == thread:
                self._note({*map(id, _stepped(optimizer))})

        plain = device == torch.device("cpu")
        try:
            with (
                nullcontext() if plain else device,
                self.watching(),
                hooks(before, after),
                _Passes(self._pass),
            ):
                self.made = self.function()
        except BaseException as error:  # whatever it is, it is to be raised where lockstep runs
            if not self.stopped and not self.error:
                self.error = error
                if self.steps:
                    error.add_note(f"(in step {self.steps + 1})")
        finally:
            self.ended = True
            self.here.release()

    def _pass(self) -> None:
        self.passes += 1
        if self.passes > MOST_PASSES:
            self._refuse(f"takes {MOST_PASSES} backward passes and no step of torch.optim;")

    def _note(self, stepped: set[int]) -> None:
        """Note what an optimizer has stepped; a step is complete when nothing is waiting."""
        self.waiting = self.waiting or {*map(id, self.weights.values())}
        if not stepped <= self.waiting:
            self._refuse("trains with several optimizers, which do not step in turn;")
        self.waiting -= stepped
        if self.waiting:
            return
        self.steps += 1
        self.passed = self.passed or self.passes > 0
        if self.passed and not self.passes:
            both = f"steps {self.steps - 1} and {self.steps}"
            self._refuse(f"takes {both} with the gradients of one backward pass; step once, or")
        self.passes = 0
        self._hand_over()

    def _refuse(self, words: str) -> None:
        self.error = ValueError(f"{self.who} {words} yield the weights after each step")
        self.stopped = True
        self._end()

    def _hand_over(self) -> None:
        if not self.stopped:
            self.here.release()
            self.go.acquire()
        if self.stopped:
            self._end()

    def _end(self) -> None:
        """End the function; once more, if it has caught what was to end it."""
        self.refusals += 1
        if self.refusals > PATIENCE:
            self.ended = True
            self.here.release()
            threading.Event().wait()
        raise _Enough


@contextmanager
def _random_numbers(states: list[Any]) -> Iterator[None]:
    """Within the block, random numbers go on from these states, which are kept up to date."""
    others = [get() for get, _ in RANDOM]
    for (_, put), state in zip(RANDOM, states, strict=True):
        put(state)
    try:
        yield
    finally:
        states[:] = [get() for get, _ in RANDOM]
        for (_, put), state in zip(RANDOM, others, strict=True):
            put(state)


class _Passes(TorchFunctionMode):
    """Within the block, call `seen` at each backward pass of this thread."""

    def __init__(self, seen: Callable[[], None]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,  # noqa: ANN401 (as torch has it)
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if getattr(function, "__name__", "") in {"backward", "grad"}:
            self.seen()
        return function(*args, **(kwargs or {}))


def _in_reach(frame: FrameType | None) -> Iterator[Optimizer]:
    """The optimizers that the variables of a frame and of its callers hold; ours are left out."""
    while frame:
        if frame.f_globals is not globals():
            used = (frame.f_globals.get(name) for name in frame.f_code.co_names)
            yield from _within([*frame.f_locals.values(), *used], depth=3)  # as far as self.all[k]
        frame = frame.f_back


def _within(one: object, depth: int) -> Iterator[Optimizer]:
    """The optimizers in lists, tuples, dicts and the attributes of objects, so many levels deep."""
    if issubclass(type(one), Optimizer):
        yield cast("Optimizer", one)
    elif depth and not issubclass(type(one), (ModuleType, type)):
        held = one if isinstance(one, dict) else getattr(one, "__dict__", {})
        for inner in one if isinstance(one, (list, tuple)) else held.values():
            yield from _within(inner, depth - 1)


def _stepped(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
