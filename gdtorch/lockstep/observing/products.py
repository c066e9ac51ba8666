"""In which precision matrices are multiplied: as they are, or lower by torch.autocast or TF32."""

from __future__ import annotations

__all__ = ["advice", "in_full", "in_words", "lower"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

CUDNN: Any = torch.backends.cudnn  # whose attributes mypy does not know
TENSOR_CORES: dict[Any, set[str]] = {  # torch's switch → the functions that it has a say in
    torch.backends.cuda.matmul: {
        *("linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm"),
        *("addbmm", "baddbmm", "einsum", "tensordot", "scaled_dot_product_attention"),
    },
    CUDNN.conv: {
        *("conv1d", "conv2d", "conv3d"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    },
    CUDNN.rnn: {"lstm", "gru", "rnn_tanh", "rnn_relu"},
}
SWITCHES = {name: switch for switch, names in TENSOR_CORES.items() for name in names}
TF32, ON, OFF = "TF32", "tf32", "ieee"


def lower(name: str, made: object) -> str:
    """In what a function of torch multiplies, if it is lower than the dtype: else empty.

    Args:
        name: the function's.
        made: what it has returned.

    Returns:
        The dtype of torch.autocast, or TF32.
    """
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            return str(torch.get_autocast_dtype(kind)).removeprefix("torch.")
    if name not in SWITCHES or SWITCHES[name].fp32_precision != ON:
        return ""
    first = made[0] if isinstance(made, tuple) else made
    on_gpu = isinstance(first, Tensor) and first.is_cuda and first.dtype == torch.float32
    return TF32 if on_gpu else ""


@contextmanager
def in_full() -> Iterator[None]:
    """Within the block, no product is taken in TF32."""
    switched = [switch for switch in TENSOR_CORES if switch.fp32_precision == ON]
    for switch in switched:
        switch.fp32_precision = OFF
    try:
        yield
    finally:
        for switch in switched:
            switch.fp32_precision = ON


def in_words(products: str) -> str:
    """In what matrices are multiplied, in words."""
    if products in {"", TF32}:
        return f"in {products or 'full precision'}"
    return f"under torch.autocast in {products}"


def advice(said: str) -> str:
    """How to compute in full, where it was said of the two in what they multiply."""
    if TF32 not in said:
        return "compute both without torch.autocast"
    switches = "torch.backends.cuda.matmul.fp32_precision and torch.backends.cudnn.conv's"
    return f'compute both without TF32: set {switches} to "{OFF}"'
