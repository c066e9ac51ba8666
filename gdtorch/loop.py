"""The main loops: advance all trainers by one step, compare, log, and say what came of it."""

from __future__ import annotations

__all__ = ["Ending", "outcome", "run", "walk"]

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from signal import Signals
from typing import Any

from .board import Board, EventFile
from .descent import Steepest
from .lockstep import Lockstep, in_ulps, lockstep, phrase
from .quartic import NO_ROWS, Quartic, at_rest_after, kind_of_point
from .rundir import unwritable
from .trainers import SGD, Manual, Trainer

LATE = 100  # steps; where a trainer parts later, no reason is looked for
SHOWN = 2  # steps after the parting that are replayed as well
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


def outcome(
    board: Board, lockstep: Lockstep, ending: Ending, fresh: Callable[[str], Trainer] | None
) -> dict[str, Any]:
    """What came out of a run, for a program.

    Args:
        board: what measured and logged the trainers.
        lockstep: what compared them.
        ending: how the run ended.
        fresh: a trainer's name → the same one at the initial weights, to find out why it parts;
            None if steps are compiled, since those round otherwise.

    Returns:
        The steps taken; the exit status and why the run ended early; each trainer's outcome; how
        each compares with the reference.
    """
    comparisons = {
        name: {
            "reference": lockstep.reference,
            "identical": comparison.identical,
            "verdict": _verdict(name, board, lockstep, fresh),
            **asdict(comparison),
        }
        for name, comparison in lockstep.comparisons.items()
    }
    manual = lockstep.comparisons.get("manual")
    of_torch = lockstep.reference not in {"post", "manual"}
    differ = manual is not None and not manual.identical and of_torch and fresh is not None
    return {
        "steps": ending.step,
        "status": ending.status or int(differ),
        "reason": ending.reason,
        "trainers": board.outcomes(),
        "comparisons": comparisons,
    }


def _verdict(
    name: str, board: Board, lockstep: Lockstep, fresh: Callable[[str], Trainer] | None
) -> str:
    """Whether a trainer holds the same bits as the reference; if not, where and why they part."""
    comparison = lockstep.comparisons[name]
    first, steps = comparison.first_difference, comparison.steps
    taken = "1 step" if steps == 1 else f"{steps} steps"
    if first is None:
        same = f"{name} = {lockstep.reference}"
        weights = board.trainers[board.names.index(name)].weights
        still = all(w.equal(weights[weight]) for weight, w in board.initial.named_parameters())
        if steps and still:
            short = f"each of {taken} was too short to change one"
            return f"{same}, but no weight moved in either: {short}"
        each = "" if steps == 1 else "each of "
        if lockstep.stride > 1:
            each = f"every {lockstep.stride} of "
        return f"{same}: the same bits in all {board.size} weights after {each}{taken}"
    at = "at" if lockstep.stride == 1 else "by"
    parted = (
        f"{name} ≠ {lockstep.reference}: they part {at} step {first.step} in {first.weight} "
        f"by up to {first.absolute:.1e}"
    )
    if fresh is None:
        return f"{parted}; compiled steps round otherwise"
    if first.step <= LATE and math.isfinite(first.absolute):
        why = _why(fresh(name), fresh(lockstep.reference), first.step + SHOWN)
        if why:
            return f"{parted}, because {why}"
    return f"{parted} ({', '.join(filter(None, [in_ulps(first), f'at {list(first.index)}']))})"


def _why(mine: Trainer, theirs: Trainer, steps: int) -> str:
    """Why a trainer parts from its reference, found by a replay of the first steps."""
    try:
        report = lockstep(mine, theirs, steps)
    except ArithmeticError:  # where a step cannot be taken
        return ""
    if report.agree:
        return "each rounds in its own order"
    whys = [phrase(edit)[0] for edit in report.edits]
    return f"{mine.name} {' and '.join(whys)}" if whys else ""


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
