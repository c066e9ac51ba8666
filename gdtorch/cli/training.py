"""Options of the commands that train, and what is refused before torch is loaded."""

from __future__ import annotations

__all__ = [
    "SGD_OPTIONS",
    "add_descent_options",
    "add_output_options",
    "add_sgd_options",
    "check_descent",
    "check_device",
    "check_numbers",
    "check_sgd",
    "choose_trainers",
    "make_descent",
    "progress_bar",
    "read_files",
    "settle_stride",
]

import argparse
import math
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from .options import LARGEST, RefusedError, add_run_options, integer, nearest, number

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..data import Record
    from ..descent import Descent

TRAINERS = ("post", "manual", "sgd")
DESCENTS = ("batch", "stochastic", "steepest")
SGD_OPTIONS = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
LONG_RUN = "--compile is for a long run of manual"
ALONE = {"post": LONG_RUN, "sgd": f"{LONG_RUN}; --trainers manual sgd has it beside"}
COMPILED_LOG_EVERY = 1000  # steps, unless the user says otherwise
LONGEST_STRIDE = 1000  # calls: a signal is noticed, and the bar moves, within some 40 ms
FLOAT32_MAX = 3.4028234663852886e38
SLOW_SECONDS = 2.0  # a run that lasts longer gets a progress bar


def add_descent_options(
    add: Callable[..., object], *, steps: int, lr: float, descents: Sequence[str] = DESCENTS
) -> None:
    """Add how far, how and which way to go; `options.lr` is None until `check_descent`."""
    add("--steps", type=integer(1, LARGEST), default=steps, help="how many updates")
    add("--lr", type=number(0), help=f"learning rate: the post's alpha (default: {lr})")
    one = "stochastic: one row a step; " if "stochastic" in descents else ""
    add(
        "--descent",
        choices=descents,
        default="batch",
        help=f"batch: all rows a step; {one}steepest: each step as long as serves best, found by "
        "line search",
    )
    add("--maximize", action="store_true", help="ascend, as torch.optim.SGD")


def add_sgd_options(add: Callable[..., object]) -> None:
    """Add the options of `torch.optim.SGD` that are neither `--lr` nor `--maximize`."""
    add("--momentum", type=number(0), default=0.0, help="as torch.optim.SGD")
    add("--dampening", type=number(), default=0.0, help="of momentum, as torch.optim.SGD")
    add("--weight-decay", type=number(0), default=0.0, help="as torch.optim.SGD")
    add("--nesterov", action="store_true", help="Nesterov momentum, as torch.optim.SGD")


def add_output_options(add: Callable[..., object]) -> None:
    """Add what is printed, and the run in TensorBoard's log directory."""
    add_run_options(add)
    add("--json", action="store_true", help="print the outcome as JSON")
    add("--quiet", action="store_true", help="print nothing but errors and what --json asks for")


def check_descent(options: argparse.Namespace, lr: float) -> None:
    """Settle `options.lr`, None where the line search finds it; refuse what does not go together.

    Args:
        options: parsed; an option that the command does not have counts as not used.
        lr: the default.
    """
    if options.descent != "steepest":
        options.lr = lr if options.lr is None else options.lr
        return
    if options.lr is not None:
        raise RefusedError("--descent steepest finds its own step sizes; leave out --lr")
    for option in ("momentum", "dampening", "nesterov"):
        if getattr(options, option, False):
            raise RefusedError(
                f"--descent steepest goes along the gradient alone; leave out --{option}"
            )
    if getattr(options, "weight_decay", False):
        raise RefusedError(
            "--descent steepest searches for the lowest loss, without a penalty; "
            "leave out --weight-decay"
        )


def check_sgd(options: argparse.Namespace, rates: Sequence[float]) -> None:
    """Refuse what `torch.optim.SGD` would refuse, and what is too large for the dtype."""
    if options.nesterov and (options.momentum == 0 or options.dampening != 0):
        raise RefusedError("--nesterov needs a --momentum above 0, and no --dampening")
    for option in ("lr", "momentum", "dampening", "weight_decay"):
        values = rates if option == "lr" else [getattr(options, option)]
        if options.dtype == "float32" and any(abs(value) > FLOAT32_MAX for value in values):
            raise RefusedError(f"--{option.replace('_', '-')} is too large for float32")


def check_device(device: str, dtype: str) -> None:
    """Refuse a device on which there is no arithmetic; loads torch."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of devices that torch knew once
            torch.ones(1, dtype=getattr(torch, dtype), device=device).item()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        sentence, *_ = re.split(r"\n|\. ", str(error), maxsplit=1)
        raise RefusedError(f"--device {device} cannot be used here: {sentence}") from error


def check_numbers(options: argparse.Namespace) -> None:
    """Refuse what fits no run of `compare`."""
    check_sgd(options, [] if options.lr is None else [options.lr])
    seeded = options.seed and options.descent != "stochastic"  # which shuffles by it
    if options.init is not None and (seeded or options.start):
        raise RefusedError("--init takes the place of --seed and --start; leave those out")


def read_files(options: argparse.Namespace) -> Sequence[Record]:
    """The rows of `--table`; refuse files that cannot be used, before torch is loaded."""
    from ..data import check_readable, read_table

    try:
        if options.init is not None:
            check_readable(options.init)
    except ValueError as error:
        raise RefusedError(f"--init {error}") from error
    try:
        return read_table(options.table)
    except ValueError as error:
        raise RefusedError(error) from error


def choose_trainers(options: argparse.Namespace) -> dict[str, str]:
    """Settle `options.trainers`; trainer → why it is left out."""
    asked = options.trainers
    for name in asked or ():
        if name not in TRAINERS:
            raise RefusedError(f"--trainers: unknown trainer {name}; {nearest(name, TRAINERS)}")
        if asked.count(name) > 1:
            raise RefusedError(f"--trainers: {name} is named twice; name it once")
    used = [f"--{option.replace('_', '-')}" for option in SGD_OPTIONS if getattr(options, option)]
    if options.descent != "batch":
        used.append(f"--descent {options.descent}")
    if not asked and getattr(options, "compile", False):
        options.trainers = ["manual"]
        return ALONE
    options.trainers = asked or TRAINERS
    if not used or "post" not in options.trainers:
        return {}
    reason = f"its loop has no {', '.join(used)}"
    if asked:
        raise RefusedError(f"--trainers: post cannot run: {reason}; leave out the one or the other")
    options.trainers = [name for name in TRAINERS if name != "post"]
    return {"post": reason}


def make_descent(name: str, seed: int = 0) -> Descent:
    """The descent of that name; the seed is that of the stochastic one's shuffles."""
    from ..descent import Batch, Steepest, Stochastic

    return {"batch": Batch(), "stochastic": Stochastic(seed), "steepest": Steepest()}[name]


def settle_stride(options: argparse.Namespace) -> int:
    """How many steps are taken at a time, which `--compile` makes many; settle `--log-every`."""
    if not options.compile:
        options.log_every = options.log_every or 1
        return 1
    from ..ensemble import CALL

    if options.descent != "batch":
        raise RefusedError(f"--compile takes batch steps; leave out --descent {options.descent}")
    if "manual" not in options.trainers:
        raise RefusedError("--compile is for the steps of manual; name it among --trainers")
    options.log_every = options.log_every or COMPILED_LOG_EVERY
    calls = 0
    for option in ("steps", "log_every", "curvature"):
        value = getattr(options, option) or 0
        if value % CALL:
            raise RefusedError(
                f"--compile takes {CALL} steps at a time: --{option.replace('_', '-')} {value} is "
                f"no multiple of it; {value + CALL - value % CALL} is"
            )
        calls = math.gcd(calls, value // CALL)
    return CALL * next(d for d in range(LONGEST_STRIDE, 0, -1) if calls % d == 0)


def progress_bar(options: argparse.Namespace) -> tqdm[NoReturn]:
    """A bar over the steps, on a terminal and unless --quiet, once the run proves slow."""
    from tqdm import tqdm

    shown = not options.quiet and sys.stderr is not None and sys.stderr.isatty()
    return tqdm(total=options.steps, unit="step", delay=SLOW_SECONDS, disable=not shown)
