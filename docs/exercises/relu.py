"""Two layers with ReLU."""

import numpy as np
import torch

from gdtorch import Recorder

rng = np.random.default_rng(3)
x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
w1, b1 = rng.normal(size=(3, 5)) / 2, np.zeros(5)
w2, b2 = rng.normal(size=(5, 1)) / 2, np.zeros(1)


def mine(steps=100, lr=0.1):
    weights = {"w1": w1.copy(), "b1": b1.copy(), "w2": w2.copy(), "b2": b2.copy()}
    record = Recorder()
    record(weights)
    for _ in range(steps):
        h = np.maximum(x @ weights["w1"] + weights["b1"], 0)
        delta = 2 / len(x) * (h @ weights["w2"] + weights["b2"] - y)
        back = delta @ weights["w2"].T
        gradient = {"w1": x.T @ back, "b1": back.sum(0), "w2": h.T @ delta, "b2": delta.sum(0)}
        for name in weights:
            weights[name] -= lr * gradient[name]
        record(weights)
    return record


def theirs(steps=100):
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
    model.double()
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), (w1.T, b1, w2.T, b2), strict=True):
            parameter.copy_(torch.tensor(array))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
