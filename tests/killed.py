"""A small ensemble, killed fifty times at random moments and resumed: are the bits the same?"""

import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gdtorch import load_table
from gdtorch.ensemble import blocks, engine
from gdtorch.ensemble.blocks import Settings
from gdtorch.ensemble.processes import Processes
from gdtorch.ensemble.run import train_units

KILLS = 50
SGD = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False}
SETTINGS = Settings(
    starts=200, steps=8, lr=(1.0, 2.0), seed=0, first_start=0, hidden=15, dtype="float32",
    device="cpu", engine="", block=4, **SGD,
)  # fmt: skip


def ensemble(folder):
    rows = load_table("post").to(torch.float32)
    processes = Processes("cpu", lambda: None)
    bar = tqdm(disable=True)

    engines = {
        lr: engine.Engine(rows.learned, 15, {"lr": lr, **SGD}, compiled=False) for lr in SETTINGS.lr
    }
    return train_units(folder, SETTINGS, processes, rows, engines, bar, warn=print)


def kill_after(calls):
    """Kill this process after so many calls of functions and returns from them."""
    left = iter(range(calls))
    sys.setprofile(lambda *_: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))


def kill_in_write(number, calls):
    """Kill this process so many calls into a write of a file; if it has fewer, soon after."""
    write, left = blocks.write, iter(range(number))

    def armed(*arguments, **options):
        if next(left, None) is None:
            kill_after(calls)
        write(*arguments, **options)

    blocks.write = armed


def life(folder, kill=None, *moment):
    """Run in a process of its own, until it is done or killed; how it ended."""
    child = os.fork()  # before this one has computed anything: torch's threads do not survive it
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        torch.set_num_threads(1)
        if kill:
            kill(*moment)
        ensemble(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def contents(folder):
    return {file.name: file.read_bytes() for file in (folder / "blocks").glob("*")}


def main(folder):
    blocks.UNIT_BLOCKS, engine.BLOCK = 1, SETTINGS.block
    random = np.random.default_rng(0)
    half_written = 0
    for kill in range(KILLS):
        moment = (kill_after, 30_000) if kill % 2 else (kill_in_write, random.integers(5), 60)
        ending = life(folder / "killed", *moment[:-1], random.integers(1, moment[-1]))
        if ending != -signal.SIGKILL:
            raise SystemExit(f"after {kill} kills it ended with {ending}")
        half_written += any("unfinished" in name for name in contents(folder / "killed"))
    done = len(contents(folder / "killed"))
    for name in ("killed", "undisturbed"):
        if life(folder / name) != 0:
            raise SystemExit(f"{name}: not done")
    same = contents(folder / "killed") == contents(folder / "undisturbed")
    units = len(list(SETTINGS.units()))
    print(f"{KILLS} kills, {half_written} in the midst of a file, {done} of {units} units")
    print("the same bits" if same else "other bits")


main(Path(sys.argv[1]))
