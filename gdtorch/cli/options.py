"""Options of every command: one parser, numbers with limits, errors in one line."""

from __future__ import annotations

__all__ = [
    "Parser",
    "RefusedError",
    "add_run_options",
    "as_json",
    "claimed",
    "emit",
    "integer",
    "nearest",
    "number",
    "say",
]

import argparse
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

LARGEST = 2**62  # a limit beyond all use, that no message need name
LONGEST_LINE = 2000  # characters that `say` prints: half a screen


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
        for word in arguments:
            option, _, value = word.partition("=")
            if option.startswith("--") and value == "--":
                self.error(f"argument {option}: -- is no value")  # argparse makes it []
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            hint = nearest(unknown[0], self._option_string_actions, "see --help")
            raise RefusedError(f"unknown argument {unknown[0]}; {hint}")
        if options.overwrite and options.name is None:  # of `add_run_options`
            raise RefusedError("--overwrite needs the --name of the run to replace")
        _check_place(options)
        return options

    def error(self, message: str) -> NoReturn:
        """Refuse in one line, without the usage text."""
        raise RefusedError(f"{message}; see --help")


def nearest(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A hint for a mistyped word: the nearest one known, or else (by default) all of them."""
    bare = {name.lstrip("-"): name for name in known}  # two dashes alike make no words alike
    near = difflib.get_close_matches(word.lstrip("-"), bare, n=1)
    if near:
        return f"did you mean {bare[near[0]]}?"
    return otherwise or f"there is {', '.join(bare.values())}"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults where there are any, and leave the example in the epilog as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default is not None and action.default is not False and action.default != []
        return super()._get_help_string(action) if shown else action.help


def integer(low: int, high: int) -> Callable[[str], int]:
    """An option's type: a whole number from low to high."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value > high >= LARGEST:
            raise argparse.ArgumentTypeError(f"{value} is too large")
        if not low <= value <= high:
            between = f"between {low} and {high}" if high < LARGEST else f"{low} or more"
            raise argparse.ArgumentTypeError(f"{value} is not {between}")
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


def add_run_options(add: Callable[..., object]) -> None:
    """Add the options that name a run in TensorBoard's log directory."""
    add("--logdir", default="runs", help="TensorBoard's log directory")
    add("--name", help="the run's folder in it")
    add("--overwrite", action="store_true", help="replace a run of that name")


def _check_place(options: argparse.Namespace) -> None:
    """Refuse at once, before torch is loaded, what `claimed` would refuse for sure."""
    from ..rundir import check

    resume = getattr(options, "resume", False)
    # Of torchrun's processes the first has made the folder, or the run that it starts again has.
    others = bool({"RANK", "TORCHELASTIC_RESTART_COUNT"} & os.environ.keys())
    if not options.logdir:
        raise RefusedError("--logdir '' is not a folder; choose another")
    free = not (options.overwrite or resume or others)
    try:
        check(Path(options.logdir), options.name, free=free)
    except ValueError as error:
        raise RefusedError(error) from error
    except OSError as error:
        raise _place_refused(options, error) from error


def _place_refused(options: argparse.Namespace, error: OSError) -> RefusedError:
    return RefusedError(f"--logdir {options.logdir}: {error.strerror}; choose another")


@contextmanager
def claimed(options: argparse.Namespace, parts: Sequence[str]) -> Iterator[Path]:
    """Have the run's folder that the options name, with these folders to come in it."""
    from ..rundir import claim

    logdir = Path(options.logdir)
    resume = getattr(options, "resume", False)
    claim_it = claim(logdir, options.name, parts, overwrite=options.overwrite, resume=resume)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(claim_it)
        except ValueError as error:
            raise RefusedError(error) from error
        except OSError as error:
            raise _place_refused(options, error) from error
        yield folder


def as_json(facts: object) -> str:
    """Facts as JSON; a number that is not finite becomes null."""
    return json.dumps(_finite(facts), indent=2, allow_nan=False)


def _finite(facts: object) -> object:
    if isinstance(facts, Mapping):
        return {key: _finite(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_finite(value) for value in facts]
    if isinstance(facts, float) and not math.isfinite(facts):
        return None
    return facts


def emit(text: str) -> int:
    """Print on standard output; exit status 0, or 3 where that cannot be written.

    A reader who has left, as `| head` does, is no error.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"cannot write the output: {error.strerror}")
            return 3
    return 0


def say(message: object) -> None:
    """Say one line on standard error, whatever the message quotes.

    Line breaks become spaces, and what would steer the terminal is written out; of a line that
    fills the screen both ends are kept: what was wrong, and how to mend it.
    """
    line = " ".join(str(message).split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"
    with suppress(OSError):  # where standard error is full, the exit status must do
        print("gdtorch:", line, file=sys.stderr)
