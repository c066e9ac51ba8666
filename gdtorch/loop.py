"""The main loops: advance all trainers by one step, compare, and log."""

from __future__ import annotations

__all__ = ["Ending", "run", "walk"]

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from signal import Signals
from typing import Any

from .board import Board, EventFile
from .descent import Steepest
from .lockstep import Lockstep
from .quartic import NO_ROWS, Quartic, at_rest_after, kind_of_point
from .rundir import unwritable
from .trainers import SGD, Manual

AWAY = 1e9  # times the start's distance from 0, or times 1: from so far out x does not come back


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        step: the last step, counted from 0, the initial weights.
        status: exit status: 0 all steps taken; 3 the run could not go on; 128 + its number after
            a signal.
        reason: why it ended early, in words; empty if it did not.
    """

    step: int
    status: int = 0
    reason: str = ""


def run(
    lockstep: Lockstep,
    board: Board,
    *,
    steps: int,
    log_every: int = 1,
    tick: Callable[[int], object] = int,
    interrupted: Callable[[], Signals | None] = lambda: None,
) -> Ending:
    """Run the trainers of a lockstep for `steps` steps.

    Args:
        lockstep: what advances the trainers and compares them.
        board: what measures and logs them.
        steps: how many steps to take.
        log_every: log scalars every so many steps; also at the last step, and at each for which
            the board has more to show.
        tick: called with the steps taken since the last call, like tqdm's `update`.
        interrupted: called after each step; if it returns a signal, the run ends there.
    """
    step = 0
    try:
        for step in lockstep:
            due = step % log_every == 0 or step == steps or board.shows_curvature(step)
            losses = board.log(step, lockstep.differences) if due else board.losses()
            ending = _ending(step, losses, interrupted())
            last = step == steps or ending.status != 0
            if last and not due:
                board.log(step, lockstep.differences)
            board.log_histograms(step)
            if step > 0:
                tick(lockstep.stride)
            if last:
                return ending
    except OSError as error:
        return Ending(step, 3, unwritable(board.folder, f"step {step}", error))
    except ArithmeticError as error:  # as of ASGD's rate, with a lambd below 0
        kind = board.settings["optimizer"]
        return Ending(step, 3, f"{kind} cannot go on after step {step}: {error}")
    raise AssertionError("trainers never end")


def _ending(step: int, losses: Mapping[str, float], received: Signals | None) -> Ending:
    """How the run would end after this step: with all steps taken, or for a reason."""
    broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
    if broken:
        reason = f"the loss of {' and '.join(broken)} is {losses[broken[0]]} after step {step}"
        return Ending(step, 3, f"{reason}; a smaller lr, momentum or weight decay may help")
    if received:
        return Ending(step, 128 + received, f"interrupted ({received.name}) after step {step}")
    return Ending(step)


def walk(
    path: list[float],
    file: EventFile,
    *,
    steps: int,
    interrupted: Callable[[], Signals | None],
    **options: Any,  # noqa: ANN401 (those of the trainers)
) -> dict[str, Any]:
    """Follow the post's f(x) from a start, by `Manual` and `SGD`; stop if x runs away.

    Args:
        path: holds x at the start; x after each step is appended.
        file: what takes the scalars.
        steps: how many steps to take.
        interrupted: as of `run`.
        options: those of both trainers: `lr`, `maximize`, `descent`.

    Returns:
        The outcome, for a program: the last x; f, f′ and f″ there; which kind of point that
        is; the step after which x was at rest; how the trainers compare.
    """
    (start,) = path
    sgd, manual = (way(Quartic(start), NO_ROWS, **options) for way in (SGD, Manual))
    lockstep = Lockstep({"sgd": sgd, "manual": manual}, "sgd")
    quartic, ran_away = Quartic(start), False
    for step in lockstep:
        x = manual.weights["x"].item()
        ran_away = not abs(x) <= AWAY * max(1, abs(start))
        if ran_away:
            break
        path[step:] = [x]
        quartic.x.data.fill_(x)
        scalars = {
            "loss": quartic.loss().item(),
            "x": x,
            "gradient": quartic.gradient()["x"].item(),
            "difference/x": lockstep.differences["manual"]["x"],
        }
        if isinstance(manual.descent, Steepest) and step > 0:
            scalars["step_size"] = manual.lr
        file.add_scalars(scalars, step)
        if step == steps or interrupted():
            break
    comparison = lockstep.comparisons["manual"]
    first = comparison.first_difference
    return {
        "x": path[-1],
        "f": quartic.loss().item(),
        "gradient": quartic.gradient()["x"].item(),
        "second_derivative": quartic.second_derivative().item(),
        "kind": kind_of_point(quartic),
        "steps": len(path) - 1,
        "at_rest_after": at_rest_after(path),
        "ran_away": ran_away,
        "identical": comparison.identical,
        "first_difference": first and asdict(first),
    }
