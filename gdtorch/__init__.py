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

# Handed on at first use (PEP 562), so that `train.py --help` loads no torch.
_HOME = {
    "Board": "board",
    **dict.fromkeys(["eigenvalues", "extremes", "hessian", "stable_limit"], "curvature"),
    **dict.fromkeys(["Rows", "Table", "load_table"], "data"),
    **dict.fromkeys(["SigmoidNet", "initial_weights"], "net"),
    "Objective": "objective",
    "Quartic": "quartic",
    **dict.fromkeys(["SGD", "Manual", "Post", "Torch", "Trainer"], "trainers"),
    **dict.fromkeys(["Batch", "Descent", "Steepest", "Stochastic"], "descent"),
    **dict.fromkeys(
        ["Comparison", "Difference", "Lockstep", "Recorder", "Report", "lockstep"], "lockstep"
    ),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


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
