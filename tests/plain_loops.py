"""Mismatches after public reports, as their authors have them: plain loops, names and shapes as is.

Each function returns mine, recorded, and theirs, a function that trains with torch.optim.
"""
# ruff: noqa: N806 (W1 is what people call it)

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gdtorch import Recorder

STEPS = 40


def linear(weight, bias=None):
    """An nn.Linear, which holds (out, in), that begins as a layer held (in, out)."""
    layer = nn.Linear(*weight.shape, bias=bias is not None)
    layer.weight = nn.Parameter(torch.tensor(weight.T.copy()))
    if bias is not None:
        layer.bias = nn.Parameter(torch.tensor(bias.reshape(-1)))
    return layer


def trained(model, make, loss, clip=None):
    """The training function that everybody writes; `clip` makes no norm exceed ½."""

    def train():
        net = model()
        optimizer = make(net.parameters())
        for _ in range(STEPS + 10):
            optimizer.zero_grad()
            loss(net).backward()
            if clip:
                clip(net.parameters(), 0.5)
            optimizer.step()

    return train


def regression(seed, outputs=1):
    """Rows, targets, a layer's weights and biases, (1, outputs) as NumPy code has them."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(24, 4)), rng.normal(size=(24, outputs))
    return x, y, rng.normal(size=(4, outputs)), np.zeros((1, outputs))


def mse(x, y):
    return lambda net: functional.mse_loss(net(torch.tensor(x)), torch.tensor(y))


def adam_without_correction():
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(30, 5)), (rng.normal(size=(30, 1)) > 0).astype(float)
    W1, b1 = rng.normal(size=(5, 6)) * 0.5, rng.normal(size=(1, 6)) * 0.1
    W2, b2 = rng.normal(size=(6, 1)) * 0.5, rng.normal(size=(1, 1)) * 0.1
    layers = linear(W1, b1), linear(W2, b2)
    record = Recorder()
    record(W1=W1, b1=b1, W2=W2, b2=b2)
    m, v = [0.0] * 4, [0.0] * 4
    for _ in range(STEPS):
        h = np.tanh(x @ W1 + b1)
        delta = (1 / (1 + np.exp(-(h @ W2 + b2))) - y) / len(x)
        back = delta @ W2.T * (1 - h**2)
        grads = x.T @ back, back.sum(0, keepdims=True), h.T @ delta, delta.sum(0, keepdims=True)
        for k, (w, g) in enumerate(zip((W1, b1, W2, b2), grads, strict=True)):
            m[k] = 0.9 * m[k] + 0.1 * g
            v[k] = 0.999 * v[k] + 0.001 * g**2
            w -= 1e-3 * m[k] / (np.sqrt(v[k]) + 1e-8)
        record(W1=W1, b1=b1, W2=W2, b2=b2)

    def loss(net):
        out = net(torch.tensor(x))
        return functional.binary_cross_entropy_with_logits(out, torch.tensor(y))

    return record, trained(
        lambda: nn.Sequential(layers[0], nn.Tanh(), layers[1]),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0),
        loss,
    )


def adam_without_zero_grad():
    x, y, W, b = regression(35, outputs=2)
    w, bias = torch.tensor(W, requires_grad=True), torch.tensor(b, requires_grad=True)
    optimizer = torch.optim.Adam([w, bias], lr=1e-2)
    record = Recorder()
    record(w=w, bias=bias)
    for _ in range(STEPS):
        out = torch.sigmoid(torch.tensor(x) @ w + bias)
        functional.mse_loss(out, torch.tensor(y)).backward()
        optimizer.step()
        record(w=w, bias=bias)

    return record, trained(
        lambda: nn.Sequential(linear(W, b), nn.Sigmoid()),
        lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        mse(x, y),
    )


def bias_from_weight_gradient():
    """Rows are columns here, and weights are (out, in)."""
    rng = np.random.default_rng(16)
    x, labels = rng.random(size=(6, 20)), rng.integers(0, 6, 20)
    W1, b1 = rng.normal(size=(4, 6)) * 0.5, rng.normal(size=(4, 1)) * 0.1
    W2, b2 = rng.normal(size=(6, 4)) * 0.5, rng.normal(size=(6, 1)) * 0.1
    layers = linear(W1.T, b1), linear(W2.T, b2)
    record, y = Recorder(), np.eye(6)[:, labels]
    record(W1=W1, W2=W2, b1=b1, b2=b2)
    for _ in range(STEPS):
        z = W1 @ x + b1
        h = np.maximum(z, 0)
        e = np.exp(W2 @ h + b2)
        delta = e / e.sum(0) - y
        back = W2.T @ delta * (z > 0)
        g1, g2 = back @ x.T / 20, delta @ h.T / 20
        W1, b1 = W1 - 0.03 * g1, b1 - 0.03 * g1.sum(1, keepdims=True)
        W2, b2 = W2 - 0.03 * g2, b2 - 0.03 * g2.sum(1, keepdims=True)
        record(W1=W1, W2=W2, b1=b1, b2=b2)

    return record, trained(
        lambda: nn.Sequential(layers[0], nn.ReLU(), layers[1]),
        lambda parameters: torch.optim.SGD(parameters, lr=0.03),
        lambda net: functional.cross_entropy(net(torch.tensor(x.T)), torch.tensor(labels)),
    )


def clip_each_weight():
    rng = np.random.default_rng(21)
    x, y = rng.normal(size=(24, 5)), 3 * rng.normal(size=(24, 1))
    W1, W2 = rng.normal(size=(5, 6)), rng.normal(size=(6, 1))

    def model():
        return nn.Sequential(linear(W1, np.zeros(6)), nn.Tanh(), linear(W2, np.zeros(1)))

    net, record = model(), Recorder()
    record(net)
    for _ in range(STEPS):
        net.zero_grad()
        mse(x, y)(net).backward()
        with torch.no_grad():
            for w in net.parameters():
                w -= 0.05 * w.grad * min(1, 0.5 / (w.grad.norm() + 1e-6))
        record(net)

    def make(parameters):
        return torch.optim.SGD(parameters, lr=0.05)

    return record, trained(model, make, mse(x, y), clip=nn.utils.clip_grad_norm_)


def dampened_first_step():
    x, y, W, b = regression(34)
    layer, record = linear(W, b), Recorder()
    record(W=W, b=b)
    vw, vb = 0, 0
    for _ in range(STEPS):
        error = 2 / len(x) * (x @ W + b - y)
        vw = 0.9 * vw + (1 - 0.5) * x.T @ error
        vb = 0.9 * vb + (1 - 0.5) * error.sum(0, keepdims=True)
        W -= 0.05 * vw
        b -= 0.05 * vb
        record(W=W, b=b)

    def make(parameters):
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, dampening=0.5)

    return record, trained(lambda: layer, make, mse(x, y))


def first_step_counted_twice(make=torch.optim.AdamW, lr=1e-3):
    rng = np.random.default_rng(31)
    x, y = torch.tensor(rng.normal(size=(24, 5))), torch.tensor(rng.integers(0, 3, 24))
    W, b = rng.normal(size=(5, 3)), np.zeros(3)
    w, bias = torch.tensor(W, requires_grad=True), torch.tensor(b, requires_grad=True)
    optimizer = make([w, bias], lr=lr)
    record = Recorder()
    functional.cross_entropy(x @ w + bias, y).backward()  # "does it run?"
    with record.steps_of(optimizer):
        for _ in range(STEPS):
            functional.cross_entropy(x @ w + bias, y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return record, trained(
        lambda: linear(W, b),
        lambda parameters: make(parameters, lr=lr),
        lambda net: functional.cross_entropy(net(x), y),
    )


def first_step_counted_twice_by_sgd():
    return first_step_counted_twice(torch.optim.SGD, lr=0.05)


def l2_in_adam():
    x, y, W, b = regression(13)
    mine, record = linear(W, b), Recorder()
    optimizer = torch.optim.Adam(mine.parameters(), lr=1e-2, weight_decay=0.01)
    with record.steps_of(optimizer):
        for _ in range(STEPS):
            optimizer.zero_grad()
            mse(x, y)(mine).backward()
            optimizer.step()

    def make(parameters):
        return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01)

    return record, trained(lambda: linear(W, b), make, mse(x, y))


def lr_inside_the_velocity():
    x, y, W, _ = regression(2)
    layer, record = linear(W), Recorder()
    record(w=W[:, 0])
    v = 0
    for step in range(STEPS):
        lr = 0.1 if step < 10 else 0.01
        v = 0.9 * v - lr * 2 / len(x) * x.T @ (x @ W - y)
        W += v
        record(w=W[:, 0])

    def train():
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10], 0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            mse(x, y)(layer).backward()
            optimizer.step()
            scheduler.step()

    return record, train


def mse_over_all_elements():
    x, y, W, b = regression(20, outputs=3)
    layer, record = linear(W, b), Recorder()
    record(W=W, b=b)
    for _ in range(STEPS):
        error = 2 / len(x) * (x @ W + b - y)
        W -= 0.05 * x.T @ error
        b -= 0.05 * error.sum(0)
        record(W=W, b=b)

    return record, trained(lambda: layer, lambda p: torch.optim.SGD(p, lr=0.05), mse(x, y))


def nesterov_seen_elsewhere():
    x, y, W, b = regression(26)
    layer, record = linear(W, b), Recorder()
    record(W=W, b=b)
    v, u = np.zeros_like(W), np.zeros_like(b)
    for _ in range(STEPS):
        error = 2 / len(x) * (x @ (W + 0.9 * v) + b + 0.9 * u - y)
        v = 0.9 * v - 0.05 * x.T @ error
        u = 0.9 * u - 0.05 * error.sum(0)
        W, b = W + v, b + u
        record(W=W, b=b)

    def make(parameters):
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True)

    return record, trained(lambda: layer, make, mse(x, y))


def rmsprop_eps_in_the_root():
    x, y, W, b = regression(6)
    layer, record = linear(W, b), Recorder()
    record(W=W, b=b)
    sw = sb = 0
    for _ in range(STEPS):
        error = 2 / len(x) * (x @ W + b - y)
        gw, gb = x.T @ error, error.sum(0)
        sw, sb = 0.99 * sw + 0.01 * gw**2, 0.99 * sb + 0.01 * gb**2
        W -= 6e-3 * gw / np.sqrt(sw + 0.01)
        b -= 6e-3 * gb / np.sqrt(sb + 0.01)
        record(W=W, b=b)

    def make(parameters):
        return torch.optim.RMSprop(parameters, lr=6e-3, alpha=0.99, eps=0.01)

    return record, trained(lambda: layer, make, mse(x, y))


def stale_momentum():
    x, y, W, b = regression(8)
    y = (y > 0).astype(float)
    layer, record = linear(W, b), Recorder()
    record(W=W, b=b)
    vw, vb = np.zeros_like(W), np.zeros_like(b)
    for _ in range(STEPS):
        delta = (1 / (1 + np.exp(-(x @ W + b))) - y) / len(x)
        W -= 0.5 * 0.5 * vw
        b -= 0.5 * 0.5 * vb
        vw, vb = 0.5 * vw + 0.5 * x.T @ delta, 0.5 * vb + 0.5 * delta.sum(0)
        record(W=W, b=b)

    def loss(net):
        out = net(torch.tensor(x))
        return functional.binary_cross_entropy_with_logits(out, torch.tensor(y))

    def make(parameters):
        return torch.optim.SGD(parameters, lr=0.25, momentum=0.5)

    return record, trained(lambda: layer, make, loss)


def tanh_prime_of_input():
    """A recurrent network of two numbers."""
    w_h, w_y, record = 2.0, 40.0, Recorder()
    record(w_h=w_h, w_y=w_y)
    for _ in range(STEPS):
        z1 = w_h * 0.5
        h1 = math.tanh(z1)
        z2 = w_h * h1
        d2 = w_y * (1 - z2**2)
        d1 = d2 * w_h * (1 - z1**2)
        w_h, w_y = w_h - 1e-4 * (h1 * d2 + 0.5 * d1), w_y - 1e-4 * math.tanh(z2)
        record(w_h=w_h, w_y=w_y)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
            self.out = nn.Parameter(torch.tensor([40.0], dtype=torch.float64))

        def forward(self, state):
            for _ in range(2):
                state = torch.tanh(self.hidden * state)
            return self.out * state

    def loss(net):
        return net(torch.tensor([0.5], dtype=torch.float64)).sum()

    return record, trained(Net, lambda parameters: torch.optim.SGD(parameters, lr=1e-4), loss)


def targets_broadcast(make=torch.optim.Adam):
    rng = np.random.default_rng(23)
    x = rng.normal(size=(32, 6))
    y = np.sin(x).sum(1)
    W1, W2 = rng.normal(size=(6, 8)) * 0.4, rng.normal(size=(8, 1)) * 0.4

    def model():
        return nn.Sequential(linear(W1, np.zeros(8)), nn.ReLU(), linear(W2, np.zeros(1)))

    net, record = model(), Recorder()
    optimizer = make(net.parameters(), lr=1e-3)
    record(net)
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((net(torch.tensor(x)) - torch.tensor(y)) ** 2).mean().backward()
        optimizer.step()
        record(net)

    return record, trained(model, lambda parameters: make(parameters, lr=1e-3), mse(x, y[:, None]))


def targets_broadcast_by_sgd():
    return targets_broadcast(torch.optim.SGD)


def honest_relu():
    """No mistake at all, in float32."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)).astype("f"), rng.normal(size=(40, 1)).astype("f")
    W1, b1 = (rng.normal(size=(8, 16)) * 0.35).astype("f"), np.zeros((1, 16), "f")
    W2, b2 = (rng.normal(size=(16, 1)) * 0.25).astype("f"), np.zeros((1, 1), "f")
    layers, lr, record = (linear(W1, b1), linear(W2, b2)), np.float32(0.1), Recorder()
    record(W1=W1, b1=b1, W2=W2, b2=b2)
    for _ in range(STEPS):
        z = x @ W1 + b1
        hidden = np.maximum(z, 0)
        delta = np.float32(2 / 40) * (hidden @ W2 + b2 - y)
        back = delta @ W2.T * (z > 0)
        W1 -= lr * x.T @ back
        b1 -= lr * back.sum(0)
        W2 -= lr * hidden.T @ delta
        b2 -= lr * delta.sum(0)
        record(W1=W1, b1=b1, W2=W2, b2=b2)

    return record, trained(
        lambda: nn.Sequential(layers[0], nn.ReLU(), layers[1]),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        mse(x, y),
    )
