"""Backward passes by hand as they stand in public repositories, each with its mistake."""

import numpy as np
import pytest
import torch
from backward import sigmoid, softmax
from torch.nn import functional as F  # noqa: N812

from gdtorch import lockstep

LR = 0.1


pytestmark = pytest.mark.usefixtures("one_thread")


def by_torch(start, loss):
    w = {n: torch.tensor(v).requires_grad_() for n, v in start.items()}
    optimizer = torch.optim.SGD(w.values(), lr=LR)
    while True:
        yield w
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()


def by_hand(start, step):
    w = start
    while True:
        yield w
        w = step(w)


def descended(gradient):
    return lambda w: {n: w[n] - LR * g for n, g in gradient(w).items()}


def embedding(wrong):
    """Rows of an embedding that are taken twice: grad[index] += g keeps the last."""
    rng = np.random.default_rng(0)
    index, y = np.array([[0, 1], [2, 0], [3, 3], [1, 4]]), np.array([0, 2, 1, 1])
    start = {"E": rng.normal(size=(5, 4)), "W": rng.normal(size=(4, 3))}

    def gradient(w):
        h = w["E"][index].sum(1)
        d = softmax(h @ w["W"])
        d[range(4), y] -= 1
        back, rows = np.zeros((5, 4)), np.repeat((d @ w["W"].T)[:, None], 2, 1) / 4
        if wrong:
            back[index] += rows
        else:
            np.add.at(back, index, rows)
        return {"E": back, "W": h.T @ d / 4}

    taken, targets = torch.tensor(index), torch.tensor(y)
    loss = lambda w: F.cross_entropy(F.embedding(taken, w["E"]).sum(1) @ w["W"], targets)  # noqa: E731
    return start, descended(gradient), loss


def layers():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    start = {"W": rng.normal(size=(3, 4)), "V": rng.normal(size=(4, 2))}

    def gradient(w, rows=slice(None)):
        """Of the mean over some rows."""
        h = sigmoid(x[rows] @ w["W"])
        d = 2 * (h @ w["V"] - y[rows]) / y[rows].size
        return {"V": h.T @ d, "W": x[rows].T @ (d @ w["V"].T * h * (1 - h))}

    tx, ty = torch.tensor(x), torch.tensor(y)
    return start, gradient, lambda w: F.mse_loss(torch.sigmoid(tx @ w["W"]) @ w["V"], ty)


def row_by_row(wrong):
    start, gradient, loss = layers()

    def step(w):
        for row in range(7):
            w = {n: w[n] - LR * g for n, g in gradient(w, slice(row, row + 1)).items()}
        return w

    return start, step if wrong else descended(gradient), loss


def micro_batches(wrong):
    start, gradient, loss = layers()

    def mean(w):
        parts = [gradient(w, slice(k, k + 3)) for k in (0, 3, 6)]
        return {n: sum(part[n] for part in parts) / 3 for n in w}

    return start, descended(mean if wrong else gradient), loss


def attention(wrong):
    """The scale 1/√d is forgotten on the way back."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    start = {n: rng.normal(size=(4, 4)) / 2 for n in ("Q", "K", "V")}

    def gradient(w):
        q, k, v = x @ w["Q"], x @ w["K"], x @ w["V"]
        a = softmax(q @ k.T / 2)
        d = 2 * (a @ v - y) / y.size
        da = d @ v.T
        dz = a * (da - (da * a).sum(1, keepdims=True)) / (1 if wrong else 2)
        return {"Q": x.T @ dz @ k, "K": x.T @ dz.T @ q, "V": x.T @ a.T @ d}

    tx, ty = torch.tensor(x), torch.tensor(y)

    def loss(w):
        q, k, v = tx @ w["Q"], tx @ w["K"], tx @ w["V"]
        return F.mse_loss(torch.softmax(q @ k.T / 2, dim=1) @ v, ty)

    return start, descended(gradient), loss


def leaky(wrong):
    """The slope of LeakyReLU is another on the way back."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 1))
    start = {"0.weight": rng.normal(size=(3, 4)) / 2, "2.weight": rng.normal(size=(4, 1)) / 2}

    def gradient(w):
        z = x @ w["0.weight"]
        h = np.where(z > 0, z, 0.2 * z)
        d = 2 * (h @ w["2.weight"] - y) / 6
        back = d @ w["2.weight"].T * np.where(z > 0, 1, 0.01 if wrong else 0.2)
        return {"0.weight": x.T @ back, "2.weight": h.T @ d}

    tx, ty = torch.tensor(x), torch.tensor(y)
    loss = lambda w: F.mse_loss(F.leaky_relu(tx @ w["0.weight"], 0.2) @ w["2.weight"], ty)  # noqa: E731
    return start, descended(gradient), loss


def gates(wrong):
    """The derivative of one gate is left out in each step of a recurrence."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(4, 3, 2)), rng.normal(size=(3, 4))
    start = {n: rng.normal(size=(6, 4)) / 2 for n in ("A", "B")}

    def gradient(w):
        h, kept = np.zeros((3, 4)), []
        for row in x:
            into = np.concatenate([h, row], 1)
            a, b = sigmoid(into @ w["A"]), np.tanh(into @ w["B"])
            kept.append((into, h, a, b))
            h = a * h + (1 - a) * b
        grads, dh = {"A": 0.0, "B": 0.0}, 2 * (h - y) / y.size
        for into, h, a, b in reversed(kept):
            da = dh * (h - b) * (1 if wrong else a * (1 - a))
            db = dh * (1 - a) * (1 - b * b)
            grads = {"A": grads["A"] + into.T @ da, "B": grads["B"] + into.T @ db}
            dh = dh * a + (da @ w["A"].T + db @ w["B"].T)[:, :4]
        return grads

    def loss(w):
        h = torch.zeros(3, 4, dtype=torch.float64)
        for row in torch.tensor(x):
            into = torch.cat([h, row], 1)
            a, b = torch.sigmoid(into @ w["A"]), torch.tanh(into @ w["B"])
            h = a * h + (1 - a) * b
        return F.mse_loss(h, torch.tensor(y))

    return start, descended(gradient), loss


SAID = {
    embedding: ("overwritten gradient", "rows that are taken several times (the only embedding"),
    row_by_row: ("updated too early", "updates its weights after each of the 7 rows"),
    micro_batches: (
        "unequal micro-batches",
        "micro-batches of 3 rows, though the last of them has 1",
    ),
    attention: ("derivative", "leaves out the divisor 2 (the only div; it reaches Q and K)"),
    leaky: ("derivative", "negative_slope=0.01 (the only leaky_relu, after module 0; it reaches"),
    gates: ("derivative", "leaves out σ′ (in each of 4 calls of sigmoid; it reaches A and B)"),
}


@pytest.mark.parametrize(
    "passes",
    [p if p is not gates else pytest.param(p, marks=pytest.mark.slow) for p in SAID],
    ids=lambda passes: passes.__name__,
)
def test_a_mistake_is_named_where_it_is_made(passes):
    start, step, loss = passes(wrong=True)
    report = lockstep(by_hand(start, step), by_torch(start, loss), 12)
    cause, text = SAID[passes]
    assert report.cause == cause, str(report)
    assert text in str(report), str(report)


@pytest.mark.parametrize("passes", SAID, ids=lambda passes: passes.__name__)
def test_without_it_the_two_agree(passes):
    start, step, loss = passes(wrong=False)
    report = lockstep(by_hand(start, step), by_torch(start, loss), 12)
    assert report.agree, str(report)


def test_a_search_that_has_no_time_says_how_far_it_came():
    start, step, loss = gates(wrong=True)
    report = lockstep(by_hand(start, step), by_torch(start, loss), 12, seconds=0)
    assert report.cause == "unexplained"
    assert "mistakes in the gradient 0 were tried until time was up" in str(report)
