"""lockstep of two programs of PyTorch, of which both can be observed."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from gdtorch import lockstep
from gdtorch.lockstep.observing.tape import Function
from gdtorch.lockstep.search.parting import _by_schema

ROWS = torch.randn(48, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 3, (48,), generator=torch.Generator().manual_seed(1))
FLOATS = itertools.repeat((ROWS.float(), LABELS))
MLP = "0.weight", "0.bias", "2.weight", "2.bias"


pytestmark = pytest.mark.usefixtures("one_thread")


def network(*layers):
    """A classifier of ROWS, with layers in the place of a ReLU, and always the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *(layers or [nn.ReLU()]), nn.Linear(8, 3)).double()


def copies(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def sgd(net, **options):
    return torch.optim.SGD(net.parameters(), **{"lr": 0.1, **options})


def cross_entropy(net, rows, labels):
    return F.cross_entropy(net(rows), labels)


def train(make=network, optimizer=sgd, loss=cross_entropy, batches=None, between=None, after=None):
    """Copies of a training loop's weights; `between` backward and step, and `after` the step."""
    net = make()
    steps = optimizer(net)
    yield copies(net)
    for rows, labels in batches or itertools.repeat((ROWS, LABELS)):
        steps.zero_grad()
        loss(net, rows, labels).backward()
        if between:
            between(net)
        steps.step()
        if after:
            after(net)
        yield copies(net)


def of_the_last_layer(net):
    net[0].requires_grad_(requires_grad=False)
    return torch.optim.SGD(net[2].parameters(), lr=0.1)


def test_weights_that_theirs_has_frozen_take_mines_values():
    report = lockstep(train(), train(optimizer=of_the_last_layer), 20)
    assert report.cause == "weight that never moves"
    assert "moves 0.bias and 0.weight, which theirs does not" in report.text


def test_weights_that_mine_has_frozen_are_named_by_nothing_else():
    report = lockstep(train(optimizer=of_the_last_layer), train(), 20)
    assert report.cause == "weight that never moves"
    assert "does not move 0.bias and 0.weight" in report.text
    assert "Or:" not in report.text


def test_frozen_weights_of_both_are_no_difference():
    both = (train(optimizer=of_the_last_layer) for _ in range(2))
    assert lockstep(*both, 20).identical


def test_a_factor_is_a_factor_where_both_gradients_are_seen():
    """Mine's are rounded relative to their own size, which here is the larger."""

    def training(times):
        return train(
            lambda: network().float(),
            lambda net: sgd(net, lr=1e-5),
            lambda *given: times * cross_entropy(*given),
            FLOATS,
        )

    report = lockstep(training(1000.0), training(1.0), 20)
    assert (report.cause, report.factor) == ("scale", 1000.0)


class Averaged(nn.Module):
    """BatchNorm that learns for four steps, and then takes its averages."""

    def __init__(self, momentum):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, momentum=momentum))
        self.last, self.steps = nn.Linear(8, 3), 0

    def forward(self, x):
        self.steps += 1
        self.layers.train(self.steps <= 4)
        return self.last(self.layers(x))


def mini_batches(size, seed):
    """ROWS in an order that the seed tells, over and over."""
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(seed))
    return itertools.cycle([(ROWS[part], LABELS[part]) for part in order.split(size)])


def unequal():
    """Batches of 20, 20 and 8 rows."""
    return itertools.cycle([(ROWS[k : k + 20], LABELS[k : k + 20]) for k in range(0, 48, 20)])


def with_penalty(penalty):
    def loss(net, rows, labels):
        return cross_entropy(net, rows, labels) + 0.01 * sum(map(penalty, net.parameters()))

    return {"loss": loss}


def of_cross_entropy(**options):
    return {"loss": lambda net, rows, labels: F.cross_entropy(net(rows), labels, **options)}


def batch_norm():
    return network(nn.BatchNorm1d(8), nn.ReLU())


def dropout():
    return network(nn.ReLU(), nn.Dropout(0.5))


def clip_the_first_layer(net):
    nn.utils.clip_grad_norm_(net[0].parameters(), 0.05)


def cast_cross_entropy(net, rows, labels):
    with torch.autocast("cpu", torch.bfloat16):
        return cross_entropy(net, rows, labels)


def hook(net):
    net[0].weight.register_hook(lambda gradient: gradient * (gradient > 0))
    return sgd(net)


class Convolution(nn.Sequential):
    """Rows of five numbers, with as many zeros around each as are asked for."""

    def __init__(self, zeros):
        torch.manual_seed(0)
        super().__init__(nn.Conv1d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.zeros = zeros

    def forward(self, rows):
        return super().forward(F.pad(rows[:, None], (self.zeros, self.zeros)))


class Recurrent(nn.Module):
    """Two parts of a sequence; the second begins where the first ends, or at 0."""

    def __init__(self, *, carries):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.last = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 3)
        self.carries = carries

    def forward(self, rows):
        _, state = self.cell(rows[:, :2, None])
        return self.last(self.cell(rows[:, 2:, None], state if self.carries else None)[0][:, -1])


class Stateful(Recurrent):
    """A sequence that goes on from step to step."""

    def __init__(self, *, keeps):
        super().__init__(carries=False)
        self.keeps, self.state = keeps, None

    def forward(self, rows):
        made, state = self.cell(rows[:, :, None], self.state)
        self.state = state.detach() if self.keeps else None
        return self.last(made[:, -1])


class Sequences(nn.Module):
    """As many sequences as they have steps, so that the two can be mistaken for each other."""

    def __init__(self, *, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRU(5, 3, batch_first=batch_first)

    def forward(self, rows):
        return self.cell(rows[:36].reshape(6, 6, 5))[0].reshape(36, 3)[torch.arange(48) % 36]


def attended(net, rows, labels, future):
    """Each feature looks at those before it."""
    hidden = net[0](rows)[:, :5]
    hidden = hidden[:, :, None] * hidden[:, None, :]
    mask = torch.ones(5, 5, dtype=torch.bool).triu(future)
    return F.cross_entropy(hidden.masked_fill(mask, -torch.inf).softmax(-1).sum(1)[:, :3], labels)


TEACHER = nn.Linear(5, 3).double()  # its weights take gradients, though nobody trains them


def distilled(net, rows, _, teacher_first):
    teacher, own = TEACHER(rows).log_softmax(1).detach(), net(rows).log_softmax(1)
    both = (teacher, own) if teacher_first else (own, teacher)
    return F.kl_div(*both, reduction="batchmean", log_target=True)


class ByHand(nn.LayerNorm):
    """LayerNorm with PyTorch's eps, written out."""

    def __init__(self):
        super().__init__(8)

    def forward(self, rows):
        var, mean = torch.var_mean(rows, 1, unbiased=False, keepdim=True)
        return (rows - mean) / (var + 1e-5).sqrt() * self.weight + self.bias


class Table(nn.Sequential):
    def __init__(self, padding=None):
        torch.manual_seed(0)
        super().__init__(nn.Embedding(3, 5), nn.Linear(5, 3))
        self[0].padding_idx = padding


def of_labels(net, _, labels):
    return F.cross_entropy(net(labels), labels)


CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
PAIRS = {  # what mine does otherwise → mine, theirs, the cause and words of the report
    "evaluates": (
        {"make": lambda: batch_norm().eval()},
        {"make": batch_norm},
        "another function",
        "batch_norm (in module 1) with training False, theirs has True",
    ),
    "evaluates a network whose outputs are about what goes in": (
        {"make": lambda: network(nn.ReLU(), nn.BatchNorm1d(8)).float().eval(), "batches": FLOATS},
        {"make": lambda: network(nn.ReLU(), nn.BatchNorm1d(8)).float(), "batches": FLOATS},
        "another function",
        "batch_norm (in module 2) with training False, theirs has True",
    ),
    "no state carried on": (
        {"make": lambda: Recurrent(carries=False).double()},
        {"make": lambda: Recurrent(carries=True).double()},
        "another function",
        "gives gru (in module cell) a constant, where theirs has what comes of its weights",
    ),
    "an option of the derivative alone": (
        {"make": lambda: Table(0).double(), "loss": of_labels},
        {"make": lambda: Table().double(), "loss": of_labels},
        "another function",
        "has embedding (in module 0) with padding_idx 0, theirs has None",
    ),
    "autocast": (
        {"make": lambda: network().float(), "loss": cast_cross_entropy, "batches": FLOATS},
        {"make": lambda: network().float(), "batches": FLOATS},
        "precision",
        "multiplies matrices under torch.autocast in bfloat16, where theirs does in full precision",
    ),
    "a hook": (
        {"optimizer": hook},
        {},
        "changed gradients",
        "computes what theirs does, but does not have the gradients that come of it",
    ),
    "padding": (
        {"make": lambda: Convolution(2).double()},
        {"make": lambda: Convolution(1).double()},
        "other rows",
        "theirs is of shape (48, 1, 7)",
    ),
    "other data": (
        {"batches": itertools.repeat(((ROWS - ROWS.mean(0)) / ROWS.std(0), LABELS))},
        {},
        "other rows",
        "theirs has none of its rows",
    ),
    "a state made anew": (
        {"make": lambda: Stateful(keeps=False).double()},
        {"make": lambda: Stateful(keeps=True).double()},
        "other rows",
        "gives gru (in module cell) 0 throughout, where theirs gives it other numbers",
    ),
    "axes in one alone": (
        {"loss": lambda net, rows, _: net(rows).square().sum(1).log().mean()},
        {"loss": lambda net, rows, _: net(rows).square().sum().log().mean()},
        "another function",
        "has sum with dim 1, theirs has none",
    ),
    "the first axis in one alone": (
        {"loss": lambda net, rows, _: net(rows).square().sum().log().mean()},
        {"loss": lambda net, rows, _: net(rows).square().sum(0).log().mean()},
        "another function",
        "has sum without dim, which is 0 in theirs",
    ),
    "another momentum of averages": (
        {"make": lambda: Averaged(0.01).double()},
        {"make": lambda: Averaged(0.1).double()},
        "another function",
        "with momentum 0.01, theirs has 0.1, and so another running_mean",
    ),
    "rows scaled": (
        {"batches": itertools.repeat((2 * ROWS + 1, LABELS))},
        {},
        "other rows",
        "another array of shape (48, 5): 2 times theirs, plus 1",
    ),
    "another mask": (
        {"loss": lambda *given: attended(*given, future=2)},
        {"loss": lambda *given: attended(*given, future=1)},
        "other rows",
        "gives masked_fill (after module 0) another mask of shape (5, 5)",
    ),
    "by steps first": (
        {"make": lambda: Sequences(batch_first=False).double()},
        {"make": lambda: Sequences(batch_first=True).double()},
        "another function",
        "has gru (in module cell) with batch_first False, theirs has True",
    ),
    "a teacher's outputs first": (
        {"loss": lambda *given: distilled(*given, teacher_first=True)},
        {"loss": lambda *given: distilled(*given, teacher_first=False)},
        "another function",
        "has other values after kl_div",
    ),
    "theirs alone clips": (
        {},
        {"between": clip_the_first_layer},
        "changed gradients",
        "does not change the gradients of 0.weight and 0.bias after backward(), where theirs does",
    ),
    "an eps that is lost in float32": (
        {"make": lambda: network(nn.LayerNorm(8, 1e-6)).float(), "batches": FLOATS},
        {"make": lambda: network(ByHand()).float(), "batches": FLOATS},
        "another function",
        "has values so near theirs' that where the two part is not seen",
    ),
    "more passes": (
        {"between": lambda net: cross_entropy(net, ROWS[:10], LABELS[:10]).backward()},
        {},
        "changed gradients",
        "takes 2 gradients in this step, where theirs takes 1",
    ),
    "a sum for a mean of unequal batches": (
        of_cross_entropy(reduction="sum") | {"batches": unequal()},
        {"batches": unequal()},
        "another function",
        "cross_entropy (after module 2) with reduction 'sum', theirs has 'mean'",
    ),
    "another seed": (
        {"make": dropout, "after": lambda _: torch.rand(1)},
        {"make": dropout},
        "random numbers",
        "draws other random numbers in dropout",
    ),
    "another activation": (
        {"make": lambda: network(nn.LeakyReLU())},
        {},
        "another function",
        "other values from its leaky_relu (after module 0) on, where theirs has relu",
    ),
    "another option": (
        of_cross_entropy(label_smoothing=0.1),
        {},
        "another function",
        "cross_entropy (after module 2) with label_smoothing 0.1, theirs has 0.0",
    ),
    "class weights": (
        of_cross_entropy(weight=CLASS_WEIGHTS),
        {},
        "another function",
        "with weight an array of shape (3,), theirs has None",
    ),
    "a penalty": (
        with_penalty(torch.linalg.vector_norm),
        {},
        "another function",
        "values that theirs has not, from its linalg_vector_norm",
    ),
    "no penalty": (
        {},
        with_penalty(torch.linalg.vector_norm),
        "another function",
        "does without linalg_vector_norm",
    ),
    "no logarithm": (
        {"loss": lambda net, rows, labels: F.nll_loss(net(rows).softmax(1), labels)},
        {"loss": lambda net, rows, labels: F.nll_loss(net(rows).log_softmax(1), labels)},
        "another function",
        "softmax (after module 2) on, where theirs has log_softmax",
    ),
    "another order": (
        {"batches": mini_batches(16, seed=1)},
        {"batches": mini_batches(16, seed=2)},
        "other rows",
        "another array of shape (16, 5)",
    ),
    "smaller batches": (
        {"batches": mini_batches(8, seed=1)},
        {"batches": mini_batches(16, seed=1)},
        "other rows",
        "another array of shape (8, 5); theirs is of shape (16, 5)",
    ),
    "rounded rows": (
        {"batches": itertools.repeat((ROWS.float().double(), LABELS))},
        {},
        "other rows",
        "the two are at most",
    ),
    "clips some": (
        {"between": clip_the_first_layer},
        {},
        "changed gradients",
        "changes the gradients of 0.weight and 0.bias after backward()",
    ),
    "takes signs": (
        {"between": lambda net: [weight.grad.sign_() for weight in net.parameters()]},
        {},
        "changed gradients",
        "changes the gradients of 0.weight, 0.bias, 2.weight and 2.bias after backward()",
    ),
}


QUICK = {  # one of each kind; the others are slow
    *("evaluates", "a hook", "other data", "another activation", "clips some"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PAIRS],
)
def test_where_two_programs_part_is_named(name):
    mine, theirs, cause, words = PAIRS[name]
    report = lockstep(train(**mine), train(**theirs), 20)
    assert report.cause == cause
    assert words in report.text
    assert report.reproduced >= 19
    assert report.residual < 1


@pytest.mark.slow
def test_a_penalty_beside_a_decay_are_both_named():
    mine = train(**with_penalty(lambda weight: weight.abs().sum()))
    report = lockstep(mine, train(optimizer=lambda net: sgd(net, weight_decay=0.01)), 20)
    assert report.cause == "another function"
    assert [edit.what for edit in report.edits] == ["another function", "weight_decay"]
    assert "from its abs" in report.text


def by_epochs(length, *, zero=True, anew=False):
    """A loop that sets gradients to 0, or makes its optimizer anew, once in so many steps."""
    net = network()
    steps = sgd(net, momentum=0.9)
    yield copies(net)
    for step in itertools.count():
        if anew and step % length == 0:
            steps = sgd(net, momentum=0.9)
        if zero or step % length == 0:
            steps.zero_grad()
        cross_entropy(net, ROWS, LABELS).backward()
        steps.step()
        yield copies(net)


def in_numpy(trajectory):
    """The same weights, of which no program can be observed."""
    return ({name: weight.numpy() for name, weight in weights.items()} for weights in trajectory)


@pytest.mark.parametrize(
    ("length", "seen"),
    [
        (2, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(2, False), (3, True), (3, False), (7, True), (7, False)]
        ),
    ],
)
def test_what_is_done_once_in_several_steps_is_named(length, seen):
    theirs = {"optimizer": lambda net: sgd(net, momentum=0.9)}
    for how, cause, words in (
        ({"anew": True}, "state reset", f"after every {length} steps"),
        ({"zero": False}, "gradients not zeroed", f"to 0 once in {length} steps"),
    ):
        weights = [*itertools.islice(by_epochs(length, **how), 21)]
        mine = by_epochs(length, **how) if seen else in_numpy(weights)
        report = lockstep(mine, train(**theirs), 20)
        assert report.cause == cause
        assert words in report.text
        assert report.reproduced >= 19


def test_the_same_gradients_are_told_where_nothing_else_is_known():
    def renormalise(net):
        for weight in net.parameters():
            weight.data.mul_(min(1.0, 1 / float(weight.data.norm())))

    report = lockstep(train(after=renormalise), train(), 20)
    assert report.cause == "one weight's update"
    assert "Both optimizers are given the same gradients." in report.text


def test_mines_optimizer_is_shown_where_it_is_another():
    def mine(net):
        return torch.optim.RMSprop(net.parameters(), lr=0.01, alpha=0.999)

    def theirs(net):
        return torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.0, 0.999))

    report = lockstep(train(optimizer=mine), train(optimizer=theirs), 20)
    assert report.cause == "bias correction"
    assert "seen in mine: RMSprop(lr=0.01, alpha=0.999)" in report.text


def test_many_other_options_are_read_off_mine():
    def mine(net):
        groups = {"params": net[0].parameters(), "lr": 0.05, "momentum": 0.5}, net[2].parameters()
        return torch.optim.SGD([groups[0], {"params": groups[1], "weight_decay": 0.1}], lr=0.1)

    theirs = train(optimizer=lambda net: sgd(net, momentum=0.9))
    report = lockstep(train(optimizer=mine), theirs, 20)
    assert report.cause == "optimizer"
    first, last = ("0.weight", "0.bias"), ("2.weight", "2.bias")
    assert [(e.what, e.mine, e.theirs, e.weights) for e in report.edits] == [
        ("lr", 0.05, 0.1, first),
        ("momentum", 0.5, 0.9, first),
        ("momentum", 0, 0.9, last),
        ("weight_decay", 0.1, 0, last),
    ]


@pytest.mark.slow
def test_another_optimizer_beside_another_function_are_both_read_off_mine():
    def mine(net):
        return torch.optim.AdamW(net.parameters(), lr=0.02, betas=(0.8, 0.99), weight_decay=0.1)

    report = lockstep(train(lambda: network(nn.SiLU()), optimizer=mine), train(), 20)
    assert [edit.what for edit in report.edits] == ["another function", "optimizer"]
    assert report.edits[1].mine == "AdamW(lr=0.02, betas=(0.8, 0.99), weight_decay=0.1)"


def test_a_schedule_beside_other_options_is_read_off_mine():
    def mine():
        net = network()
        steps = sgd(net, lr=0.3, momentum=0.5, dampening=0.2, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(steps, 5, 0.5)
        for _ in range(30):
            steps.zero_grad()
            cross_entropy(net, ROWS, LABELS).backward()
            steps.step()
            schedule.step()

    report = lockstep(mine, train(optimizer=lambda net: sgd(net, momentum=0.9)), 20)
    changed = {"lr", "momentum", "dampening", "weight_decay", "schedule"}
    assert {edit.what for edit in report.edits} == changed
    assert "another lr from step 6 on: 0.15," in report.text


def by_columns(activation):
    """The same network with weights of shape (in, out), and updates by hand."""
    net = network()
    w = {n: p.detach().clone().t().contiguous() for n, p in net.named_parameters()}
    w = {n: p.requires_grad_() for n, p in w.items()}
    while True:
        yield {n: p.detach().clone() for n, p in w.items()}
        hidden = activation(ROWS @ w["0.weight"] + w["0.bias"])
        scores = hidden @ w["2.weight"] + w["2.bias"]
        picked = scores.log_softmax(1)[torch.arange(len(LABELS)), LABELS]
        grads = torch.autograd.grad(-picked.mean(), list(w.values()))
        with torch.no_grad():
            for weight, grad in zip(w.values(), grads, strict=True):
                weight -= 0.1 * grad


def test_another_layout_and_other_functions_of_the_same_values_are_no_difference():
    assert lockstep(by_columns(torch.relu), train(), 20).cause == "rounding"


def test_another_layout_is_seen_through():
    report = lockstep(by_columns(F.elu), train(), 20)
    assert report.cause == "another function"
    assert "other values from its elu (after module 0) on, where theirs has relu" in report.text


@pytest.mark.parametrize("factor", [2, 3])
def test_a_factor_of_cross_entropy_is_taken_for_no_other_loss(factor):
    mine = train(loss=lambda *given: factor * cross_entropy(*given))
    report = lockstep(mine, train(), 20, rows=48)
    assert (report.cause, report.factor) == ("scale", factor)
    assert "squared" not in report.text
    assert "outputs" not in report.text


def accumulate(make=network, loss=cross_entropy, parts=(12, 12, 12, 12), clears=False):
    """A loop that adds up the gradients of micro-batches, each weighed by its rows."""
    net = make()
    steps = sgd(net)
    while True:
        steps.zero_grad()
        batches = [*zip(ROWS.split(parts), LABELS.split(parts), strict=True)]
        for rows, labels in reversed(batches):
            if clears:
                steps.zero_grad()
            (loss(net, rows, labels) * (len(rows) / len(ROWS))).backward()
        steps.step()


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (
            {"make": lambda: network(nn.Hardswish())},
            "other values from its hardswish (number 1 of 4, after",
        ),
        (of_cross_entropy(label_smoothing=0.1), "with label_smoothing 0.1, theirs has 0.0"),
        ({**with_penalty(torch.linalg.vector_norm), "parts": (30, 18)}, "from its linalg_vector_n"),
    ],
    ids=["another activation", "another option", "a penalty"],
)
def test_micro_batches_hide_no_other_function(mine, words):
    report = lockstep(lambda: accumulate(**mine), train(), 20)
    assert report.cause == "another function"
    assert words in report.text


@pytest.mark.slow
def test_micro_batches_of_theirs_hide_no_other_function():
    report = lockstep(train(lambda: network(nn.Hardswish())), accumulate, 20)
    assert report.cause == "another function"
    assert "other values from its hardswish" in report.text


def test_a_second_backward_pass_is_told_and_no_loss_is_blamed():
    def squared(net, rows, labels):
        return F.mse_loss(net(rows), F.one_hot(labels, 3).to(rows))

    def twice(net, rows, labels):
        loss = squared(net, rows, labels)
        loss.backward(retain_graph=True)
        return loss

    report = lockstep(train(loss=twice), train(loss=squared), 20)
    assert (report.cause, report.factor) == ("scale", pytest.approx(2))
    assert "Seen:   mine takes 2 gradients in a step, theirs takes 1" in report.text
    assert "½" not in report.text


def test_what_a_function_in_c_was_not_given_is_its_default():
    rows = torch.ones(2)
    called = Function("gelu", F.gelu, (rows,), {}, (0,), None)
    assert _by_schema(called) == {"self": rows, "approximate": "none"}
    called = Function("gelu", F.gelu, (rows,), {"approximate": "tanh"}, (0,), None)
    assert _by_schema(called) == {"self": rows, "approximate": "tanh"}
    unknown = Function("nothing", F.gelu, (rows, 3), {}, (0,), None)
    assert _by_schema(unknown) == {"argument 1": rows, "argument 2": 3}


def test_the_loss_that_makes_a_factor_is_told():
    """Huber's loss is δ times the smooth L1 loss, and nothing has a ½ too many."""
    targets = F.one_hot(LABELS, 3).double()
    losses = [
        lambda net, rows, _: F.huber_loss(net(rows), targets, delta=0.5),
        lambda net, rows, _: F.smooth_l1_loss(net(rows), targets, beta=0.5),
    ]
    report = lockstep(*(train(loss=loss) for loss in losses), 20)
    assert (report.cause, report.factor) == ("scale", 0.5)
    assert "huber_loss (after module 2) on, where theirs has smooth_l1_loss" in report.text
    assert "squared" not in report.text


class Heads(nn.Module):
    """Two heads that learn in turn; q, k and v are of one product, split."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.a, self.b = nn.Linear(5, 12), nn.Linear(4, 3), nn.Linear(4, 3)
        self.steps = 0
        self.double()

    def forward(self, x):
        self.steps += 1
        q, k, v = self.trunk(x).split(4, dim=1)
        return (self.a if self.steps % 2 else self.b)(torch.sigmoid(q * k) * v)


def test_functions_that_return_several_tensors_are_no_traceback():
    def shrunk(net, rows, labels):
        return cross_entropy(net, rows * torch.linspace(0, 1, 5, dtype=rows.dtype), labels)

    report = lockstep(list(itertools.islice(train(Heads), 21)), train(Heads, loss=shrunk), 20)
    assert not report.agree


def test_weights_that_one_steps_with_a_gradient_of_0_are_named():
    def training(*, to_none):
        net = Heads()
        steps = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        while True:
            steps.zero_grad(set_to_none=to_none)
            cross_entropy(net, ROWS, LABELS).backward()
            steps.step()

    report = lockstep(lambda: training(to_none=False), lambda: training(to_none=True), steps=20)
    assert report.cause == "changed gradients"
    assert "it steps a.weight and a.bias in step 2, where theirs has no gradient" in report.text
    report = lockstep(lambda: training(to_none=True), lambda: training(to_none=False), steps=20)
    assert "mine has no gradient of a.weight and a.bias in step 2" in report.text
    assert "the same gradients" not in report.text


def test_another_activation_is_named():
    report = lockstep(train(lambda: network(nn.Tanh())), train(), 20)
    assert report.cause == "another function"
    assert "it applies tanh where theirs applies relu" in report.text


def cast_in_part(net, rows, labels):
    """In full, its layers would refuse what is cast by hand."""
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(net[2](net[1](net[0](rows)).to(torch.bfloat16)), labels)


@pytest.mark.parametrize("loss", [cast_cross_entropy, cast_in_part])
def test_what_theirs_casts_for_itself_cannot_be_taken_in_full(loss):
    floats = {"make": lambda: network().float(), "batches": FLOATS}
    report = lockstep(train(**floats), train(loss=loss, **floats), 20)
    assert report.cause == ("precision" if loss is cast_cross_entropy else "unexplained"), report


def test_autocast_in_theirs_hides_no_mistake():
    """Where mine is seen, and where only its weights are."""
    floats = {"make": lambda: network().float(), "batches": FLOATS}
    for option, value in (("momentum", 0.5), ("weight_decay", 0.01)):
        made = [
            train(optimizer=lambda net, one={option: value}: sgd(net, **one), **floats)
            for _ in range(2)
        ]
        for mine in (made[0], list(itertools.islice(made[1], 21))):
            report = lockstep(mine, train(loss=cast_cross_entropy, **floats), 20)
            assert report.cause == option.replace("_", " "), report
            assert "theirs in float32, with products under torch.autocast" in report.text
            assert report.residual < 1


def test_autocast_hides_no_gradient_that_is_cut_off():
    def cut(net, rows, labels):
        return F.cross_entropy(net[2](net[1](net[0](rows)).sin().detach()), labels)

    def whole(net, rows, labels):
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(net[2](net[1](net[0](rows)).sin()), labels)

    floats = {"make": lambda: network().float(), "batches": FLOATS}
    report = lockstep(train(loss=cut, **floats), train(loss=whole, **floats), 20)
    assert report.cause != "precision"


class Residual(nn.Module):
    """Two layers, and a way around the second one."""

    def __init__(self, around=lambda hidden: hidden):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.Linear(5, 5, dtype=torch.float64) for _ in range(2))
        self.around = around

    def forward(self, rows):
        hidden = self.first(rows).tanh()
        return self.second(hidden) + self.around(hidden)


def with_a_hook(hidden):
    hidden.register_hook(lambda grad: grad * (grad > 0) + grad)
    return hidden


@pytest.mark.parametrize(
    ("around", "cause"),
    [(torch.Tensor.detach, "branch cut off"), (with_a_hook, "changed gradients")],
    ids=["detached", "hook"],
)
def test_a_scaled_loss_hides_nothing(around, cause):
    def mine():
        net, scaler = Residual(around), torch.amp.GradScaler("cpu", init_scale=1024.0)
        steps = sgd(net)
        for _ in range(20):
            steps.zero_grad()
            scaler.scale(cross_entropy(net, ROWS, LABELS)).backward()
            scaler.unscale_(steps)
            scaler.step(steps)
            scaler.update()

    report = lockstep(mine, train(Residual), 20)
    assert report.cause == cause, str(report)
    if cause == "branch cut off":
        assert "from add (the only add, after module" in report.text
        assert (
            "Change: hand what comes back through add on to what tanh has made, too" in report.text
        )


def test_gradients_that_are_cleared_between_micro_batches_are_no_other_rows():
    report = lockstep(lambda: accumulate(clears=True), train(), 20)
    assert report.cause == "changed gradients"
    assert "zero_grad() between two backward passes" in report.text


def test_micro_batches_whose_losses_do_not_make_theirs_are_named():
    weighted = {"loss": lambda net, *of: F.cross_entropy(net(of[0]), of[1], CLASS_WEIGHTS)}
    report = lockstep(lambda: accumulate(**weighted), train(**weighted), 20)
    assert report.cause == "unequal micro-batches"
    assert "over 4 micro-batches, where theirs takes all rows at once" in report.text


@pytest.mark.slow
def test_statistics_of_micro_batches_are_named():
    report = lockstep(lambda: accumulate(batch_norm), train(batch_norm), 20)
    assert report.cause == "another function"
    assert "takes batch_norm (in module 1) over 4 micro-batches, where" in report.text
    report = lockstep(train(batch_norm), lambda: accumulate(batch_norm), 20)
    assert "takes batch_norm (in module 1) over all rows at once, where" in report.text


def test_rows_that_theirs_has_in_the_same_step_are_no_rows_of_another_step():
    def twice(*parts):
        net = network()
        steps = sgd(net)
        while True:
            steps.zero_grad()
            for part in parts:
                cross_entropy(net, ROWS[part], LABELS[part]).backward()
            steps.step()

    first, second = slice(24), slice(24, 48)
    report = lockstep(lambda: twice(first, first), lambda: twice(first, second), 20)
    assert report.cause == "other rows"
    assert "what theirs gives another call" in report.text


def adversaries(lr_of_judge, optimizer=torch.optim.SGD, *, zeroes=True):
    """A generator and a judge that step in turn, the judge first."""
    torch.manual_seed(0)
    maker, judge = nn.Linear(2, 5), nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    noise, real = torch.randn(48, 2), ROWS.float()
    first = optimizer(judge.parameters(), lr=lr_of_judge)
    second = optimizer(maker.parameters(), lr=0.1)
    while True:
        if zeroes:
            first.zero_grad()
        made = judge(maker(noise).detach())
        (F.softplus(-judge(real)).mean() + F.softplus(made).mean()).backward()
        first.step()
        second.zero_grad()
        F.softplus(-judge(maker(noise))).mean().backward()
        second.step()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_what_follows_from_an_optimizer_that_stepped_before_is_no_other_gradient(optimizer):
    report = lockstep(lambda: adversaries(0.2, optimizer), lambda: adversaries(0.1, optimizer), 20)
    assert [(edit.what, edit.mine, edit.theirs) for edit in report.edits] == [("lr", 0.2, 0.1)]
    assert set(report.edits[0].weights) == {"p0", "p1", "p2", "p3"}


def test_a_learning_rate_that_was_seen_is_no_factor_of_the_gradient():
    report = lockstep(train(optimizer=lambda net: sgd(net, lr=0.2)), train(), 20, rows=48)
    assert report.cause == "scale"
    assert "has lr 0.2, theirs has 0.1" in report.text
    assert "Change: lr 0.1, not 0.2." in report.text
    assert "Or:" not in report.text


def test_options_that_mine_was_seen_not_to_have_are_no_other_way():
    report = lockstep(train(loss=lambda *given: 3 * cross_entropy(*given)), train(), 20)
    assert "has 3 times the gradient" in report.text
    assert "Or:" not in report.text


def test_a_decay_in_the_gradient_is_not_called_none():
    def mine(net):
        return torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)

    def theirs(net):
        return torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)

    report = lockstep(train(optimizer=mine), train(optimizer=theirs), 20)
    assert report.cause == "decoupled weight decay"
    assert "adds the decay to the gradient" in report.text


def clamp(net):
    for weight in net.parameters():
        weight.data.clamp_(-0.2, 0.2)


@pytest.mark.slow
def test_weights_that_change_between_the_steps_are_told():
    def mine():
        for _ in train(after=clamp):
            pass

    report = lockstep(mine, train(), 20)
    assert report.cause == "unexplained"
    assert "mine's weights change before step 2 by more than optimizer.step()" in report.text
    assert "Means: Look at what else changes mine's weights there" in report.text


@pytest.mark.slow
def test_weights_of_theirs_that_change_between_the_steps_are_told():
    def clamped(before):
        net = network()
        steps = sgd(net)
        while True:
            yield net
            steps.zero_grad()
            cross_entropy(net, ROWS, LABELS).backward()
            if before:
                clamp(net)
            steps.step()
            clamp(net)

    report = lockstep(clamped(before=True), clamped(before=False), 20)
    assert report.cause == "unexplained"
    assert "theirs' weights change before step 2 by more than optimizer.step()" in report.text
    assert "whether mine does the same at the same place" in report.text
    assert "likely" not in report.text


def test_gradients_that_were_not_set_to_0_are_told():
    report = lockstep(lambda: adversaries(0.1, zeroes=False), lambda: adversaries(0.1), 20)
    assert report.cause == "unexplained"
    assert "the gradients of p0, p1, p2 and p3 were not 0 in mine when backward()" in report.text
    assert "call zero_grad() where theirs does, or keep that loss from reaching" in report.text
    assert "shapes: p0 (8, 5), p1 (8,), p2 (1, 8), p3 (1,)" in report.text


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_schedule_that_steps_before_its_optimizer_is_no_scale():
    def run(early):
        net = network()
        steps = torch.optim.Adam(net.parameters(), lr=0.01)
        rates = torch.optim.lr_scheduler.ExponentialLR(steps, 0.9)
        while True:
            yield copies(net)
            if early:
                rates.step()
            steps.zero_grad()
            cross_entropy(net, ROWS, LABELS).backward()
            steps.step()
            if not early:
                rates.step()

    report = lockstep(run(early=True), run(early=False), 20)
    assert (report.cause, report.factor) == ("step size schedule", pytest.approx(0.9))
    assert "it is a step ahead in the schedule" in report.text


class Forgetful(torch.optim.Optimizer):
    """SGD that makes its velocity anew in each step."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "momentum": 0.9})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                velocity = torch.zeros_like(weight).mul_(group["momentum"]).add_(weight.grad)
                weight.add_(velocity, alpha=-group["lr"])


def test_an_option_that_an_optimizer_of_ones_own_has_is_not_said_to_be_another():
    mine = train(optimizer=lambda net: Forgetful(net.parameters()))
    report = lockstep(mine, train(optimizer=lambda net: sgd(net, momentum=0.9)), 20)
    assert report.cause == "state reset", report.text
    assert "momentum 0" not in report.text


def test_the_decay_of_adamw_is_shown_where_it_is_not_pytorchs():
    def adamw(decay):
        return lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=decay)

    report = lockstep(train(optimizer=adamw(0.01)), train(optimizer=adamw(0.0)), 20)
    assert "theirs: AdamW(lr=0.01, weight_decay=0.0)" in report.text
    assert "seen in mine: AdamW(lr=0.01)\n" in report.text


def test_theirs_is_asked_for_its_parameters_where_it_yields_views_of_them():
    def theirs():
        net = network()
        for _ in train(lambda: net):
            yield {name: net.get_parameter(name).T for name in ("0.weight", "2.weight")}

    def mine():
        for weights in train(loss=of_cross_entropy(label_smoothing=0.1)["loss"]):
            yield {name: weights[name].T.numpy() for name in ("0.weight", "2.weight")}

    assert "Theirs yields views of its parameters" in lockstep(mine(), theirs(), 20).text


@pytest.mark.slow
def test_the_mode_of_a_batch_norm_is_to_be_changed_in_the_model():
    report = lockstep(train(lambda: batch_norm().eval()), train(batch_norm), 20)
    assert "Change: call model.train() before it." in report.text
    report = lockstep(train(batch_norm), train(lambda: batch_norm().eval()), 20)
    assert "Change: call model.eval() before it." in report.text


class WrongSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, slope):
        (z,) = ctx.saved_tensors
        share = torch.sigmoid(z)
        return slope * (share + share * (1 - share))


class WronglyClipped(WrongSiLU):
    @staticmethod
    def backward(ctx, slope):
        (z,) = ctx.saved_tensors
        return slope.clamp(-0.01, 0.01) * torch.sigmoid(z) ** 3


def activated(function):
    class Wrong(nn.Module):
        def forward(self, z):
            return function.apply(z)

    return network(Wrong())


def test_a_function_that_is_not_looked_into_is_told():
    mine = train(lambda: activated(WronglyClipped))
    report = lockstep(mine, train(lambda: network(nn.SiLU())), 20)
    assert report.cause == "unexplained"
    assert "what is done in WronglyClippedBackward was not seen" in report.text
    assert "gradcheck" in report.text


def test_a_slip_in_a_backward_of_ones_own_is_named():
    report = lockstep(train(lambda: activated(WrongSiLU)), train(lambda: network(nn.SiLU())), 20)
    assert report.cause == "derivative", report.text
    assert "`dx = g * (s + s * (1 - s))` for the derivative of y = silu(x)" in report.text


@pytest.mark.slow
def test_several_steps_between_two_yields_are_told():
    def each_second(**changes):
        return itertools.islice(train(**changes), 0, None, 2)

    report = lockstep(
        each_second(), each_second(loss=of_cross_entropy(label_smoothing=0.1)["loss"])
    )
    assert report.cause == "unexplained"
    assert "let it yield after each" in report.text
