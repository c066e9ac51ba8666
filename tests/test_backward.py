"""Mistakes on the way back of larger networks, each made in PyTorch by what is detached there."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from gdtorch import lockstep

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shapes, seed=0):
    numbers = np.random.default_rng(seed)
    return [torch.tensor(numbers.normal(size=shape)) / 2 for shape in shapes]


SGD = partial(torch.optim.SGD, lr=0.1)


def descend(loss, start, make=SGD):
    """The weights that an optimizer makes of a loss of them."""
    weights = {name: weight.clone().requires_grad_() for name, weight in start.items()}
    optimizer = make(weights.values())
    while True:
        yield weights
        optimizer.zero_grad()
        loss(weights).backward()
        optimizer.step()


def copied(trajectory, steps=20):
    """A trajectory as it is seen of NumPy code: by its weights alone."""
    unseen = itertools.islice(trajectory, steps + 1)
    return [{n: w.detach().numpy().copy() for n, w in weights.items()} for weights in unseen]


def report_on(mine, theirs, steps=20, **start):
    return lockstep(copied(descend(mine, start), steps), descend(theirs, start), steps)


def kept(array):
    return array


def lstm(w, x, y, carried):
    h = c = torch.zeros(len(y), 4, dtype=torch.float64)
    loss = 0
    for row in x:
        gates = torch.cat([row, h], 1) @ w["W"] + w["b"]
        i, f, o, g = gates.chunk(4, 1)
        c = f.sigmoid() * carried(c) + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        loss = loss + F.mse_loss(h @ w["V"], y)
        h = carried(h)
    return loss


@pytest.mark.slow
def test_a_recurrence_that_hands_nothing_to_the_step_before_is_named():
    x, y, w, b, v = drawn((5, 8, 3), (8, 1), (7, 16), (16,), (4, 1))
    report = report_on(
        lambda w: lstm(w, x, y, torch.detach), lambda w: lstm(w, x, y, kept), W=w, b=b, V=v
    )
    assert report.cause == "branch cut off", str(report)
    assert "from one step of the recurrence to the step before" in str(report)
    honest = report_on(lambda w: lstm(w, x, y, kept), lambda w: lstm(w, x, y, kept), W=w, b=b, V=v)
    assert honest


def words(w, index, classes, once):
    taken = w["words"][index]
    if once:  # of a word that is twice in a window, one gradient alone
        first = torch.tensor(
            [[row.index(one) == k for k, one in enumerate(row)] for row in index.tolist()]
        )
        taken = torch.where(first[..., None], taken, taken.detach())
    return F.cross_entropy(taken.mean(1) @ w["out"], classes)


def test_a_gradient_that_is_counted_once_for_each_row_is_named():
    numbers = np.random.default_rng(0)
    index, classes = (torch.tensor(numbers.integers(0, 6, size)) for size in ((12, 4), 12))
    table, out = drawn((6, 4), (4, 6))
    report = report_on(
        lambda w: words(w, index, classes, once=True),
        lambda w: words(w, index, classes, once=False),
        words=table,
        out=out,
    )
    assert report.cause == "overwritten gradient", str(report)
    assert "several times for a row of data (the only __getitem__; it reaches words)" in str(report)


X, Y, FIRST, LAST, GAIN, SHIFT = drawn((9, 4), (9, 5), (4, 5), (5, 5), (5,), (5,))


def layers(w, x=X, y=Y, last=kept):
    return F.mse_loss((x @ w["first"]).tanh() @ last(w["last"]), y)


@pytest.mark.parametrize(
    ("mine", "cause", "said"),
    [
        (
            lambda w: layers(w, x=1.5 * X + 0.2),
            "other rows",
            "gives matmul an array that is 1.5 times theirs, plus 0.2",
        ),
        (
            lambda w: layers(w, y=0.9 * Y),
            "other rows",
            "gives mse_loss an array that is 0.9 times theirs",
        ),
        (
            lambda w: layers(w, x=X * torch.tensor([1, 1, 2.5, 1]) - torch.tensor([0, 0.5, 0, 0])),
            "other rows",
            "gives matmul an array whose column 1 is theirs, less 0.5 and whose column 2 is "
            "2.5 times theirs",
        ),
        (
            lambda w: layers(w, last=torch.t),
            "transposed product",
            "multiplies by a weight's transpose where theirs does by the weight itself",
        ),
        (
            lambda w: (lambda a: (2 * ((a - Y) * a * (1 - a)).detach() * a).mean())(
                (X @ w["first"]).tanh() @ w["last"]
            ),
            "derivative",
            "multiplies the error of mse_loss by σ′, a(1 − a)",
        ),
    ],
)
def test_other_numbers_another_layout_and_a_factor_too_many_are_named(mine, cause, said):
    report = report_on(mine, layers, first=FIRST, last=LAST)
    assert report.cause == cause, str(report)
    assert said in str(report), str(report)


def of_path(value, path):
    """A value, with the gradient of a path."""
    return value.detach() + path - path.detach()


def with_last_row(w):
    """To each weight the last row's gradient alone comes back."""
    z = X @ w["first"].detach()
    h = of_path(z, torch.cat([z[:-1], X[-1:] @ w["first"]])).tanh()
    made, alone = h @ w["last"].detach(), h[-1:].detach() @ w["last"]
    return F.mse_loss(made + F.pad(alone - alone.detach(), (0, 0, len(X) - 1, 0)), Y)


def with_inputs_of_last_row(w):
    z = of_path(X @ w["first"], X[-1:].expand_as(X) @ w["first"])
    return F.mse_loss(z.tanh() @ w["last"], Y)


def by_the_gradient(w):
    (grad,) = torch.autograd.grad(layers(w), w["last"])
    h = (X @ w["first"]).tanh()
    return F.mse_loss(of_path(h @ w["last"], h @ grad + h.detach() @ w["last"]), Y)


def by_the_last_output(w):
    h, last = (X @ w["first"]).tanh(), w["last"]
    return F.mse_loss(torch.cat([h.detach() @ last[:, :-1], h @ last[:, -1:]], 1), Y)


def rectified(w, derivative=torch.relu):
    z = X @ w["first"]
    return F.mse_loss(of_path(z.relu(), derivative(z)) @ w["last"], Y)


@pytest.mark.parametrize(
    ("mine", "theirs", "cause", "said"),
    [
        (
            *(with_last_row, layers, "overwritten gradient"),
            "keeps the last row's gradient of a weight alone (in each of 2 calls of matmul",
        ),
        (
            *(with_inputs_of_last_row, layers, "input of the layer"),
            "multiplies each row's δ by the last row's input in a weight's gradient (matmul number "
            "1 of 2",
        ),
        (
            *(by_the_gradient, layers, "derivative"),
            "hands the gradient down by a weight's gradient, not by the weight (matmul number 2",
        ),
        (
            *(by_the_last_output, layers, "overwritten gradient"),
            "hands down what comes back to the last output alone (matmul number 2 of 2",
        ),
        (
            *(partial(rectified, derivative=torch.sigmoid), rectified, "derivative"),
            "has sigmoid's σ(z)(1 − σ(z)) for relu's mask",
        ),
        (
            *(partial(rectified, derivative=torch.tanh), rectified, "derivative"),
            "has tanh's 1 − tanh(z)² for relu's mask",
        ),
    ],
)
def test_gradients_of_one_row_or_of_something_else_are_named(mine, theirs, cause, said):
    report = report_on(mine, theirs, first=FIRST, last=LAST)
    assert report.cause == cause, str(report)
    assert said in str(report), str(report)


def test_where_rows_are_columns_the_last_one_is_found_too():
    """And where a weight has a bias, whose gradient is that of the last row, too."""

    def network(w, alone):
        rows = torch.zeros(len(X)).double()
        rows[-1] = 1
        z = w["first"].T @ X.T + w["shift"][:, None]
        if alone:
            z = z.detach() + (z - z.detach()) * rows
        h = z.tanh()
        made = w["last"].T @ h
        if alone:
            own = w["last"].T @ h.detach()
            made = of_path(made, w["last"].T.detach() @ h + own * rows)
        return F.mse_loss(made, Y.T)

    start = {"first": FIRST, "shift": SHIFT, "last": LAST}
    report = report_on(partial(network, alone=True), partial(network, alone=False), **start)
    assert "keeps the last row's gradient of each weight alone" in str(report), str(report)


def normed(w, norm):
    return F.mse_loss(norm(X.reshape(3, 3, 4) @ w["first"], w["gain"], w["shift"]) @ w["last"], Y3)


Y3 = Y.reshape(3, 3, 5)


def over(axes):
    def norm(x, gain, shift):
        mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-5).sqrt() * gain + shift

    return norm


def rms(held=kept):
    return lambda x, gain, _: x / held((x**2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        (
            over((1, 2)),
            lambda x, gain, shift: F.layer_norm(x, (5,), gain, shift),
            "takes layer_norm's mean and variance over one axis more",
        ),
        (
            lambda x, gain, shift: over((0,))(x, gain[:, None], shift[:, None]),
            lambda x, gain, shift: F.batch_norm(x, None, None, gain, shift, training=True),
            "takes batch_norm's mean and variance over the rows alone, for each place",
        ),
        (
            rms(torch.detach),
            lambda x, gain, _: F.rms_norm(x, (5,), gain, 1e-6),
            "takes the mean square of rms_norm as constant (the only rms_norm; it reaches first)",
        ),
    ],
)
def test_the_mistakes_in_a_norm_are_named(mine, theirs, said):
    def of_channels(norm):  # of which batch_norm has them in the second axis
        if "batch_norm" not in said:
            return norm
        return lambda x, gain, shift: norm(x.mT, gain, shift).mT

    start = {"first": FIRST, "gain": GAIN + 1, "last": LAST}
    start |= {} if "rms_norm" in said else {"shift": SHIFT}
    one, other = (
        lambda w, norm=norm: normed({"shift": None, **w}, of_channels(norm))
        for norm in (mine, theirs)
    )
    report = report_on(one, other, **start)
    assert said in str(report), str(report)
    assert report_on(other, other, **start)


def pooled(w, x, y):
    z = F.max_pool2d(F.conv2d(x, w["kernel"]), 2, 1)
    return F.mse_loss(z.flatten(1) @ w["last"], y)


def spread(w, x, y):
    """The same; its pool hands the gradient back to the largest but one."""
    z = F.conv2d(x, w["kernel"])
    windows = z.unfold(2, 2, 1).unfold(3, 2, 1).flatten(-2)
    second = windows.sort(-1).values[..., -2]
    made = windows.amax(-1).detach() + second - second.detach()
    return F.mse_loss(made.flatten(1) @ w["last"], y)


@pytest.mark.slow
def test_where_nothing_is_found_the_way_to_the_wrong_weights_is_told():
    x, y, kernel, last = drawn((6, 1, 6, 6), (6, 1), (3, 1, 3, 3), (27, 1))
    report = report_on(
        lambda w: spread(w, x, y), lambda w: pooled(w, x, y), kernel=kernel, last=last
    )
    assert report.cause == "one weight's update", str(report)
    assert report.diagnosis.way == ("matmul", "flatten", "max_pool2d", "conv2d")
    assert "the functions on the way back to the weights that are apart alone" in str(report)
    assert "matmul, flatten, max_pool2d and conv2d." in str(report)


def test_an_honest_pool_may_take_the_other_one_of_two_that_are_the_same_but_for_rounding():
    """In each window the two largest are the same number, computed in two ways."""
    x, y, kernel, last = drawn((6, 1, 4, 4), (6, 1), (2, 1, 1, 1), (8, 1), seed=3)
    x, y, kernel, last = (one.float() for one in (x, y, kernel, last))
    x[:, :, :, 1::2] = x[:, :, :, ::2] * (1 + 2.0**-23)

    def pool(w, shift):
        z = F.conv2d(x, w["kernel"])
        z = (z + shift) - shift  # which rounds
        return F.mse_loss(F.max_pool2d(z, 2).flatten(1) @ w["last"], y)

    report = report_on(lambda w: pool(w, 1.0), lambda w: pool(w, 0.0), 60, kernel=kernel, last=last)
    assert report, str(report)


def absolute(sign):
    """An L1 loss whose derivative at 0 is another."""

    class Absolute(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.abs()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x.sign().where(x != 0, sign)

    return Absolute.apply


@pytest.mark.parametrize("sign", [1.0, pytest.param(-1.0, marks=pytest.mark.slow)])
def test_another_derivative_at_a_kink_is_named_and_no_rounding(sign):
    """Where all numbers are exact, an error of 0 is one in both."""
    x, y = torch.eye(4).double(), torch.tensor([0.0, 0.25, -0.5, 0.0]).double()
    start = torch.zeros(4).double()
    report = report_on(
        lambda w: absolute(sign)(x @ w["w"] - y).mean(),
        lambda w: F.l1_loss(x @ w["w"], y),
        w=start,
    )
    assert report.cause == "derivative", str(report)
    assert f"has {sign:.0f} for the derivative of l1_loss at 0, where torch has 0" in str(report)


def normed_by_batch(w, x, y, norm):
    return F.mse_loss(norm(x @ w["first"] + w["bias"]).relu() @ w["last"], y)


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.RMSprop, pytest.param(torch.optim.Adagrad, marks=pytest.mark.slow)],
)
def test_a_bias_before_a_norm_moves_by_chance_alone(optimizer):
    """Its gradient is 0 but for rounding, which the rule divides by its own size."""
    x, y, first, bias, last = (one.float() for one in drawn((16, 4), (16, 1), (4, 5), 5, (5, 1)))

    def over_rows(z):
        return (z - z.mean(0)) * (z.var(0, unbiased=False) + 1e-5).rsqrt()

    def trained(norm):
        start = {"first": first, "bias": bias, "last": last}
        weights = {name: weight.clone().requires_grad_() for name, weight in start.items()}
        steps = optimizer(weights.values(), lr=1e-3)
        while True:
            yield {name: weight.detach().clone() for name, weight in weights.items()}
            steps.zero_grad()
            normed_by_batch(weights, x, y, norm).backward()
            steps.step()

    mine = [*itertools.islice(trained(over_rows), 41)]
    report = lockstep(mine, trained(lambda z: F.batch_norm(z, None, None, training=True)), 40)
    assert report, str(report)


def test_an_edit_that_ends_after_the_steps_looked_at_is_told_to():
    def descend(rate):
        w = torch.tensor([1.0, 2.0, 3.0]).double().requires_grad_()
        optimizer = torch.optim.SGD([w], lr=0.01)
        for step in itertools.count():
            yield {"w": w}
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            (w**2).sum().backward()
            optimizer.step()

    unseen = itertools.islice(descend(lambda step: 0.02 if step < 40 else 0.01), 81)
    mine = [{"w": step["w"].detach().numpy().copy()} for step in unseen]
    report = lockstep(mine, descend(lambda _: 0.01), 80)
    assert (report.cause, report.factor) == ("scale", pytest.approx(2))
    assert "so it is until step 41, where mine does something else again" in str(report)


def test_an_edit_that_later_options_do_not_allow_is_named():
    def descend(nesterov):
        w = torch.tensor([1.0, 2.0, 3.0]).double().requires_grad_()
        optimizer = torch.optim.SGD([w], lr=0.001, momentum=0.5, nesterov=nesterov)
        for step in itertools.count():
            yield {"w": w}
            # A rule with both is refused; torch does not look at what is set later.
            optimizer.param_groups[0]["dampening"] = 0.5 if step > 40 else 0.0
            optimizer.zero_grad()
            (w**4).sum().backward()
            optimizer.step()

    unseen = itertools.islice(descend(nesterov=True), 71)
    mine = [{"w": step["w"].detach().numpy().copy()} for step in unseen]
    assert lockstep(mine, descend(nesterov=False), 70).cause == "nesterov"


def test_a_number_is_told_with_as_many_digits_as_it_takes():
    def descend(lr):
        w = [1.0, 2.0]
        while True:
            yield {"w": w}
            w = [x - lr * x for x in w]

    start = {"w": torch.tensor([1.0, 2.0]).double()}
    report = lockstep(descend(0.1000001), descend_by(start), 20)
    assert "it has lr 0.1000001, theirs has 0.1" in str(report), str(report)


def descend_by(start):
    return descend(lambda w: (w["w"] ** 2).sum() / 2, start)


LABELS = (X[:7].sum(1, keepdim=True) > 0).double()
ODD = torch.tensor([[0.0], [1], [0], [0], [1], [0], [0]]).double()  # rows 1 and 4


def logistic(w, loss=F.binary_cross_entropy_with_logits, flipped=False, left_out=False):
    x, labels, odd = (array.to(w["last"].dtype) for array in (X[:7], LABELS, ODD))
    outputs = (x @ w["first"]).tanh() @ w["last"]
    each = loss(outputs, (labels - flipped * odd).abs(), reduction="none")
    return ((1 - odd) * each if left_out else each).mean()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"left_out": 1},
            "in its loss: rows 1 and 4 by 0, the others by 1 (7 rows, counted from 0)",
        ),
        (
            {"flipped": True},
            "derivative of its loss by the outputs in rows 1 and 4 (of 7, counted from 0), off by "
            "the same in each step, as with other targets",
        ),
        (
            {"loss": partial(F.huber_loss, delta=0.3)},
            "has another derivative of its loss by the outputs, as with another loss",
        ),
    ],
    ids=["weights", "targets", "loss"],
)
def test_another_loss_is_told_from_the_gradients(other, said, dtype):
    start = {"first": FIRST.to(dtype), "last": LAST[:, :1].to(dtype)}
    report = report_on(lambda w: logistic(w, **other), logistic, **start)
    assert report.cause == "derivative of the loss", str(report)
    assert said in str(report), str(report)
    assert report.residual < 2


@pytest.mark.slow
def test_targets_of_single_rows_are_told():
    start = {"first": FIRST, "last": LAST[:, :1]}
    report = report_on(lambda w: logistic(w, flipped=True), logistic, **start)
    assert "in rows 1 and 4 (of 7, counted from 0)" in str(report)


@pytest.mark.slow
def test_another_loss_is_not_told_from_too_few_gradients():
    """Ten elements of the gradients against nine outputs: nearly any loss would give them."""
    one = X[:, :2]

    def linear(w, by=1):
        return (by * (one @ w["w"] - Y[:, :1]) ** 2).mean()

    by = torch.linspace(0.5, 1.5, 9)[:, None]
    report = report_on(lambda w: linear(w, by), linear, w=torch.zeros(2, 1).double())
    assert report.cause == "unexplained", str(report)


def penalised(w, times=1.0):
    return layers(w) + times * 0.3 * w["first"].tanh().pow(2).mean()


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (0.0, "leaves out a term of the loss (mean of pow of tanh, which is "),
        (-1.0, "has the other sign before a term of the loss (mean of pow of tanh, which is "),
        (0.5, "has 0.5 times a term of the loss (mean of pow of tanh, which is "),
    ],
)
def test_another_multiple_of_a_term_of_the_loss_is_named(times, said):
    report = report_on(lambda w: penalised(w, times), penalised, first=FIRST, last=LAST)
    assert report.cause == "term of the loss", str(report)
    assert said + f"{FIRST.tanh().pow(2).mean():.4g} in step 1)" in str(report), str(report)


@pytest.mark.parametrize(
    "constant",
    [
        lambda w: w["last"].pow(2).sum().detach(),
        lambda _: torch.nn.Parameter(GAIN, requires_grad=False).sum(),
    ],
    ids=["detached", "frozen"],
)
def test_a_term_of_the_loss_that_has_no_gradient_is_no_term(constant):
    def theirs(w):
        return penalised(w) + constant(w)

    report = report_on(lambda w: penalised(w, 0.5), theirs, first=FIRST, last=LAST)
    assert report.cause == "term of the loss", str(report)
    assert "has 0.5 times a term of the loss (mean of pow of tanh" in str(report), str(report)


@pytest.mark.usefixtures("time_enough")
@pytest.mark.parametrize(
    "kind", ["SGD", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("Adam", "AdamW"))]
)
def test_weights_that_decay_each_otherwise_are_named(kind):
    """As where a penalty has no ½, and is not of the biases."""
    make = partial(getattr(torch.optim, kind), lr=0.01, weight_decay=0.1)
    start = {"first": FIRST, "last": LAST, "gain": GAIN}

    def loss(w):
        return F.mse_loss((X @ w["first"] + w["gain"]).tanh() @ w["last"], Y)

    def groups(weights):
        first, last, gain = (
            {"params": [w], "weight_decay": d} for w, d in zip(weights, (0.2, 0.2, 0), strict=True)
        )
        return make([first, last, gain])

    report = lockstep(copied(descend(loss, start, groups)), descend(loss, start, make), 20)
    assert [(e.what, e.mine, e.theirs, e.weights) for e in report.edits] == [
        ("weight_decay", 0.2, 0.1, ("first", "last")),
        ("weight_decay", 0.0, 0.1, ("gain",)),
    ], str(report)
