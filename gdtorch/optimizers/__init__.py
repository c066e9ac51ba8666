"""The rules of torch.optim by hand."""

from __future__ import annotations

__all__ = ["Options", "check_descent", "check_options"]

from .options import Options, check_descent, check_options
