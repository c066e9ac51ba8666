"""Words and tables for a terminal. TensorBoard shows the same, see `fenced`."""

from __future__ import annotations

__all__ = ["Cells", "aligned", "count", "fenced"]

from collections.abc import Sequence

Cells = Sequence[Sequence[str]]  # a table, header first


def aligned(cells: Cells) -> str:
    """A table; all columns but the first are flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip()
        for first, *rest in cells
    )


def fenced(text: str) -> str:
    """A text as Markdown that is shown as it stands, columns and line breaks included."""
    return f"```text\n{text}\n```"


def count(number: int, thing: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
