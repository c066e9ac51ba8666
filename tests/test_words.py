"""Edits in words: what mine does otherwise, and what to change."""

import math

import pytest

from gdtorch.lockstep import Edit
from gdtorch.lockstep.replaying.schedules import schedule
from gdtorch.lockstep.report.words import phrase

NORM = 1e-6


@pytest.mark.parametrize(
    ("mine", "theirs", "does", "change"),
    [
        (
            ("value", 1.0, NORM),
            ("together", 0.5, NORM),
            "clips gradients at 1, element by element",
            "clip them at 0.5, by the norm of all of them together",
        ),
        (
            ("together", 0.5, 0.0),
            ("together", 0.5, NORM),
            "adds nothing to the norm before it clips the gradients",
            "add 1e-06 to the norm, as theirs does",
        ),
        (
            ("together", 0.5 / 1024, NORM),
            ("together", 0.5, NORM),
            "clips gradients that are still scaled, at 0.000488281, by the norm of all of them "
            "together",
            "call scaler.unscale_(optimizer) before it clips",
        ),
        (
            ("value", 1.5259e-5, NORM),  # 1 / 65536, where theirs never clips
            None,
            "clips gradients that are still scaled, at 1.5259e-05, element by element",
            "call scaler.unscale_(optimizer) before it clips",
        ),
        (
            ("value", 0.125, NORM),
            None,
            "clips gradients at 0.125, element by element",
            "do not clip them, as theirs does not in these steps",
        ),
    ],
)
def test_a_clipping_is_told_beside_theirs(mine, theirs, does, change):
    assert phrase(Edit("clip", mine, theirs)) == (does, change)


def test_nadam_without_its_schedule_is_told_by_its_mu():
    does, change = phrase(Edit("momentum_decay", math.inf, 4e-3))
    assert does == "has a μ that is β₁ throughout"
    assert "inf" not in change
    assert (
        phrase(Edit("momentum_decay", 0.04, 4e-3))[0] == "has momentum_decay 0.04, theirs has 0.004"
    )


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        ([0.0, 1e-19, 0.1, 0.1, 0.1, 0.1], "takes no step until step 3"),
        ([0.1 * (1 - k / 80) for k in range(6)], "falls by 1/80 of the first lr at each step"),
        ([0.1 * (1 + 0.3 * k) for k in range(6)], "grows by 0.3 of the first lr at each step"),
    ],
)
def test_a_schedule_has_a_name(mine, said):
    assert said in schedule(mine, [0.1] * 6)
