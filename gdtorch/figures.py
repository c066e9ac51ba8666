"""Every picture of gdtorch; nothing else imports matplotlib."""

from __future__ import annotations

__all__ = [
    "curves",
    "ensemble",
    "png",
    "quartic",
    "quotient_error",
    "spectrum",
    "stability",
    "surface",
]

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

# Okabe and Ito's palette, which the colour-blind can tell apart: black, orange, sky blue, bluish
# green, yellow, blue, vermilion, reddish purple. (Wong, Nature Methods 8, 441, 2011.)
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = COLOURS
PATHS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)  # not yellow: too pale for a line
DPI = 200  # twice what a screen shows
LINEAR = 1e-3  # an axis with both signs is linear up to this, logarithmic beyond
LINE_STYLES = ("-", "--", "-.", ":")  # so that lines differ without colour, too
# Each curve stays visible where two coincide, as those of manual and sgd do.
TRAINERS = {
    "manual": {"color": SKY, "linewidth": 5, "zorder": 1},
    "post": {"color": VERMILION, "linewidth": 1.2, "zorder": 3},
}
REFERENCE = {"color": BLACK, "linewidth": 2, "linestyle": "--", "zorder": 2}  # torch.optim's own
LAST_BIT = 1e-17  # smaller than that of any weight that matters; a distance of 0 is drawn there
FLAT = 2e-3  # of the limit 2 / lr: the sharpness picture ends there; a curve below it is flat


class _Picture(Figure):
    """A figure that a notebook shows without pyplot, at a screen's resolution."""

    def _repr_png_(self) -> bytes:
        return png(self, DPI / 2)


def _figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:  # noqa: ANN401
    """A figure of this size in inches, and its axes as `Figure.subplots` gives them; no pyplot."""
    figure = _Picture(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(**subplots)


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def curves(file: Path) -> Figure:
    """Each trainer's loss over the steps and, below it, its distance from the reference.

    Args:
        file: a run's `curves.csv`, see `gdtorch.board.Board`.
    """
    with file.open() as lines:
        names = next(lines).rstrip().split(",")
        steps, *columns = np.loadtxt(lines, delimiter=",", ndmin=2).T
    kinds = {"loss": "loss L", "difference": "largest distance of a weight\nfrom the reference"}
    shown = [kind for kind in kinds if any(name.endswith(kind) for name in names)]
    figure, panels = _figure(7, 2.6 * len(shown), nrows=len(shown), sharex=True, squeeze=False)
    for panel, kind in zip(panels.flat, shown, strict=True):
        panel.set_ylabel(kinds[kind])
        for name, column in zip(names[1:], columns, strict=True):
            trainer, _, of = name.partition("/")
            if of == kind:
                panel.plot(steps, column, label=trainer, **TRAINERS.get(trainer, REFERENCE))
    panels[0, 0].set_yscale("log")
    if len(shown) > 1:
        panels[1, 0].set_yscale("symlog", linthresh=LAST_BIT)
        panels[1, 0].set_yticks([0, *(10.0**power for power in range(-15, 10, 5))])
        panels[1, 0].set_ylim(-LAST_BIT, 100 * max(LAST_BIT, panels[1, 0].dataLim.ymax))
    panels[-1, 0].set_xlabel("steps of training")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def quotient_error(steps: Tensor, errors: Tensor, weights: Sequence[str]) -> Figure:
    """Error of the difference quotient 1.3.4 against its h.

    Args:
        steps: h, of shape (h,).
        errors: relative to autograd, of shape (h, weights).
        weights: their names.
    """
    figure, axes = _figure(6, 4)
    for name, error, colour, marker in zip(
        weights, errors.T, (BLUE, VERMILION), "os", strict=False
    ):
        axes.loglog(steps, error, color=colour, marker=marker, markersize=5, label=name)
    best = int(errors.amax(dim=1).argmin())
    axes.axvline(steps[best].item(), color="0.6", linewidth=1, zorder=0)
    axes.annotate(
        f"best h = 1e{math.log10(steps[best].item()):.0f}",
        (steps[best].item(), 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -12),
        textcoords="offset points",
    )
    axes.set(
        xlabel="h of the difference quotient (1.3.4)",
        ylabel="largest difference from autograd,\nrelative to the weight's largest derivative",
        title="too small an h drowns in rounding, too large an h leaves the curve",
    )
    axes.title.set_size("medium")
    axes.legend(frameon=False, loc="lower right")
    return figure


def stability(rates: Sequence[float], sharpness: Tensor, losses: Tensor) -> Figure:
    """Sharpness over the steps, in units of its limit 2/lr; below it, the loss.

    Args:
        rates: learning rates.
        sharpness: of shape (learning rates, steps + 1).
        losses: of the same shape.
    """
    figure, (above, below) = _figure(7, 5.2, nrows=2, sharex=True, height_ratios=(3, 2))
    for lr, sharp, loss, colour, style in zip(
        rates, sharpness, losses, (SKY, BLUE, ORANGE, VERMILION), LINE_STYLES, strict=True
    ):
        shares = sharp * lr / 2
        leaves = f" (falls to {shares.min():.0e})" if shares.min() < FLAT else ""
        above.semilogy(shares, style, color=colour, label=f"lr = {lr:g}{leaves}")
        below.semilogy(loss, style, color=colour)
    above.axhline(1, color="0.4", linewidth=1, label="limit 2 / lr")
    above.set(ylabel="sharpness, in units of 2 / lr", ylim=(FLAT, None))
    below.set(ylabel="loss L", xlabel="steps of training")
    below.set_xscale("symlog", linthresh=1)
    below.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=len(rates) + 1, frameon=False)
    return figure


def spectrum(spectra: Tensor, steps: int) -> Figure:
    """Every eigenvalue of the Hessian, at the start and at the end of training.

    Args:
        spectra: ascending, of shape (2, n).
        steps: the number of steps between the two.
    """
    figure, panels = _figure(8, 3.6, ncols=2, sharey=True)
    panels[0].set_yscale("symlog", linthresh=LINEAR)
    for axes, values, place in zip(
        panels, spectra, ("at the start", f"after {steps} steps"), strict=True
    ):
        numbers = np.arange(1, len(values) + 1)
        for chosen, colour, marker, sign in (
            (values < 0, VERMILION, "v", "negative"),
            (values >= 0, BLUE, "o", "positive"),
        ):
            label = f"{int(chosen.sum())} {sign}"
            axes.plot(numbers[chosen], values[chosen], marker, color=colour, ms=4, label=label)
        axes.axhline(0, color="0.6", linewidth=1, zorder=0)
        axes.set(title=place, xlabel="number of the eigenvalue, from the smallest")
        axes.legend(frameon=False, loc="upper left")
    panels[0].set_ylabel("eigenvalue of the Hessian")
    return figure


def surface(
    axes: Tensor, losses: Tensor, paths: Mapping[str, Tensor], variance: tuple[float, float]
) -> Figure:
    """Contours of log₁₀ of the loss on a plane, with the trainers' paths.

    Args:
        axes: coordinates of the plane's points, of shape (2, points).
        losses: of shape (points, points), the second coordinate first.
        paths: trainer → its path on the plane, of shape (steps + 1, 2).
        variance: share of the path's variance along each coordinate.
    """
    figure, panel = _figure(6, 4.2)
    height = losses.log10()
    levels = np.arange(math.floor(4 * height.min()), math.ceil(4 * height.max()) + 1) / 4
    greys = ListedColormap(colormaps["Greys_r"](np.linspace(0.4, 1, len(levels) - 1)))
    contours = panel.contourf(*axes, height, levels=levels, cmap=greys)
    panel.contour(*axes, height, levels=levels, colors="0.6", linestyles="solid", linewidths=0.4)
    figure.colorbar(contours, label="log₁₀ of the loss L", ticks=levels[::2])
    for name in ("manual", "sgd", "post"):
        panel.plot(*paths[name].T, label=name, **TRAINERS.get(name, REFERENCE))
    start, end = paths["sgd"][0], paths["sgd"][-1]
    for point, marker, label in ((start, "o", "start"), (end, "s", "end")):
        panel.plot(*point, marker, color=YELLOW, markeredgecolor=BLACK, ms=9, label=label)
    panel.set(
        xlabel=f"first principal direction of the path ({variance[0]:.0%} of its variance)",
        ylabel=f"second ({variance[1]:.0%})",
    )
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    return figure


def quartic(paths: Mapping[str, Sequence[float]]) -> Figure:
    """The post's f(x) with the paths on it; below, over the same x, each path step by step.

    The picture ends a little outside the starts and both minima; a path that diverges leaves it.

    Args:
        paths: label → x after each step; the first is the start.
    """
    starts = [path[0] for path in paths.values()]
    left, right = min(0, *starts) - 0.3, max(2, *starts) + 0.3
    figure, (curve, track) = _figure(7, 8, nrows=2, sharex=True, height_ratios=(4, 3))
    x = np.linspace(left, right, 500)
    curve.plot(x, _f(x), color="0.75", linewidth=2, zorder=0)
    for number, (name, path) in enumerate(paths.items()):
        colour = PATHS[number % len(PATHS)]
        line = ".-" if number < len(PATHS) else ".:"
        steps = np.arange(len(path))
        curve.plot(path, _f(np.array(path)), ".", color=colour, markersize=4)
        track.plot(path, steps, line, color=colour, markersize=4, linewidth=1, label=name)
        for axes, heights in ((curve, _f(np.array(path))), (track, steps)):
            axes.plot(path[-1], heights[-1], "D", color=colour, markeredgecolor="w", markersize=8)
            around = path[0] == path[-1] and heights[0] == heights[-1]  # the diamond
            face, size = ("none", 14) if around else ("w", 9)
            axes.plot(path[0], heights[0], "o", color=colour, markerfacecolor=face, markersize=size)
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


def ensemble(
    rates: Sequence[float],
    shares: Mapping[str, Sequence[float]],
    losses: Sequence[Sequence[float]],
    title: str,
) -> Figure:
    """Outcomes of very many starts against the learning rate: shares of the starts, and the loss.

    Args:
        rates: learning rates, the smallest first.
        shares: label → the share at each rate, in [0, 1].
        losses: minimum, 1 % quantile, median, 99 % quantile and maximum, of shape (5, rates).
        title: how many starts and steps these are.
    """
    figure, (above, below) = _figure(7, 6, nrows=2, sharex=True)
    for (name, share), colour, marker, width in zip(
        shares.items(),
        (BLUE, GREEN, VERMILION, ORANGE, BLACK),
        "osv^X",
        (4, 3, 2, 1.5, 1),
        strict=False,
    ):  # each a little thinner, so that it hides none of those before it
        style = {"color": colour, "marker": marker, "linewidth": width, "markersize": 5 + width}
        above.plot(rates, 100 * np.array(share), **style, label=name)
    above.set(ylabel="share of the starts, in %", ylim=(-4, 104))
    above.set_title(title, fontsize=10)
    above.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    finite = np.where(np.isfinite(losses), losses, np.nan)
    least, low, median, high, greatest = finite
    below.fill_between(rates, least, greatest, color=SKY, alpha=0.25, label="all")
    below.fill_between(rates, low, high, color=SKY, alpha=0.6, label="1 % to 99 %")
    below.plot(rates, median, marker="o", markersize=5, color=BLUE, label="median")
    below.set(xscale="log", xlabel="learning rate", ylabel="loss L at the end")
    named = [rates[0]]  # on the axis, each far enough from the last
    for lr in rates:
        if math.log(lr / named[-1]) > math.log(rates[-1] / rates[0]) / 12:
            named.append(lr)
    below.set_xticks(named, labels=[f"{lr:g}" for lr in named])
    below.set_xticks([], minor=True)
    below.set_yscale("log" if (greatest > 0).any() else "linear")  # nan, where all have diverged
    below.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
