"""How a step is compiled, and the reason where it cannot be."""

from __future__ import annotations

__all__ = ["compiled", "try_out"]

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., None])
NO_COMPILER = "No working C++ compiler found"  # torch._inductor.exc.InvalidCxxCompiler


def compiled(steps: F) -> F:
    """Compile steps, for the CPU to C++, at the first call with each shape."""
    options: dict[str, Any] = {
        "cpp.enable_floating_point_contract_flag": "fast",  # a · b + c rounds once
        # Keep what takes this many operations, rather than compute it again for each reader:
        # a hidden layer, which four loops read, takes more and anything else takes less.
        "realize_opcount_threshold": 20,
    }
    # A torch that does not know it compiles no more than eight engines in one process.
    known = inspect.signature(torch.compile).parameters
    isolated = {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
    return torch.compile(  # type: ignore[call-overload, no-any-return] # overloads not up to date
        steps, dynamic=False, fullgraph=True, options=options, **isolated
    )


def try_out(call: Callable[[], None]) -> str:
    """Call a compiled function once, so that it compiles; return why it cannot, or ""."""
    try:
        # torch, as it loads what compiles, warns of its own use of torch.jit.
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            call()
    except Exception as error:  # no compiler, or one that fails, each in its own way
        if NO_COMPILER in str(error):
            return "no C++ compiler was found; install g++, or name yours in CXX"
        lines = [line for line in str(error).splitlines() if line.strip()]
        return next((line for line in lines if "backend=" not in line), type(error).__name__)
    return ""
