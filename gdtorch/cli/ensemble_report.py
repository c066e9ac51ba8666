"""What `ensemble` prints and logs: what became of the starts, at each learning rate."""

from __future__ import annotations

__all__ = ["DESCRIPTIONS", "Report"]

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import summary

from ..board import EventFile, log10
from ..ensemble import EDGES, HELD_OUT_BINS, QUANTILES, Integers, Settings, Tally, checkpoints
from ..figures import ensemble, png
from ..rundir import write
from .options import as_json
from .report import aligned, count, to_see

SHARES = {
    "learned": "all rows right",
    "held_out": "row 111 right",
    "stuck": "stuck",
    "falling": "still falling",
    "diverged": "diverged",
}
MEANING = """\
stuck: a row is wrong, and by its gradient as many steps again would change the loss by less than
1 %. Of a sample of these the Hessian tells the saddles, where curvature leads away within as many
steps by a factor of e, from the plateaus. steps: the median of the starts that ever had all rows
right; looked at every 10 steps, after 400 every 5 %. Quantiles of the loss are within 0.5 %, the
least and the greatest exact. At a large lr, 3 and more in float32, rounding decides single starts:
the shares hold, but one start replayed may end otherwise."""
AXIS = "the step is 1000 · log₁₀ of the learning rate: 0 is lr 1, 1000 is 10, −1000 is 0.1"
DESCRIPTIONS = {
    "share": f"Share of all starts, from 0 to 1; {AXIS}. *summary*, on the Text page, says what "
    "each name means.",
    "loss": "The loss that so many per cent of the starts do not exceed at the end: 0 the least, "
    f"50 the median, 100 the greatest; {AXIS}.",
    "loss_log10": f"The logarithm to base 10 of *loss*; −20 stands for 0; {AXIS}.",
    "median_steps": "The steps after which half of the starts that ever had all rows right had "
    f"them; {AXIS}.",
    "held_out": f"The outputs for row 111, which no start was shown; 1 is right; {AXIS}.",
    "ensemble": "Above, shares of the starts at each learning rate; below, their losses at the "
    "end: the median, the band of 98 % around it, and the band of all.",
    "log10_loss": f"The logarithms to base 10 of the losses at the end; {AXIS}.",
}


class Report:
    """The outcome of an ensemble.

    Args:
        settings: what was run.
        folder: where it is logged.
        tallies: one for each learning rate.
    """

    def __init__(self, settings: Settings, folder: Path, tallies: Sequence[Tally]) -> None:
        self.settings = settings
        self.folder = folder
        self.tallies = dict(zip(settings.lr, tallies, strict=True))
        self.at = checkpoints(settings.steps).tolist()
        diverged = any(tally.counts["diverged"] for tally in tallies)  # is shown where there is any
        self.kinds = {k: name for k, name in SHARES.items() if k != "diverged" or diverged}

    def facts(self) -> dict[str, Any]:
        """Everything that is printed, for a program."""
        return {
            "run": str(self.folder),
            "settings": self.settings.facts(),
            "rates": [self._rate(lr, tally) for lr, tally in self.tallies.items()],
        }

    def _rate(self, lr: float, tally: Tally) -> dict[str, Any]:
        return {
            "lr": lr,
            "starts": tally.starts,
            "counts": tally.counts,
            "shares": self._shares(tally),
            "median_steps": tally.median_steps(self.at),
            "loss": {str(percent): tally.loss(percent) for percent in QUANTILES},
            "replay": {kind: self.replay(start, lr) for kind, start in _telling(tally).items()},
        }

    def _shares(self, tally: Tally) -> dict[str, float]:
        return {kind: tally.counts[kind] / tally.starts for kind in SHARES}

    def replay(self, start: int, lr: float) -> str:
        """The command that trains one start as a full logged run."""
        s = self.settings
        words = [f"--start {start} --seed {s.seed} --lr {lr!r} --steps {s.steps} --dtype {s.dtype}"]
        defaults = {"hidden": 15, "device": "cpu", "momentum": 0, "dampening": 0, "weight_decay": 0}
        for option, default in defaults.items():
            if (value := getattr(s, option)) != default:
                words.append(f"--{option.replace('_', '-')} {value}")
        words += [f"--{option}" for option in ("nesterov", "maximize") if getattr(s, option)]
        program = sys.argv[0]
        python = "python " if program.endswith(".py") else ""
        return f"{python}{shlex.quote(Path(program).name)} {' '.join(words)}"

    def json(self) -> str:
        """The facts as JSON; a number that is not finite becomes null."""
        return as_json(self.facts())

    def text(self) -> str:
        """The facts for a person at a terminal."""
        lines = [self._heading(), "", *self._tables(), "", MEANING, "", "Worth replaying:"]
        for lr, tally in self.tallies.items():
            for kind, start in _telling(tally).items():
                lines.append(f"  {f'lr {lr:g}, {kind}':<28}  {self.replay(start, lr)}")
        lines += ["", f"Drawn:      {self.folder / 'ensemble.png'}", *to_see(self.folder)]
        return "\n".join(lines)

    def _heading(self) -> str:
        s = self.settings
        last = s.first_start + s.starts - 1
        return (
            f"network 3-{s.hidden}-1, {s.dtype}, from starts {s.first_start} to {last} of seed "
            f"{s.seed}; table post; {count(s.steps, 'step')} of "
            f"{'ascent' if s.maximize else 'descent'} at each lr"
        )

    def _tables(self) -> list[str]:
        shares = [["lr", *self.kinds.values(), "plateaus of sample", "steps"]]
        losses = [["lr", *("least", "loss at 1 %", "median", "99 %", "greatest")]]
        for lr, tally in self.tallies.items():
            counts, steps = tally.counts, tally.median_steps(self.at)
            sampled = counts["plateau"] + counts["saddle"]
            shares.append([
                f"{lr:g}",
                *(f"{100 * self._shares(tally)[kind]:.2f} %" for kind in self.kinds),
                f"{counts['plateau']} of {sampled}" if sampled else "",
                "" if steps is None else str(steps),
            ])  # fmt: skip
            losses.append([f"{lr:g}", *(f"{tally.loss(percent):.3e}" for percent in QUANTILES)])
        return [*aligned(shares), "", *aligned(losses)]

    def write(self, file: EventFile) -> None:
        """Write `summary.json`, the figure, and what TensorBoard shows.

        Raises:
            OSError: the folder takes no more.
        """
        file.add(summary.custom_scalars({f"What becomes of them? ({AXIS})": self._charts()}))
        for lr, tally in self.tallies.items():
            step = round(1000 * math.log10(lr))  # TensorBoard's steps are whole numbers
            scalars = {f"share/{kind}": self._shares(tally)[kind] for kind in self.kinds}
            for percent in QUANTILES:
                scalars[f"loss/{percent}"] = tally.loss(percent)
                scalars[f"loss_log10/{percent}"] = log10(tally.loss(percent))
            steps = tally.median_steps(self.at)
            file.add_scalars(scalars | ({} if steps is None else {"median_steps": steps}), step)
            for tag, counts, edges in (
                ("held_out", tally.held_out, np.linspace(0, 1, HELD_OUT_BINS + 1)),
                # Without the bins below all edges and above, which have no width.
                ("log10_loss", tally.losses[1:-1], np.log10(EDGES)),
            ):
                if counts.any():
                    file.add(_histogram(tag, counts, edges), step)
        image = png(ensemble(list(self.tallies), *self._curves()))
        write(self.folder / "ensemble.png", image)
        file.add_image("ensemble", image)
        file.add(summary.text("summary", f"```text\n{self.text()}\n```"))
        write(self.folder / "summary.json", self.json().encode() + b"\n", durable=True)

    def _charts(self) -> dict[str, list[Any]]:
        """The charts of the page of custom scalars, one curve in each: title → kind, tags."""
        shares = {f"share: {name}": f"^share/{kind}$" for kind, name in self.kinds.items()}
        curves = shares | {"steps to all rows right, median": "^median_steps$"}
        band = [f"loss_log10/{percent}" for percent in (50, 1, 99)]
        return {
            **{title: ["Multiline", [tag]] for title, tag in curves.items()},
            "log10 of the loss: median, 1 to 99 %": ["Margin", band],
        }

    def _curves(self) -> tuple[dict[str, list[float]], list[list[float]]]:
        """Shares and quantiles of the loss, one value for each learning rate."""
        tallies = self.tallies.values()
        shares = {
            name: [self._shares(tally)[kind] for tally in tallies]
            for kind, name in self.kinds.items()
        }
        return shares, [[tally.loss(percent) for tally in tallies] for percent in QUANTILES]


def _telling(tally: Tally) -> dict[str, int]:
    """Starts worth replaying: the worst, the median, one of each kind of stuck."""
    starts = {"the worst": tally.worst, "the median": tally.median}
    for kind in ("plateau", "saddle"):
        start = tally.lowest(kind)
        if start is not None:
            starts[f"stuck on a {kind}"] = start
    return starts


def _histogram(tag: str, counts: Integers, edges: np.ndarray[Any, np.dtype[np.float64]]) -> Any:  # noqa: ANN401
    """A histogram of counted bins, for TensorBoard."""
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
