"""`python train.py compare`: post, manual and sgd in lockstep, into TensorBoard."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from .options import LARGEST, Parser, RefusedError, claimed, emit, integer, say
from .training import (
    SGD_OPTIONS,
    add_descent_options,
    add_output_options,
    add_sgd_options,
    check_descent,
    check_device,
    check_numbers,
    choose_trainers,
    make_descent,
    progress_bar,
    read_files,
    settle_stride,
)

if TYPE_CHECKING:
    from ..data import Record, Table
    from ..loop import Interrupts
    from ..net import SigmoidNet
    from ..trainers import Trainer

LR = 1.0  # the post's alpha
SETTINGS = (
    *("table", "steps", "descent", "compile", "lr", *SGD_OPTIONS),
    *("seed", "start", "init", "hidden", "dtype", "device"),
)
THREADED = 1_000_000  # products smaller than that only wait for threads
EPILOG = """\
commands:
  compare (this one, the default), lockstep, questions, quartic, ensemble; python train.py
  COMMAND --help tells about each

example:
  python train.py --lr 0.5 --momentum 0.9 --nesterov --steps 2000 --name nesterov

exit status:
  0 all is well; 1 manual and sgd differ; 2 the input was wrong; 3 the run ended early
  (a loss that is not finite, a full disk); 130 after Ctrl-C; 143 after SIGTERM
"""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    options = _parser(program).parse(arguments)
    left_out = choose_trainers(options)
    stride = settle_stride(options)
    check_descent(options, LR)
    check_numbers(options)
    records = read_files(options)

    import torch

    from ..loop import Interrupts

    try:
        table, net, trainers = _prepare(options, records, stride)
    except ValueError as error:
        raise RefusedError(error) from error
    gc.freeze()  # what is imported stays: no collection need look at it again
    gc.enable()
    threads = torch.get_num_threads()
    if table.learned.inputs.numel() * options.hidden < THREADED:
        torch.set_num_threads(1)
    try:
        with Interrupts() as interrupts, claimed(options, options.trainers) as folder:
            return _train(options, folder, table, net, trainers, left_out, interrupts)
    finally:
        torch.set_num_threads(threads)


def _train(
    options: argparse.Namespace,
    folder: Path,
    table: Table,
    net: SigmoidNet,
    trainers: list[Trainer],
    left_out: Mapping[str, str],
    interrupts: Interrupts,
) -> int:
    from ..board import Board
    from ..lockstep import Lockstep
    from ..loop import run
    from ..rundir import unwritable
    from .report import Report

    reference = "sgd" if "sgd" in options.trainers else options.trainers[-1]
    stride = max(trainer.stride for trainer in trainers)
    lockstep = Lockstep(
        {t.name: islice(t, 0, None, stride // t.stride) for t in trainers}, reference, stride
    )
    for reason in filter(None, (getattr(trainer, "reason", "") for trainer in trainers)):
        options.compile = False
        say(f"steps are not compiled, and take about seven times as long: {reason}")
    settings = {key: getattr(options, key) for key in SETTINGS}
    try:
        board = Board(
            folder,
            net,
            trainers,
            table,
            settings,
            options.steps,
            curvature=options.curvature,
            limit=_limit(options),
        )
    except OSError as error:
        say(unwritable(folder, "step 0", error))
        return 3
    with closing(board):
        with progress_bar(options) as bar:
            ending = run(
                lockstep,
                board,
                interrupts,
                steps=options.steps,
                log_every=options.log_every,
                tick=bar.update,
            )
        report = Report(settings, folder, table, board, lockstep, ending, left_out)
        try:
            board.finish(ending.step, report.markdown(), complete=ending.status == 0)
        except OSError as error:
            reason = ending.reason or unwritable(folder, f"step {ending.step}", error)
            ending = report.ending = replace(ending, status=ending.status or 3, reason=reason)
    printed = 0
    if options.json or not options.quiet:
        printed = emit(report.json() if options.json else report.text())
    if ending.status:
        say(ending.reason + (f"; all until then is in {folder}" if folder.is_dir() else ""))
    return ending.status or printed or report.status


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Train the 3-15-1 sigmoid network by the post's own loop (post), by gradient descent\n"
        "written by hand (manual) and by torch.optim.SGD (sgd), compare their weights bit for\n"
        "bit after every step, and log all of it for TensorBoard.",
        EPILOG,
    )
    add = parser.add_argument
    add_descent_options(add, steps=1000, lr=LR)
    add(
        "--seed",
        type=integer(0, 2**64 - 1),
        default=0,
        help="with --start: which initial weights; also of the shuffles of --descent stochastic",
    )
    add(
        "--start",
        type=integer(0, LARGEST),
        default=0,
        help="which initial weights of the seed: 0, 1, 2 and so on",
    )
    add("--hidden", type=integer(1, 1_000_000), default=15, help="hidden units")
    add("--dtype", choices=("float64", "float32"), default="float64", help="of all arithmetic")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or another that torch knows")
    add("--table", default="post", help="post, xor, parity3, or the path of a CSV file")
    add("--init", metavar="FILE.pt", help="saved weights instead of a start")
    add_sgd_options(add)
    add("--trainers", nargs="+", metavar="T", help="some of post, manual, sgd (default: all)")
    add(
        "--log-every",
        type=integer(1, LARGEST),
        help="scalars every so many steps, with --compile 1000 (default: 1)",
    )
    add(
        "--compile",
        action="store_true",
        help="for millions of steps: manual alone, compiled, ten steps a call; their bits may "
        "differ from those of steps taken one by one",
    )
    add(
        "--curvature",
        type=integer(1, LARGEST),
        metavar="N",
        help="every N steps, log the extreme eigenvalues of the loss's Hessian and the limit of "
        "stable steps",
    )
    add_output_options(add)
    return parser


def _limit(options: argparse.Namespace) -> float:
    """The sharpness up to which steps are stable; nan where their size is not known."""
    from ..curvature import stable_limit

    if options.lr is None:
        return math.nan
    return stable_limit(
        options.lr, options.momentum, options.dampening, options.weight_decay, options.nesterov
    )


def _prepare(
    options: argparse.Namespace, records: Sequence[Record], stride: int
) -> tuple[Table, SigmoidNet, list[Trainer]]:
    """Make the table, the network and its trainers; raise ValueError for what cannot be made."""
    import torch

    from ..data import make_table
    from ..net import SigmoidNet, load_weights
    from ..trainers import SGD, Manual, Post

    dtype = getattr(torch, options.dtype)
    check_device(options.device, options.dtype)
    table = make_table(options.table, records).to(dtype, options.device)
    if not all(t.isfinite().all() for rows in (table.learned, table.held_out) for t in rows):
        raise ValueError(f"table {table.name} holds numbers too large for {options.dtype}")
    net = SigmoidNet(table.features, options.hidden, seed=options.seed, start=options.start)
    net.to(options.device, dtype)
    if options.init is not None:
        try:
            load_weights(net, options.init)
        except ValueError as error:
            raise ValueError(f"--init {error}") from error
    sgd = {option: getattr(options, option) for option in SGD_OPTIONS}
    lr = LR if options.lr is None else options.lr
    descent = make_descent(options.descent, options.seed)
    trainers: list[Trainer] = []
    for name in options.trainers:
        if name == "post":
            trainers.append(Post(net, table.learned, lr))
        elif name == "sgd":
            trainers.append(SGD(net, table.learned, lr, descent=descent, **sgd))
        elif not options.compile:
            trainers.append(Manual(net, table.learned, lr, descent=descent, **sgd))
        else:
            from ..ensemble import LongRun

            trainers.append(LongRun(net, table.learned, lr, stride=stride, **sgd))
    return table, net, trainers
