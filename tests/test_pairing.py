"""Which weight of mine is which of theirs: told by names, values, shapes or order, or refused."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdtorch import lockstep
from gdtorch.lockstep.reading.pairing import pair
from gdtorch.lockstep.reading.reading import named


def tensors(**arrays):
    return {name: torch.as_tensor(np.asarray(array, float)) for name, array in arrays.items()}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def still(weights, steps=2):
    return [{n: np.array(w) for n, w in weights.items()} for _ in range(steps + 1)]


def paired(mine, theirs):
    found = pair(tensors(**mine), tensors(**theirs))
    return {one.mine: name for name, one in found.pairs.items()}, found


W1, W2, B1, B2 = random(3, 4, seed=1), random(4, 2, seed=2), np.zeros(4), np.zeros(2)
LINEAR = {"0.weight": W1.T, "0.bias": B1, "2.weight": W2.T, "2.bias": B2}


def test_a_network_as_numpy_has_it_finds_its_linear_layers():
    mine = {"W1": W1, "b1": B1[None], "W2": W2, "b2": B2[:, None]}
    found = lockstep(still(mine), still(LINEAR))
    assert found.identical
    assert str(found).splitlines()[-2] == (
        "paired: W1 with 0.weight (transposed), b1 with 0.bias (reshaped), "
        "W2 with 2.weight (transposed), b2 with 2.bias (reshaped)"
    )


def test_nothing_is_said_where_the_names_say_it():
    assert "paired" not in str(lockstep(still(LINEAR), still(LINEAR)))
    renamed = {"w": "0.weight", "b": "0.bias"}
    mine = {"w": W1.T, "b": B1, "2.weight": W2.T, "2.bias": B2}
    assert "paired" not in str(lockstep(still(mine), still(LINEAR), rename=renamed))


def test_rename_overrules():
    theirs = {"a": W1, "b": 2 * W1}
    assert lockstep(still({"x": W1, "y": 2 * W1}), still(theirs)).identical
    crossed = lockstep(still({"x": W1, "y": 2 * W1}), still(theirs), rename={"x": "b", "y": "a"})
    assert crossed.cause == "initial weights"


def test_names_that_are_one_off_are_paired_by_their_values():
    mine, theirs = {"W0": W1, "W1": 2 * W1}, {"W1": W1, "W2": 2 * W1}
    assert paired(mine, theirs)[0] == {"W0": "W1", "W1": "W2"}
    biases = {"b0": B1, "b1": B1}, {"b1": B1, "b2": B1}
    names, found = paired(mine | biases[0], theirs | biases[1])
    assert names == {"W0": "W1", "W1": "W2", "b0": "b1", "b1": "b2"}
    assert "b0 with b1 (by order), b1 with b2 (by order)" in str(found)


def test_names_that_are_but_places_are_paired_by_their_values():
    found = lockstep(([W1, B2] for _ in range(3)), ([B2.copy(), W1.T.copy()] for _ in range(3)))
    assert "paired: 1 with 0, 0 with 1 (transposed)" in str(found)


def test_numbers_are_no_names_where_mine_has_some():
    found = lockstep(still({"w": W1, "b": B1}), [[B1.copy(), W1.T.copy() + 0.0] for _ in range(3)])
    assert found.identical
    assert set(found.weights) == {"w", "b"}
    assert "paired: b with 0, w with 1 (transposed)" in str(found)
    with_names = lockstep(still({"w": W1, "b": B1}), still({"u": W1, "c": B1}))
    assert set(with_names.weights) == {"u", "c"}


def test_a_start_with_nan_is_paired():
    hole = np.array([1.0, np.nan, 2.0])
    assert paired({"a": hole, "b": B1[:3]}, {"c": B1[:3], "d": hole})[0] == {"a": "d", "b": "c"}


def test_a_square_is_turned_where_its_values_say_so():
    square = random(3, 3)
    names, found = paired({"w": square}, {"w": square.T})
    assert names == {"w": "w"}
    assert str(found) == "paired: w (transposed)"
    assert str(paired({"w": square}, {"w": square})[1]) == ""
    assert str(paired({"w": square}, {"w": square + 1})[1]) == ""


def test_what_is_equal_either_way_round_lies_as_the_others_do():
    mine, theirs = {"A": W1, "Z": np.zeros((3, 3))}, {"a": W1.T, "z": np.zeros((3, 3))}
    _, found = paired(mine, theirs)
    assert (
        str(found) == "paired: A with a (transposed), Z with z (transposed, equal either way round)"
    )
    _, found = paired({"A": W1, "Z": np.zeros((3, 3))}, {"a": W1, "z": np.zeros((3, 3))})
    assert str(found) == "paired: A with a, Z with z (equal either way round)"


def test_kernels_of_a_convolution_find_their_order():
    kernel = random(3, 3, 2, 5)  # as JAX has it: height, width, in, out
    _, found = paired({"kernel": kernel}, {"weight": kernel.transpose(3, 2, 0, 1)})
    assert str(found) == "paired: kernel with weight (axes in the order (3, 2, 0, 1))"


def test_by_shape_and_by_order_where_that_is_unique():
    mine = {"w1": W1, "b1": np.zeros(3), "w2": W2, "b2": np.zeros(3)}
    theirs = {"v1": W1, "c1": np.zeros(3), "v2": W2, "c2": np.zeros(3)}
    names, found = paired(mine, theirs)
    assert names == {"w1": "v1", "b1": "c1", "w2": "v2", "b2": "c2"}
    assert "b1 with c1 (by order)" in str(found)
    _, found = paired({"w": random(3, seed=3)}, {"v": random(3, seed=4)})
    assert str(found) == "paired: w with v (by shape)"
    # No known pair stands between the two biases, which hold the same numbers, or do not.
    last = {name: mine[name] for name in ("w1", "w2", "b1", "b2")}
    assert paired(last, theirs)[0] == {"w1": "v1", "b1": "c1", "w2": "v2", "b2": "c2"}
    found = pair(tensors(**last | {"b2": np.ones(3)}), tensors(**theirs))
    assert found.refusal.weights == ("b1", "b2", "c1", "c2")
    # The known pairs are in another order.
    turned = {name: mine[name] for name in ("w2", "b1", "w1", "b2")}
    found = pair(tensors(**turned), tensors(**theirs))
    assert found.refusal.weights == ("b1", "b2", "c1", "c2")


def test_what_cannot_be_paired_is_listed_whole():
    mine = still({"w": W1, "b": B1, "c": B1, "extra": random(7)})
    theirs = still({"w": W1, "x": B1})
    found = lockstep(mine, theirs)
    assert found.cause == "names"
    whole = "not to be paired: b (4,), c (4,) and extra (7,) in mine; x (4,) in theirs: neither"
    assert whole in str(found)
    lone = str(lockstep(still({"w": W1}), still({"w": W1, "x": B1})))
    assert "paired: x (4,) in theirs, which mine does not train, or does not yield." in lone
    lone = str(lockstep(still({"w": W1, "x": B1}), still({"w": W1})))
    assert "paired: x (4,) in mine, which theirs does not train, or does not yield." in lone
    found = lockstep(still({"w": W1, "b": B1, "c": B2}), still({"w": W2, "b": B1, "c": W2}))
    assert (found.cause, found.diagnosis.weights) == ("shape", ("w", "c"))
    assert "w is (3, 4) in mine, (4, 2) in theirs; c is (2,) in mine, (4, 2)" in str(found)


def test_many_pairs_are_said_in_short():
    mine, theirs = ({f"{letter}{k}": random(3, seed=k) for k in range(20)} for letter in ("a", "b"))
    assert str(paired(mine, theirs)[1]).endswith("a11 with b11, and 8 more")


SHAPES = [(3, 4), (3, 3), (4, 2), (4,), (3,), (1, 4), (4, 1), (2, 3, 3), ()]


@st.composite
def disguised(draw):
    """Weights, the same in other clothes, and which is which."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=6))
    theirs, mine, truth = {}, [], {}
    for k, shape in enumerate(shapes):
        kind = draw(st.sampled_from(["random", "zero", "one"]))
        value = random(*shape, seed=k) if kind == "random" else np.full(shape, float(kind == "one"))
        theirs[f"t{k}"] = value
        if draw(st.booleans()):
            value = value.T
        if draw(st.booleans()):
            value = np.expand_dims(value, draw(st.integers(0, value.ndim)))
        if draw(st.booleans()) and value.ndim < 2:
            value = value.reshape(draw(st.sampled_from([(-1,), (1, -1), (-1, 1)])))
        mine.append((k, value))
    names = draw(st.permutations([*(f"m{k}" for k in range(len(shapes) - 1)), "t0"]))
    result = {}
    for (k, value), name in zip(draw(st.permutations(mine)), names, strict=True):
        result[name], truth[name] = value, f"t{k}"
    return result, theirs, truth


@given(disguised())
def test_paired_right_or_said_or_refused(pairs):
    """Whatever is paired holds the same values; what is told by values alone is told right."""
    mine, theirs, truth = pairs
    names, found = paired(mine, theirs)
    misnamed = names.get("t0") == "t0" != truth["t0"]  # which only its name could tell
    arrays = tensors(**mine)
    for one, other in names.items():
        right = truth[one] == other
        same = np.array_equal(found.pairs[other].view(arrays[one]).numpy(), theirs[other])
        said = "by order" in str(found.pairs[other].notes)
        assert same or said or misnamed or "by shape" in found.pairs[other].notes
        assert right or said or misnamed, str(found)
        assert one == other or f"{one} with {other}" in str(found)
    lone = {*mine} - {*names}
    assert bool(found.refusal) == bool(lone)
    if found.refusal:
        assert lone <= set(found.refusal.weights)
    unique = [k for k, v in theirs.items() if np.unique(v).size > 1]
    assert set(unique) <= set(names.values())


def test_arrays_stay_live_and_mines_weights_reach_theirs():
    """A transposed layer with a wrong factor: shown by replay in theirs' layout."""
    x, y = random(20, 3, seed=5), random(20, 2, seed=6)
    start = random(3, 2, seed=7)

    def by_hand():
        w, b = start.copy(), np.zeros((1, 2))
        while True:
            yield {"w": w, "b": b}
            error = 2 / y.size * (x @ w + b - y)
            w -= 0.3 * x.T @ error
            b -= 0.1 * error.sum(0, keepdims=True)

    def by_torch():
        model = torch.nn.Linear(3, 2, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(torch.tensor(start).T)
            model.bias.zero_()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        while True:
            yield model
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y)).backward()
            optimizer.step()

    found = lockstep(by_hand(), by_torch(), 20)
    assert (found.cause, found.reproduced) == ("scale of one weight", 20), str(found)
    assert found.factor == {"weight": pytest.approx(3)}
    assert "paired: w with weight (transposed), b with bias (reshaped)" in str(found)


# What a step may be.


MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
ARRAYS = [p.detach().numpy() for p in MODEL.parameters()]
TREE = {"params": {"a": {"kernel": ARRAYS[0], "bias": ARRAYS[1]}, "b": OrderedDict(w=ARRAYS[2])}}
KINDS = {
    "a module": (lambda: MODEL, ["0.weight", "0.bias", "1.weight", "1.bias"]),
    "named_parameters": (MODEL.named_parameters, ["0.weight", "0.bias", "1.weight", "1.bias"]),
    "items": (lambda: {"a": 1.0}.items(), ["a"]),
    "pairs": (lambda: [("w", ARRAYS[0]), ("b", ARRAYS[1])], ["w", "b"]),
    "a tuple": (lambda: tuple(ARRAYS), ["0", "1", "2", "3"]),
    "a list": (lambda: ARRAYS, ["0", "1", "2", "3"]),
    "parameters": (lambda: list(MODEL.parameters()), ["0", "1", "2", "3"]),
    "layers": (lambda: [tuple(ARRAYS[:2]), tuple(ARRAYS[2:])], ["0/0", "0/1", "1/0", "1/1"]),
    "layers by name": (lambda: [{"w": ARRAYS[0]}, {"w": ARRAYS[1]}], ["0/w", "1/w"]),
    "a tree": (lambda: TREE, ["params/a/kernel", "params/a/bias", "params/b/w"]),
    "lists of numbers": (lambda: {"w": [[1.0, 2.0]], "b": (1.0,)}, ["w", "b"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_step_may_be(kind):
    make, names = KINDS[kind]
    theirs = [
        {n: torch.as_tensor(a).detach().clone() for n, a in named(make(), "theirs").items()}
        for _ in range(2)
    ]
    report = lockstep((make() for _ in range(2)), theirs)
    assert report.identical
    assert list(report.weights) == names


def test_two_lists_of_live_arrays_are_an_error():
    w = torch.ones(3)

    def live():
        for _ in range(4):
            yield {"w": w}
            w.sub_(0.1)

    for stored in (list, tuple, lambda steps: iter(list(steps))):
        with pytest.raises(ValueError, match=r"mine, step 1 is the same memory as .* copy them"):
            lockstep(stored(live()), stored(live()))
    assert lockstep(({"w": w - k} for k in range(3)), [{"w": w.clone() - k} for k in range(3)])


def test_a_module_is_no_trajectory():
    with pytest.raises(ValueError, match=r"mine is an object of type Sequential, where .* yield"):
        lockstep(MODEL, MODEL)
