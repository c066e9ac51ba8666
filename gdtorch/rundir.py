"""A run's folder: no two runs share one, and only what gdtorch wrote is removed from it."""

from __future__ import annotations

__all__ = ["OUR_SUFFIX", "check", "claim", "clear", "sync", "unwritable", "write"]

import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

OUR_SUFFIX = ".gdtorch"  # our event and block files end with it, so we recognize them
UNFINISHED = "unfinished-"  # a file that is being written; after a kill the next run overwrites it
ENSEMBLE_FILES = ("settings.json", "summary.json")
OUR_NAMES = (
    *ENSEMBLE_FILES,
    "initial.pt",
    "final.pt",
    "curves.csv",
    "curves.png",
    "ensemble.png",
    "quartic.png",
    "1-difference-quotient.png",
    "4-sharpness.png",
    "5-spectrum.png",
    "6-surface.png",
)
LONGEST_NAME = 200  # bytes; file systems take 255


def check(logdir: Path, name: str | None, *, free: bool) -> None:
    """Raise ValueError if `claim` would certainly do so; change nothing.

    Args:
        logdir: TensorBoard's log directory.
        name: the run's name in it, or None.
        free: whether the folder must be empty, since its run is neither replaced nor resumed.
    """
    for place in (logdir, *logdir.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--logdir {str(logdir)!r} is not a folder; choose another")
    if name is not None:
        _check_name(name)
        if free and (logdir / name).is_dir() and any((logdir / name).iterdir()):
            _check_taken(logdir / name, (), overwrite=False)


@contextlib.contextmanager
def claim(
    logdir: Path,
    name: str | None,
    parts: Sequence[str] = (),
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[Path]:
    """Claim an empty folder for a run; no other run gets it before the block ends.

    The log directory is made where it is missing. `overwrite` removes an earlier run
    under that name: its event files, its weights and pictures by their names, and the folders that
    this empties. Everything else there stays, and links are not followed.

    Args:
        logdir: TensorBoard's log directory.
        name: the run's name in it; None for a time stamp that no other run has or gets.
        parts: the folders that the run will make in its own.
        overwrite: whether to remove a run of gdtorch's under that name.
        resume: whether to go on in an ensemble's folder under that name, with its files.

    Raises:
        ValueError: the name is no folder name, or is taken, also by a run under way; or the
            earlier run cannot be removed. The message names the remedy, and nothing has changed.
        OSError: the folder cannot be made; nothing is left of it. If the block raises, empty
            folders that were made here are removed, too; the run's own only by the process
            that holds its lock.
    """
    if name is not None:
        _check_name(name)
    folder = logdir / (name or "")
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = None
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        if name is None:
            folder = _stamped(logdir)
            made.insert(0, folder)
        lock = _lock(folder)
        if resume and _holds_ensemble(folder):
            _check_parts(folder, parts)
        elif any(folder.iterdir()):
            _check_taken(folder, parts, overwrite=overwrite)
            clear(folder)
        yield folder
    except BaseException:
        for place in made:
            if place == folder and lock is None:
                continue  # another run may have it
            with contextlib.suppress(OSError):  # something has been written into it
                place.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def clear(folder: Path) -> None:
    """Remove what gdtorch wrote into a run's folder, and the folders in it that this empties."""
    for file in _ours(folder):
        file.unlink()
    for place in _places(folder)[:-1]:
        with contextlib.suppress(OSError):  # something else lies in it
            place.rmdir()


def write(file: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file of a run, whole or not at all; a link in its place is replaced, not followed.

    Args:
        file: its path.
        content: all of it.
        durable: whether the whole file must survive a power loss.

    Raises:
        OSError: it cannot be written; what was there before stays as it was.
    """
    unfinished = file.with_name(f"{UNFINISHED}{file.name}")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as stream:
            stream.write(content)
        if durable:
            sync(unfinished)
        unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    if durable:
        sync(file.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(folder: Path, last: str, error: OSError) -> str:
    """Why a run ended: its folder cannot be written. `last` names what was done last."""
    return f"cannot write to {folder} after {last}: {error.strerror}"


def _check_name(name: str) -> None:
    if Path(name).name != name or name in {"", ".", ".."} or not name.isprintable():
        raise ValueError(f"--name {name!r} is not a folder name; leave out / and the like")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"--name is longer than {LONGEST_NAME} bytes; choose a shorter one")


def _lock(folder: Path) -> int:
    """Make a folder where it is missing, and lock it; return the file handle that holds the lock.

    The lock ends with the handle, at the latest with the process: a killed one leaves none.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is not a folder; choose another --name")
    taken = ValueError(f"{folder} is that of a run under way; choose another --name")
    folder.mkdir(exist_ok=True)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # its run failed just now and removed it
        raise taken from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise taken from None
    except OSError:  # a file system without locks
        pass
    if not os.fstat(handle).st_nlink:  # removed between the two calls
        os.close(handle)
        raise taken
    return handle


def _check_taken(folder: Path, parts: Sequence[str], *, overwrite: bool) -> None:
    """Raise ValueError if a run cannot have a folder that is not empty."""
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another --name, or replace it with --overwrite")
    ours = _ours(folder)
    if not ours:
        raise ValueError(f"{folder} holds no run of gdtorch's to overwrite; choose another --name")
    for file in folder.rglob("*tfevents*"):
        if file not in ours:
            raise ValueError(f"{file} is not gdtorch's and would mix with the run; move it away")
    for place in _places(folder):
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise ValueError(f"{place} cannot be written; change its permissions")
    _check_parts(folder, parts)


def _holds_ensemble(folder: Path) -> bool:
    """Whether a folder is an ensemble's, even if it was killed before its first file."""
    if (folder / "settings.json").is_file() or (folder / "blocks").is_dir():
        return True
    return all(file.name.endswith((OUR_SUFFIX, *ENSEMBLE_FILES)) for file in folder.iterdir())


def _check_parts(folder: Path, parts: Sequence[str]) -> None:
    """Raise ValueError if a file or a link has the name of one of the run's folders."""
    for part in parts:
        if (folder / part).is_symlink() or (folder / part).is_file():
            raise ValueError(f"{folder / part} is not a folder of gdtorch's; move it away")


def _ours(folder: Path) -> list[Path]:
    """The files that gdtorch wrote into a run's folder, in the order in which they may go.

    Events and blocks come last in each folder: a half-removed run is recognized by them.
    """
    ours = []
    for place in _places(folder):
        marked = [file for file in place.glob(f"*{OUR_SUFFIX}") if not file.is_dir()]
        if marked:
            named = (place / f"{prefix}{name}" for name in OUR_NAMES for prefix in ("", UNFINISHED))
            ours += [file for file in named if file.is_file()] + marked
    return ours


def _places(folder: Path) -> list[Path]:
    """The folders inside a run's folder, then the folder itself; links are left out."""
    inner = (path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
    return [*inner, folder]


def _stamped(logdir: Path) -> Path:
    """Make a folder named after the time."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        folder = logdir / (stamp if number == 1 else f"{stamp}_{number}")
        with contextlib.suppress(FileExistsError):  # another process was first
            folder.mkdir()
            break
    return folder
