"""Programs that train with torch.optim, as they are: their weights by name, and step by step."""

from __future__ import annotations

__all__ = ["Training", "weights_of"]

import contextvars
import gc
import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Semaphore, Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim.optimizer import Optimizer

from .observe import hooks


def weights_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer trains, name → parameter.

    The names are those that it was given, or else those in the innermost module that holds all of
    its parameters, or else p0, p1, … in order.
    """
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    given = [name for group in groups for name in group.get("param_names", ())]
    if len(set(given)) == len(parameters):
        return dict(zip(given, parameters, strict=True))
    keys = {id(parameter) for parameter in parameters}
    held = [names for names in map(_names, _modules()) if keys <= names.keys()]
    names = min(held, key=lambda names: sum(map(len, names.values())), default={})
    return {names.get(id(p), f"p{k}"): p for k, p in enumerate(parameters)}


def _modules() -> Iterator[Module]:
    for one in gc.get_objects():
        if issubclass(type(one), Module):  # isinstance would ask the object, which may do anything
            yield one


def _names(module: Module) -> dict[int, str]:
    try:
        return {id(parameter): name for name, parameter in module.named_parameters()}
    except Exception:  # of one half made, or of a class that has its own idea of parameters
        return {}


PATIENCE = 100  # times that a function may catch what is to end it


class _Enough(BaseException):
    """Ends a function that trains, once as many of its steps have been seen as are asked for."""


class Training:
    """A function that trains with an optimizer of torch.optim, stopped after each step.

    Iterating yields its weights, live: before the first step, then after each. The function runs
    in a thread of its own, which waits while the caller has the weights, and which is ended with
    the iteration, be it complete or not. Its random numbers on the CPU are its own. What the
    function raises is raised here.

    Args:
        function: it takes no arguments.
        who: its name in messages.
        watching: makes a context in which it runs.

    Attributes:
        steps: how many have been taken.
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
        self.steps = self.refusals = 0
        self.made: Any = None
        self.ended = self.stopped = False
        self.error: BaseException | None = None
        self.go, self.here = Semaphore(0), Semaphore(0)

    def __iter__(self) -> Generator[dict[str, Tensor], None, None]:
        device = torch.get_default_device()  # which is this thread's own, as are context variables
        run = partial(contextvars.copy_context().run, self._run, device)
        thread = Thread(target=run, daemon=True)
        thread.start()
        try:
            while True:
                self._resume()
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
                )
            thread.join()
        if self.error:
            raise self.error

    def _resume(self) -> None:
        self.go.release()
        self.here.acquire()

    def _run(self, device: torch.device) -> None:
        """What the thread does."""
        self.go.acquire()
        thread = threading.get_ident()

        def before(optimizer: Optimizer, *_: object) -> None:
            if threading.get_ident() == thread and not self.weights:
                self.weights = weights_of(optimizer)
                self._hand_over()

        def after(optimizer: Optimizer, *_: object) -> None:
            if threading.get_ident() != thread:
                return
            known = {id(parameter) for parameter in self.weights.values()}
            if not {id(p) for group in optimizer.param_groups for p in group["params"]} <= known:
                self.error = ValueError(
                    f"{self.who} trains with more than one optimizer, so that its steps cannot be "
                    "told apart; yield the weights after each step"
                )
                raise _Enough
            self.steps += 1
            self._hand_over()

        plain = device == torch.device("cpu")
        try:
            with nullcontext() if plain else device, self.watching(), hooks(before, after):
                self.made = self.function()
        except BaseException as error:  # whatever it is, it is to be raised where lockstep runs
            if not self.stopped and not self.error:
                self.error = error
                if self.steps:
                    error.add_note(f"(in step {self.steps + 1})")
        finally:
            self.ended = True
            self.here.release()

    def _hand_over(self) -> None:
        if not self.stopped:
            state = _randomness()
            self.here.release()
            self.go.acquire()
            _set_randomness(*state)  # the other program may have drawn numbers meanwhile
        if self.stopped:
            self.refusals += 1
            if self.refusals > PATIENCE:
                self.ended = True
                self.here.release()
                threading.Event().wait()
            raise _Enough


def _randomness() -> tuple[Tensor, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


def _set_randomness(by_torch: Tensor, by_numpy: Any, by_python: Any) -> None:  # noqa: ANN401
    torch.set_rng_state(by_torch)
    np.random.set_state(by_numpy)  # noqa: NPY002
    random.setstate(by_python)
