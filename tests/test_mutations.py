"""Formulas as text, and slips in them: the texts are torch's; a slip is named by its line."""

import itertools
import math
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from gdtorch import lockstep
from gdtorch.lockstep.gradients import derivatives, mistakes, mutations
from gdtorch.lockstep.observing import tape
from gdtorch.lockstep.replaying import rules

optimizers = import_module("gdtorch.optimizers")

pytestmark = pytest.mark.usefixtures("one_thread")
slow = pytest.mark.slow


def test_the_mutants_of_a_formula_have_one_slip_each():
    made = set(mutations.mutants("y = a * (b - sqrt(c + d))\nz = y"))
    assert {text.split("\n")[0].removeprefix("y = ") for text in made} == {
        "a * (b - sqrt(c + d))",  # with a slip in the line below
        "-(a * (b - sqrt(c + d)))",
        "a",
        "b - sqrt(c + d)",
        "a / (b - sqrt(c + d))",
        "a * b - sqrt(c + d)",
        "a * b",
        "a * -sqrt(c + d)",
        "a * (b + sqrt(c + d))",
        "a * (b - sqrt(c + d) - sqrt(c + d))",
        "a * (b - (c + d))",
        "a * (b - sqrt(sqrt(c + d)))",
        "a * (b - (sqrt(c) + d))",
        "a * (b - sqrt(c))",
        "a * (b - sqrt(d))",
        "a * (b - sqrt(c - d))",
        "a * (b - sqrt(c + d + d))",
        "z = y",  # which is the second line
    }
    assert "y = sqrt(a + b) + c" in mutations.mutants("y = sqrt(a + b + c)")
    assert "y = sqrt(a + b)" in mutations.mutants("y = sqrt(a) + b")
    assert "y = b" in mutations.mutants("y = a", (("a", "b"),))
    assert "y = (a + b) * c" in mutations.mutants("y = a + b * c")
    assert "y = a * (b + c)" in mutations.mutants("y = a * b + c")
    assert "a = sqrt(a) + b\nc = sqrt(a)" in mutations.mutants("a = a + b\nc = sqrt(a)")
    assert "y = c * a + b" in mutations.mutants("y = a + b", (("a", "b"),), "c")
    assert {"y = (a - b) ** 2", "y = a * b"} <= {*mutations.mutants("y = a ** 2", (("a", "b"),))}
    assert "y = y + (y * a)" in {
        text.replace("y + y * a", "y + (y * a)") for text in mutations.mutants("y = y * a")
    }
    assert "y = a / (n - 1)" in mutations.mutants("y = a / n")
    assert "y = total_of_all(a)" in mutations.mutants("y = total(a)")
    assert "y = total_of_all(a) + total_of_all(a * b)" in mutations.mutants(
        "y = total(a) + total(a * b)"
    ), "in all calls of a function"
    assert "a = b\nc = d" in mutations.mutants("a = sqrt(b)\nc = sqrt(d)"), "the same slip twice"


OPTIONS = {
    "SGD": [
        *({}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3}),
        *({"momentum": 0.8, "nesterov": True}, {"weight_decay": 0.1, "momentum": 0.5}),
    ],
    "Adagrad": [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.2}],
    "Adadelta": [{}, {"rho": 0.8, "eps": 1e-3}],
    "RMSprop": [{}, {"momentum": 0.9}, {"centered": True}, {"centered": True, "momentum": 0.5}],
    "Adam": [{}, {"amsgrad": True}, {"weight_decay": 0.1, "betas": (0.8, 0.9)}],
    "AdamW": [{}, {"maximize": True}],
    "Adamax": [{}, {"eps": 1e-2}],
    "NAdam": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
}
CASES = [(kind, options) for kind, several in OPTIONS.items() for options in several]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CASES), st.floats(1e-3, 0.5), st.integers(0, 2**32))
def test_the_text_of_a_rule_is_the_rule(case, lr, seed):
    kind, options = case
    numbers = np.random.default_rng(seed)
    theirs = torch.tensor(numbers.normal(size=4)).requires_grad_()
    mine, state = theirs.detach().clone(), {}
    optimizer = getattr(torch.optim, kind)([theirs], lr=lr, **options)
    rule = optimizers.RULES[kind](lr=lr, **options)
    text = rules.text_of(rule)
    for _ in range(4):
        theirs.grad = torch.tensor(numbers.normal(size=4))
        rules.take(text, rule, mine, theirs.grad, state)
        optimizer.step()
        # NAdam's product of all mu is kept in float32 by PyTorch.
        assert torch.allclose(mine, theirs, rtol=1e-6 if kind == "NAdam" else 1e-12, atol=1e-12)


OWN = torch.tensor([[0.5, 1.5, -1.0], [0.1, 0.2, 0.3]]).double()  # of a norm: weight and bias
GIVEN = {
    "leaky_relu": (0.2,),
    "elu": (0.5,),
    "softmax": (1,),
    "log_softmax": (1,),
    "layer_norm": ((3,), *OWN),
    "batch_norm": (None, None, *OWN, True),
    "rms_norm": ((3,), OWN[0]),
}
POSITIVE = {"log", "log1p", "sqrt", "rsqrt"}


def called(name):
    """A function of torch with arguments of its range: what is called, x, and the others."""
    x, t = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    call = getattr(F, name, None) or getattr(torch, name)
    if name == "cross_entropy":
        return call, x, (t.argmax(1),)
    if name == "binary_cross_entropy":
        return call, x.sigmoid(), (t.sigmoid(),)
    if "loss" in name or name == "binary_cross_entropy_with_logits":
        return call, x, (t,)
    return call, x.abs() + 0.1 if name in POSITIVE else x, GIVEN.get(name, ())


def local(name, call, x, others):
    function = tape.Function(name, call, (tape.Slot(0), *others), {}, (1,), None)
    return mistakes.Local(function, lambda x: call(x, *others), (x, *others), {}, x)


@pytest.mark.parametrize("name", derivatives.TEXTS)
def test_the_text_of_a_derivative_is_the_derivative(name):
    call, x, others = called(name)
    at = local(name, call, x.requires_grad_(), others)
    g = torch.randn(at.y.shape, generator=torch.Generator().manual_seed(1)).double()
    (true,) = torch.autograd.grad(call(x, *others), x, g)
    made = derivatives.Written(name, derivatives.TEXTS[name])(g, at)
    assert torch.allclose(made, true, rtol=1e-12, atol=1e-14)


def test_a_derivative_is_not_written_for_a_call_of_another_kind():
    call, x, others = called("cross_entropy")

    def weighted(z, t):
        return call(z, t, weight=torch.tensor([1.0, 2.0, 4.0]).double())

    at = local("cross_entropy", weighted, x, others)
    with pytest.raises(ValueError, match="another derivative"):
        derivatives.Written("cross_entropy", derivatives.TEXTS["cross_entropy"])(
            torch.tensor(1.0), at
        )


def descend(theirs_optimizer, step):
    """Both on f(w) = Σ (x w − y)², theirs with an optimizer, mine by step(w, g, state, t)."""
    numbers = np.random.default_rng(0)
    x, y, start = (numbers.normal(size=size) for size in ((9, 4), (9, 2), (4, 2)))

    def theirs():
        w = torch.tensor(start).requires_grad_()
        optimizer = theirs_optimizer([w])
        while True:
            yield {"w": w}
            optimizer.zero_grad()
            F.mse_loss(torch.tensor(x) @ w, torch.tensor(y)).backward()
            optimizer.step()

    def mine():
        w, state = start.copy(), {}
        for t in itertools.count(1):
            yield {"w": w.copy()}
            w = step(w, 2 * x.T @ (x @ w - y) / y.size, state, t)

    return lockstep(mine(), theirs(), 20)


def moments(g, state, b1=0.9, b2=0.999):
    m = state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    v = state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
    return m, v


def times_the_root(w, g, state, t):  # oracle/tribuo#401
    m, v = moments(g, state)
    return w - 0.1 * m / (1 - 0.9**t) * (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def beta_without_its_power(w, g, state, t):
    m, v = moments(g, state)
    return w - 0.1 * m / (1 - 0.9) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def parentheses_forgotten(w, g, state, t):
    m, v = moments(g, state)
    return w - 0.1 * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t)) + 1e-8


def corrections_exchanged(w, g, state, t):
    m, v = moments(g, state)
    return w - 0.1 * m / (1 - 0.999**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)


def size_for_square(w, g, state, t):
    m, v = moments(g, {**state, "v": 0})
    v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * np.abs(g)
    state["m"] = m
    return w - 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def sum_that_goes_on(w, g, state, _):  # tensorflow/tensorflow#644
    v = state["v"] = state.get("v", 0) + 0.9 * state.get("v", 0) + 0.1 * g**2
    d = np.sqrt(state.get("u", 0) + 1e-6) / np.sqrt(v + 1e-6) * g
    state["u"] = 0.9 * state.get("u", 0) + 0.1 * d**2
    return w - d


def eps_outside_both_roots(w, g, state, _):
    v = state["v"] = 0.9 * state.get("v", 0) + 0.1 * g**2
    d = (np.sqrt(state.get("u", 0)) + 1e-6) / (np.sqrt(v) + 1e-6) * g
    state["u"] = 0.9 * state.get("u", 0) + 0.1 * d**2
    return w - d


def adam(w):
    return torch.optim.Adam(w, lr=0.1)


def adadelta(w):
    return torch.optim.Adadelta(w)


@pytest.mark.parametrize(
    ("optimizer", "step", "said"),
    [
        (adam, times_the_root, "`w = w - lr * m_hat * (sqrt(v_hat) + eps)`"),
        pytest.param(adam, beta_without_its_power, "`m_hat = m / (1 - beta1)`", marks=slow),
        pytest.param(
            adam, parentheses_forgotten, "`w = w - lr * m_hat / sqrt(v_hat) + eps`", marks=slow
        ),
        (
            adam,
            corrections_exchanged,
            "`m_hat = m / (1 - beta2 ** t); v_hat = v / (1 - beta1 ** t)`",
        ),
        pytest.param(adam, size_for_square, "`v = beta2 * v + (1 - beta2) * abs(g)`", marks=slow),
        (adadelta, sum_that_goes_on, "`v = v + (rho * v + (1 - rho) * g ** 2)`"),
        pytest.param(
            adadelta,
            eps_outside_both_roots,
            "`d = (sqrt(u) + eps) / (sqrt(v) + eps) * g`",
            marks=slow,
        ),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_a_slip_in_a_rule_is_named_by_its_line(optimizer, step, said):
    with np.errstate(all="ignore"):
        report = descend(optimizer, step)
    assert report.cause == "update rule", str(report)
    assert f"it has {said}" in str(report) or said in str(report), str(report)
    assert report.edits[0].theirs in str(report).split("Change:")[1]


def slopes(z):
    """Derivatives by hand with a slip, each with its function, and what is to be said of it."""
    s = 1 / (1 + np.exp(-z))
    t = np.tanh(np.log1p(np.exp(z)))
    pdf = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    cdf = (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
    sigmoid_of_softplus = 1 / (1 + np.exp(-np.log1p(np.exp(z))))
    return {
        "elu": (np.where(z > 0, 1, z + 1), "where(x > 0, 1, x + alpha)"),  # mlpack/mlpack#1540
        "mish": (t + z * sigmoid_of_softplus * (1 - t**2), "sigmoid(s) * (1 - t ** 2)"),
        "silu": (s + z * (1 - s), "g * (s + x * (1 - s))"),
        "gelu": (cdf + pdf, "exp(-x ** 2 / 2) / root2pi"),
        "sigmoid": (s * (1 + s), "g * y * (1 + y)"),
    }


@pytest.mark.parametrize(
    "name", ["elu", *(pytest.param(n, marks=slow) for n in ("mish", "silu", "gelu", "sigmoid"))]
)
def test_a_slip_in_a_derivative_is_named_by_its_line(name):
    numbers = np.random.default_rng(0)
    x, y, first, last = (numbers.normal(size=s) / 2 for s in ((9, 4), (9, 2), (4, 3), (3, 2)))
    call = getattr(F, name, None) or getattr(torch, name)

    def theirs():
        w = {
            "first": torch.tensor(first).requires_grad_(),
            "last": torch.tensor(last).requires_grad_(),
        }
        optimizer = torch.optim.SGD(w.values(), lr=0.1)
        while True:
            yield w
            optimizer.zero_grad()
            F.mse_loss(call(torch.tensor(x) @ w["first"]) @ w["last"], torch.tensor(y)).backward()
            optimizer.step()

    def mine():
        one, two = first, last
        while True:
            yield {"first": one, "last": two}
            z = x @ one
            h = call(torch.tensor(z)).numpy()
            d = 2 * (h @ two - y) / y.size
            slope, _ = slopes(z)[name]
            one, two = one - 0.1 * x.T @ (d @ two.T * slope), two - 0.1 * h.T @ d

    report = lockstep(mine(), theirs(), 20)
    assert report.cause == "derivative", str(report)
    assert slopes(np.zeros(1))[name][1] in str(report), str(report)
    assert report.edits[0].weights == ("first",)


def normed(x, over, centered):
    """x less its mean and divided by its standard deviation, and the latter."""
    mean = x.mean(over, keepdims=True) if centered else 0
    std = np.sqrt(((x - mean) ** 2).mean(over, keepdims=True) + 1e-5)
    return (x - mean) / std, std


def layer_norm(x, gain):
    return F.layer_norm(x, (3,), gain)


def rms_norm(x, gain):
    return F.rms_norm(x, (3,), gain, 1e-5)


def batch_norm(x, gain):
    return F.batch_norm(x, None, None, gain, training=True)


NORMS = {  # with a derivative that has a slip: dx times std of g, its product with gain, and xhat
    "mean subtracted twice": (  # tenstorrent/tt-metal#53204
        *(layer_norm, 1, lambda _, h, n: h - 2 * row_mean(h) - n * row_mean(h * n)),
        "dx = (h - total(h) / n - total(h) / n - xhat * total(h * xhat) / n) / std",
    ),
    "sums over all rows": (  # flagos-ai/FlagGems#59
        *(layer_norm, 1, lambda _, h, n: h - h.sum() / 3 - n * (h * n).sum() / 3),
        "dx = (h - total_of_all(h) / n - xhat * total_of_all(h * xhat) / n) / std",
    ),
    "sum for mean": (  # mlpack/mlpack#1327
        *(batch_norm, 0, lambda _, h, n: h - h.sum(0) - n * (h * n).mean(0)),
        "dx = (h - total(h) - xhat * total(h * xhat) / n) / std",
    ),
    "n - 1 in one term": (
        *(batch_norm, 0, lambda _, h, n: h - h.mean(0) - n * (h * n).sum(0) / (len(n) - 1)),
        "dx = (h - total(h) / n - xhat * total(h * xhat) / (n - 1)) / std",
    ),
    "no weight in one term": (  # karpathy/llm.c#763
        *(rms_norm, 1, lambda g, h, n: h - n * row_mean(g * n)),
        "dx = (h - xhat * total(g * xhat) / n) / std",
    ),
}


def row_mean(array):
    return array.mean(1, keepdims=True)


@pytest.mark.parametrize(
    "slip", [one if k < 2 else pytest.param(one, marks=slow) for k, one in enumerate(NORMS)]
)
def test_a_slip_in_the_derivative_of_a_norm_is_named_by_its_line(slip):
    norm, over, back, said = NORMS[slip]
    numbers = np.random.default_rng(0)
    x, y, first, last = (numbers.normal(size=s) for s in ((9, 4), (9, 2), (4, 3), (3, 2)))
    start = {"first": first, "gain": numbers.uniform(0.5, 1.5, 3), "last": last / 2}

    def theirs():
        w = {name: torch.tensor(array).requires_grad_() for name, array in start.items()}
        optimizer = torch.optim.SGD(w.values(), lr=0.1)
        while True:
            yield w
            optimizer.zero_grad()
            made = norm(torch.tensor(x) @ w["first"], w["gain"]).tanh() @ w["last"]
            F.mse_loss(made, torch.tensor(y)).backward()
            optimizer.step()

    def mine():
        w = start
        while True:
            yield w
            xhat, std = normed(x @ w["first"], over, norm is not rms_norm)
            a = np.tanh(w["gain"] * xhat)
            d = 2 * (a @ w["last"] - y) / y.size
            g = d @ w["last"].T * (1 - a**2)
            dx = back(g, g * w["gain"], xhat) / std
            grads = {"first": x.T @ dx, "gain": (g * xhat).sum(0), "last": a.T @ d}
            w = {name: w[name] - 0.1 * grad for name, grad in grads.items()}

    report = lockstep(mine(), theirs(), 20)
    assert report.cause == "derivative", str(report)
    assert f"has `{said}` for the derivative of y = {norm.__name__}(x)" in str(report), str(report)
    assert report.edits[0].weights == ("first",)
