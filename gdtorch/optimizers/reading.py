"""Read a rule from text, as `Adam(lr=0.01, betas=(0.9, 0.99))`, without running the text."""

from __future__ import annotations

__all__ = ["find", "read"]

import ast
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


def read(text: str) -> Rule:
    """Read a rule with PyTorch's options, as one writes it in Python; nothing is run.

    Args:
        text: the name, as in `torch.optim`, and options by name, each a literal; what is not
            given is as there. The name alone will do.

    Raises:
        ValueError: no such optimizer, option or value; one line says what to write instead.

    Example:
        >>> from gdtorch import optimizers
        >>> optimizers.read("Rprop(etas=(0.5, 1.3))").options()["etas"]
        (0.5, 1.3)
    """
    name, given = _parse(text)
    rule = find(name)
    defaults = rule().options()
    options = {}
    for option, value in given:
        if option in HOW:
            raise ValueError(f"{option} changes how {name} computes, and no number: leave it out")
        if option not in defaults:
            raise ValueError(f"{name} has no option {option}{_nearest(option, defaults)}")
        if option in options:
            raise ValueError(f"{option} is given twice")
        options[option] = _value(option, value, defaults[option])
    return rule(**options)


def _parse(text: str) -> tuple[str, list[tuple[str, ast.expr]]]:
    """The name, and each option with its expression."""
    call: ast.expr | None = None
    # Text that is not Python, or nested too deeply for it, is refused below.
    errors = suppress(SyntaxError, ValueError, RecursionError, MemoryError)
    with errors, warnings.catch_warnings(action="ignore"):
        call = ast.parse(text.strip(), mode="eval").body
    if isinstance(call, ast.Name):
        return call.id, []
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
        options = [(keyword.arg, keyword.value) for keyword in call.keywords]
        named = [(option, value) for option, value in options if option is not None]
        if named == options:
            return call.func.id, named
    raise ValueError(f"{text!r} is no optimizer; write it as Adam(lr=0.01, betas=(0.9, 0.99))")


def _value(option: str, expression: ast.expr, default: Any) -> Any:  # noqa: ANN401
    """An option's value: a flag, a number or two, as its default is."""
    try:
        written = ast.unparse(expression)
        value = ast.literal_eval(expression)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{option}: write a literal, not an expression") from None
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(default, tuple):
        fits = isinstance(value, tuple | list) and len(value) == 2 and all(map(_number, value))
        wanted = f"two numbers, as in {default}"
    else:
        fits, wanted = _number(value), "a number"
    if not fits:
        raise ValueError(f"{option}={written} should be {wanted}")
    return tuple(value) if isinstance(value, list) else value


def _number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _nearest(name: str, known: Iterable[str]) -> str:
    names = {k.lower(): k for k in known}
    (near,) = get_close_matches(name.lower(), names, n=1, cutoff=0)
    return f"; the nearest is {names[near]}"
