"""An answer: measured numbers, the same in words, and perhaps a picture."""

from __future__ import annotations

__all__ = ["Answer", "bound"]

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..text import Cells, aligned

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
        measured: the same in words. A string is a paragraph, a sequence of rows a table.
        picture: the function of `gdtorch.figures` that draws it; "" where there is no picture.
        drawn: that function's arguments.
    """

    name: str
    question: str
    post: str
    facts: Mapping[str, Any]
    measured: Sequence[str | Cells]
    picture: str = ""
    drawn: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The question, what the post says and what was measured, for a terminal."""
        lines = [self.question]
        for part in (f"the post: {self.post}", *self.measured):
            if isinstance(part, str):
                lines.append(textwrap.indent(textwrap.fill(part, WIDTH), "  "))
            else:
                lines.append(textwrap.indent(aligned(part), "    "))
        return "\n".join(lines)

    def figure(self) -> Figure | None:
        """The picture, if there is one."""
        if not self.picture:
            return None
        from .. import figures  # loads matplotlib

        figure: Figure = getattr(figures, self.picture)(**self.drawn)
        return figure


def bound(error: float) -> str:
    """A measured error, to a power of ten: its digits are rounding, and mean nothing."""
    return f"below 1e{math.floor(math.log10(error)) + 1:+03d}" if error else "none"
