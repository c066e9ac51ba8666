"""Tables: rows to learn and rows held out, from the post, two small classics, or a CSV file."""

from __future__ import annotations

__all__ = ["Rows", "Table", "check_readable", "load_table", "make_table", "read_table"]

import csv
import errno
import io
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from reprlib import repr as shortened
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:  # torch takes a second to load; an error in a file is reported before that
    import torch
    from torch import Tensor

Record = tuple[Sequence[float], float, bool]  # inputs, target, held out?

# y = XNOR(x0, x1), the third bit is noise; the post never shows row 111 to the network.
POST = [((a, b, c), float(a == b), a == b == c == 1) for a, b, c in product((0.0, 1.0), repeat=3)]
XOR = [((a, b), float(a != b), False) for a, b in product((0.0, 1.0), repeat=2)]
PARITY3 = [(bits, sum(bits) % 2, False) for bits in product((0.0, 1.0), repeat=3)]
BUILT_IN: dict[str, Sequence[Record]] = {"post": POST, "xor": XOR, "parity3": PARITY3}


class Rows(NamedTuple):
    """Rows of a table.

    Args:
        inputs: x, of shape (rows, features).
        targets: y, of shape (rows, outputs).

    Example:
        >>> load_table("xor").learned.targets.flatten().tolist()
        [0.0, 1.0, 1.0, 0.0]
    """

    inputs: Tensor
    targets: Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Rows:
        """The same rows in another dtype or on another device."""
        return Rows(self.inputs.to(device, dtype), self.targets.to(device, dtype))


@dataclass(frozen=True)
class Table:
    """Rows to learn and rows held out. Each row has a label, by which people name it.

    Where every input of the table is 0 or 1 and no two rows are the same, a label is the row's
    inputs, written as bits. Elsewhere it is the row's number, counted from 1.

    Args:
        name: what the user asked for: `post`, `xor`, `parity3` or a path.
        learned: the rows that the loss is over; at least one.
        held_out: the rows that no trainer sees; there may be none.
        learned_labels: one label for each row of `learned`.
        held_out_labels: one label for each row of `held_out`.

    Example:
        >>> table = load_table("post")
        >>> table.learned_labels
        ('000', '001', '010', '011', '100', '101', '110')
        >>> table.held_out_labels
        ('111',)
    """

    name: str
    learned: Rows
    held_out: Rows
    learned_labels: tuple[str, ...]
    held_out_labels: tuple[str, ...]

    @property
    def features(self) -> int:
        """How many inputs a row has."""
        return self.learned.inputs.shape[1]

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Table:
        """The same table in another dtype or on another device.

        Raises:
            ValueError: a number overflows the dtype.
        """
        learned, held_out = (rows.to(dtype, device) for rows in (self.learned, self.held_out))
        if not all(part.isfinite().all() for part in (*learned, *held_out)):
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(f"table {self.name} holds numbers too large for {kind}")
        return replace(self, learned=learned, held_out=held_out)


def load_table(name: str) -> Table:
    """Load a table, in float64 on the CPU.

    Args:
        name: `post` (the post's seven rows and the one held out), `xor`, `parity3`, or the
            path of a CSV file. The file has a header row, and rows of numbers under it. A column
            named `held_out` is optional; it holds 0 or 1. Of the other columns the last is the
            target, in [0, 1], and the rest are inputs.

    Raises:
        ValueError: there is no such table, or the file is not as described; the message
            names the file, the line and the remedy.

    Example:
        >>> load_table("post").learned.inputs.shape
        torch.Size([7, 3])
        >>> load_table("and")
        Traceback (most recent call last):
            ...
        ValueError: no table and: it is none of post, xor, parity3 and no such file
    """
    return make_table(name, read_table(name))


def read_table(name: str) -> Sequence[Record]:
    """The rows of a table as numbers, for `make_table`. It loads no torch.

    Args:
        name: as of `load_table`.

    Raises:
        ValueError: as `load_table`.
    """
    records = BUILT_IN.get(name) or _read_csv(name)
    if all(held_out for _, _, held_out in records):
        raise ValueError(f"table {name}: no rows to learn; leave held_out at 0 for some rows")
    return records


def make_table(name: str, records: Sequence[Record]) -> Table:
    """Make a table of the rows that `read_table` gives."""
    features, labels = len(records[0][0]), _labels(records)
    return Table(
        name,
        _rows([record for record in records if not record[2]], features),
        _rows([record for record in records if record[2]], features),
        tuple(label for label, record in zip(labels, records, strict=True) if not record[2]),
        tuple(label for label, record in zip(labels, records, strict=True) if record[2]),
    )


def check_readable(path: str) -> None:
    """Raise ValueError if a path is not a file that can be read. It loads no torch."""
    try:
        _open(path).close()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path!r}: {getattr(error, 'strerror', error)}") from error


def _open(path: str) -> BinaryIO:
    """Open a file to read it. A pipe or a device raises OSError, since it may never end."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller's)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # else a pipe waits here for somebody to write


def _rows(records: Sequence[Record], features: int) -> Rows:
    import torch

    inputs = torch.tensor([record[0] for record in records], dtype=torch.float64)
    targets = torch.tensor([record[1] for record in records], dtype=torch.float64)
    return Rows(inputs.reshape(-1, features), targets.reshape(-1, 1))


def _labels(records: Sequence[Record]) -> list[str]:
    bits = ["".join(f"{x:g}" for x in inputs) for inputs, _, _ in records]
    binary = all(x in (0, 1) for inputs, _, _ in records for x in inputs)
    if binary and len(set(bits)) == len(bits):
        return bits
    return [str(number) for number in range(1, len(records) + 1)]


def _read_csv(path: str) -> list[Record]:
    try:
        with io.TextIOWrapper(_open(path), encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        known = ", ".join(BUILT_IN)
        raise ValueError(
            f"no table {path or repr(path)}: it is none of {known} and no such file"
        ) from None
    except OSError as error:
        raise ValueError(f"table {path}: cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise ValueError(f"table {path}: not a CSV text file ({error})") from error
    if len(lines) < 2:
        raise ValueError(
            f"table {path}: empty; it needs a header row, and rows of numbers under it"
        )
    header = [name.strip() for name in lines[0][1]]
    header = ["held_out" if name.lower() == "held_out" else name for name in header]
    _check_header(path, header)
    return [_record(path, line, header, cells) for line, cells in lines[1:]]


def _check_header(path: str, header: list[str]) -> None:
    if any(math.isfinite(_number(name)) for name in header):
        raise ValueError(f"table {path}: line 1 holds numbers; it must name the columns")
    if len(set(header)) < len(header):
        raise ValueError(f"table {path}: line 1 names a column twice; rename one")
    if len(header) - ("held_out" in header) < 2:
        raise ValueError(
            f"table {path}: too few columns ({', '.join(map(shortened, header))}); it needs at "
            "least one input and a target, separated by commas"
        )


def _record(path: str, line: int, header: list[str], cells: list[str]) -> Record:
    if len(cells) != len(header):
        raise ValueError(
            f"table {path}: line {line} has {len(cells)} cells, the header has {len(header)}"
        )
    numbers = {}
    for name, cell in zip(header, cells, strict=True):
        numbers[name] = _number(cell)
        if not math.isfinite(numbers[name]):
            raise ValueError(
                f"table {path}: line {line}, column {shortened(name)}: {shortened(cell)} is not a "
                "finite number"
            )
    held_out = numbers.pop("held_out", 0.0)
    if held_out not in (0, 1):
        raise ValueError(f"table {path}: line {line}: held_out is {held_out:g}; it must be 0 or 1")
    *inputs, target = numbers.values()
    if not 0 <= target <= 1:
        raise ValueError(
            f"table {path}: line {line}: the target is {target:g}; it must lie in [0, 1], "
            "for the output is a sigmoid"
        )
    return inputs, target, held_out == 1


def _number(cell: str) -> float:
    """The number in a cell; nan if it holds none. 1_000 and ١٢ are numbers to Python alone."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        return math.nan
