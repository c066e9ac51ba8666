"""An answer: measured numbers, the same in words, and perhaps a picture."""

from __future__ import annotations

__all__ = ["Answer", "aligned", "bound"]

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 92  # of the text


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Args:
        name: what the answer and its picture are called.
        question: the post's.
        post: what the post says.
        facts: the numbers, for a program.
        measured: the same in words. A part with line breaks is a table, others are paragraphs.
        picture: the function of `gdtorch.figures` that draws it; "" where there is no picture.
        drawn: that function's arguments.
    """

    name: str
    question: str
    post: str
    facts: Mapping[str, Any]
    measured: Sequence[str]
    picture: str = ""
    drawn: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The question, what the post says and what was measured, for a terminal."""
        parts = [f"the post: {self.post}", *self.measured]
        filled = (part if "\n" in part else textwrap.fill(part, WIDTH) for part in parts)
        return "\n".join([self.question, *(textwrap.indent(part, "  ") for part in filled)])

    def figure(self) -> Figure | None:
        """The picture, if there is one."""
        if not self.picture:
            return None
        from .. import figures  # loads matplotlib

        figure: Figure = getattr(figures, self.picture)(**self.drawn)
        return figure


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip()
        for first, *rest in rows
    )
    return textwrap.indent("\n".join(lines), "  ")


def bound(error: float) -> str:
    """A measured error, to a power of ten: its digits are rounding, and mean nothing."""
    return f"below 1e{math.floor(math.log10(error)) + 1:+03d}" if error else "none"
