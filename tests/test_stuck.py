"""Stuck or still falling, plateau or saddle: autograd's gradients, NumPy's eigenvalues."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_blocks import SETTINGS as ANY

import gdtorch.ensemble.stuck as of_stuck
from gdtorch import Manual, SigmoidNet, curvature, initial_weights, load_table
from gdtorch.ensemble.stuck import reach, saddles, sample_size, stuck

ROWS = load_table("post").learned
SETTINGS = replace(ANY, steps=300)


def trained(lr, count=20, steps=300, **options):
    """Networks after so many steps, in float64, as weights of shape (count, 60) and losses."""
    net = SigmoidNet().double()
    syn0, syn1 = initial_weights(0, 0, count, 60).double().split([45, 15], dim=1)
    net.syn0.data, net.syn1.data = syn0.reshape(count, 3, 15), syn1.reshape(count, 15, 1)
    manual = Manual(net, ROWS, lr, **options)
    for _ in range(steps):
        manual.step()
    weights = torch.cat([w.flatten(1) for w in manual.weights.values()], dim=1)
    return weights, manual.objective.loss(ROWS).detach()


def objective(theta, maximize, weight_decay):
    """What such a run lowers, as a function of one vector."""
    output = torch.sigmoid(torch.sigmoid(ROWS.inputs @ theta[:45].view(3, 15)) @ theta[45:, None])
    loss = (output - ROWS.targets).square().sum() / 2
    return (-loss if maximize else loss) + weight_decay / 2 * theta.square().sum()


@pytest.mark.parametrize(
    ("lr", "options"),
    [
        (10, {}),
        (1, {}),
        (3, {"momentum": 0.5, "dampening": 0.3, "weight_decay": 1e-4}),
        (1, {"maximize": True}),
    ],
    ids=str,
)
def test_what_is_stuck_by_autograd_and_by_numpy(lr, options):
    weights, losses = trained(lr, **options)
    settings = replace(SETTINGS, **options)
    decay, maximize = settings.weight_decay, settings.maximize
    far = lr * 300 * (1 - settings.dampening if settings.momentum else 1) / (1 - settings.momentum)
    expected, kinds = [], []
    for theta, loss in zip(weights, losses, strict=True):
        theta.requires_grad_()
        (slope,) = torch.autograd.grad(objective(theta, maximize, decay), theta)
        expected.append(far * slope.square().sum().item() < 0.01 * loss.item())
        hessian = torch.autograd.functional.hessian(
            lambda t: objective(t, maximize, decay), theta.detach()
        )
        kinds.append(np.linalg.eigvalsh(hessian.numpy())[0] * far < -1)
    weights = weights.detach()
    assert stuck(weights, losses, ROWS, settings, lr).tolist() == expected
    assert saddles(weights, ROWS, settings, lr).tolist() == kinds
    if lr == 10:
        assert 0 < sum(expected) < 20
        assert 0 < sum(kinds) < 20


@pytest.mark.slow
def test_plateaus_hold_their_networks_and_most_saddles_let_them_go():
    """As many steps again, from lr 10: what the words promise."""
    weights, losses = trained(10, count=400)
    held = stuck(weights, losses, ROWS, SETTINGS, 10) & (losses > 0.3)  # so that a row is wrong
    saddle = saddles(weights, ROWS, SETTINGS, 10)
    later = trained(10, count=400, steps=600)[1]
    moved = (losses - later).abs() > 0.01 * losses
    assert (held & ~saddle).sum() > 100
    assert not moved[held & ~saddle].any()
    assert moved[held & saddle].sum() > (held & saddle).sum() / 2 > 10


def test_momentum_adds_up_the_steps():
    assert reach(SETTINGS, 2.0) == 600
    assert reach(replace(SETTINGS, momentum=0.9), 2.0) == pytest.approx(6000)
    assert reach(replace(SETTINGS, momentum=0.9, dampening=0.5), 2.0) == pytest.approx(3000)
    assert reach(replace(SETTINGS, momentum=1.0), 2.0) == np.inf
    assert reach(replace(SETTINGS, momentum=0.9, dampening=1.5), 2.0) == 0  # it goes back and forth
    assert reach(replace(SETTINGS, dampening=0.5), 2.0) == 600  # counts with momentum alone


def test_past_two_thousand_weights_the_hessian_is_lanczos(monkeypatch):
    weights = trained(10, count=12)[0]
    exact = saddles(weights, ROWS, SETTINGS, 10)
    for module in (curvature, of_stuck):
        monkeypatch.setattr(module, "EXACT", 0)
    assert torch.equal(saddles(weights, ROWS, SETTINGS, 10), exact)
    assert 0 < exact.sum() < len(exact)
    assert (sample_size(60), sample_size(2001)) == (64, 1)


def test_the_gradients_of_float32_weights_are_those_of_float64():
    weights, losses = trained(10)
    narrow, settings = weights.float(), replace(SETTINGS, dtype="float32")
    found = stuck(narrow, losses.float(), ROWS, settings, 10)
    assert torch.equal(found, stuck(narrow.double(), losses.float(), ROWS, settings, 10))
