"""The post's five questions, each answered by numbers measured here and now."""

from __future__ import annotations

__all__ = ["Answer", "answers", "both_ways", "follow", "minimum", "one_step", "stability",
           "surface", "three_ways"]  # fmt: skip

from collections.abc import Iterator

from ..data import Table
from ..net import SigmoidNet
from ..trainers import SGD, Manual, Post
from .answer import Answer
from .gradient import both_ways, three_ways
from .minimum import minimum, surface
from .step import one_step
from .training import follow, stability

STEPS = 1000  # the post's passes
LR = 1.0  # the post's alpha


def answers(net: SigmoidNet, table: Table, seed: int) -> Iterator[Answer]:
    """Measure and answer, in the post's order; the last answer is the loss surface.

    Args:
        net: the post's network in float64 at the weights to begin from; left as it is.
        table: its rows to learn are those that the loss is over.
        seed: of the random directions of question 1.
    """
    rows = table.learned
    post, manual, sgd = (t(net, rows, LR) for t in (Post, Manual, SGD))
    paths = {trainer.name: follow(trainer, STEPS) for trainer in (post, manual, sgd)}
    yield three_ways(net, rows, seed)
    yield one_step(net, table, paths["manual"])
    yield both_ways(net, rows)
    yield stability(net, rows, STEPS)
    yield minimum(net, rows, paths["manual"])
    yield surface(net, rows, paths)
