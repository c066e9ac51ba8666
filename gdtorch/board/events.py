"""TensorBoard's event files: each event is handed to the system before the next is made."""

from __future__ import annotations

__all__ = ["EventFile", "event_files", "range_of", "show_ranges"]

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_SCALAR,
    DATA_CLASS_TENSOR,
    Summary,
)
from torch.utils.tensorboard import RecordWriter

from ..rundir import OUR_SUFFIX, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Metadata without a data class is overwritten by TensorBoard, description and all.
DESCRIBED = {
    "simple_value": ("scalars", DATA_CLASS_SCALAR),
    "histo": ("histograms", DATA_CLASS_TENSOR),
    "image": ("images", DATA_CLASS_BLOB_SEQUENCE),
}

NO_RANGE = math.inf, -math.inf


class EventFile:
    """One event file. Each event goes to the operating system at once, so that a kill loses none.

    There is no thread, so a full disk raises here.

    Args:
        folder: where the file will lie; it is made if it is missing.
        descriptions: what TensorBoard says of the chart of a tag, in Markdown: under the tag, or
            under its part before the slash.

    Attributes:
        ranges: tag → the least and the greatest finite number written so far.

    Raises:
        OSError: here or later, if the disk is full or the folder is gone.
    """

    def __init__(self, folder: Path, descriptions: Mapping[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        self.descriptions = descriptions
        self.described: set[str] = set()
        self.ranges: dict[str, tuple[float, float]] = {}
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}{OUR_SUFFIX}"
        self.writer = RecordWriter(self.path.open("xb"))
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        except OSError:
            self.close()
            raise

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the scalars of one step, tag → value, as one event."""
        for tag, x in scalars.items():
            ends = self.ranges.get(tag, NO_RANGE)
            if not ends[0] <= x <= ends[1] and math.isfinite(x):
                self.ranges[tag] = min(ends[0], x), max(ends[1], x)
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self.add(Summary(value=values), step)

    def add(self, values: Summary, step: int = 0) -> None:
        """Write a summary as one event; the first value of a tag takes the tag's description."""
        for value in values.value:
            if value.tag in self.described:
                continue
            self.described.add(value.tag)
            group = value.tag.partition("/")[0]
            text = self.descriptions.get(value.tag, self.descriptions.get(group))
            kind = value.WhichOneof("value")
            if text and kind in DESCRIBED:
                value.metadata.summary_description = text
                value.metadata.plugin_data.plugin_name, value.metadata.data_class = DESCRIBED[kind]
        self._write(Event(wall_time=time.time(), step=step, summary=values))

    def _write(self, event: Event) -> None:
        self.writer.write(event.SerializeToString())
        self.writer.flush()
        self.path.stat()  # raises if the folder was removed: the write itself would not

    def add_picture(self, tag: str, figure: Figure) -> None:
        """Write a picture, and save it beside this file as TAG.png."""
        from ..figures import png  # loads matplotlib

        image = png(figure)
        write(self.path.with_name(f"{tag}.png"), image)
        width, height = map(int, figure.bbox.size)
        value = Summary.Image(encoded_image_string=image, width=width, height=height)
        self.add(Summary(value=[Summary.Value(tag=tag, image=value)]))

    def close(self) -> None:
        """Close the file; if the disk is full, the rest is lost."""
        with suppress(OSError):
            self.writer.close()


@contextmanager
def event_files(
    folder: Path, parts: Sequence[str], descriptions: Mapping[str, str]
) -> Iterator[dict[str, EventFile]]:
    """The event files of one run: "" in its own folder, each other one in a folder inside it."""
    with ExitStack() as opened:  # closes those already open if one cannot be opened
        files = {}
        for part in ("", *parts):
            files[part] = EventFile(folder / part, descriptions)
            opened.callback(files[part].close)
        yield files


def show_ranges(files: Mapping[str, EventFile], tags: Iterable[str], last: int) -> None:
    """Draw lines, up to a last step, at the least and the greatest value of tags in any file.

    Each line has more than a twentieth of a chart's points, so TensorBoard's scale includes it.

    Args:
        files: those of one run; the lines go into "".
        tags: which.
        last: the last step.
    """
    lines: dict[str, float] = {}
    for tag in tags:
        ends = [end for file in files.values() for end in file.ranges.get(tag, ())]
        if ends:
            lines |= range_of(tag, min(ends), max(ends))
    points = max(1, min(last, 100 * len(files)))  # TensorBoard loads up to 1000 of each curve
    for step in sorted({last * point // points for point in range(points + 1)}):
        files[""].add_scalars(lines, step)


def range_of(tag: str, least: float, greatest: float) -> dict[str, float]:
    """One point of the lines at the least and the greatest value of a tag."""
    return {f"range/{tag}/least": least, f"range/{tag}/greatest": greatest}
