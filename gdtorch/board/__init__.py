"""What TensorBoard shows: event files, what is measured, which charts."""

from __future__ import annotations

__all__ = [
    "OF_ENSEMBLE",
    "OF_LOCKSTEP",
    "OF_QUARTIC",
    "Board",
    "EventFile",
    "event_files",
    "layout_of_lockstep",
    "layout_of_quartic",
    "of_differences",
    "show_ensemble",
    "show_ranges",
]

from .board import Board, of_differences
from .ensemble import OF_ENSEMBLE, show_ensemble
from .events import EventFile, event_files, show_ranges
from .measure import OF_LOCKSTEP, OF_QUARTIC, layout_of_lockstep, layout_of_quartic
