"""What updates alone tell, where theirs is no PyTorch code, or steps by a rule of its own."""

import numpy as np
import pytest
import torch

from gdtorch import lockstep

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(0)
START, *GRADIENTS = ({"w": RNG.normal(size=20), "b": RNG.normal(size=4)} for _ in range(4))


def descend(factor=1.0, factors=(), decay=0.0, momentum=0.0, dampening=0.0, zero=True, at=()):
    """Three steps along the same gradients, whatever the weights are."""
    w, velocity, added = dict(START), dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0)
    yield dict(w)
    for step, gradients in enumerate(GRADIENTS, start=1):
        for name, fresh in gradients.items():
            added[name] = fresh if zero else added[name] + fresh
            g = factor * dict(factors).get(name, 1.0) * added[name] + decay * w[name]
            share = 1 - dampening if step > 1 else 1
            velocity[name] = momentum * velocity[name] + share * g
            w[name] = w[name] - 0.1 * dict(at).get(step, 1.0) * velocity[name]
        yield dict(w)


# Options → the cause, its factor where mine has them, and where theirs has them, with lr known.
TOLD = {
    "sign": ({"factor": -1.0}, -1, -1),
    "scale": ({"factor": 2.0}, 2, 0.5),
    "scale of one weight": ({"factors": {"b": 3.0}}, {"b": 3}, {"b": 1 / 3}),
    "weight that never moves": ({"factors": {"b": 0.0}}, None, None),
    "weight decay": ({"decay": 0.2}, 0.2, -0.2),
    "momentum": ({"momentum": 0.7}, 0.7, -0.7),
    "dampening": ({"momentum": 0.7, "dampening": 0.4}, 0.6, 1 / 0.6),
    "gradients not zeroed": ({"zero": False}, 1, -1),
    "step size schedule": ({"at": {2: 0.3}}, 0.3, 1 / 0.3),
}


@pytest.mark.parametrize("cause", TOLD)
def test_numpy_beside_numpy(cause):
    options, mine, theirs = TOLD[cause]
    for pair, factor in (
        ((descend(**options), descend()), mine),
        ((descend(), descend(**options)), theirs),
    ):
        found = lockstep(*pair, lr=0.1)
        assert found.cause == cause, str(found)
        assert found.factor == (None if factor is None else pytest.approx(factor)), str(found)
        assert "Theirs was not seen to train in PyTorch" in str(found)
        assert 1 <= found.reproduced <= 2  # of the three steps those that began alike


def test_numpy_beside_numpy_agrees():
    def otherwise():
        for weights in descend(momentum=0.7):
            yield {name: weight * (1 + 1e-16 * np.sign(weight)) for name, weight in weights.items()}

    assert lockstep(otherwise(), descend(momentum=0.7))


def test_without_lr_a_decay_is_called_lr_times_it():
    found = lockstep(descend(decay=0.2), descend())
    assert found.factor == pytest.approx(0.02)
    assert "has 0.02 more lr * weight_decay than theirs" in str(found)


def test_what_either_of_two_explains_is_named_by_none():
    """Two updates alike: the second one of mine is larger by a momentum, or by another lr."""
    g = {"w": np.linspace(1, 2, 20)}

    def steps(*rates):
        w = np.linspace(-3, 1, 20)
        yield {"w": w}
        for rate in rates:
            w = w - rate * g["w"]
            yield {"w": w}

    found = lockstep(steps(0.1, 0.15), steps(0.1, 0.1))
    assert found.cause == "unexplained"
    assert "momentum and step size schedule look alike in so few steps" in str(found)


class Momentum(torch.optim.Optimizer):
    """SGD with momentum, by other names."""

    def __init__(self, params, rate=0.1, keep=0.9):
        super().__init__(params, {"rate": rate, "keep": keep})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                p.sub_(v.mul_(group["keep"]).add_(p.grad), alpha=group["rate"])


class Lion(torch.optim.Optimizer):
    """A rule that torch.optim has not (Chen et al., 2023)."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.sub_((0.9 * m + 0.1 * p.grad).sign(), alpha=group["lr"])
                m.mul_(0.99).add_(p.grad, alpha=0.01)


X, Y = torch.from_numpy(RNG.normal(size=(30, 4))), torch.from_numpy(RNG.normal(size=(30, 2)))
WEIGHTS = {"w1": RNG.normal(size=(4, 6)), "w2": RNG.normal(size=(6, 2))}


def trained(make, loss=torch.nn.functional.mse_loss):
    w = {name: torch.tensor(array, requires_grad=True) for name, array in WEIGHTS.items()}
    optimizer = make(w.values())
    while True:
        yield w
        optimizer.zero_grad()
        loss(torch.tanh(X @ w["w1"]) @ w["w2"], Y).backward()
        optimizer.step()


def by_hand(keep=0.9, wrong=False):
    w, v = dict(WEIGHTS), dict.fromkeys(WEIGHTS, 0.0)
    while True:
        yield dict(w)
        h = np.tanh(X.numpy() @ w["w1"])
        delta = 2 * (h @ w["w2"] - Y.numpy()) / Y.numel()
        back = delta @ w["w2"].T * (1 if wrong else 1 - h**2)
        for name, g in (("w1", X.numpy().T @ back), ("w2", h.T @ delta)):
            v[name] = keep * v[name] + g
            w[name] = w[name] - 0.1 * v[name]


@pytest.mark.slow
def test_an_optimizer_of_ones_own_is_replayed_as_the_rule_that_it_is():
    assert lockstep(by_hand(), trained(Momentum), 20)
    found = lockstep(by_hand(keep=0.5), trained(Momentum), 20)
    assert "theirs: Momentum, which does as SGD(lr=0.1, momentum=0.9)" in str(found)
    assert (found.cause, found.reproduced) == ("momentum", 20)
    found = lockstep(by_hand(wrong=True), trained(Momentum), 20)
    assert found.cause == "derivative"
    assert "leaves out tanh′" in str(found)


def test_a_class_of_ones_own_that_is_named_as_torchs_is_not_taken_for_it():
    own = type("SGD", (Momentum,), {})
    found = lockstep(trained(lambda w: own(w, keep=0.5)), trained(Momentum), 20)
    assert found.cause == "momentum"
    assert "seen in mine" not in str(found)


def test_of_a_rule_that_is_not_replayed_the_updates_are_looked_at():
    found = lockstep(trained(lambda w: Lion(w, lr=0.02)), trained(Lion), 20)
    assert (found.cause, found.factor, found.reproduced) == ("scale", pytest.approx(2), 20)
    assert "makes 2 times theirs' update" in str(found)
    assert "½" not in str(found)  # the loss is no part of these updates


@pytest.mark.slow
def test_of_a_rule_that_is_not_replayed_it_is_said_what_was_seen():
    found = lockstep(trained(Lion, torch.nn.functional.l1_loss), trained(Lion), 20)
    assert found.cause == "unexplained"
    assert "mine has other values from its l1_loss on, where theirs has mse_loss" in str(found)


def lbfgs(lr):
    w = {name: torch.tensor(array, requires_grad=True) for name, array in WEIGHTS.items()}
    optimizer = torch.optim.LBFGS(w.values(), lr=lr)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.mse_loss(torch.tanh(X @ w["w1"]) @ w["w2"], Y)
        value.backward()
        return value

    while True:
        yield w
        optimizer.step(loss)


@pytest.mark.slow
def test_of_a_rule_that_is_not_replayed_other_options_are_said():
    found = lockstep(lbfgs(0.5), lbfgs(1.0), 10)
    assert found.cause == "unexplained"
    assert "mine's LBFGS has lr 0.5, theirs has 1.0" in str(found)


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("by", [1e-3, pytest.param(np.nan, marks=pytest.mark.slow)], ids=str)
def test_an_element_outside_the_sample_is_not_overlooked(at, by):
    """Of a million, a few thousand are kept for the replay."""
    start = np.random.default_rng(0).normal(size=(1000, 1000))

    def theirs():
        w = torch.tensor(start, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        while True:
            yield {"w": w}
            optimizer.zero_grad()
            w.square().sum().backward()
            optimizer.step()

    def mine(wrong):
        w = start
        for step in range(6):
            yield {"w": w}
            w = w - 0.1 * (w + w)
            if wrong and step + 1 == at:
                w[123, 456] += by

    assert lockstep(mine(wrong=False), theirs(), 5)
    found = lockstep(mine(wrong=True), theirs(), 5)
    assert found.cause == ("unexplained" if by == 1e-3 else "not finite"), str(found)
    assert found.diagnosis.step == at
    assert found.first_difference.index == (123, 456)
