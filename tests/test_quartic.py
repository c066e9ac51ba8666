"""f(x) = x⁴/4 − x³ + x²: against exact arithmetic, and the same bits by hand and by autograd."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gdtorch import SGD, Manual, Quartic, Steepest
from gdtorch.quartic import NO_ROWS, kind_of_point

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NEAR = st.floats(-10, 12)


def exact(x):
    """f, f′ and f″ at a float, in rational numbers, as the post writes them."""
    x = Fraction(x)
    return x**4 / 4 - x**3 + x**2, x * (x - 1) * (x - 2), 3 * x**2 - 6 * x + 2


@given(NEAR)
def test_values_are_those_of_the_polynomial(x):
    quartic = Quartic(x)
    f, slope, second = (float(value) for value in exact(x))
    # u² − 1 is right to eps · (u² + 1): one rounding of x − 1, one of its square, one of the
    # difference. In f it stands squared, in f′ times u.
    u = x - 1
    bound = 4 * np.finfo(float).eps * (u**2 + 1)
    assert abs(quartic.loss().item() - f) <= bound * (abs(u**2 - 1) + bound)
    assert abs(quartic.gradient()["x"].item() - slope) <= bound * (abs(u) + bound)
    assert abs(quartic.second_derivative().item() - second) <= 3 * bound


@given(FLOATS)
def test_the_derivative_by_hand_has_autograds_bits(x):
    quartic = Quartic(x)
    quartic.loss().backward()
    by_hand, autograd = quartic.gradient()["x"].numpy(), quartic.x.grad.numpy()
    if np.isfinite(quartic.loss().item()):
        assert by_hand.tobytes() == autograd.tobytes()


@given(st.lists(NEAR, min_size=1, max_size=40))
def test_many_x_at_once_are_as_one_by_one(points):
    together = Quartic(points)
    for i, x in enumerate(points):
        alone = Quartic(x)
        assert together.loss()[i] == alone.loss()
        assert together.gradient()["x"][i] == alone.gradient()["x"]


@pytest.mark.parametrize(
    ("x", "kind"),
    [(0, "minimum"), (1, "maximum"), (2, "minimum"), (1e-11, "minimum"), (0.5, "neither"),
     (3, "neither"), (1 + 3**-0.5, "neither"), (np.inf, "neither"), (np.nan, "neither")],
)  # fmt: skip
def test_the_kind_of_a_point(x, kind):
    assert kind_of_point(Quartic(float(x))) == kind


def test_the_three_points_of_the_post():
    quartic = Quartic([0.0, 1.0, 2.0])
    assert quartic.loss().tolist() == [0, 0.25, 0]
    assert quartic.gradient()["x"].tolist() == [0, 0, 0]
    assert quartic.second_derivative().tolist() == [2, -1, 2]


@pytest.mark.parametrize("draws", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_manual_is_sgd(draws):
    @settings(max_examples=draws)
    @given(NEAR, st.floats(0, 1), st.booleans(), st.booleans())
    def check(x, lr, maximize, steepest):
        options = {"maximize": maximize, **({"descent": Steepest()} if steepest else {})}
        manual, sgd = (trainer(Quartic(x), NO_ROWS, lr, **options) for trainer in (Manual, SGD))
        for _ in range(20):
            manual.step()
            sgd.step()
            one, other = manual.weights["x"], sgd.weights["x"]
            same = one.numpy().tobytes() == other.numpy().tobytes()
            assert same or (one.isnan() and other.isnan())

    check()


@given(NEAR)
def test_steepest_descent_is_in_a_valley_after_one_step(x):
    run = Manual(Quartic(x), NO_ROWS, descent=Steepest())
    run.step()
    end = run.weights["x"].item()
    if exact(x)[1] != 0 and run.lr != 0:
        # The search knows its step to 1024 eps at worst; f″ is 2 in both valleys.
        eps = np.finfo(float).eps
        assert abs(exact(end)[1]) <= 2 * (1024 * eps * abs(end - x) + eps)
        assert exact(end)[2] > 0
    assert run.objective.loss() <= Quartic(x).loss()


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (0.9, 0), (1, 1), (1.1, 2), (3, 2)])
def test_down_the_slope_each_start_finds_its_own_valley(start, end):
    run = Manual(Quartic(float(start)), NO_ROWS, 0.1)
    for _ in range(200):
        run.step()
    # x goes on until lr · f′ = 0.2 |x − 2| is less than eps, half a step between floats there.
    assert abs(run.weights["x"] - end) <= 5 * torch.finfo(torch.float64).eps
