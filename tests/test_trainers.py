"""Post, Manual and SGD: bit for bit where they must be, refusals as torch.optim.SGD's."""

import copy

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gdtorch import (
    SGD,
    Descent,
    Manual,
    Post,
    Rows,
    SigmoidNet,
    Steepest,
    Torch,
    load_table,
)
from gdtorch.optimizers import RULES

POST = load_table("post").learned
FEW_STARTS_OR_A_HUNDRED = pytest.mark.parametrize(
    "starts",
    [range(4), pytest.param(range(4, 100), marks=pytest.mark.slow)],
    ids=["few", "to a hundred"],
)


def bits(weights):
    """The weights' bytes, read by NumPy; every nan counts as the same."""
    arrays = (w.numpy() for w in weights.values())
    return [np.where(np.isnan(a), np.nan, a).tobytes() for a in arrays]


def assert_same_bits(net, rows, steps, **options):
    manual, sgd = Manual(net, rows, **options), SGD(net, rows, **options)
    for step in range(steps + 1):
        assert bits(manual.weights) == bits(sgd.weights), f"after step {step} with {options}"
        manual.step()
        sgd.step()


@pytest.mark.parametrize("steps", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_default_steps(steps):
    assert_same_bits(SigmoidNet().double(), POST, steps, lr=1.0)


@st.composite
def sgd_options(draw):
    momentum = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]) | st.floats(0, 1))
    nesterov = momentum > 0 and draw(st.booleans())
    return {
        "lr": draw(st.sampled_from([0.0, 1e-3, 0.1, 1.0]) | st.floats(0, 10)),
        "momentum": momentum,
        "dampening": 0.0 if nesterov else draw(st.just(0.0) | st.floats(-0.5, 1)),
        "weight_decay": draw(st.just(0.0) | st.floats(0, 0.5)),
        "nesterov": nesterov,
        "maximize": draw(st.booleans()),
    }


@settings(max_examples=15)  # fifty more, of every rule, in test_optimizers.py
@given(
    sgd_options(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 8),
    st.integers(1, 64),
    st.integers(1, 20),
    st.integers(0, 2**63 - 1),
)
def test_any_options_any_shape_any_rows(options, dtype, features, hidden, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    table = Rows(
        torch.randn(rows, features, dtype=dtype, generator=generator),
        torch.rand(rows, 1, dtype=dtype, generator=generator),
    )
    net = SigmoidNet(features, hidden, seed=seed).to(dtype)
    assert_same_bits(net, table, 200, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"lr": torch.tensor([0.1, 0.2])},
        {"momentum": -0.5},
        {"weight_decay": -0.1},
        {"nesterov": True},
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
    ],
    ids=str,
)
def test_manual_refuses_what_sgd_refuses_in_its_words(options):
    with pytest.raises(ValueError) as theirs:  # noqa: PT011 (the message is compared below)
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], **options)
    for trainer in (Manual, SGD, *([Post] if set(options) == {"lr"} else [])):
        with pytest.raises(ValueError) as ours:  # noqa: PT011
            trainer(SigmoidNet(), POST, **options)
        assert str(ours.value) == str(theirs.value)


def test_defaults_are_those_of_sgd():
    assert_same_bits(SigmoidNet().double(), POST, 20)
    group = SGD(SigmoidNet().double(), POST).optimizer.param_groups[0]
    for option, value in torch.optim.SGD([torch.zeros(1)]).param_groups[0].items():
        if option not in {"params", "foreach"}:
            assert group[option] == value


@pytest.mark.parametrize("trainer", [SGD, Torch], ids=["sgd", "torch"])
def test_torch_optim_goes_weight_by_weight_on_every_device(trainer):
    """On a GPU, PyTorch's own choice is to take all weights at once, and rounds otherwise."""
    more = [] if trainer is SGD else ["RMSprop"]
    (group,) = trainer(SigmoidNet(), POST, *more).optimizer.param_groups
    assert group["foreach"] is False


class Bowl(torch.nn.Module):
    """θ²/2, whose gradient is the weight itself, handed out alive."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

    def loss(self, _rows):
        return self.w.square().sum() / 2

    def gradient(self, _rows):
        return {"w": self.w.detach()}


def test_the_velocity_is_no_part_of_the_gradient():
    assert_same_bits(Bowl(), POST, 20, lr=0.1, momentum=0.9)


class Silent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Manual, r"Manual needs Silent\.gradient\(rows\): each parameter's name → ∂loss/∂para"),
        (SGD, r"SGD needs Silent\.loss\(rows\): a scalar that autograd can differentiate"),
        (lambda net, rows: Torch(net, rows, "Adam"), r"Torch needs Silent\.loss\(rows\): "),
        (lambda net, rows: Manual(net, rows, descent=Steepest()), r"Manual needs Silent\.grad"),
    ],
    ids=["manual", "sgd", "torch", "steepest"],
)
def test_an_objective_without_what_a_trainer_follows_is_refused_at_once(make, message):
    with pytest.raises(TypeError, match=message):
        make(Silent(), POST)


def test_steepest_by_hand_needs_the_loss_too():
    class Slope(Silent):
        def gradient(self, _rows):
            return {"w": torch.ones(2)}

    Manual(Slope(), POST).step()
    with pytest.raises(TypeError, match=r"Steepest needs Slope\.loss\(rows\)"):
        Manual(Slope(), POST, descent=Steepest())


@pytest.mark.parametrize("name", RULES)
def test_steepest_takes_plain_sgd_alone(name):
    steepest = Steepest()
    for make in (
        lambda: Manual(SigmoidNet().double(), POST, optimizer=RULES[name](), descent=steepest),
        lambda: Torch(SigmoidNet().double(), POST, name, descent=steepest),
    ):
        if name == "SGD":
            make().step()
        else:
            with pytest.raises(ValueError, match=f"it takes SGD, not {name}"):
                make()
    for options in ({"momentum": 0.9}, {"weight_decay": 0.1}):
        with pytest.raises(ValueError, match="no momentum, no weight_decay"):
            Torch(SigmoidNet().double(), POST, "SGD", descent=steepest, **options)
        with pytest.raises(ValueError, match="no momentum, no weight_decay"):
            Manual(SigmoidNet().double(), POST, optimizer=RULES["SGD"](**options), descent=steepest)


def test_a_rate_that_a_descent_chooses_reaches_every_optimizer():
    class Halving(Descent):
        def step_size(self, _objective, _rows, _gradient, lr, /, *, maximize):  # noqa: ARG002
            return lr / 2

    for name, rule in RULES.items():
        runs = (
            Manual(SigmoidNet().double(), POST, optimizer=rule(lr=0.5), descent=Halving()),
            Torch(SigmoidNet().double(), POST, name, lr=0.5, descent=Halving()),
        )
        for _ in range(4):
            for run in runs:
                run.step()
            assert bits(runs[0].weights) == bits(runs[1].weights)
        assert runs[0].lr == runs[1].lr == 0.5**5


@FEW_STARTS_OR_A_HUNDRED
@pytest.mark.parametrize("steps", [100, 1000])
def test_post_is_numpys_transcription_of_the_loop(steps, starts):
    tolerance = {100: 1e-12, 1000: 1e-9}[steps]
    for start in starts:
        post = Post(SigmoidNet(start=start).double(), POST, 1.0)
        syn0, syn1 = (w.numpy().copy() for w in post.weights.values())
        for _ in range(steps):
            post.step()
        expected = dict(zip(("syn0", "syn1"), reference.post(syn0, syn1, steps), strict=True))
        for name, weight in post.weights.items():
            assert np.abs(weight.numpy() - expected[name]).max() <= tolerance, (start, name)


def test_post_is_not_gradient_descent():
    """After one step syn1 agrees to rounding; syn0 does not, for it has seen the new syn1."""
    net = SigmoidNet().double()
    post, manual = Post(net, POST, 1.0), Manual(net, POST, 1.0)
    post.step()
    manual.step()
    distance = {n: (post.weights[n] - w).abs().max().item() for n, w in manual.weights.items()}
    assert distance["syn1"] < 1e-15
    assert distance["syn0"] > 1e-3


def test_post_knows_no_other_objective():
    with pytest.raises(TypeError, match="SigmoidNet alone"):
        Post(torch.nn.Linear(3, 1), POST)


@FEW_STARTS_OR_A_HUNDRED
@pytest.mark.parametrize("trainer", [Post, Manual])
def test_a_thousand_steps_learn_all_seven_rows(trainer, starts):
    unlearned = []
    for start in starts:
        run = trainer(SigmoidNet(start=start).double(), POST, 1.0)
        for _ in range(1000):
            run.step()
        output = reference.output(reference.X, *(w.numpy() for w in run.weights.values()))
        if ((output > 0.5) != (reference.Y > 0.5)).any():
            unlearned.append(start)
    assert unlearned == []


@pytest.mark.parametrize("trainer", [Post, Manual, SGD])
def test_a_trainer_is_a_trajectory_of_live_weights(trainer):
    net = SigmoidNet().double()
    before = copy.deepcopy(net.state_dict())
    run = trainer(net, POST, lr=1.0)
    trajectory = iter(run)
    first = next(trajectory)
    assert all(torch.equal(first[n], before[n]) for n in before)
    second = next(trajectory)
    assert all(second[n].data_ptr() == first[n].data_ptr() for n in before)
    assert not any(torch.equal(second[n], before[n]) for n in before)
    assert all(torch.equal(w, before[n]) for n, w in net.state_dict().items())


ODD = {
    "transposed": lambda t: t.T.contiguous().T,
    "view": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "strides of a size of 1": lambda t: t.as_strided(
        t.shape, [99 if t.shape[i] == 1 else t.stride(i) for i in range(2)]
    ),
}


@given(st.integers(0, 10**6), st.sampled_from(list(ODD)), st.integers(1, 9), st.integers(1, 5))
def test_odd_strides_and_views_are_taken_as_if_they_were_row_major(seed, kind, rows, features):
    generator = torch.Generator().manual_seed(seed)
    plain = Rows(
        torch.randn(rows, features, dtype=torch.float64, generator=generator),
        torch.rand(rows, 1, dtype=torch.float64, generator=generator),
    )
    odd = Rows(*map(ODD[kind], plain))
    assume(any(o.stride() != p.stride() for o, p in zip(odd, plain, strict=True)))
    net = SigmoidNet(features, 6, seed=seed).double()
    block = torch.zeros(1 + features * 6, dtype=torch.float64)
    misaligned = copy.deepcopy(net)
    misaligned.syn0.data = block[1:].view(features, 6).copy_(net.syn0.data)
    strange = copy.deepcopy(net)
    for weight in strange.parameters():
        weight.data = ODD[kind](weight.data)
    cases = [(net, plain), (misaligned, odd), (strange, odd)]
    runs = [trainer(*case, 1.0) for trainer in (Manual, SGD) for case in cases]
    for run in runs:
        for tensor in (*run.rows, *run.weights.values()):
            assert tensor.stride() == torch.empty(tensor.shape).stride()
        for _ in range(5):
            run.step()
    assert all(bits(run.weights) == bits(runs[0].weights) for run in runs)
