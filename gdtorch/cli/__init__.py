"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

__all__ = ["Interrupts", "main"]

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

from .options import COMMANDS, RefusedError, nearest
from .report import ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: command and options; `sys.argv[1:]` if left out. Without a command: compare.

    Returns:
        0 all is well; 1 a real difference was found; 2 the input was wrong; 3 the run ended
        early; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _mend_streams()
    gc.disable()  # torch's import makes no garbage; looking for it takes a fifth of the time
    interrupts = Interrupts()
    try:
        command, program = "compare", Path(sys.argv[0]).name
        if arguments and not arguments[0].startswith("-"):
            command = arguments.pop(0)
            program = f"{program} {command}"
        _check(command)
        run = import_module(f".{command}", __name__).main
        return int(run(program, arguments, interrupts))
    except RefusedError as error:
        return ended(error, 2)
    except ModuleNotFoundError as error:
        return ended(
            f"{error.name} is not installed for {sys.executable}; activate the environment that "
            "gdtorch is in, or install it: pip install -e .",
            2,
        )
    except (OSError, ImportError, MemoryError, RuntimeError) as error:
        no_memory = re.search("out of memory|allocate memory", str(error))  # as torch has it
        if isinstance(error, MemoryError) or no_memory:
            return ended("out of memory; a smaller --hidden, or a smaller table, may help")
        if isinstance(error, RuntimeError):
            raise
        return ended(f"the run could not go on: {error}")
    finally:
        interrupts.restore()


def _check(command: str) -> None:
    """Refuse an unknown command, and a command for one process that was started in many."""
    if command not in COMMANDS:
        raise RefusedError(f"unknown command {command}; {nearest(command, COMMANDS)}")
    crowd = "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("WORLD_SIZE", "1") != "1"
    if crowd and command != "ensemble":
        raise RefusedError(f"{command} is for one process, and torchrun for ensemble alone")


def _mend_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # whoever started the program has closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for the whole run)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for a terminal that cannot show ≠


def _write(words: str) -> None:
    """Write a line on standard error, as a signal's handler may; it may be full, or closed."""
    with contextlib.suppress(OSError):
        os.write(2, f"gdtorch: {words}\n".encode())


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: they end the program, at once or after the step under way.

    An exception would not do: some imports swallow it. A signal that was ignored from the start,
    as SIGHUP is under nohup, stays ignored.

    Attributes:
        received: the signal that is to end the run after this step.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferred: set[int] = set()
        self.saved = {
            number: signal.signal(number, self._come)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        }

    def defer(self) -> None:
        """From now on keep the first signal of each kind in `received`; the run ends in order."""
        self.deferred = {*self.saved}

    def _come(self, number: int, _: FrameType | None) -> None:
        if number in self.deferred:
            self.deferred.remove(number)
            self.received = signal.Signals(number)
            if os.isatty(2):
                _write("ends after this step; once more ends it at once")
            return
        _write(f"interrupted ({signal.Signals(number).name})")
        os._exit(128 + number)

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self.saved.items():
            signal.signal(number, handler)
