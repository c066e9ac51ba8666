"""What an answer is: numbers measured, the same in words, and pictures of them."""

from __future__ import annotations

__all__ = ["Answer", "aligned", "bound"]

import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WIDTH = 92  # of the text


@dataclass(frozen=True)
class Answer(ABC):
    """The answer to one question; its fields are the numbers, tensors those of its figure."""

    name: ClassVar[str]
    question: ClassVar[str]
    post: ClassVar[str]

    @abstractmethod
    def measured(self) -> list[str]:
        """What was measured: paragraphs, and tables, which hold line breaks."""

    def figure(self) -> Figure | None:
        """The picture of it, if it has one."""
        return None

    def text(self) -> str:
        """The question, what the post says and what was measured, for a terminal."""
        parts = [f"the post: {self.post}", *self.measured()]
        filled = (part if "\n" in part else textwrap.fill(part, WIDTH) for part in parts)
        return "\n".join([self.question, *(textwrap.indent(part, "  ") for part in filled)])

    def facts(self) -> dict[str, Any]:
        """The numbers for a program, without those of the figure."""
        return {k: v for k, v in asdict(self).items() if not isinstance(v, Tensor)}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip()
        for first, *rest in rows
    )
    return textwrap.indent("\n".join(lines), "  ")


def bound(error: float) -> str:
    """A measured error in words: what of it is rounding has no digits worth printing."""
    return f"below 1e{math.floor(math.log10(error)) + 1:+03d}" if error else "none"
