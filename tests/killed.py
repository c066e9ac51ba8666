"""A small ensemble, killed fifty times at random moments and resumed: are the bits the same?"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from gdtorch import load_table
from gdtorch.ensemble import blocks
from gdtorch.ensemble.blocks import Settings, deal
from gdtorch.ensemble.engine import Engine
from gdtorch.ensemble.processes import Processes
from gdtorch.ensemble.run import progress_bar, run

KILLS = 50
SGD = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False}
SETTINGS = Settings(
    starts=100, steps=20, lr=(1.0, 10.0, 30.0), seed=0, first_start=0, hidden=15, dtype="float32",
    device="cpu", engine="", block=4, **SGD,
)  # fmt: skip


def ensemble(folder):
    rows = load_table("post").to(torch.float32)
    processes = Processes("cpu", lambda: None)
    bar = progress_bar(SETTINGS, processes, quiet=True)

    def engine(lr):
        return Engine(rows.learned, 15, {"lr": lr, **SGD}, compiled=False)

    return run(folder, SETTINGS, processes, rows, engine, bar, lambda: None, damaged=print)


def life(folder, calls):
    """Run in a process of its own, until it is done or has made so many calls; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = iter(range(calls))

    def count(*_):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    ensemble(folder)
    os._exit(0)


def main(folder):
    torch.set_num_threads(1)
    blocks.UNIT_BLOCKS = 1
    undisturbed = ensemble(folder / "undisturbed")
    random, kills = np.random.default_rng(0), 0
    moments = {"unfinished": 0, "whole": 0}
    while kills < KILLS:
        ending = life(folder / "killed", int(random.integers(1, 9000)))
        if ending == 0:
            raise SystemExit(f"it was done after {kills} kills")
        kills += ending == -signal.SIGKILL
        unfinished = any((folder / "killed" / "blocks").glob("unfinished*"))
        moments["unfinished" if unfinished else "whole"] += 1
    done = len(list(deal(SETTINGS, 0, 1))), len(list((folder / "killed" / "blocks").iterdir()))
    resumed = ensemble(folder / "killed")
    same = all(np.array_equal(a.vector, b.vector) for a, b in zip(undisturbed, resumed, strict=True))
    print(f"{kills} kills, {'the same' if same else 'other'} bits")
    print(moments, done, file=sys.stderr)


main(Path(sys.argv[1]))
