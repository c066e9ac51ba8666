"""What FILE:FUNCTION names: a function of the user's own, called, or a trainer of gdtorch's."""

from __future__ import annotations

__all__ = ["UsersError", "locate", "show_users", "trajectory"]

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any

from ..optimizers import call, read
from .options import RefusedError

BUILT_IN = ("post", "manual", "sgd")
WHOLE = (Mapping, str, list, tuple)  # values that are not a series of steps


class UsersError(Exception):
    """An exception in the user's own code; it is the cause of this one."""


def locate(name: str) -> tuple[str, str, str]:
    """The file, the function and its arguments of FILE:FUNCTION(…), or FILE.npz; loads nothing.

    Raises:
        RefusedError: it names none.
    """
    parts = re.fullmatch(r"(.+?):([^:(]+)(\(.*)?", name, re.DOTALL)
    record = name.endswith(".npz")
    if not parts and not record:
        raise RefusedError(
            f"{name}: name a file and a function in it, as mine.py:descend, or a record, mine.npz"
        )
    file, function, arguments = (name, "", "") if record or not parts else parts.groups("")
    if file == "builtin":
        if function not in BUILT_IN:
            raise RefusedError(f"{name}: there is {', '.join(BUILT_IN)}")
    elif not os.path.isfile(file):  # noqa: PTH113 (which has an answer for every name)
        raise RefusedError(f"{name}: there is no file {file}")
    elif function and importlib.util.spec_from_file_location(file, file) is None:
        raise RefusedError(f"{name}: {file} is no Python file; its name must end in .py")
    return file, function, arguments


def trajectory(name: str, lr: float | None, folders: list[Path]) -> Any:  # noqa: ANN401
    """What `Inspection` takes, of a name on the command line.

    Args:
        name: FILE:FUNCTION or FILE:FUNCTION(…), or builtin: and a trainer, or FILE.npz.
        lr: the trainer's learning rate; None for 1.
        folders: those of the files before it; its own is added.

    Raises:
        RefusedError: there is no such function, or the file is no record.
        UsersError: their file raised; so may the function later.
    """
    file, function, arguments = locate(name)
    if file == "builtin":
        return _built_in(function, arguments, 1.0 if lr is None else lr)
    if not function:
        from ..lockstep import Recorder

        try:
            return Recorder.load(file)
        except OSError as error:
            raise RefusedError(f"{name}: {error.strerror}") from error
    text, like = f"{function}{arguments}", f"{function}(momentum=0.9)"
    given = call(text, "call with named literals", like)[1] if arguments else {}
    with _users(name):
        found = _function(name, file, function, given, folders)

    def called() -> Any:  # noqa: ANN401
        """Call the function; an exception, now or while it yields, counts as the user's."""
        with _users(name):
            made = found(**given)
            yields = isinstance(made, Iterable) and not isinstance(made, WHOLE)
            return _guarded(name, iter(made)) if yields else made

    return called


@contextmanager
def _users(name: str) -> Iterator[None]:
    """Turn an exception of the block into `UsersError`; Ctrl-C raises none (see `Interrupts`)."""
    try:
        yield
    except RefusedError:
        raise
    except BaseException as error:
        raise UsersError(f"{name} raised {type(error).__name__}") from error


def _function(
    name: str, file: str, function: str, given: Mapping[str, Any], folders: list[Path]
) -> Any:  # noqa: ANN401 (what the user has)
    path = Path(file).resolve()
    spec = importlib.util.spec_from_file_location(str(path), path)
    assert spec, "or `locate` has refused it"
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickles look for it
    _make_neighbours_importable(path.parent, folders)
    spec.loader.exec_module(module)
    made = getattr(module, function, None)
    if not callable(made):
        raise RefusedError(f"{name}: {file} has no function {function}")
    try:
        with suppress(ValueError):  # a function in C has no signature
            signature(made).bind(**given)
    except TypeError as error:
        raise RefusedError(f"{name}: {error}") from error
    return made


def _make_neighbours_importable(folder: Path, others: list[Path]) -> None:
    """Let a file import its neighbours, not the other file's neighbours of the same name."""
    names = {place.stem for place in folder.iterdir()}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in names:
            continue
        file = Path(getattr(module, "__file__", None) or "")
        if any(map(file.is_relative_to, others)):
            del sys.modules[name]
    if folder not in others:
        sys.path.insert(0, str(folder))
        others.append(folder)


def _guarded(name: str, steps: Iterator[Any]) -> Iterator[Any]:
    """Pass the weights on; an exception on the way counts as the user's."""
    end = object()
    while True:
        with _users(name):
            weights = next(steps, end)
        if weights is end:
            return
        yield weights


def _built_in(name: str, arguments: str, lr: float) -> Iterator[Mapping[str, Any]]:
    from ..data import load_table
    from ..net import SigmoidNet
    from ..trainers import named

    rule = read(f"SGD{arguments}", lr=lr)
    if name == "post" and rule != read("SGD", lr=rule.lr):
        raise ValueError("builtin:post has no option but lr")
    return iter(named(name, SigmoidNet().double(), load_table("post").learned, rule))


def show_users(error: UsersError) -> None:
    """Print the user's exception, with the part of the traceback that lies in their code."""
    ours = (str(Path(__file__).parents[1]), "<frozen importlib")
    theirs = error.__cause__
    assert theirs, "or it is none of ours"
    frames = theirs.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(ours):
        frames = frames.tb_next
    traceback.print_exception(theirs.with_traceback(frames))
