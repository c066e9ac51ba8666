"""Very many starts at once: the compiled step, the blocks it works on, and what is counted."""

from __future__ import annotations

__all__ = ["Engine", "Settings", "count"]

from .blocks import Settings
from .engine import Engine
from .run import count
