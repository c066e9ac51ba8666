"""A line through 20 points, with momentum; after 10 steps the learning rate is lowered."""

import numpy as np
import torch

from gdtorch import Recorder

rng = np.random.default_rng(7)
x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 1))
w0 = rng.normal(size=(4, 1))


def mine(steps=100):
    w, v = w0.copy(), 0
    record = Recorder()
    record(w=w)
    for step in range(steps):
        lr = 0.1 if step < 10 else 0.01
        v = 0.9 * v - lr * 2 / len(x) * x.T @ (x @ w - y)
        w += v
        record(w=w)
    return record


def theirs(steps=100):
    w = torch.tensor(w0, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10], gamma=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(torch.tensor(x) @ w, torch.tensor(y)).backward()
        optimizer.step()
        schedule.step()
