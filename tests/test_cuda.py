"""What takes a GPU. Without one nothing here is collected: see conftest.py, and CONTRIBUTING.md."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_engine import OPTIONS, SIZE, assert_as_manual, bits, run
from test_optimizers import EACH_DTYPE, EACH_RULE, POST, assert_same_bits, table_of
from torch import nn
from torch.nn import functional

from gdtorch import SigmoidNet, initial_weights, lockstep
from gdtorch.ensemble import engine as engines
from gdtorch.ensemble.engine import Engine

DEVICES = "cpu", "cuda"


# --- by hand and by torch.optim ----------------------------------------------------------------


@EACH_DTYPE
@EACH_RULE
def test_the_same_bits_as_torch_optim(name, dtype):
    rows = POST.to(dtype, "cuda")
    assert_same_bits(name, SigmoidNet().to("cuda", dtype), rows, 150)
    for options in table_of(name):
        assert_same_bits(name, SigmoidNet(start=1).to("cuda", dtype), rows, 20, **options)


@EACH_RULE
def test_compare_says_so(name, main):
    options = ["--device", "cuda", "--optimizer", name, "--steps", "50", "--curvature", "25"]
    status, printed, _ = main(*options)
    assert status == 0
    assert f"manual = {name.lower()}: the same bits in all 60 weights" in printed


# --- lockstep of two devices -------------------------------------------------------------------


def dense(*between):
    return nn.Sequential(nn.Linear(20, 32), nn.Tanh(), *between, nn.Linear(32, 3))


def convolution():
    return nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3))


def adam(**options):
    return lambda parameters: torch.optim.Adam(parameters, **{"lr": 0.01, **options})


def sgd(**options):
    return lambda parameters: torch.optim.SGD(parameters, **{"lr": 0.1, "momentum": 0.9, **options})


def program(device, optimizer, make=dense, dtype=None, tf32=None):
    """A function that trains a network of 64 rows there, in autocast of a dtype if one is given."""

    def train():
        torch.manual_seed(0)
        net = make().to(device)
        rows = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))
        rows = (rows.view(64, 1, 4, 5) if make is convolution else rows).to(device)
        targets = torch.randn(64, 3, generator=torch.Generator().manual_seed(2)).to(device)
        steps, scaler = optimizer(net.parameters()), torch.amp.GradScaler(device)
        if tf32 is not None:
            torch.backends.cuda.matmul.fp32_precision = "tf32" if tf32 else "ieee"
        while True:
            steps.zero_grad()
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                loss = functional.mse_loss(net(rows), targets)
            if dtype is None:
                loss.backward()
                steps.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(steps)
                scaler.update()

    return train


@pytest.fixture(autouse=True)
def switches():
    """As PyTorch has them: TF32 for convolutions, not for matrices."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matrices.fp32_precision, convolutions.fp32_precision
    yield
    matrices.fp32_precision, convolutions.fp32_precision = before


@pytest.mark.parametrize(("mine", "theirs"), [*itertools.product(DEVICES, repeat=2)])
def test_two_devices_round_otherwise_and_agree(mine, theirs):
    report = lockstep(program(mine, adam()), program(theirs, adam()), 40)
    assert report.agree, report
    assert mine != theirs or report.identical


@pytest.mark.parametrize(
    ("mine", "theirs", "cause"),
    [
        (sgd(momentum=0.8), sgd(), "momentum"),
        (adam(eps=1e-3), adam(), "eps"),
        (adam(amsgrad=True), adam(), "amsgrad"),
        (adam(eps=1e-3), adam(fused=True), "eps"),
        (adam(eps=1e-3), adam(capturable=True), "eps"),
        (adam(), adam(fused=True), "rounding"),
        (adam(), adam(capturable=True), "rounding"),
        (adam(), adam(foreach=True), "rounding"),
    ],
)
def test_across_devices_the_cause_is_named(mine, theirs, cause):
    report = lockstep(program("cpu", mine), program("cuda", theirs), 40)
    assert report.cause == cause, report


@pytest.mark.parametrize("make", [dense, convolution])
def test_tf32_alone_is_named_as_the_precision(make):
    matrices = make is dense  # convolutions take it by themselves
    report = lockstep(program("cpu", sgd(), make), program("cuda", sgd(), make, tf32=matrices), 40)
    assert (report.cause, report.agree) == ("precision", False)
    assert "theirs in float32, with products in TF32" in report.text


@pytest.mark.parametrize("make", [dense, convolution])
def test_tf32_hides_no_mistake(make):
    mine = program("cpu", sgd(momentum=0.85), make)
    report = lockstep(mine, program("cuda", sgd(), make, tf32=make is dense), 40)
    assert report.cause == "momentum", report
    assert "Also: mine runs in float32, theirs in float32, with products in TF32" in report.text


def test_tf32_in_mine_is_named_as_the_precision():
    mine = program("cuda", sgd(), tf32=True)
    report = lockstep(mine, program("cpu", sgd()), 40)
    assert report.cause == "precision"
    assert "it multiplies matrices in TF32, where theirs does in full precision" in report.text


def test_autocast_with_a_scaler_hides_no_mistake():
    theirs = program("cuda", sgd(), dtype=torch.float16)
    assert lockstep(program("cuda", sgd(), dtype=torch.float16), theirs, 40).identical
    assert lockstep(program("cuda", sgd(), dtype=torch.float32), theirs, 40).cause == "precision"
    assert lockstep(program("cpu", sgd(momentum=0.8)), theirs, 40).cause == "momentum"


def test_each_of_two_draws_the_same_random_numbers():
    def dropping():
        return dense(nn.Dropout(0.3))

    mine, theirs = (program("cuda", sgd(), dropping) for _ in range(2))
    assert lockstep(mine, theirs, 40).identical
    report = lockstep(program("cuda", sgd(momentum=0.8), dropping), theirs, 40)
    assert report.cause == "momentum"
    report = lockstep(program("cpu", sgd(), dropping), theirs, 40)
    assert "draws the random numbers of dropout on cpu, theirs on cuda:0" in report.text


# --- the ensemble ------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(engines, "UNITS_ON_GPU", 1 << 17)


@EACH_DTYPE
@pytest.mark.parametrize("options", [*OPTIONS.values()], ids=[*OPTIONS])
@pytest.mark.usefixtures("small")
def test_the_engine_is_manual(options, dtype):
    engine = Engine(POST, 15, options, dtype=dtype, device="cuda")
    assert (engine.compiled, engine.reason, engine.block) == (True, "", 8192)
    assert run(engine, initial_weights(0, 0, 6, SIZE), 1).weights.is_cuda
    assert_as_manual(engine, POST, options, initial_weights(0, 0, 6, SIZE))


@pytest.mark.usefixtures("small")
def test_a_start_has_the_same_bits_beside_other_starts():
    engine = Engine(POST, 15, {"lr": 1.0}, device="cuda")
    weights = initial_weights(0, 0, 500, SIZE)
    alone, beside = (engine.weights(run(engine, some)) for some in (weights[:100], weights))
    assert bits(alone.cpu()) == bits(beside[:100].cpu())


def counted(main, *options):
    status, printed, _ = main("ensemble", "--steps", "200", "--json", *options)
    assert status == 0
    return json.loads(printed)["rates"]


def test_the_tallies_are_the_same_each_time(main):
    some = "--starts", "3000", "--lr", "1", "10", "--device", "cuda"
    first, again = (counted(main, *some, "--name", name) for name in ("first", "again"))
    for rate, other in zip(first, again, strict=True):
        assert rate["counts"] == other["counts"]


def test_the_tallies_are_those_of_the_cpu(main):
    """At lr 1, at which so few steps leave rounding small."""
    there, here = (
        counted(main, "--starts", "3000", "--device", device, "--name", device)
        for device in ("cuda", "cpu")
    )
    assert there[0]["counts"] == here[0]["counts"]


def test_two_processes_of_one_gpu_add_up_to_the_same(main, tmp_path):
    some = ["--starts", "1500000", "--steps", "50", "--json", "--device", "cuda:0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, str(ROOT / "train.py"), "ensemble", *some, "--name", "two"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one = main("ensemble", *some, "--name", "one")[1]
    assert json.loads(done.stdout)["rates"][0]["counts"] == json.loads(one)["rates"][0]["counts"]
