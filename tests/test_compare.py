"""`python train.py`, as a user runs it: what it prints, what it refuses, how it ends early."""

import csv
import fcntl
import json
import os
import pickle
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gdtorch import SigmoidNet
from gdtorch.cli import COMMANDS

TRAIN = [sys.executable, str(ROOT / "train.py")]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def losses(folder):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return reader.Scalars("loss")


def test_the_default_run_prints_a_table_and_the_verdicts(main, tmp_path):
    status, out, error = main()
    assert (status, error) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    lines = out.splitlines()
    assert lines[0] == "network 3-15-1, 60 weights, float64, from start 0 of seed 0"
    rows = {line.split()[0]: line.split()[1:] for line in lines[4:7]}
    for name, (loss, *right, held_out) in rows.items():
        (state,) = (folder / name).glob("final.pt")
        net = SigmoidNet().double()
        net.load_state_dict(torch.load(state, weights_only=True))
        assert right == ["7", "of", "7"]
        assert held_out == f"{net(torch.ones(1, 3).double()).item():.3f}"
        assert loss == f"{losses(folder / name)[-1].value:.6f}"
    assert set(rows) == {"post", "manual", "sgd"}
    assert "manual = sgd: the same bits in all 60 weights after each of 1000 steps" in lines
    assert re.search(
        r"^post ≠ sgd: they part at step 1 in syn0 by up to \d\.\de-02, "
        r"because post hands the gradient down by the updated syn1$",
        out,
        re.MULTILINE,
    )
    assert lines[-2].endswith(f"tensorboard --logdir runs/{folder.name}")
    assert lines[-1].endswith("http://localhost:6006/#custom_scalars&_smoothingWeight=0")


def test_json_holds_the_same_facts(main, tmp_path):
    status, out, error = main("--json", "--name", "x", "--steps", 20)
    facts = json.loads(out)
    assert (status, error) == (0, "")
    assert facts["status"] == 0
    assert facts["run"] == "runs/x"
    assert facts["settings"]["lr"] == 1.0
    assert facts["comparisons"]["manual"]["identical"] is True
    assert facts["comparisons"]["manual"]["first_difference"] is None
    first = facts["comparisons"]["post"]["first_difference"]
    assert (first["step"], first["weight"]) == (1, "syn0")
    assert first["absolute"] == abs(first["mine"] - first["theirs"])
    assert list(facts["trainers"]["post"]["held_out"]) == ["111"]
    logged = losses(tmp_path / "runs" / "x" / "sgd")
    assert logged[-1].step == facts["steps"] == 20
    assert logged[-1].value == pytest.approx(facts["trainers"]["sgd"]["loss"], rel=1e-7)


def test_curves_hold_what_tensorboard_shows(main, tmp_path):
    options = ("--steps", 25, "--log-every", 10, "--figure")
    status, out, _ = main("--name", "x", *options)
    folder = tmp_path / "runs" / "x"
    assert status == 0
    assert f"Drawn:      {Path('runs', 'x', 'curves.png')}\n" in out
    with (folder / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["0", "10", "20", "25"]
    for trainer in ("post", "manual", "sgd"):
        logged = [event.value for event in losses(folder / trainer)]
        assert [np.float32(line[f"{trainer}/loss"]) for line in lines] == logged
    assert {line["manual/difference"] for line in lines} == {"0.0"}
    assert float(lines[1]["post/difference"]) > 0
    assert imread(folder / "curves.png").shape[1] == 1400
    reader = EventAccumulator(str(folder))
    reader.Reload()
    assert reader.Tags()["images"] == ["curves"]


def test_quiet_prints_nothing(main):
    assert main("--quiet", "--steps", 2) == (0, "", "")


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits(train, tmp_path):
    """Twice at each number of threads; on the post's table, at either number."""
    finals = []
    for name, threads in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        result = train("--steps", 100, "--name", name, env=environment)
        assert result.returncode == 0
        folder = tmp_path / "runs" / name
        finals.append([torch.load(folder / t / "final.pt") for t in ("post", "manual", "sgd")])
    for other in finals[1:]:
        for mine, theirs in zip(finals[0], other, strict=True):
            assert all(torch.equal(mine[weight], theirs[weight]) for weight in mine)


def test_post_is_left_out_where_its_loop_lacks_the_option(main, tmp_path):
    status, out, _ = main("--steps", 5, "--momentum", 0.5, "--maximize", "--name", "x")
    assert status == 0
    assert "post is left out: its loop has no --momentum, --maximize" in out
    assert not (tmp_path / "runs" / "x" / "post").exists()


@pytest.mark.parametrize(
    ("options", "heading"),
    [
        ("--lr 0.5", "5 steps of descent at lr 0.5"),
        ("--lr 0.5 --maximize", "5 steps of ascent at lr 0.5"),
        (
            "--descent stochastic",
            "5 steps of stochastic descent, one row a step, all rows in each epoch, at lr 1",
        ),
        ("--descent steepest", "5 steps of steepest descent, each as long as lowers the loss most"),
        ("--descent steepest --maximize", "steepest ascent, each as long as raises the loss most"),
    ],
)
def test_the_heading_says_which_descent(main, options, heading):
    status, out, _ = main("--steps", 5, "--trainers", "manual", "sgd", *options.split())
    assert status == 0
    assert heading in out.splitlines()[1]
    assert "manual = sgd: the same bits in all 60 weights after each of 5 steps" in out


@pytest.mark.parametrize("descent", ["stochastic", "steepest"])
def test_post_is_left_out_of_all_but_batch_descent(main, descent):
    status, out, _ = main("--steps", 5, "--descent", descent)
    assert status == 0
    assert f"post is left out: its loop has no --descent {descent}" in out


def test_the_shuffles_have_a_seed_of_their_own(main, tmp_path):
    """From the same weights, another seed sees other rows; the same one sees the same."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["--descent", "stochastic", "--shuffle-seed", seed, "--name", name]
        status, out, _ = main("--json", "--steps", 9, *options)
        assert status == 0
        assert json.loads(out)["settings"]["shuffle_seed"] == seed
    initial, final = (
        [torch.load(tmp_path / "runs" / n / "sgd" / f"{when}.pt")["syn0"] for n in "abc"]
        for when in ("initial", "final")
    )
    assert torch.equal(initial[0], initial[2])
    assert torch.equal(final[0], final[1])
    assert not torch.equal(final[0], final[2])


def test_the_seed_is_that_of_the_weights_alone(main, tmp_path):
    """So the rows come in the same order: from saved weights it makes no difference."""
    for name, seed in (("a", 1), ("b", 2)):
        options = ["--descent", "stochastic", "--seed", seed, "--name", name]
        assert main("--quiet", "--steps", 9, *options) == (0, "", "")
    options = ["--descent", "stochastic", "--init", tmp_path / "runs/b/sgd/initial.pt"]
    assert main("--quiet", "--steps", 9, *options, "--name", "c") == (0, "", "")
    a, b, c = (torch.load(tmp_path / "runs" / n / "sgd" / "final.pt")["syn0"] for n in "abc")
    assert not torch.equal(a, b)
    assert torch.equal(b, c)


@pytest.mark.parametrize("options", ["--lr 0", "--lr 1e-300", "--hidden 100000"])
def test_where_no_weight_moved_it_says_so(main, tmp_path, options):
    status, out, _ = main("--steps", 3, "--name", "x", *options.split())
    verdict = (
        "manual = sgd, but no weight moved in either: each of 3 steps was too short to change one"
    )
    assert status == 0
    assert verdict in out.splitlines()
    assert "the same bits" not in out
    reader = EventAccumulator(str(tmp_path / "runs" / "x"))
    reader.Reload()
    (text,) = reader.Tensors("summary/text_summary")[0].tensor_proto.string_val
    assert verdict in text.decode()
    facts = json.loads(main("--json", "--steps", 3, *options.split())[1])
    assert facts["comparisons"]["manual"]["verdict"] == verdict
    assert facts["comparisons"]["manual"]["identical"] is True


@pytest.mark.parametrize(("reference", "status"), [("sgd", 1), ("post", 0)])
def test_manual_has_to_hold_the_bits_of_torch_optim_and_of_no_other(
    main, monkeypatch, reference, status
):
    right = SigmoidNet.gradient
    monkeypatch.setattr(
        SigmoidNet, "gradient", lambda net, rows: {n: g / 2 for n, g in right(net, rows).items()}
    )
    ended, out, error = main("--json", "--steps", 3, "--trainers", "manual", reference)
    facts = json.loads(out)
    assert (ended, error, facts["status"]) == (status, "", status)
    assert not facts["comparisons"]["manual"]["identical"]
    if reference == "sgd":
        told = "because manual has 0.5 times the gradient"
        assert facts["comparisons"]["manual"]["verdict"].endswith(told)


def test_trainers_named_one_by_one_all_run(main):
    _, out, _ = main("--json", "--steps", 1, "--trainers", "post", "--trainers", "sgd")
    assert set(json.loads(out)["trainers"]) == {"post", "sgd"}


def test_json_has_no_learning_rate_where_there_is_none(main):
    _, out, _ = main("--json", "--steps", 2, "--descent", "steepest")
    assert json.loads(out)["settings"]["lr"] is None


def test_a_step_too_small_to_tell_the_order_is_called_rounding(main):
    _, out, _ = main(
        "--steps", 200, "--lr", 1e-8, "--start", 0, "--json", "--trainers", "post", "sgd"
    )
    verdict = json.loads(out)["comparisons"]["post"]["verdict"]
    assert verdict.endswith(", because each rounds in its own order")
    _, out, _ = main("--steps", 5, "--lr", 0, "--json")
    assert json.loads(out)["comparisons"]["post"]["identical"] is True


def test_ulps_beyond_counting_are_not_counted(main):
    _, out, _ = main("--steps", 3, "--lr", 1e300)
    assert "they part at step 1 in syn0 by up to inf (at [0, 0])\n" in out


def test_saved_weights_take_the_place_of_a_start(main, tmp_path):
    torch.save(SigmoidNet(start=9).double().state_dict(), tmp_path / "w.pt")
    main("--quiet", "--steps", 7, "--init", "w.pt", "--name", "a")
    main("--quiet", "--steps", 7, "--start", 9, "--name", "b")
    a, b = (torch.load(tmp_path / "runs" / n / "sgd" / "final.pt") for n in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_goes_on_from_its_final_weights(main, tmp_path):
    main("--quiet", "--steps", 10, "--name", "a")
    main("--quiet", "--steps", 5, "--init", tmp_path / "runs/a/manual/final.pt", "--name", "b")
    main("--quiet", "--steps", 15, "--name", "c")
    b, c = (torch.load(tmp_path / "runs" / n / "manual" / "final.pt") for n in "bc")
    assert all(torch.equal(b[name], c[name]) for name in b)


def test_many_rows_held_out_are_counted(main, tmp_path):
    rows = "".join(f"{i / 10},{i % 2},{int(i > 3)}\n" for i in range(10))
    (tmp_path / "t.csv").write_text(f"x,y,held_out\n{rows}")
    _, out, _ = main("--steps", 2, "--table", "t.csv")
    assert re.search(r"^sgd .* [0-6] of 6$", out, re.MULTILINE)
    assert "held out right" in out


# Bad input: one line, exit status 2, nothing left behind.

BAD = {
    "--steps -1": "--steps: -1 is not 1 or more",
    "--steps 0": "--steps: 0 is not 1 or more",
    "--steps 1.5": "--steps: '1.5' is not a whole number",
    "--steps 99999999999999999999": "--steps: 99999999999999999999 is too large",
    "--lr -1": "--lr: -1 is less than 0",
    "--lr -1e-3": "--lr: -0.001 is less than 0",
    "--lr nan": "--lr: 'nan' is not a finite number",
    "--lr inf": "--lr: 'inf' is not a finite number",
    "--lr -inf": "--lr: '-inf' is not a finite number",
    "--lr fast": "--lr: 'fast' is not a number",
    "--lr 1e39 --dtype float32": "--lr is too large for float32",
    "--hidden 0": "--hidden: 0 is not between 1 and",
    "--hidden 99999999999": "--hidden: 99999999999 is not between 1 and",
    "--seed -1": "--seed: -1 is not 0 or more",
    "--start -1": "--start: -1 is not 0 or more",
    "--curvature 0": "--curvature: 0 is not 1 or more",
    "--log-every 0": "--log-every: 0 is not 1 or more",
    "--momentum -0.5": "--momentum: -0.5 is less than 0",
    "--weight-decay nan": "--weight-decay: 'nan' is not a finite number",
    "--dampening inf": "--dampening: 'inf' is not a finite number",
    "--nesterov": "--nesterov needs a --momentum above 0",
    "--nesterov --momentum 0.9 --dampening 0.1": "and no --dampening",
    "--optimizer": "--optimizer: expected one argument",
    "--optimizer Adm": "--optimizer: no optimizer Adm; the nearest is Adam",
    "--optimizer LBFGS": "LBFGS is in torch.optim, but not here; here are SGD, Adam",
    "--optimizer Muon(lr=1)": "Muon is in torch.optim, but not here",
    "--optimizer Adam(lr=1": "'Adam(lr=1' is no optimizer; write it as Adam(lr=0.01",
    "--optimizer torch.optim.Adam()": "is no optimizer; write it as",
    "--optimizer Adam(0.01)": "is no optimizer; write it as",
    "--optimizer Adam(lr=1/3)": "lr: write a literal, not an expression",
    "--optimizer Adam(lr=print())": "lr: write a literal, not an expression",
    "--optimizer Adam(beta=(0.9,0.99))": "no option beta; the nearest is betas",
    "--optimizer Adam(fused=True)": "fused changes how Adam computes",
    "--optimizer Adam(eps_in_root=True)": "Adam has no option eps_in_root; the nearest is",
    "--optimizer Adam(lr=-1)": "--optimizer: Invalid learning rate: -1; see --help",
    "--optimizer Adam(betas=(0.9,1.0))": "Invalid beta parameter at index 1: 1.0",
    "--optimizer SGD(nesterov=True)": "Nesterov momentum requires a momentum and zero dampening",
    "--optimizer Rprop(step_sizes=(1e-6,1e999))": "--optimizer: step_sizes is not finite",
    "--optimizer Adam(eps=1e39) --dtype float32": "--optimizer: eps is too large for float32",
    "--optimizer Rprop(step_sizes=(0,1e39)) --dtype float32": "step_sizes is too large for",
    "--optimizer SGD(dampening=-1e39) --dtype float32": "dampening is too large for float32",
    "--optimizer Adam --lr 0": "in its parentheses, as in Adam(lr=0.01); leave out --lr",
    "--optimizer SGD --momentum 0.9 --nesterov": "leave out --momentum, --nesterov",
    "--optimizer RMSprop --weight-decay 0.1": "leave out --weight-decay",
    "--optimizer Adam --compile": "--compile is for SGD alone; leave out --optimizer Adam",
    "--optimizer Adam --descent steepest": "gradient alone; leave out --optimizer Adam",
    "--optimizer SGD(momentum=0.9) --descent steepest": "alone; leave out --momentum",
    "--optimizer SGD(lr=1) --descent steepest": "finds its own step sizes; leave out --lr",
    "--optimizer Adam --trainers post adam": "its loop has no --optimizer Adam; leave out",
    "--optimizer Adam --trainers sgd": "unknown trainer sgd; there is post, manual, adam",
    "--optimizer Adam --trainers Adam": "unknown trainer Adam; did you mean adam?",
    "--descent fastest": "--descent: invalid choice: 'fastest' (choose from 'batch', 'stochastic'",
    "--descent steepest --lr 1": "--descent steepest finds its own step sizes; leave out --lr",
    "--descent steepest --momentum 0.9": "along the gradient alone; leave out --momentum",
    "--descent steepest --dampening 0.1": "along the gradient alone; leave out --dampening",
    "--descent steepest --nesterov --momentum 0.9": "leave out --momentum",
    "--descent steepest --weight-decay 0.1": "without a penalty; leave out --weight-decay",
    "--trainers post sgd --descent steepest": "post cannot run: its loop has no --descent steepest",
    "--dtype float16": "--dtype: invalid choice: 'float16'",
    "--device gpu": "--device gpu cannot be used here",
    "--device cuda:99": "--device cuda:99 cannot be used here",
    "--device meta": "--device meta cannot be used here",
    "--table pst": "no table pst: it is none of post, xor, parity3 and no such file",
    "--table .": "Is a directory",
    "--trainers sdg": "--trainers: unknown trainer sdg; did you mean sgd?",
    "--trainers adam": "there is post, manual, sgd",
    "--trainers sgd sgd": "sgd is named twice",
    "--trainers sgd --trainers sgd": "sgd is named twice",
    "--trainers": "expected at least one argument",
    "--trainers post sgd --momentum 0.9": "post cannot run: its loop has no --momentum",
    "--init missing.pt": "No such file",
    "--init . ": "--init '.': Is a directory",
    "--init w.pt --start 3": "--init takes the place of --seed and --start",
    "--init w.pt --descent stochastic --seed 3": "--init takes the place of --seed and --start",
    "--curvature 2000 --steps 100": "--curvature 2000 is more than --steps 100",
    "--steps 5 quartic": "the command comes first: put quartic before all options",
    "--overwrite": "--overwrite needs the --name",
    "--name a/b": "is not a folder name",
    "--momentun 0.9": "unknown argument --momentun; did you mean --momentum?",
    "--star 3": "unknown argument --star; did you mean --start?",
    "--zzz": "unknown argument --zzz; see --help",
    "--version": "unknown argument --version; see --help",
    "compra": "unknown command compra; did you mean compare?",
    "xyz": "unknown command xyz; there is compare",
    "--logdir file": "--logdir 'file' is not a folder",
    "--logdir file/runs": "--logdir 'file/runs' is not a folder",
}


@pytest.mark.parametrize("text", [b"", b"a,y\n0\n", b"a,y\n0,2\n", bytes(range(256))])
def test_a_bad_csv_likewise(main, tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text)
    status, out, error = main("--table", "t.csv")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gdtorch: table t\.csv: .*\n", error)
    assert names(tmp_path) == ["t.csv"]


class RunsCode:
    """Unpickled without care, this makes a file."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


STATES = {
    "a pickle that runs code": RunsCode(),
    "no dict": [1, 2, 3],
    "one weight only": {"syn0": torch.zeros(3, 15)},
    "one too many": {"syn0": torch.zeros(3, 15), "syn1": torch.zeros(15, 1), "b": torch.zeros(1)},
    "another shape": SigmoidNet(hidden=8).state_dict(),
    "no tensors": {"syn0": 1, "syn1": 2},
    "sparse": {"syn0": torch.zeros(3, 15).to_sparse(), "syn1": torch.zeros(15, 1)},
    "meta": {"syn0": torch.zeros(3, 15, device="meta"), "syn1": torch.zeros(15, 1)},
    "eight bits": {
        "syn0": torch.zeros(3, 15).to(torch.float8_e4m3fn),
        "syn1": torch.zeros(15, 1),
    },
    "integers": {"syn0": torch.zeros(3, 15, dtype=int), "syn1": torch.zeros(15, 1)},
    "nan": {"syn0": torch.full((3, 15), torch.nan), "syn1": torch.zeros(15, 1)},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_file_that_holds_no_weights_of_this_shape_is_refused(main, tmp_path, kind):
    torch.save(STATES[kind], tmp_path / "w.pt")
    status, out, error = main("--init", "w.pt")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gdtorch: --init w\.pt: .*\n", error)
    if kind == "another shape":
        assert "(3, 8)" in error
        assert "--hidden" in error
    assert names(tmp_path) == ["w.pt"]


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps(RunsCode())])
def test_a_file_that_is_no_torch_file_is_refused_and_not_run(main, tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    status, out, error = main("--init", "w.pt")
    assert (status, out) == (2, "")
    assert "without running code" in error
    assert names(tmp_path) == ["w.pt"]


def test_numbers_too_large_for_float32_are_refused(main, tmp_path):
    torch.save(
        {
            n: torch.full_like(w, 1e300, dtype=torch.float64)
            for n, w in SigmoidNet().state_dict().items()
        },
        tmp_path / "w.pt",
    )
    (tmp_path / "t.csv").write_text("x,y\n1e39,1\n")
    for options in (["--init", "w.pt"], ["--table", "t.csv"]):
        status, _, error = main("--dtype", "float32", *options)
        assert status == 2
        assert "float32" in error
        assert not (tmp_path / "runs").exists()


def test_a_log_directory_that_cannot_be_written_is_refused(main, tmp_path):
    if os.geteuid() == 0:  # root may write anywhere but here
        logdir = "/proc/gdtorch"
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        logdir = "locked"
    status, out, error = main("--logdir", logdir)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"gdtorch: --logdir {logdir}: .*; choose another\n", error)


def test_an_existing_name_is_refused_until_overwrite(main, tmp_path):
    assert main("--quiet", "--steps", 3, "--name", "x") == (0, "", "")
    before = sorted((tmp_path / "runs").rglob("*"))
    status, _, error = main("--steps", 4, "--name", "x")
    assert status == 2
    assert "runs/x exists; choose another --name, or replace it with --overwrite" in error
    status, _, error = main("--name", "x", "--overwrite", "--table", "missing.csv")
    assert status == 2
    assert sorted((tmp_path / "runs").rglob("*")) == before
    assert main("--quiet", "--steps", 4, "--name", "x", "--overwrite") == (0, "", "")
    assert losses(tmp_path / "runs" / "x" / "sgd")[-1].step == 4


# Ending early.


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_an_interrupt_before_the_first_step_leaves_nothing(tmp_path, number, status):
    """Also in the midst of an import, which may swallow an exception."""
    (tmp_path / "torch.py").write_text(
        f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nfinally:\n    raise ImportError"
    )
    result = subprocess.run(
        TRAIN,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr == f"gdtorch: interrupted ({number.name})\n"
    assert names(tmp_path) == ["torch.py"]


@pytest.mark.slow
def test_standard_output_that_is_closed_or_full(tmp_path):
    def run(redirect):
        command = f"{' '.join(TRAIN)} --steps 2 {redirect}"
        return subprocess.run(
            command, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
        )

    closed, full = run(">&-"), run(">/dev/full")
    assert (closed.returncode, closed.stderr) == (0, "")
    assert full.returncode == 3
    assert full.stderr == "gdtorch: cannot write the output: No space left on device\n"


def test_a_loss_that_is_not_finite_ends_the_run(main, tmp_path):
    options = ["--weight-decay", 1e6, "--name", "x", "--log-every", 7]
    status, out, error = main("--lr", 1, *options)
    assert status == 3
    match = re.fullmatch(
        r"gdtorch: the loss of manual and sgd is nan after step (\d+); .*"
        r"all until then is in runs/x\n",
        error,
    )
    step = int(match[1])
    assert f"{step} steps" in out
    events = losses(tmp_path / "runs" / "x" / "sgd")
    assert [e.step for e in events] == [*range(0, step, 7), step]
    assert events[-1].value != events[-1].value
    assert all(e.value == e.value for e in events[:-1])


def test_json_has_null_for_what_is_not_finite(main):
    status, out, _ = main("--json", "--lr", 1, "--weight-decay", 1e6)
    facts = json.loads(out, parse_constant=pytest.fail)
    assert facts["status"] == status == 3
    assert facts["trainers"]["sgd"]["loss"] is None
    assert "nan" in facts["reason"]


def on_terminal(tmp_path, *options):
    """Run with standard error on a terminal; what the terminal showed."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [*TRAIN, *options], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=end
    )
    os.close(end)
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        shown += chunk
        if b"step/s" in shown:
            process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    os.close(terminal)
    return shown.decode()


@pytest.mark.slow
def test_a_long_run_shows_a_bar_on_a_terminal(tmp_path):
    shown = on_terminal(tmp_path, "--steps", "100000", "--log-every", "1000")
    assert "step/s" in shown
    assert "gdtorch: ends after this step; once more ends it at once" in shown


@pytest.mark.slow
def test_a_short_run_shows_none(tmp_path):
    assert on_terminal(tmp_path, "--steps", "10") == ""


# The front door.


def test_help_names_every_option_its_default_and_an_example(main, capsys):
    with pytest.raises(SystemExit) as end:
        main("--help")
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "None" not in out
    for option, default in {
        "--steps": "1000", "--lr": "1.0", "--seed": "0", "--start": "0", "--hidden": "15",
        "--dtype": "float64", "--device": "cpu", "--table": "post", "--momentum": "0.0",
        "--dampening": "0.0", "--weight-decay": "0.0", "--logdir": "runs", "--log-every": "1",
    }.items():  # fmt: skip
        assert re.search(rf"{option} .*?\(default: {default}\)", out, re.DOTALL), option
    for option in ("--init", "--nesterov", "--maximize", "--trainers", "--name", "--overwrite",
                   "--json", "--quiet"):  # fmt: skip
        assert option in out
    assert "python train.py --lr 0.5 --momentum 0.9 --nesterov" in out


def test_every_command_is_named_in_help(main, capsys):
    with pytest.raises(SystemExit):
        main("--help")
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_a_reader_that_has_left_is_no_error(main, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:  # as it closes, it writes what is left
        monkeypatch.setattr(sys, "stdout", out)
        status, _, error = main("--steps", 3)
    assert (status, error) == (0, "")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = " ".join(TRAIN)
    result = subprocess.run(
        f"set -o pipefail; {command} --steps 3 | true",
        shell=True,
        executable="/bin/bash",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_without_utf8_the_program_still_prints(train):
    result = train("--steps", 3, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "manual = sgd: the same bits" in result.stdout


def test_the_installed_program_is_the_same(tmp_path):
    program = shutil.which("gdtorch", path=Path(sys.executable).parent)
    assert program, "install gdtorch first: pip install -e '.[test]'"
    result = subprocess.run(
        [program, "--steps", "2"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "the same bits in all 60 weights after each of 2 steps" in result.stdout


def test_the_package_is_the_same_program(tmp_path):
    command = [sys.executable, "-m", "gdtorch", "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: python -m gdtorch [-h]")
