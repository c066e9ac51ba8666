"""The core: start-up, logging, one step."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from gdtorch import SGD, Lockstep, Manual, Post, SigmoidNet, Steepest, Torch, load_table
from gdtorch.board import Board
from gdtorch.board.measure import measure
from gdtorch.ensemble.single import LongRun
from gdtorch.optimizers import RULES

ROOT = Path(__file__).parents[2]
BARE = """
import torch
from torch.utils.tensorboard import SummaryWriter
weight = torch.nn.Parameter(torch.zeros(3))
optimizer = torch.optim.SGD([weight], lr=1.0)
weight.sum().backward()
optimizer.step()
"""


def shell(folder, *arguments):
    return lambda: subprocess.run(
        [sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )


def test_whole_program_against_bare_imports(ratio, tmp_path):
    ratio(
        "python train.py : import torch, SummaryWriter, one step of SGD",
        shell(tmp_path, ROOT / "train.py"),
        shell(tmp_path, "-c", BARE),
        aim=1.2,
        rounds=7,
    )


def test_help_against_bare_python(ratio, tmp_path):
    # The aim is 0.2 s; bare Python takes about 0.01 s here, so that a ratio of 20 would be that.
    ratio(
        "python train.py --help : python -c pass",
        shell(tmp_path, ROOT / "train.py", "--help"),
        shell(tmp_path, "-c", "pass"),
        aim=20,
        rounds=15,
    )


def trainers():
    rows, net = load_table("post").learned, SigmoidNet().double()
    return [trainer(net, rows, 1.0) for trainer in (Post, Manual, SGD)]


@pytest.mark.parametrize("name", RULES)
def test_one_step_by_hand_against_torch_optim(ratio, name):
    rows, net = load_table("post").learned, SigmoidNet().double()
    manual = Manual(net, rows, optimizer=RULES[name](lr=1e-3))
    theirs = Torch(net, rows, name, lr=1e-3)
    what = f"one step: manual : {theirs.name}"
    aim = 0.5 if name == "SGD" else 0.6
    ratio(what, manual.step, theirs.step, aim=aim, rounds=15, calls=200)


def test_a_thousand_compiled_steps_against_a_thousand(ratio):
    rows, net = load_table("post").learned, SigmoidNet().double()
    compiled, manual = LongRun(net, rows, 1.0, stride=1000), Manual(net, rows, 1.0)
    assert compiled.reason == ""

    def one_by_one():
        for _ in range(1000):
            manual.step()

    ratio(
        "1000 steps of manual: --compile : one by one",
        compiled.step,
        one_by_one,
        aim=1 / 5,
        rounds=15,
    )


@pytest.mark.parametrize(("trainer", "aim"), [(SGD, 4), (Manual, 10)], ids=["sgd", "manual"])
def test_a_steepest_step_against_a_batch_step(ratio, trainer, aim):
    # A batch step by hand is a third of one of SGD's, and the search is the same for both.
    rows, net = load_table("post").learned, SigmoidNet().double()
    steepest, batch = trainer(net, rows, descent=Steepest()), trainer(net, rows, 1.0)
    name = f"one step of {trainer.name}: steepest : batch"
    ratio(name, steepest.step, batch.step, aim=aim, rounds=101)


def test_logging_a_step_against_add_scalar(ratio, tmp_path):
    table, three = load_table("post"), trainers()
    lockstep = Lockstep({trainer.name: trainer for trainer in three}, "sgd")
    for _ in zip(range(3), lockstep, strict=False):
        pass
    (tmp_path / "mine").mkdir()
    board = Board(tmp_path / "mine", SigmoidNet().double(), three, table, {}, 1000)
    writers = {t.name: SummaryWriter(str(tmp_path / "theirs" / t.name)) for t in three}

    def one_by_one():
        tags, rows = measure(board.side_by_side(), table)
        for (name, writer), numbers in zip(writers.items(), rows, strict=True):
            differences = lockstep.differences.get(name, {})
            scalars = dict(zip(tags, numbers, strict=True)) | {
                f"difference/{weight}": distance for weight, distance in differences.items()
            }
            for tag, value in scalars.items():
                writer.add_scalar(tag, value, 1)

    ratio(
        "a step's scalars of three trainers : add_scalar for each tag",
        lambda: board.log(1, lockstep.differences),
        one_by_one,
        aim=0.25,
        rounds=9,
        calls=100,
    )
    board.close()
    for writer in writers.values():
        writer.close()
