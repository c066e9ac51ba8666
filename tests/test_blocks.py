"""Units of work: shared out without gap or overlap, written whole, damage named."""

import itertools
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from gdtorch import load_table
from gdtorch.ensemble import blocks
from gdtorch.ensemble.blocks import (
    BlockError,
    Settings,
    begin,
    read_tally,
    write_tally,
)
from gdtorch.ensemble.processes import Processes
from gdtorch.ensemble.run import train_units
from gdtorch.ensemble.tally import COUNTS, Tally
from gdtorch.rundir import write

SETTINGS = Settings(
    starts=1000, steps=20, lr=(0.1, 1.0), seed=0, first_start=7, hidden=15, dtype="float32",
    device="cpu", momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False,
    engine="a test's", block=8,
)  # fmt: skip
UNITS = [*SETTINGS.units()]


def tally(seed=0, settings=SETTINGS):
    """Some tally that fits the settings."""
    random = np.random.default_rng(seed)
    starts = np.arange(50)
    kinds = {kind: starts[random.random(50) < 0.5] for kind in COUNTS}
    first_right, held_out = random.integers(-1, 3, 50), random.random((1, 50))
    return Tally.of(starts, random.random(50), held_out, first_right, kinds, settings.steps)


@given(
    st.integers(1, 5000),
    st.integers(0, 2**62),
    st.integers(1, 10**7),
    st.integers(1, 64),
    st.sampled_from([1, 2, 3, 5]),
)
def test_every_start_is_assigned_once_at_each_rate(starts, first, steps, block, processes):
    settings = replace(SETTINGS, starts=starts, first_start=first, steps=steps, block=block)
    units = [unit for rank in range(processes) for unit in settings.units(rank, processes)]
    assert sorted(unit.number for unit in units) == list(range(len(units)))
    for lr in settings.lr:
        mine = sorted((u for u in units if u.lr == lr), key=lambda u: u.first)
        assert mine[0].first == first
        for unit, following in itertools.pairwise(mine):
            assert unit.first + unit.starts == following.first
            assert unit.starts % block == 0
        assert mine[-1].first + mine[-1].starts == first + starts


def test_a_share_is_assigned_as_it_is_taken():
    """A list of so many units would fit no memory."""
    assert next(replace(SETTINGS, starts=2**62).units(3, 5)).number == 3


def test_a_tally_comes_back_as_it_was(tmp_path):
    unit = UNITS[3]
    assert read_tally(tmp_path, SETTINGS, unit) is None
    write_tally(tmp_path, SETTINGS, unit, tally())
    back = read_tally(tmp_path, SETTINGS, unit)
    assert np.array_equal(back.vector, tally().vector)
    assert back.median_steps(20) == tally().median_steps(20)
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == ["000000003.gdtorch"]


class RunsCode:
    """Unpickled, this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def whole(folder):
    write_tally(folder, SETTINGS, UNITS[0], tally())
    (file,) = (folder / "blocks").iterdir()
    return file, file.read_bytes()


DAMAGE = {
    "empty": lambda _: b"",
    "another program's": lambda _: b"not a block file" * 10,
    "a pickle that runs code": lambda _: pickle.dumps(RunsCode()) * 20,
    "longer": lambda content: content + b"\0",
    "twice": lambda content: content * 2,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_and_named(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, content = whole(tmp_path)
    file.write_bytes(DAMAGE[kind](content))
    with pytest.raises(BlockError, match=file.name):
        read_tally(tmp_path, SETTINGS, UNITS[0])
    assert not Path("executed").exists()


def test_every_truncation_and_every_altered_byte_is_noticed(tmp_path):
    file, content = whole(tmp_path)
    for at in range(len(content)):
        altered = bytearray(content)
        altered[at] ^= 1 << at % 8
        for damaged in (content[:at], bytes(altered)):
            file.write_bytes(damaged)
            with pytest.raises(BlockError, match=r"000000000\.gdtorch"):
                read_tally(tmp_path, SETTINGS, UNITS[0])


@pytest.mark.parametrize(
    ("settings", "number"),
    [(SETTINGS, 1), (replace(SETTINGS, seed=1), 0), (replace(SETTINGS, engine="another"), 0)],
    ids=["another unit", "another seed", "another engine"],
)
def test_what_belongs_elsewhere_is_noticed(tmp_path, settings, number):
    file, content = whole(tmp_path)
    file.with_name(f"{number:09d}.gdtorch").write_bytes(content)
    with pytest.raises(BlockError, match="belongs to other settings or starts"):
        read_tally(tmp_path, settings, [*settings.units()][number])


def test_settings_come_back_and_damage_is_named(tmp_path):
    warned = []
    begin(tmp_path, SETTINGS, pytest.fail)
    for content in (b"", b"[1]", b"{", bytes(range(256))):
        (tmp_path / "settings.json").write_bytes(content)
        begin(tmp_path, SETTINGS, warned.append)
        assert warned.pop().startswith(f"{tmp_path}/settings.json is damaged; ")
        begin(tmp_path, SETTINGS, pytest.fail)  # since it has been written anew
    with pytest.raises(ValueError, match=f"{tmp_path} was begun with seed 0, not 1; "):
        begin(tmp_path, replace(SETTINGS, seed=1), pytest.fail)


def test_a_file_lasts_before_its_name_does(tmp_path, monkeypatch):
    """After a power loss there is the old file or the new: content, then name, then folder."""
    done = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle)), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda *names: (done.append("name"), rename(*names)))
    write(tmp_path / "x", b"content", durable=True)
    content, name, folder = done
    assert (content.st_size, content.st_ino) == (7, (tmp_path / "x").stat().st_ino)
    assert name == "name"
    assert folder.st_ino == tmp_path.stat().st_ino


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_what_cannot_be_written_leaves_the_former_file(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(28, "No space left on device")

    write(tmp_path / "x", b"former")
    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x", b"new", durable=True)
    monkeypatch.undo()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]


@pytest.mark.slow
def test_after_fifty_kills_at_random_moments_the_same_bits(tmp_path):
    """SIGKILL at any call, half of them in the midst of writing a file; each time it goes on."""
    program = Path(__file__).with_name("killed.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, program, tmp_path], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    kills, half_written, done, units = map(int, re.findall(r"\d+", result.stdout))
    assert result.stdout.endswith("\nthe same bits\n")
    assert (kills, units) == (50, 100)
    assert half_written > 10
    assert 10 < done < units


def peak(folder, settings):
    """Bytes that adding up the tallies of all units takes; they are all there."""
    folder.mkdir()
    for unit in settings.units():
        write_tally(folder, settings, unit, tally())
    processes = Processes("cpu", lambda: None)
    bar = tqdm(disable=True)
    tracemalloc.start()
    train_units(folder, settings, processes, load_table("post"), {}, bar, pytest.fail)
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size


def test_memory_does_not_grow_with_the_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(blocks, "UNIT_BLOCKS", 1)
    few, many = (replace(SETTINGS, starts=80 * n) for n in (1, 20))
    assert [len([*settings.units()]) for settings in (few, many)] == [20, 400]
    peak(tmp_path / "a", few)  # what the first call alone takes
    # Of the twenty times as many tallies, or units, none is kept; it is one more at the most.
    assert peak(tmp_path / "c", many) < 1.5 * peak(tmp_path / "b", few)


def synced(monkeypatch, write):
    """The files and folders that `write` has synced, by their numbers."""
    done, fsync = [], os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle)), fsync(handle)))
        write()
    return {status.st_ino for status in done}


def test_the_folders_that_hold_new_names_are_synced(tmp_path, monkeypatch):
    """After a power loss a file is there only if every folder above it that is new is there."""
    folder = tmp_path / "run"
    folder.mkdir()
    inodes = synced(monkeypatch, lambda: begin(folder, SETTINGS, pytest.fail))
    assert {folder.stat().st_ino, tmp_path.stat().st_ino} <= inodes
    inodes = synced(monkeypatch, lambda: write_tally(folder, SETTINGS, UNITS[0], tally()))
    assert {folder.stat().st_ino, (folder / "blocks").stat().st_ino} <= inodes
