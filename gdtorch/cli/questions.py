"""Answer the post's five questions by numbers and pictures, into TensorBoard.

What it asks is measured: the gradient three ways, what one step does to each row, the derivative
on θ, sharpness along training, convexity, and the loss surface. It takes about ten seconds, and
writes a picture of each answer, as PNG files and into TensorBoard.

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

from . import Interrupts, options
from .report import ended, show, to_see

if TYPE_CHECKING:
    from ..questions import Answer

OPTIONS = options.shared("seed", "start", *options.OUTPUT)


def main(program: str, arguments: Sequence[str], _: Interrupts) -> int:
    """Run the command and return its exit status (see `gdtorch.cli.main`)."""
    args = options.Parser(program, __doc__, OPTIONS).parse(arguments)

    from torch.utils.tensorboard import summary

    from ..board import EventFile
    from ..data import load_table
    from ..net import SigmoidNet
    from ..questions import answers
    from ..rundir import unwritable

    rows = load_table("post").learned
    net = SigmoidNet(seed=args.seed, start=args.start).double()
    answered: list[Answer] = []
    descriptions: dict[str, str] = {}
    try:
        with (
            options.loaded(one_thread=True),
            options.claimed(args, ()) as folder,
            closing(EventFile(folder, descriptions)) as file,
        ):
            for answer in answers(net, rows, args.seed):  # each written as it comes
                descriptions[answer.name] = (
                    f"{answer.question} The answer is on the Text page. "
                    "Click the picture to enlarge it."
                )
                file.add(summary.text(answer.name, f"```text\n{answer.text()}\n```"))
                if figure := answer.figure():
                    file.add_picture(answer.name, figure)
                answered.append(answer)
    except OSError as error:
        if not answered:
            return ended(f"cannot write to {folder} before the first answer: {error.strerror}")
        return ended(unwritable(folder, answered[-1].name, error))
    facts = {answer.name: answer.facts for answer in answered}
    pictures = ", ".join(f"{answer.name}.png" for answer in answered if answer.picture)
    return show(
        args,
        {"run": str(folder), "settings": options.settings(args), **facts},
        f"network 3-15-1, 60 weights, float64, from start {args.start} of seed {args.seed}; "
        "the post's 7 rows",
        *(answer.text() for answer in answered),
        f"Pictures in {folder}: {pictures}\n{to_see(folder, 'images')}",
    )
