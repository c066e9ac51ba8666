"""Counting very many networks: NumPy's own statistics, and sums that know no order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdtorch.ensemble.tally import COUNTS, QUANTILES, Tally, checkpoints

STEPS = 60
CHECKPOINTS = len(checkpoints(STEPS))


def networks(seed, count):
    """Networks of all kinds: equal losses, none at all, not finite, right from the start."""
    random = np.random.default_rng(seed)
    losses = 10 ** random.uniform(-20, 0.5, count)
    losses[random.random(count) < 0.2] = 1.5
    losses[random.random(count) < 0.1] = random.choice([0, np.inf, np.nan])
    return {
        "starts": random.choice(10 * count + 1, count, replace=False),
        "losses": losses,
        "held_out": random.choice([0, 0.5, 1, random.random()], (2, count)),
        "first_right": random.integers(-1, CHECKPOINTS, count),
        "kinds": dict(zip(COUNTS, random.random((len(COUNTS), count)) < 0.5, strict=True)),
    }


def tally_of(networks, chosen=slice(None)):
    """The tally of some of them."""
    arrays = {name: networks[name][..., chosen] for name in networks if name != "kinds"}
    members = {kind: arrays["starts"][m[chosen]] for kind, m in networks["kinds"].items()}
    return Tally.of(**arrays, kinds=members, steps=STEPS)


@given(st.integers(0, 2**32), st.integers(1, 60), st.data())
def test_parts_in_any_order_add_up_to_the_same_bits(seed, count, data):
    """Whatever process counted which networks, and whichever sums were made first."""
    whole = networks(seed, count)
    expected = tally_of(whole)
    ends = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    order = np.array(data.draw(st.permutations(range(count))))
    parts = [tally_of(whole, chosen) for chosen in np.split(order, ends)]
    while len(parts) > 1:
        one, other = (parts.pop(data.draw(st.integers(0, len(parts) - 1))) for _ in range(2))
        parts.append(one + other)
    assert np.array_equal(parts[0].vector, expected.vector)
    assert np.array_equal(
        (Tally.empty(STEPS) + expected).vector, (expected + Tally.empty(STEPS)).vector
    )
    assert np.array_equal((expected + Tally.empty(STEPS)).vector, expected.vector)


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_quantiles_are_numpys(seed, count):
    whole = networks(seed, count)
    tally = tally_of(whole)
    losses = np.where(np.isfinite(whole["losses"]), whole["losses"], np.inf)
    for percent in QUANTILES:
        exact = np.sort(losses)[max(0, -(-count * percent // 100) - 1)]  # NumPy's inverted_cdf
        if percent in (0, 100) or not 1e-16 < exact < np.inf:
            assert tally.loss(percent) == exact or exact <= 1e-16 >= tally.loss(percent)
        else:
            assert abs(np.log(tally.loss(percent) / exact)) <= np.log(1.01) / 2 * (1 + 1e-9)
    telling = tally.telling()
    assert telling["the worst"] == whole["starts"][losses == losses.max()].min()
    median = losses[whole["starts"] == telling["the median"]].item()
    exact = np.sort(losses)[-(-count // 2) - 1]
    assert median == exact or max(median, exact) <= 1e-16 or 1 / 1.01 < median / exact < 1.01


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_every_kind_is_counted(seed, count):
    whole = networks(seed, count)
    tally = tally_of(whole)
    assert tally.starts == count
    for kind, member in whole["kinds"].items():
        assert tally.counts[kind] == member.sum()
        if kind in {"plateau", "saddle"}:
            lowest = whole["starts"][member].min() if member.any() else None
            assert tally.telling().get(f"stuck on a {kind}") == lowest
    assert list(tally.counts) == list(COUNTS)


def test_the_output_held_out_is_numpys_histogram():
    whole = networks(1, 400)
    finite = np.isfinite(whole["losses"])
    expected, _ = np.histogram(whole["held_out"][:, finite], bins=100, range=(0, 1))
    assert np.array_equal(tally_of(whole).held_out, expected)


@given(st.integers(0, 2**32), st.integers(1, 100))
def test_the_median_of_steps_is_of_those_that_got_there(seed, count):
    whole = networks(seed, count)
    at = checkpoints(STEPS).tolist()
    there = np.sort(whole["first_right"][whole["first_right"] >= 0])
    expected = at[there[-(-len(there) // 2) - 1]] if len(there) else None
    assert tally_of(whole).median_steps(STEPS) == expected


@pytest.mark.parametrize("steps", [1, 9, 10, 11, 999, 1000, 10_000, 123_456, 10**9])
def test_checkpoints_lie_five_per_cent_or_ten_steps_apart(steps):
    at = checkpoints(steps)
    assert (at[0], at[-1]) == (0, steps)
    gaps = np.diff(at)
    assert (gaps > 0).all()
    assert (gaps <= np.maximum(10, at[:-1] / 20)).all()
    assert len(at) < 50 + 30 * np.log2(max(2, steps / 400))


@pytest.mark.parametrize("place", [1.0001, 1.0099])
def test_no_quantile_lies_outside_the_losses(place):
    """All losses are one number, near the lower or the upper end of a bin 1 % wide."""
    loss = 1e-16 * 1.01**2000 * place
    one = tally_of(networks(0, 20) | {"losses": np.full(20, loss)})
    assert [one.loss(percent) for percent in QUANTILES] == [loss] * 5
