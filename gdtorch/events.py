"""TensorBoard's event files, written as they come, readable at any moment."""

from __future__ import annotations

__all__ = ["EventFile", "EventFiles"]

import contextlib
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import RecordWriter

from .rundir import OUR_SUFFIX

FLUSH_SECONDS = 1.0  # how far a dashboard that is open during the run lags behind


class EventFile:
    """One event file, written as it comes: no thread, so that a full disk is an error here.

    Args:
        folder: where it is to lie; made, if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}{OUR_SUFFIX}"
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

    def add_image(self, tag: str, image: bytes) -> None:
        """Write a picture, a PNG file's bytes."""
        width, height = struct.unpack_from(">II", image, 16)  # of the PNG's first chunk
        value = Summary.Image(encoded_image_string=image, width=width, height=height)
        self.add(Summary(value=[Summary.Value(tag=tag, image=value)]))

    def flush(self) -> None:
        """Hand everything so far to the operating system; OSError where that cannot be."""
        self.writer.flush()
        self.path.stat()  # a folder that was removed takes writes without a murmur

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


class EventFiles:
    """The event files of one run: "" is that in its own folder, the others lie in folders there.

    Args:
        folder: the run's folder.
        parts: the folders in it.
    """

    def __init__(self, folder: Path, parts: Sequence[str]) -> None:
        self.files = {part: EventFile(folder / part) for part in ("", *parts)}
        self.flushed = time.monotonic()

    def __getitem__(self, part: str) -> EventFile:
        return self.files[part]

    def flush(self) -> None:
        """Hand everything so far to the operating system, where TensorBoard finds it."""
        for file in self.files.values():
            file.flush()
        self.flushed = time.monotonic()

    def keep_up(self) -> None:
        """Flush, if the last time is long enough ago."""
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def close(self) -> None:
        """Close them; where the disk is full, what did not fit is lost."""
        for file in self.files.values():
            with contextlib.suppress(OSError):
                file.close()
