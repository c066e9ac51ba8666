"""A run's folder: claimed whole or not at all, and cleared of nothing but what gdtorch wrote."""

from __future__ import annotations

__all__ = ["OUR_SUFFIX", "claim", "clear", "write"]

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

OUR_SUFFIX = ".gdtorch"  # every event and block file of ours ends with it: so we know our own
WEIGHT_FILES = ("initial.pt", "final.pt")
ENSEMBLE_FILES = ("settings.json", "summary.json", "unfinished-settings.json")
PICTURE_FILES = (
    "ensemble.png",
    "quartic.png",
    "1-difference-quotient.png",
    "4-sharpness.png",
    "5-spectrum.png",
    "6-surface.png",
)
LONGEST_NAME = 200  # bytes; file systems take 255


def claim(
    logdir: Path,
    name: str | None,
    parts: Sequence[str] = (),
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Path:
    """Make an empty folder for a run, and the log directory where it is missing.

    An earlier run under that name goes, if `overwrite`: its event files, its weights and pictures
    by their names, and the folders that this empties. Whatever else lies there stays, and links
    are not followed.

    Args:
        logdir: TensorBoard's log directory.
        name: the run's name in it; None for a time stamp that no other run has or gets.
        parts: the folders that the run will make in its own.
        overwrite: whether to remove a run of gdtorch's under that name.
        resume: whether to take an ensemble's folder under that name as it is.

    Raises:
        ValueError: the name is no folder name, or is taken, or the earlier run cannot be removed;
            the message names the remedy, and nothing has changed.
        OSError: the folder cannot be made; then nothing is left of it.
    """
    if name is not None:
        _check_name(name)
        if resume and _holds_ensemble(logdir / name):
            return logdir / name
        _check_free(logdir / name, parts, overwrite=overwrite)
    missing = [folder for folder in (logdir, *logdir.parents) if not folder.exists()]
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        if name is None:
            return _stamped(logdir)
        folder = logdir / name
        if folder.exists():
            clear(folder)
        folder.mkdir(exist_ok=True)
    except OSError:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise
    else:
        return folder


def clear(folder: Path) -> None:
    """Remove what gdtorch wrote into a run's folder, and every folder that this empties."""
    places = _places(folder)
    for file in _ours(folder):
        file.unlink()
    for place in reversed(places):
        if not any(place.iterdir()):
            place.rmdir()


def write(file: Path, content: bytes) -> None:
    """Write a file of a run's, and leave no half of it where the disk gives out.

    Raises:
        OSError: it cannot be written.
    """
    try:
        file.write_bytes(content)
    except OSError:
        file.unlink(missing_ok=True)
        raise


def _check_name(name: str) -> None:
    if Path(name).name != name or name in {"", ".", ".."} or not name.isprintable():
        raise ValueError(f"--name {name!r} is not a folder name; leave out / and the like")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"--name is longer than {LONGEST_NAME} bytes; choose a shorter one")


def _check_free(folder: Path, parts: Sequence[str], *, overwrite: bool) -> None:
    """Raise ValueError where a run's folder could not be claimed; change nothing."""
    if folder.is_symlink() or not (folder.is_dir() or not folder.exists()):
        raise ValueError(f"{folder} is not a folder; choose another --name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another --name, or replace it with --overwrite")
    _check_removable(folder, parts)


def _holds_ensemble(folder: Path) -> bool:
    """Whether a folder is an ensemble's, be it one that was killed before its first file."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if (folder / "settings.json").is_file() or (folder / "blocks").is_dir():
        return True
    return all(file.name.endswith((OUR_SUFFIX, *ENSEMBLE_FILES)) for file in folder.iterdir())


def _check_removable(folder: Path, parts: Sequence[str]) -> None:
    """Raise ValueError where a run cannot be removed without loss of what is not ours."""
    ours = _ours(folder)
    if not ours:
        raise ValueError(f"{folder} holds no run of gdtorch's to overwrite; choose another --name")
    for file in folder.rglob("*tfevents*"):
        if file not in ours:
            raise ValueError(f"{file} is not gdtorch's and would mix with the run; move it away")
    for place in _places(folder):
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise ValueError(f"{place} cannot be written; change its permissions")
    for part in parts:
        if (folder / part).is_symlink() or (folder / part).is_file():
            raise ValueError(f"{folder / part} is not a folder of gdtorch's; move it away")


def _places(folder: Path) -> list[Path]:
    """A run's folder and those in it; links are left alone."""
    inner = (path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
    return [folder, *inner]


def _ours(folder: Path) -> list[Path]:
    """The files that gdtorch wrote: its events and blocks, and those of known names beside them."""
    files = []
    for place in _places(folder):
        marked = list(place.glob(f"*{OUR_SUFFIX}"))
        if marked:
            files += marked
            named = (place / file for file in WEIGHT_FILES + PICTURE_FILES + ENSEMBLE_FILES)
            files += [file for file in named if file.is_file()]
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
