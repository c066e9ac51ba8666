"""Options of every command: one parser, numbers with limits, errors in one line."""

from __future__ import annotations

__all__ = ["Parser", "RefusedError", "integer", "number", "say"]

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class RefusedError(Exception):
    """The input was wrong: one line that says what, and how to mend it. Exit status 2."""


class Parser(argparse.ArgumentParser):
    """An `argparse` parser without abbreviations, that reads `-1e-3` as a number."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        # Before Python 3.14 argparse takes -1e-3 for an option.
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^-inf$")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments; name the nearest option for one that is unknown."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._option_string_actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "see --help"
            raise RefusedError(f"unknown argument {unknown[0]}; {hint}")
        return options

    def error(self, message: str) -> NoReturn:
        """Refuse in one line, without the usage text."""
        raise RefusedError(f"{message}; see --help")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, and leave the example in the epilog as it is written."""


def integer(low: int, high: int) -> Callable[[str], int]:
    """An option's type: a whole number from low to high."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return parse


def number(low: float = -math.inf) -> Callable[[str], float]:
    """An option's type: a finite number, not below low."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
        if value < low:
            raise argparse.ArgumentTypeError(f"{value:g} is less than {low:g}")
        return value

    return parse


def say(message: object) -> None:
    """Say one line on standard error, whatever line breaks the message came with."""
    print("gdtorch:", " ".join(str(message).split()), file=sys.stderr)
