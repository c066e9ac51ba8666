"""Train one unit after another, and add up what became of the networks."""

from __future__ import annotations

__all__ = ["count", "train_units"]

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import Table
from ..net import initial_weights
from .blocks import BlockError, Settings, Unit, read_tally, write_tally
from .engine import Engine, State
from .processes import Processes
from .stuck import saddles, sample_size, stuck
from .tally import Integers, Networks, Tally, checkpoints


def train_units(
    folder: Path,
    settings: Settings,
    processes: Processes,
    table: Table,
    make_engine: Callable[[float], Engine],
    bar: tqdm[NoReturn],
    damaged: Callable[[BlockError], None],
) -> list[Tally]:
    """Train the units of this process that have no sound file; add up the tallies of all its units.

    One block of networks, and one tally for each learning rate, are in memory at a time.

    Args:
        folder: the run's, in which the units' files lie.
        settings: those of the ensemble.
        processes: among which the units are shared. Their `check` is called between steps; if it
            raises, the files of the units done so far remain.
        table: the rows to learn and held out, in the engine's dtype and on its device.
        make_engine: learning rate → engine.
        bar: the progress bar.
        damaged: called with the error for each file that does not hold its unit's tally.

    Returns:
        For each of `settings.lr` the sum over this process's units.

    Raises:
        OSError: a unit's file cannot be read or written.
    """
    tallies = {lr: Tally.empty(len(checkpoints(settings.steps))) for lr in settings.lr}

    def tick(work: int) -> None:
        bar.update(work * processes.count)
        processes.check()

    folder.mkdir(parents=True, exist_ok=True)  # rank 0, which made it, may be on another machine
    for unit in settings.units(processes.rank, processes.count):
        try:
            tally = read_tally(folder, settings, unit)
        except BlockError as error:
            damaged(error)
            tally = None
        if tally is None:
            tally = count(make_engine(unit.lr), settings, unit, table, tick)
            write_tally(folder, settings, unit, tally)
        else:
            processes.check()
            if not bar.disable:
                bar.initial += unit.starts * settings.steps * processes.count  # not of the rate
                bar.n += unit.starts * settings.steps * processes.count
        tallies[unit.lr] += tally
    return list(tallies.values())


def count(
    engine: Engine, settings: Settings, unit: Unit, table: Table, tick: Callable[[int], object]
) -> Tally:
    """Train the starts of a unit, block by block, and count what became of them.

    Args:
        engine: of the unit's learning rate.
        settings: those of the ensemble.
        unit: which starts.
        table: the rows to learn and held out, in the engine's dtype and on its device.
        tick: called with the work done since its last call, in networks × steps.
    """
    at = checkpoints(settings.steps)
    tally = Tally.empty(len(at))
    size = (table.features + 1) * settings.hidden
    rows = table.learned.to(torch.float64, "cpu")
    sample: list[Tensor] = []
    sampled: list[int] = []
    for first in range(unit.first, unit.first + unit.starts, settings.block):
        counted = min(settings.block, unit.first + unit.starts - first)
        state = engine.begin(initial_weights(settings.seed, first, counted, size))
        first_right, right = _train(engine, state, table, at, tick)
        weights = engine.weights(state).cpu()
        networks = _networks(engine, state, table, first, first_right, right)
        wrong = np.flatnonzero(np.isfinite(networks.losses) & ~networks.learned)
        losses = torch.from_numpy(networks.losses[wrong])
        networks.stuck[wrong] = stuck(weights[wrong], losses, rows, settings, unit.lr).numpy()
        tally += Tally.of(networks, len(at))
        chosen = np.flatnonzero(networks.stuck)[: sample_size(size) - len(sampled)]
        sample += weights[chosen].unbind()
        sampled += networks.starts[chosen].tolist()
    if sampled:
        saddle = saddles(torch.stack(sample), rows, settings, unit.lr).numpy()
        tally.note("saddle", np.array(sampled)[saddle])
        tally.note("plateau", np.array(sampled)[~saddle])
    return tally


def _train(
    engine: Engine, state: State, table: Table, at: Integers, tick: Callable[[int], object]
) -> tuple[Tensor, Tensor]:
    """Train a block; the first checkpoint with all rows right, or −1, and if they are right now."""
    inputs, targets = table.learned
    right = _right(engine.outputs(state, inputs), targets).all(dim=0)
    first_right = torch.where(right, 0, -1)
    for index, steps in enumerate(np.diff(at).tolist(), start=1):
        engine.advance(state, steps)
        tick(steps * len(right))
        if index == len(at) - 1 or (first_right < 0).any():
            right = _right(engine.outputs(state, inputs), targets).all(dim=0)
            first_right[right & (first_right < 0)] = index
    return first_right, right


def _networks(
    engine: Engine, state: State, table: Table, first: int, first_right: Tensor, right: Tensor
) -> Networks:
    """What became of a trained block's networks; `stuck` is filled in later."""
    held_out = engine.outputs(state, table.held_out.inputs)
    arrays = (
        engine.losses(state).double(),
        right,
        held_out[0].double(),
        _right(held_out, table.held_out.targets).all(dim=0),
        first_right,
        torch.zeros_like(right),
    )
    starts = np.arange(first, first + len(right))
    return Networks(starts, *(array.cpu().numpy() for array in arrays))


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether output (rows, count) and target (rows, 1) lie on the same side of ½."""
    return (outputs > 0.5) == (targets > 0.5)
