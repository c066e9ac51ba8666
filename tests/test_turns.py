"""What mine does once, from a step on, or only at first; and what clipping or rounding hides."""

import itertools
from functools import partial

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from gdtorch import lockstep

pytestmark = pytest.mark.usefixtures("one_thread")

generator = torch.Generator().manual_seed(0)
ROWS, TARGETS = (torch.randn(24, n, generator=generator, dtype=torch.float64) for n in (4, 2))


def adam(parameters, **options):
    return torch.optim.Adam(parameters, **{"lr": 0.01, **options})


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, **{"lr": 0.05, "momentum": 0.9, **options})


def train(make=adam, turn=None, *, factor=1.0, clip=None, dtype=torch.float64):
    """Weights of a network; `turn` is called before each step, given its number."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)
    net = torch.nn.Sequential(*layers).to(dtype)
    optimizer = make(net.parameters())
    for step in itertools.count():
        yield dict(net.named_parameters())
        if not (turn and turn(step, optimizer) == "keep gradients"):
            optimizer.zero_grad()
        (factor * F.mse_loss(net(ROWS.to(dtype)), TARGETS.to(dtype))).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()


def unseen(trajectory, steps=40):
    """As NumPy code is seen: its weights alone."""
    some = itertools.islice(trajectory, steps + 1)
    return [{name: weight.detach().numpy().copy() for name, weight in w.items()} for w in some]


def made_anew(step, optimizer):
    if step == 15:
        optimizer.state.clear()


def not_zeroed(step, _):
    return "keep gradients" if step == 15 else None


def without_averages(_, optimizer):
    for state in optimizer.state.values():
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()


def decaying_later(step, optimizer):
    optimizer.param_groups[0]["weight_decay"] = 0.1 if step >= 15 else 0.0


def slower_at_first(step, optimizer):
    optimizer.param_groups[0]["momentum"] = 0.5 if step < 12 else 0.9


def scaled_now_and_then(step, optimizer):
    optimizer.param_groups[0]["lr"] = 0.01 * [1, 0.7, 0.4, 0.9, 0.6, 0.8, 0.3][step % 7]


@pytest.mark.parametrize(
    ("make", "turn", "cause", "said"),
    [
        (adam, made_anew, "state reset", "forgets its velocities or averages before step 16"),
        (
            adam,
            not_zeroed,
            "gradients not zeroed",
            "adds the gradient of step 15 to that of step 16",
        ),
        (
            adam,
            without_averages,
            "state reset",
            "averages after each step, and it goes on counting its steps",
        ),
        (sgd, decaying_later, "weight decay", "so it is from step 16 on"),
        pytest.param(
            sgd,
            slower_at_first,
            "momentum",
            "so it is until step 13, where mine does something else again",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            adam,
            scaled_now_and_then,
            "step size schedule",
            "has another lr from step 2 on: 0.007, 0.004, 0.009, 0.006, … where theirs has",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["anew", "not zeroed", "averages", "later", "at first", "now and then"],
)
def test_what_mine_does_but_now_and_then_is_named(make, turn, cause, said):
    report = lockstep(unseen(train(make, turn)), train(make), 40)
    assert report.cause == cause, str(report)
    assert said in str(report), str(report)


def test_a_multiple_of_the_loss_is_named_where_only_mine_is_clipped_by_it():
    """As where the losses of five micro-batches are added up, and not averaged."""
    report = lockstep(train(factor=5.0, clip=2.0), train(clip=2.0), 20)
    assert report.cause == "scale", str(report)
    assert "has 5 times the gradient, and it clips gradients at 2" in str(report), str(report)


@pytest.mark.parametrize(
    "options",
    [{"lr": 2e-3, "momentum": 0.0}, pytest.param({"lr": 2e-4}, marks=pytest.mark.slow)],
    ids=["plain", "momentum"],
)
@pytest.mark.parametrize(("mine", "theirs"), [(1e-4, 0.0), (0.0, 1e-4)])
def test_a_decay_that_rounding_hides_in_each_step_is_named(mine, theirs, options):
    def trained(decay):
        make = partial(sgd, weight_decay=decay, **options)
        return train(make, dtype=torch.float32)

    report = lockstep(unseen(trained(mine), 200), trained(theirs), 200)
    assert report.cause == "weight decay", str(report)
    assert [(edit.mine, edit.theirs) for edit in report.edits] == [(mine, theirs)], str(report)
    assert "rounding hides it in each step, but not in the mean of 200" in str(report)
