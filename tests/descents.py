"""Descents to hold against each other: NumPy by hand, with a chosen mistake, and torch.optim.SGD.

Nothing of gdtorch is used here. Three problems: the post's network; a linear regression; a network
with biases, tanh and a softmax, whose NumPy code multiplies in another order than torch's.
"""

import numpy as np
import reference
import torch


class Post:
    """The post's network, ½ Σ (y − δ)² over 7 rows."""

    rows = 7

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.weights = {"syn0": rng.uniform(-1, 1, (3, 15)), "syn1": rng.uniform(-1, 1, (15, 1))}
        self.x, self.y, self.lr = reference.X, reference.Y, 0.5

    def gradient(self, w):
        x, y = self.x.astype(w["syn0"].dtype), self.y.astype(w["syn0"].dtype)
        hidden = reference.sigmoid(x @ w["syn0"])
        output = reference.sigmoid(hidden @ w["syn1"])
        delta = (output - y) * (output * (1 - output))
        return {
            "syn0": (((w["syn1"] @ delta.T) * (hidden * (1 - hidden)).T) @ x).T,
            "syn1": (delta.T @ hidden).T,
        }

    def loss(self, w):
        x, y = (torch.tensor(a, dtype=w["syn0"].dtype) for a in (self.x, self.y))
        return ((torch.sigmoid(torch.sigmoid(x @ w["syn0"]) @ w["syn1"]) - y) ** 2).sum() / 2


class Linear:
    """Linear regression with an intercept, mean squared error over 20 rows."""

    rows = 20

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.weights = {"w": rng.normal(size=(6, 2)), "b": rng.normal(size=2)}
        self.x, self.lr = rng.normal(size=(20, 6)), 0.1
        self.y = self.x @ rng.normal(size=(6, 2)) + rng.normal(size=2) + rng.normal(size=(20, 2))

    def gradient(self, w):
        x, y = self.x.astype(w["w"].dtype), self.y.astype(w["w"].dtype)
        error = 2 * (x @ w["w"] + w["b"] - y) / y.size
        return {"w": (error.T @ x).T, "b": error.sum(0)}

    def loss(self, w):
        x, y = (torch.tensor(a, dtype=w["w"].dtype) for a in (self.x, self.y))
        return torch.nn.functional.mse_loss(torch.addmm(w["b"], x, w["w"]), y)


class Softmax:
    """A tanh network with biases, mean cross-entropy over 30 rows; torch.nn.Linear's layout."""

    rows = 30

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.weights = {
            "W1": rng.normal(size=(8, 4)) / 2,
            "b1": rng.normal(size=8) / 4,
            "W2": rng.normal(size=(3, 8)) / 3,
            "b2": rng.normal(size=3) / 4,
        }
        self.x, self.y, self.lr = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), 0.5

    def gradient(self, w):
        x = self.x.astype(w["W1"].dtype)
        hidden = np.tanh(w["W1"] @ x.T + w["b1"][:, None])  # columns are rows of the table
        scores = w["W2"] @ hidden + w["b2"][:, None]
        p = np.exp(scores - scores.max(0))
        p = p / p.sum(0)
        p[self.y, np.arange(len(x))] -= 1
        p = p / len(x)
        back = (w["W2"].T @ p) * (1 - hidden * hidden)
        return {"W1": back @ x, "b1": back.sum(1), "W2": p @ hidden.T, "b2": p.sum(1)}

    def loss(self, w):
        x = torch.tensor(self.x, dtype=w["W1"].dtype)
        hidden = torch.tanh(torch.nn.functional.linear(x, w["W1"], w["b1"]))
        scores = torch.nn.functional.linear(hidden, w["W2"], w["b2"])
        return torch.nn.functional.cross_entropy(scores, torch.tensor(self.y))


PROBLEMS = {"post": Post, "linear": Linear, "softmax": Softmax}


def initial(problem, dtype="float64", start=None):
    weights = problem.weights if start is None else start
    return {name: weight.astype(dtype) for name, weight in weights.items()}


def by_torch(problem, dtype="float64", start=None, at=None, of=None, outside=0.0, **options):
    """torch.optim.SGD; `at` maps a step to a factor of lr from that step on.

    `of` maps a weight to options of its own; `outside` is a decay of the weights, as AdamW's.
    """
    weights = {
        n: torch.tensor(w, requires_grad=True) for n, w in initial(problem, dtype, start).items()
    }
    groups = [{"params": w, **(of or {}).get(name, {})} for name, w in weights.items()]
    optimizer = torch.optim.SGD(groups, **{"lr": problem.lr, **options})
    step = 0
    while True:
        yield weights
        step += 1
        for group in optimizer.param_groups:
            group["lr"] *= (at or {}).get(step, 1.0)
        optimizer.zero_grad()
        problem.loss(weights).backward()
        with torch.no_grad():
            for weight in weights.values() if outside else ():
                weight.mul_(1 - optimizer.param_groups[0]["lr"] * outside)
        optimizer.step()


def by_hand(
    problem, dtype="float64", start=None, *, lr=None, factor=1.0, factors=None, momentum=0.0,
    dampening=0.0, decay=0.0, zero=True, at=None, gradient=None, broken=None, penalty=0.0,
    sequential=False, outside=0.0,
):  # fmt: skip
    """NumPy, written as people write it, in place; each option is a mistake to make.

    Args:
        lr: step size, the problem's own if left out.
        factor: of every gradient; `factors` of single weights' gradients.
        momentum, dampening, decay: as torch.optim.SGD's; momentum and decay may be a mapping, of
            single weights.
        zero: whether gradients start from 0 at each step.
        at: step → factor of lr from that step on.
        gradient: another gradient, of the problem and the weights.
        broken: (step, weight, value): what is written into one element.
        penalty: of L1.
        outside: a decay that is added to the velocity, not to the gradient.
        sequential: update each weight, last first, before the next one's gradient is taken.
    """
    w = initial(problem, dtype, start)
    lr = w[next(iter(w))].dtype.type(problem.lr if lr is None else lr)
    total, velocity, step = {}, {}, 0

    def own(option, name):
        return option.get(name, 0.0) if isinstance(option, dict) else option

    yield w
    while True:
        step += 1
        lr = lr * type(lr)((at or {}).get(step, 1.0))
        grads = (gradient or type(problem).gradient)(problem, w)
        for name in reversed(list(w)):
            if sequential:
                grads = type(problem).gradient(problem, w)
            g = grads[name] * type(lr)(factor * (factors or {}).get(name, 1.0))
            g = g + type(lr)(own(decay, name)) * w[name] + type(lr)(penalty) * np.sign(w[name])
            if not zero:
                total[name] = g = total.get(name, 0) + g
            if own(momentum, name):
                fresh = type(lr)(1 - dampening) * g
                velocity[name] = g = (
                    type(lr)(own(momentum, name)) * velocity[name] + fresh
                    if name in velocity
                    else g
                )
            w[name] -= lr * (g + type(lr)(outside) * w[name])
        if broken and broken[0] == step:
            w[broken[1]].flat[0] = broken[2]
        yield w


def adam(problem, dtype="float64", start=None):
    weights = {
        n: torch.tensor(w, requires_grad=True) for n, w in initial(problem, dtype, start).items()
    }
    optimizer = torch.optim.Adam(weights.values(), lr=0.01)
    while True:
        yield weights
        optimizer.zero_grad()
        problem.loss(weights).backward()
        optimizer.step()
