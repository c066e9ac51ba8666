"""The Hessian and its eigenvalues; the limit of stable steps."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gdtorch.curvature import stable_limit


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
