"""A run's folder: claimed whole or not at all, and cleared of nothing but what gdtorch wrote."""

from __future__ import annotations

__all__ = ["EVENT_SUFFIX", "claim"]

import time
from pathlib import Path

EVENT_SUFFIX = ".gdtorch"  # every event file of ours ends with it: so we know our own
WEIGHT_FILES = ("initial.pt", "final.pt")


def claim(logdir: Path, name: str | None, *, overwrite: bool) -> Path:
    """Make an empty folder for a run, and the log directory where it is missing.

    An earlier run under that name goes, if `overwrite`: its event files, `initial.pt` and
    `final.pt`, and the folders that this empties. Whatever else lies there stays.

    Args:
        logdir: TensorBoard's log directory.
        name: the run's name in it; None for a time stamp that no other run has or gets.
        overwrite: whether to remove a run of gdtorch's under that name.

    Raises:
        ValueError: the name is no folder name, or is taken; the message names the remedy.
        OSError: the folder cannot be made; then nothing is left of it.
    """
    _check_free(logdir, name, overwrite=overwrite)
    missing = [folder for folder in (logdir, *logdir.parents) if not folder.exists()]
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        if name is None:
            return _stamped(logdir)
        folder = logdir / name
        for file in _ours(folder):
            file.unlink()
        for emptied in [path for path in folder.glob("*") if path.is_dir()]:
            if not any(emptied.iterdir()):
                emptied.rmdir()
        folder.mkdir(exist_ok=True)
    except OSError:
        for made in missing:
            if made.is_dir():
                made.rmdir()
        raise
    else:
        return folder


def _check_free(logdir: Path, name: str | None, *, overwrite: bool) -> None:
    """Raise ValueError where a run's folder could not be claimed; change nothing."""
    if name is None:
        return
    if Path(name).name != name or name in {"", ".", ".."} or "\0" in name:
        raise ValueError(f"--name {name!r} is not a folder name; leave out / and the like")
    folder = logdir / name
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another --name, or replace it with --overwrite")
    if not _ours(folder):
        raise ValueError(f"{folder} holds no run of gdtorch's to overwrite; choose another --name")
    for file in folder.rglob("*tfevents*"):
        if file not in _ours(folder):
            raise ValueError(f"{file} is not gdtorch's and would mix with the run; move it away")


def _ours(folder: Path) -> list[Path]:
    """The files that gdtorch wrote: events of ours, and the weights that lie beside them."""
    files = []
    for place in (folder, *(path for path in folder.glob("*") if path.is_dir())):
        events = list(place.glob(f"*tfevents*{EVENT_SUFFIX}"))
        if events:
            files += events
            files += [place / file for file in WEIGHT_FILES if (place / file).is_file()]
    return files


def _stamped(logdir: Path) -> Path:
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        folder = logdir / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir()  # fails where another process was first
        except FileExistsError:
            number += 1
        else:
            return folder
