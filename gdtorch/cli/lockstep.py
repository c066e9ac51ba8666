"""`python train.py lockstep A.py:f B.py:g`: two trajectories of the user's own, side by side."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .functions import UsersError, locate, show, trajectory
from .options import (
    Parser,
    RefusedError,
    add_run_options,
    as_json,
    claimed,
    emit,
    integer,
    number,
    say,
)

if TYPE_CHECKING:
    from ..board import EventFiles
    from ..lockstep import Inspection, Report, Weights
    from ..loop import Interrupts

CHARTS = "scalars&_smoothingWeight=0"
EPILOG = """\
FILE:FUNCTION is a Python file and a function in it that takes no arguments and yields weights,
name → array: first the initial ones, then those after each step. builtin:post, builtin:manual and
builtin:sgd are gdtorch's own trainers, from start 0 of seed 0 on the post's table.

With --name, the norms of both and their differences go to TensorBoard; without it, nothing does.

example:
  python train.py lockstep mine.py:descend builtin:sgd --rename W1=syn0 W2=syn1 --rows 7

exit status:
  0 the two agree, but for rounding; 1 they do not; 2 a file, a function or a trajectory cannot be
  used; 3 the log could not be written to its end; 130 after Ctrl-C; 143 after SIGTERM
"""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    options = _parser(program).parse(arguments)
    rename = _renamed(options.rename)
    for name in (options.mine, options.theirs):
        locate(name)
    # All of ours is imported before any code of theirs, which may bear the names of what we need.
    from ..lockstep import Inspection
    from ..loop import Interrupts
    from .report import to_see

    try:
        folders: list[Path] = []
        mine, theirs = (
            trajectory(name, options.lr, folders) for name in (options.mine, options.theirs)
        )
        gc.enable()  # all is imported; `gdtorch.cli.main` disabled it
        inspection = Inspection(
            mine, theirs, options.steps, rows=options.rows, rename=rename, lr=options.lr
        )
        with Interrupts() as interrupts:
            report, full = _inspect(inspection, options, interrupts)
    except UsersError as error:
        show(error.__cause__)
        raise RefusedError(f"{error}; the traceback above is of that code") from error
    except ValueError as error:
        raise RefusedError(error) from error
    text = str(report)
    if options.name is not None and not full:
        text = "\n".join([text, "", *to_see(Path(options.logdir) / options.name, CHARTS)])
    printed = emit(as_json(_facts(report)) if options.json else text)
    if interrupts.received:
        say(f"interrupted ({interrupts.received.name}) after step {report.steps}")
        return 128 + interrupts.received
    if full:
        say(full)
        return 3
    return printed or (0 if report.agree else 1)


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Advance two trajectories together, compare them after every step, and say where and\n"
        "why they part.",
        EPILOG,
    )
    add = parser.add_argument
    add("mine", metavar="FILE:FUNCTION", help="your trajectory")
    add("theirs", metavar="FILE:FUNCTION", help="the one to hold it against")
    add("--steps", type=integer(0, 2**62), default=100, help="how many updates to compare")
    add("--rows", type=integer(1, 2**62), help="how many rows the loss is over, to name a factor")
    add(
        "--rename",
        nargs="+",
        default=[],
        metavar="A=B",
        help="weights named differently; after the files",
    )
    add("--lr", type=number(0), help="learning rate, to give a weight decay as a number")
    add_run_options(add)
    add("--json", action="store_true", help="print the report as JSON")
    return parser


def _renamed(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if not all(pair.partition("=")) or pair.count("=") > 1:
            raise RefusedError(f"--rename {pair!r}: write it as OLD=NEW")
    return dict(pair.split("=") for pair in pairs)


def _inspect(
    inspection: Inspection, options: argparse.Namespace, interrupts: Interrupts
) -> tuple[Report, str]:
    """Run both, and log them if the run has a name; the report, and why the log ended early."""
    if options.name is None:
        for _ in inspection:
            if interrupts.received:
                break
        return inspection.report(), ""

    from torch.utils.tensorboard.summary import text

    from ..board import OF_LOCKSTEP, EventFiles, of_differences
    from ..rundir import clear, unwritable

    parts = ("mine", "theirs")
    step = 0
    with claimed(options, parts) as folder:
        try:
            with closing(EventFiles(folder, parts, OF_LOCKSTEP)) as files:
                for step in inspection:
                    _log(files, step, inspection.weights, of_differences(inspection.differences))
                    if interrupts.received:
                        break
                report = inspection.report()
                files[""].add(text("summary", str(report).replace("\n", "\n\n")), report.steps)
        except (ValueError, UsersError):
            clear(folder)
            raise
        except OSError as error:
            return inspection.report(), unwritable(folder, f"step {step}", error)
    return report, ""


def _log(
    files: EventFiles, step: int, weights: tuple[Weights, Weights], differences: dict[str, float]
) -> None:
    for part, theirs, more in zip(("mine", "theirs"), weights, (differences, {}), strict=True):
        norms = {f"weight_norm/{name}": w.norm().item() for name, w in theirs.items()}
        files[part].add_scalars(norms | more, step)


def _facts(report: Report) -> dict[str, Any]:
    facts = asdict(report)
    del facts["diagnosis"]
    second = report.diagnosis.second
    facts["second"] = dict([second]) if second else None
    return facts | {"identical": report.identical, "agree": report.agree}
