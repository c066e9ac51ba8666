"""Answer the post's five questions by numbers and pictures, into TensorBoard.

What it asks is measured: the gradient three ways, what one step does to each row, the derivative
on θ, sharpness along training, convexity, and the loss surface. It takes about ten seconds, and
writes a picture of each answer, as PNG files and into TensorBoard. The questions may be asked of
another table, too: of up to 8 rows with up to 8 inputs, whose targets are 0 and 1.

example:
  python train.py questions --start 3 --name questions-3

exit status:
  0 all is well; 2 the input was wrong; 3 the run's folder cannot be written; 130 after Ctrl-C;
  143 after SIGTERM; 129 after SIGHUP
"""  # noqa: D405 (as --help shows it)

from __future__ import annotations

__all__ = ["OPTIONS", "main"]

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ..text import count, fenced
from . import Interrupts, options
from .options import RefusedError
from .report import ended, show, to_see

if TYPE_CHECKING:
    from ..data import Record
    from ..questions import Answer

OPTIONS = options.shared("table", "seed", "start", *options.OUTPUT)
MOST_ROWS = 8  # which a page shows side by side
MOST_INPUTS = 8  # with more, the Hessians take longer than one likes to wait


def main(program: str, arguments: Sequence[str], _: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(arguments)

    from ..data import make_table, read_table

    with options.refusing():
        records = read_table(args.table)
    _check(args.table, records)

    from torch.utils.tensorboard import summary

    from ..board import EventFile
    from ..net import SigmoidNet
    from ..questions import answers
    from ..rundir import unwritable

    table = make_table(args.table, records)
    rows = table.learned
    net = SigmoidNet(table.features, seed=args.seed, start=args.start).double()
    if not all(gradient.any() for gradient in net.gradient(rows).values()):
        raise RefusedError(
            f"table {args.table}: at this start no input moves the loss, so that there is nothing "
            "to measure; try another --start, or smaller inputs that are not all 0"
        )
    size = sum(weights.numel() for weights in net.parameters())
    answered: list[Answer] = []
    descriptions: dict[str, str] = {}
    try:
        with (
            options.loaded(one_thread=True),
            options.claimed(args, ()) as folder,
            closing(EventFile(folder, descriptions)) as file,
        ):
            for answer in answers(net, table, args.seed):  # each written as it comes
                descriptions[answer.name] = (
                    f"{answer.question} The answer is on the Text page. "
                    "Click the picture to enlarge it."
                )
                file.add(summary.text(answer.name, fenced(answer.text())))
                if figure := answer.figure():
                    file.add_picture(answer.name, figure)
                answered.append(answer)
    except OSError as error:
        if not answered:
            return ended(f"cannot write to {folder} before the first answer: {error.strerror}")
        return ended(unwritable(folder, answered[-1].name, error))
    facts = {answer.name: answer.facts for answer in answered}
    pictures = [f"{answer.name}.png" for answer in answered if answer.picture]
    return show(
        args,
        {"run": str(folder), "settings": options.settings(args), **facts},
        f"network {table.features}-15-1, {size} weights, float64, from start {args.start} of seed "
        f"{args.seed}; table {args.table}: {count(len(rows.targets), 'row')}",
        *(answer.text() for answer in answered),
        to_see(folder, *pictures, page="images"),
    )


def _check(name: str, records: Sequence[Record]) -> None:
    """Refuse a table of which an answer would take too long, or be too wide to read."""
    rows = [tuple(inputs) for inputs, _, held_out in records if not held_out]
    targets = {target for _, target, held_out in records if not held_out}
    few = len(rows) <= MOST_ROWS and len(rows[0]) <= MOST_INPUTS
    if not few or len(set(rows)) < len(rows) or not targets <= {0, 1}:
        raise RefusedError(
            f"table {name}: questions takes up to {MOST_ROWS} rows, no two alike, with up to "
            f"{MOST_INPUTS} inputs and with targets of 0 and 1; compare takes any table"
        )
