"""Very many starts at once: the compiled step, the blocks it works on, and what is counted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .blocks import FOLDER, Settings, begin, difference
    from .engine import Engine
    from .processes import Processes
    from .run import count, train_units
    from .single import LongRun
    from .tally import Tally

__all__ = ["CALL", "FOLDER", "Engine", "LongRun", "Processes", "Settings", "Tally"]
__all__ += ["begin", "count", "difference", "train_units"]

CALL = 10  # steps a call of a single run: that spreads what calling costs; compiling takes seconds


def __getattr__(name: str) -> object:
    """Hand on at first use (PEP 562): whoever asks for CALL loads no torch."""
    if name in __all__:
        for file in ("blocks", "engine", "processes", "run", "single", "tally"):
            module = import_module(f".{file}", __name__)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
