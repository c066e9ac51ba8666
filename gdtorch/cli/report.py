"""What a comparison prints: a table, the verdicts in plain words, and the same facts as JSON."""

from __future__ import annotations

__all__ = ["Report", "aligned", "count", "in_words", "to_see"]

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..board import Board
from ..data import Table
from ..lockstep import Comparison, Difference, Lockstep, in_ulps
from ..loop import Ending
from ..net import SigmoidNet
from .options import as_json

# Unsmoothed: TensorBoard's 0.6 blurs where a curve leaves another.
CHARTS = "custom_scalars&_smoothingWeight=0"
COMPILED = "manual is compiled: its bits may differ from those of steps taken one by one"
SMALL_LOSS = 5e-5  # of which six decimals would leave one digit
FEW_ROWS = 4  # held out: each gets a column of its own


def to_see(folder: Path, page: str = CHARTS) -> list[str]:
    """How to look at a run: the command, and the page that tells its story."""
    command = f"tensorboard --logdir {shlex.quote(str(folder))}"
    return [f"To see it:  {command}", f"then open   http://localhost:6006/#{page}"]


class Report:
    """The outcome of a comparison.

    Args:
        settings: the options of the run.
        folder: where it is logged.
        table: the rows learned and held out.
        board: what has measured the trainers.
        lockstep: what compared them.
        ending: how the run ended.
        left_out: trainer → why it did not run.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: Path,
        table: Table,
        board: Board,
        lockstep: Lockstep,
        ending: Ending,
        left_out: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.table = table
        self.lockstep = lockstep
        self.ending = ending
        self.left_out = left_out
        self.sharpest, self.limit = board.sharpest, board.limit
        networks = board.side_by_side()
        self.weights = sum(weights[0].numel() for weights in networks.parameters())
        self.outputs = self._outputs(networks)

    def _outputs(self, networks: SigmoidNet) -> dict[str, dict[str, Any]]:
        learned, held_out = self.table.learned, self.table.held_out
        right = (networks(learned.inputs) > 0.5) == (learned.targets > 0.5)
        targets = held_out.targets.flatten().tolist()
        outputs = {}
        for name, rows_right, row in zip(
            self.ending.losses,
            right.sum(dim=(-2, -1)).tolist(),
            networks(held_out.inputs).flatten(1).tolist(),
            strict=True,
        ):
            labelled = zip(self.table.held_out_labels, row, targets, strict=True)
            outputs[name] = {
                "loss": self.ending.losses[name],
                "rows": len(learned.targets),
                "rows_right": rows_right,
                "held_out": {label: {"output": o, "target": t} for label, o, t in labelled},
            }
        return outputs

    @property
    def status(self) -> int:
        """1 if `manual` and `sgd` differ, else 0; compiled steps may."""
        if self.settings["compile"]:
            return 0
        manual = self.lockstep.comparisons.get("manual")
        return int(self.lockstep.reference == "sgd" and manual is not None and not manual.identical)

    def verdicts(self) -> dict[str, str]:
        """Trainer → how it compares to the reference, in plain words."""
        agreeing_first = sorted(self.lockstep.comparisons.items(), key=lambda c: not c[1].identical)
        return {name: self._verdict(name, comparison) for name, comparison in agreeing_first}

    def _verdict(self, name: str, comparison: Comparison) -> str:
        reference = self.lockstep.reference
        first = comparison.first_difference
        if first is None:
            each = "" if comparison.steps == 1 else "each of "
            if self.lockstep.stride > 1:
                each = f"every {self.lockstep.stride} of "
            steps = each + count(comparison.steps, "step")
            return (
                f"{name} = {reference}: the same bits in all {self.weights} weights after {steps}"
            )
        at = "at" if self.lockstep.stride == 1 else "by"
        verdict = (
            f"{name} ≠ {reference}: they part {at} step {first.step} in {first.weight} "
            f"by up to {first.absolute:.1e}"
        )
        if "post" in (name, reference) and math.isfinite(first.absolute):
            return f"{verdict}, because {self._post_reason(first)}"
        verdict += f" ({', '.join(filter(None, [in_ulps(first), f'at {list(first.index)}']))})"
        return f"{verdict}; compiled steps round otherwise" if self.settings["compile"] else verdict

    def _post_reason(self, first: Difference) -> str:
        # Only two things set post apart at one step: the order of its updates, and the order of
        # its factors. The second is rounding, a few units in the last place.
        epsilon = torch.finfo(getattr(torch, self.settings["dtype"])).eps
        if first.absolute <= 8 * epsilon * max(1.0, abs(first.theirs)):
            return "the post multiplies its factors in another order, which rounds differently"
        return "the post updates syn1 before it uses it for syn0"

    def facts(self) -> dict[str, Any]:
        """Everything that is printed, for a program."""
        return {
            "run": str(self.folder),
            "settings": dict(self.settings),
            "steps": self.ending.step,
            "status": self.ending.status or self.status,
            "reason": self.ending.reason,
            "trainers": self.outputs,
            "left_out": dict(self.left_out),
            "comparisons": {
                name: {
                    "reference": self.lockstep.reference,
                    "identical": comparison.identical,
                    "verdict": self._verdict(name, comparison),
                    **asdict(comparison),
                }
                for name, comparison in self.lockstep.comparisons.items()
            },
        }

    def json(self) -> str:
        """The facts as JSON; a number that is not finite becomes null."""
        return as_json(self.facts())

    def text(self) -> str:
        """The facts for a person at a terminal."""
        lines = [*self._heading(), "", *aligned(self._cells()), ""]
        lines += [f"{name} is left out: {reason}" for name, reason in self.left_out.items()]
        lines += self.verdicts().values() or ["one trainer alone: nothing to compare it with"]
        if self.settings["compile"]:
            lines.append(COMPILED)
        stable = f"; steps are stable up to {self.limit:.3g}" if math.isfinite(self.limit) else ""
        lines += [
            f"sharpness of {name}: {sharpness:.3g} at most, seen after step {step}{stable}"
            for name, (sharpness, step) in self.sharpest.items()
            if name == self.lockstep.reference
        ]
        if self.folder.is_dir():
            lines += ["", *to_see(self.folder)]
        return "\n".join(lines)

    def markdown(self) -> dict[str, str]:
        """The facts for TensorBoard: trainer → Markdown, and under "" the comparison."""
        header, *rows = self._cells()
        heading = "\n\n".join(self._heading())
        ended = f"\n\nEnded early: {self.ending.reason}" if self.ending.reason else ""
        settings = _pipes([["option", "value"], *([k, str(v)] for k, v in self.settings.items())])
        verdicts = self.verdicts()
        texts = {
            row[0]: f"{heading}{ended}\n\n{_pipes([header, row])}\n\n{verdicts.get(row[0], '')}"
            for row in rows
        }
        whole = "\n\n".join([_pipes([header, *rows]), *verdicts.values(), settings])
        return {"": f"{heading}{ended}\n\n{whole}", **texts}

    def _heading(self) -> list[str]:
        s, table = self.settings, self.table
        start = s["init"] or f"start {s['start']} of seed {s['seed']}"
        return [
            f"network {table.features}-{s['hidden']}-1, {self.weights} weights, {s['dtype']}, "
            f"from {start}",
            f"table {table.name}: {count(len(table.learned_labels), 'row')} to learn, "
            f"{len(table.held_out_labels)} held out; {count(self.ending.step, 'step')} of "
            f"{in_words(s)}",
        ]

    def _cells(self) -> list[list[str]]:
        """The printed table, header first, one row per trainer."""
        held_out = self.outputs[self.lockstep.reference]["held_out"]
        header = ["trainer", "loss", "rows right"]
        if 0 < len(held_out) <= FEW_ROWS:
            header += [
                f"output for row {label} (held out, {row['target']:g} is right)"
                for label, row in held_out.items()
            ]
        elif held_out:
            header.append("held out right")
        return [header, *([n, *self._row(o)] for n, o in self.outputs.items())]

    def _row(self, output: Mapping[str, Any]) -> list[str]:
        loss, rows = output["loss"], f"{output['rows_right']} of {output['rows']}"
        cells = [f"{loss:.2e}" if 0 < loss < SMALL_LOSS else f"{loss:.6f}", rows]
        held_out = output["held_out"].values()
        if len(held_out) <= FEW_ROWS:
            return cells + [f"{row['output']:.3f}" for row in held_out]
        right = sum((row["output"] > 0.5) == (row["target"] > 0.5) for row in held_out)
        return [*cells, f"{right} of {len(held_out)}"]


def in_words(settings: Mapping[str, Any]) -> str:
    """Which way a run went, over which rows and how far a step, from its settings."""
    way = "ascent" if settings["maximize"] else "descent"
    if settings["descent"] == "steepest":
        lowers = "raises" if settings["maximize"] else "lowers"
        return f"steepest {way}, each as long as {lowers} the loss most, up to 2¹⁰⁰"
    if settings["descent"] == "stochastic":
        way = f"stochastic {way}, one row a step, all rows in each epoch,"
    return f"{way} at lr {settings['lr']:g}"


def count(number: int, thing: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def aligned(cells: Sequence[Sequence[str]]) -> Iterable[str]:
    """The lines of a table, header first; all columns but the first are flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "   ".join([name.ljust(widths[0]), *numbers])


def _pipes(cells: Sequence[Sequence[str]]) -> str:
    header, *rows = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([header, "|---" * len(cells[0]) + "|", *rows])
