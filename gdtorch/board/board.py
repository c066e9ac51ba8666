"""What TensorBoard shows of trainers in lockstep: scalars, histograms, text, hparams, layout."""

from __future__ import annotations

__all__ = ["Board"]

import copy
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import summary

from ..curvature import extremes, stable_limit
from ..data import Table
from ..descent import Steepest
from ..net import SigmoidNet
from ..rundir import write
from ..trainers import Trainer
from .events import event_files, show_ranges
from .measure import DESCRIPTIONS, layout, measure

HISTOGRAMS = 50  # a run
HISTOGRAM_LIMIT = 1e150  # the sum of squares in a histogram overflows above it
COLUMNS = {"trainer", "table", "lr", "steps", "start"}  # first in the table of hparams
LIMITING = ("lr", "momentum", "dampening", "weight_decay", "nesterov")  # as `stable_limit` has them
BINS = 30  # of a histogram; TensorBoard draws no more
CURVES = "curves.csv"
SMALLEST = 1e-20  # stands for 0 in logarithms; it is well below the last bit of a weight near 1


class Board:
    """The event files of one comparison: one run per trainer, and one that compares them.

    Step t is the state after t updates; step 0 is the initial weights. `curves.csv` holds each
    trainer's loss and its distance from the reference, for programs other than TensorBoard.

    Args:
        folder: the run's folder, empty.
        net: the network that the trainers began with.
        trainers: the trainers to show, each in a folder of its name.
        table: the rows to learn and held out, in the trainers' dtype and on their device.
        settings: those of the run, for the hparams and the limit of stable steps.
        steps: how many steps the run will take; the histograms are spread over them.
        curvature: log the Hessian's extreme eigenvalues every so many steps; None for never.

    Attributes:
        size: how many weights a network has.
        limit: the sharpness up to which steps are stable; nan where it is not to be logged.
        sharpest: trainer → the greatest sharpness logged so far, and after which step.
        close: closes the event files.

    Raises:
        OSError: here or later, if the disk is full or the folder is gone.

    Example:
        >>> import pathlib, tempfile
        >>> table, net = load_table("post"), SigmoidNet().double()
        >>> trainer = SGD(net, table.learned, lr=1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     board = Board(pathlib.Path(folder), net, [trainer], table, {"lr": 1.0}, steps=1000)
        ...     losses = board.log(0, {})
        ...     board.close()
        >>> print(f"{losses['sgd']:.3f}")
        1.350
    """

    def __init__(
        self,
        folder: Path,
        net: SigmoidNet,
        trainers: Sequence[Trainer],
        table: Table,
        settings: Mapping[str, Any],
        steps: int,
        *,
        curvature: int | None = None,
    ) -> None:
        self.folder = folder
        self.trainers = trainers
        self.names = [trainer.name for trainer in trainers]
        self.size = sum(weights.numel() for weights in net.parameters())
        self.networks = copy.deepcopy(net).requires_grad_(requires_grad=False)
        for weights in self.networks.parameters():
            weights.data = weights.data.expand(len(trainers), *weights.shape).clone()
        self.table, self.settings = table, settings
        self.curvature, self.limit = curvature, math.nan
        by_sgd = settings.get("optimizer") == "SGD" and settings["lr"] is not None  # no line search
        if curvature and by_sgd:
            self.limit = stable_limit(*(settings[name] for name in LIMITING))
        self.sharpest: dict[str, tuple[float, int]] = {}
        self.steepest = any(isinstance(trainer.descent, Steepest) for trainer in trainers)
        stride = max(trainer.stride for trainer in trainers)
        shown = torch.linspace(0, steps // stride, HISTOGRAMS).round().long() * stride
        self.histogram_steps = set(shown.tolist())
        with ExitStack() as opened:
            self.files = opened.enter_context(event_files(folder, self.names, DESCRIPTIONS))
            # Unbuffered, as the event files: a kill loses no line, and a full disk is an error.
            self.curves = opened.enter_context((folder / CURVES).open("xb", buffering=0))
            self._begin()
            self.close = opened.pop_all().close

    def _begin(self) -> None:
        metrics = dict.fromkeys(["loss", "accuracy"])
        if self.table.held_out_labels:
            metrics["held_out/loss"] = None
        charts = layout(
            self.table, self.names, steepest=self.steepest, curvature=self.curvature is not None
        )
        self.files[""].add(summary.custom_scalars(charts))
        # TensorBoard takes no pairs, such as betas.
        plain = {n: str(v) if isinstance(v, tuple) else v for n, v in self.settings.items()}
        for trainer in self.trainers:
            experiment, start, self.session_end = summary.hparams(
                {"trainer": trainer.name, **plain}, metrics
            )
            columns = experiment.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(columns.content)
            for info in content.experiment.hparam_infos:
                info.differs = info.name in COLUMNS  # TensorBoard's table shows five that differ
            columns.content = content.SerializeToString()
            self.files[trainer.name].add(experiment)
            self.files[trainer.name].add(start)
            self._save(trainer, "initial.pt")

    def losses(self) -> dict[str, float]:
        """Trainer → loss on the rows learned, at the present weights."""
        losses = self.side_by_side().loss(self.table.learned)
        return dict(zip(self.names, losses.tolist(), strict=True))

    def log(self, step: int, differences: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Write every scalar of one step: one event for each trainer; return the losses.

        Args:
            step: how many updates have been made.
            differences: trainer → weight → largest distance from the reference at these weights.

        Returns:
            Trainer → loss on the rows learned, as `losses`.
        """
        tags, rows = measure(self.side_by_side(), self.table)
        losses = {name: row[tags.index("loss")] for name, row in zip(self.names, rows, strict=True)}
        self._add_to_curves(step, losses, differences)
        for trainer, numbers in zip(self.trainers, rows, strict=True):
            name = trainer.name
            scalars = dict(zip(tags, numbers, strict=True))
            scalars |= of_differences(differences.get(name, {}))
            if self.steepest and step > 0:
                scalars["step_size"] = trainer.lr
                scalars["step_size_log10"] = log10(trainer.lr)
            if self.shows_curvature(step):
                smallest, largest = extremes(trainer.objective, self.table.learned)
                scalars |= {"curvature/sharpness": largest, "curvature/smallest": smallest}
                if math.isfinite(self.limit):
                    scalars["curvature/limit"] = self.limit
                seen = largest, step
                self.sharpest[name] = max(self.sharpest.get(name, seen), seen)
            self.files[name].add_scalars(scalars, step)
        return losses

    def _add_to_curves(
        self, step: int, losses: Mapping[str, float], differences: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Write one line of `curves.csv`, and before the first one its header."""
        line = {"step": step, **{f"{name}/loss": loss for name, loss in losses.items()}}
        for name, distances in differences.items():
            line[f"{name}/difference"] = max(distances.values())
        if step == 0:
            self.curves.write(",".join(line).encode() + b"\n")
        self.curves.write(",".join(map(repr, line.values())).encode() + b"\n")

    def shows_curvature(self, step: int) -> bool:
        """Whether the Hessian is measured at this step; `log` then adds its eigenvalues."""
        return self.curvature is not None and step % self.curvature == 0

    def side_by_side(self) -> SigmoidNet:
        """The networks of all trainers as one network: one pass then measures them all."""
        for name, weights in self.networks.named_parameters():
            torch.stack([trainer.weights[name] for trainer in self.trainers], out=weights)
        return self.networks

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """Trainer → loss, rows right of how many, and the output for each row held out."""
        networks = self.side_by_side()
        learned, held_out = self.table.learned, self.table.held_out
        losses = networks.loss(learned).tolist()
        right = (networks(learned.inputs) > 0.5) == (learned.targets > 0.5)  # (trainers, rows, 1)
        outputs = networks(held_out.inputs).flatten(1).tolist()
        targets = held_out.targets.flatten().tolist()
        outcomes = {}
        for name, loss, rows_right, row in zip(self.names, losses, right, outputs, strict=True):
            labelled = zip(self.table.held_out_labels, row, targets, strict=True)
            outcomes[name] = {
                "loss": loss,
                "rows": len(right[0]),
                "rows_right": int(rows_right.sum()),
                "held_out": {label: {"output": o, "target": t} for label, o, t in labelled},
            }
        return outcomes

    def log_histograms(self, step: int) -> None:
        """Write the distribution of each weight and of the hidden units, if this step shows it."""
        if step not in self.histogram_steps:
            return
        networks = self.side_by_side()
        hidden, _ = networks.layers(self.table.learned.inputs)
        arrays = {**dict(networks.named_parameters()), "hidden": hidden}
        for tag, array in arrays.items():
            for name, values in zip(self.names, array.cpu().double().numpy(), strict=True):
                if abs(values).max() < HISTOGRAM_LIMIT:
                    self.files[name].add(summary.histogram(tag, values, BINS), step)

    def draw(self) -> None:
        """Draw `curves.csv` as it is by now, as `curves.png` and for the Images page."""
        from ..figures import curves  # loads matplotlib

        self.files[""].add_picture("curves", curves(self.folder / CURVES))

    def finish(self, step: int, texts: Mapping[str, str], *, complete: bool) -> None:
        """Write the texts and the final weights.

        Args:
            step: the last step.
            texts: Markdown for each trainer, and under "" for the comparison.
            complete: whether the run took all the steps that it was to take.
        """
        show_ranges(self.files, ("loss", "accuracy", "held_out/loss"), step)
        for name, text in texts.items():
            self.files[name].add(summary.text("summary", text), step)
        for trainer in self.trainers:
            if complete:
                self.files[trainer.name].add(self.session_end, step)
            self._save(trainer, "final.pt")

    def _save(self, trainer: Trainer, name: str) -> None:
        # Through memory, so that an error of the disk is an OSError.
        buffer = io.BytesIO()
        torch.save(trainer.objective.state_dict(), buffer)
        write(self.folder / trainer.name / name, buffer.getvalue())


def of_differences(differences: Mapping[str, float]) -> dict[str, float]:
    """The scalars of weight → largest distance: each distance, and its logarithm."""
    logarithms = {f"difference_log10/{name}": log10(d) for name, d in differences.items()}
    return {f"difference/{name}": d for name, d in differences.items()} | logarithms


def log10(x: float) -> float:
    """log₁₀ x, so that 1e-15 can be seen beside 1e-2; below 1e-20, also for 0, it is −20."""
    return math.log10(max(x, SMALLEST))
