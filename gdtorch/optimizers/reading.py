"""Read a rule from text such as `Adam(lr=0.01)`, or any call, without running it."""

from __future__ import annotations

__all__ = ["call", "find", "read"]

import ast
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from .rule import Rule

TORCHS_OTHERS = ("Adafactor", "LBFGS", "Muon", "SparseAdam")
HOW = ("capturable", "differentiable", "foreach", "fused")  # options that change no number


def find(name: str) -> type[Rule]:
    """The rule of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    from . import RULES  # not above: the folder imports this file before it has its table of rules

    if name in RULES:
        return RULES[name]
    if name in TORCHS_OTHERS:
        raise ValueError(f"{name} is in torch.optim, but not here; here are {', '.join(RULES)}")
    raise ValueError(f"no optimizer {name}{_nearest(name, RULES)}")


def read(text: str, **defaults: float) -> Rule:
    """Read a rule with PyTorch's options, as it is written in Python; nothing is run.

    Args:
        text: the name, as in `torch.optim`, and options by name, each a literal. Options
            left out have PyTorch's defaults. The name alone will do.
        defaults: other defaults than PyTorch's, by name.

    Raises:
        ValueError: no such optimizer, option or value; one line says what to write instead.

    Example:
        >>> from gdtorch import optimizers
        >>> optimizers.read("Rprop(etas=(0.5, 1.3))").options()["etas"]
        (0.5, 1.3)
    """
    name, options = call(text, "optimizer", "Adam(lr=0.01, betas=(0.9, 0.99))")
    rule = find(name)
    known = rule().options()
    for option, value in options.items():
        if option in HOW:
            raise ValueError(f"{option} changes how {name} computes, and no number: leave it out")
        if option not in known:
            raise ValueError(f"{name} has no option {option}{_nearest(option, known)}")
        if not _fits(value, known[option]):
            wanted = {bool: "True or False", tuple: f"two numbers, as in {known[option]}"}
            kind = wanted.get(type(known[option]), "a number")
            raise ValueError(f"{option}={value!r} should be {kind}")
        if isinstance(value, list):
            options[option] = tuple(value)
    return rule(**{**defaults, **options})


def call(text: str, what: str, like: str) -> tuple[str, dict[str, Any]]:
    """Read a name and options, each a literal, from a call written in Python, or a name alone.

    Args:
        text: the call.
        what: what it should be, in messages.
        like: an example of one.

    Raises:
        ValueError: it is no such call.

    Example:
        >>> from gdtorch import optimizers
        >>> optimizers.call("descend(momentum=0.9)", "function", "descend(lr=0.1)")
        ('descend', {'momentum': 0.9})
    """
    made: ast.expr | None = None
    # Text that is not Python, or nested too deeply for it, is refused below.
    errors = suppress(SyntaxError, ValueError, RecursionError, MemoryError)
    with errors, warnings.catch_warnings(action="ignore"):
        made = ast.parse(text.strip(), mode="eval").body
    match made:
        case ast.Name(id=name):
            return name, {}
        case ast.Call(func=ast.Name(id=name), args=[]) if all(k.arg for k in made.keywords):
            options: dict[str, Any] = {}
        case _:
            raise ValueError(f"{text!r} is no {what}; write it as {like}")
    for keyword in made.keywords:
        option = keyword.arg or ""
        if option in options:
            raise ValueError(f"{option} is given twice")
        try:
            options[option] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"{option}: write a literal, not an expression") from None
    return name, options


def _fits(value: object, default: object) -> bool:
    """Whether a value is of the default's kind: a flag, a pair of numbers, or a number."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        pair = value if isinstance(value, tuple | list) else ()
        return len(pair) == 2 and all(_fits(number, 0.0) for number in pair)
    # An integer may be too large for a float.
    return isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = {k.lower(): k for k in known}
    (near,) = get_close_matches(name.lower(), names, n=1, cutoff=0)
    return f"; the nearest is {names[near]}"
