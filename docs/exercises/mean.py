"""A line through 20 points."""

import numpy as np
import torch

from gdtorch import Recorder

rng = np.random.default_rng(1)
x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
w0 = rng.normal(size=(3, 1))


def mine(steps=100, lr=0.01):
    w, b = w0.copy(), np.zeros(1)
    record = Recorder()
    record(w=w, b=b)
    for _ in range(steps):
        error = x @ w + b - y
        w -= lr * 2 * x.T @ error
        b -= lr * 2 * error.sum(0)
        record(w=w, b=b)
    return record


def theirs(steps=100):
    layer = torch.nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(w0.T))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(layer(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
