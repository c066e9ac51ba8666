"""Very many starts at once: the compiled step, the blocks it works on, and what is counted."""

from __future__ import annotations

__all__ = ["CALL"]

CALL = 10  # steps a call of a single run: that spreads what calling costs; compiling takes seconds
