"""Every picture of gdtorch; nothing else imports matplotlib."""

from __future__ import annotations

__all__ = ["png", "quotient_error", "spectrum", "stability", "surface"]

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

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
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = COLOURS
DPI = 200  # twice what a screen shows
LINE_STYLES = ("-", "--", "-.", ":")  # so that lines differ in print without colour, too


def _figure(width: float, height: float, **subplots: int | bool) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, as `Figure.subplots` gives them; no pyplot."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**subplots)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


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
        f"best h = {steps[best].item():.0e}",
        (steps[best].item(), 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -12),
        textcoords="offset points",
    )
    axes.set(
        xlabel="h of the difference quotient (1.3.4)",
        ylabel="largest difference from autograd,\nrelative to the weight's largest derivative",
        title="too small an h drowns in rounding, too large a one leaves the curve",
    )
    axes.title.set_size("medium")
    axes.legend(frameon=False, loc="lower right")
    return figure


def stability(rates: Sequence[float], sharpness: Tensor, losses: Tensor) -> Figure:
    """Sharpness in units of its limit 2/lr along training, and the loss under it.

    Args:
        rates: learning rates.
        sharpness: of shape (learning rates, steps + 1).
        losses: of the same shape.
    """
    figure, (above, below) = _figure(7, 6, nrows=2, sharex=True)
    for lr, sharp, loss, colour, style in zip(
        rates, sharpness, losses, (SKY, BLUE, ORANGE, VERMILION), LINE_STYLES, strict=True
    ):
        after = np.arange(1, len(loss) + 1)
        above.loglog(after, sharp * lr / 2, style, color=colour, label=f"lr = {lr:g}")
        below.loglog(after, loss, style, color=colour)
    above.axhline(1, color="0.4", linewidth=1)
    above.annotate("limit of stable steps", (1, 1), xytext=(0, 3), textcoords="offset points")
    above.set(ylabel="sharpness ÷ (2 / lr)", ylim=(1e-4, 10))
    above.legend(frameon=False, ncols=2, loc="lower left")
    below.set(ylabel="loss L", xlabel="steps of training + 1")
    return figure


def spectrum(spectra: Tensor, steps: int) -> Figure:
    """Every eigenvalue of the Hessian, at the start and at the end of training.

    Args:
        spectra: ascending, of shape (2, n).
        steps: how many lie between the two.
    """
    figure, panels = _figure(8, 3.6, ncols=2)
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
        largest = values.abs().max().item()
        axes.set_yscale("symlog", linthresh=largest * 1e-3)
        axes.set(title=place, xlabel="eigenvalue, by size")
        axes.legend(frameon=False, loc="upper left")
    panels[0].set_ylabel("eigenvalue of the Hessian")
    return figure


def surface(
    axes: Tensor, losses: Tensor, paths: Mapping[str, Tensor], variance: tuple[float, float]
) -> Figure:
    """Contours of log₁₀ of the loss on a plane, and the paths of trainers on it.

    Args:
        axes: coordinates of the plane's points, of shape (2, points).
        losses: of shape (points, points), the second coordinate first.
        paths: trainer → its path on the plane, of shape (steps + 1, 2).
        variance: share of the path's variance along each coordinate.
    """
    figure, panel = _figure(7, 4.8)
    contours = panel.contourf(*axes, losses.log10(), levels=24, cmap="cividis")
    figure.colorbar(contours, label="log₁₀ of the loss L")
    looks = {"post": (ORANGE, "-", 1.8), "manual": ("white", "-", 3.0), "sgd": (BLACK, ":", 1.8)}
    for name in ("manual", "sgd", "post"):
        colour, style, width = looks[name]
        panel.plot(*paths[name].T, style, color=colour, linewidth=width, label=name)
    start, end = paths["sgd"][0], paths["sgd"][-1]
    for point, marker, label in ((start, "o", "start"), (end, "*", "end")):
        panel.plot(*point, marker, color="white", markeredgecolor="black", ms=11, label=label)
    panel.set(
        xlabel=f"first principal direction of the path ({variance[0]:.0%} of its variance)",
        ylabel=f"second ({variance[1]:.0%})",
    )
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    return figure
