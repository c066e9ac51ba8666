"""What PyTorch computes in one function, written out: recurrent layers, attention.

A mistake can then be made in one of their steps. Each formula is called as the function itself, and
returns what that does; NotImplemented where it is called in a way that is not written out here.
"""

from __future__ import annotations

__all__ = ["FORMULAS"]

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

State = tuple[Tensor, ...]
Cell = Callable[..., State]


def _rnn_cell(squash: Callable[[Tensor], Tensor], x: Tensor, state: State, *w: Tensor) -> State:
    both = F.linear(x, w[0], *w[2:3]) + F.linear(state[0], w[1], *w[3:4])
    return (squash(both),)


def _lstm_cell(x: Tensor, state: State, *w: Tensor) -> State:
    h, c = state
    both = F.linear(x, w[0], *w[2:3]) + F.linear(h, w[1], *w[3:4])
    i, f, g, o = both.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru_cell(x: Tensor, state: State, *w: Tensor) -> State:
    (h,) = state
    r_of_x, z_of_x, n_of_x = F.linear(x, w[0], *w[2:3]).chunk(3, -1)
    r_of_h, z_of_h, n_of_h = F.linear(h, w[1], *w[3:4]).chunk(3, -1)
    r, z = (r_of_x + r_of_h).sigmoid(), (z_of_x + z_of_h).sigmoid()
    n = (n_of_x + r * n_of_h).tanh()
    return ((1 - z) * n + z * h,)


def _layers(
    cell: Cell,
    inputs: Tensor,
    state: State | Tensor,
    weights: Sequence[Tensor] | Tensor,
    biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    both_ways: bool,
    batch_first: bool = False,
) -> Any:  # noqa: ANN401 (as torch has them)
    """Recurrent layers, as `torch.lstm` is called."""
    each, ways = 4 if biases else 2, 2 if both_ways else 1
    states = (state,) if isinstance(state, Tensor) else state
    if (
        isinstance(weights, Tensor)
        or len(weights) != each * layers * ways
        or (dropout and training)
    ):
        return NotImplemented  # packed sequences, projections, dropout between layers
    steps = inputs.unbind(1 if batch_first else 0)
    ends: list[State] = []
    for _ in range(layers):
        made: list[list[Tensor]] = []
        for way in range(ways):
            number = len(ends)
            now = tuple(one[number] for one in states)
            outputs = []
            for x in steps[:: -1 if way else 1]:
                now = cell(x, now, *weights[number * each : (number + 1) * each])
                outputs.append(now[0])
            ends.append(now)
            made.append(outputs[:: -1 if way else 1])
        steps = tuple(torch.cat(both, -1) for both in zip(*made, strict=True))
    last = [torch.stack(one) for one in zip(*ends, strict=True)]
    return torch.stack(steps, 1 if batch_first else 0), *last


def _one_step(cell: Cell, x: Tensor, state: State | Tensor, *weights: Tensor) -> Any:  # noqa: ANN401
    """One step of a recurrent layer, as `torch.lstm_cell` is called."""
    made = cell(x, (state,) if isinstance(state, Tensor) else state, *weights)
    return made if len(made) > 1 else made[0]


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:  # noqa: ANN401 (as torch has them)
    if dropout_p or enable_gqa:
        return NotImplemented
    scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return F.softmax(scores, -1) @ v


def _heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    size: int,
    heads: int,
    in_weight: Tensor | None,
    in_bias: Tensor | None,
    bias_k: Tensor | None,
    _bias_v: Tensor | None,
    zero: bool,
    dropout: float,
    out_weight: Tensor,
    out_bias: Tensor | None,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 (as torch has them)
    """`multi_head_attention_forward`, over steps, rows and features."""
    masks = ("key_padding_mask", "attn_mask", "static_k", "static_v")
    masked = any(options.get(name) is not None for name in masks) or options.get("is_causal")
    drops = dropout and options.get("training", True)
    if in_weight is None or bias_k is not None or zero or drops or masked or query.ndim != 3:
        return NotImplemented
    whole = query is key is value
    parts = in_weight.chunk(3), in_bias.chunk(3) if in_bias is not None else (None,) * 3
    if whole:
        q, k, v = F.linear(query, in_weight, in_bias).chunk(3, -1)
    else:
        given = zip((query, key, value), *parts, strict=True)
        q, k, v = (F.linear(one, weight, bias) for one, weight, bias in given)

    # into (rows, heads, steps, features)
    q, k, v = (one.unflatten(-1, (heads, size // heads)).permute(1, 2, 0, 3) for one in (q, k, v))
    weights = F.softmax(q @ k.mT * (1 / math.sqrt(size // heads)), -1)
    made = F.linear((weights @ v).permute(2, 0, 1, 3).flatten(-2), out_weight, out_bias)
    if not options.get("need_weights", True):
        return made, None
    return made, weights.mean(1) if options.get("average_attn_weights", True) else weights


CELLS: Mapping[str, Cell] = {
    "rnn_tanh": partial(_rnn_cell, torch.tanh),
    "rnn_relu": partial(_rnn_cell, torch.relu),
    "lstm": _lstm_cell,
    "gru": _gru_cell,
}
FORMULAS: Mapping[str, Callable[..., Any]] = {
    **{name: partial(_layers, cell) for name, cell in CELLS.items()},
    **{f"{name}_cell": partial(_one_step, cell) for name, cell in CELLS.items()},
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _heads,
}
