"""What people have reported as "mine differs from PyTorch's", each told its true cause."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from gdtorch import lockstep

pytestmark = pytest.mark.usefixtures("one_thread")


def by_hand(start, update):
    """Weights as NumPy has them; `update` maps weights, a state and the step to the next ones."""
    w, state, step = dict(start), {}, 0
    while True:
        yield dict(w)
        w = update(w, state, step)
        step += 1


def by_torch(start, loss, make, *, zero=True, twice=False, clip=None, schedule=None):
    """Weights as torch.optim has them, trained in a loop as one writes it."""
    w = {n: torch.tensor(a).requires_grad_() for n, a in start.items()}
    optimizer = make(w.values())
    scheduler = schedule(optimizer) if schedule else None
    if twice:
        loss(w).backward()
    step = 0
    while True:
        yield w
        if zero and not (twice and step == 0):
            optimizer.zero_grad()
        loss(w).backward()
        if clip:
            clip(w.values())
        optimizer.step()
        if scheduler:
            scheduler.step()
        step += 1


def regression(seed, rows=24, inputs=5, outputs=1):
    """Inputs, targets, initial weights, and the gradients of the mean squared error by hand."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs))
    start = {"w": rng.normal(size=(inputs, outputs)), "b": rng.normal(size=outputs)}

    def gradient(w):
        error = 2 / y.size * (x @ w["w"] + w["b"] - y)
        return {"w": x.T @ error, "b": error.sum(0)}

    tx, ty = torch.tensor(x), torch.tensor(y)
    return start, gradient, lambda w: mse_loss(tx @ w["w"] + w["b"], ty)


def sgd(**options):
    return lambda parameters: torch.optim.SGD(parameters, **options)


def adam_without_correction():
    start, gradient, loss = regression(11)

    def update(w, s, _):
        g = gradient(w)
        for n in w:
            m, v = s.get(n, (0.0, 0.0))
            s[n] = 0.9 * m + 0.1 * g[n], 0.999 * v + 0.001 * g[n] ** 2
        return {n: w[n] - 1e-3 * s[n][0] / (np.sqrt(s[n][1]) + 1e-8) for n in w}

    def make(parameters):
        return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)

    return by_hand(start, update), by_torch(start, loss, make)


def adam_without_zero_grad():
    start, _, loss = regression(35)

    def make(parameters):
        return torch.optim.Adam(parameters, lr=1e-2)

    return by_torch(start, loss, make, zero=False), by_torch(start, loss, make)


def clip_each_weight():
    rng = np.random.default_rng(21)
    x, y = torch.tensor(rng.normal(size=(24, 5))), torch.tensor(3 * rng.normal(size=(24, 1)))
    start = {
        "w1": rng.normal(size=(5, 6)),
        "b1": np.zeros(6),
        "w2": rng.normal(size=(6, 1)),
        "b2": np.zeros(1),
    }

    def loss(w):
        return mse_loss(torch.tanh(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"], y)

    def each(parameters):
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_([parameter], 0.5)

    def together(parameters):
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)

    make = sgd(lr=0.05)
    return by_torch(start, loss, make, clip=each), by_torch(start, loss, make, clip=together)


def dampened_first_step():
    start, gradient, loss = regression(34)

    def update(w, v, _):
        g = gradient(w)
        for n in w:
            v[n] = 0.9 * v.get(n, 0.0) + 0.5 * g[n]
        return {n: w[n] - 0.05 * v[n] for n in w}

    make = sgd(lr=0.05, momentum=0.9, dampening=0.5)
    return by_hand(start, update), by_torch(start, loss, make)


def first_step_counted_twice():
    rng = np.random.default_rng(31)
    x, y = torch.tensor(rng.normal(size=(24, 5))), torch.tensor(rng.integers(0, 3, 24))
    start = {"w": rng.normal(size=(5, 3)), "b": np.zeros(3)}

    def loss(w):
        return cross_entropy(x @ w["w"] + w["b"], y)

    def make(parameters):
        return torch.optim.AdamW(parameters, lr=1e-3)

    return by_torch(start, loss, make, twice=True), by_torch(start, loss, make)


def first_step_counted_twice_by_sgd():
    start, _, loss = regression(31)
    make = sgd(lr=0.05)
    return by_torch(start, loss, make, twice=True), by_torch(start, loss, make)


def decay_in_adam_and_outside():
    start, _, loss = regression(13)
    mine, theirs = (
        lambda parameters, kind=kind: kind(parameters, lr=1e-2, weight_decay=0.01)
        for kind in (torch.optim.Adam, torch.optim.AdamW)
    )
    return by_torch(start, loss, mine), by_torch(start, loss, theirs)


def lr_inside_the_velocity():
    start, gradient, loss = regression(2)

    def update(w, v, step):
        g = gradient(w)
        for n in w:
            v[n] = 0.9 * v.get(n, 0.0) - (0.1 if step < 10 else 0.01) * g[n]
        return {n: w[n] + v[n] for n in w}

    def schedule(optimizer):
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [10], 0.1)

    make = sgd(lr=0.1, momentum=0.9)
    return by_hand(start, update), by_torch(start, loss, make, schedule=schedule)


def mean_over_all_elements():
    start, gradient, loss = regression(20, rows=20, inputs=4, outputs=3)

    def update(w, *_):
        g = gradient(w)
        return {n: w[n] - 0.05 * 3 * g[n] for n in w}  # the mean over rows alone

    return by_hand(start, update), by_torch(start, loss, sgd(lr=0.05))


def rmsprop_eps_in_the_root():
    start, gradient, loss = regression(6)

    def update(w, s, _):
        g = gradient(w)
        for n in w:
            s[n] = 0.99 * s.get(n, 0.0) + 0.01 * g[n] ** 2
        return {n: w[n] - 6e-3 * g[n] / np.sqrt(s[n] + 0.01) for n in w}

    def make(parameters):
        return torch.optim.RMSprop(parameters, lr=6e-3, alpha=0.99, eps=0.01)

    return by_hand(start, update), by_torch(start, loss, make)


def stale_momentum():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(20, 4)), (rng.normal(size=(20, 1)) > 0).astype(float)
    start = {"w": rng.normal(size=(4, 1)), "b": np.zeros(1)}
    tx, ty = torch.tensor(x), torch.tensor(y)

    def update(w, v, _):
        d = (1 / (1 + np.exp(-(x @ w["w"] + w["b"]))) - y) / len(x)
        g, old = {"w": x.T @ d, "b": d.sum(0)}, {n: v.get(n, 0.0) for n in w}
        for n in w:
            v[n] = 0.5 * old[n] + 0.5 * g[n]
        return {n: w[n] - 0.5 * 0.5 * old[n] for n in w}

    def loss(w):
        return binary_cross_entropy_with_logits(tx @ w["w"] + w["b"], ty)

    return by_hand(start, update), by_torch(start, loss, sgd(lr=0.25, momentum=0.5))


def bias_from_weight_gradient():
    start, gradient, loss = regression(16)

    def update(w, *_):
        g = gradient(w)
        g["b"] = g["w"].sum(0)
        return {n: w[n] - 0.03 * g[n] for n in w}

    return by_hand(start, update), by_torch(start, loss, sgd(lr=0.03))


def tanh_prime_of_input():
    start = {"w_h": np.array([2.0]), "w_y": np.array([40.0])}

    def update(w, *_):
        w_h, w_y = float(w["w_h"][0]), float(w["w_y"][0])
        z1 = w_h * 0.5
        h1 = math.tanh(z1)
        z2 = w_h * h1
        d2 = w_y * (1 - z2**2)
        g_h = h1 * d2 + 0.5 * d2 * w_h * (1 - z1**2)
        return {"w_h": np.array([w_h - 1e-4 * g_h]), "w_y": np.array([w_y - 1e-4 * math.tanh(z2)])}

    def loss(w):
        return (w["w_y"] * torch.tanh(w["w_h"] * torch.tanh(w["w_h"] * 0.5))).sum()

    return by_hand(start, update), by_torch(start, loss, sgd(lr=1e-4))


def targets_broadcast(optimizer):
    rng = np.random.default_rng(23)
    x = rng.normal(size=(32, 6))
    tx, ty = torch.tensor(x), torch.tensor(np.sin(x).sum(1))
    start = {"w1": rng.normal(size=(6, 8)) * 0.4, "b1": np.zeros(8)}
    start |= {"w2": rng.normal(size=(8, 1)) * 0.4, "b2": np.zeros(1)}

    def against(y):
        def loss(w):
            o = torch.relu(tx @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
            return ((o - y) ** 2).mean()

        return loss

    def make(parameters):
        return optimizer(parameters, lr=1e-3)

    return by_torch(start, against(ty), make), by_torch(start, against(ty[:, None]), make)


def bias_not_zeroed():
    start, gradient, loss = regression(71)

    def update(w, added, _):
        g = gradient(w)
        g["b"] = added["b"] = added.get("b", 0.0) + g["b"]
        return {n: w[n] - 0.02 * g[n] for n in w}

    return by_hand(start, update), by_torch(start, loss, sgd(lr=0.02))


def adam_of_a_sum():
    start, gradient, loss = regression(83)

    def update(w, s, step):
        t, g = step + 1, gradient(w)
        for n in w:
            m, v = s.get(n, (0.0, 0.0))
            s[n] = 0.9 * m + 0.1 * 4 * g[n], 0.999 * v + 0.001 * (4 * g[n]) ** 2
        hats = {n: (m / (1 - 0.9**t), v / (1 - 0.999**t)) for n, (m, v) in s.items()}
        return {n: w[n] - 0.01 * m / (np.sqrt(v) + 1e-3) for n, (m, v) in hats.items()}

    def make(parameters):
        return torch.optim.Adam(parameters, lr=0.01, eps=1e-3)

    return by_hand(start, update), by_torch(start, loss, make)


def decay_of_another_weight():
    rng = np.random.default_rng(60)
    x, y = torch.tensor(rng.normal(size=(24, 4))), torch.tensor(rng.normal(size=(24, 2)))
    start = {n: rng.normal(size=s) / 2 for n, s in (("w1", (4, 5)), ("w2", (5, 5)), ("w3", (5, 2)))}

    def loss(w):
        return mse_loss(torch.tanh(torch.tanh(x @ w["w1"]) @ w["w2"]) @ w["w3"], y)

    def update(w, *_):
        live = {n: torch.tensor(a).requires_grad_() for n, a in w.items()}
        loss(live).backward()
        decay = {"w1": 0.2, "w2": 0.1, "w3": 0.0}
        return {n: w[n] - 0.05 * (live[n].grad.numpy() + decay[n] * w[n]) for n in w}

    return by_hand(start, update), by_torch(start, loss, sgd(lr=0.05, weight_decay=0.1))


NAMED = {
    adam_of_a_sum: "scale",
    bias_not_zeroed: "gradients not zeroed",
    adam_without_correction: "bias correction",
    adam_without_zero_grad: "gradients not zeroed",
    clip_each_weight: "clipping",
    dampened_first_step: "dampening in the first step",
    first_step_counted_twice: "gradients not zeroed",
    first_step_counted_twice_by_sgd: "gradients not zeroed",
    decay_in_adam_and_outside: "decoupled weight decay",
    lr_inside_the_velocity: "lr within the velocity",
    mean_over_all_elements: "scale",
    rmsprop_eps_in_the_root: "eps",
}
GRADIENTS = {  # a gradient itself is wrong: how, and in which weights
    bias_from_weight_gradient: ("bias gradient", ("b",)),
    tanh_prime_of_input: ("derivative", ("w_h",)),
}


@pytest.mark.parametrize("report", NAMED, ids=lambda report: report.__name__)
def test_the_true_cause_is_named(report):
    found = lockstep(*report(), 40)
    assert found.cause == NAMED[report], str(found)
    assert found.reproduced >= 10
    assert found.residual <= 1


def test_gradients_of_one_weight_that_add_up_are_no_momentum():
    report = lockstep(*bias_not_zeroed(), 40)
    assert report.factor == 1
    assert "it adds each gradient of b to those of the steps before" in str(report)


def test_a_function_that_gives_other_weights_their_gradients_is_not_suspected():
    report = lockstep(*decay_of_another_weight(), 20)
    assert report.diagnosis.weights == ("w1", "w3")
    assert "matmul" not in str(report)


def test_two_mistakes_at_once_are_both_named():
    found = lockstep(*stale_momentum(), 40)
    assert {edit.what: edit.mine for edit in found.edits} == {"old_velocity": True, "gradient": 0.5}


def test_a_mean_over_rows_alone_is_told_from_one_over_all_elements():
    found = lockstep(*mean_over_all_elements(), 40, rows=20)
    assert found.factor == pytest.approx(3)
    assert "a mean over the rows where theirs takes that over all 3 outputs, too" in str(found)


@pytest.mark.parametrize("report", GRADIENTS, ids=lambda report: report.__name__)
def test_what_is_wrong_with_a_gradient_is_named_with_its_weights(report):
    found = lockstep(*report(), 20)
    assert (found.cause, found.diagnosis.weights) == GRADIENTS[report], str(found)
    assert found.reproduced == 20
    assert found.residual <= 1


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_targets_that_broadcast_are_named_whatever_the_optimizer(optimizer):
    found = lockstep(*targets_broadcast(optimizer), 30)
    assert found.cause == "broadcast", str(found)
    assert "targets of shape (n,) from outputs of shape (n, 1)" in str(found)


def relu(seed, dtype, activation):
    """An honest pair: a network by hand in NumPy, and by torch.optim.SGD."""
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(40, k)).astype(dtype) for k in (8, 1))
    start = {"w1": rng.normal(size=(8, 16)) * 0.35, "b1": np.zeros(16)}
    start |= {"w2": rng.normal(size=(16, 1)) * 0.25, "b2": np.zeros(1)}
    start = {n: w.astype(dtype) for n, w in start.items()}
    tx, ty = torch.tensor(x), torch.tensor(y)

    def update(w, *_):
        z = x @ w["w1"] + w["b1"]
        if activation == "relu":
            hidden, slope = np.maximum(z, 0), (z > 0).astype(dtype)
        else:
            hidden = np.tanh(z)
            slope = 1 - hidden**2
        d = dtype(2 / 40) * (hidden @ w["w2"] + w["b2"] - y)
        back = d @ w["w2"].T * slope
        g = {"w1": x.T @ back, "b1": back.sum(0), "w2": hidden.T @ d, "b2": d.sum(0)}
        return {n: w[n] - dtype(0.1) * g[n] for n in w}

    def loss(w):
        hidden = getattr(torch, activation)(tx @ w["w1"] + w["b1"])
        return mse_loss(hidden @ w["w2"] + w["b2"], ty)

    return by_hand(start, update), by_torch(start, loss, sgd(lr=0.1))


def test_an_honest_relu_network_agrees():
    assert lockstep(*relu(0, np.float32, "relu"), 300)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_honest_networks_agree_over_a_thousand_steps(activation, dtype):
    for seed in range(40):
        assert lockstep(*relu(seed, dtype, activation), 1000), f"seed {seed}"
