"""A line through 24 points, twice in PyTorch."""

import torch

torch.manual_seed(1)
x, y = torch.randn(24, 4), torch.randn(24, 2)


def mine(steps=100):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def theirs(steps=100):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
