"""One long run, compiled: the steps of Manual to rounding, the same bits whenever one looks."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gdtorch import Manual, Rows, SigmoidNet, load_table
from gdtorch.ensemble import CALL, single
from gdtorch.ensemble.single import LongRun

POST = load_table("post").learned  # in float64
SETTINGS = {
    "plain": {"lr": 1.0},
    "dampening": {"lr": 0.5, "momentum": 0.5, "dampening": 0.3},
    "every": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True, "maximize": True},
}


@pytest.fixture
def uncompiled(monkeypatch):
    """The arithmetic alone: what takes seconds to compile is run as it is written."""
    monkeypatch.setattr(single, "compiled", lambda steps: steps)


def trained(trainer, steps):
    while trainer.steps < steps:
        trainer.step()
    return torch.cat([weight.flatten() for weight in trainer.weights.values()])


def assert_as_manual(rows, hidden, dtype, options, steps=200, start=0):
    """Apart by no more than rounding makes of so many steps (see tests/test_engine.py)."""
    net = SigmoidNet(rows.inputs.shape[1], hidden, start=start).to(dtype)
    expected = trained(Manual(net, rows.to(dtype), **options), steps)
    got = LongRun(net, rows.to(dtype), stride=20, **options)
    assert got.reason == ""
    bound = 4 * math.sqrt(steps) * torch.finfo(dtype).eps * expected.abs().max()
    assert (trained(got, steps) - expected).abs().max() <= bound


@pytest.mark.usefixtures("uncompiled")
@given(
    start=st.integers(0, 10**6),
    lr=st.floats(0, 1),
    momentum=st.floats(0, 0.9),
    dampening=st.floats(-0.5, 1),
    weight_decay=st.floats(0, 0.1),
    nesterov=st.booleans(),
    maximize=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_arithmetic_is_that_of_manual(start, momentum, dampening, nesterov, dtype, **options):
    nesterov = nesterov and momentum > 0
    options |= {"momentum": momentum, "nesterov": nesterov}
    options["dampening"] = 0.0 if nesterov else dampening
    assert_as_manual(POST, 15, dtype, options, steps=20, start=start)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("plain", torch.float64),
        pytest.param("plain", torch.float32, marks=pytest.mark.slow),
        pytest.param("dampening", torch.float64, marks=pytest.mark.slow),
        pytest.param("every", torch.float32, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_compiled_steps_are_those_of_manual(name, dtype):
    assert_as_manual(POST, 15, dtype, SETTINGS[name])


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("rows", "features", "hidden"), [(1, 1, 1), (9, 4, 7), (400, 12, 15), (7, 3, 4000)]
)
def test_any_table_and_any_number_of_hidden_units(rows, features, hidden):
    generator = torch.Generator().manual_seed(0)
    table = Rows(
        torch.randn(rows, features, dtype=torch.float64, generator=generator),
        torch.rand(rows, 1, dtype=torch.float64, generator=generator),
    )
    assert_as_manual(table, hidden, torch.float64, {"lr": 1 / (rows * hidden)}, steps=20)


def test_how_often_one_looks_changes_no_bit():
    net = SigmoidNet().double()
    found = [trained(LongRun(net, POST, 1.0, stride=s), 600) for s in (10, 200)]
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_where_it_cannot_be_compiled_it_takes_the_steps_of_manual(monkeypatch):
    monkeypatch.setattr(single, "try_out", lambda _: "no compiler")
    net, options = SigmoidNet().double(), SETTINGS["dampening"]
    run = LongRun(net, POST, stride=20, **options)
    assert run.reason == "no compiler"
    assert torch.equal(trained(run, 60), trained(Manual(net, POST, **options), 60))


@pytest.mark.parametrize("stride", [0, 5, 15, -10])
def test_a_stride_that_is_no_multiple_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride {stride} is no multiple of {CALL}"):
        LongRun(SigmoidNet(), POST, 1.0, stride=stride)


# The command.


def run(main, *arguments, status=0):
    found, out, error = main(*arguments)
    assert (found, error) == (status, "")
    return out


@pytest.mark.slow
def test_compile_trains_manual_alone_and_says_that_bits_may_differ(main, tmp_path):
    out = run(main, "--compile", "--steps", 4000, "--name", "long")
    assert "post is left out: --compile is for a long run of manual" in out
    assert "sgd is left out: --compile is for a long run of manual" in out
    assert "manual is compiled: its bits may differ from those of steps taken one by one" in out
    reader = EventAccumulator(str(tmp_path / "runs/long/manual"), size_guidance={"scalars": 0})
    reader.Reload()
    assert [event.step for event in reader.Scalars("loss")] == [0, 1000, 2000, 3000, 4000]
    one_by_one = run(main, "--trainers", "manual", "--steps", 4000, "--json")
    expected = json.loads(one_by_one)["trainers"]["manual"]
    got = json.loads(run(main, "--compile", "--steps", 4000, "--json"))["trainers"]["manual"]
    assert got["loss"] == pytest.approx(expected["loss"], rel=1e-9)  # 1.9e-13 is what was seen
    assert got["rows_right"] == expected["rows_right"]


def test_beside_sgd_a_difference_of_bits_is_no_failure(main):
    facts = json.loads(run(main, "--compile", "--trainers", "manual", "sgd", "--json"))
    manual = facts["comparisons"]["manual"]
    assert facts["status"] == 0
    assert not manual["identical"]
    assert "they part by step 1000" in manual["verdict"]
    assert manual["verdict"].endswith("compiled steps round otherwise")
    assert 0 < manual["first_difference"]["absolute"] < 1e-12


def test_curvature_and_histograms_stand_where_the_run_can_be_looked_at(main, tmp_path):
    options = ["--compile", "--steps", 600, "--log-every", 200, "--curvature", 300]
    run(main, *options, "--name", "x")
    reader = EventAccumulator(
        str(tmp_path / "runs/x/manual"), size_guidance={"scalars": 0, "histograms": 0}
    )
    reader.Reload()
    at = [event.step for event in reader.Scalars("loss")]
    assert at == [0, 200, 300, 400, 600]
    assert [event.step for event in reader.Scalars("curvature/sharpness")] == [0, 300, 600]
    assert {event.step for event in reader.Histograms("syn0")} == {0, 100, 200, 300, 400, 500, 600}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--steps", 1234], "--steps 1234 is no multiple of it; 1240 is"),
        (["--log-every", 1], "--log-every 1 is no multiple of it; 10 is"),
        (["--curvature", 99], "--curvature 99 is no multiple of it; 100 is"),
        (
            ["--descent", "stochastic"],
            "--compile takes batch steps; leave out --descent stochastic",
        ),
        (["--trainers", "sgd"], "--compile is for the steps of manual; name it among --trainers"),
    ],
)
def test_what_does_not_go_with_compile_is_refused(main, tmp_path, options, why):
    status, out, error = main("--compile", *options)
    assert (status, out) == (2, "")
    assert error.endswith(f"{why}\n")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_it_says_that_it_is_slower_and_compares_bits(main, monkeypatch):
    monkeypatch.setattr(single, "try_out", lambda _: "no compiler")
    status, out, error = main("--compile", "--trainers", "manual", "sgd", "--steps", 200)
    assert status == 0
    assert error == (
        "gdtorch: steps are not compiled, and take about seven times as long: no compiler\n"
    )
    assert "manual = sgd: the same bits in all 60 weights after every 200 of 200 steps" in out
    assert "bits may differ" not in out
