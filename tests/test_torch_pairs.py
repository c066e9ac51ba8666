"""lockstep of two programs of PyTorch, of which both can be observed."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from gdtorch import lockstep

ROWS = torch.randn(48, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 3, (48,), generator=torch.Generator().manual_seed(1))
MLP = "0.weight", "0.bias", "2.weight", "2.bias"


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(*layers):
    """A classifier of ROWS, with layers in the place of a ReLU, and always the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *(layers or [nn.ReLU()]), nn.Linear(8, 3)).double()


def copies(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def sgd(net, **options):
    return torch.optim.SGD(net.parameters(), **{"lr": 0.1, **options})


def cross_entropy(net, rows, labels):
    return F.cross_entropy(net(rows), labels)


def train(make=network, optimizer=sgd, loss=cross_entropy, batches=None, between=None, after=None):
    """Copies of a training loop's weights; `between` backward and step, and `after` the step."""
    net = make()
    steps = optimizer(net)
    yield copies(net)
    for rows, labels in batches or itertools.repeat((ROWS, LABELS)):
        steps.zero_grad()
        loss(net, rows, labels).backward()
        if between:
            between(net)
        steps.step()
        if after:
            after(net)
        yield copies(net)


def of_the_last_layer(net):
    net[0].requires_grad_(requires_grad=False)
    return torch.optim.SGD(net[2].parameters(), lr=0.1)


def test_weights_that_theirs_has_frozen_take_mines_values():
    report = lockstep(train(), train(optimizer=of_the_last_layer), 20)
    assert report.cause == "weight that never moves"
    assert "moves 0.bias and 0.weight, which theirs does not" in report.text


def test_weights_that_mine_has_frozen_are_named_by_nothing_else():
    report = lockstep(train(optimizer=of_the_last_layer), train(), 20)
    assert report.cause == "weight that never moves"
    assert "does not move 0.bias and 0.weight" in report.text
    assert "Or:" not in report.text


def test_frozen_weights_of_both_are_no_difference():
    both = (train(optimizer=of_the_last_layer) for _ in range(2))
    assert lockstep(*both, 20).identical


@pytest.mark.parametrize("factor", [2, 3])
def test_a_factor_of_cross_entropy_is_taken_for_no_other_loss(factor):
    mine = train(loss=lambda *given: factor * cross_entropy(*given))
    report = lockstep(mine, train(), 20, rows=48)
    assert (report.cause, report.factor) == ("scale", factor)
    assert "squared" not in report.text
    assert "outputs" not in report.text
