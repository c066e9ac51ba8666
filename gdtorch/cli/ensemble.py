"""`python train.py ensemble --starts N`: very many starts at once, on one machine or many."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .options import LARGEST, Parser, RefusedError, claimed, emit, integer, number, say
from .training import SGD_OPTIONS, add_output_options, add_sgd_options, check_device, check_sgd

if TYPE_CHECKING:
    from ..ensemble import BlockError, Engine, Processes, Settings

MOST_HIDDEN = 10_000  # past that a block of networks takes gigabytes
EPILOG = """\
Start k is the start k of compare, where any of them can be replayed as a full logged run; the
report names some that are worth it.

A process uses one core. For more of them, or more machines, the same command under torchrun:
  torchrun --nproc-per-node=2 train.py ensemble --starts 100000 --name many --resume

example:
  python train.py ensemble --starts 100000 --steps 1000 --lr 0.1 0.3 1 3 10 30

exit status:
  0 all is well; 2 the input was wrong; 3 the run ended early (a full disk, a process that left);
  130 after Ctrl-C; 143 after SIGTERM; --resume goes on after each of the last three
"""


class _StoppedError(Exception):
    """Ctrl-C or SIGTERM has come."""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    options = _parser(program).parse(arguments)
    _check(options)

    import torch

    from ..ensemble import Processes
    from ..loop import Interrupts

    gc.freeze()  # what is imported stays: no collection need look at it again
    gc.enable()
    check_device(options.device, options.dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads would wait for one another; processes do not
    interrupts = Interrupts()

    def check() -> None:
        if interrupts.received:
            raise _StoppedError(interrupts.received)

    try:
        with Processes(options.device, check) as processes, interrupts:
            return _ensemble(options, processes, check)
    except _StoppedError as stop:
        (received,) = stop.args
        if os.environ.get("RANK", "0") == "0":  # torchrun passes a signal on to all
            say(f"interrupted ({received.name}){_go_on(options, program, arguments)}")
        return 128 + int(received)
    except ConnectionError as error:
        say(f"{error}{_go_on(options, program, arguments)}")
        return 3
    except OSError as error:
        folder = Path(options.logdir) / (options.name or "")
        say(f"cannot write to {folder}: {error.strerror}{_go_on(options, program, arguments)}")
        return 3
    finally:
        torch.set_num_threads(threads)


def _go_on(options: argparse.Namespace, program: str, arguments: Sequence[str]) -> str:
    if options.name is None:  # and no folder has been claimed
        return ""
    words = [word for word in arguments if word not in {"--overwrite", "--resume"}]
    named = any(word.partition("=")[0] == "--name" for word in words)
    words += ["--resume"] if named else ["--name", options.name, "--resume"]
    count = os.environ.get("LOCAL_WORLD_SIZE", "1")
    python = "python" if count == "1" else f"torchrun --nproc-per-node={count}"
    return f"; what is done is kept, go on with: {python} {program} {shlex.join(words)}"


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Train very many starts of the post's network by gradient descent, at one learning rate\n"
        "or more, and count what becomes of them: which have learned all rows, which are stuck on\n"
        "a plateau or a saddle, which still fall, what they say of the row held out.",
        EPILOG,
    )
    add = parser.add_argument
    add("--starts", type=integer(1, LARGEST), required=True, help="how many, at each learning rate")
    add("--steps", type=integer(1, LARGEST), default=1000, help="how many updates of each")
    add("--lr", type=number(0), nargs="+", default=[1.0], help="learning rates")
    add("--seed", type=integer(0, 2**64 - 1), default=0, help="which family of starts")
    add("--first-start", type=integer(0, LARGEST), default=0, help="the first of them")
    add("--hidden", type=integer(1, MOST_HIDDEN), default=15, help="hidden units")
    add("--dtype", choices=("float32", "float64"), default="float32", help="of all arithmetic")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or another that torch knows")
    add_sgd_options(add)
    add("--maximize", action="store_true", help="ascend, as torch.optim.SGD")
    add("--resume", action="store_true", help="go on with the run of that --name, or begin it")
    add_output_options(add)
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together; after a restart of torchrun's, resume."""
    check_sgd(options, options.lr)
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        options.resume, options.overwrite = options.name is not None, False
    if options.resume and options.name is None:
        raise RefusedError("--resume needs the --name of the run")
    if options.resume and options.overwrite:
        raise RefusedError("--resume goes on with a run, --overwrite removes it; choose one")
    for lr in options.lr:
        if lr == 0:
            raise RefusedError("--lr: with 0 no start moves; leave it out")
        if options.lr.count(lr) > 1:
            raise RefusedError(f"--lr names {lr:g} twice; name it once")


def _ensemble(options: argparse.Namespace, processes: Processes, check: Callable[[], None]) -> int:
    """Train and count this process's share; rank 0 reports what all came to."""
    import torch

    from ..board import EventFile
    from ..data import load_table
    from ..ensemble import FOLDER, Engine, progress_bar, train_units, write_settings
    from ..rundir import OUR_SUFFIX
    from .ensemble_report import DESCRIPTIONS, Report

    dtype = getattr(torch, options.dtype)
    table = load_table("post").to(dtype, processes.device)

    @lru_cache(maxsize=1)  # units of one learning rate come one after the other
    def make_engine(lr: float) -> Engine:
        sgd = {"lr": lr, **{option: getattr(options, option) for option in SGD_OPTIONS}}
        return Engine(table.learned, options.hidden, sgd, dtype=dtype, device=processes.device)

    if processes.rank == 0 and not options.quiet and sys.stderr.isatty():
        say("compiling the step: some ten seconds the first time, a second after that")
    engine = make_engine(options.lr[0])
    settings = _settings(options, engine, processes)
    with ExitStack() as stack:
        if processes.rank == 0:
            folder = stack.enter_context(claimed(options, (FOLDER,)))
            options.name = folder.name
            _check_alike(folder, settings)
            for earlier in folder.glob(f"*tfevents*{OUR_SUFFIX}"):
                earlier.unlink()
            file = stack.enter_context(closing(EventFile(folder, DESCRIPTIONS)))
            write_settings(folder, settings)
            processes.broadcast(json.dumps([str(folder), settings.facts()]))
            if engine.reason:
                say(f"steps are not compiled, and take about five times as long: {engine.reason}")
        else:
            folder = _told(options, settings, processes)
        with progress_bar(settings, processes, quiet=options.quiet) as bar:
            tallies = train_units(
                folder, settings, processes, table, make_engine, bar, check, _damaged
            )
        totals = [processes.total(tally) for tally in tallies]
        if processes.rank > 0:
            return 0
        report = Report(settings, folder, totals)
        report.write(file)
    if options.quiet and not options.json:
        return 0
    return emit(report.json() if options.json else report.text())


def _damaged(error: BlockError) -> None:
    say(f"{error}; its starts are trained anew")


def _settings(options: argparse.Namespace, engine: Engine, processes: Processes) -> Settings:
    """What the bits of the result depend on."""
    import torch

    from ..ensemble import BLOCK, Settings

    how = "compiled" if engine.compiled else "not compiled"
    if processes.device.type == "cuda":
        chip = torch.cuda.get_device_name(processes.device)
    else:
        chip = torch.backends.cpu.get_cpu_capability()
    return Settings(
        starts=options.starts,
        steps=options.steps,
        lr=tuple(options.lr),
        seed=options.seed,
        first_start=options.first_start,
        hidden=options.hidden,
        dtype=options.dtype,
        device=options.device,
        momentum=options.momentum,
        dampening=options.dampening,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
        maximize=options.maximize,
        engine=f"{how}, torch {torch.__version__}, {chip}",
        block=BLOCK,
    )


def _check_alike(folder: Path, settings: Settings) -> None:
    """Refuse to go on with a run of other settings."""
    from ..ensemble import BlockError, difference, read_settings

    try:
        earlier = read_settings(folder)
    except BlockError as error:
        say(f"{error}; it is written anew, and every block tells for itself whose it is")
        earlier = None
    if earlier is not None and (unlike := difference(earlier, settings.facts())):
        raise RefusedError(
            f"--resume: {folder} was begun with {unlike}; repeat the former, or choose "
            "another --name"
        )


def _told(options: argparse.Namespace, settings: Settings, processes: Processes) -> Path:
    """The folder that rank 0 has claimed, if this process has been started alike."""
    from ..ensemble import difference

    text, facts = json.loads(processes.broadcast(""))
    options.name = Path(text).name
    if unlike := difference(facts, settings.facts()):
        raise RefusedError(
            f"rank 0 was started with {unlike} as was rank {processes.rank}; start all alike"
        )
    return Path(text)
