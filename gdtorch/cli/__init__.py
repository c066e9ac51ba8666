"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

__all__ = ["main"]

import contextlib
import gc
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType

from .options import RefusedError, nearest, say

COMMANDS = ("compare", "lockstep", "questions", "quartic", "ensemble")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: command and options; `sys.argv[1:]` if left out. Without a command: compare.

    Returns:
        0 all is well; 1 a real difference was found; 2 the input was wrong; 3 the run ended
        early; 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _mend_streams()
    gc.disable()  # importing torch makes a million objects and no garbage: a fifth of its time
    saved = {
        number: signal.signal(number, _leave)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        name = Path(sys.argv[0]).name
        if arguments and not arguments[0].startswith("-"):
            command = _command(arguments.pop(0))
            name = f"{name} {command}"
        else:
            command = "compare"
        _check_alone(command)
        status: int = import_module(f".{command}", __name__).main(name, arguments)
    except RefusedError as error:
        say(error)
        return 2
    except ModuleNotFoundError as error:
        say(f"{error.name} is not installed for {sys.executable}; activate the environment that "
            "gdtorch is in, or install it: pip install -e .")  # fmt: skip
        return 2
    except (OSError, ImportError, MemoryError, RuntimeError) as error:
        no_memory = re.search("out of memory|allocate memory", str(error))  # as torch has it
        if isinstance(error, MemoryError) or no_memory:
            say("out of memory; a smaller --hidden, or a smaller table, may help")
        elif isinstance(error, RuntimeError):
            raise
        else:
            say(f"the run could not go on: {error}")
        return 3
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
    return status


def _mend_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for the whole run)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ≠, where the terminal cannot show it


def _leave(number: int, _: FrameType | None) -> None:
    """Leave at once: an exception in the midst of an import may be swallowed there.

    Where there is something to lose, `gdtorch.loop.Interrupts` takes the place of this.
    """
    with contextlib.suppress(OSError):  # standard error may be full, or closed
        os.write(2, f"gdtorch: interrupted ({signal.Signals(number).name})\n".encode())
    os._exit(128 + number)


def _check_alone(command: str) -> None:
    """Refuse to run in many processes what is for one."""
    crowd = "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("WORLD_SIZE", "1") != "1"
    if crowd and command != "ensemble":
        raise RefusedError(f"{command} is for one process, and torchrun for ensemble alone")


def _command(word: str) -> str:
    if word in COMMANDS:
        return word
    raise RefusedError(f"unknown command {word}; {nearest(word, COMMANDS)}")
