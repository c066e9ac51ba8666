"""lockstep of functions that train as they are: seen at each step, and left as they were."""

import contextlib
import functools
import subprocess
import sys
import threading
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.optim.optimizer as optimizers
from torch.overrides import _get_current_function_mode_stack

from gdtorch import lockstep

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 1))
W = RNG.normal(size=(3, 1))


def by_hand(lr=0.1, momentum=0.0):
    w, b, v, u = W.copy(), np.zeros(1), 0, 0
    while True:
        yield {"w": w, "b": b}
        error = 2 / len(X) * (X @ w + b - Y)
        v, u = momentum * v + X.T @ error, momentum * u + error.sum(0)
        w, b = w - lr * v, b - lr * u


class Own(torch.optim.Optimizer):
    """Gradient descent as somebody's own class."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        if closure:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for v in group["params"]:
                v.sub_(v.grad, alpha=group["lr"])


def model():
    made = torch.nn.Sequential(torch.nn.Linear(3, 1, dtype=torch.float64))
    with torch.no_grad():
        made[0].weight.copy_(torch.tensor(W.T))
        made[0].bias.zero_()
    return made


def loss(net):
    return torch.nn.functional.mse_loss(net(torch.tensor(X)), torch.tensor(Y))


def train(make=torch.optim.SGD, steps=50, lr=0.1, at=(), **options):
    """As one writes it; `at` is step → what is done after it."""
    net = model()
    optimizer = make(net.parameters(), lr=lr, **options)
    losses = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        value = loss(net)
        value.backward()
        losses.append(value.item())
        optimizer.step()
        if step in at:
            at[step]()
    return losses


STUBBORN = """
import torch
from gdtorch import lockstep

def train():
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    while True:
        try:
            w.sum().backward()
            optimizer.step()
        except:
            pass

try:
    lockstep(train, [{"w": [1.0, 1.0]}, {"w": [0.9, 0.9]}])
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_function_that_cannot_be_ended_is_told_so():
    # In a process of its own, since its thread stays.
    result = subprocess.run(
        [sys.executable, "-c", STUBBORN], capture_output=True, text=True, check=False, timeout=60
    )
    said = "mine catches what is to end it, in its loop; let it catch `Exception`\n"
    assert (result.returncode, result.stdout) == (0, said)


def left_behind():
    return (
        len(optimizers._global_optimizer_pre_hooks),
        len(optimizers._global_optimizer_post_hooks),
        len(_get_current_function_mode_stack()),
        threading.active_count(),
    )


@pytest.fixture(autouse=True)
def nothing_stays():
    before = left_behind()
    yield
    assert left_behind() == before


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.SGD,
        Own,
        functools.partial(torch.optim.SGD, foreach=True),
        functools.partial(torch.optim.SGD, fused=True),
    ],
)
def test_a_function_that_trains_is_theirs(make):
    found = lockstep(by_hand, functools.partial(train, make), 20)
    assert found, str(found)
    assert found.steps == 20
    assert "paired: w with weight (transposed), b with bias" in str(found)


@pytest.mark.parametrize(
    ("mine", "cause", "factor"),
    [({"lr": 0.3}, "scale", 3), ({"momentum": 0.9}, "momentum", 0.9)],
)
def test_a_cause_is_shown_by_replay(mine, cause, factor):
    found = lockstep(by_hand(**mine), train, 20)
    assert (found.cause, found.factor) == (cause, pytest.approx(factor)), str(found)
    assert found.reproduced == 20
    assert "paired: w with weight (transposed), b with bias" in str(found)


def test_both_may_be_functions_that_train():
    found = lockstep(lambda: train(momentum=0.9), train, 20)
    assert (found.cause, found.factor, found.reproduced) == ("momentum", pytest.approx(0.9), 20)
    assert lockstep(train, train, 20).identical
    assert lockstep(train, by_hand(), 20)


def test_two_in_the_wrong_order_are_told_so():
    swap = "If mine does, swap the two"
    assert swap in str(lockstep(train, by_hand(lr=0.3), 20))
    assert swap not in str(lockstep(by_hand(lr=0.3), train, 20))
    assert swap not in str(lockstep(train, by_hand(), 20))


def test_the_first_step_is_seen_whole():
    """What was seen of it before its optimizer was: its gradients, its loss."""

    def theirs():
        net = model()  # whose set-up, too, are functions of torch that are given its weights
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        while True:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(
                torch.tanh(net(torch.tensor(X))), torch.tensor(Y)
            ).backward()
            optimizer.step()

    def mine():
        w, b = W, np.zeros(1)
        while True:
            yield {"w": w, "b": b}
            delta = 2 / len(X) * (np.tanh(X @ w + b) - Y)
            w, b = w - 0.1 * X.T @ delta, b - 0.1 * delta.sum(0)

    found = lockstep(mine, theirs, 4)
    assert (found.cause, found.reproduced) == ("derivative", 4), str(found)


def test_a_closure_and_accumulated_gradients_are_one_step_each():
    def closure():
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

        def evaluate():
            optimizer.zero_grad()
            value = loss(net)
            value.backward()
            return value

        for _ in range(20):
            optimizer.step(evaluate)

    def accumulated():
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        while True:
            optimizer.zero_grad()
            for half in (slice(0, 6), slice(6, 12)):
                off = net(torch.tensor(X[half])) - torch.tensor(Y[half])
                (off.square().mean() / 2).backward()
            optimizer.step()

    for theirs in (closure, accumulated):
        assert lockstep(by_hand, theirs, 15)
        found = lockstep(by_hand(lr=0.2), theirs, 15)
        assert (found.cause, found.factor) == ("scale", pytest.approx(2)), str(found)


def test_two_functions_draw_the_same_random_numbers_from_the_same_seed():
    def dropped(*, seed=False):
        if seed:
            torch.manual_seed(0)
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        while True:
            optimizer.zero_grad()
            rows = torch.randperm(12)[: np.random.randint(3, 9)]  # noqa: NPY002
            value = net(torch.tensor(X)[rows]) - torch.tensor(Y)[rows]
            torch.nn.functional.dropout(value).square().mean().backward()
            optimizer.step()

    def seeded():
        np.random.seed(0)  # noqa: NPY002
        dropped(seed=True)

    assert lockstep(seeded, seeded, 20).identical
    # Without a seed of their own they go on from where the caller's stand, and leave these there.
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert lockstep(dropped, dropped, 20).identical
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_a_function_that_takes_fewer_steps_ends_it():
    found = lockstep(by_hand, lambda: train(steps=3), 20)
    assert found.agree
    assert str(found).endswith("Compared: the first 3 of 20 steps; one of the two ended there.")


def test_a_function_is_ended_after_the_steps_asked_for():
    taken, cleaned = [], []

    def endless():
        try:
            train(steps=10**9, at={k: functools.partial(taken.append, k) for k in range(99)})
        finally:
            cleaned.append(True)

    assert lockstep(by_hand, endless, 5).steps == 5
    assert taken == [1, 2, 3, 4]  # what stands after the fifth step is not reached
    assert cleaned == [True]


def raising(error):
    raise error


def test_what_a_function_raises_is_raised_with_its_step():
    at = {2: lambda: raising(ZeroDivisionError("theirs"))}
    for pair in ((by_hand, lambda: train(at=at)), (lambda: train(at=at), by_hand)):
        with pytest.raises(ZeroDivisionError, match="theirs") as caught:
            lockstep(*pair)
        assert caught.value.__notes__ == ["(in step 3)"]
    with pytest.raises(KeyError):
        lockstep(by_hand, lambda: raising(KeyError()))


def several(rates=(0.1, 0.1), turns=(1, 1), together=True):
    """An optimizer for each weight; `turns` is in how many steps each of them takes one."""
    net = model()
    pair = [torch.optim.SGD([w], lr=lr) for w, lr in zip(net.parameters(), rates, strict=True)]
    for step in range(50):
        for optimizer, turn in zip(pair, turns, strict=True):
            if not together or optimizer is pair[0]:
                net.zero_grad()
                loss(net).backward()
            if step % turn == 0:
                optimizer.step()


@pytest.mark.parametrize(("rates", "cause"), [((0.1, 0.1), "rounding"), ((0.1, 0.2), "scale of")])
def test_optimizers_that_step_in_turn_take_one_step(rates, cause):
    found = lockstep(by_hand, lambda: several(rates), 20)
    assert found.cause.startswith(cause), str(found)
    assert found.steps == 20
    assert lockstep(lambda: several(rates), lambda: several(rates), 20).identical


def test_optimizers_with_a_gradient_each_take_one_step_as_well():
    def mine():
        w, b = W, np.zeros(1)
        while True:
            yield {"w": w, "b": b}
            w = w - 0.1 * 2 / len(X) * X.T @ (X @ w + b - Y)
            b = b - 0.1 * 2 / len(X) * (X @ w + b - Y).sum(0)

    assert lockstep(mine, lambda: several(together=False), 20)
    assert lockstep(mine, several, 20).cause == "updated too early"


def test_a_weight_that_stays_is_not_said_to_have_a_learning_rate_of_nothing():
    def mine():
        w, b = W, np.zeros(1)
        while True:
            yield {"w": w, "b": b}
            w = w - 0.1 * 2 / len(X) * X.T @ (X @ w + b - Y)

    found = lockstep(mine, train, 20)
    assert found.cause == "weight that never moves"
    assert "lr of" not in str(found)


def test_weights_with_one_factor_are_named_together():
    def scaled(factor):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        net.double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        while True:
            net.zero_grad()
            loss(net).backward()
            for layer in (net[0], net[2]):
                layer.bias.grad *= factor
            optimizer.step()

    found = lockstep(lambda: scaled(0.25), lambda: scaled(1.0), 20)
    assert [edit.weights for edit in found.edits] == [("0.bias", "2.bias")], str(found)
    assert "take the factor 0.25 out of the gradient of 0.bias and 2.bias." in str(found)


class Trainer:
    def __init__(self):
        self.net = model()
        self.optimizers = [torch.optim.SGD([weight], lr=0.1) for weight in self.net.parameters()]

    def fit(self):
        while True:
            self.net.zero_grad()
            loss(self.net).backward()
            for optimizer in self.optimizers:
                optimizer.step()


OUTSIDE = []  # a net, and its optimizers


def fit_outside():
    while True:
        OUTSIDE[0].zero_grad()
        loss(OUTSIDE[0]).backward()
        for optimizer in OUTSIDE[1]:
            optimizer.step()


def test_optimizers_made_outside_are_all_seen():
    trainer, other = Trainer(), Trainer()
    OUTSIDE[:] = other.net, other.optimizers
    for theirs in (trainer.fit, fit_outside):
        found = lockstep(by_hand, theirs, 20)
        assert (found.cause, found.steps) == ("rounding", 20), str(found)
    found = lockstep(by_hand, trainer.fit, 20)
    assert found.cause == "initial weights"
    assert "made outside the function that trains it goes on where it was" in str(found)


def test_an_optimizer_made_anew_in_each_step_is_the_same_one():
    def anew():
        net = model()
        for _ in range(20):
            train_step(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))

    found = lockstep(anew, lambda: train(momentum=0.9), 20)
    assert (found.cause, found.reproduced) == ("state reset", 20), str(found)
    assert "it forgets its velocities or averages after each step" in str(found)
    assert lockstep(by_hand, anew, 20)


def train_step(net, optimizer, step=None):
    net.zero_grad()
    loss(net).backward()
    (step or optimizer.step)()


def lbfgs(lr=1.0):
    net = model()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=lr, max_iter=4)

    def closure():
        net.zero_grad()
        value = loss(net)
        value.backward()
        return value

    for _ in range(20):
        optimizer.step(closure)


def test_a_step_of_lbfgs_is_one_step():
    assert lockstep(lbfgs, lbfgs, 20).identical
    assert lockstep(lambda: lbfgs(lr=0.9), lbfgs, 20).cause == "unexplained"
    found = lockstep(by_hand, lbfgs, 20)  # which cannot be replayed: nothing is claimed
    assert (found.cause, found.steps, found.edits) == ("unexplained", 20, ())
    said = "Theirs steps by LBFGS, which is not replayed."
    assert said in str(found)
    assert said not in str(lockstep(lbfgs, lbfgs, 20))
    found = lockstep(by_hand(lr=0.3), lambda: train(Own), 20)
    assert "theirs: Own, which does as SGD(lr=0.1)" in str(found)


def test_gradients_scaled_for_half_precision():
    def scaled(lr=0.1):
        net, scaler = model(), torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        for _ in range(20):
            net.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=False):
                value = loss(net)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()

    assert lockstep(by_hand, scaled, 20)
    found = lockstep(by_hand(lr=0.3), scaled, 20)
    assert (found.cause, found.factor) == ("scale", pytest.approx(3)), str(found)


@pytest.mark.parametrize("several", [False, True])
def test_the_scale_is_in_no_gradient(several):
    """A `GradScaler`'s: neither in those that are clipped, nor in those with a mistake."""

    def theirs(most):
        net, scaler = model(), torch.amp.GradScaler("cpu", init_scale=1024.0)
        groups = [[w] for w in net.parameters()] if several else [net.parameters()]
        each = [torch.optim.SGD(group, lr=0.1) for group in groups]
        for _ in range(20):
            net.zero_grad()
            scaler.scale(torch.tanh(net(torch.tensor(X))).square().sum()).backward()
            for optimizer in each:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), most)
            for optimizer in each:
                scaler.step(optimizer)
            scaler.update()

    found = lockstep(lambda: theirs(1e9), lambda: theirs(0.5), 20)
    assert (found.cause, found.edits[0].theirs[1]) == ("clipping", pytest.approx(0.5)), str(found)

    def mine():
        w, b = W, np.zeros(1)
        while True:
            yield {"w": w, "b": b}
            delta = 2 * np.tanh(X @ w + b)
            w, b = w - 0.1 * X.T @ delta, b - 0.1 * delta.sum(0)

    found = lockstep(mine, lambda: theirs(1e9), 20)
    assert "it leaves out tanh′" in str(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["the loss", "the optimizer", "the whole step"])
def test_compiled_steps(what):
    def theirs():
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        compiled = torch.compile(backend="eager")
        rows = torch.tensor(X), torch.tensor(Y)

        @torch.compile(backend="eager", fullgraph=True)
        def in_one_piece(net):
            return torch.nn.functional.mse_loss(net(rows[0]), rows[1])

        value = in_one_piece if what == "the loss" else loss
        step = compiled(optimizer.step) if what == "the optimizer" else optimizer.step

        def whole():
            net.zero_grad()
            value(net).backward()
            step()

        whole = compiled(whole) if what == "the whole step" else whole
        for _ in range(10):
            whole()

    found = lockstep(by_hand(lr=0.3), theirs, 10)
    assert (found.cause, found.factor) == ("scale", pytest.approx(3)), str(found)
    assert found.reproduced == 10
    torch.compiler.reset()


def by_autograd_alone(steps=300):
    net = model()
    for _ in range(steps):
        loss(net).backward()
        with torch.no_grad():
            for weight in net.parameters():
                weight -= 0.1 * weight.grad


def forgets_to_step():
    net = model()
    torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(300):
        with contextlib.suppress(Exception):
            loss(net).backward()


def steps_twice():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    while True:
        train_step(net, optimizer)
        optimizer.step()


def elsewhere():
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()


NONE = "theirs takes 0 backward passes and no step of torch.optim, in the thread that called it"
NO_STEP = "takes 100 backward passes and no step of torch.optim; yield the weights"
OUT_OF_TURN = "trains with several optimizers, which do not step in turn; yield the weights"


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (lambda: None, NONE),
        (elsewhere, NONE),
        (lambda: by_autograd_alone(9), NONE.replace("0", "9")),
        (lambda: train(steps=0) and None, r"theirs is empty"),
        (by_autograd_alone, f"theirs {NO_STEP}"),
        (forgets_to_step, f"theirs {NO_STEP}"),
        (steps_twice, "theirs takes steps 1 and 2 with the gradients of one backward pass; .*or"),
        (lambda: several(turns=(1, 2)), f"theirs {OUT_OF_TURN}"),
    ],
    ids=[
        "returns at once",
        "in another thread",
        "by autograd alone, but not for long",
        "an empty loop",
        "by autograd alone",
        "forgets to step",
        "steps twice a batch",
        "two optimizers, one of them every other step",
    ],
)
def test_what_cannot_be_seen_is_one_clear_line(monkeypatch, theirs, words):
    monkeypatch.setattr(import_module("gdtorch.lockstep.reading.training"), "MOST_PASSES", 100)
    weights = [{"w": W - k, "b": np.zeros(1) - k} for k in range(9)]
    for pair, who in (((weights, theirs), "theirs"), ((theirs, weights), "mine")):
        with pytest.raises(ValueError, match=words.replace("theirs", who)) as caught:
            lockstep(*pair)
        assert "\n" not in str(caught.value)


def test_what_the_user_has_set_as_default_goes_along_and_stays():
    seen = []

    def theirs():
        seen.append((torch.get_default_device().type, torch.get_default_dtype()))
        with torch.device("cpu"):
            train()

    torch.set_default_device("meta")  # on which ours could not compute anything
    torch.set_default_dtype(torch.float16)
    try:
        found = lockstep(by_hand(lr=0.3), theirs, 20)
        assert (torch.get_default_device().type, torch.get_default_dtype()) == seen[0]
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert seen == [("meta", torch.float16)]
    assert (found.cause, found.factor) == ("scale", pytest.approx(3)), str(found)


TRAINS = """
import torch
def train(raises=None):
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for step in range(9):
        optimizer.zero_grad()
        (w**4).sum().backward()
        optimizer.step()
        if step == raises: raise RuntimeError("my own mistake")
def breaks(): train(1)
def thrice():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    torch.optim.SGD([w], lr=0.3)
def nothing(): pass
def live():
    w = torch.ones(2)
    return [{"w": w.sub_(0.1)} for _ in range(3)]
"""


def test_on_the_command_line(tmp_path, main):
    (tmp_path / "a.py").write_text(TRAINS)
    (tmp_path / "b.py").write_text(TRAINS.replace("lr=0.1", "lr=0.05"))
    status, out, error = main("lockstep", "a.py:train", "a.py:train")
    assert (status, error) == (0, "")
    assert out.startswith("cause: identical")
    status, out, _ = main("lockstep", "a.py:train", "b.py:train", "--name", "x")
    assert status == 1
    assert "theirs: SGD(lr=0.05)" in out
    status, out, error = main("lockstep", "a.py:train", "a.py:breaks")
    assert (status, out) == (2, "")
    assert "gdtorch/" not in error
    assert error.splitlines()[-1] == (
        "gdtorch: a.py:breaks raised RuntimeError (in step 3); the traceback above is of that code"
    )
    for name, words in (
        ("nothing", "a.py:nothing takes 0 backward passes and no step of torch.optim"),
        ("live", "a.py:live, step 1 is the same memory as step 0"),
    ):
        status, out, error = main("lockstep", f"a.py:{name}", "b.py:train")
        assert (status, out) == (2, "")
        assert error.startswith(f"gdtorch: {words}")
        assert error.count("\n") == 1
