"""Train by the post's loop, by hand and by torch.optim, in lockstep, into TensorBoard.

The 3-15-1 sigmoid network is trained by the post's own loop (post), by gradient descent written
by hand (manual) and by torch.optim.SGD (sgd). Their weights are compared bit for bit after every
step, and all of it is logged. With --optimizer another of torch.optim takes the place of SGD, in
manual by hand and beside it for real, under its own name (adam); the post has no such loop.

commands:
  compare (this one, the default), lockstep, questions, quartic, ensemble; python train.py
  COMMAND --help tells about each

example:
  python train.py --lr 0.5 --momentum 0.9 --nesterov --steps 2000 --name nesterov
  python train.py --optimizer 'Adam(lr=0.01, betas=(0.9, 0.99), amsgrad=True)'

exit status:
  0 all is well; 1 manual and torch.optim differ; 2 the input was wrong; 3 the run ended early
  (a loss that is not finite, a full disk); 130 after Ctrl-C; 143 after SIGTERM; 129
  after SIGHUP
"""  # noqa: D405 (as --help shows it)

from __future__ import annotations

__all__ = ["OPTIONS", "main"]

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import aligned, count, fenced
from . import Interrupts, options
from .options import OUTPUT, SGD_OPTIONS, RefusedError, flag, integer, option, refusing
from .report import ended, in_words, progress_bar, say, show, to_see

if TYPE_CHECKING:
    from ..board import Board
    from ..data import Table
    from ..net import SigmoidNet
    from ..optimizers import Rule
    from ..trainers import Trainer

LR = 1.0  # the post's alpha
LONG_RUN = "--compile is for a long run of manual"
ALONE = {"post": LONG_RUN, "sgd": f"{LONG_RUN}; --trainers manual sgd has it beside"}
COMPILED = "manual is compiled: its bits may differ from those of steps taken one by one"
COMPILED_LOG_EVERY = 1000  # steps; the default with --compile
LONGEST_STRIDE = 10_000  # steps, some 40 ms: then a signal is noticed and the bar moves
THREADED = 1_000_000  # products; with fewer, threads cost more time than they save
SMALL_LOSS = 5e-5  # a smaller loss is printed with an exponent: six decimals would show one digit
FEW_ROWS = 4  # held out; up to so many get a column each

OPTIONS = {
    **options.shared("table", "steps", "lr"),
    "--descent": option(
        "batch: all rows a step; stochastic: one row a step; steepest: each step as long as "
        "serves best, found by line search",
        choices=("batch", "stochastic", "steepest"),
        default="batch",
    ),
    "--shuffle-seed": option("of the shuffles of --descent stochastic", options.SEED, default=0),
    "--compile": option(
        "for millions of steps: manual alone, compiled, ten steps a call; their bits may differ "
        "from those of steps taken one by one",
        bool,
    ),
    **options.shared(*SGD_OPTIONS),
    "--optimizer": option(
        "another of torch.optim in place of SGD, as in Python: 'Adam(lr=0.01, amsgrad=True)'; what "
        "is left out is PyTorch's default, lr too",
        metavar="RULE",
    ),
    **options.shared("seed", "start"),
    "--init": option("saved weights instead of a start", metavar="FILE.pt"),
    **options.shared("hidden", "dtype", "device"),
    "--trainers": option(
        "some of post, manual, sgd, or what --optimizer names (default: all)",
        nargs="+",
        metavar="T",
    ),
    "--log-every": option(
        "scalars every so many steps, with --compile 1000 (default: 1)", integer(1)
    ),
    "--curvature": option(
        "every N steps, log the Hessian's extreme eigenvalues and, with SGD, the limit of stable "
        "steps",
        integer(1),
        metavar="N",
    ),
    "--figure": option("draw loss and distance along training, as curves.png in the folder", bool),
    **options.shared(*OUTPUT),
}


def main(program: str, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(arguments)
    _settle_optimizer(args)
    _choose_trainers(args)
    _settle_stride(args)
    if args.curvature and args.curvature > args.steps:
        raise RefusedError(f"--curvature {args.curvature} is more than --steps {args.steps}")
    if args.init is not None and (args.seed or args.start):
        raise RefusedError("--init takes the place of --seed and --start; leave those out")
    from ..data import check_readable, make_table, read_table

    with refusing("--init "):
        if args.init is not None:
            check_readable(args.init)
    with refusing():
        records = read_table(args.table)
        import torch

        from ..net import SigmoidNet, load_weights

        dtype = getattr(torch, args.dtype)
        options.check_device(args.device, args.dtype)
        table = make_table(args.table, records).to(dtype, args.device)
        net = SigmoidNet(table.features, args.hidden, seed=args.seed, start=args.start)
        net.to(args.device, dtype)
        if args.init is not None:
            with refusing("--init "):
                load_weights(net, args.init)
        with refusing("--optimizer: "):
            args.optimizer.try_out(dtype)
        trainers = [_make(name, args, net, table) for name in args.trainers]
    interrupts.defer()
    few = table.learned.inputs.numel() * args.hidden < THREADED
    with options.loaded(one_thread=few), options.claimed(args, args.trainers) as folder:
        return _train(args, folder, table, net, trainers, interrupts)


def _settle_optimizer(args: argparse.Namespace) -> None:
    """Settle `args.optimizer`, a rule: that of --optimizer, or SGD with the options beside it."""
    from ..optimizers import SGD, read

    if args.optimizer is not None:
        try:
            rule = _within_parentheses(args, read(args.optimizer))
        except ValueError as error:
            raise RefusedError(f"argument --optimizer: {error}; see --help") from error
        if not isinstance(rule, SGD):
            leave_out = f"leave out --optimizer {type(rule).__name__}"
            if args.compile:
                raise RefusedError(f"--compile is for SGD alone; {leave_out}")
            if args.descent == "steepest":
                raise RefusedError(f"--descent steepest goes along the gradient alone; {leave_out}")
            for name in ("lr", *SGD_OPTIONS):  # the settings have the rule's own instead
                delattr(args, name)
            args.optimizer, args.maximize = rule, rule.maximize
            return
        vars(args).update(rule.options())
        if args.descent == "steepest" and rule.lr == SGD.lr:
            args.lr = None
    options.check_descent(args, LR)
    options.check_sgd(args, args.lr or 0)
    sgd = {name: getattr(args, name) for name in SGD_OPTIONS}
    args.optimizer = SGD(LR if args.lr is None else args.lr, **sgd)


def _within_parentheses(args: argparse.Namespace, rule: Rule) -> Rule:
    """The rule of --optimizer in floats; refuse numbers it cannot have, and options beside it."""
    own = ["lr"] if args.lr is not None else []
    own += [name for name in SGD_OPTIONS if name != "maximize" and getattr(args, name)]
    if own:
        raise RefusedError(
            "--optimizer takes its options in its parentheses, as in "
            f"{type(rule).__name__}(lr=0.01); leave out {', '.join(map(flag, own))}"
        )
    floats: dict[str, Any] = {}
    for name, value in rule.options().items():
        if isinstance(value, bool):
            continue
        # torch refuses an integer of more than 64 bits, and no other number.
        numbers = tuple(map(float, value if isinstance(value, tuple) else (value,)))
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{name} is not finite")
        if args.dtype == "float32" and max(map(abs, numbers)) > options.FLOAT32_MAX:
            raise RefusedError(f"--optimizer: {name} is too large for float32")
        floats[name] = numbers if isinstance(value, tuple) else numbers[0]
    return replace(rule, **floats, maximize=args.maximize or rule.maximize)


def _choose_trainers(args: argparse.Namespace) -> None:
    """Settle `args.trainers`, and `args.left_out`: trainer → why it is left out."""
    asked = args.trainers
    kind = type(args.optimizer).__name__
    known = ("post", "manual", kind.lower())
    for name in asked or ():
        if name not in known:
            hint = options.nearest(name, known)
            raise RefusedError(f"--trainers: unknown trainer {name}; {hint}")
        if asked.count(name) > 1:
            raise RefusedError(f"--trainers: {name} is named twice; name it once")
    used = [] if kind == "SGD" else [f"--optimizer {kind}"]
    used += [flag(name) for name in SGD_OPTIONS if vars(args).get(name)]
    if args.descent != "batch":
        used.append(f"--descent {args.descent}")
    reason = f"its loop has no {', '.join(used)}"
    if used and "post" in (asked or ()):
        raise RefusedError(f"--trainers: post cannot run: {reason}; leave out the one or the other")
    args.left_out = {}
    if not asked:
        args.left_out = ALONE if args.compile else {"post": reason} if used else {}
    args.trainers = asked or [name for name in known if name not in args.left_out]


def _settle_stride(args: argparse.Namespace) -> None:
    """Settle `args.stride`, how many steps `--compile` takes at a time, and `args.log_every`."""
    if not args.compile:
        args.stride, args.log_every = 1, args.log_every or 1
        return

    from ..ensemble import CALL

    if args.descent != "batch":
        raise RefusedError(f"--compile takes batch steps; leave out --descent {args.descent}")
    if "manual" not in args.trainers:
        raise RefusedError("--compile is for the steps of manual; name it among --trainers")
    args.log_every = args.log_every or COMPILED_LOG_EVERY
    counts = {name: getattr(args, name) or 0 for name in ("steps", "log_every", "curvature")}
    for name, value in counts.items():
        if value % CALL:
            raise RefusedError(
                f"--compile takes {CALL} steps at a time: {flag(name)} {value} is no multiple of "
                f"it; {value + CALL - value % CALL} is"
            )
    args.stride = math.gcd(LONGEST_STRIDE, *counts.values())


def _make(name: str, args: argparse.Namespace, net: SigmoidNet, table: Table) -> Trainer:
    """Make one trainer; it begins at the network's weights."""
    from ..descent import Batch, Descent, Steepest, Stochastic
    from ..trainers import named

    if name == "manual" and args.compile:
        from ..ensemble import LongRun

        return LongRun(net, table.learned, stride=args.stride, **args.optimizer.options())
    shuffled = partial(Stochastic, args.shuffle_seed)
    descents: dict[str, Callable[[], Descent]]
    descents = {"batch": Batch, "stochastic": shuffled, "steepest": Steepest}
    return named(name, net, table.learned, args.optimizer, descents[args.descent]())


def _train(
    args: argparse.Namespace,
    folder: Path,
    table: Table,
    net: SigmoidNet,
    trainers: list[Trainer],
    interrupts: Interrupts,
) -> int:
    from ..board import Board, reference_of
    from ..lockstep import Lockstep, verdict
    from ..loop import run
    from ..rundir import unwritable

    for reason in filter(None, (getattr(trainer, "reason", "") for trainer in trainers)):
        args.compile = False
        say(f"steps are not compiled, and take about seven times as long: {reason}")
    kind = {"optimizer": type(args.optimizer).__name__}
    settings = args.optimizer.options() | options.settings(args) | kind
    reference = reference_of(args.trainers)
    by_name = {trainer.name: trainer for trainer in trainers}
    strided = {n: islice(t, 0, None, args.stride // t.stride) for n, t in by_name.items()}
    lockstep = Lockstep(strided, reference, args.stride)
    try:
        board = Board(folder, net, trainers, table, settings, args.steps, curvature=args.curvature)
    except OSError as error:
        return ended(unwritable(folder, "step 0", error))
    with closing(board):
        with progress_bar(args.steps, "step", shown=not args.quiet) as bar:
            ending = run(
                lockstep,
                board,
                steps=args.steps,
                log_every=args.log_every,
                tick=bar.update,
                interrupted=lambda: interrupts.received,
            )
        fresh = None if args.compile else partial(_make, args=args, net=net, table=table)
        comparisons = {
            name: {
                "reference": reference,
                "identical": comparison.identical,
                "verdict": verdict(by_name[name], lockstep, net, fresh),
                **asdict(comparison),
            }
            for name, comparison in lockstep.comparisons.items()
        }
        manual = lockstep.comparisons.get("manual")
        differ = manual is not None and not manual.identical and reference != "post"
        facts = {
            "run": str(folder),
            "settings": settings,
            "left_out": args.left_out,
            "steps": ending.step,
            "status": ending.status or int(differ and not args.compile),
            "reason": ending.reason,
            "trainers": board.outcomes(),
            "comparisons": comparisons,
        }
        pages = _pages(facts, board, reference)
        try:
            if args.figure:
                board.draw()
            board.finish(ending.step, _texts(pages, facts), complete=ending.status == 0)
        except OSError as error:
            if not ending.reason:
                reason = unwritable(folder, f"step {ending.step}", error)
                facts |= {"status": 3, "reason": reason}
    where = to_see(folder, *["curves.png"] * args.figure) if folder.is_dir() else ""
    printed = show(args, facts, pages[""], where)
    if facts["reason"]:
        kept = f"; all until then is in {folder}" if where else ""
        return ended(facts["reason"] + kept, facts["status"])
    return printed or facts["status"]


def _pages(facts: Mapping[str, Any], board: Board, reference: str) -> dict[str, str]:
    """The facts for a person: each trainer's own under its name, and under "" all of them."""
    settings, table = facts["settings"], board.table
    start = settings["init"] or f"start {settings['start']} of seed {settings['seed']}"
    heading = (
        f"network {table.features}-{settings['hidden']}-1, {board.size} weights, "
        f"{settings['dtype']}, from {start}\n"
        f"table {table.name}: {count(len(table.learned_labels), 'row')} to learn, "
        f"{len(table.held_out_labels)} held out; {count(facts['steps'], 'step')} of "
        f"{in_words(settings)}"
    )
    sentences = [f"{name} is left out: {reason}" for name, reason in facts["left_out"].items()]
    agreeing_first = sorted(facts["comparisons"].values(), key=lambda c: not c["identical"])
    sentences += [comparison["verdict"] for comparison in agreeing_first]
    if not agreeing_first:
        sentences.append("one trainer alone: nothing to compare it with")
    if settings["compile"]:
        sentences.append(COMPILED)
    if reference in board.sharpest:
        sharpness, step = board.sharpest[reference]
        stable = f"; steps are stable up to {board.limit:.3g}" if math.isfinite(board.limit) else ""
        sentences.append(
            f"sharpness of {reference}: {sharpness:.3g} at most, seen after step {step}{stable}"
        )
    header, *rows = _cells(facts["trainers"])
    pages = {"": "\n\n".join([heading, aligned([header, *rows]), "\n".join(sentences)])}
    for name, row in zip(facts["trainers"], rows, strict=True):
        own = facts["comparisons"].get(name, {"verdict": ""})["verdict"]
        pages[name] = "\n\n".join(filter(None, [heading, aligned([header, row]), own]))
    return pages


def _cells(trainers: Mapping[str, Any]) -> list[list[str]]:
    """The table, header first, one row per trainer."""
    lines = []
    for name, trainer in trainers.items():
        loss, held_out = trainer["loss"], trainer["held_out"]
        shown = f"{loss:.2e}" if 0 < loss < SMALL_LOSS else f"{loss:.6f}"
        right = f"{trainer['rows_right']} of {trainer['rows']}"
        line = {"trainer": name, "loss": shown, "rows right": right}
        if len(held_out) > FEW_ROWS:
            sides = [(row["output"] > 0.5) == (row["target"] > 0.5) for row in held_out.values()]
            line["held out right"] = f"{sum(sides)} of {len(sides)}"
        else:
            for label, row in held_out.items():
                head = f"output for row {label} (held out, {row['target']:g} is right)"
                line[head] = f"{row['output']:.3f}"
        lines.append(line)
    return [[*lines[0]], *([*line.values()] for line in lines)]


def _texts(pages: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, str]:
    """The same for TensorBoard, with why the run ended early, and with its options."""
    early = [f"Ended early: {facts['reason']}"] if facts["reason"] else []
    chosen = aligned([[name, str(value)] for name, value in facts["settings"].items()])
    return {name: fenced("\n\n".join([page, *early, chosen])) for name, page in pages.items()}
