"""Very many starts at once: the compiled step, the blocks it works on, and what is counted."""

from __future__ import annotations

__all__ = ["Engine", "Settings", "count", "deal"]

from .blocks import Settings, deal
from .engine import Engine
from .run import count
