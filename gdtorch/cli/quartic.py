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
from typing import Any

from ..text import aligned, count, fenced
from . import Interrupts, options
from .options import OUTPUT, RefusedError, number, option
from .report import ended, in_words, show, to_see

Walks = dict[str, dict[str, Any]]  # start → what became of it
LR = 0.1
LEARNING_RATE = f"learning rate (default: {LR})"
FARTHEST_START = 1e6  # farther out there is nothing new to see
MOST_STARTS = 14  # more could not be told apart in the picture
OPTIONS = {
    "--from": option("the starts", number(), nargs="+", dest="points", required=True, metavar="X"),
    **options.shared("steps", "lr", steps={"default": 200}, lr={"help": LEARNING_RATE}),
    "--descent": option(
        "batch: each step lr times the slope; steepest: each step as long as serves best, found "
        "by line search",
        choices=("batch", "steepest"),
        default="batch",
    ),
    **options.shared("maximize", *OUTPUT),
}


def main(program: str, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(arguments)
    options.check_descent(args, LR)
    paths = _paths(args.points)

    from torch.utils.tensorboard import summary

    from ..board import OF_QUARTIC, event_files, layout_of_quartic, show_ranges
    from ..descent import BATCH, Steepest
    from ..figures import quartic
    from ..loop import walk
    from ..rundir import unwritable

    steepest = args.descent == "steepest"
    walks: Walks = {}
    parts = [f"from_{start}" for start in paths]
    interrupts.defer()
    try:
        with (
            options.loaded(),
            options.claimed(args, parts) as folder,
            event_files(folder, parts, OF_QUARTIC) as files,
        ):
            files[""].add(summary.custom_scalars(layout_of_quartic(steepest=steepest)))
            for start, path in paths.items():
                walks[start] = walk(
                    path,
                    files[f"from_{start}"],
                    steps=args.steps,
                    interrupted=lambda: interrupts.received,
                    lr=LR if steepest else args.lr,
                    maximize=args.maximize,
                    descent=Steepest() if steepest else BATCH,
                )
                if interrupts.received:
                    break
            away = [f"from_{start}" for start, end in walks.items() if end["ran_away"]]
            near = {part: file for part, file in files.items() if part not in away}
            show_ranges(near, ("x", "loss", "gradient"), args.steps)
            page = _page(args, paths, walks)
            drawn = {f"{x}: {_outcome(end)}": paths[x] for x, end in walks.items()}
            files[""].add_picture("quartic", quartic(drawn))
            files[""].add(summary.text("summary", fenced(page)))
    except OSError as error:
        steps = [0, *(len(path) - 1 for path in paths.values() if len(path) > 1)]
        return ended(unwritable(folder, f"step {steps[-1]}", error))
    facts = {"run": str(folder), "settings": options.settings(args), "starts": walks}
    printed = show(args, facts, page, to_see(folder, "quartic.png"))
    kept = f"all until then is in {folder}"
    if received := interrupts.received:
        return ended(f"interrupted ({received.name}); {kept}", 128 + received)
    away = [f"{x} (after step {walk['steps']})" for x, walk in walks.items() if walk["ran_away"]]
    if away:
        why = "f rises without end outside [0, 2]" if args.maximize else "a smaller --lr may help"
        return ended(f"x ran away from {' and '.join(away)}: {why}; {kept}")
    return printed or int(not all(walk["identical"] for walk in walks.values()))


def _paths(points: Sequence[float]) -> dict[str, list[float]]:
    """The name of each start → the path that begins there."""
    paths = {repr(x + 0.0).removesuffix(".0"): [x + 0.0] for x in points}  # −0 is 0
    if len(paths) < len(points):
        raise RefusedError("--from names a start twice; name it once")
    if len(paths) > MOST_STARTS:
        raise RefusedError(f"--from takes up to {MOST_STARTS} starts; these are {len(paths)}")
    for start, (x,) in paths.items():
        if abs(x) > FARTHEST_START:
            raise RefusedError(f"--from {start} is too far out; stay within ±{FARTHEST_START:g}")
    return paths


def _page(args: argparse.Namespace, paths: Mapping[str, list[float]], walks: Walks) -> str:
    """What became of each start, for a person to read."""
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
    return "\n\n".join([heading, aligned(cells), "\n".join([*zero, *apart])])


def _cells(walk: Mapping[str, Any]) -> list[str]:
    """One start's row of the table, without its name."""
    if walk["ran_away"]:
        return ["ran away", "", "", "", str(walk["steps"])]
    there = [f"{walk['f']:.6f}", f"{walk['second_derivative']:.2f}", walk["kind"]]
    if walk["at_rest_after"] is None:
        return [f"not at rest: {walk['x']:.6g}", *there, ""]
    return [f"{walk['x']:z.6f}", *there, str(walk["at_rest_after"])]


def _outcome(walk: Mapping[str, Any]) -> str:
    """The same in a few words."""
    if walk["ran_away"]:
        return f"ran away after step {walk['steps']}"
    moving = "not at rest" if walk["at_rest_after"] is None else walk["kind"]
    return f"{moving}, at {round(walk['x'], 6):z.3g}"
