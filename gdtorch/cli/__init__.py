"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

__all__ = ["main"]

import difflib
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .options import RefusedError, say

COMMANDS = ("compare",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: command and options; `sys.argv[1:]` if left out. Without a command: compare.

    Returns:
        0 all is well; 1 a real difference was found; 2 the input was wrong; 3 the run ended
        early; 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ≠, where the terminal cannot show it
    gc.disable()  # importing torch makes a million objects and no garbage: a fifth of its time
    terminated = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        command = "compare"
        if arguments and not arguments[0].startswith("-"):
            command = _command(arguments.pop(0))
        program = f"{Path(sys.argv[0]).name} {command}"
        status: int = import_module(f".{command}", __name__).main(program, arguments)
        sys.stdout.flush()
    except RefusedError as error:
        say(error)
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read the output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, terminated)
    return status


def _command(word: str) -> str:
    if word in COMMANDS:
        return word
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(COMMANDS)}"
    raise RefusedError(f"unknown command {word}; {hint}")
