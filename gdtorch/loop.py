"""The main loop: advance all trainers by one step, compare, log; end early in good order."""

from __future__ import annotations

__all__ = ["Ending", "Interrupts", "run"]

import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType

from .board import Board
from .lockstep import Lockstep
from .rundir import unwritable


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        step: the last step, counted from 0, the initial weights.
        losses: trainer → loss after it.
        status: exit status: 0 all steps taken; 3 the run could not go on; 130, 143 interrupted.
        reason: why it ended early, in words; empty where it did not.
    """

    step: int
    losses: Mapping[str, float]
    status: int = 0
    reason: str = ""


def run(
    lockstep: Lockstep,
    board: Board,
    interrupts: Interrupts | None = None,
    *,
    steps: int,
    log_every: int = 1,
    tick: Callable[[int], object] = int,
) -> Ending:
    """Run the trainers of a lockstep for `steps` steps.

    Args:
        lockstep: what advances the trainers and compares them.
        board: what measures and logs them.
        interrupts: what notes Ctrl-C and SIGTERM; without it they are Python's exceptions.
        steps: how many steps to take.
        log_every: log scalars after every so many steps; the last step is always logged, and
            each for which the board has more to show.
        tick: called with how many steps were taken since, as `update` of a bar of tqdm's.
    """
    for step in lockstep:
        due = step % log_every == 0 or step == steps or board.shows_curvature(step)
        try:
            losses = board.log(step, lockstep.differences) if due else board.losses()
            ending = _ending(step, losses, interrupts.received if interrupts else None)
            last = step == steps or ending.status != 0
            if last and not due:
                board.log(step, lockstep.differences)
            board.log_histograms(step)
        except OSError as error:
            reason = unwritable(board.folder, f"step {step}", error)
            return Ending(step, board.losses(), 3, reason)
        if step > 0:
            tick(lockstep.stride)
        if last:
            return ending
    raise AssertionError("trainers never end")


def _ending(step: int, losses: Mapping[str, float], received: signal.Signals | None) -> Ending:
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


class Interrupts:
    """Note Ctrl-C and SIGTERM while a step is under way, so that it ends; a second one is final."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Interrupts:
        self.saved = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, self.saved[self.received])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self.saved.items():
            signal.signal(number, handler)
