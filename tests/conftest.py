"""Settings of all tests: the same examples on every machine, and a way to run the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: there is a worker on every core

import pytest
import torch.testing._internal.common_utils  # noqa: F401 (it loads a profile: ours comes after)
from hypothesis import settings

# Deterministic, and without a deadline: these machines are shared.
settings.register_profile("gdtorch", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("gdtorch")

ROOT = Path(__file__).parent.parent


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
