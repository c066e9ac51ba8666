"""What TensorBoard shows of very many starts: what became of them at each learning rate."""

from __future__ import annotations

__all__ = ["OF_ENSEMBLE", "show_ensemble"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import summary

from .board import log10
from .events import EventFile, range_of
from .measure import SAID

AXIS = "the step counts the learning rates, which the title on Custom Scalars names"
MOST_NAMED = 8  # learning rates, in that title
OF_ENSEMBLE = SAID | {
    "share": f"Share of all starts, from 0 to 1; {AXIS}. *summary*, on the Text page, says what "
    "each name means.",
    "loss": "The loss that so many per cent of the starts do not exceed at the end: 0 the least, "
    f"50 the median, 100 the greatest; {AXIS}.",
    "loss_log10": f"The logarithm to base 10 of *loss*; −20 stands for 0; {AXIS}.",
    "median_steps": "The steps after which half of the starts that ever had all rows right had "
    f"them; {AXIS}.",
    "held_out": f"The outputs for the rows held out, which no start was shown; {AXIS}.",
    "ensemble": "Above, shares of the starts at each learning rate; below, their losses at the "
    "end: the median, the band of 98 % around it, and the band of all. Click the picture to "
    "enlarge it.",
    "log10_loss": f"The logarithms to base 10 of the losses at the end; {AXIS}.",
}


def show_ensemble(
    file: EventFile,
    rates: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    histograms: Sequence[Mapping[str, tuple[NDArray[Any], NDArray[Any]]]],
    title: str,
    text: str,
) -> None:
    """Write what became of the starts at each learning rate, and the page of custom scalars.

    Args:
        file: the run's.
        rates: of each `lr`, the smallest first, what came out: `shares`, the quantiles of the
            `loss`, `median_steps`.
        kinds: the kinds of end that are shown: of `shares` → its name.
        histograms: for each of these, tag → the n + 1 edges of its bins, and n counts.
        title: of the picture.
        text: the summary, in Markdown.
    """
    from .. import figures  # loads matplotlib

    medians = [rate["median_steps"] for rate in rates if rate["median_steps"] is not None]
    shares, steps = range_of("share", 0, 1), {}
    charts = {f"share: {name}": ["Margin", [f"share/{k}", *shares]] for k, name in kinds.items()}
    if medians:
        steps = range_of("median_steps", min(medians), max(medians))
        charts["steps to all rows right, median"] = ["Margin", ["median_steps", *steps]]
    band = [f"loss_log10/{percent}" for percent in (50, 1, 99)]
    charts["log10 of the loss: median, 1 to 99 %"] = ["Margin", band]
    charts = dict(reversed(charts.items()))  # TensorBoard puts the last chart with a band first
    named = [f"{place} is {rate['lr']:g}" for place, rate in enumerate(rates, start=1)]
    if len(named) > MOST_NAMED:
        named[MOST_NAMED - 1 : -1] = ["…"]
    file.add(
        summary.custom_scalars({f"What becomes of them? Learning rate {', '.join(named)}": charts})
    )
    for step, rate in enumerate(rates, start=1):
        scalars = shares | {f"share/{kind}": rate["shares"][kind] for kind in kinds}
        scalars |= {f"loss/{percent}": loss for percent, loss in rate["loss"].items()}
        scalars |= {f"loss_log10/{percent}": log10(loss) for percent, loss in rate["loss"].items()}
        if rate["median_steps"] is not None:
            scalars["median_steps"] = rate["median_steps"]
            scalars |= steps
        file.add_scalars(scalars, step)
        for tag, (edges, counts) in histograms[step - 1].items():
            if counts.any():
                file.add(_histogram(tag, counts, edges), step)
    drawn = {name: [rate["shares"][kind] for rate in rates] for kind, name in kinds.items()}
    losses = [[rate["loss"][percent] for rate in rates] for percent in rates[0]["loss"]]
    picture = figures.ensemble([rate["lr"] for rate in rates], drawn, losses, title)
    file.add_picture("ensemble", picture)
    file.add(summary.text("summary", text))


def _histogram(tag: str, counts: NDArray[Any], edges: NDArray[Any]) -> Any:  # noqa: ANN401
    """A histogram from the counts of its bins."""
    filled = np.flatnonzero(counts)
    first, last = filled[0], filled[-1] + 1
    counts, low, high = counts[first:last], edges[first:last], edges[first + 1 : last + 1]
    middle = (low + high) / 2
    return summary.histogram_raw(
        tag,
        min=low[0],
        max=high[-1],
        num=int(counts.sum()),
        sum=float(counts @ middle),
        sum_squares=float(counts @ middle**2),
        bucket_limits=high.tolist(),
        bucket_counts=counts.tolist(),
    )
