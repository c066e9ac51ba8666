"""What is done to runs, again and again; docs/reliability.md says how often, and what happened."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

RIVALS = 8  # runs that want one name at once
ENDLESS = ["--steps", 10**8, "--name", "x", "--quiet"]
STEPS = 100
COMMANDS = [
    ["compare", "--steps", STEPS, "--name", "x"],
    ["quartic", "--from", 3, "--steps", STEPS, "--name", "x"],
    ["lockstep", "builtin:manual", "builtin:sgd", "--steps", STEPS, "--name", "x"],
]


def times(few, many):
    """Few times, and with `pytest -m slow` many times."""
    return pytest.mark.parametrize("times", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture
def random():
    return np.random.default_rng(0)


def logged(folder):
    """Bytes in all event files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*tfevents*"))


def under_way(forks, folder, size, **options):
    """A run without end that has logged so many bytes, or is over."""
    process = forks(folder, *ENDLESS, **options)
    while logged(folder) < size and ") Z " not in Path(f"/proc/{process.pid}/stat").read_text():
        os.sched_yield()
    return process


def events(folder):
    """Event file → its events but for the first, the version, by TensorBoard's own reader."""
    files = sorted(folder.rglob("*tfevents*"))
    return {file: list(EventFileLoader(str(file)).Load())[1:] for file in files}


def steps(folder):
    """The steps of which the trainer in a folder has logged the loss."""
    ((_, found),) = events(folder).items()
    return [e.step for e in found if any(v.tag == "loss" for v in e.summary.value)]


@times(1, 100)
def test_after_kill_9_every_event_logged_can_be_read(forks, tmp_path, times, random, main):
    """And nothing is in the way of the next run under that name."""
    for kill in range(times):
        folder, noted = tmp_path / f"{kill}", tmp_path / f"{kill}.noted"
        process = under_way(forks, folder, random.integers(100_000), record=noted)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == (-signal.SIGKILL, "", "")
        found = events(folder)
        for file, number in Counter(noted.read_text().split() if noted.exists() else ()).items():
            # The last one may have been logged, and the process killed before it could note so.
            assert len(found[folder / file]) - number in (0, 1)
        for trainer in folder.glob("runs/x/*/*tfevents*"):
            seen = steps(trainer.parent)
            assert seen == list(range(len(seen)))
        again = ["--logdir", folder / "runs", "--name", "x", "--overwrite", "--quiet"]
        assert main("--steps", 1, *again) == (0, "", "")
        assert not list(folder.rglob("unfinished-*"))


@times(4, 50)
def test_signals_end_a_run_after_a_whole_step(forks, tmp_path, times, random):
    for number in range(times):
        folder = tmp_path / f"{number}"
        process = under_way(forks, folder, random.integers(1, 100_000))
        sent = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[number % 3]
        os.kill(process.pid, sent)
        status, out, error = process.wait()
        assert (status, out) == (128 + sent, "")
        match = re.fullmatch(
            rf"gdtorch: interrupted \({sent.name}\) after step (\d+); all until then is in "
            r"runs/x\n", error,
        )  # fmt: skip
        for trainer in ("post", "manual", "sgd"):
            assert steps(folder / "runs" / "x" / trainer) == list(range(int(match[1]) + 1))
            assert (folder / "runs" / "x" / trainer / "final.pt").is_file()


@pytest.mark.slow
def test_a_hangup_is_ignored_under_nohup(tmp_path):
    command = ["nohup", sys.executable, str(ROOT / "train.py"), *map(str, ENDLESS)]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not logged(tmp_path):
        os.sched_yield()
    run.send_signal(signal.SIGHUP)
    run.send_signal(signal.SIGTERM)
    assert "interrupted (SIGTERM)" in run.communicate()[1]
    assert run.returncode == 128 + signal.SIGTERM


@times(3, 50)
def test_a_log_directory_that_vanishes_ends_the_run(forks, tmp_path, times, random):
    for number in range(times):
        folder = tmp_path / f"{number}"
        process = under_way(forks, folder, random.integers(1, 100_000))
        gone = folder / ("runs", "runs/x", "runs/x/sgd")[number % 3]
        gone.rename(folder / "elsewhere")  # at once, before a file can be made in it
        shutil.rmtree(folder / "elsewhere")
        status, out, error = process.wait()
        assert (status, out) == (3, ""), error
        match = re.fullmatch(
            r"gdtorch: cannot write to runs/x after step \d+: No such file or directory"
            r"(; all until then is in runs/x)?\n",
            error,
        )
        assert not match[1] or (folder / "runs" / "x").exists()
        assert not gone.exists()


@times(9, 100)
def test_files_that_may_grow_no_more_end_the_run(forks, tmp_path, times, random):
    """As on a disk that is full, from the first byte on or later."""
    ended = Counter()
    for number in range(times):
        folder, command = tmp_path / f"{number}", COMMANDS[number % 3]
        whole = 10_000 if command[0] == "lockstep" else 50_000
        limit = int(random.integers(1, whole))
        status, out, error = forks(folder, *command, RLIMIT_FSIZE=limit).wait()
        ended[status] += 1
        match = re.fullmatch(
            r"gdtorch: cannot write (the output|to runs/x after step (\d+)): File too large.*\n",
            error,
        )
        assert match if status else not error, (command, limit, error)
        assert not list(folder.rglob("unfinished-*"))
        done = int(match[2] or 0) if match else STEPS
        if command[0] != "quartic":  # whose table is of whole paths
            assert out or not done
        for trainer in ("sgd", "theirs", "from_3"):
            for file in folder.glob(f"runs/x/{trainer}/*tfevents*"):
                seen = sorted({e.step for e in events(file.parent)[file]})
                assert seen[: done - 1] == list(range(len(seen)))[: done - 1]
                assert len(seen) >= done
    assert set(ended) <= {0, 3}
    assert ended[3] > times / 2


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [40, 200, 600])
def test_a_full_disk_ends_the_run(tmp_path, kilobytes):
    """A file system of so many kilobytes, which nobody else can see."""
    script = (
        "mkdir runs && mount -t tmpfs -o size=$0k none runs && "
        '"$@" --name x --steps 1000; status=$?; cp -r runs kept; exit $status'
    )
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        assert "GDTORCH_CI" not in os.environ, "no file system can be mounted here"
        pytest.skip("no file system can be mounted here")
    command = ["sh", "-c", script, str(kilobytes), sys.executable, str(ROOT / "train.py")]
    ended = subprocess.run(
        [*own, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3
    step = int(
        re.fullmatch(
            r"gdtorch: cannot write to runs/x after step (\d+): No space left on device(; .*)?\n",
            ended.stderr,
        )[1]
    )
    if step:
        assert steps(tmp_path / "kept" / "x" / "post")[:step] == list(range(step))
    assert not list((tmp_path / "kept").rglob("unfinished-*"))


@times(1, 10)
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["new", "overwrite"])
def test_of_runs_that_want_one_name_one_gets_it(forks, tmp_path, times, overwrite):
    for contest in range(times):
        folder = tmp_path / f"{contest}"
        rivals = [forks(folder, *COMMANDS[0], "--quiet", *overwrite) for _ in range(RIVALS)]
        ended = [rival.wait() for rival in rivals]
        won = sum(status == 0 for status, _, _ in ended)
        assert won == 1 or (overwrite and won > 1)  # one may come when the first is done
        for status, out, error in ended:
            assert (status, out) in [(0, ""), (2, "")]
            if status == 2:
                assert re.fullmatch(
                    r"gdtorch: runs/x (is that of a run under way|exists); choose another "
                    r"--name[^\n]*\n", error,
                )  # fmt: skip
        for trainer in ("post", "manual", "sgd"):
            assert steps(folder / "runs" / "x" / trainer) == list(range(STEPS + 1))


@pytest.mark.slow
def test_too_few_file_handles_end_the_run_in_one_line(forks, tmp_path):
    ended = Counter()
    for handles in range(3, 43):
        for number, command in enumerate(COMMANDS):
            folder = tmp_path / f"{handles}-{number}"
            status, _, error = forks(folder, *command, RLIMIT_NOFILE=handles).wait()
            ended[status] += 1
            assert status in (0, 2, 3), error
            if status:
                assert re.fullmatch(r"gdtorch: [^\n]*Too many open files[^\n]*\n", error)
            else:
                assert not error
    assert min(ended[0], ended[2] + ended[3]) > 3


@times(2, 20)
def test_too_little_memory_ends_the_run_in_one_line(forks, tmp_path, times, random):
    first = forks(tmp_path / "first", *ENDLESS)
    pages = int(Path(f"/proc/{first.pid}/statm").read_text().split()[0])
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    for number in range(times):
        room = pages * os.sysconf("SC_PAGE_SIZE") + int(random.integers(100 << 20))
        wide = ["--hidden", 1_000_000, "--steps", 1, "--name", "x", "--quiet"]
        status, out, error = forks(tmp_path / f"{number}", *wide, RLIMIT_AS=room).wait()
        assert (status, out) == (3, ""), error
        assert re.fullmatch(r"gdtorch: [^\n]*out of memory[^\n]*\n", error), error
