"""Batch, stochastic, steepest: which rows a step sees, how far it goes, and what theory says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gdtorch import SGD, Batch, Manual, Rows, SigmoidNet, Steepest, Stochastic, load_table
from gdtorch.descent import LARGEST_STEP, shuffle

POST = load_table("post").learned
NO_ROWS = Rows(torch.empty(0, 0), torch.empty(0, 0))


def bits(trainer):
    return b"".join(weight.numpy().tobytes() for weight in trainer.weights.values())


# Batch: all rows, the learning rate given.


def test_batch_sees_all_rows_and_goes_as_far_as_it_is_told():
    assert Batch().rows(POST, 7) is POST
    assert Batch().step_size(None, POST, {}, 0.3, maximize=True) == 0.3


# Stochastic.


def philox(key, blocks):
    """Philox4x64-10 as published (Salmon et al., 2011, table 2), in Python's whole numbers."""
    mask = 2**64 - 1
    for block in range(1, blocks + 1):
        counter, k = [block, 0, 0, 0], list(key)
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [(b >> 64) ^ counter[1] ^ k[0], b & mask, (a >> 64) ^ counter[3] ^ k[1],
                       a & mask]  # fmt: skip
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        yield from counter


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(1, 40))
def test_the_order_is_that_of_philoxs_published_numbers(seed, epoch, count):
    """So it is the same on every machine: nothing but whole numbers goes into it."""
    numbers = list(philox((seed, epoch + 1), -(-count // 4)))[:count]
    assert shuffle(seed, epoch, count) == sorted(range(count), key=numbers.__getitem__)


def test_the_order_of_seed_0():
    """Pinned, so that a run of today can be repeated with a release of tomorrow."""
    assert [shuffle(0, epoch, 7) for epoch in range(3)] == [
        [5, 3, 2, 4, 1, 0, 6],
        [6, 2, 1, 3, 5, 0, 4],
        [5, 4, 6, 0, 1, 2, 3],
    ]


@given(st.integers(0, 2**64 - 1), st.integers(1, 30), st.integers(0, 5))
def test_each_epoch_sees_each_row_once(seed, count, epoch):
    rows = Rows(torch.arange(2.0 * count).reshape(count, 2), torch.arange(1.0 * count)[:, None])
    steps = range(epoch * count, (epoch + 1) * count)
    seen = [Stochastic(seed).rows(rows, step) for step in steps]
    assert all(len(row.inputs) == len(row.targets) == 1 for row in seen)
    assert all(torch.equal(row.inputs[0], rows.inputs[int(row.targets)]) for row in seen)
    assert sorted(row.targets.item() for row in seen) == list(range(count))


def test_epochs_and_seeds_differ():
    orders = {tuple(shuffle(seed, epoch, 50)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@pytest.mark.parametrize("steps", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_stochastic_steps_bit_for_bit(steps):
    net, descent = SigmoidNet().double(), Stochastic(5)
    manual, sgd = (t(net, POST, 1.0, descent=descent) for t in (Manual, SGD))
    for step in range(steps):
        manual.step()
        sgd.step()
        assert bits(manual) == bits(sgd), step


def test_a_stochastic_step_follows_the_gradient_of_one_row():
    net = SigmoidNet().double()
    run = Manual(net, POST, 0.5, descent=Stochastic(1))
    run.step()
    row = shuffle(1, 0, 7)[0]
    output = torch.sigmoid(torch.sigmoid(POST.inputs[row] @ net.syn0) @ net.syn1)
    ((output - POST.targets[row]) ** 2 / 2).sum().backward()
    for name, weight in net.named_parameters():
        # One rounding more or less, in numbers below 2.
        torch.testing.assert_close(
            run.weights[name], weight.detach() - 0.5 * weight.grad, rtol=0, atol=1e-15
        )


# Steepest, on objectives of which all is known.


class Quadratic(nn.Module):
    """½ Σ λᵢ (xᵢ − cᵢ)² in coordinates turned by Q: its least value is 0, at x = Q c."""

    def __init__(self, eigenvalues, turned, start):
        super().__init__()
        self.matrix = turned @ torch.diag(eigenvalues) @ turned.T
        self.x = nn.Parameter(start.clone())

    def loss(self, _):
        return ((self.x @ self.matrix) * self.x).sum(-1) / 2

    @torch.no_grad()
    def gradient(self, _):
        return {"x": self.x @ self.matrix}


@st.composite
def quadratics(draw):
    size = draw(st.integers(2, 50))
    condition = 10.0 ** draw(st.floats(0, 4))
    scale = 10.0 ** draw(st.integers(-12, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**63 - 1)))
    between = torch.rand(size - 2, generator=generator, dtype=torch.float64)
    eigenvalues = (
        torch.cat([torch.tensor([1, condition], dtype=torch.float64), condition**between]) * scale
    )
    normal = torch.randn(size, size, generator=generator, dtype=torch.float64)
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):  # the start from which the bound is reached (Kantorovich)
        start.zero_()[:2] = torch.tensor([condition, 1.0])
    turned = torch.linalg.qr(normal).Q
    return Quadratic(eigenvalues, turned, turned @ start), condition


@given(quadratics())
def test_on_quadratics_both_theorems_hold(case):
    """Successive gradients are orthogonal; a step leaves at most ((κ−1)/(κ+1))² of f − f*."""
    quadratic, condition = case
    run = Manual(quadratic, NO_ROWS, 1.0, descent=Steepest())
    epsilon = torch.finfo(torch.float64).eps
    left = ((condition - 1) / (condition + 1)) ** 2
    before, gradient = run.objective.loss(NO_ROWS).item(), run.objective.gradient(NO_ROWS)["x"]
    for _ in range(20):
        if before < 1e-250:  # past it, products underflow
            return
        size = run.weights["x"].norm().item()
        run.step()
        after, now = run.objective.loss(NO_ROWS).item(), run.objective.gradient(NO_ROWS)["x"]
        # n roundings of A x: n · eps · |A| |x|. Interpolation through ten points multiplies them by
        # 18 at worst (the Lebesgue constant of degree 9).
        noise = len(now) * epsilon * quadratic.matrix.norm() * size
        assert abs(gradient @ now) <= 18 * noise * gradient.norm()
        # n roundings of A, relative to its norm, are n · eps · κ of its smallest eigenvalue: by
        # that, ½ xᵀA x is known before and after.
        assert after <= (left + 2 * len(now) * epsilon * condition) * before
        before, gradient = after, now


class Line(nn.Module):
    """A function of one weight, given with its derivative."""

    def __init__(self, function, derivative, x=0.0):
        super().__init__()
        self.function, self.derivative = function, derivative
        self.x = nn.Parameter(torch.tensor(x, dtype=torch.float64))

    def loss(self, _):
        return self.function(self.x)

    @torch.no_grad()
    def gradient(self, _):
        return {"x": self.derivative(self.x)}


def one_step(objective, lr=1.0, **options):
    trainers = [t(objective, NO_ROWS, lr, descent=Steepest(), **options) for t in (Manual, SGD)]
    for trainer in trainers:
        trainer.step()
    assert bits(trainers[0]) == bits(trainers[1])
    assert trainers[0].lr == trainers[1].lr
    return trainers[0].lr, trainers[0].weights["x"].item()


@pytest.mark.parametrize("power", [-28, -10, 0, 10, 28])
def test_the_bracket_grows_and_shrinks_by_many_powers_of_ten(power):
    """½ a (x − 1)² from 0: a step of 1/a, reached from a step size of 1 before it."""
    a = 10.0**power
    size, x = one_step(Line(lambda x: a * (x - 1).square() / 2, lambda x: a * (x - 1)))
    assert size == pytest.approx(1 / a, rel=1e-15)
    assert x == pytest.approx(1, rel=1e-15)


def test_a_loss_that_falls_for_ever_gets_the_largest_step():
    slope = Line(lambda x: -x, lambda x: -torch.ones_like(x))
    assert one_step(slope) == (LARGEST_STEP, LARGEST_STEP)
    assert one_step(slope, maximize=True) == (LARGEST_STEP, -LARGEST_STEP)


def test_a_gradient_of_zero_gets_no_step():
    flat = Line(lambda x: x.square(), lambda x: 2 * x)
    assert one_step(flat) == (0.0, 0.0)
    assert one_step(flat, lr=0.0) == (0.0, 0.0)


@pytest.mark.parametrize("lr", [0.0, 1e-300, 1e300, math.inf])
def test_the_search_finds_its_way_from_any_step_before(lr):
    assert one_step(Line(lambda x: (x - 1).square() / 2, lambda x: x - 1), lr=lr) == (1.0, 1.0)


def test_steepest_ascent_finds_the_top():
    """−(x − 3)² has its top at 3; sin(x) from 0.1 at π/2, for the step before it is short."""
    size, x = one_step(Line(lambda x: -(x - 3).square(), lambda x: -2 * (x - 3)), maximize=True)
    assert (size, x) == (0.5, 3.0)
    _, x = one_step(Line(torch.sin, torch.cos, 0.1), lr=0.01, maximize=True)
    assert x == pytest.approx(math.pi / 2, rel=1e-15)


def test_a_loss_that_is_not_finite_is_never_chosen():
    """−log(1 − x) − 3x falls until x = ⅔ and is no number past 1."""
    wall = Line(lambda x: -torch.log(1 - x) - 3 * x, lambda x: 1 / (1 - x) - 3)
    _, x = one_step(wall, lr=1e6)
    assert x == pytest.approx(2 / 3, rel=1e-15)
    # (x − ½)² up to 1, −∞ past it.
    hole = Line(
        lambda x: torch.where(x > 1, -torch.inf, (x - 0.5).square()), lambda x: 2 * (x - 0.5)
    )
    _, x = one_step(hole)
    assert x == 0.5
    # −x up to 1, no number past it: as far as it goes, and no further.
    cliff = Line(
        lambda x: torch.where(x > 1, torch.nan, -x),
        lambda x: torch.where(x > 1, torch.nan, -torch.ones_like(x)),
    )
    _, x = one_step(cliff, lr=1e6)
    assert x == pytest.approx(1, rel=1e-15)


def test_of_two_valleys_the_deeper_is_taken():
    """x⁴/4 − 1.1 x³ + x² − 0.2 x has a valley near 0.12 and a deeper one near 2.5."""
    valley = np.polynomial.Polynomial([0, -0.2, 1, -1.1, 0.25])
    roots = sorted(valley.deriv().roots())
    assert valley(roots[2]) < valley(roots[0])
    _, x = one_step(
        Line(
            lambda x: x**4 / 4 - 1.1 * x**3 + x**2 - 0.2 * x,
            lambda x: x**3 - 3.3 * x**2 + 2 * x - 0.2,
        ),
        lr=0.1,
    )
    assert x == pytest.approx(roots[2], rel=1e-13)


@pytest.mark.parametrize("valley", [0.95, 1.05])
def test_of_many_valleys_in_one_bracket_that_downhill_from_the_lowest_point_is_taken(valley):
    """(x − 1)² − cos 20(x − v), lowest at 1 of all powers of two, with five valleys from ½ to 2."""
    waves = Line(
        lambda x: (x - 1).square() - torch.cos(20 * (x - valley)),
        lambda x: 2 * (x - 1) + 20 * torch.sin(20 * (x - valley)),
    )
    slope = abs(waves.gradient(NO_ROWS)["x"].item())
    _, x = one_step(waves, lr=1 / slope)
    assert x == pytest.approx(valley, abs=1e-3)  # (x − 1)² moves it by 2 · 0.05 / 400
    # A curvature of 400, times ten ulps of x.
    assert abs(waves.derivative(torch.tensor(x, dtype=torch.float64))) < 1e-12


def test_no_step_raises_the_loss_even_where_its_derivative_tells_nothing_of_it():
    """(x − 1)² with a spike of 5 around 1, where the derivative is 0."""
    spike = Line(
        lambda x: torch.where((x - 1).abs() < 1e-3, 5, (x - 1).square()), lambda x: 2 * (x - 1)
    )
    assert one_step(spike) == (0.25, 0.5)  # of all powers of two, this and 1 are the best


def test_a_kink_is_found_to_the_last_bit_and_noise_is_not_searched():
    """|x − ⅓| takes as many passes as there are bits; a slope known to 1e-9 takes few."""
    passes = []
    kink = Line(lambda x: (x - 1 / 3).abs(), lambda x: (x - 1 / 3).sign())
    assert one_step(kink)[1] == pytest.approx(1 / 3, rel=1e-15)

    def noisy(x):
        passes.append(len(x) if x.dim() else 1)
        return torch.expm1(x - 1) + 1e-9 * torch.sin(1e15 * x)

    run = Manual(Line(lambda x: (x - 1).square(), noisy), NO_ROWS, descent=Steepest())
    run.step()
    assert run.weights["x"].item() == pytest.approx(1, abs=1e-8)
    assert len(passes) <= 4  # the gradient of the step, and the slopes


def test_on_wavy_functions_the_search_ends_lower_and_in_a_valley():
    """a x²/4 + sin(b x) + c cos(x/2), of several valleys, from thirty points."""
    for a, b, c, start in np.random.default_rng(0).uniform(0.2, 2, (30, 4)):

        def function(x, a=a, b=b, c=c):
            return a * x**2 / 4 + torch.sin(b * x) + c * torch.cos(x / 2)

        def derivative(x, a=a, b=b, c=c):
            return a * x / 2 + b * torch.cos(b * x) - c * torch.sin(x / 2) / 2

        run = Manual(Line(function, derivative, start), NO_ROWS, descent=Steepest())
        run.step()
        here, there = torch.tensor(start), run.weights["x"]
        assert function(there) < function(here)
        # Terms of up to 3, their arguments known to eps: 1e-14 is ten roundings of those.
        assert abs(derivative(there)) < 1e-14


# Steepest, on the post's network.


@pytest.mark.parametrize("start", range(0, 100, 10))
def test_steepest_never_raises_the_loss_and_manual_is_sgd(start):
    """Ten starts, 60 steps; over all of 0 to 99 and 300 steps the same was measured once."""
    net = SigmoidNet(start=start).double()
    manual, sgd = (t(net, POST, descent=Steepest()) for t in (Manual, SGD))
    loss = net.loss(POST).item()
    for _ in range(60):
        manual.step()
        sgd.step()
        assert bits(manual) == bits(sgd)
        assert manual.lr == sgd.lr
        before, loss = loss, manual.objective.loss(POST).item()
        assert loss <= before


def test_successive_gradients_of_the_network_are_orthogonal():
    run = Manual(SigmoidNet(start=1).double(), POST, descent=Steepest())
    before = None
    for _ in range(50):
        now = torch.cat([g.flatten() for g in run.objective.gradient(POST).values()])
        if before is not None:
            # 1e-12: the root is known to about 1e-13 of the step, along which the slope has fallen
            # from |before|²; |now| is no less than a tenth of |before| here.
            assert abs(before @ now) <= 1e-12 * before.norm() * now.norm()
        run.step()
        before = now


def test_steepest_leaves_the_weights_in_place():
    net = SigmoidNet().double()
    run = Manual(net, POST, descent=Steepest())
    addresses = [weight.data_ptr() for weight in run.weights.values()]
    run.step()
    assert [w.data_ptr() for _, w in run.objective.named_parameters()] == addresses


@pytest.mark.parametrize("trainer", [Manual, SGD])
@pytest.mark.parametrize("option", ["momentum", "weight_decay"])
def test_steepest_takes_no_momentum_and_no_weight_decay(trainer, option):
    with pytest.raises(ValueError, match=f"no .*{option}"):
        trainer(SigmoidNet(), POST, descent=Steepest(), **{option: 0.1})


@pytest.mark.parametrize("descent", [Stochastic(3), Steepest()], ids=["stochastic", "steepest"])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_manual_is_sgd_down_and_up(descent, maximize, dtype):
    net, rows = SigmoidNet(start=2).to(dtype), Rows(*(t.to(dtype) for t in POST))
    options = {"maximize": maximize, "descent": descent}
    manual, sgd = (t(net, rows, 0.5, **options) for t in (Manual, SGD))
    first = net.loss(rows)
    for _ in range(30):
        manual.step()
        sgd.step()
        assert bits(manual) == bits(sgd)
    assert (manual.objective.loss(rows) > first) == maximize
