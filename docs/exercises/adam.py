"""Logistic regression by Adam."""

import numpy as np
import torch

from gdtorch import Recorder

rng = np.random.default_rng(6)
x, y = rng.normal(size=(30, 4)), rng.integers(0, 2, size=(30, 1)).astype(float)
w0 = rng.normal(size=(4, 1))


def mine(steps=100, lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8):
    w, m, v = w0.copy(), 0, 0
    record = Recorder()
    record(w=w)
    for _ in range(steps):
        gradient = x.T @ (1 / (1 + np.exp(-x @ w)) - y) / len(x)
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        w -= lr * m / (np.sqrt(v) + eps)
        record(w=w)
    return record


def theirs(steps=100):
    w = torch.tensor(w0, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        loss(torch.tensor(x) @ w, torch.tensor(y)).backward()
        optimizer.step()
