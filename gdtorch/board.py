"""What TensorBoard shows of trainers in lockstep: scalars, histograms, text, hparams, layout."""

from __future__ import annotations

__all__ = ["Board", "EventFile", "measure"]

import contextlib
import copy
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import RecordWriter, summary

from .data import Table
from .net import SigmoidNet, squared_error
from .rundir import EVENT_SUFFIX
from .trainers import Trainer

MANY_ROWS = 16  # a chart with more lines than that tells nobody anything
HISTOGRAMS = 50  # a run
HISTOGRAM_LIMIT = 1e150  # a histogram holds a sum of squares, which overflows past that
BINS = 30  # of a histogram; TensorBoard draws no more
FLUSH_SECONDS = 1.0  # how far a dashboard that is open during the run lags behind
LAYOUT = {
    "Do they agree?": {
        "largest distance from sgd, or the last trainer (0: the same)": [
            "Multiline",
            ["difference/.*"],
        ],
    },
    "Do they learn?": {
        "loss": ["Multiline", ["^loss$"]],
        "accuracy: share of rows right": ["Multiline", ["^accuracy$"]],
        "loss on the rows held out": ["Multiline", ["held_out/loss"]],
    },
    "What do they predict?": {
        "output for each row held out": ["Multiline", [r"held_out/\d+"]],
        "output for each row learned": ["Multiline", ["prediction/.*"]],
    },
}


class Board:
    """The event files of one comparison: one run per trainer, and one that compares them.

    Step t is the state after t updates; step 0 is the initial weights. The event files are
    readable up to the last second at any moment, and complete once the board is closed.

    Args:
        folder: the run's folder, empty.
        net: the network that the trainers began with.
        trainers: who is shown, each in the folder of its name.
        table: the rows to learn and held out, in the trainers' dtype and on their device.
        settings: what was run, for the text and the hparams.
        steps: how many steps the run is to take: where the histograms stand.

    Raises:
        OSError: here or later, if the disk or the folder gives out.
    """

    def __init__(
        self,
        folder: Path,
        net: SigmoidNet,
        trainers: Sequence[Trainer],
        table: Table,
        settings: Mapping[str, float | str | bool],
        steps: int,
    ) -> None:
        self.folder = folder
        self.trainers = trainers
        self.names = [trainer.name for trainer in trainers]
        self.networks = copy.deepcopy(net).requires_grad_(requires_grad=False)
        for weights in self.networks.parameters():
            weights.data = weights.data.expand(len(trainers), *weights.shape).clone()
        self.table = table
        self.files = {"": EventFile(folder)}
        for trainer in trainers:
            self.files[trainer.name] = EventFile(folder / trainer.name)
        self.histogram_steps = set(torch.linspace(0, steps, HISTOGRAMS).round().long().tolist())
        self.flushed = time.monotonic()
        self._begin(settings)

    def _begin(self, settings: Mapping[str, float | str | bool]) -> None:
        metrics = dict.fromkeys(["loss", "accuracy"])
        if self.table.held_out_labels:
            metrics["held_out/loss"] = None
        self.files[""].add(summary.custom_scalars(LAYOUT))
        for trainer in self.trainers:
            experiment, start, self.session_end = summary.hparams(
                {"trainer": trainer.name, **settings}, metrics
            )
            self.files[trainer.name].add(experiment)
            self.files[trainer.name].add(start)
            self._save(trainer, "initial.pt")
        self.flush()

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
        for name, numbers in zip(self.names, rows, strict=True):
            scalars = dict(zip(tags, numbers, strict=True))
            for weight, distance in differences.get(name, {}).items():
                scalars[f"difference/{weight}"] = distance
            self.files[name].add_scalars(scalars, step)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()
        return {name: row[tags.index("loss")] for name, row in zip(self.names, rows, strict=True)}

    def side_by_side(self) -> SigmoidNet:
        """The networks of all trainers as one, so that one pass measures them all."""
        for name, weights in self.networks.named_parameters():
            torch.stack([trainer.weights[name] for trainer in self.trainers], out=weights)
        return self.networks

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

    def flush(self) -> None:
        """Hand everything so far to the operating system, where TensorBoard finds it."""
        for file in self.files.values():
            file.flush()
        self.flushed = time.monotonic()

    def finish(self, step: int, texts: Mapping[str, str], *, complete: bool) -> None:
        """Write the texts and the final weights.

        Args:
            step: the last step.
            texts: Markdown for each trainer, and under "" for the comparison.
            complete: whether the run took all the steps that it was to take.
        """
        for name, text in texts.items():
            self.files[name].add(summary.text("summary", text), step)
        for trainer in self.trainers:
            if complete:
                self.files[trainer.name].add(self.session_end, step)
            self._save(trainer, "final.pt")
        self.flush()

    def _save(self, trainer: Trainer, name: str) -> None:
        # Through memory: an error of the disk is then an OSError, and leaves no half a file.
        buffer = io.BytesIO()
        torch.save(trainer.objective.state_dict(), buffer)
        file = self.folder / trainer.name / name
        try:
            file.write_bytes(buffer.getvalue())
        except OSError:
            file.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the event files; where the disk is full, what did not fit is lost."""
        for file in self.files.values():
            with contextlib.suppress(OSError):
                file.close()


@torch.no_grad()
def measure(networks: SigmoidNet, table: Table) -> tuple[list[str], list[list[float]]]:
    """Every scalar that the weights of networks side by side amount to.

    The norms of the gradient are those of the loss over all rows learned, at these weights.

    Args:
        networks: weights with a leading dimension, one network each.
        table: the rows to learn and held out.

    Returns:
        The tags, and for each network a value for each tag.
    """
    output = networks(table.learned.inputs)  # (networks, rows, 1)
    right = (output > 0.5) == (table.learned.targets > 0.5)  # the same side of ½
    scalars = {
        "loss": squared_error(output, table.learned.targets),
        "accuracy": right.to(output.dtype).mean(dim=(-2, -1)),
    }
    if table.held_out_labels:
        held_out = networks(table.held_out.inputs)
        scalars["held_out/loss"] = squared_error(held_out, table.held_out.targets)
    for name, gradient in networks.gradient(table.learned).items():
        weights = networks.get_parameter(name)
        scalars[f"gradient_norm/{name}"] = torch.linalg.vector_norm(gradient, dim=(-2, -1))
        scalars[f"weight_norm/{name}"] = torch.linalg.vector_norm(weights, dim=(-2, -1))
    tags, values = list(scalars), [torch.stack(list(scalars.values()), dim=1)]
    if 0 < len(table.held_out_labels) <= MANY_ROWS:
        tags += [f"held_out/{label}" for label in table.held_out_labels]
        values.append(held_out.flatten(1))
    if len(table.learned_labels) + len(table.held_out_labels) <= MANY_ROWS:
        tags += [f"prediction/{label}" for label in table.learned_labels]
        values.append(output.flatten(1))
    return tags, torch.cat(values, dim=1).tolist()


class EventFile:
    """One event file, written as it comes: no thread, so that a full disk is an error here.

    Args:
        folder: where it is to lie; made, if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}{EVENT_SUFFIX}"
        self.writer = RecordWriter(self.path.open("xb"))
        version = Event(wall_time=time.time(), file_version="brain.Event:2")
        self.writer.write(version.SerializeToString())

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the scalars of one step, tag → value, as one event."""
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self.add(Summary(value=values), step)

    def add(self, values: Summary, step: int = 0) -> None:
        """Write a summary as one event."""
        event = Event(wall_time=time.time(), step=step, summary=values)
        self.writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Hand everything so far to the operating system; OSError where that cannot be."""
        self.writer.flush()
        self.path.stat()  # a folder that was removed takes writes without a murmur

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()
