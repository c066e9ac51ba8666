"""Train very many starts of a network at once, and count what becomes of them.

At one learning rate or more: which have learned all rows, which are stuck on a plateau or a saddle,
which still fall, what they say of the row held out.

Start k is the start k of compare, where any of them can be replayed as a full logged run; the
report names some that are worth it.

A process uses one core. For more of them, or more machines, the same command under torchrun:
  torchrun --nproc-per-node=2 train.py ensemble --starts 100000 --name many --resume

example:
  python train.py ensemble --starts 100000 --steps 1000 --lr 0.1 0.3 1 3 10 30
  python train.py ensemble --starts 10000 --table xor --hidden 4 --steps 5000

exit status:
  0 all is well; 2 the input was wrong; 3 the run ended early (a full disk, a process that left);
  130 after Ctrl-C; 143 after SIGTERM; 129 after SIGHUP; --resume goes on after each of the last
  four
"""  # noqa: D405 (as --help shows it)

from __future__ import annotations

__all__ = ["OPTIONS", "facts", "main"]

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import aligned, count, fenced
from . import Interrupts, options
from .options import OUTPUT, SGD_OPTIONS, SHARED, RefusedError, flag, integer, number, option
from .report import as_json, ended, progress_bar, say, show, to_see

if TYPE_CHECKING:
    from ..board import EventFile
    from ..data import Record, Table
    from ..ensemble import Processes, Settings, Tally

MOST_HIDDEN = 10_000  # with more, a block of networks takes gigabytes
OPTIONS = {
    "--starts": option("how many, at each learning rate", integer(1), required=True),
    **options.shared("table", "steps"),
    "--lr": option("learning rates (default: 1.0)", number(0), nargs="+"),
    **options.shared("seed", seed={"help": "which family of starts"}),
    "--first-start": option("the first of them", integer(0), default=0),
    **options.shared(
        *("hidden", "dtype", "device", *SGD_OPTIONS),
        hidden={"type": integer(1, MOST_HIDDEN)},
        dtype={"default": "float32"},
    ),
    "--resume": option("go on with the run of that --name, or begin it", bool),
    **options.shared(*OUTPUT),
}
MEANING = """\
stuck: a row is wrong, and by its gradient as many steps again would change the loss by less than
1 %. Of a sample of these the Hessian tells the saddles, where curvature leads away within as many
steps by a factor of e, from the plateaus. steps: the median of the starts that ever had all rows
right; looked at every 10 steps, after 400 every 5 %. Quantiles of the loss are within 0.5 %, the
least and the greatest exact. At a large lr (3 and more in float32 on the post's table) rounding
decides single starts: the shares hold, but one start replayed may end otherwise."""


def main(program: str, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(arguments)
    _check(args)

    from ..data import read_table

    with options.refusing():
        records = read_table(args.table)

    from ..ensemble import Processes

    options.check_device(args.device, args.dtype)

    def check() -> None:
        if interrupts.received:
            raise InterruptedError(interrupts.received)

    interrupts.defer()
    try:
        # One thread a process: threads would wait for one another, processes do not.
        with options.loaded(one_thread=True), Processes(args.device, check) as processes:
            return _ensemble(args, records, processes)
    except InterruptedError as stop:
        (received,) = stop.args
        if os.environ.get("RANK", "0") == "0":  # torchrun passes a signal on to all
            say(f"interrupted ({received.name}){_go_on(args, program, arguments)}")
        return 128 + int(received)
    except OSError as error:
        why = f"cannot write to {Path(args.logdir) / (args.name or '')}: {error.strerror}"
        if isinstance(error, ConnectionError):
            why = str(error)
        return ended(f"{why}{_go_on(args, program, arguments)}")


def _go_on(args: argparse.Namespace, program: str, arguments: Sequence[str]) -> str:
    if args.name is None:  # so no folder has been claimed
        return ""
    words = [word for word in arguments if word not in {"--overwrite", "--resume"}]
    named = any(word.partition("=")[0] == "--name" for word in words)
    words += ["--resume"] if named else ["--name", args.name, "--resume"]
    count = os.environ.get("LOCAL_WORLD_SIZE", "1")
    python = "python" if count == "1" else f"torchrun --nproc-per-node={count}"
    return f"; what is done is kept, go on with: {python} {program} {shlex.join(words)}"


def _check(args: argparse.Namespace) -> None:
    """Refuse options that exclude each other; after a restart by torchrun, resume."""
    args.lr = sorted(args.lr or [1.0])
    options.check_sgd(args, args.lr[-1])
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        args.resume, args.overwrite = args.name is not None, False
    if args.resume and args.name is None:
        raise RefusedError("--resume needs the --name of the run")
    if args.resume and args.overwrite:
        raise RefusedError("--resume goes on with a run, --overwrite removes it; choose one")
    for lr in args.lr:
        if lr == 0:
            raise RefusedError("--lr: with 0 no start moves; leave it out")
        if args.lr.count(lr) > 1:
            raise RefusedError(f"--lr names {lr:g} twice; name it once")


def _ensemble(args: argparse.Namespace, records: Sequence[Record], processes: Processes) -> int:
    """Train and count this process's share; rank 0 reports what all came to."""
    import torch

    from ..board import OF_ENSEMBLE, EventFile
    from ..data import make_table
    from ..ensemble import FOLDER, Engine, Settings, begin, train_units
    from ..rundir import OUR_SUFFIX

    dtype = getattr(torch, args.dtype)
    with options.refusing():
        table = make_table(args.table, records).to(dtype, processes.device)
    if processes.rank == 0 and not args.quiet and sys.stderr.isatty():
        say("compiling the step: ten to forty seconds the first time, a second after that")
    sgd = {name: getattr(args, name) for name in SGD_OPTIONS}
    engines = {
        lr: Engine(
            table.learned, args.hidden, sgd | {"lr": lr}, dtype=dtype, device=processes.device
        )
        for lr in args.lr
    }
    engine = engines[args.lr[0]]
    chosen = Settings(
        **options.settings(args),
        table_checksum=blake2b(repr(records).encode(), digest_size=8).hexdigest(),
        engine=engine.arithmetic,
        block=engine.block,
    )
    with ExitStack() as stack:
        if processes.rank == 0:
            folder = stack.enter_context(options.claimed(args, (FOLDER,)))
            args.name = folder.name
            with options.refusing("--resume: "):
                begin(folder, chosen, say)
            for earlier in folder.glob(f"*tfevents*{OUR_SUFFIX}"):
                earlier.unlink()
            file = stack.enter_context(closing(EventFile(folder, OF_ENSEMBLE)))
            processes.broadcast(json.dumps([str(folder), chosen.facts()]))
            if engine.reason:
                say(f"steps are not compiled, and take about five times as long: {engine.reason}")
        else:
            folder = _announced(args, chosen, processes)
        share = sum(unit.starts for unit in chosen.units(processes.rank, processes.count))
        with progress_bar(
            processes.count * chosen.steps * share,  # for all processes, judged by this one
            " networks × steps",
            shown=processes.rank == 0 and not args.quiet,
        ) as bar:
            tallies = train_units(folder, chosen, processes, table, engines, bar, say)
        totals = [processes.total(tally) for tally in tallies]
        if processes.rank > 0:
            return 0
        found = facts(chosen, folder, totals, table)
        page = _page(found, table)
        _write(file, folder, found, totals, fenced(page))
    return show(args, found, page, to_see(folder, "ensemble.png"))


def _announced(args: argparse.Namespace, settings: Settings, processes: Processes) -> Path:
    """The folder that rank 0 has claimed; refuse if this process was started differently."""
    from ..ensemble import difference

    text, facts = json.loads(processes.broadcast(""))
    args.name = Path(text).name
    if unlike := difference(facts, settings.facts()):
        raise RefusedError(f"rank 0 was started with {unlike}; start all alike")
    return Path(text)


def facts(
    settings: Settings, folder: Path, tallies: Sequence[Tally], table: Table
) -> dict[str, Any]:
    """What was run and what came out, for a program; one tally for each of `settings.lr`."""
    rates: list[dict[str, Any]] = []
    for lr, tally in zip(settings.lr, tallies, strict=True):
        replay = {kind: _replay(settings, start, lr) for kind, start in tally.telling().items()}
        rates.append({"lr": lr, **tally.facts(settings.steps), "replay": replay})
        if not table.held_out_labels:
            del rates[-1]["counts"]["held_out"], rates[-1]["shares"]["held_out"]
    held_out = list(table.held_out_labels)
    return {"run": str(folder), "settings": settings.facts(), "held_out": held_out, "rates": rates}


def _replay(settings: Settings, start: int, lr: float) -> str:
    """The command that trains one start as a full logged run."""
    words = [f"--start {start} --seed {settings.seed} --lr {lr!r} --steps {settings.steps}"]
    words.append(f"--dtype {settings.dtype}")
    for name in ("table", "hidden", "device", *SGD_OPTIONS):
        value = getattr(settings, name)
        if value != SHARED[name].get("default", False):
            words.append(flag(name) if value is True else f"{flag(name)} {shlex.quote(str(value))}")
    program = Path(sys.argv[0]).name  # "python -m gdtorch" is one, too
    python = f"python {shlex.quote(program)}" if program.endswith(".py") else program
    return f"{python} {' '.join(words)}"


def _kinds(facts: Mapping[str, Any]) -> dict[str, str]:
    """The kinds of end that are shown, each with a name: divergence only where there is any."""
    kinds = {"learned": "all rows right"}
    if labels := facts["held_out"]:
        rows = f"row {labels[0]}" if len(labels) == 1 else "rows"
        kinds["held_out"] = f"held-out {rows} right"
    kinds |= {"stuck": "stuck", "falling": "still falling"}
    if any(rate["counts"]["diverged"] for rate in facts["rates"]):
        kinds["diverged"] = "diverged"
    return kinds


def _page(facts: Mapping[str, Any], table: Table) -> str:
    """The facts for a person."""
    s, rates, kinds = facts["settings"], facts["rates"], _kinds(facts)
    heading = (
        f"network {table.features}-{s['hidden']}-1, {s['dtype']}, from starts {s['first_start']} "
        f"to {s['first_start'] + s['starts'] - 1} of seed {s['seed']}\n"
        f"table {table.name}: {count(len(table.learned_labels), 'row')} to learn, "
        f"{len(table.held_out_labels)} held out; {count(s['steps'], 'step')} of "
        f"{'ascent' if s['maximize'] else 'descent'} at each lr"
    )
    shares = [["lr", *kinds.values(), "plateaus of sample", "steps"]]
    losses = [["lr", *("least", "loss at 1 %", "median", "99 %", "greatest")]]
    worth = ["Worth replaying:"]
    for rate in rates:
        lr, counts, steps = f"{rate['lr']:g}", rate["counts"], rate["median_steps"]
        sampled = counts["plateau"] + counts["saddle"]
        percents = [f"{100 * rate['shares'][kind]:.2f} %" for kind in kinds]
        plateaus = f"{counts['plateau']} of {sampled}" if sampled else ""
        shares.append([lr, *percents, plateaus, "" if steps is None else str(steps)])
        losses.append([lr, *(f"{loss:.3e}" for loss in rate["loss"].values())])
        for kind, command in rate["replay"].items():
            worth.append(f"  {f'lr {lr}, {kind}':<28}  {command}")
    return "\n\n".join([heading, aligned(shares), aligned(losses), MEANING, "\n".join(worth)])


def _write(
    file: EventFile, folder: Path, facts: Mapping[str, Any], tallies: Sequence[Tally], text: str
) -> None:
    """Write `summary.json`, the figure, and what TensorBoard shows; `text` is the summary there.

    Raises:
        OSError: the folder takes no more.
    """
    from ..board import show_ensemble
    from ..rundir import write

    s = facts["settings"]
    each = f"{count(s['starts'], 'start')} at each learning rate, {count(s['steps'], 'step')}"
    title = f"table {Path(s['table']).name}: {each}"
    histograms = [tally.histograms() for tally in tallies]
    show_ensemble(file, facts["rates"], _kinds(facts), histograms, title, text)
    write(folder / "summary.json", as_json(facts).encode() + b"\n", durable=True)
