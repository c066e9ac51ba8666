"""What is printed: facts as JSON or in words, a bar, and where to look."""

from __future__ import annotations

__all__ = ["as_json", "ended", "in_words", "progress_bar", "say", "show", "to_see"]

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

# Unsmoothed: TensorBoard's default of 0.6 blurs the step at which two curves part.
CHARTS = "custom_scalars&_smoothingWeight=0"
LONGEST_LINE = 2000  # characters that `say` prints; they fill half a screen
SLOW_SECONDS = 2.0  # a run that lasts longer gets a progress bar


def as_json(facts: object) -> str:
    """Facts as JSON; a number that is not finite becomes null."""
    finite = json.loads(json.dumps(facts), parse_constant=lambda _: None)
    return json.dumps(finite, indent=2, allow_nan=False)


def show(args: argparse.Namespace, facts: Mapping[str, Any], *blocks: str) -> int:
    """Print the facts, as --json or for a person, unless --quiet.

    Returns:
        Exit status 0, or 3 if standard output cannot be written. It is no error if the reader has
        left, as `| head` does.
    """
    text = as_json(facts) if args.json else "\n\n".join(filter(None, blocks))
    try:
        if args.json or not args.quiet:
            print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return ended(f"cannot write the output: {error.strerror}")
    return 0


def say(message: object) -> None:
    """Print a message as one line on standard error, whatever it quotes.

    Line breaks become spaces, and control characters are written out. Of a very long line both
    ends are kept: they say what was wrong, and how to mend it.
    """
    line = " ".join(str(message).split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"
    with suppress(OSError):  # if standard error is full, the exit status has to be enough
        print("gdtorch:", line, file=sys.stderr)


def ended(reason: object, status: int = 3) -> int:
    """Say why a run ended early; return its exit status."""
    say(reason)
    return status


def to_see(folder: Path, *pictures: str, page: str = CHARTS) -> str:
    """Where to look at a run: its pictures, the command, and the address of the page."""
    drawn = [f"Drawn:      {folder / picture}\n" for picture in pictures]
    command = f"tensorboard --logdir {shlex.quote(str(folder))}"
    return "".join([*drawn, f"To see it:  {command}\nthen open   http://localhost:6006/#{page}"])


def progress_bar(total: int, unit: str, *, shown: bool) -> tqdm[NoReturn]:
    """A progress bar. It appears in a terminal only, and only once the run has proved slow."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # or it starts a thread, which outlives the bar
    hide = None if shown else True  # None: unless in a terminal
    return tqdm(total=total, unit=unit, unit_scale=True, delay=SLOW_SECONDS, disable=hide)


def in_words(settings: Mapping[str, Any]) -> str:
    """How a run descends, from its settings: which way, over which rows, how far each step goes."""
    way = "ascent" if settings["maximize"] else "descent"
    if settings["descent"] == "steepest":
        lowers = "raises" if settings["maximize"] else "lowers"
        return f"steepest {way}, each as long as {lowers} the loss most, up to 2¹⁰⁰"
    if settings["descent"] == "stochastic":
        way = f"stochastic {way}, one row a step, all rows in each epoch,"
    if settings.get("optimizer", "SGD") != "SGD":
        return f"{way} by {_optimizer(settings)}"
    return f"{way} at lr {settings['lr']:g}"


def _optimizer(settings: Mapping[str, Any]) -> str:
    """`Adam(lr=0.01)`: the lr, and each option but `maximize` that is not PyTorch's default."""
    from ..optimizers import find

    kind = settings["optimizer"]
    unsaid = find(kind)().options() | {"lr": None, "maximize": settings["maximize"]}
    said = [f"{name}={settings[name]!r}" for name in unsaid if settings[name] != unsaid[name]]
    return f"{kind}({', '.join(said)})"
