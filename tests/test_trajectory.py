"""Trajectories side by side: where they part, how far, in ulps; nan, infinity and signed zero."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdtorch import Comparison, Lockstep
from gdtorch.lockstep.distance import PIECE, pieces, ulps_between

NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
dtypes = st.sampled_from(list(NUMPY))


def one(*values, dtype=torch.float64):
    return {"w": torch.tensor(values, dtype=dtype)}


@given(st.floats(allow_nan=False, width=32), st.integers(0, 50), dtypes)
def test_ulps_count_numpys_next_numbers(value, steps, dtype):
    mine = NUMPY[dtype](value)
    theirs = mine
    with np.errstate(over="ignore"):
        for _ in range(steps):
            theirs = np.nextafter(theirs, NUMPY[dtype](np.inf))
    expected = steps if np.isfinite(theirs) else ulps_between(value, float("inf"), dtype)
    assert ulps_between(float(mine), float(theirs), dtype) == expected
    assert ulps_between(float(theirs), float(mine), dtype) == expected


def test_ulps_of_zeros_infinity_and_nan():
    assert ulps_between(0.0, -0.0, torch.float64) == 0
    assert ulps_between(-5e-324, 5e-324, torch.float64) == 2
    assert ulps_between(np.finfo(np.float32).max, math.inf, torch.float32) == 1
    assert ulps_between(math.nan, 1.0, torch.float64) is None


def test_the_same_bits_are_identical():
    comparison = Comparison()
    for step in range(3):
        weights = one(1.5, math.nan, math.inf, -0.0)
        assert comparison.update(step, weights, {"w": weights["w"].clone()}) == {"w": 0.0}
    assert comparison.identical
    assert comparison.steps == 2
    assert comparison.weights["w"].first_step is None


def test_the_first_difference_is_the_largest_of_its_step():
    comparison = Comparison()
    a = {"u": torch.zeros(2, 3), "v": torch.ones(2)}
    b = {"u": torch.zeros(2, 3), "v": torch.ones(2)}
    comparison.update(0, a, b)
    assert comparison.identical
    a["u"][0, 1], a["u"][1, 2], a["v"][0] = 0.25, -0.5, 1.125
    assert comparison.update(1, a, b) == {"u": 0.5, "v": 0.125}
    b["v"][1] = 9.0
    comparison.update(2, a, b)
    first = comparison.first_difference
    assert (first.step, first.weight, first.index) == (1, "u", (1, 2))
    assert (first.mine, first.theirs, first.absolute) == (-0.5, 0.0, 0.5)
    assert first.ulps == int(np.float32(0.5).view(np.int32))
    assert (comparison.weights["u"].first_step, comparison.weights["v"].first_step) == (1, 1)
    assert comparison.weights["v"].largest == 8.0


def test_of_two_weights_the_first_difference_is_in_the_farther():
    a, b = ({"u": torch.zeros(2), "v": torch.zeros(2)} for _ in range(2))
    a["u"][0], a["v"][1] = 1.0, 2.0
    comparison = Comparison()
    comparison.update(0, a, b)
    assert (comparison.first_difference.weight, comparison.first_difference.index) == ("v", (1,))


def test_the_largest_distance_is_kept_and_growth_counts_from_the_first_that_is_not_0():
    comparison = Comparison()
    for step, apart in enumerate([-0.0, 1.0, 16.0, 4.0]):
        comparison.update(step, one(apart), one(0.0))
    seen = comparison.weights["w"]
    assert (seen.first_step, seen.largest) == (0, 16.0)
    assert seen.growth == 2.0  # from 1 to 4 in two steps


def test_two_nan_of_other_bits_are_no_difference():
    """A processor makes a negative nan of ∞ − ∞; `float("nan")` is positive."""
    mine = {"w": torch.tensor([0x7FF8 << 48, 0], dtype=torch.int64).view(torch.float64)}
    theirs = {"w": torch.tensor([-(8 << 48), 0], dtype=torch.int64).view(torch.float64)}
    assert mine["w"].isnan().tolist() == theirs["w"].isnan().tolist() == [True, False]
    comparison = Comparison()
    assert comparison.update(0, mine, theirs) == {"w": 0.0}
    assert comparison.identical


def test_a_signed_zero_is_found_among_elements_that_are_the_same():
    comparison = Comparison()
    comparison.update(0, one(1.0, 2.0, 0.0), one(1.0, 2.0, -0.0))
    assert comparison.first_difference.index == (2,)


def test_ulps_of_two_dtypes_are_those_of_the_wider():
    for mine, theirs in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        comparison = Comparison()
        comparison.update(0, one(1.0, dtype=mine), one(1 + 2**-20, dtype=theirs))
        assert comparison.first_difference.ulps == 2 ** (52 - 20)


@pytest.mark.parametrize("shape", [(300, 400), (70_000,), (300, 300, 300)])
def test_pieces_are_small_and_cover_the_whole(shape):
    """In the last a single row is larger than a piece ought to be."""
    tensor = torch.zeros(1).expand(shape)
    sizes = [piece.numel() for _, (piece,) in pieces(tensor)]
    assert sum(sizes) == tensor.numel()
    assert max(sizes) <= max(PIECE, tensor.numel() // max(shape))


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=12),
    st.lists(st.floats(width=32), min_size=1, max_size=12),
    dtypes,
)
def test_distances_are_numpys(mine, theirs, dtype):
    n = min(len(mine), len(theirs))
    a, b = (np.array(values[:n], NUMPY[dtype]) for values in (mine, theirs))
    with np.errstate(all="ignore"):
        distance = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    distance = np.where(same, 0, np.where(np.isnan(distance), np.inf, distance))
    signs = (a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b))

    comparison = Comparison()
    largest = comparison.update(0, {"w": torch.tensor(a)}, {"w": torch.tensor(b)})
    assert largest == {"w": distance.max()}
    assert comparison.identical == bool(same.all() and not signs.any())
    if not comparison.identical:
        first = comparison.first_difference
        assert first.absolute == distance.max() == distance[first.index]
        assert not same[first.index] or signs[first.index]


@pytest.mark.parametrize(
    ("mine", "theirs", "absolute", "ulps"),
    [(math.nan, 1.0, math.inf, None), (0.0, -0.0, 0.0, 0), (1.0, 1.0 + 2**-52, 2**-52, 1)],
)
def test_differences_at_the_edges(mine, theirs, absolute, ulps):
    comparison = Comparison()
    comparison.update(0, one(mine), one(theirs))
    assert not comparison.identical
    assert comparison.first_difference.absolute == absolute
    assert comparison.first_difference.ulps == ulps


def test_lockstep_advances_all_and_compares_each_to_the_reference():
    def line(slope):
        w = torch.zeros(1, dtype=torch.float64)
        while True:
            yield {"w": w}
            w += slope  # live: changed in place

    lockstep = Lockstep({"a": line(1), "b": line(2), "c": line(2)}, reference="c")
    steps = iter(lockstep)
    assert next(steps) == 0
    assert lockstep.differences == {"a": {"w": 0.0}, "b": {"w": 0.0}}
    assert [next(steps) for _ in range(3)] == [1, 2, 3]
    assert lockstep.differences == {"a": {"w": 3.0}, "b": {"w": 0.0}}
    assert lockstep.comparisons["b"].identical
    assert lockstep.comparisons["a"].first_difference.step == 1


def test_lockstep_ends_with_the_shortest():
    trajectories = {"a": [one(1.0)] * 3, "b": [one(1.0)] * 5}
    assert list(Lockstep(trajectories, reference="a")) == [0, 1, 2]


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (1, 120_000), (3, 200, 200)])
@pytest.mark.parametrize("dtypes", [(np.float64, np.float64), (np.float32, np.float64)])
def test_a_weight_larger_than_a_piece_is_compared_whole(shape, dtypes):
    """Against NumPy, which looks at all of it at once."""
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=shape).astype(np.float32)
    mine = theirs + rng.normal(size=shape).astype(np.float32) * (rng.random(shape) < 1e-3)
    a, b = (torch.tensor(w.astype(d)) for w, d in zip((mine, theirs), dtypes, strict=True))
    distance = np.abs(mine.astype(dtypes[0]) - theirs.astype(dtypes[1]))
    comparison = Comparison()
    assert comparison.update(0, {"w": a}, {"w": b}) == {"w": distance.max()}
    assert comparison.first_difference.index == np.unravel_index(distance.argmax(), shape)
    assert Comparison().update(0, {"w": a.mT}, {"w": b.mT}) == {"w": distance.max()}
    b[...] = a
    assert comparison.update(1, {"w": a}, {"w": b}) == {"w": 0.0}
