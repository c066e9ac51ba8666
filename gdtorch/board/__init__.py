"""What TensorBoard shows: event files, what is measured, which charts."""

from __future__ import annotations

__all__ = [
    "OF_LOCKSTEP",
    "OF_QUARTIC",
    "Board",
    "EventFile",
    "EventFiles",
    "layout_of_quartic",
    "log10",
    "of_differences",
]

from .board import Board, log10, of_differences
from .events import EventFile, EventFiles
from .measure import OF_LOCKSTEP, OF_QUARTIC, layout_of_quartic
