"""Advance two trajectories together, and say at which step and why they part.

FILE:FUNCTION is a Python file and a function in it, which may be given options by name, each a
literal, as in 'mine.py:descend(momentum=0.9)' (quote it for the shell). It yields weights,
name → array: first the initial ones, then those after each step; or it trains with an optimizer of
torch.optim, whose steps are then seen. FILE.npz has both in arrays whose first axis is the step, as
gdtorch.Recorder or numpy.savez writes them. builtin:post, builtin:manual and builtin:sgd are
gdtorch's own trainers, from start 0 of seed 0 on the post's table, at lr 1; the latter two take the
options of torch.optim.SGD, as in 'builtin:sgd(lr=0.1, momentum=0.9)'.

With --name, the norms of both and their differences go to TensorBoard; without it, nothing does.

example:
  python train.py lockstep mine.py:descend builtin:sgd --rename W1=syn0 W2=syn1 --rows 7

exit status:
  0 the two agree, but for rounding; 1 they do not; 2 a file, a function or a trajectory cannot be
  used; 3 the log could not be written to its end; 130 after Ctrl-C; 143 after SIGTERM; 129
  after SIGHUP
"""  # noqa: D405 (as --help shows it)

from __future__ import annotations

__all__ = ["OPTIONS", "main"]

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Interrupts, options
from .functions import UsersError, locate, show_users, trajectory
from .options import RUN, RefusedError, integer, number, option
from .report import ended, progress_bar, show, to_see

if TYPE_CHECKING:
    from ..lockstep import Inspection, Report


def _pair(text: str) -> tuple[str, str]:
    """An option's type: OLD=NEW."""
    old, _, new = text.partition("=")
    if not old or not new or "=" in new:
        raise argparse.ArgumentTypeError(f"{text!r}: write it as OLD=NEW")
    return old, new


OPTIONS: options.Declarations = {
    "mine": option("your trajectory", metavar="FILE:FUNCTION"),
    "theirs": option("the one to hold it against", metavar="FILE:FUNCTION"),
    "--steps": option("how many updates to compare", integer(1), default=100),
    "--rows": option("how many rows the loss is over, to name a factor", integer(1)),
    "--rename": option(
        "weights named differently", _pair, nargs="+", default=[], metavar="OLD=NEW"
    ),
    "--lr": option("learning rate, to give a weight decay as a number", number(0)),
    "--seconds": option(
        "how long to look for mistakes in the gradient at most", number(0), default=30.0
    ),
    **options.shared(*RUN, "json"),
}


def main(program: str, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(_one_by_one(arguments))
    rename = dict(args.rename)
    if len(rename) < len(args.rename):
        raise RefusedError("--rename names a weight twice; name it once")
    who = (args.mine, args.theirs)
    for name in who:
        locate(name)
    # Import everything before the user's code runs: a file of theirs may have a name that we need.
    from ..lockstep import Inspection

    if args.name is not None:
        from .. import board  # noqa: F401

    folders: list[Path] = []
    try:
        with options.loaded(), options.refusing():
            mine, theirs = [trajectory(name, args.lr, folders) for name in who]
            inspection = Inspection(
                mine, theirs, args.steps, rows=args.rows, rename=rename, lr=args.lr, who=who
            )
            interrupts.defer()
            report, full = _inspect(inspection, args, interrupts)
    except UsersError as error:
        show_users(error)
        said = " ".join([str(error), *getattr(error, "__notes__", ())])
        raise RefusedError(f"{said}; the traceback above is of that code") from error
    where = to_see(Path(args.logdir) / args.name) if args.name and not full else ""
    printed = show(args, _facts(report), str(report), where)
    if received := interrupts.received:
        return ended(f"interrupted ({received.name}) after step {report.steps}", 128 + received)
    if full:
        return ended(full)
    return printed or (0 if report.agree else 1)


def _one_by_one(arguments: Sequence[str]) -> list[str]:
    """Write --rename A=B C=D as --rename=A=B --rename=C=D, so that it takes no FILE:FUNCTION."""
    words: list[str] = []
    renaming = False
    for word in arguments:
        name, _, _ = word.partition("(")  # so that mine.py:descend(lr=1) is none
        if renaming and "=" in name and not word.startswith("-"):
            if words[-1] == "--rename":
                words.pop()
            word = f"--rename={word}"
        else:
            renaming = word == "--rename"
        words.append(word)
    return words


def _inspect(
    inspection: Inspection, args: argparse.Namespace, interrupts: Interrupts
) -> tuple[Report, str]:
    """Run both, and log them if the run has a name; the report, and why the log ended early."""
    if args.name is None:
        for _ in inspection:
            if interrupts.received:
                break
        return _reported(inspection, args, interrupts), ""

    from ..board import OF_LOCKSTEP, PAIR, end_pair, event_files, log_pair
    from ..rundir import clear, unwritable

    step = 0
    with options.claimed(args, PAIR) as folder:
        try:
            with event_files(folder, PAIR, OF_LOCKSTEP) as files:
                for step in inspection:
                    log_pair(files, inspection.weights, inspection.differences, step)
                    if interrupts.received:
                        break
                report = _reported(inspection, args, interrupts)
                end_pair(files, inspection.differences, str(report), report.steps)
        except (ValueError, UsersError):
            clear(folder)
            raise
        except OSError as error:
            return _reported(inspection, args, interrupts), unwritable(
                folder, f"step {step}", error
            )
    return report, ""


def _reported(inspection: Inspection, args: argparse.Namespace, interrupts: Interrupts) -> Report:
    """The report, with a bar that shows how far the search for mistakes in the gradient is."""
    with progress_bar(0, "change", shown=not args.json) as bar:

        def progress(tried: int, of: int) -> bool:
            bar.total = of
            bar.update(tried - bar.n)
            return bool(interrupts.received)

        return inspection.report(args.seconds, progress)


def _facts(report: Report) -> dict[str, Any]:
    facts, second = asdict(report), report.diagnosis.second
    del facts["diagnosis"]
    facts["second"] = dict([second]) if second else None
    return facts | {"identical": report.identical, "agree": report.agree}
