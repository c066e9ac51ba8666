"""The engine: the steps of Manual to rounding, the same bits whatever is beside a start."""

import math
import subprocess
import sys

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdtorch import Manual, Rows, SigmoidNet, initial_weights, load_table
from gdtorch.ensemble.compiler import compiled
from gdtorch.ensemble.engine import BLOCK, MOST_NUMBERS, Engine, State
from gdtorch.ensemble.step import _exp

POST = load_table("post").learned
SIZE = 60  # weights of a network of 3-15-1
STEPS = 200
OPTIONS = {
    "plain": {"lr": 1.0},
    "momentum": {"lr": 0.2, "momentum": 0.9},
    "dampening": {"lr": 0.5, "momentum": 0.5, "dampening": 0.3},
    "weight decay": {"lr": 1.0, "weight_decay": 0.01},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "maximize": {"lr": 0.5, "maximize": True},
    "every": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True, "maximize": True},
}


@pytest.fixture(scope="module")
def plain():
    """The engine most tests share: compiled, float32, nothing but a learning rate."""
    return Engine(POST, 15, OPTIONS["plain"])


def run(engine, weights, steps=STEPS):
    state = engine.begin(weights)
    engine.advance(state, steps)
    return state


def manual(rows, hidden, weights, dtype, steps=STEPS, **options):
    """One start by `Manual`, from and to a row of weights."""
    net = SigmoidNet(rows.inputs.shape[1], hidden)
    torch.nn.utils.vector_to_parameters(weights, net.parameters())
    trainer = Manual(net.to(dtype), rows.to(dtype), **options)
    for _ in range(steps):
        trainer.step()
    return torch.cat([weight.flatten() for weight in trainer.weights.values()])


def assert_as_manual(engine, rows, options, weights, picked=range(6), steps=STEPS):
    """Apart by no more than rounding makes of so many steps.

    A step rounds each weight once, by half an ulp, and its gradient by about as much: together ε
    of the weight, in one direction or the other. Over the steps that adds up as a random walk
    does, to √steps · ε; four standard deviations of it are allowed. (At most 1.4 were seen in 40
    starts of each case.)
    """
    got = engine.weights(run(engine, weights, steps)).cpu()
    for start in picked:
        expected = manual(rows, engine.hidden, weights[start], engine.dtype, steps, **options)
        bound = 4 * math.sqrt(steps) * torch.finfo(engine.dtype).eps * expected.abs().max()
        assert (got[start] - expected).abs().max() <= bound, start


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=[] if number % 2 == place else pytest.mark.slow)
        for number, name in enumerate(OPTIONS)
        for place, dtype in enumerate([torch.float32, torch.float64])
    ],
    ids=str,
)
def test_weights_are_those_of_manual(name, dtype, monkeypatch):
    monkeypatch.setattr("gdtorch.ensemble.engine.BLOCK", 64)  # as exact, and a hundred times faster
    options = OPTIONS[name]
    engine = Engine(POST, 15, options, dtype=dtype, compiled=False)
    assert (engine.compiled, engine.reason) == (False, "")
    assert_as_manual(engine, POST, options, initial_weights(0, 0, 6, SIZE))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("plain", torch.float32),
        ("plain", torch.float64),
        ("every", torch.float32),
    ],
    ids=str,
)
@pytest.mark.slow
def test_compiled_weights_are_those_of_manual(name, dtype):
    engine = Engine(POST, 15, OPTIONS[name], dtype=dtype)
    assert (engine.compiled, engine.reason) == (True, "")
    assert_as_manual(engine, POST, OPTIONS[name], initial_weights(0, 0, 6, SIZE))


def test_every_option_has_a_say():
    """So that no option of the two tests above passes for being left out by both."""
    dtype = torch.float64
    weights = initial_weights(0, 0, 1, SIZE)
    for options in OPTIONS.values():
        with_all = manual(POST, 15, weights[0], dtype, **options)
        for name in set(options) - {"lr"} - ({"momentum"} if "nesterov" in options else set()):
            without = {key: value for key, value in options.items() if key != name}
            assert (manual(POST, 15, weights[0], dtype, **without) - with_all).abs().max() > 1e-3


def random_rows(rows, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Rows(
        torch.randn(rows, features, dtype=torch.float64, generator=generator),
        torch.rand(rows, 1, dtype=torch.float64, generator=generator),
    )


@pytest.mark.parametrize(
    ("rows", "hidden"),
    [
        (load_table("xor").learned, 15),
        (load_table("parity3").learned, 1),
        (random_rows(9, 4), 7),
        (random_rows(43, 2), 3),
    ],
    ids=["xor", "parity3", "numbers", "many rows"],
)
def test_any_table_and_any_number_of_hidden_units(rows, hidden, monkeypatch):
    monkeypatch.setattr("gdtorch.ensemble.engine.BLOCK", 64)
    weights = initial_weights(0, 0, 3, (rows.inputs.shape[1] + 1) * hidden)
    large = len(rows.inputs) == 43  # so 129 numbers
    engine = Engine(rows, hidden, {"lr": 0.1}, compiled=large)
    assert engine.reason == (f"a table of more than {MOST_NUMBERS} numbers" if large else "")
    assert_as_manual(engine, rows, {"lr": 0.1}, weights, range(3), steps=50)


def test_a_wide_network_takes_its_steps_a_part_of_the_block_at_a_time():
    weights = initial_weights(0, 0, BLOCK, 2 * 40)
    engine = Engine(random_rows(2, 1), 40, {"lr": 1.0, "momentum": 0.5}, compiled=False)
    assert BLOCK % engine.width == 0
    assert engine.width < BLOCK
    picked = [0, engine.width - 1, engine.width, BLOCK - 1]
    options = {"lr": 1.0, "momentum": 0.5}
    assert_as_manual(engine, random_rows(2, 1), options, weights, picked, steps=10)


@pytest.mark.parametrize("scale", [30.0, 300.0, 1e7])
def test_large_weights(plain, scale):
    """At 30 exp(−x · w) leaves float32's range for some rows, at 300 for most, at 1e7 for all."""
    weights = scale * initial_weights(0, 0, 6, SIZE)
    assert_as_manual(plain, POST, OPTIONS["plain"], weights, steps=20)


def bits(tensor):
    return tensor.numpy().tobytes()


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["compiled", "uncompiled"]
)
def engine(request, plain):
    return plain if request.param else Engine(POST, 15, OPTIONS["plain"], compiled=False)


def measured(engine, state):
    return [
        engine.weights(state),
        engine.losses(state),
        engine.outputs(state, POST.inputs).T.contiguous(),
    ]


def test_a_start_has_the_same_bits_whatever_is_beside_it(engine):
    weights = initial_weights(0, 0, 3001, SIZE)
    all_of_them = measured(engine, run(engine, weights, 20))
    for alone in (0, 1, 1000, 3000):
        single = measured(engine, run(engine, weights[alone : alone + 1], 20))
        assert [bits(m) for m in single] == [bits(m[alone]) for m in all_of_them]
    weights[7] = math.nan
    beside_nan = measured(engine, run(engine, weights, 20))
    assert all(bits(a[8:]) == bits(b[8:]) for a, b in zip(all_of_them, beside_nan, strict=True))
    assert beside_nan[0][7].isnan().all()


def test_the_same_bits_with_one_thread_and_with_two(engine):
    weights, before = initial_weights(0, 0, 3001, SIZE), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append([bits(m) for m in measured(engine, run(engine, weights, 20))])
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_state_saved_and_restored_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("gdtorch.ensemble.engine.BLOCK", 64)
    engine = Engine(POST, 15, OPTIONS["dampening"], compiled=False)
    weights = initial_weights(0, 0, 5, SIZE)
    whole, state = run(engine, weights, 30), run(engine, weights, 10)
    torch.save(vars(state), tmp_path / "state.pt")
    restored = State(**torch.load(tmp_path / "state.pt", weights_only=True))
    engine.advance(restored, 1)
    engine.advance(restored, 19)
    for name, value in vars(whole).items():
        other = getattr(restored, name)
        assert bits(value) == bits(other) if isinstance(value, torch.Tensor) else value == other


def test_what_is_measured_is_what_numpy_computes(plain):
    weights = initial_weights(0, 0, 5, SIZE)
    for engine in (plain, Engine(POST, 15, {}, dtype=torch.float64, compiled=False)):
        state = engine.begin(weights)
        assert torch.equal(engine.weights(state), weights.to(engine.dtype))
        tolerance = 100 * torch.finfo(engine.dtype).eps  # a hundred roundings, of numbers below 1
        outputs = engine.outputs(state, torch.tensor(reference.HELD_OUT))
        for start, start_weights in enumerate(weights.double().numpy()):
            syn0, syn1 = start_weights[:45].reshape(3, 15), start_weights[45:].reshape(15, 1)
            out = reference.output(reference.X, syn0, syn1)
            held_out = reference.output(reference.HELD_OUT, syn0, syn1)
            assert (
                abs(engine.losses(state)[start] - ((out - reference.Y) ** 2).sum() / 2) < tolerance
            )
            assert abs(outputs[0, start] - held_out.item()) < tolerance


@given(st.floats(-87, 87, width=32))
def test_exp_to_two_ulp(x):
    exact = math.exp(x)
    assert abs(_exp(torch.tensor(x)).item() - exact) <= 2 * 2**-23 * exact


@given(st.floats(87, 2.0**40, width=32))
def test_exp_out_of_range_makes_a_sigmoid_of_0_or_1(x):
    """As torch's, but for what is below the least normal number."""
    for sign in (1, -1):
        mine = 1 / (1 + _exp(torch.tensor(sign * x)))
        theirs = torch.sigmoid(torch.tensor(-sign * x))
        assert abs(mine - theirs) <= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, 1e38, -1e38])
def test_exp_of_what_has_diverged_is_no_number(x):
    assert not _exp(torch.tensor(x)).isfinite()


@pytest.fixture
def with_compiler(monkeypatch, tmp_path):
    """With another C++ compiler, and without what earlier ones have compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return lambda name: torch._inductor.config.patch({"cpp.cxx": (None, name)})


@pytest.mark.slow
def test_without_a_compiler_it_runs_uncompiled_and_says_why(with_compiler):
    options, weights = {"lr": 1.0, "momentum": 0.25}, initial_weights(0, 0, 3, SIZE)
    with with_compiler("no-such-compiler"):
        engine = Engine(POST, 15, options)
    assert not engine.compiled
    assert engine.reason == "no C++ compiler was found; install g++, or name yours in CXX"
    expected = run(Engine(POST, 15, options, compiled=False), weights, 5)
    assert bits(engine.weights(run(engine, weights, 5))) == bits(engine.weights(expected))


def test_a_torch_that_knows_other_options_compiles_without_ours(monkeypatch):
    def another(steps, *, options=None, **_):
        if options:
            raise RuntimeError("Unexpected optimization option")
        return steps

    monkeypatch.setattr(torch, "compile", another)
    assert compiled(torch.sin) is torch.sin


@pytest.mark.slow
def test_why_a_compiler_fails_is_told_in_one_line(with_compiler, tmp_path):
    broken = tmp_path / "broken-g++"
    broken.write_text("#!/bin/sh\ncase $1 in --version) g++ --version;; *) exit 1;; esac\n")
    broken.chmod(0o755)
    with with_compiler(str(broken)):
        reason = Engine(POST, 15, {"lr": 1.0, "momentum": 0.125}).reason
    assert reason.startswith("CppCompileError: ")
    assert len(reason.splitlines()) == 1


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"momentum": -0.5}, {"nesterov": True}], ids=str)
def test_refuses_what_sgd_refuses_in_its_words(options):
    with pytest.raises(ValueError) as theirs:  # noqa: PT011 (the message is compared below)
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], **options)
    with pytest.raises(ValueError) as ours:  # noqa: PT011
        Engine(POST, 15, options, compiled=False)
    assert str(ours.value) == str(theirs.value)


def test_importing_the_package_loads_no_torch():
    code = "import gdtorch.ensemble, sys; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert printed.strip() == b"False"
