"""The rules by hand: torch.optim's bits after every step, its options, its refusals; reading."""

import dataclasses
import inspect
import itertools
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gdtorch import SGD, Manual, Rows, SigmoidNet, Torch, load_table, optimizers
from gdtorch.optimizers import RULES, read

POST = load_table("post").learned
HOW = {"foreach", "fused", "capturable", "differentiable"}
EACH_RULE = pytest.mark.parametrize("name", RULES)
EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def bits(weights):
    return [torch.nan_to_num(w, 1.5).cpu().numpy().tobytes() for w in weights.values()]


def assert_same_bits(name, net, rows, steps, **options):
    """By `Manual` and by `Torch`: the weights after every step, and at the end the state."""
    manual = Manual(net, rows, optimizer=RULES[name](**options))
    theirs = Torch(net, rows, name, **options)
    for step in range(steps + 1):
        assert bits(manual.weights) == bits(theirs.weights), f"after step {step} with {options}"
        manual.step()
        theirs.step()
    for parameter, weight in theirs.parameters.items():
        assert_same_state(manual.state[parameter], theirs.optimizer.state[weight])


def assert_same_state(ours, theirs):
    """Where both keep something under a name, as ASGD its average, which moves no weight."""
    for key in ours.keys() & theirs.keys():
        value = torch.as_tensor(ours[key], dtype=theirs[key].dtype)
        assert bits({key: value}) == bits({key: theirs[key]}), key


def pytorchs_table(name, *given):
    """One of the tables with which PyTorch tests its optimizers; its module loads for seconds."""
    from torch.testing._internal import common_optimizers

    settings.load_profile("gdtorch")  # in place of the one that it loads
    return getattr(common_optimizers, name)(*given)


def table_of(name):
    """The option sets with which PyTorch tests an optimizer, of all devices, each once."""
    table = f"optim_inputs_func_{name.lower()}"
    cases = (pytorchs_table(table, device) for device in ("cpu", "cuda", "mps"))
    given = [case.kwargs.items() for case in itertools.chain.from_iterable(cases)]
    sets = [{option: value for option, value in items if option not in HOW} for items in given]
    # Tensors as betas go with `capturable` alone, and a page takes none.
    numbers = [options for options in sets if not torch.is_tensor(options.get("betas", (0,))[0])]
    return list({str(options): options for options in numbers}.values())


# --- the same bits -----------------------------------------------------------------------------


def by_both(name, options, gradients):
    """A weight after each step, by the page and by torch.optim; at the end their states agree."""
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=gradients.dtype))
    weight, state = parameter.detach().clone(), {}
    page, theirs = RULES[name](**options), getattr(torch.optim, name)
    theirs = theirs([parameter], foreach=False, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        theirs.step()
        page.step(weight, gradient, state)
        yield weight, parameter.detach()
    assert_same_state(state, theirs.state[parameter])


def gradients(dtype, steps=60):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(steps, 6, dtype=dtype, generator=generator)


UNEVEN = {
    "lr": 0.013,
    "betas": (0.87, 0.97),
    "eps": 0.003,
    "weight_decay": 0.07,
    "momentum": 0.87,
    "dampening": 0.3,
    "momentum_decay": 0.3,
    "alpha": 0.87,
    "lr_decay": 0.03,
    "initial_accumulator_value": 0.7,
    "rho": 0.87,
    "lambd": 0.03,
    "t0": 7.0,
    "etas": (0.37, 1.3),
    "step_sizes": (0.007, 0.06),
}


@EACH_DTYPE
@EACH_RULE
def test_uneven_numbers_with_all_flags(name, dtype):
    """No number that would hide an operation too many, as a half or a one does."""
    defaults = RULES[name]().options()
    numbers = {option: value for option, value in UNEVEN.items() if option in defaults}
    flags = [option for option, value in defaults.items() if isinstance(value, bool)]
    assert set(numbers) | set(flags) == set(defaults)
    for choice in itertools.product([False, True], repeat=len(flags)):
        options = numbers | dict(zip(flags, choice, strict=True))
        if options.get("nesterov"):
            options["dampening"] = 0
        for weight, theirs in by_both(name, options, gradients(dtype)):
            assert weight.equal(theirs), options


@pytest.mark.parametrize("steps", [150, pytest.param(10_000, marks=pytest.mark.slow)])
@EACH_DTYPE
@EACH_RULE
def test_defaults_on_the_posts_table(name, dtype, steps):
    rows = Rows(*(t.to(dtype) for t in POST))
    assert_same_bits(name, SigmoidNet().to(dtype), rows, steps)


@EACH_DTYPE
@EACH_RULE
def test_pytorchs_own_table_of_options(name, dtype):
    rows = Rows(*(t.to(dtype) for t in POST))
    for options in table_of(name):
        assert_same_bits(name, SigmoidNet(start=1).to(dtype), rows, 20, **options)


def test_pytorchs_own_tables_have_87_entries():
    assert sum(len(table_of(name)) for name in RULES) == 87


def test_hypothesis_tries_as_many_examples_as_we_ask_for():
    table_of("SGD")
    assert settings().max_examples == 100  # PyTorch's test modules load a profile with ten


SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 0.999]) | st.floats(0, 0.9999)
SIZES = st.just(0.0) | st.floats(0, 0.5)
VALUES = {
    "lr": st.sampled_from([0.0, 1e-3, 0.1, 1.0]) | st.floats(0, 3),
    "maximize": st.booleans(),
    "weight_decay": SIZES,
    "momentum": SHARES,
    "dampening": st.just(0.0) | st.floats(-0.5, 1),
    "nesterov": st.booleans(),
    "betas": st.tuples(SHARES, SHARES),
    "eps": st.sampled_from([0.0, 1e-8, 1e-3]) | st.floats(0, 1),
    "amsgrad": st.booleans(),
    "decoupled_weight_decay": st.booleans(),
    "momentum_decay": st.sampled_from([0.0, 4e-3, math.inf]) | st.floats(0, 2),
    "alpha": SHARES,
    "centered": st.booleans(),
    "lr_decay": SIZES,
    "initial_accumulator_value": SIZES,
    "rho": SHARES,
    "lambd": SIZES,
    "t0": st.sampled_from([0.0, 1.0, 10.0, 1e6]) | st.floats(0, 100),
    "etas": st.tuples(st.floats(0.01, 0.99), st.floats(1.01, 3)),
    "step_sizes": st.tuples(st.floats(0, 1e-3), st.floats(1e-3, 50)),
}
TABLES = {
    "dtype": st.sampled_from([torch.float32, torch.float64]),
    "features": st.integers(1, 8),
    "hidden": st.integers(1, 64),
    "rows": st.integers(1, 20),
    "seed": st.integers(0, 2**63 - 1),
}


@st.composite
def options_of(draw, name):
    names = list(RULES[name]().options())
    options = {n: draw(VALUES[n]) for n in names if draw(st.booleans())}
    if options.get("nesterov"):
        options |= {"momentum": options.get("momentum", 0) or 0.9, "dampening": 0.0}
    return options


def any_options_on_any_table(name, data, dtype, features, hidden, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    table = Rows(
        torch.randn(rows, features, dtype=dtype, generator=generator),
        torch.rand(rows, 1, dtype=dtype, generator=generator),
    )
    net = SigmoidNet(features, hidden, seed=seed).to(dtype)
    assert_same_bits(name, net, table, 200, **data.draw(options_of(name)))


@pytest.mark.slow
@EACH_RULE
@settings(max_examples=50)
@given(data=st.data(), **TABLES)
def test_any_options_any_shape_any_rows(name, data, dtype, features, hidden, rows, seed):
    any_options_on_any_table(name, data, dtype, features, hidden, rows, seed)


@settings(max_examples=10)
@given(name=st.sampled_from(list(RULES)), data=st.data(), **TABLES)
def test_some_options_of_some_rule(name, data, dtype, features, hidden, rows, seed):
    any_options_on_any_table(name, data, dtype, features, hidden, rows, seed)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@pytest.mark.parametrize("lr_dtype", [torch.float32, torch.float64], ids=str)
@EACH_DTYPE
@EACH_RULE
def test_a_learning_rate_in_a_tensor(name, dtype, lr_dtype, shape):
    options = {"lr": torch.full(shape, 0.013, dtype=lr_dtype)}
    if name in {"Adam", "NAdam", "RAdam"}:
        options |= {"weight_decay": 0.1, "decoupled_weight_decay": True}
    for weight, theirs in by_both(name, options, gradients(dtype)):
        assert weight.equal(theirs)


@EACH_DTYPE
@EACH_RULE
def test_a_default_dtype_of_float64(name, dtype):
    """ASGD keeps η, and NAdam the product of μ, in the default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        for weight, theirs in by_both(name, {"lr": 0.013}, gradients(dtype)):
            assert weight.equal(theirs)
    finally:
        torch.set_default_dtype(torch.float32)


@EACH_RULE
def test_numbers_that_are_not_finite(name):
    wild = gradients(torch.float64, 12)
    wild[3, 0], wild[5, 1], wild[7, 2], wild[:, 3], wild[4:, 4] = math.inf, math.nan, 1e200, 0, -0.0
    for weight, theirs in by_both(name, {}, wild):
        assert bits({"": weight}) == bits({"": theirs})


@EACH_RULE
def test_a_step_leaves_the_gradient_alone_and_keeps_none_of_it(name):
    """An objective may hand out the weight itself as its gradient, as that of θ²/2 is."""
    momentum = {"momentum": 0.9} if "momentum" in RULES[name]().options() else {}
    for switch in ("maximize", *RULES[name].switches()):
        off = getattr(RULES[name](), switch)
        for value in (False, True) if isinstance(off, bool) else (off,):
            rule = RULES[name](**momentum, **{switch: value})
            weight, gradient, state = torch.ones(3), torch.tensor([1.0, -2.0, 0.5]), {}
            for _ in range(3):
                rule.step(weight, gradient, state)
                assert gradient.tolist() == [1.0, -2.0, 0.5]
            kept = {v.data_ptr() for v in state.values() if isinstance(v, torch.Tensor)}
            assert not kept & {weight.data_ptr(), gradient.data_ptr()}


def test_an_eta_that_float32_rounds_to_one():
    options = {"etas": (1 - 1e-9, 1.2)}
    for weight, theirs in by_both("Rprop", options, gradients(torch.float32)):
        assert weight.equal(theirs)


# --- the options -------------------------------------------------------------------------------


@EACH_RULE
def test_options_and_defaults_are_those_of_torch_optim(name):
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    theirs = {n: p for n, p in theirs.items() if n != "params" and n not in HOW}
    assert RULES[name]().options() == {n: p.default for n, p in theirs.items()}
    # By place as far as PyTorch's go before the first that changes no number.
    ours = inspect.signature(RULES[name]).parameters
    for n, parameter in ours.items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert list(ours).index(n) == list(theirs).index(n)


@EACH_RULE
def test_switches_are_told_from_options(name):
    rule = RULES[name]()
    names = {f.name for f in dataclasses.fields(rule) if f.init}
    assert names == set(rule.options()) | set(rule.switches())
    assert not set(rule.options()) & set(rule.switches())
    assert all(len(who) > 10 for who in rule.switches().values())


BAD = [
    {"lr": -1.0},
    {"lr": math.nan},
    {"lr": torch.tensor([0.1, 0.2])},
    {"lr": torch.tensor(-0.5)},
    {"eps": -1e-8},
    {"betas": (1.0, 0.9)},
    {"betas": (0.9, 1.5)},
    {"betas": (-0.1, 0.9)},
    {"betas": (0, 0.9)},
    {"weight_decay": -0.1},
    {"momentum": -0.5},
    {"momentum_decay": -1},
    {"lr_decay": -1},
    {"initial_accumulator_value": -1},
    {"rho": 1.1},
    {"rho": -0.1},
    {"alpha": -0.1},
    {"lambd": -0.1},
    {"etas": (1.0, 0.5)},
    {"etas": (0.0, 1.5)},
    {"nesterov": True},
    {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
]


def error_of(make):
    try:
        make()
    except ValueError as error:
        return str(error)
    return "fine"


@EACH_RULE
def test_refuses_what_torch_optim_refuses_in_its_words(name):
    table = pytorchs_table(f"optim_error_inputs_func_{name.lower()}", "cpu", torch.float64)
    cases = [case.optimizer_error_input.kwargs for case in table]
    tried = 0
    for options in BAD + cases:
        if not options or not set(options) <= set(RULES[name]().options()):
            continue
        theirs = error_of(lambda o=options: getattr(torch.optim, name)([torch.zeros(1)], **o))
        assert error_of(lambda o=options: RULES[name](**o)) == theirs, options
        tried += theirs != "fine"
    assert tried >= 4


# --- the trainers ------------------------------------------------------------------------------


@EACH_RULE
def test_a_trainer_is_named_and_takes_what_it_says(name):
    manual = Manual(SigmoidNet(), POST, optimizer=RULES[name](lr=0.25))
    theirs = Torch(SigmoidNet(), POST, name, lr=0.25)
    by_class = Torch(SigmoidNet(), POST, getattr(torch.optim, name))
    assert (manual.name, manual.lr) == ("manual", 0.25)
    assert (theirs.name, theirs.lr) == (by_class.name, 0.25) == (name.lower(), 0.25)
    assert by_class.lr == RULES[name]().lr
    assert theirs.optimizer.param_groups[0]["foreach"] is False


def test_sgd_is_one_of_them():
    assert issubclass(SGD, Torch)
    assert SGD.name == SGD(SigmoidNet(), POST).name == "sgd"


def test_options_beside_an_optimizer_are_refused():
    with pytest.raises(TypeError, match=r"go into the optimizer: optimizer=Adam\(lr="):
        Manual(SigmoidNet(), POST, lr=0.1, optimizer=optimizers.Adam())
    with pytest.raises(ValueError, match="no optimizer Adamm; the nearest is Adam"):
        Torch(SigmoidNet(), POST, "Adamm")


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Adam", optimizers.Adam()),
        (" Adam( ) ", optimizers.Adam()),
        (
            "Adam(lr=0.01, betas=(0.9, 0.99), amsgrad=True)",
            optimizers.Adam(0.01, (0.9, 0.99), amsgrad=True),
        ),
        ("AdamW(weight_decay=-0)", optimizers.AdamW(weight_decay=0)),
        ("Rprop(etas=[0.5, +1.3])", optimizers.Rprop(etas=(0.5, 1.3))),
        ("NAdam(momentum_decay=1e999)", optimizers.NAdam(momentum_decay=math.inf)),
        ("SGD(\n  lr=1,\n  momentum=.5, nesterov=True)", optimizers.SGD(1, 0.5, nesterov=True)),
    ],
)
def test_reading(text, rule):
    assert read(text) == rule
    assert type(read(text)) is type(rule)


@given(st.sampled_from(list(RULES)), st.data())
def test_what_is_written_is_read(name, data):
    options = data.draw(options_of(name))
    text = ", ".join(f"{option}={value!r}" for option, value in options.items())
    if "inf" not in text:
        assert read(f"{name}({text})") == RULES[name](**options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LBFGS", "LBFGS is in torch.optim, but not here; here are SGD, Adam, AdamW, Adamax, "),
        ("SparseAdam(lr=1)", "SparseAdam is in torch.optim, but not here"),
        ("adam", "no optimizer adam; the nearest is Adam"),
        ("RMSProp(lr=1)", "no optimizer RMSProp; the nearest is RMSprop"),
        ("Lion", "no optimizer Lion; the nearest is "),
        ("Adam(beta=(0.9, 0.99))", "Adam has no option beta; the nearest is betas"),
        ("Adam(momentum=0.9)", "Adam has no option momentum; the nearest is "),
        ("Adam(eps_in_root=True)", "Adam has no option eps_in_root; the nearest is "),
        ("AdamW(decoupled_weight_decay=True)", "AdamW has no option decoupled_weight_decay; the "),
        ("Adam(fused=True)", "fused changes how Adam computes, and no number: leave it out"),
        ("Adam(lr=1, lr=2)", "lr is given twice"),
        ("Adam(lr=2**-3)", "lr: write a literal, not an expression"),
        ("Adam(lr=float('inf'))", "lr: write a literal, not an expression"),
        ("Adam(lr=__import__('os').abort())", "lr: write a literal, not an expression"),
        ("Adam(lr='0.1')", "lr='0.1' should be a number"),
        ("Adam(lr=True)", "lr=True should be a number"),
        ("Adam(lr=1j)", "lr=1j should be a number"),
        (f"Adam(lr=1{'0' * 400})", "lr=1000"),
        ("Adam(amsgrad=1)", "amsgrad=1 should be True or False"),
        ("Adam(betas=0.9)", "betas=0.9 should be two numbers, as in (0.9, 0.999)"),
        ("Adam(betas=(0.9,))", "betas=(0.9,) should be two numbers, as in (0.9, 0.999)"),
        ("Adam(lr=-1)", "Invalid learning rate: -1"),
        ("Adam(betas=(0.9, 1.0))", "Invalid beta parameter at index 1: 1.0"),
        ("SGD(nesterov=True)", "Nesterov momentum requires a momentum and zero dampening"),
        ("Adam(0.01)", "'Adam(0.01)' is no optimizer; write it as Adam(lr=0.01, "),
        ("Adam(**{'lr': 1})", "is no optimizer; write it as Adam(lr=0.01, "),
        ("torch.optim.Adam()", "'torch.optim.Adam()' is no optimizer; write it as Adam("),
        ("Adam(lr=0.01", "'Adam(lr=0.01' is no optimizer; write it as Adam("),
        ("", "'' is no optimizer; write it as Adam("),
        ("Adam(lr='\\d')", "should be a number"),
        ("Adam\0", "is no optimizer; write it as Adam("),
        ("(" * 5000, "is no optimizer; write it as Adam("),
        (f"Adam(lr={'-' * 5000}1)", ""),
    ],
    ids=lambda text: text[:40],
)
def test_what_cannot_be_read_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is looked at below)
        read(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=30)
@given(st.text() | st.from_regex(r"Adam\([a-z]{0,3}=[-(){}\[\]0-9.,'a-z*]*\)", fullmatch=True))
def test_any_other_text_is_refused_or_read(text):
    try:
        read(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_reading_runs_nothing_and_loads_no_torch():
    program = (
        "import sys; from gdtorch.optimizers import read; read('Adam(lr=0.01)');"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
