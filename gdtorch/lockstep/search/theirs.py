"""Theirs as a program: what its optimizer was seen to be, and what it makes of its gradients."""

from __future__ import annotations

__all__ = ["theirs_program"]

import math
from dataclasses import replace
from typing import Any

import torch

from ..replaying.record import Record
from ..replaying.replay import SMALLEST, Program, Replay
from ..replaying.trial import Trial, edited, share
from ..rounding import of_gradients
from .candidates import NORM
from .search import search

CUT = 1e-4  # of a gradient, which has then been clipped


def theirs_program(record: Record) -> Program | None:
    """The program that theirs was seen to be; None where its own steps are not explained."""
    program = Program()
    if record.foreign:
        return None
    if not record.known:  # it has none of torch.optim's optimizers, or one of its own
        grads, moved = record.stack("fresh"), record.stack("predicted") - record.stack("base")
        lr = -float(share(moved.flatten(), grads.flatten()))
        program = Program(optimizer="SGD", options={"lr": abs(lr)}, factor=math.copysign(1, lr))
    try:
        trial = Trial(record, program, of_theirs=True)
    except (KeyError, ValueError, TypeError):  # an optimizer that is not of torch.optim
        return None
    if trial.step is not None:
        found, _ = search(trial)
        if not found:
            return None
        program = _as_one_rate(edited(program, found[0]))
    return _as_it_takes_gradients(trial.all, program)


def _as_one_rate(program: Program) -> Program:
    """The program with a factor of its gradient as one of lr, where that is the same."""
    if program.optimizer != "SGD" or len(program.rates) > 1 or program.options.get("weight_decay"):
        return program
    lr = program.options["lr"] * program.rates[0] * abs(program.factor)
    options = {**program.options, "lr": float(f"{lr:.6g}")}
    return replace(program, options=options, factor=math.copysign(1, program.factor), rates=(1.0,))


def _as_it_takes_gradients(replay: Replay, program: Program) -> Program:
    """The program with what theirs makes of its gradients: whether it adds them up, or clips."""
    used, fresh = replay.used, replay.fresh
    largest = used.abs().amax(dim=1, keepdim=True).cummax(dim=0).values
    off = of_gradients(replay.record.epsilon) * largest
    if bool(((used - fresh).abs() <= off).all()):
        return program
    shares = torch.stack(
        [
            (used * fresh)[:, replay.of(n)].sum(dim=1)
            / fresh[:, replay.of(n)].square().sum(dim=1).clamp(min=SMALLEST)
            for n in replay.names
        ],
        dim=1,
    )
    cut = (shares - 1).abs() > CUT
    levels = {
        "together": (shares * (replay.norms.norm(dim=1, keepdim=True) + NORM))[cut],
        "each": (shares * (replay.norms + NORM))[cut],
        "value": used.abs()[used.abs() < (1 - CUT) * fresh.abs()],
    }
    ways: list[dict[str, Any]] = [{"adds_up": "always"}, {"adds_up": "first"}]
    for how, level in levels.items():
        if len(level):
            ways.append({"clip": (how, float(f"{float(level.median()):.6g}"), NORM)})
            ways.append({"clip": (how, float(level.median()), NORM)})
    for way in ways:
        seen = replace(program, used=False, **way)
        if bool(((used - replay.gradients(seen)).abs() <= off).all()):
            return seen
    return program
