"""`python train.py ensemble`: what it counts, prints and logs, how it ends early and goes on."""

import errno
import io
import json
import math
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from functools import partial, reduce
from operator import add
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from gdtorch import Manual, SigmoidNet, figures, initial_weights, load_table
from gdtorch.cli import COMMANDS, ensemble, report
from gdtorch.ensemble import blocks, engine
from gdtorch.ensemble import processes as among
from gdtorch.ensemble import run as running
from gdtorch.ensemble.processes import Processes
from gdtorch.ensemble.tally import COUNTS, Tally

RUN = ["ensemble", "--starts", 70, "--steps", 60, "--lr", 1, 10, 30]
EAGER = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}  # torch.compile does nothing


PNG = b"\x89PNG\r\n\x1a\n"
BLOCK, UNIT_BLOCKS, DRAWN = engine.BLOCK, blocks.UNIT_BLOCKS, figures.png


@pytest.fixture
def main(main, monkeypatch):
    """The program with units of 32 starts, and no time spent on compiling and drawing."""
    monkeypatch.setattr(engine, "BLOCK", 32)
    monkeypatch.setattr(blocks, "UNIT_BLOCKS", 1)
    monkeypatch.setattr(engine, "Engine", partial(engine.Engine, compiled=False))
    monkeypatch.setattr(figures, "png", lambda _: PNG)
    return main


EXAMPLE = []


@pytest.fixture
def undisturbed(main):
    """The facts of the example, which runs once."""
    if not EXAMPLE:
        EXAMPLE.append(run(main, "--name", "undisturbed")[0])
    return EXAMPLE[0]


def run(main, *options):
    """Run the example; its facts as JSON, and what went to standard error."""
    status, out, error = main(*RUN, "--json", *options)
    assert status == 0, error
    return json.loads(out), error


def trained(lr, count=70, steps=60, dtype=torch.float64):
    """The same starts by `Manual`, side by side: outputs for all eight rows at every step."""
    table = load_table("post").to(dtype)
    net = SigmoidNet().to(dtype)
    syn0, syn1 = initial_weights(0, 0, count, 60).to(dtype).split([45, 15], dim=1)
    net.syn0.data, net.syn1.data = syn0.reshape(count, 3, 15), syn1.reshape(count, 15, 1)
    manual = Manual(net, table.learned, lr)
    everything = torch.cat([table.learned.inputs, table.held_out.inputs])
    outputs = []
    for _ in range(steps + 1):
        outputs.append(manual.objective(everything).detach()[..., 0])
        manual.step()
    targets = torch.cat([table.learned.targets, table.held_out.targets])[:, 0]
    return torch.stack(outputs).numpy(), targets.numpy()


def test_it_counts_what_manual_trains(main):
    facts, _ = run(main, "--dtype", "float64")
    for rate in facts["rates"]:
        outputs, targets = trained(rate["lr"])
        right = (outputs > 0.5) == (targets > 0.5)  # (steps + 1, starts, rows)
        learned = right[:, :, :7].all(axis=2)
        losses = ((outputs[-1, :, :7] - targets[:7]) ** 2).sum(axis=1) / 2
        counts = rate["counts"]
        assert counts["learned"] == learned[-1].sum()
        assert counts["held_out"] == right[-1, :, 7].sum()
        assert counts["stuck"] + counts["falling"] == 70 - counts["learned"]
        assert rate["shares"]["learned"] == learned[-1].mean()
        assert counts["diverged"] == 0
        for percent, loss in rate["loss"].items():
            exact = np.quantile(losses, int(percent) / 100, method="inverted_cdf")
            # The extremes to the rounding of 60 steps in another order, the others to half a bin.
            assert loss == pytest.approx(exact, rel=1e-9 if percent in {"0", "100"} else 0.00501)
        ever = learned[::10].any(axis=0)  # at a check, every 10 steps
        first = 10 * learned[::10, ever].argmax(axis=0)
        expected = np.quantile(first, 0.5, method="inverted_cdf") if ever.any() else None
        assert rate["median_steps"] == expected
        assert f"--start {losses.argmax()} " in rate["replay"]["the worst"]
    assert sum(rate["counts"]["stuck"] for rate in facts["rates"]) > 20


def test_the_table_the_summary_and_the_picture_say_the_same(main, tmp_path):
    facts, _ = run(main, "--name", "x")
    folder = tmp_path / "runs" / "x"
    assert json.loads((folder / "summary.json").read_text()) == facts
    status, out, error = main(*RUN, "--name", "x", "--resume")
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [
        "network 3-15-1, float32, from starts 0 to 69 of seed 0",
        "table post: 7 rows to learn, 1 held out; 60 steps of descent at each lr",
    ]
    for line, rate in zip(lines[4:7], facts["rates"], strict=True):
        shares = [float(share) for share in re.findall(r"([\d.]+) %", line)]
        kinds = ("learned", "held_out", "stuck", "falling")
        assert shares == [round(100 * rate["shares"][kind], 2) for kind in kinds]
    for line, rate in zip(lines[9:12], facts["rates"], strict=True):
        assert list(map(float, line.split())) == pytest.approx(
            [rate["lr"], *rate["loss"].values()], rel=1e-3
        )
    for rate in facts["rates"]:
        assert all(replay in out for replay in rate["replay"].values())


def test_settings_have_the_commands_defaults(main):
    _, out, _ = main("ensemble", "--starts", 1, "--json")
    facts = json.loads(out)["settings"]
    measured = {name: facts[name] for name in ("table_checksum", "engine", "block")}
    assert facts == blocks.Settings(starts=1, **measured).facts()


def test_tensorboard_shows_it_over_the_learning_rate(main, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "png", DRAWN)
    facts, _ = run(main, "--name", "x")
    folder = tmp_path / "runs" / "x"
    sizes = {"scalars": 0, "histograms": 0, "images": 0}
    reader = EventAccumulator(str(folder), size_guidance=sizes)
    reader.Reload()
    for rate in facts["rates"]:
        step = {1: 1, 10: 2, 30: 3}[rate["lr"]]
        for tag, value in {
            "share/learned": rate["shares"]["learned"],
            "share/stuck": rate["shares"]["stuck"],
            "loss/50": rate["loss"]["50"],
            "loss_log10/99": math.log10(rate["loss"]["99"]),
            "loss/100": rate["loss"]["100"],
        }.items():
            (event,) = (e for e in reader.Scalars(tag) if e.step == step)
            assert event.value == np.float32(value)
        for tag in ("log10_loss", "held_out"):
            (event,) = (e for e in reader.Histograms(tag) if e.step == step)
            histogram = event.histogram_value
            assert sum(histogram.bucket) == histogram.num == 70
            if tag == "log10_loss":  # each loss within a bin of 1 %
                ends = np.log10([rate["loss"]["0"], rate["loss"]["100"]])
                assert abs(histogram.min - ends[0]) < np.log10(1.01)
                assert abs(histogram.max - ends[1]) < np.log10(1.01)
    for tag in reader.Tags()["scalars"] + reader.Tags()["histograms"]:
        assert reader.SummaryMetadata(tag).summary_description
    ((_, chart),) = layout_of(reader).items()
    assert len(chart) == 6  # none of divergence, since there is none
    for title, tags in chart.items():
        for tag in tags:  # an expression, or in the chart of a band a name
            shown = [t for t in reader.Tags()["scalars"] if re.fullmatch(tag, t)]
            assert len(shown) == 1, title
    assert "share/diverged" not in reader.Tags()["scalars"]
    (image,) = reader.Images("ensemble")
    assert image.encoded_image_string == (folder / "ensemble.png").read_bytes()
    run(main, "--name", "x", "--resume")
    assert len(list(folder.glob("*tfevents*"))) == 1  # else every point would be there twice


def test_learning_rates_are_drawn_from_the_smallest_on(main, tmp_path, monkeypatch):
    drawn = []

    def drawing(rates, *_):
        drawn.extend(rates)
        return figures.Figure()

    monkeypatch.setattr(figures, "ensemble", drawing)
    rates = [3, 0.1, 10, 0.3, 1, 0.2, 0.5, 2, 5, 0.7]
    main("ensemble", "--starts", 1, "--steps", 9, "--name", "x", "--lr", *rates)
    reader = EventAccumulator(str(tmp_path / "runs" / "x"), size_guidance={"scalars": 0})
    reader.Reload()
    assert [event.step for event in reader.Scalars("share/learned")] == [*range(1, 11)]
    assert drawn == sorted(rates)
    (title,) = layout_of(reader)
    assert title.startswith("What becomes of them? Learning rate 1 is 0.1, 2 is 0.2, 3 is 0.3, ")
    assert title.endswith("7 is 2, …, 10 is 10")


def layout_of(reader):
    """Group → chart → what its tags match, on the page of custom scalars."""
    proto = reader.Tensors("custom_scalars__config__")[0].tensor_proto
    layout = layout_pb2.Layout.FromString(proto.string_val[0])
    return {
        group.title: {
            c.title: [
                *c.multiline.tag,
                *(t for s in c.margin.series for t in (s.value, s.lower, s.upper)),
            ]
            for c in group.chart
        }
        for group in layout.category
    }


@pytest.mark.parametrize(
    "options",
    [
        "--dtype float64 --momentum 0.5 --nesterov --weight-decay 1e-4",
        pytest.param("", marks=pytest.mark.slow),
        pytest.param("--hidden 4 --seed 3 --table xor", marks=pytest.mark.slow),
    ],
)
def test_any_start_can_be_replayed(main, options):
    facts, _ = run(main, *options.split())
    rate = facts["rates"][0]
    replay = shlex.split(rate["replay"]["the worst"])
    assert replay[:2] == ["python", "train.py"]
    status, out, _ = main(*replay[2:], "--json", "--quiet")
    assert status == 0
    (loss,) = {
        trainer["loss"] for name, trainer in json.loads(out)["trainers"].items() if name != "post"
    }
    # 60 steps at lr 1, each of which rounds some 10 times, and enlarges no error: the sharpness is
    # below 2/lr.
    epsilon = torch.finfo(getattr(torch, facts["settings"]["dtype"])).eps
    assert loss == pytest.approx(rate["loss"]["100"], rel=600 * epsilon)


@pytest.mark.parametrize(
    ("called", "again"),
    [
        ("python -m gdtorch", "python -m gdtorch"),
        ("/usr/bin/gdtorch", "gdtorch"),
        ("my code/train.py", "python train.py"),
    ],
)
def test_a_replay_is_called_as_the_program_was(tmp_path, monkeypatch, called, again):
    monkeypatch.setattr(sys, "argv", [called])
    settings = blocks.Settings(starts=1, engine="", block=1)
    zero, none = np.zeros(1, int), dict.fromkeys(COUNTS, np.zeros(0, int))
    counted = Tally.of(zero, np.zeros(1), np.zeros((1, 1)), zero, none, 1000)
    (rate,) = ensemble.facts(settings, tmp_path, [counted], load_table("post"))["rates"]
    assert rate["replay"]["the worst"].startswith(f"{again} --start 0 --seed 0 --lr 1.0")


def test_learning_rates_named_one_by_one_all_run_in_their_order(main):
    one_by_one = ["ensemble", "--starts", 1, "--name", "x", "--lr", 3, "--lr", 1, "--json"]
    facts = json.loads(main(*one_by_one)[1])
    assert [rate["lr"] for rate in facts["rates"]] == [1, 3]
    again = main("ensemble", "--starts", 1, "--name", "x", "--resume", "--lr", 1, 3, "--json")
    assert json.loads(again[1]) == facts


# A table of one's own.

ROWS = """a,b,held_out,y
0,0.5,0,0
1,2,0,1
-1,3,0,1
0.1,0.6,1,0
1,1,1,1
"""


def test_a_table_of_ones_own_is_counted_as_manual_trains_it(main, tmp_path):
    (tmp_path / "my t.csv").write_text(ROWS)
    facts, _ = run(main, "--table", "my t.csv", "--name", "x", "--dtype", "float64")
    table = load_table(str(tmp_path / "my t.csv"))
    for rate in facts["rates"]:
        right, held_out, losses = [], [], []
        for start in range(70):
            manual = Manual(SigmoidNet(2, start=start).double(), table.learned, rate["lr"])
            for _ in range(60):
                manual.step()
            for rows, found in ((table.learned, right), (table.held_out, held_out)):
                outputs = manual.objective(rows.inputs).detach()
                found.append(((outputs > 0.5) == (rows.targets > 0.5)).all().item())
            losses.append(manual.objective.loss(table.learned).item())
        assert rate["counts"]["learned"] == sum(right)
        assert rate["counts"]["held_out"] == sum(held_out)
        assert rate["loss"]["100"] == pytest.approx(max(losses), rel=1e-9)  # another order
        assert rate["replay"]["the worst"].endswith(" --table 'my t.csv'")
    assert 0 < sum(rate["counts"]["held_out"] for rate in facts["rates"]) < 3 * 70
    assert facts["held_out"] == ["4", "5"]
    out = main(*RUN, "--table", "my t.csv", "--name", "x", "--resume", "--dtype", "float64")[1]
    assert out.startswith("network 2-15-1, ")
    assert "\ntable my t.csv: 3 rows to learn, 2 held out; " in out
    assert "held-out rows right" in out


def test_where_no_row_is_held_out_nothing_is_said_of_one(main, tmp_path):
    drawn, draw = [], figures.ensemble

    def ensemble(rates, shares, *rest):
        drawn.append((shares, rest))
        return draw(rates, shares, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "ensemble", ensemble)
        facts, _ = run(main, "--table", "xor", "--name", "x")
    ((shares, (_, title)),) = drawn
    assert list(shares) == ["all rows right", "stuck", "still falling"]
    assert title == "table xor: 70 starts at each learning rate, 60 steps"
    assert facts["held_out"] == []
    for rate in facts["rates"]:
        assert not {"held_out"} & (rate["counts"].keys() | rate["shares"].keys())
    reader = EventAccumulator(str(tmp_path / "runs" / "x"))
    reader.Reload()
    assert reader.Tags()["histograms"] == ["log10_loss"]
    assert "share/held_out" not in reader.Tags()["scalars"]
    out = main(*RUN, "--table", "xor", "--name", "x", "--resume")[1]
    assert "4 rows to learn, 0 held out" in out
    assert "held-out" not in out


def test_another_table_or_another_content_of_it_is_not_resumed(main, tmp_path):
    (tmp_path / "t.csv").write_text(ROWS)
    run(main, "--table", "t.csv", "--name", "x")
    (tmp_path / "t.csv").write_text(ROWS.replace("-1,3", "-1,4"))
    for table, why in (("t.csv", "table-checksum "), ("xor", "table t.csv, not xor, and table-")):
        status, out, error = main(*RUN, "--table", table, "--name", "x", "--resume")
        assert (status, out) == (2, "")
        assert error.startswith(f"gdtorch: --resume: runs/x was begun with {why}")


# Nothing is lost.


def test_a_damaged_block_is_named_and_done_again(main, tmp_path):
    undisturbed, _ = run(main, "--name", "x")
    block = tmp_path / "runs" / "x" / "blocks" / "000000004.gdtorch"
    block.write_bytes(block.read_bytes()[:-1])
    resumed, error = run(main, "--name", "x", "--resume")
    assert resumed == undisturbed
    assert error == (
        "gdtorch: runs/x/blocks/000000004.gdtorch is damaged, or belongs to other settings or "
        "starts; its starts are trained anew\n"
    )
    assert run(main, "--name", "x", "--resume") == (undisturbed, "")


def test_damaged_settings_are_named_and_the_blocks_still_serve(main, tmp_path, monkeypatch):
    undisturbed, _ = run(main, "--name", "x")
    (tmp_path / "runs" / "x" / "settings.json").write_text("{")
    monkeypatch.setattr(running, "count", pytest.fail)
    resumed, error = run(main, "--name", "x", "--resume")
    assert resumed == undisturbed
    assert re.fullmatch(r"gdtorch: runs/x/settings\.json is damaged; .*\n", error)


def test_other_settings_are_refused_with_the_difference(main, tmp_path):
    run(main, "--name", "x")
    files = {f: f.read_bytes() for f in (tmp_path / "runs").rglob("*") if f.is_file()}
    options = ["--resume", "--name", "x", "--starts", 80, "--lr", 1, 3, "--momentum", 0.9]
    status, out, error = main("ensemble", "--steps", 60, *options)
    assert (status, out) == (2, "")
    assert error == (
        "gdtorch: --resume: runs/x was begun with starts 70, not 80, and lr 1.0 10.0 30.0, not "
        "1.0 3.0, and momentum 0.0, not 0.9; repeat the former, or choose another --name\n"
    )
    assert files == {f: f.read_bytes() for f in (tmp_path / "runs").rglob("*") if f.is_file()}


def test_resume_begins_what_there_is_not(main, tmp_path, monkeypatch):
    begun, _ = run(main, "--name", "x", "--resume")
    (tmp_path / "runs" / "y").mkdir()
    resumed, _ = run(main, "--name", "y", "--resume")
    assert begun["rates"] == resumed["rates"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # torchrun knows no --resume
    assert run(main, "--name", "x") == (begun, "")
    status, _, error = main("--quiet", "--name", "z", "--steps", 2)
    status, _, error = main(*RUN, "--name", "z", "--resume")
    assert status == 2
    assert "runs/z exists" in error


def test_overwrite_leaves_nothing_of_it(main, tmp_path):
    run(main, "--name", "x")
    assert main("--quiet", "--steps", 2, "--name", "x", "--overwrite") == (0, "", "")
    names = {path.name for path in (tmp_path / "runs" / "x").iterdir()}
    here = {name for name in names if "tfevents" not in name}
    assert here == {"post", "manual", "sgd", "curves.csv"}


def test_a_disk_that_fills_up_ends_the_run_and_it_goes_on(main, tmp_path, monkeypatch, undisturbed):
    left = iter(range(14))
    sync = os.fsync

    def full(handle):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    status, out, error = main(*RUN, "--name", "x")
    assert (status, out) == (3, "")
    assert error == (
        "gdtorch: cannot write to runs/x: No space left on device; what is done is kept, go on "
        "with: python train.py ensemble --starts 70 --steps 60 --lr 1 10 30 --name x --resume\n"
    )
    files = [path.name for path in (tmp_path / "runs" / "x" / "blocks").iterdir()]
    assert 0 < len(files) < 9
    assert not any("unfinished" in name for name in files)
    monkeypatch.setattr(os, "fsync", sync)
    assert run(main, "--name", "x", "--resume")[0]["rates"] == undisturbed["rates"]


@pytest.mark.parametrize("size", [10, 800])
def test_files_that_may_not_grow_end_the_run(main, size):
    """10 bytes: no event file; 800: no block file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        status, out, error = main(*RUN, "--name", "x", "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, out) == (3, "")
    assert re.fullmatch(r"gdtorch: cannot write to runs/x: File too large; .* --resume\n", error)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_an_interrupt_names_the_command_that_goes_on(
    main, tmp_path, monkeypatch, undisturbed, number, status
):
    write, left = running.write_tally, iter(range(3))

    def interrupted(*arguments):
        write(*arguments)
        if next(left, None) is None:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(running, "write_tally", interrupted)
    assert main(*RUN, "--overwrite", "--name", "x y")[0] == status
    status, out, error = main(*RUN)
    (folder,) = (f for f in (tmp_path / "runs").iterdir() if f.name[:2] == "20")
    assert out == ""
    assert error.startswith(f"gdtorch: interrupted ({number.name}); what is done is kept, ")
    go_on = shlex.split(error.partition(": python train.py ")[2])
    assert go_on[-3:] == ["--name", folder.name, "--resume"]
    assert len(list((folder / "blocks").iterdir())) == 1
    monkeypatch.setattr(running, "write_tally", write)
    _, out, _ = main(*go_on, "--json")
    assert json.loads(out)["rates"] == undisturbed["rates"]


# More than one process.


def torchrun(tmp_path, processes, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
         "--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
         str(ROOT / "train.py"), *map(str, options)],
        cwd=tmp_path, env=os.environ | EAGER, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def rank(number, parent):
    """The process of a rank: a child of torchrun's with that in its environment."""
    for status in Path("/proc").glob("[0-9]*/status"):
        if f"\nPPid:\t{parent}\n" in status.read_text():
            environment = status.with_name("environ").read_bytes().split(b"\0")
            if f"RANK={number}".encode() in environment:
                return int(status.parent.name)
    raise AssertionError(f"there is no rank {number}")


@pytest.mark.slow
def test_two_processes_of_which_one_is_terminated_then_three_then_one(main, tmp_path, monkeypatch):
    """SIGTERM to rank 1 ends both; three processes end what two began, with one process's bits."""
    options = ["ensemble", "--starts", 100_000, "--steps", 40, "--hidden", 2, "--lr", 1, 3, 10, 30]
    process = torchrun(tmp_path, 2, *options, "--name", "x")
    folder = tmp_path / "runs" / "x" / "blocks"
    deadline = time.monotonic() + 60
    while not any(folder.glob("0*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()
    os.kill(rank(1, process.pid), signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    # Rank 0 hears of it from torchrun, or, if it is done, from the connection.
    assert re.search(
        r"^gdtorch: (interrupted \(SIGTERM\)|another process has left.*); what is done is kept, "
        r"go on with: torchrun --nproc-per-node=2 train\.py ensemble .* --resume$",
        error,
        re.MULTILINE,
    )
    begun = len(list(folder.iterdir()))
    process = torchrun(tmp_path, 3, *options, "--name", "x", "--resume", "--quiet")
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert begun < len(list(folder.iterdir())) == 16
    monkeypatch.setattr(engine, "BLOCK", BLOCK)
    monkeypatch.setattr(blocks, "UNIT_BLOCKS", UNIT_BLOCKS)
    alone = json.loads(main(*options, "--json")[1])
    assert json.loads((folder.parent / "summary.json").read_text())["rates"] == alone["rates"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def two_machines(tmp_path, *commands):
    """A torchrun on each of two machines, each in a folder of its own: (status, error) of both."""
    meeting = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    machines = []
    for number, command in enumerate(commands):
        folder = tmp_path / str(number)
        folder.mkdir()
        torchrun = [sys.executable, "-m", "torch.distributed.run", *meeting]
        script = [f"--node-rank={number}", str(ROOT / "train.py"), *map(str, command)]
        with (folder / "error").open("w") as error:
            machines.append(subprocess.Popen([*torchrun, *script], cwd=folder, stderr=error))
    return [
        (machine.wait(), (tmp_path / str(number) / "error").read_text())
        for number, machine in enumerate(machines)
    ]


@pytest.mark.slow
def test_two_machines_share_no_file_and_give_the_bits_of_one_process(train, tmp_path):
    """Compiled, as a user runs it."""
    options = ["ensemble", "--starts", 100_000, "--steps", 20, "--lr", 1, 10, "--name", "x"]
    ended = two_machines(tmp_path, options, options)
    assert [status for status, _ in ended] == [0, 0], ended
    folders = [tmp_path / str(number) / "runs" / "x" for number in range(2)]
    assert [len(list((folder / "blocks").glob("0*"))) for folder in folders] == [4, 4]
    assert not (folders[1] / "summary.json").exists()
    alone = json.loads(train(*options, "--json").stdout)
    assert json.loads((folders[0] / "summary.json").read_text())["rates"] == alone["rates"]


@pytest.mark.slow
def test_machines_that_are_not_started_alike_are_refused(tmp_path):
    options = ["ensemble", "--starts", 100, "--name", "x", "--steps"]
    ended = two_machines(tmp_path, [*options, 20], [*options, 30])
    assert [status for status, _ in ended] == [1, 1]
    assert re.search(r"^gdtorch: rank 0 .*; start all alike$", ended[1][1], re.MULTILINE)


@pytest.mark.parametrize(
    ("processes", "order"),
    [
        pytest.param(1, -1, marks=pytest.mark.slow),
        (2, 1),
        (3, -1),
        pytest.param(5, 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("main")
def test_as_many_processes_as_you_like_count_the_same(
    tmp_path, monkeypatch, undisturbed, processes, order
):
    """Each rank in its own folder, its units in either order; the sums are what rank 0 reports."""
    monkeypatch.setattr(sys, "argv", ["train.py"])  # which the command to replay a start names
    facts = undisturbed["settings"]
    settings = blocks.Settings(**facts | {"lr": tuple(facts["lr"])})
    rows = load_table("post").to(torch.float32)

    engines = {lr: engine.Engine(rows.learned, 15, {"lr": lr}) for lr in settings.lr}
    ranks = []
    for rank in range(processes):
        mine = Processes("cpu", lambda: None)
        mine.rank, mine.count = rank, processes
        units = list(settings.units(rank, processes))[::order]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks.Settings, "units", lambda *_, units=units: units)
            bar = report.progress_bar(0, "", shown=False)
            ranks.append(
                running.train_units(
                    tmp_path / str(rank),
                    settings,
                    mine,
                    rows,
                    engines,
                    bar,
                    pytest.fail,
                )
            )
    totals = [reduce(add, tallies) for tallies in zip(*ranks[::order], strict=True)]
    facts = ensemble.facts(settings, tmp_path, totals, rows)
    assert facts["rates"] == undisturbed["rates"]


def test_threads_change_no_bit(main, undisturbed):
    torch.set_num_threads(2)
    try:
        assert run(main)[0]["rates"] == undisturbed["rates"]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"ensemble"}))
@pytest.mark.parametrize("variable", ["TORCHELASTIC_RUN_ID", "WORLD_SIZE"])
def test_all_other_commands_are_refused_under_torchrun(
    main, tmp_path, monkeypatch, command, variable
):
    monkeypatch.setenv(variable, "2")
    status, out, error = main(command)
    assert (status, out) == (2, "")
    assert error == f"gdtorch: {command} is for one process, and torchrun for ensemble alone\n"
    assert not any(tmp_path.iterdir())


# The rest.


def test_without_a_compiler_it_says_that_it_is_slower(main, monkeypatch):
    def without(*arguments, **options):
        made = eager(*arguments, **options)
        made.reason = "no compiler"
        return made

    eager = engine.Engine
    monkeypatch.setattr(engine, "Engine", without)
    assert run(main)[1] == (
        "gdtorch: steps are not compiled, and take about five times as long: no compiler\n"
    )


class Terminal(io.StringIO):
    """Standard error, on a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_it_says_that_it_compiles(main, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, _, error = main("ensemble", "--starts", 1, "--steps", 1)
    assert error.startswith("gdtorch: compiling the step: ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main("ensemble", "--starts", 1, "--steps", 1, "--quiet")[2] == ""


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_is_shown_on_a_terminal_if_it_is_asked_for(monkeypatch, shown):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(report, "SLOW_SECONDS", 0)
    with report.progress_bar(10**9, " networks × steps", shown=shown) as bar:
        bar.update(10**8)
    bars = re.findall(r"10%.*100M/1\.00G \[.*<.*networks × steps/s\]", sys.stderr.getvalue())
    assert len(bars) == shown


@pytest.mark.parametrize(("rank", "quiet"), [(0, False), (1, False), (0, True)])
def test_rank_0_alone_shows_a_bar(main, monkeypatch, rank, quiet):
    asked = []

    def bar(total, unit, *, shown):
        asked.append((total == 3 * 70 * 60, shown))
        return report.progress_bar(total, unit, shown=False)

    class One(Processes):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.rank = rank

    monkeypatch.setattr(ensemble, "progress_bar", bar)
    monkeypatch.setattr(among, "Processes", One)
    if rank:  # which is told by rank 0 where the run's folder is
        monkeypatch.setattr(ensemble, "_announced", lambda *_: Path("runs", "x"))
    assert main(*RUN, *["--quiet"] * quiet)[0] == 0
    assert asked == [(rank == 0, not (rank or quiet))]


def test_the_bar_is_full_when_all_is_done_and_what_was_there_is_no_part_of_the_rate(main, tmp_path):
    facts = run(main, "--name", "x")[0]["settings"]
    settings = blocks.Settings(**facts | {"lr": tuple(facts["lr"])})
    rows = load_table("post").to(torch.float32)
    processes = Processes("cpu", lambda: None)
    processes.count = 2

    def go():
        done = []
        bar = SimpleNamespace(disable=False, initial=0, n=0, update=done.append)
        running.train_units(
            tmp_path, settings, processes, rows,
            {lr: engine.Engine(rows.learned, 15, {"lr": lr}) for lr in settings.lr},
            bar, pytest.fail,
        )  # fmt: skip
        return sum(done), bar.n, bar.initial

    share = sum(unit.starts for unit in settings.units(0, 2))
    assert go() == (2 * share * 60, 0, 0)
    assert go() == (0, 2 * share * 60, 2 * share * 60)


BAD = {
    "": "required: --starts",
    "--starts 0": "--starts: 0 is not 1 or more",
    "--starts 9 --lr": "--lr: expected at least one argument",
    "--starts 9 --lr 0": "--lr: with 0 no start moves; leave it out",
    "--starts 9 --lr 1 2 1.0": "--lr names 1 twice; name it once",
    "--starts 9 --lr 1 --lr 1": "--lr names 1 twice; name it once",
    "--starts 9 --lr -1": "--lr: -1 is less than 0",
    "--starts 9 --lr 1 1e39": "--lr is too large for float32",
    "--starts 9 --nesterov": "--nesterov needs a --momentum above 0",
    "--starts 9 --hidden 10001": "--hidden: 10001 is not between 1 and 10000",
    "--starts 9 --first-start -1": "--first-start: -1 is not 0 or more",
    "--starts 9 --device gpu": "--device gpu cannot be used here",
    "--starts 9 --resume": "--resume needs the --name of the run",
    "--starts 9 --overwrite": "--overwrite needs the --name of the run",
    "--starts 9 --name x --resume --overwrite": "--resume goes on with a run, --overwrite",
    "--starts 9 --name a/b --resume": "is not a folder name",
    "--starts 9 --table and": "no table and: it is none of post, xor, parity3 and no such file",
    "--starts 9 --start 3": "unknown argument --start; did you mean --starts?",
}


def test_what_diverges_is_counted_and_drawn(main, monkeypatch):
    monkeypatch.setattr(figures, "png", DRAWN)
    status, out, error = main("ensemble", "--starts", 20, "--steps", 50, "--weight-decay", 1e30)
    assert (status, error) == (0, "")
    assert re.search(r"^1 +0\.00 % .* 100\.00 %", out, re.MULTILINE)


def check_shares(main, monkeypatch, starts, steps, rates, columns):
    """Over the first starts of its 100,000, to three standard errors and a half."""
    page = (ROOT / "docs" / "questions.md").read_text()
    share = r"([\d.]+) % \|"
    rows = re.findall(rf"^\| ([\d.]+) \|{f' {share}' * 6}", page, re.MULTILINE)
    shown = {float(lr): [float(share) / 100 for share in shares] for lr, *shares in rows}
    assert list(shown) == [0.1, 0.3, 1, 3, 10, 30]
    monkeypatch.setattr(engine, "BLOCK", starts)
    options = ["--starts", starts, "--steps", steps, "--lr", *rates, "--json"]
    found = json.loads(main("ensemble", *options)[1])["rates"]
    assert [rate["lr"] for rate in found] == rates
    for rate in found:
        expected = shown[rate["lr"]][columns]
        for kind, share in zip(("learned", "held_out", "stuck"), expected, strict=True):
            error = np.sqrt(max(share * (1 - share), 0.001) / starts)
            assert abs(rate["shares"][kind] - share) < 3.5 * error


@pytest.mark.slow
def test_the_shares_in_the_documentation(main, monkeypatch):
    check_shares(main, monkeypatch, 1000, 1000, [3, 10, 30], slice(0, 3))


@pytest.mark.slow
def test_the_shares_in_the_documentation_after_ten_times_the_steps(main, monkeypatch):
    check_shares(main, monkeypatch, 1000, 10_000, [0.1, 0.3, 1, 3, 10, 30], slice(3, 6))
