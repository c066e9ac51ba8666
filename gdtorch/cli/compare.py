"""`python train.py compare`: post, manual and sgd in lockstep, into TensorBoard."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from .options import (
    LARGEST,
    Parser,
    RefusedError,
    add_run_options,
    claimed,
    emit,
    integer,
    nearest,
    number,
    say,
)

if TYPE_CHECKING:
    from ..data import Table
    from ..loop import Interrupts
    from ..net import SigmoidNet
    from ..trainers import Trainer

TRAINERS = ("post", "manual", "sgd")
SGD_OPTIONS = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
SETTINGS = (
    "table",
    "steps",
    "lr",
    *SGD_OPTIONS,
    "seed",
    "start",
    "init",
    "hidden",
    "dtype",
    "device",
)
THREADED = 1_000_000  # products smaller than that only wait for threads
FLOAT32_MAX = 3.4028234663852886e38
EPILOG = """\
commands:
  compare (this one, the default), lockstep; python train.py COMMAND --help tells about each

example:
  python train.py --lr 0.5 --momentum 0.9 --nesterov --steps 2000 --name nesterov

exit status:
  0 all is well; 1 manual and sgd differ; 2 the input was wrong; 3 the run ended early
  (a loss that is not finite, a full disk); 130 after Ctrl-C; 143 after SIGTERM
"""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    options = _parser(program).parse(arguments)
    left_out = _choose_trainers(options)
    _check_options(options)

    import torch

    from ..loop import Interrupts

    try:
        table, net, trainers = _prepare(options)
    except (ValueError, RuntimeError) as error:
        raise RefusedError(error) from error
    gc.freeze()  # what is imported stays: no collection need look at it again
    gc.enable()
    threads = torch.get_num_threads()
    if table.learned.inputs.numel() * options.hidden < THREADED:
        torch.set_num_threads(1)
    try:
        with Interrupts() as interrupts:
            return _train(options, table, net, trainers, left_out, interrupts)
    finally:
        torch.set_num_threads(threads)


def _train(
    options: argparse.Namespace,
    table: Table,
    net: SigmoidNet,
    trainers: list[Trainer],
    left_out: dict[str, str],
    interrupts: Interrupts,
) -> int:
    from ..board import Board
    from ..loop import run, unwritable
    from ..trajectory import Lockstep
    from .report import Report

    folder = claimed(options, options.trainers)
    reference = "sgd" if "sgd" in options.trainers else options.trainers[-1]
    lockstep = Lockstep({trainer.name: trainer for trainer in trainers}, reference)
    settings = {key: getattr(options, key) for key in SETTINGS}
    try:
        board = Board(folder, net, trainers, table, settings, options.steps)
    except OSError as error:
        say(unwritable(folder, 0, error))
        return 3
    with closing(board):
        ending = run(
            lockstep,
            board,
            interrupts,
            steps=options.steps,
            log_every=options.log_every,
            progress=not options.quiet,
        )
        report = Report(settings, folder, table, board.side_by_side(), lockstep, ending, left_out)
        try:
            board.finish(ending.step, report.markdown(), complete=ending.status == 0)
        except OSError as error:
            reason = ending.reason or unwritable(folder, ending.step, error)
            ending = report.ending = replace(ending, status=ending.status or 3, reason=reason)
    printed = 0
    if options.json or not options.quiet:
        printed = emit(report.json() if options.json else report.text())
    if ending.status:
        say(f"{ending.reason}; all until then is in {folder}")
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
    add("--steps", type=integer(1, LARGEST), default=1000, help="how many updates")
    add("--lr", type=number(0), default=1.0, help="learning rate: the post's alpha")
    add("--seed", type=integer(0, 2**64 - 1), default=0, help="with --start: which initial weights")
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
    add("--momentum", type=number(0), default=0.0, help="as torch.optim.SGD")
    add("--dampening", type=number(), default=0.0, help="of momentum, as torch.optim.SGD")
    add("--weight-decay", type=number(0), default=0.0, help="as torch.optim.SGD")
    add("--nesterov", action="store_true", help="Nesterov momentum, as torch.optim.SGD")
    add("--maximize", action="store_true", help="ascend, as torch.optim.SGD")
    add("--trainers", nargs="+", metavar="T", help="some of post, manual, sgd (default: all)")
    add_run_options(add)
    add("--log-every", type=integer(1, LARGEST), default=1, help="scalars every so many steps")
    add("--json", action="store_true", help="print the outcome as JSON")
    add("--quiet", action="store_true", help="print nothing but errors and what --json asks for")
    return parser


def _choose_trainers(options: argparse.Namespace) -> dict[str, str]:
    """Settle `options.trainers`; trainer → why it is left out."""
    asked = options.trainers
    for name in asked or ():
        if name not in TRAINERS:
            raise RefusedError(f"--trainers: unknown trainer {name}; {nearest(name, TRAINERS)}")
        if asked.count(name) > 1:
            raise RefusedError(f"--trainers: {name} is named twice; name it once")
    used = [f"--{option.replace('_', '-')}" for option in SGD_OPTIONS if getattr(options, option)]
    options.trainers = asked or TRAINERS
    if not used or "post" not in options.trainers:
        return {}
    reason = f"its loop has no {', '.join(used)}"
    if asked:
        raise RefusedError(f"--trainers: post cannot run: {reason}; leave out the one or the other")
    options.trainers = [name for name in TRAINERS if name != "post"]
    return {"post": reason}


def _check_options(options: argparse.Namespace) -> None:
    """Refuse what fits no run, before torch is loaded."""
    if options.nesterov and (options.momentum == 0 or options.dampening != 0):
        raise RefusedError("--nesterov needs a --momentum above 0, and no --dampening")
    for option in ("lr", "momentum", "dampening", "weight_decay"):
        if options.dtype == "float32" and abs(getattr(options, option)) > FLOAT32_MAX:
            raise RefusedError(f"--{option.replace('_', '-')} is too large for float32")
    if options.init is not None and (options.seed or options.start):
        raise RefusedError("--init takes the place of --seed and --start; leave those out")
    if options.overwrite and options.name is None:
        raise RefusedError("--overwrite needs the --name of the run to replace")


def _prepare(options: argparse.Namespace) -> tuple[Table, SigmoidNet, list[Trainer]]:
    """Make the table, the network and its trainers; raise ValueError for what cannot be made."""
    import torch

    from ..data import load_table
    from ..net import SigmoidNet, load_weights
    from ..options import Options
    from ..trainers import SGD, Manual, Post

    dtype = getattr(torch, options.dtype)
    try:
        torch.ones(1, dtype=dtype, device=options.device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"--device {options.device} cannot be used here: {first_line}") from error
    table = load_table(options.table).to(dtype, options.device)
    if not all(t.isfinite().all() for rows in (table.learned, table.held_out) for t in rows):
        raise ValueError(f"table {table.name} holds numbers too large for {options.dtype}")
    net = SigmoidNet(table.features, options.hidden, seed=options.seed, start=options.start)
    net.to(options.device, dtype)
    if options.init is not None:
        try:
            load_weights(net, options.init)
        except ValueError as error:
            raise ValueError(f"--init {error}") from error
    sgd: Options = {option: getattr(options, option) for option in SGD_OPTIONS}  # type: ignore[assignment]
    trainers: list[Trainer] = []
    for name in options.trainers:
        if name == "post":
            trainers.append(Post(net, table.learned, options.lr))
        else:
            maker = Manual if name == "manual" else SGD
            trainers.append(maker(net, table.learned, options.lr, **sgd))
    return table, net, trainers
