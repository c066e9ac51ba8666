"""How a step is compiled, and why, if it cannot be."""

from __future__ import annotations

__all__ = ["compiled", "try_out"]

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., None])
NO_COMPILER = "No working C++ compiler found"  # torch._inductor.exc.InvalidCxxCompiler


def compiled(steps: F) -> F:
    """Compile steps, for the CPU to C++, for a GPU to Triton, at the first call with each shape."""
    options: dict[str, Any] = {
        "cpp.enable_floating_point_contract_flag": "fast",  # a · b + c rounds once
        "deterministic": True,  # no order of a sum is chosen by what was quicker when it was tried
        # Store a value that takes this many operations; recompute cheaper ones where they are read.
        # A hidden layer, which four loops read, takes more; everything else takes less.
        "realize_opcount_threshold": 20,
    }
    # An older torch, which does not know it, compiles eight engines a process at most.
    known = inspect.signature(torch.compile).parameters
    isolated = {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
    build: Any = partial(torch.compile, steps, dynamic=False, fullgraph=True, **isolated)
    try:
        return build(options=options)  # type: ignore[no-any-return]
    except RuntimeError:  # another release of torch knows other options: without them, it is slower
        return build()  # type: ignore[no-any-return]


def try_out(call: Callable[[], None]) -> str:
    """Call a compiled function once, so that it compiles; return why it cannot, or ""."""
    try:
        # While torch loads the compiler, it warns about its own use of torch.jit.
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            call()
    except Exception as error:  # no compiler, or one that fails; each raises its own kind
        if NO_COMPILER in str(error):
            return "no C++ compiler was found; install g++, or name yours in CXX"
        lines = [line for line in str(error).splitlines() if line.strip()]
        return next((line for line in lines if "backend=" not in line), type(error).__name__)
    return ""
