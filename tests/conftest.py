"""Settings of all tests: the same examples on every machine, and a way to run the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: there is a worker on every core

import pytest
from hypothesis import settings

# Deterministic, and without a deadline: these machines are shared.
settings.register_profile("gdtorch", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("gdtorch")

ROOT = Path(__file__).parent.parent


def pytest_ignore_collect(collection_path):
    """Leave out what takes a GPU where there is none, so that nothing is skipped."""
    if collection_path.name == "test_cuda.py":
        import torch

        return None if torch.cuda.is_available() else True
    return None


@pytest.fixture
def train(tmp_path):
    """Run `python train.py` with these arguments, as a user would, logging below tmp_path."""

    def run(*arguments, cwd=tmp_path, **options):
        command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, **options
        )

    return run


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """Run the program in this process; (status, standard output, standard error)."""
    from gdtorch.cli import main

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py"])
        status = main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def one_thread():
    """Within the test torch uses one thread: arrays this small gain nothing from more of them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def time_enough(monkeypatch):
    """Search for long: what is found is not to depend on how fast a machine is."""
    for file in ("search", "screening"):
        module = import_module(f"gdtorch.lockstep.search.{file}")
        monkeypatch.setattr(module, "SECONDS", 30.0)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Run `python train.py` hundreds of times: forked off one process that has all imported."""
    command = [sys.executable, str(ROOT / "tests" / "warm.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = tmp_path_factory.mktemp("pipes")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:

        def ask(order):
            print(json.dumps(order), file=server.stdin, flush=True)
            return int(server.stdout.readline())

        def start(folder, *arguments, record="", **limits):
            """A run in a folder; its process id, and `wait()` for (status, output, error)."""
            folder.mkdir(exist_ok=True)
            order = {"arguments": [*map(str, arguments)], "cwd": str(folder), "limits": limits}
            ends = []
            for stream in ("out", "err"):  # pipes, which no limit of a file's size applies to
                order[stream] = tempfile.mktemp(dir=pipes)
                os.mkfifo(order[stream])
                ends.append(os.open(order[stream], os.O_RDONLY | os.O_NONBLOCK))
            process = ask(order | {"record": str(record)})

            def wait():
                status = ask(process)
                with os.fdopen(ends[0]) as out, os.fdopen(ends[1]) as err:
                    return status, out.read(), err.read()

            return SimpleNamespace(pid=process, wait=wait)

        yield start
        server.stdin.close()
