"""lockstep(): what it adds to two trajectories run bare, in time and in memory."""

import itertools
import subprocess
import sys

import pytest
import torch

from gdtorch import SGD, Manual, SigmoidNet, load_table, lockstep

LARGE = """
import re, torch
from gdtorch import lockstep

def layer(scale=1.0, order="x.T @ error", dtype=torch.float32, start=1.0, momentum=0.0):
    generator = torch.Generator().manual_seed(0)
    w = start * torch.rand(3163, 3163, generator=generator).to(dtype)
    x = torch.rand(64, 3163, generator=generator).to(dtype)
    velocity = 0
    while True:
        yield {"w": w}
        error = x @ w - 1
        gradient = x.T @ error if order == "x.T @ error" else (error.T @ x).T
        if momentum:
            velocity = gradient = momentum * velocity + gradient
        w -= scale * 1e-6 * gradient

def trained(lr=1e-6):  # by torch.optim, and so observed and replayed
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(3163, 3163, generator=generator).requires_grad_()
    x = torch.rand(64, 3163, generator=generator)
    optimizer = torch.optim.SGD([w], lr=lr)
    while True:
        yield {"w": w}
        optimizer.zero_grad()
        (((x @ w - 1) ** 2).sum() / 2).backward()
        optimizer.step()

def peak():  # of this process alone; resource's ru_maxrss counts the one that started it
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def sixty():
    """The post's network by hand and by torch.optim.SGD: 60 weights."""
    net, rows = SigmoidNet().double(), load_table("post").learned
    return Manual(net, rows, 1.0), SGD(net, rows, 1.0)


def ten_million(apart):
    """A linear layer of 3163 × 3163 weights on 64 rows, twice; apart by rounding, or not at all."""
    torch.manual_seed(0)
    x, w = torch.rand(64, 3163), torch.rand(3163, 3163)

    def descend(how):
        weights = w.clone()
        while True:
            yield {"w": weights}
            error = x @ weights
            if how == "x.T @ error":
                weights.add_(x.T @ error, alpha=-1e-6)
            else:
                weights.add_((error.T @ x).T, alpha=-1e-6)

    other = "(error.T @ x).T" if apart else "x.T @ error"
    return descend("x.T @ error"), descend(other)


def bare(mine, theirs, steps):
    for _ in zip(mine, theirs, range(steps + 1), strict=False):
        pass


def observed(factor):
    """The same layer by torch.optim.SGD, and by hand with a factor in its gradient."""
    torch.manual_seed(0)
    x, start = torch.rand(64, 3163), torch.rand(3163, 3163)

    def mine():
        w = start.clone()
        while True:
            yield {"w": w}
            w.add_(x.T @ (x @ w - 1), alpha=-1e-6 * factor)

    def theirs():
        w = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([w], lr=1e-6)
        while True:
            yield {"w": w}
            optimizer.zero_grad()
            (((x @ w - 1) ** 2).sum() / 2).backward()
            optimizer.step()

    return mine(), theirs()


@pytest.mark.parametrize(
    ("name", "make", "steps", "aim"),
    [
        # Both are PyTorch: each of some 90 calls a step is noted, which itself takes little time.
        ("60 weights", sixty, 100, 10.0),
        ("10 million weights, the same bits", lambda: ten_million(apart=False), 100, 1.5),
        ("10 million weights, apart by rounding", lambda: ten_million(apart=True), 100, 1.5),
        # The aim is 1.5 and 10 s, which is 2.5 where both run bare for some 10 s.
        ("10 million weights, observed, a factor of 2", lambda: observed(2.0), 40, 2.5),
        ("10 million weights, observed, rounding", lambda: observed(1.0), 40, 2.5),
    ],
    ids=["60", "10 million, same", "10 million, rounding", "observed, apart", "observed"],
)
def test_time(ratio, name, make, steps, aim):
    # 100 steps, as by default: the first two are looked at closely, and cost as much as twenty.
    ratio(
        f"lockstep of {steps} steps : both run bare, {name}",
        lambda: lockstep(*make(), steps),
        lambda: bare(*make(), steps),
        aim=aim,
        rounds=3,
    )


@pytest.mark.parametrize("steps", [3, 12])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("", ""),
        ("scale=1.0001", ""),
        ("order='(error.T @ x).T'", ""),
        ("dtype=torch.float64", ""),
        ("start=0, momentum=0.9", "start=0"),
        ("", None),
        ("scale=2", None),
    ],
    ids=[
        *("the same", "scaled", "rounding", "precision", "momentum from zero"),
        *("observed", "observed, apart"),
    ],
)
def test_memory_is_at_most_four_copies_however_many_steps(mine, theirs, steps):
    """Peak of a process that runs lockstep, less that of one that runs both bare."""
    both = f"layer({mine}), " + ("trained()" if theirs is None else f"layer({theirs})")
    runs = {
        "bare": f"for _ in zip({both}, range({steps} + 1)): pass",
        "lockstep": f"print(lockstep({both}, {steps}))",
    }
    peaks = {}
    for name, run in runs.items():
        command = [sys.executable, "-c", f"{LARGE}\n{run}\nprint(peak())"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[name] = int(printed.split()[-1])
    copy = 3163 * 3163 * (8 if "float64" in mine else 4)
    copies = (peaks["lockstep"] - peaks["bare"]) / copy
    print(f"{copies:.1f} copies of the weights")
    assert copies <= 4


def mlp(eps=1e-8, *, weight_decay=0.0, without_derivative=False, noise=0.0):
    """A network of 10,000 weights, trained by Adam."""
    torch.manual_seed(1)
    first, second, last = (torch.nn.Linear(*sizes) for sizes in ((60, 90), (90, 45), (45, 10)))
    x, y = torch.randn(64, 60), torch.randint(10, (64,))
    model = torch.nn.ModuleList([first, second, last])
    options = {"lr": 1e-2, "eps": eps, "weight_decay": weight_decay}
    optimizer = torch.optim.Adam(model.parameters(), **options)
    while True:
        yield model
        optimizer.zero_grad()
        z = first(x + noise * torch.randn(64, 60) if noise else x)
        h = z + (z.tanh() - z).detach() if without_derivative else z.tanh()
        scores = last(second(h).tanh())
        torch.nn.functional.cross_entropy(scores, y).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("how", "aim"),
    [
        ({"eps": 1e-4}, 2),
        ({"without_derivative": True}, 2),
        ({"eps": 1e-4, "weight_decay": 0.1}, 10),
        ({"noise": 0.1}, 10),
    ],
    ids=["an option", "a derivative", "two edits", "not found"],
)
def test_a_cause_of_ten_thousand_weights_is_named_in_time(within, request, how, aim):
    unseen = itertools.islice(mlp(**how), 41)  # as NumPy code is
    mine = [{n: w.detach().clone() for n, w in model.named_parameters()} for model in unseen]
    within(
        f"lockstep of 40 steps, 10,250 weights: {request.node.callspec.id}",
        lambda: print(lockstep(mine, mlp(), 40)),
        aim=aim,
    )
