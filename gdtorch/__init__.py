"""Hand-written gradient descent in lockstep with torch.optim.SGD.

The examples in docstrings take it that `from gdtorch import *` came first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .board import Board
    from .curvature import eigenvalues, extremes, hessian, stable_limit
    from .data import Rows, Table, load_table
    from .descent import Batch, Descent, Steepest, Stochastic
    from .lockstep import Comparison, Difference, Lockstep, Recorder, Report, lockstep
    from .net import SigmoidNet, initial_weights
    from .objective import Objective
    from .quartic import Quartic
    from .trainers import SGD, Manual, Post, Torch, Trainer

__all__ = [
    "SGD",
    "Batch",
    "Board",
    "Comparison",
    "Descent",
    "Difference",
    "Lockstep",
    "Manual",
    "Objective",
    "Post",
    "Quartic",
    "Recorder",
    "Report",
    "Rows",
    "SigmoidNet",
    "Steepest",
    "Stochastic",
    "Table",
    "Torch",
    "Trainer",
    "eigenvalues",
    "extremes",
    "hessian",
    "initial_weights",
    "load_table",
    "lockstep",
    "stable_limit",
]

# A name is looked up at its first use (PEP 562), so that `train.py --help` loads no torch.
_MATHEMATICS = ("data", "net", "quartic", "objective", "descent", "trainers", "curvature")
_ROOMS = (*_MATHEMATICS, "lockstep", "board")  # what loads more is looked into later


def __getattr__(name: str) -> object:
    if name in __all__:
        for room in _ROOMS:
            module = import_module(f".{room}", __name__)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The import of the folder lockstep/ would give its name to the folder, and not to the
        # function that people ask for.
        if name == "lockstep" and isinstance(value, ModuleType):
            value = value.lockstep
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
