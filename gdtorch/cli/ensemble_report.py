"""What `ensemble` prints and logs: what became of the starts, at each learning rate."""

from __future__ import annotations

__all__ = ["facts", "page", "write"]

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import summary

from ..board import EventFile, show_ensemble
from ..ensemble import EDGES, HELD_OUT_BINS, QUANTILES, Settings, Tally, checkpoints
from ..figures import ensemble
from ..rundir import write as write_file
from .options import SGD_OPTIONS, SHARED, flag
from .report import Page, as_json, count

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


def facts(settings: Settings, folder: Path, tallies: Sequence[Tally]) -> dict[str, Any]:
    """What was run and what came out, for a program; the tallies are those of `settings.lr`."""
    at = checkpoints(settings.steps).tolist()
    rates = []
    for lr, tally in zip(settings.lr, tallies, strict=True):
        telling = {"the worst": tally.worst, "the median": tally.median}
        for kind in ("plateau", "saddle"):
            start = tally.lowest(kind)
            if start is not None:
                telling[f"stuck on a {kind}"] = start
        rates.append({
            "lr": lr,
            "starts": tally.starts,
            "counts": tally.counts,
            "shares": {kind: tally.counts[kind] / tally.starts for kind in SHARES},
            "median_steps": tally.median_steps(at),
            "loss": {str(percent): tally.loss(percent) for percent in QUANTILES},
            "replay": {kind: _replay(settings, start, lr) for kind, start in telling.items()},
        })  # fmt: skip
    return {"run": str(folder), "settings": settings.facts(), "rates": rates}


def _replay(settings: Settings, start: int, lr: float) -> str:
    """The command that trains one start as a full logged run."""
    words = [f"--start {start} --seed {settings.seed} --lr {lr!r} --steps {settings.steps}"]
    words.append(f"--dtype {settings.dtype}")
    for name in ("hidden", "device", *SGD_OPTIONS):
        value = getattr(settings, name)
        if value != SHARED[name].get("default", False):
            words.append(flag(name) if value is True else f"{flag(name)} {value}")
    program = sys.argv[0]
    python = "python " if program.endswith(".py") else ""
    return f"{python}{shlex.quote(Path(program).name)} {' '.join(words)}"


def _kinds(rates: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What is shown: divergence where there is any."""
    diverged = any(rate["counts"]["diverged"] for rate in rates)
    return {kind: name for kind, name in SHARES.items() if kind != "diverged" or diverged}


def page(facts: Mapping[str, Any]) -> Page:
    """The facts for a person."""
    s, rates = facts["settings"], facts["rates"]
    kinds = _kinds(rates)
    heading = (
        f"network 3-{s['hidden']}-1, {s['dtype']}, from starts {s['first_start']} to "
        f"{s['first_start'] + s['starts'] - 1} of seed {s['seed']}; table post; "
        f"{count(s['steps'], 'step')} of {'ascent' if s['maximize'] else 'descent'} at each lr"
    )
    shares = [["lr", *kinds.values(), "plateaus of sample", "steps"]]
    losses = [["lr", *("least", "loss at 1 %", "median", "99 %", "greatest")]]
    worth = ["Worth replaying:"]
    for rate in rates:
        lr, counts, steps = f"{rate['lr']:g}", rate["counts"], rate["median_steps"]
        sampled = counts["plateau"] + counts["saddle"]
        percents = [f"{100 * rate['shares'][kind]:.2f} %" for kind in kinds]
        plateaus = f"{counts['plateau']} of {sampled}" if sampled else ""
        shares.append([lr, *percents, plateaus, "" if steps is None else str(steps)])
        losses.append([lr, *(f"{loss:.3e}" for loss in rate["loss"].values())])
        for kind, command in rate["replay"].items():
            worth.append(f"  {f'lr {lr}, {kind}':<28}  {command}")
    return Page([heading], [shares, losses], [f"{MEANING}\n", *worth])


def write(
    file: EventFile, folder: Path, facts: Mapping[str, Any], tallies: Sequence[Tally]
) -> None:
    """Write `summary.json`, the figure, and what TensorBoard shows.

    Raises:
        OSError: the folder takes no more.
    """
    rates = facts["rates"]
    kinds = _kinds(rates)
    edges = {"held_out": np.linspace(0, 1, HELD_OUT_BINS + 1), "log10_loss": np.log10(EDGES)}
    # Of the losses without the bins below all edges and above, which have no width.
    counts = [{"held_out": t.held_out, "log10_loss": t.losses[1:-1]} for t in tallies]
    show_ensemble(file, kinds, rates, counts, edges)
    shares = {name: [rate["shares"][kind] for rate in rates] for kind, name in kinds.items()}
    losses = [[tally.loss(percent) for tally in tallies] for percent in QUANTILES]
    s = facts["settings"]
    title = f"{count(s['starts'], 'start')} at each learning rate, {count(s['steps'], 'step')}"
    picture = ensemble([rate["lr"] for rate in rates], shares, losses, title)
    file.add_picture("ensemble", picture)
    file.add(summary.text("summary", page(facts).markdown()))
    write_file(folder / "summary.json", as_json(facts).encode() + b"\n", durable=True)
