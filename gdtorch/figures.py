"""Every picture of gdtorch; nothing else imports matplotlib."""

from __future__ import annotations

__all__ = ["png", "quartic"]

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart: black, orange, sky blue, bluish
# green, yellow, blue, vermilion, reddish purple. (Wong, Nature Methods 8, 441, 2011.)
COLOURS = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
PATHS = [COLOURS[i] for i in (5, 6, 3, 1, 7, 2, 0)]  # all but yellow, too pale for a thin line
DPI = 200  # twice what a screen shows


def _figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:  # noqa: ANN401
    """A figure of so many inches and its axes, as `Figure.subplots` gives them; no pyplot."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**subplots)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def quartic(paths: Mapping[str, Sequence[float]]) -> Figure:
    """The post's f(x) with the paths on it, and below, at the same x, how each went step by step.

    What runs away leaves the picture, which ends a little outside the starts and both minima.

    Args:
        paths: what to call each path → x after each step, from 0, the start.
    """
    starts = [path[0] for path in paths.values()]
    left, right = min(0, *starts) - 0.3, max(2, *starts) + 0.3
    figure, (curve, track) = _figure(
        7, 8, nrows=2, sharex=True, gridspec_kw={"height_ratios": (4, 3)}
    )
    x = np.linspace(left, right, 500)
    curve.plot(x, _f(x), color="0.75", linewidth=2, zorder=0)
    for number, (name, path) in enumerate(paths.items()):
        colour = PATHS[number % len(PATHS)]
        steps = np.arange(len(path))
        curve.plot(path, _f(np.array(path)), ".", color=colour, markersize=4)
        track.plot(path, steps, ".-", color=colour, markersize=4, linewidth=1, label=name)
        for axes, heights in ((curve, _f(np.array(path))), (track, steps)):
            axes.plot(path[0], heights[0], "o", color=colour, markerfacecolor="w", markersize=9)
            axes.plot(path[-1], heights[-1], "D", color=colour, markeredgecolor="w", markersize=8)
    top = max(0.3, *_f(np.array(starts)))
    curve.set(xlim=(left, right), ylim=(-0.06 * top, 1.1 * top), ylabel="f(x) = x⁴/4 − x³ + x²")
    curve.set_title("circle: start, dot: a step, diamond: where it ended", fontsize=10)
    last = max(map(len, paths.values())) - 1
    track.set(xlabel="x", ylabel="step")
    track.set_yscale("symlog", linthresh=10)
    ticks = [0, *(step for step in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if step < 0.8 * last)]
    track.set_yticks([*ticks, last], labels=[str(step) for step in (*ticks, last)])
    track.minorticks_off()
    track.set_ylim(1.3 * last + 1, -1)
    figure.legend(title="from", fontsize=9, loc="outside lower center", ncols=2)
    return figure


def _f(x: Any) -> Any:  # noqa: ANN401 (an array of NumPy's)
    return ((x - 1) ** 2 - 1) ** 2 / 4
