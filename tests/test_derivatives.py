"""lockstep on gradients derived by hand: each mistake by its name, and honest ones not accused."""

import itertools

import numpy as np
import pytest
import torch
from backward import NETWORKS, Gated, Sigmoid, by_hand, by_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from gdtorch import lockstep

UNNAMED = {"unexplained", "one weight's update"}
CASES = [(network, mistake) for network in NETWORKS for mistake in network.MISTAKES]
every_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
HOW = list(itertools.product(("SGD", "Adam"), ("float64", "float32")))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):  # of steps that run away
        yield


def report_on(network, seed, dtype, optimizer, *mistakes):
    net = network(seed)
    mine, theirs = by_hand(net, dtype, optimizer, *mistakes), by_torch(net, dtype, optimizer)
    return lockstep(mine, theirs, 20, rows=net.rows)


def is_named(report, optimizer, cause, *words):
    """Whether a report is right; to Adam a factor c of the gradient is the same as eps / c."""
    if optimizer == "Adam" and cause.startswith("scale") and report.cause != cause:
        return report.agree or report.cause == "eps"
    return report.cause == cause and all(text in str(report) for text in words)


@pytest.mark.parametrize(
    ("network", "mistake", "how"),
    [
        pytest.param(
            *case, HOW[number % 3], marks=pytest.mark.slow if number % 4 or case[0] is Gated else []
        )
        for number, case in enumerate(CASES[::4])
    ],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
def test_a_mistake_in_the_gradient_is_named(network, mistake, how):
    """Every sixteenth one, of small networks, in one way; the slow test below has all."""
    optimizer, dtype = how
    report = report_on(network, 1, dtype, optimizer, mistake)
    assert is_named(report, optimizer, *network.MISTAKES[mistake]), str(report)


@pytest.mark.parametrize("mistake", [pytest.param("no σ′", marks=pytest.mark.slow), "a alone"])
def test_a_mistake_that_adams_first_step_hides_is_named(mistake):
    report = report_on(Sigmoid, 0, "float32", "Adam", mistake)
    assert report.first_difference.step == 2
    assert is_named(report, "Adam", *Sigmoid.MISTAKES[mistake]), str(report)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(HOW[:1], marks=pytest.mark.slow),
        pytest.param(HOW[1:], marks=pytest.mark.exhaustive),
    ],
    ids=["SGD in float64", "Adam, or in float32"],
)
@every_network
def test_no_mistake_in_the_gradient_is_taken_for_another(network, how):
    """None wrong, under 5 % unnamed."""
    wrong, unnamed, count = [], [], 0
    for (optimizer, dtype), seed in itertools.product(how, range(1)):
        for mistake, told in network.MISTAKES.items():
            report = report_on(network, seed, dtype, optimizer, mistake)
            count += 1
            if report.cause in UNNAMED:
                unnamed.append((mistake, optimizer, dtype, seed))
            elif not is_named(report, optimizer, *told):
                wrong.append((mistake, optimizer, dtype, seed, str(report)))
    assert not wrong
    print(f"{network.__name__}: {len(unnamed)} of {count} unnamed")
    assert len(unnamed) < 0.05 * count, unnamed


@pytest.mark.parametrize(("optimizer", "dtype"), HOW[1:3])
@every_network
def test_an_honest_gradient_is_not_accused(network, optimizer, dtype):
    report = report_on(network, 0, dtype, optimizer)
    assert report.agree, str(report)


def fitted(loss, batch=lambda _: slice(None)):
    """A linear layer of three outputs that minimizes a loss of outputs, targets and classes."""
    rng = np.random.default_rng(0)
    x, y, w = (torch.tensor(rng.normal(size=size)) for size in ((9, 4), (9, 3), (4, 3)))
    w.requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.1)
    for step in itertools.count():
        yield {"w": w}
        optimizer.zero_grad()
        rows = batch(step)
        loss(x[rows] @ w, y[rows], y[rows].argmax(1)).backward()
        optimizer.step()


def unseen(loss, *batch):
    """Its weights in 20 steps, as of a program that is not in PyTorch."""
    steps = itertools.islice(fitted(loss, *batch), 21)
    return [{"w": step["w"].detach().numpy().copy()} for step in steps]


CLASSES = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def one_hot(k):
    return F.one_hot(k, 3).double()


LOSSES = [  # theirs', mine's, and what mine is to be told
    (
        lambda z, _, k: F.cross_entropy(z, k, label_smoothing=0.2),
        lambda z, _, k: -F.log_softmax(z, 1)[torch.arange(len(k)), k].mean(),
        "cross_entropy without its label_smoothing",
    ),
    (
        lambda z, y, _: F.huber_loss(z, y, delta=0.5),
        lambda z, y, _: F.smooth_l1_loss(z, y),
        "huber_loss without its delta",
    ),
    (
        lambda z, y, _: F.l1_loss(z, y),
        lambda z, y, _: ((z - y) ** 2).mean() / 2,
        "derivative of half the squared error for that of l1_loss",
    ),
    (
        lambda z, y, _: (z - y).norm(dim=1).mean(),
        lambda z, y, _: ((z - y) ** 2).sum(1).mean() / 2,
        "does not divide by the norm",
    ),
    (
        lambda z, y, _: -F.logsigmoid(-z * y.sign()).mean(),
        lambda z, y, _: F.softplus(-z * y.sign()).mean(),
        "has the other sign where theirs has neg (neg number 1 of 2",
    ),
    (
        lambda z, y, _: (z[:, 0] * z[:, 1] - y[:, 0]).square().mean(),
        lambda z, y, _: (
            (2 * (z[:, 0] * z[:, 1] - y[:, 0])).detach()
            * (z[:, 0] * z[:, 0].detach() + z[:, 0].detach() * z[:, 1])
        ).mean(),
        "takes the factor itself for the other one in the gradient of factor 1",
    ),
    (
        lambda z, _, k: F.cross_entropy(z, k, weight=CLASSES),
        lambda z, _, k: (
            (CLASSES[k, None] * one_hot(k) * (z.softmax(1) - 1).detach() * z).sum()
            / CLASSES[k].sum()
        ),
        "has the derivative in the target's column alone",
    ),
    (
        lambda z, _, k: -F.log_softmax(z, 1)[torch.arange(len(k)), k].mean(),
        lambda z, _, k: ((z.softmax(1).detach() - one_hot(k) / len(k)) * z).sum(),
        "sums over all axes in the derivative of log_softmax",
    ),
]


@pytest.mark.parametrize(("theirs", "mine", "said"), LOSSES, ids=[said for *_, said in LOSSES])
def test_a_mistake_in_the_loss_is_named(theirs, mine, said):
    report = lockstep(unseen(mine), fitted(theirs), 20)
    assert said in str(report), str(report)


def test_the_derivative_to_write_is_given():
    mine = unseen(lambda z, *_: (z.detach() * z).mean())
    report = lockstep(mine, fitted(lambda z, *_: z.exp().mean()), 20)
    assert "it has the input, z, for the derivative of exp" in str(report)
    assert "Change: write dx = g * y, where y = exp(x) and g is what comes back." in str(report)


def test_the_bias_of_a_layer_with_one_output_is_told_from_its_weight():
    rng = np.random.default_rng(0)
    x, y, w, b = (rng.normal(size=size) for size in ((6, 4), (6, 1), (1, 4), 1))

    def theirs():
        layer = {"w": torch.tensor(w).requires_grad_(), "b": torch.tensor(b).requires_grad_()}
        optimizer = torch.optim.SGD(layer.values(), lr=0.1)
        while True:
            yield layer
            optimizer.zero_grad()
            out = F.linear(torch.tensor(x), layer["w"], layer["b"])
            F.mse_loss(out, torch.tensor(y)).backward()
            optimizer.step()

    def mine(w=w, b=b):
        while True:
            yield {"w": w, "b": b}
            delta = 2 * (x @ w.T + b - y) / 6
            w, b = w - 0.1 * delta.T @ x, b - 0.1 * delta[0]

    report = lockstep(mine(), theirs(), 20)
    said = "takes a bias's gradient from the first row alone (the only linear; it reaches b)"
    assert said in str(report), str(report)


@pytest.mark.slow
def test_batches_in_another_order_are_named():
    """From the second epoch on; rows that theirs never has together are no such batch."""
    orders = [[0, 1, 2], [2, 0, 1]]
    places = [[slice(3 * k, 3 * k + 3) for k in order] for order in orders]

    def squared(z, y, _):
        return F.mse_loss(z, y)

    def mine(step):
        return places[step // 3 % 2][step % 3]

    def theirs(step):
        return places[0][step % 3]

    def elsewhere(step):
        return slice(3 * (step % 3) - (step % 3 == 1), 3 * (step % 3) + 2)

    report = lockstep(unseen(squared, mine), fitted(squared, theirs), 20)
    assert report.cause == "rows of another step"
    assert "step 6 in step 4, step 4 in step 5, step 5 in step 6" in str(report)
    assert lockstep(unseen(squared, elsewhere), fitted(squared, theirs), 20).cause in UNNAMED


TWO = st.sampled_from(
    [
        (network, pair)
        for network in NETWORKS
        for pair in itertools.combinations(sorted(network.MISTAKES), 2)
    ]
)
OTHER_WORDS = {
    "sum for mean": ["sums where cross_entropy takes the mean"],
    "no σ′ in what is handed down": [
        "leaves out σ′",
        "hands the error down without the activation's derivative",
    ],
}


def told(net, report):
    """The mistakes that a report may mean, by its words without the place."""
    for name, (_, text, *_) in net.MISTAKES.items():
        if any(words in str(report) for words in (text, *OTHER_WORDS.get(name, ()))):
            yield name


def weights_of(net, optimizer, mistakes):
    steps = itertools.islice(by_hand(net, "float64", optimizer, *mistakes), 10)
    return [np.concatenate([w.ravel() for w in step.values()]) for step in steps]


def two_at_once(network, pair, optimizer):
    """What is named, made by hand, has to give the same weights; or nothing is named."""
    net = network(0)
    report = report_on(network, 0, "float64", optimizer, *pair)
    if report.cause in UNNAMED or report.agree:
        return
    names = sorted(set(told(net, report)))
    both = (some for count in (1, 2) for some in itertools.combinations(names, count))
    mine = weights_of(net, optimizer, pair)
    assert any(
        np.allclose(mine, weights_of(net, optimizer, some), rtol=1e-7, equal_nan=True)
        for some in both
    ), (pair, str(report))


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(two=TWO)
def test_two_mistakes_are_named_as_what_they_are_or_not_at_all(two):
    two_at_once(*two, "SGD")


@pytest.mark.exhaustive
@settings(max_examples=150, deadline=None)
@given(two=TWO, optimizer=st.sampled_from(["SGD", "Adam"]))
def test_no_two_mistakes_are_taken_for_others(two, optimizer):
    two_at_once(*two, optimizer)


def test_a_wrong_sign_in_one_weight_is_told_as_such():
    net = Sigmoid(0)
    right = net.gradient
    net.gradient = lambda *given: (g := right(*given)) | {"syn0": -g["syn0"]}
    report = lockstep(by_hand(net, "float64", "SGD"), by_torch(net, "float64", "SGD"), 20)
    assert (report.cause, report.diagnosis.weights) == ("sign", ("syn0",))
    assert "it steps syn0 the other way" in str(report)
    assert "Change: look for a minus sign in the gradient of syn0." in str(report)


def test_a_mistake_is_named_in_a_network_for_mnist():
    """784-128-10, of which a sample is kept: 101,770 weights are too many to keep at each step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(64, 784, generator=generator)
    y = torch.randint(0, 10, (64,), generator=generator)
    shapes = {"w1": (784, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    start = {n: 0.05 * torch.randn(s, generator=generator) for n, s in shapes.items()}

    def theirs():
        weights = {name: weight.clone().requires_grad_() for name, weight in start.items()}
        optimizer = torch.optim.SGD(weights.values(), lr=0.1)
        while True:
            yield weights
            hidden = torch.relu(x @ weights["w1"] + weights["b1"])
            loss = torch.nn.functional.cross_entropy(hidden @ weights["w2"] + weights["b2"], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def mine():
        w1, b1, w2, b2 = (weight.numpy().copy() for weight in start.values())
        while True:
            yield {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
            hidden = np.maximum(x.numpy() @ w1 + b1, 0)
            scores = np.exp(hidden @ w2 + b2)
            delta = (scores / scores.sum(1, keepdims=True) - np.eye(10, dtype="f")[y]) / 64
            back = delta @ w2.T  # without the mask of relu
            w2, b2 = w2 - 0.1 * hidden.T @ delta, b2 - 0.1 * delta.sum(0)
            w1, b1 = w1 - 0.1 * x.numpy().T @ back, b1 - 0.1 * back.sum(0)

    report = lockstep(mine(), theirs(), 15)
    assert report.cause == "derivative", str(report)
    assert "leaves out relu's mask (the only relu; it reaches w1 and b1)" in str(report)
