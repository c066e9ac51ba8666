"""Train one unit after another, and add up what became of the networks."""

from __future__ import annotations

__all__ = ["count", "train_units"]

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import Rows, Table
from ..net import initial_weights
from .blocks import BlockError, Settings, Unit, read_tally, write_tally
from .engine import Engine, State
from .processes import Processes
from .stuck import saddles, sample_size, stuck
from .tally import Tally, checkpoints


def train_units(
    folder: Path,
    settings: Settings,
    processes: Processes,
    table: Table,
    engines: Mapping[float, Engine],
    bar: tqdm[NoReturn],
    warn: Callable[[str], object],
) -> list[Tally]:
    """Train the units of this process that have no sound file; add up the tallies of all its units.

    One block of networks, and one tally for each learning rate, are in memory at a time.

    Args:
        folder: the run's, in which the units' files lie.
        settings: those of the ensemble.
        processes: among which the units are shared. Their `check` is called between steps; if it
            raises, the files of the units done so far remain.
        table: the rows to learn and held out, in the engine's dtype and on its device.
        engines: learning rate → engine.
        bar: the progress bar.
        warn: called with a message for each file that does not hold its unit's tally.

    Returns:
        For each of `settings.lr` the sum over this process's units.

    Raises:
        OSError: a unit's file cannot be read or written.
    """
    tallies = {lr: Tally.empty(settings.steps) for lr in settings.lr}

    def tick(work: int) -> None:
        bar.update(work * processes.count)
        processes.check()

    folder.mkdir(parents=True, exist_ok=True)  # rank 0, which made it, may be on another machine
    for unit in settings.units(processes.rank, processes.count):
        try:
            tally = read_tally(folder, settings, unit)
        except BlockError as error:
            warn(f"{error}; its starts are trained anew")
            tally = None
        if tally is None:
            tally = count(engines[unit.lr], settings, unit, table, tick)
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
    tally = Tally.empty(settings.steps)
    size = (table.features + 1) * settings.hidden
    rows, unseen = (part.to(torch.float64, "cpu") for part in (table.learned, table.held_out))
    everything = torch.cat([rows.inputs, unseen.inputs])
    left = sample_size(size)  # Hessians
    for first in range(unit.first, unit.first + unit.starts, settings.block):
        starts = np.arange(first, min(first + settings.block, unit.first + unit.starts))
        state = engine.begin(initial_weights(settings.seed, first, len(starts), size))
        first_right = _train(engine, state, table.learned, settings.steps, tick)
        outputs = engine.outputs(state, everything).double().cpu()
        learned, held_out = outputs.split([len(rows.inputs), len(unseen.inputs)])
        weights, losses = engine.weights(state).cpu(), engine.losses(state).double().cpu()
        finite, right = losses.isfinite(), _right(learned, rows.targets)
        (wrong,) = torch.where(finite & ~right)
        still = stuck(weights[wrong], losses[wrong], rows, settings, unit.lr)
        sample = wrong[still][:left]
        left -= len(sample)
        saddle = saddles(weights[sample], rows, settings, unit.lr)
        kinds = {
            "learned": finite & right,
            "stuck": wrong[still],
            "falling": wrong[~still],
            "diverged": ~finite,
            "held_out": finite & _right(held_out, unseen.targets),
            "plateau": sample[~saddle],
            "saddle": sample[saddle],
        }
        members = {kind: starts[chosen.numpy()] for kind, chosen in kinds.items()}
        found = (losses.numpy(), held_out.numpy(), first_right.cpu().numpy())
        tally += Tally.of(starts, *found, members, settings.steps)
    return tally


def _train(
    engine: Engine, state: State, rows: Rows, steps: int, tick: Callable[[int], object]
) -> Tensor:
    """Train a block; for each network the first checkpoint with all rows right, or −1."""
    first_right = torch.full((state.count,), -1, device=engine.device)
    for index, more in enumerate(np.diff(checkpoints(steps), prepend=0).tolist()):
        engine.advance(state, more)
        tick(more * state.count)
        if (first_right < 0).any():
            right = _right(engine.outputs(state, rows.inputs), rows.targets)
            first_right[right & (first_right < 0)] = index
    return first_right


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether all outputs (rows, count) lie on the same side of ½ as their targets (rows, 1)."""
    return ((outputs > 0.5) == (targets > 0.5)).all(dim=0)
