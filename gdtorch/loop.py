"""The main loop: advance all trainers by one step, compare, log; end early in good order."""

from __future__ import annotations

__all__ = ["Ending", "run"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from signal import Signals

from .board import Board
from .lockstep import Lockstep
from .rundir import unwritable


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        step: the last step, counted from 0, the initial weights.
        losses: trainer → loss after it.
        status: exit status: 0 all steps taken; 3 the run could not go on; 128 + its number after
            a signal.
        reason: why it ended early, in words; empty where it did not.
    """

    step: int
    losses: Mapping[str, float]
    status: int = 0
    reason: str = ""


def run(
    lockstep: Lockstep,
    board: Board,
    *,
    steps: int,
    log_every: int = 1,
    tick: Callable[[int], Signals | None] = lambda _: None,
) -> Ending:
    """Run the trainers of a lockstep for `steps` steps.

    Args:
        lockstep: what advances the trainers and compares them.
        board: what measures and logs them.
        steps: how many steps to take.
        log_every: log scalars after every so many steps; the last step is always logged, and
            each for which the board has more to show.
        tick: called after each step with how many that were; the signal that it returns, if any,
            ends the run there.
    """
    for step in lockstep:
        received = tick(lockstep.stride if step > 0 else 0)
        due = step % log_every == 0 or step == steps or board.shows_curvature(step)
        try:
            losses = board.log(step, lockstep.differences) if due else board.losses()
            ending = _ending(step, losses, received)
            last = step == steps or ending.status != 0
            if last and not due:
                board.log(step, lockstep.differences)
            board.log_histograms(step)
        except OSError as error:
            reason = unwritable(board.folder, f"step {step}", error)
            return Ending(step, board.losses(), 3, reason)
        if last:
            return ending
    raise AssertionError("trainers never end")


def _ending(step: int, losses: Mapping[str, float], received: Signals | None) -> Ending:
    """How the run ends if it ends after this step: well, or for which reason."""
    broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
    if broken:
        reason = f"the loss of {' and '.join(broken)} is {losses[broken[0]]} after step {step}"
        return Ending(
            step, losses, 3, f"{reason}; a smaller --lr, --momentum or --weight-decay may help"
        )
    if received is not None:
        return Ending(
            step, losses, 128 + received, f"interrupted ({received.name}) after step {step}"
        )
    return Ending(step, losses)
