"""Units of work: which starts each has, which process trains it, and the file of its tally.

A unit is a few blocks of starts at one learning rate, some seconds of work. Its tally has a file
of its own, named by the unit alone, so that it matters neither which process wrote it nor how many
there were. The file holds integers under a checksum over them, the settings and the unit; reading
it executes nothing. (An archive of NumPy's has bytes that no checksum covers.)
"""

from __future__ import annotations

__all__ = ["FOLDER", "BlockError", "Settings", "Unit", "begin", "difference", "read_tally",
           "write_tally"]  # fmt: skip

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..rundir import OUR_SUFFIX, sync, write
from .engine import BLOCK
from .tally import Tally

UNIT_WORK = 6_000_000_000  # networks × steps × hidden units: some ten seconds of one core
UNIT_BLOCKS = 4  # at most, so that there are units for many processes
FOLDER = "blocks"
SETTINGS = "settings.json"
DIGEST = 16  # bytes of the checksum, with which a file begins


class BlockError(ValueError):
    """A file that holds no tally of this unit; the message names the file and says why."""


@dataclass(frozen=True)
class Unit:
    """Starts `first` to `first + starts − 1` at one learning rate.

    Args:
        number: its place among all units.
        lr: the learning rate.
        first: its first start.
        starts: how many; they fill whole blocks but for the last unit's.
    """

    number: int
    lr: float
    first: int
    starts: int


@dataclass(frozen=True)
class Settings:
    """Everything that the bits of an ensemble's result depend on.

    Args:
        starts: how many starts each learning rate has.
        table: what the starts are to learn, by the name that the user gave.
        table_checksum: of its rows.
        steps: how many steps each start is trained for.
        lr: learning rates.
        seed: which family of starts.
        first_start: the first of them.
        hidden: hidden units.
        dtype: of all arithmetic, by its name.
        device: on which it is done.
        momentum: this and the next four as in `torch.optim.SGD`.
        engine: what does the arithmetic: compiled or not, which torch, which vector instructions.
        block: how many starts the engine advances at once.
    """

    starts: int
    table: str = "post"
    table_checksum: str = ""
    steps: int = 1000
    lr: tuple[float, ...] = (1.0,)
    seed: int = 0
    first_start: int = 0
    hidden: int = 15
    dtype: str = "float32"
    device: str = "cpu"
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    engine: str = ""
    block: int = BLOCK

    @property
    def unit_starts(self) -> int:
        """How many starts a unit has: whole blocks, for some seconds of work."""
        blocks = UNIT_WORK // (self.block * self.steps * self.hidden)
        return self.block * min(max(1, blocks), UNIT_BLOCKS)

    def units(self, rank: int = 0, processes: int = 1) -> Iterator[Unit]:
        """The units of one of so many processes: every `processes`-th, from number `rank` on.

        Units of one learning rate follow one another.
        """
        offsets = range(0, self.starts, self.unit_starts)
        pairs = enumerate((lr, offset) for lr in self.lr for offset in offsets)
        for number, (lr, offset) in islice(pairs, rank, None, processes):
            starts = min(self.unit_starts, self.starts - offset)
            yield Unit(number, lr, self.first_start + offset, starts)

    def facts(self) -> dict[str, Any]:
        """The settings, for JSON."""
        return asdict(self) | {"lr": list(self.lr)}


def write_tally(folder: Path, settings: Settings, unit: Unit, tally: Tally) -> None:
    """Write a unit's tally into its file.

    Raises:
        OSError: it cannot be written; then the file is as it was.
    """
    content = zlib.compress(tally.vector.astype("<i8").tobytes())
    file = _file(folder, unit)
    file.parent.mkdir(exist_ok=True)
    sync(folder)  # which holds the name of that one
    write(file, _digest(settings, unit, content) + content, durable=True)


def read_tally(folder: Path, settings: Settings, unit: Unit) -> Tally | None:
    """Read a unit's tally back; None where it has not been written.

    Raises:
        BlockError: the file is not what was written for this unit of these settings.
        OSError: it cannot be read.
    """
    file = _file(folder, unit)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    checksum, content = content[:DIGEST], content[DIGEST:]
    if checksum != _digest(settings, unit, content):
        raise BlockError(f"{file} is damaged, or belongs to other settings or starts")
    vector = np.frombuffer(zlib.decompress(content), "<i8").astype(np.int64)
    return Tally.empty(settings.steps).like(vector)


def begin(folder: Path, settings: Settings, warn: Callable[[str], object]) -> None:
    """Write the settings of the run in a folder, unless it was begun with others.

    Args:
        folder: the run's; there may be an earlier part of the run in it.
        settings: of the run.
        warn: called with a message if earlier settings are damaged. The blocks still serve: each
            is checked against its settings.

    Raises:
        ValueError: the run was begun with other settings; the message says with which.
        OSError: they cannot be read or written.
    """
    file, facts = folder / SETTINGS, settings.facts()
    earlier = facts
    try:
        earlier = dict(json.loads(file.read_bytes()))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError):
        warn(f"{file} is damaged; it is written anew, and every block tells for itself whose it is")
    if unlike := difference(earlier, facts):
        raise ValueError(
            f"{folder} was begun with {unlike}; repeat the former, or choose another --name"
        )
    write(file, json.dumps(facts, indent=2).encode() + b"\n", durable=True)
    sync(folder.parent)  # which holds the folder's own name


def difference(earlier: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What differs between settings, as `Settings.facts`, in words; empty where nothing does."""

    def shown(value: object) -> str:
        return " ".join(map(shown, value)) if isinstance(value, list) else str(value)

    return ", and ".join(
        f"{key.replace('_', '-')} {shown(earlier.get(key))}, not {shown(value)}"
        for key, value in facts.items()
        if earlier.get(key) != value
    )


def _file(folder: Path, unit: Unit) -> Path:
    return folder / FOLDER / f"{unit.number:09d}{OUR_SUFFIX}"


def _digest(settings: Settings, unit: Unit, content: bytes) -> bytes:
    owner = repr((settings.facts(), unit)).encode()
    return blake2b(owner + content, digest_size=DIGEST).digest()
