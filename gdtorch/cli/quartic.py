"""Follow the post's f(x) from one or more starting points, down or up, by hand and by SGD.

From each start x goes by gradient descent written by hand (manual) and by torch.optim.SGD (sgd).
x is compared bit for bit after every step; where each came to rest is told, and drawn.

f(x) = x⁴/4 − x³ + x² has its minima at 0 and 2, and between them, at 1, a maximum.

example:
  python train.py quartic --from -1 0.9 1 1.1 3 --lr 0.1 --steps 200

exit status:
  0 all is well; 1 manual and sgd differ; 2 the input was wrong; 3 a start ran away, or the disk is
  full; 130 after Ctrl-C; 143 after SIGTERM; 129
  after SIGHUP
"""  # noqa: D405 (as --help shows it)

from __future__ import annotations

__all__ = ["OPTIONS", "main"]

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options
from .options import OUTPUT, RefusedError, number, several
from .report import Page, count, in_words, say, show, to_see

if TYPE_CHECKING:
    from ..board import EventFile
    from . import Interrupts

LR = 0.1
FARTHEST_START = 1e6  # farther out nothing new is to be seen
MOST_STARTS = 14  # that a picture can tell apart
AWAY = 1e9  # times as far as it began, or from 1: it will not come back
PICTURE = "quartic.png"
OPTIONS = {
    "--from": several(
        "where to start: one number or more", number(), dest="points", required=True, metavar="X"
    ),
    **options.shared(
        *("steps", "lr", "descent", "maximize", *OUTPUT),
        steps={"default": 200},
        lr={"help": f"learning rate (default: {LR})"},
        descent=options.descents(batch="each step lr times the slope"),
    ),
}


def main(program: str, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(arguments)
    options.check_descent(args, LR)
    paths = _paths(args.points)

    from ..rundir import unwritable

    walks: dict[str, dict[str, Any]] = {}
    parts = [f"from_{start}" for start in paths]
    try:
        with options.loaded(), interrupts, options.claimed(args, parts) as folder:
            _walk_all(paths, walks, args, folder, interrupts)
    except OSError as error:
        steps = [0, *(len(path) - 1 for path in paths.values() if len(path) > 1)]
        say(unwritable(folder, f"step {steps[-1]}", error))
        return 3
    facts = {"run": str(folder), "settings": options.settings(args), "starts": walks}
    drawn = f"Drawn:      {folder / PICTURE}\n{to_see(folder)}"
    printed = show(args, facts, _page(args, paths, walks).text(), drawn)
    if interrupts.received:
        say(f"interrupted ({interrupts.received.name}); all until then is in {folder}")
        return 128 + interrupts.received
    away = [f"{x} (after step {walk['steps']})" for x, walk in walks.items() if walk["ran_away"]]
    if away:
        smaller = "a smaller --lr may help"
        why = "f rises without end outside [0, 2]" if args.maximize else smaller
        say(f"x ran away from {' and '.join(away)}: {why}; all until then is in {folder}")
        return 3
    return printed or int(not all(walk["identical"] for walk in walks.values()))


def _paths(points: Sequence[float]) -> dict[str, list[float]]:
    """What each start is called, and the path that begins there."""
    paths = {repr(x + 0.0).removesuffix(".0"): [x + 0.0] for x in points}  # −0 is 0
    if len(paths) < len(points):
        raise RefusedError("--from names a start twice; name it once")
    if len(paths) > MOST_STARTS:
        raise RefusedError(f"--from takes up to {MOST_STARTS} starts; these are {len(paths)}")
    for start, (x,) in paths.items():
        if abs(x) > FARTHEST_START:
            raise RefusedError(f"--from {start} is too far out; stay within ±{FARTHEST_START:g}")
    return paths


def _walk_all(
    paths: Mapping[str, list[float]],
    walks: dict[str, dict[str, Any]],
    args: argparse.Namespace,
    folder: Path,
    interrupts: Interrupts,
) -> None:
    """Follow each start, log it, and at the end the text and the picture."""
    from torch.utils.tensorboard import summary

    from ..board import OF_QUARTIC, EventFile, layout_of_quartic
    from ..figures import png, quartic
    from ..rundir import write

    with ExitStack() as stack:
        whole = stack.enter_context(closing(EventFile(folder, OF_QUARTIC)))
        charts = layout_of_quartic(steepest=args.descent == "steepest")
        whole.add(summary.custom_scalars(charts))
        for start, path in paths.items():
            file = stack.enter_context(closing(EventFile(folder / f"from_{start}", OF_QUARTIC)))
            walks[start] = _walk(path, args, file, interrupts)
            if interrupts.received:
                break
        image = png(quartic({f"{x}: {_outcome(walk)}": paths[x] for x, walk in walks.items()}))
        write(folder / PICTURE, image)
        whole.add_image("quartic", image)
        whole.add(summary.text("summary", _page(args, paths, walks).markdown()))


def _walk(
    path: list[float], args: argparse.Namespace, file: EventFile, interrupts: Interrupts
) -> dict[str, Any]:
    """Follow a path from its start in lockstep, until its steps are done or it runs away.

    Returns:
        What became of it, for a program: x after its last step, the function and its derivatives
        there, the step after which it was at rest.
    """
    from ..descent import BATCH, Steepest
    from ..lockstep import Lockstep
    from ..quartic import NO_ROWS, Quartic, kind_of_point
    from ..trainers import SGD, Manual

    lr = LR if args.lr is None else args.lr
    descent = Steepest() if args.descent == "steepest" else BATCH
    (x,) = path
    sgd = SGD(Quartic(x), NO_ROWS, lr, maximize=args.maximize, descent=descent)
    manual = Manual(Quartic(x), NO_ROWS, lr, maximize=args.maximize, descent=descent)
    lockstep = Lockstep({"sgd": sgd, "manual": manual}, "sgd")
    quartic, ran_away = Quartic(x), False
    for step in lockstep:
        here = manual.weights["x"].item()
        ran_away = not abs(here) <= AWAY * max(1, abs(x))
        if ran_away:
            break
        path[step:] = [here]
        quartic.x.data.fill_(here)
        scalars = {
            "loss": quartic.loss().item(),
            "x": here,
            "gradient": quartic.gradient()["x"].item(),
            "difference/x": lockstep.differences["manual"]["x"],
        }
        if args.descent == "steepest" and step > 0:
            scalars["step_size"] = manual.lr
        file.add_scalars(scalars, step)
        if step == args.steps or interrupts.received:
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
        "at_rest_after": _rest(path),
        "ran_away": ran_away,
        "identical": comparison.identical,
        "first_difference": first and asdict(first),
    }


def _rest(path: Sequence[float]) -> int | None:
    """The step from which on |f′| was 0 but for 10⁻⁹; None if it is still moving."""
    from ..quartic import REST, Quartic

    quartic = Quartic(path)
    slope, away = quartic.gradient()["x"], quartic.x.detach() - path[-1]
    moving = ((slope.abs() > REST) | (away.abs() > REST)).tolist()
    step = len(path) - moving[::-1].index(True) if True in moving else 0
    return step if step < len(path) else None


def _page(
    args: argparse.Namespace,
    paths: Mapping[str, list[float]],
    walks: Mapping[str, Mapping[str, Any]],
) -> Page:
    """What became of each start, for a person."""
    way = in_words(options.settings(args))
    heading = f"f(x) = x⁴/4 − x³ + x², float64; {count(args.steps, 'step')} of {way}"
    cells = [["from", "came to rest at", "f there", "f″ there", "kind of point", "after step"]]
    zero, apart = [], []
    for start, walk in walks.items():
        cells.append([start, *_cells(walk)])
        x = paths[start][0]
        if x == walk["x"] and walk["gradient"] == 0:
            is_zero = "is zero" if x in {0.0, 1.0, 2.0} else "rounds to zero"
            zero.append(
                f"from {start}: the gradient {is_zero}, on a {walk['kind']}, so no step moves x"
            )
        if walk["first_difference"]:
            step = walk["first_difference"]["step"]
            apart.append(f"from {start}: manual ≠ sgd, first after step {step}")
    if not apart:
        starts = "every start" if len(walks) == len(paths) else "each start above"
        apart.append(f"manual = sgd: the same bits of x after each step, from {starts}")
    return Page([heading], [cells], [*zero, *apart])


def _cells(walk: Mapping[str, Any]) -> list[str]:
    """What the table says of one start."""
    if walk["ran_away"]:
        return ["ran away", "", "", "", str(walk["steps"])]
    there = [f"{walk['f']:.6f}", f"{walk['second_derivative']:.2f}", walk["kind"]]
    if walk["at_rest_after"] is None:
        return [f"not at rest: {walk['x']:.6g}", *there, ""]
    return [f"{_near(walk):.6f}", *there, str(walk["at_rest_after"])]


def _outcome(walk: Mapping[str, Any]) -> str:
    """The same in a few words."""
    if walk["ran_away"]:
        return f"ran away after step {walk['steps']}"
    moving = "not at rest" if walk["at_rest_after"] is None else walk["kind"]
    return f"{moving}, at {_near(walk):.3g}"


def _near(walk: Mapping[str, Any]) -> float:
    return round(float(walk["x"]), 6) + 0.0  # 0, not −0
