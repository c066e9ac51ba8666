"""Hand-written gradient descent in lockstep with torch.optim.SGD."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data import Rows, Table, load_table
    from .descent import Batch, Descent, Steepest, Stochastic
    from .distance import Comparison, Difference
    from .net import SigmoidNet, initial_weights
    from .objective import Objective
    from .quartic import Quartic
    from .trainers import SGD, Manual, Post, Trainer
    from .trajectory import Lockstep, Report, lockstep

__all__ = [
    "SGD",
    "Batch",
    "Comparison",
    "Descent",
    "Difference",
    "Lockstep",
    "Manual",
    "Objective",
    "Post",
    "Quartic",
    "Report",
    "Rows",
    "SigmoidNet",
    "Steepest",
    "Stochastic",
    "Table",
    "Trainer",
    "initial_weights",
    "load_table",
    "lockstep",
]

# Handed on at first use (PEP 562), so that `train.py --help` loads no torch.
_HOME = {
    **dict.fromkeys(["Rows", "Table", "load_table"], "data"),
    **dict.fromkeys(["SigmoidNet", "initial_weights"], "net"),
    "Objective": "objective",
    "Quartic": "quartic",
    **dict.fromkeys(["SGD", "Manual", "Post", "Trainer"], "trainers"),
    **dict.fromkeys(["Batch", "Descent", "Steepest", "Stochastic"], "descent"),
    **dict.fromkeys(["Comparison", "Difference"], "distance"),
    **dict.fromkeys(["Lockstep", "Report", "lockstep"], "trajectory"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
