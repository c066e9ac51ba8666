"""`python train.py quartic --from X ...`: the post's f(x), down or up, by hand and by SGD."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .options import Parser, RefusedError, as_json, claimed, emit, number, say
from .training import add_descent_options, add_output_options, check_descent, make_descent

if TYPE_CHECKING:
    from ..board import EventFile
    from ..loop import Interrupts
    from .quartic_report import Walk

LR = 0.1
FARTHEST_START = 1e6  # farther out nothing new is to be seen
MOST_STARTS = 14  # that a picture can tell apart
AWAY = 1e9  # times as far as it began, or from 1: it will not come back
PICTURE = "quartic.png"
EPILOG = """\
f(x) = x⁴/4 − x³ + x² has its minima at 0 and 2, and between them, at 1, a maximum.

example:
  python train.py quartic --from -1 0.9 1 1.1 3 --lr 0.1 --steps 200

exit status:
  0 all is well; 1 manual and sgd differ; 2 the input was wrong; 3 a start ran away, or the disk is
  full; 130 after Ctrl-C; 143 after SIGTERM
"""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    options = _parser(program).parse(arguments)
    check_descent(options, LR)
    starts = {repr(x + 0.0).removesuffix(".0"): x + 0.0 for x in options.starts}  # −0 is 0
    if len(starts) < len(options.starts):
        raise RefusedError("--from names a start twice; name it once")
    if len(starts) > MOST_STARTS:
        raise RefusedError(f"--from takes up to {MOST_STARTS} starts; these are {len(starts)}")
    for name, x in starts.items():
        if abs(x) > FARTHEST_START:
            raise RefusedError(f"--from {name} is too far out; stay within ±{FARTHEST_START:g}")

    from ..loop import Interrupts
    from ..rundir import unwritable
    from .quartic_report import facts, text

    gc.freeze()  # what is imported stays: no collection need look at it again
    gc.enable()
    paths = {name: [x] for name, x in starts.items()}
    walks: list[Walk] = []
    try:
        with (
            Interrupts() as interrupts,
            claimed(options, [f"from_{name}" for name in starts]) as folder,
        ):
            _walk_all(paths, options, folder, walks, interrupts)
    except OSError as error:
        steps = [0, *(len(path) - 1 for path in paths.values() if len(path) > 1)]
        say(unwritable(folder, f"step {steps[-1]}", error))
        return 3
    printed = 0
    if options.json or not options.quiet:
        lines = [*text(options, walks), "", *_where(folder)]
        printed = emit(as_json(facts(options, folder, walks)) if options.json else "\n".join(lines))
    if interrupts.received:
        say(f"interrupted ({interrupts.received.name}); all until then is in {folder}")
        return 128 + interrupts.received
    away = [f"{walk.start} (after step {walk.steps})" for walk in walks if walk.ran_away]
    if away:
        why = (
            "f rises without end outside [0, 2]" if options.maximize else "a smaller --lr may help"
        )
        say(f"x ran away from {' and '.join(away)}: {why}; all until then is in {folder}")
        return 3
    return printed or int(not all(walk.comparison.identical for walk in walks))


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Follow the post's f(x) from one or more starting points, by gradient descent written by\n"
        "hand (manual) and by torch.optim.SGD (sgd), compare x bit for bit after every step, say\n"
        "where each came to rest, and draw it.",
        EPILOG,
    )
    add = parser.add_argument
    add("--from", dest="starts", type=number(), nargs="+", required=True, metavar="X",
        help="where to start: one number or more")  # fmt: skip
    add_descent_options(add, steps=200, lr=LR, descents=("batch", "steepest"))
    add_output_options(add)
    return parser


def _walk_all(
    paths: Mapping[str, list[float]],
    options: argparse.Namespace,
    folder: Path,
    walks: list[Walk],
    interrupts: Interrupts,
) -> None:
    """Follow each start, log it, and at the end the text and the picture."""
    from torch.utils.tensorboard import summary

    from ..board import OF_QUARTIC, EventFile, layout_of_quartic
    from ..figures import png, quartic
    from ..rundir import write
    from .quartic_report import outcome, text

    with ExitStack() as stack:
        whole = EventFile(folder, OF_QUARTIC)
        stack.callback(whole.close)
        charts = layout_of_quartic(steepest=options.descent == "steepest")
        whole.add(summary.custom_scalars(charts))
        for name, path in paths.items():
            file = EventFile(folder / f"from_{name}", OF_QUARTIC)
            stack.callback(file.close)
            walks.append(_walk(name, path, options, file, interrupts))
            if interrupts.received:
                break
        image = png(quartic({f"{walk.start}: {outcome(walk)}": walk.path for walk in walks}))
        write(folder / PICTURE, image)
        whole.add_image("quartic", image)
        whole.add(summary.text("summary", "\n".join(["```text", *text(options, walks), "```"])))


def _walk(
    name: str,
    path: list[float],
    options: argparse.Namespace,
    file: EventFile,
    interrupts: Interrupts,
) -> Walk:
    """Follow a path from its start in lockstep, until its steps are done or it runs away."""
    from ..lockstep import Lockstep
    from ..quartic import NO_ROWS, Quartic, kind_of_point
    from ..trainers import SGD, Manual
    from .quartic_report import Walk

    lr = LR if options.lr is None else options.lr
    (x,) = path
    sgd, manual = (
        trainer(Quartic(x), NO_ROWS, lr, maximize=options.maximize,
                descent=make_descent(options.descent))
        for trainer in (SGD, Manual)
    )  # fmt: skip
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
        if options.descent == "steepest" and step > 0:
            scalars["step_size"] = manual.lr
        file.add_scalars(scalars, step)
        if step == options.steps or interrupts.received:
            break
    return Walk(
        name,
        path,
        quartic.loss().item(),
        quartic.gradient()["x"].item(),
        quartic.second_derivative().item(),
        kind_of_point(quartic),
        _rest(path),
        ran_away,
        lockstep.comparisons["manual"],
    )


def _rest(path: Sequence[float]) -> int | None:
    from ..quartic import REST, Quartic

    quartic = Quartic(path)
    slope, away = quartic.gradient()["x"], quartic.x.detach() - path[-1]
    moving = ((slope.abs() > REST) | (away.abs() > REST)).tolist()
    step = len(path) - moving[::-1].index(True) if True in moving else 0
    return step if step < len(path) else None


def _where(folder: Path) -> list[str]:
    from .report import to_see

    return [f"Drawn:      {folder / PICTURE}", *to_see(folder)]
