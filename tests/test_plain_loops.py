"""Programs as people have them, a plain loop against a training function: one call, the cause."""

import plain_loops
import pytest
from plain_loops import STEPS

from gdtorch import lockstep

LAYERS = (
    "W1 with 0.weight (transposed), b1 with 0.bias (reshaped), "
    "W2 with 2.weight (transposed), b2 with 2.bias (reshaped)"
)
LAYER = "W with weight (transposed), b with bias (reshaped)"
REPORTS = {  # name → cause, the weights it concerns where not all, how they are paired
    "adam_without_correction": ("bias correction", None, LAYERS),
    "adam_without_zero_grad": (
        "gradients not zeroed",
        None,
        "w with weight (transposed), bias (reshaped)",
    ),
    "bias_from_weight_gradient": (
        "bias gradient",
        ("0.bias", "2.bias"),
        LAYERS.replace("weight (transposed)", "weight"),
    ),
    "clip_each_weight": ("clipping", None, ""),
    "dampened_first_step": ("dampening in the first step", None, LAYER),
    "first_step_counted_twice": (
        "gradients not zeroed",
        None,
        "p0 with weight (transposed), p1 with bias",
    ),
    "first_step_counted_twice_by_sgd": (
        "gradients not zeroed",
        None,
        "p0 with weight (transposed), p1 with bias",
    ),
    "l2_in_adam": ("decoupled weight decay", None, ""),
    "lr_inside_the_velocity": ("lr within the velocity", None, "w with weight (reshaped)"),
    "mse_over_all_elements": ("scale", None, LAYER),
    "nesterov_seen_elsewhere": ("look-ahead", None, LAYER),
    "rmsprop_eps_in_the_root": ("eps", None, LAYER),
    "tanh_prime_of_input": (
        "derivative",
        ("hidden",),
        "w_h with hidden (reshaped), w_y with out (reshaped)",
    ),
    "targets_broadcast": ("broadcast", ("0.weight", "0.bias", "2.weight"), ""),
    "targets_broadcast_by_sgd": ("broadcast", ("0.weight", "0.bias", "2.weight"), ""),
}


FEW = [*REPORTS][::3]
EACH = [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in REPORTS]


@pytest.mark.parametrize("name", EACH)
def test_the_true_cause_is_named(name):
    cause, weights, paired = REPORTS[name]
    found = lockstep(*getattr(plain_loops, name)(), STEPS)
    assert found.cause == cause, str(found)
    assert weights in {None, found.diagnosis.weights}
    assert found.reproduced >= 30
    assert found.residual <= 1
    assert (f"paired: {paired}\n" in f"{found}\n") if paired else ("paired" not in str(found))


def test_two_mistakes_at_once_are_both_named():
    found = lockstep(*plain_loops.stale_momentum(), STEPS)
    assert {edit.what: edit.mine for edit in found.edits} == {"old_velocity": True, "gradient": 0.5}


def test_the_number_is_that_of_the_outputs():
    found = lockstep(*plain_loops.mse_over_all_elements(), STEPS, rows=24)
    assert found.factor == pytest.approx(3)
    assert "a mean over the rows where theirs takes that over all 3 outputs, too" in str(found)


def test_where_nothing_is_wrong_nobody_is_accused():
    found = lockstep(*plain_loops.honest_relu(), STEPS)
    assert found.cause == "rounding", str(found)
    assert found.steps == STEPS
