"""What TensorBoard shows: event files, what is measured, which charts."""

from __future__ import annotations

__all__ = [
    "OF_ENSEMBLE",
    "OF_LOCKSTEP",
    "OF_QUARTIC",
    "PAIR",
    "Board",
    "EventFile",
    "end_pair",
    "event_files",
    "layout_of_quartic",
    "log_pair",
    "reference_of",
    "show_ensemble",
    "show_ranges",
]

from .board import Board
from .ensemble import OF_ENSEMBLE, show_ensemble
from .events import EventFile, event_files, show_ranges
from .lockstep import PAIR, end_pair, log_pair
from .measure import OF_LOCKSTEP, OF_QUARTIC, layout_of_quartic, reference_of
