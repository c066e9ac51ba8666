"""Very many starts at once: the compiled step, the blocks it works on, and what is counted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .blocks import FOLDER, BlockError, Settings, difference, read_settings, write_settings
    from .engine import BLOCK, Engine
    from .processes import Processes
    from .run import count, train_units
    from .single import LongRun
    from .tally import EDGES, HELD_OUT_BINS, QUANTILES, Integers, Tally, checkpoints

__all__ = ["BLOCK", "CALL", "EDGES", "FOLDER", "HELD_OUT_BINS", "QUANTILES"]
__all__ += ["BlockError", "Engine", "Integers", "LongRun", "Processes", "Settings", "Tally"]
__all__ += ["checkpoints", "count", "difference", "read_settings"]
__all__ += ["train_units", "write_settings"]

CALL = 10  # steps a call of a single run: that spreads what calling costs; compiling takes seconds

# Handed on at first use (PEP 562): whoever asks for CALL loads no torch.
_HOME = {
    **dict.fromkeys(["FOLDER", "BlockError", "Settings"], "blocks"),
    **dict.fromkeys(["difference", "read_settings", "write_settings"], "blocks"),
    **dict.fromkeys(["BLOCK", "Engine"], "engine"),
    "Processes": "processes",
    **dict.fromkeys(["count", "train_units"], "run"),
    "LongRun": "single",
    **dict.fromkeys(["EDGES", "HELD_OUT_BINS", "QUANTILES"], "tally"),
    **dict.fromkeys(["Integers", "Tally", "checkpoints"], "tally"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
