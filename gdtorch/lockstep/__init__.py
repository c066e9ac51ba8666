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
    "in_ulps",
    "lockstep",
    "phrase",
    "read",
]

from .diagnosis import Edit
from .distance import Comparison, Difference, Weights
from .explain import in_ulps
from .reading import Trajectory, read
from .recorder import Recorder
from .trajectory import Inspection, Lockstep, Report, lockstep
from .words import phrase
