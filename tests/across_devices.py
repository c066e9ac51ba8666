"""Pairs of programs, both on the CPU, then with theirs on another device: the reports, as JSON.

The arguments name them. It is a process of its own, since PyTorch forgets no device.
"""

import itertools
import json
import sys

import other_device
import plain_loops
import torch
from test_torch_pairs import LABELS, ROWS, cross_entropy, network, sgd, train
from torch import nn

from gdtorch import lockstep

CPU = torch.device("cpu")


def plain_loop(name):
    """Mine is NumPy, recorded; theirs is made and trained where the default device is."""

    def pair(device):
        with device:
            mine, theirs = getattr(plain_loops, name)()

        def train():
            with device:
                theirs()

        return mine, train

    return pair


def both_pytorch(mine, theirs):
    """Mine stays on the CPU."""

    def program(device, make=network, rows=ROWS, **options):
        batch = rows.to(device), LABELS.to(device)
        return train(lambda: make().to(device), batches=itertools.repeat(batch), **options)

    return lambda device: (program(CPU, **mine), program(device, **theirs))


def dropping():
    return network(nn.ReLU(), nn.Dropout(0.3))


def summed(net, rows, labels):
    return cross_entropy(net, rows, labels) * len(rows)


def by_rows(net, rows, labels):
    """The first half of the rows counts twice."""
    each = nn.functional.cross_entropy(net(rows), labels, reduction="none")
    return (each * torch.where(torch.arange(len(rows)) < len(rows) // 2, 2.0, 1.0)).mean()


def unobserved(**options):
    """Arrays that a program of PyTorch has shown, as a file of them would have."""
    return list(itertools.islice(train(**options), 21))


def weighed(device):
    """Mine's gradients are not seen."""
    mine, (_, theirs) = unobserved(loss=by_rows), both_pytorch({}, {})(device)
    return mine, theirs


CASES = {
    "NumPy, no difference": plain_loop("honest_relu"),
    "NumPy, a derivative": plain_loop("tanh_prime_of_input"),
    "NumPy, a rule": plain_loop("rmsprop_eps_in_the_root"),
    "NumPy, clipping": plain_loop("clip_each_weight"),
    "arrays, weights of rows": weighed,
    "no difference": both_pytorch({}, {}),
    "momentum": both_pytorch({"optimizer": lambda net: sgd(net, momentum=0.9)}, {}),
    "a sum for a mean": both_pytorch({"loss": summed}, {}),
    "other rows": both_pytorch({"rows": 1.1 * ROWS}, {}),
    "dropout in one": both_pytorch({"make": dropping}, {"make": lambda: dropping().eval()}),
    "dropout in both": both_pytorch({"make": dropping}, {"make": dropping}),
}


def report(pair):
    """Without what rounding has a say in."""
    lines = lockstep(*pair, steps=20).text.splitlines()
    return [line for line in lines if not line.startswith(("First", "Shown"))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    kept = other_device.register()
    there = torch.device(other_device.NAME)
    pairs = {name: CASES[name] for name in sys.argv[1:]}
    reports = {name: (report(pair(CPU)), report(pair(there))) for name, pair in pairs.items()}
    json.dump(reports, sys.stdout)
