"""Two trajectories of anybody's: where they part, and why."""

from __future__ import annotations

__all__ = [
    "Comparison",
    "Difference",
    "Edit",
    "Inspection",
    "Lockstep",
    "Recorder",
    "Report",
    "Trajectory",
    "Weights",
    "lockstep",
    "read",
    "verdict",
]

from .diagnosis import Edit
from .distance import Comparison, Difference, Weights
from .reading.reading import Trajectory, read
from .reading.recorder import Recorder
from .trajectory import Inspection, Lockstep, Report, lockstep
from .verdict import verdict
