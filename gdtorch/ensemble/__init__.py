"""Very many starts at once: the compiled step, the blocks it works on, and what is counted."""

from __future__ import annotations

__all__: list[str] = []
