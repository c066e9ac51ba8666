"""The Hessian against quotients and known spectra; Lanczos; the limit of stable steps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from gdtorch import Rows, SigmoidNet, curvature, load_table
from gdtorch.curvature import eigenvalues, extremes, hessian, stable_limit

POST = load_table("post").learned
NONE = Rows(torch.empty(0, 0), torch.empty(0, 0))
SQRT_EPSILON = math.sqrt(torch.finfo(torch.float64).eps)


class Quadratic(nn.Module):
    """½ θᵀ A θ, whose Hessian is A wherever θ stands."""

    def __init__(self, matrix):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(matrix), dtype=matrix.dtype))
        self.matrix = matrix

    def loss(self, _):
        return self.theta @ (self.matrix @ self.theta) / 2


def with_spectrum(values, seed=0):
    """A symmetric matrix with these eigenvalues, in random directions."""
    generator = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(generator.standard_normal((len(values), len(values))))
    return torch.from_numpy(directions * np.asarray(values, float) @ directions.T)


@pytest.mark.parametrize("start", range(5))
def test_hessian_against_difference_quotients_of_the_gradient_by_hand(start):
    net = SigmoidNet(start=start).double()
    theta = nn.utils.parameters_to_vector(net.parameters()).detach()
    h, columns = 1e-5, []
    for direction in torch.eye(60, dtype=torch.float64):
        ends = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(theta + sign * h * direction, net.parameters())
            ends.append(torch.cat([g.flatten() for g in net.gradient(POST).values()]))
        columns.append((ends[0] - ends[1]) / (2 * h))
    nn.utils.vector_to_parameters(theta, net.parameters())
    # A central quotient errs by h²/6 of a third derivative, and by ε/h: 1e-10 each.
    torch.testing.assert_close(hessian(net, POST), torch.stack(columns), rtol=0, atol=1e-9)


def test_hessian_of_a_quadratic_is_its_matrix():
    matrix = with_spectrum(np.linspace(-2, 5, 150))  # more weights than a chunk has
    symmetric = (matrix + matrix.T) / 2
    # Two additions and a halving: an ulp.
    torch.testing.assert_close(hessian(Quadratic(matrix), NONE), symmetric, rtol=1e-14, atol=1e-15)


def test_the_hessian_is_taken_at_the_present_weights_and_leaves_them_alone():
    net = SigmoidNet().double()
    first, before = hessian(net, POST), [w.detach().clone() for w in net.parameters()]
    assert all(map(torch.equal, before, net.parameters()))
    assert all(w.grad is None for w in net.parameters())
    with torch.no_grad():
        net.syn1 += 1
    assert not torch.allclose(hessian(net, POST), first)


def test_eigenvalues_are_numpys_in_ascending_order():
    net = SigmoidNet(start=3).double()
    matrix = hessian(net, POST).numpy()
    # Both solvers err by a few ε of the norm, which is about 1.
    np.testing.assert_allclose(eigenvalues(net, POST), np.linalg.eigvalsh(matrix), atol=1e-14)


SPECTRA = {
    "even": np.linspace(-1, 3, 300),
    "all but two in one cluster": [-1e-3, *[0.0] * 297, 1e-9, 2.0],
    "clustered at both ends": [*(-1 - 1e-10 * np.arange(100)), *(4 + 1e-10 * np.arange(100))],
    "negative, over twelve decades": -np.geomspace(1e-6, 1e6, 100),
    "one value": [3.0] * 50,
    "zero": [0.0] * 50,
    "the largest near the next": [*np.linspace(0, 1, 298), 1.999, 2.0],
}


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_lanczos_finds_the_ends_of_a_known_spectrum(spectrum, monkeypatch):
    monkeypatch.setattr(curvature, "EXACT", 0)
    smallest, largest = extremes(Quadratic(with_spectrum(spectrum)), NONE)
    tolerance = SQRT_EPSILON * np.abs(spectrum).max()
    assert abs(smallest - np.min(spectrum)) <= tolerance
    assert abs(largest - np.max(spectrum)) <= tolerance


@settings(max_examples=25)
@given(st.integers(2, 120), st.integers(0, 2**32), st.sampled_from(["even", "powers", "signs"]))
def test_lanczos_finds_the_ends_of_random_spectra(size, seed, kind):
    generator = np.random.default_rng(seed)
    spectrum = generator.standard_normal(size)
    if kind == "powers":
        spectrum = np.sign(spectrum) * 10 ** (4 * spectrum)
    elif kind == "signs":
        spectrum = np.sign(spectrum)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curvature, "EXACT", 0)
        ends = extremes(Quadratic(with_spectrum(spectrum, seed)), NONE)
    expected = (spectrum.min(), spectrum.max())
    assert np.abs(np.subtract(ends, expected)).max() <= SQRT_EPSILON * np.abs(spectrum).max()


def test_lanczos_computes_its_eigenvalues_seldom(monkeypatch):
    """They cost the cube of its steps, which are 2,000 here, since no error is small enough."""
    looks = []
    monkeypatch.setattr(curvature, "_ends", lambda *_: looks.append(1) or (0.0, 1.0, math.inf))
    diagonal = torch.linspace(0, 1, 100, dtype=torch.float64)
    with pytest.raises(ArithmeticError):
        curvature._lanczos(lambda v: diagonal * v, torch.ones_like(diagonal))
    assert 10 < len(looks) < 60  # at every tenth more: log 200 / log 1.1 = 56


def test_what_is_no_symmetric_matrix_is_refused():
    """A rotation of every plane has no real eigenvalues, which Lanczos' method never finds."""
    turn = torch.randn(50, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn -= turn.T.clone()
    with pytest.raises(ArithmeticError, match="does not converge"):
        curvature._lanczos(lambda v: turn @ v, torch.ones(50, dtype=torch.float64))


@pytest.mark.parametrize("start", range(5))
def test_lanczos_agrees_with_the_full_hessian_of_the_posts_network(start, monkeypatch):
    net = SigmoidNet(start=start).double()
    exact = extremes(net, POST)
    assert exact == (eigenvalues(net, POST)[0].item(), eigenvalues(net, POST)[-1].item())
    monkeypatch.setattr(curvature, "EXACT", 0)
    assert np.abs(np.subtract(extremes(net, POST), exact)).max() <= SQRT_EPSILON * exact[1]


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64], ids=str
)
def test_past_two_thousand_weights(dtype):
    """2,004 weights: too many for the full Hessian in `extremes`, few enough to write it here."""
    net = SigmoidNet(hidden=501).to(dtype)
    rows = Rows(*(t.to(dtype) for t in POST))
    values = np.linalg.eigvalsh(hessian(net, rows).double().numpy())
    tolerance = math.sqrt(torch.finfo(dtype).eps) * np.abs(values).max()
    assert np.abs(np.subtract(extremes(net, rows), values[[0, -1]])).max() <= tolerance
    assert extremes(net, rows) == extremes(net, rows)


@pytest.mark.parametrize("exact", [0, 2000])
def test_a_hessian_that_is_not_finite_has_no_eigenvalues(exact, monkeypatch):
    monkeypatch.setattr(curvature, "EXACT", exact)
    net = SigmoidNet().double()
    with torch.no_grad():
        net.syn1[0] = math.nan
    assert all(map(math.isnan, extremes(net, POST)))


def grows(sharpness, steps=4000, **options):
    """Whether torch.optim.SGD on ½ · sharpness · x² is farther from 0 at the end than halfway."""
    x = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    group = torch.optim.SGD([x], **options)  # refuses what is no option
    lr, momentum, dampening = (group.defaults[n] for n in ("lr", "momentum", "dampening"))
    weight, velocity, sizes = 1.0, None, []
    for _ in range(steps):
        gradient = (sharpness + group.defaults["weight_decay"]) * weight
        if momentum:
            fresh = (1 - dampening) * gradient
            velocity = gradient if velocity is None else momentum * velocity + fresh
            gradient = gradient + momentum * velocity if group.defaults["nesterov"] else velocity
        weight -= lr * gradient
        sizes.append(abs(weight))
        if not 1e-200 < sizes[-1] < 1e200:
            break
    half = len(sizes) // 2
    return max(sizes[half:]) > max(sizes[:half])


@given(
    st.floats(0.01, 10),
    st.just(0.0) | st.floats(0.1, 0.9),
    st.just(0.0) | st.floats(-1, 0.9),
    st.just(0.0) | st.floats(0.01, 0.1),
    st.booleans(),
)
def test_just_below_the_limit_steps_shrink_and_just_above_they_grow(
    lr, momentum, dampening, weight_decay, nesterov
):
    nesterov = nesterov and momentum > 0
    options = {
        "lr": lr,
        "momentum": momentum,
        "dampening": 0.0 if nesterov else dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
    }
    limit = stable_limit(**options)
    assume(limit > 0.01)
    # 1 % off shows within 4,000 steps: the slowest momentum here is 0.9.
    assert not grows(limit - 0.01 * (limit + weight_decay), **options)
    assert grows(limit + 0.01 * (limit + weight_decay), **options)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"lr": 0.5}, 4),
        ({"lr": 0.1, "momentum": 0.9}, 38),
        ({"lr": 0.1, "momentum": 0.9, "nesterov": True}, 3.8 / 0.28),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, 76),
        ({"lr": 0.1, "dampening": 0.5}, 20),
        ({"lr": 0.1, "dampening": 1.5}, 20),
        ({"lr": 0.5, "weight_decay": 1}, 3),
        ({"lr": 0.0}, math.inf),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 1}, math.inf),
    ],
)
def test_the_limits_by_arithmetic(options, limit):
    assert stable_limit(**options) == pytest.approx(limit, rel=1e-15)


@pytest.mark.parametrize("options", [{"momentum": 1}, {"momentum": 0.9, "dampening": 1.5}], ids=str)
def test_where_no_step_is_stable_there_is_no_limit(options):
    assert math.isnan(stable_limit(0.1, **options))
