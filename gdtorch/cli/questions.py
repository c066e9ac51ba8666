"""`python train.py questions`: the post's five questions, measured, into TensorBoard."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from .options import LARGEST, Parser, as_json, claimed, emit, integer, say
from .training import add_output_options

if TYPE_CHECKING:
    from ..questions import Answer

EPILOG = """\
It takes about ten seconds, and writes a picture of each answer, as PNG files and into TensorBoard.

example:
  python train.py questions --start 3 --name questions-3

exit status:
  0 all is well; 2 the input was wrong; 3 the run's folder cannot be written; 130 after Ctrl-C;
  143 after SIGTERM
"""


def main(program: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    options = _parser(program).parse(arguments)

    import torch

    from ..data import load_table
    from ..net import SigmoidNet
    from ..questions import answers
    from ..rundir import unwritable

    gc.enable()  # all is imported; `gdtorch.cli.main` disabled it
    rows = load_table("post").learned
    net = SigmoidNet(seed=options.seed, start=options.start).double()
    answered: list[Answer] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # products as small as these only wait for threads
    try:
        with claimed(options, ()) as folder:
            _write(folder, answers(net, rows, options.seed), answered)
    except OSError as error:
        last = answered[-1].name if answered else "no answer"
        say(unwritable(folder, last, error))
        return 3
    finally:
        torch.set_num_threads(threads)
    if options.json:
        settings = {"seed": options.seed, "start": options.start}
        facts = {answer.name: answer.facts for answer in answered}
        return emit(as_json({"run": str(folder), "settings": settings, **facts}))
    return 0 if options.quiet else emit(_text(options, folder, answered))


def _parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Measure what the post asks: the gradient three ways, what one step does to each row, the\n"
        "derivative on θ, sharpness along training, convexity, and the loss surface.",
        EPILOG,
    )
    add = parser.add_argument
    add("--seed", type=integer(0, 2**64 - 1), default=0, help="with --start: which initial weights")
    add(
        "--start",
        type=integer(0, LARGEST),
        default=0,
        help="which initial weights of the seed: 0, 1, 2 and so on",
    )
    add_output_options(add)
    return parser


def _write(folder: Path, answers: Iterable[Answer], answered: list[Answer]) -> None:
    """Write each answer as it comes: text and picture for TensorBoard, the picture as a file, too.

    Ctrl-C then leaves all answers until then.
    """
    from torch.utils.tensorboard import summary

    from ..board import EventFile
    from ..figures import png
    from ..rundir import write

    descriptions: dict[str, str] = {}
    with closing(EventFile(folder, descriptions)) as file:
        for answer in answers:
            descriptions[answer.name] = f"{answer.question} The answer is on the Text page."
            file.add(summary.text(answer.name, f"```text\n{answer.text()}\n```"))
            figure = answer.figure()
            if figure is not None:
                image = png(figure)
                write(folder / f"{answer.name}.png", image)
                file.add_image(answer.name, image)
            answered.append(answer)


def _text(options: argparse.Namespace, folder: Path, answered: Sequence[Answer]) -> str:
    from .report import to_see

    names = (f"{answer.name}.png" for answer in answered)
    pictures = ", ".join(name for name in names if (folder / name).exists())
    return "\n\n".join(
        [
            f"network 3-15-1, 60 weights, float64, from start {options.start} of seed "
            f"{options.seed}; the post's 7 rows",
            *(answer.text() for answer in answered),
            "\n".join([f"Pictures in {folder}: {pictures}", *to_see(folder, "images")]),
        ]
    )
