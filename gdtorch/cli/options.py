"""The options of all commands, each declared once; what is refused before torch is loaded."""

from __future__ import annotations

import argparse
import difflib
import gc
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = ("compare", "lockstep", "questions", "quartic", "ensemble")
LARGEST = 2**62  # nobody needs more, so no message names it
FLOAT32_MAX = 3.4028234663852886e38


class RefusedError(Exception):
    """The input was wrong: one line that says what, and how to mend it. Exit status 2."""


def integer(low: int, high: int = LARGEST) -> Callable[[str], int]:
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


def option(help: str, kind: Callable[[str], Any] = str, **more: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Declare an option for `argparse`: its values are of this kind; with bool it takes none.

    An option that takes several values may be given again: the values add up.
    """
    if kind is bool:
        return {"help": help, "action": "store_true"}
    action = "extend" if "nargs" in more else "store"
    return {"help": help, "type": kind, "action": action, **more}


Declarations = Mapping[str, Mapping[str, Any]]  # option → the arguments of `add_argument`
SEED = integer(0, 2**64 - 1)
DTYPES = ("float64", "float32")
SHARED: Declarations = {
    "table": option("post, xor, parity3, or the path of a CSV file", default="post"),
    "steps": option("how many updates", integer(1), default=1000),
    "lr": option("learning rate: the post's alpha (default: 1.0)", number(0)),
    "maximize": option("ascend, as torch.optim.SGD", bool),
    "momentum": option("as torch.optim.SGD", number(0), default=0.0),
    "dampening": option("of momentum, as torch.optim.SGD", number(), default=0.0),
    "weight_decay": option("as torch.optim.SGD", number(0), default=0.0),
    "nesterov": option("Nesterov momentum, as torch.optim.SGD", bool),
    "seed": option("with --start: which initial weights", SEED, default=0),
    "start": option("which initial weights of the seed: 0, 1, 2 and so on", integer(0), default=0),
    "hidden": option("hidden units", integer(1, 1_000_000), default=15),
    "dtype": option("of all arithmetic", choices=DTYPES, default="float64"),
    "device": option("cpu, cuda, cuda:1 or another that torch knows", default="cpu"),
    "logdir": option("TensorBoard's log directory", default="runs"),
    "name": option("the run's folder in it"),
    "overwrite": option("replace a run of that name", bool),
    "json": option("print the outcome as JSON", bool),
    "quiet": option("print nothing but errors and what --json asks for", bool),
}
SGD_OPTIONS = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
RUN = ("logdir", "name", "overwrite")
OUTPUT = (*RUN, "json", "quiet")
SETTLED = ("left_out", "stride")  # found while the arguments are checked
SHOWN = ("figure", "points", "trainers", "log_every", "curvature")
NO_SETTINGS = {*OUTPUT, *SETTLED, *SHOWN, "resume"}


def flag(name: str) -> str:
    """How a setting is written on the command line."""
    return f"--{name.replace('_', '-')}"


def shared(*names: str, **changes: Mapping[str, Any]) -> Declarations:
    """Options that commands share, by name; `changes` says what differs here."""
    return {flag(name): {**SHARED[name], **changes.get(name, {})} for name in names}


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options on which the numbers of a run depend, for JSON and for TensorBoard."""
    return {name: value for name, value in vars(args).items() if name not in NO_SETTINGS}


class Parser(argparse.ArgumentParser):
    """An `argparse` parser without abbreviations, that reads `-1e-3` as a number.

    Args:
        program: as it is called.
        text: what `--help` says: the first line above the options, the rest below them.
        options: the command's.
    """

    def __init__(self, program: str, text: str | None, options: Declarations) -> None:
        summary, _, more = (text or "").partition("\n\n")
        super().__init__(
            prog=program,
            description=summary,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # Before Python 3.14 argparse takes -1e-3 for an option.
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^-inf$")
        for name, declared in options.items():
            shown = " (default: %(default)s)" if declared.get("default", []) != [] else ""
            self.add_argument(name, **{**declared, "help": declared["help"] + shown})
        self.set_defaults(resume=False, quiet=False)  # where a command has no such option

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments; name the nearest option for one that is unknown."""
        for word in arguments:
            name, _, value = word.partition("=")
            if name.startswith("--") and value == "--":
                self.error(f"argument {name}: -- is no value")  # argparse would read it as []
        args, unknown = self.parse_known_args(arguments)
        for word in unknown:
            if word in COMMANDS:
                raise RefusedError(f"the command comes first: put {word} before all options")
        if unknown:
            hint = nearest(unknown[0], self._option_string_actions, "see --help")
            raise RefusedError(f"unknown argument {unknown[0]}; {hint}")
        if args.overwrite and args.name is None:
            raise RefusedError("--overwrite needs the --name of the run to replace")
        _check_place(args)
        return args

    def error(self, message: str) -> NoReturn:
        """Refuse in one line, without the usage text."""
        raise RefusedError(f"{message}; see --help")


def nearest(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A hint for a mistyped word: the nearest known word; if none is near, by default all words."""
    bare = {name.lstrip("-"): name for name in known}  # else two dashes count as a likeness
    near = difflib.get_close_matches(word.lstrip("-"), bare, n=1)
    if near:
        return f"did you mean {bare[near[0]]}?"
    return otherwise or f"there is {', '.join(bare.values())}"


@contextmanager
def refusing(subject: str = "", logdir: str | None = None) -> Iterator[None]:
    """Turn an error that the block finds in the input, or in a log directory, into a refusal."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(f"{subject}{error}") from error
    except OSError as error:
        if logdir is None:
            raise
        raise RefusedError(f"--logdir {logdir}: {error.strerror}; choose another") from error


def check_descent(args: argparse.Namespace, lr: float) -> None:
    """Settle `args.lr`, None if a line search finds it; refuse options that exclude each other.

    Args:
        args: parsed. An option that the command does not have counts as not used.
        lr: the default of `args.lr`.
    """
    if args.descent != "steepest":
        args.lr = lr if args.lr is None else args.lr
        return
    along = "goes along the gradient alone"
    for name, why in {
        "lr": "finds its own step sizes",
        **dict.fromkeys(("momentum", "dampening", "nesterov"), along),
        "weight_decay": "searches for the lowest loss, without a penalty",
    }.items():
        value = getattr(args, name, None)
        if value or (name == "lr" and value is not None):
            raise RefusedError(f"--descent steepest {why}; leave out {flag(name)}")


def check_sgd(args: argparse.Namespace, lr: float) -> None:
    """Refuse options that `torch.optim.SGD` refuses, and numbers too large for the dtype."""
    if args.nesterov and (args.momentum == 0 or args.dampening != 0):
        raise RefusedError("--nesterov needs a --momentum above 0, and no --dampening")
    numbers = {"lr": lr} | {name: getattr(args, name) for name in SGD_OPTIONS[:3]}
    for name, value in numbers.items():
        if args.dtype == "float32" and abs(value) > FLOAT32_MAX:
            raise RefusedError(f"{flag(name)} is too large for float32")


def check_device(device: str, dtype: str) -> None:
    """Refuse a device on which torch cannot compute. This loads torch."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # about devices of the past
            torch.ones(1, dtype=getattr(torch, dtype), device=device).item()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        sentence, *_ = re.split(r"\n|\. ", str(error), maxsplit=1)
        raise RefusedError(f"--device {device} cannot be used here: {sentence}") from error


def _check_place(args: argparse.Namespace) -> None:
    """Refuse before torch is loaded what `claimed` would certainly refuse later."""
    from ..rundir import check

    # Under torchrun the first process has made the folder, or the run before a restart has.
    others = bool({"RANK", "TORCHELASTIC_RESTART_COUNT"} & os.environ.keys())
    if not args.logdir:
        raise RefusedError("--logdir '' is not a folder; choose another")
    with refusing(logdir=args.logdir):
        free = not (args.overwrite or args.resume or others)
        check(Path(args.logdir), args.name, free=free)


@contextmanager
def claimed(args: argparse.Namespace, parts: Sequence[str]) -> Iterator[Path]:
    """Claim the run's folder that the options name; `parts` are the folders it will hold."""
    from ..rundir import claim

    logdir = Path(args.logdir)
    claim_it = claim(logdir, args.name, parts, overwrite=args.overwrite, resume=args.resume)
    with ExitStack() as stack:
        with refusing(logdir=args.logdir):
            folder = stack.enter_context(claim_it)
        yield folder


@contextmanager
def loaded(*, one_thread: bool = False) -> Iterator[None]:
    """Call this once all is imported: it turns on the garbage collection that `main` turned off.

    Args:
        one_thread: whether torch uses one thread only: for small products more of them are slower.
    """
    import torch

    gc.freeze()  # what is imported stays, so no collection needs to look at it
    gc.enable()
    threads = torch.get_num_threads()
    if one_thread:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
