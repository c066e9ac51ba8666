"""gdtorch.testing: docs/testing.md runs as printed, and finds the mistakes put into it."""

import doctest
import re

import pytest
import torch
from conftest import ROOT

import gdtorch.testing

pytest_plugins = ["pytester"]  # which runs pytest within a test

PAGE = (ROOT / "docs" / "testing.md").read_text()
OWN, OPTAX, BACKWARD, GRADIENT = re.findall(
    r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
)


def functions_of(source):
    names = {}
    exec(source, names)
    return [test for name, test in names.items() if name.startswith("test_")]


@pytest.mark.parametrize(
    "source",
    [OWN, pytest.param(OPTAX, marks=pytest.mark.slow), BACKWARD, GRADIENT],  # JAX loads slowly
    ids=["own", "optax", "backward", "gradient"],
)
def test_the_examples_pass(source):
    (test,) = functions_of(source)
    test()


MISTAKES = [
    (OWN, "add_(p.grad)", "add_(p.grad, alpha=0.1)", "0.1 times the gradient: 1 − momentum"),
    (OWN, 'alpha=group["lr"]', 'alpha=2 * group["lr"]', "cause: scale"),
    (OPTAX, "weight_decay=0.1)),", "weight_decay=0.2)),", "weight_decay 0.1, not 0.2"),
    (OPTAX, "weight_decay=0.1)),", "weight_decay=0.1, eps_root=1e-3)),", "cause: eps"),
    (BACKWARD, "(1 - h**2)", "(1 - (x @ w + b) ** 2)", "cause: derivative"),
    (GRADIENT, "(1 - h**2)", "(1 - (x @ weights['w'] + weights['b']) ** 2)", "cause: derivative"),
    (GRADIENT, "2 / y.size", "2 / len(y)", "has 2 times the gradient"),
    (GRADIENT, "delta.sum(0)", "delta.mean(0)", "0.05 times the gradient of b"),
    (BACKWARD, "b - lr * delta.sum(0)", "b - lr * delta.mean(0)", "cause: scale of one weight"),
]


@pytest.mark.parametrize(
    ("source", "right", "wrong", "words"),
    [
        pytest.param(*case, marks=pytest.mark.slow if number % 2 else [])
        for number, case in enumerate(MISTAKES)
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_mistake_is_told_by_the_assertion(source, right, wrong, words):
    assert right in source
    (test,) = functions_of(source.replace(right, wrong))
    with pytest.raises(AssertionError) as caught:
        test()
    assert words in str(caught.value)
    assert str(caught.value).startswith("cause: ")


@pytest.mark.slow
def test_other_defaults_change_nothing():
    torch.set_default_dtype(torch.float64)
    try:
        for source in (OWN, OPTAX, BACKWARD, GRADIENT):
            (test,) = functions_of(source)
            test()
        (test,) = functions_of(BACKWARD.replace("(1 - h**2)", "1"))
        with pytest.raises(AssertionError, match="cause: derivative"):
            test()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_under_pytest_the_report_is_what_is_shown(pytester, workers):
    pytester.makepyfile(test_mine=BACKWARD.replace("(1 - h**2)", "1"))
    run = pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess
    result = run("-q", "-p", "no:cacheprovider", "-n", str(workers))
    out = result.stdout.str()
    assert result.ret == 1
    assert "AssertionError: cause: derivative" in out
    assert "assert_lockstep(by_hand, by_torch)" in out
    assert "gdtorch/testing.py" not in out


@pytest.mark.parametrize("gradient", [(1.0,), None])
def test_a_gradient_without_names_is_refused(gradient):
    with pytest.raises(TypeError, match=r"gradient returns an object of type .*; it must return"):
        gdtorch.testing.assert_gradient(lambda _: gradient, lambda w: w["w"].sum(), {"w": [1.0]})


def test_the_example_of_the_docstring_holds():
    finder, both = doctest.DocTestFinder(), vars(gdtorch.testing)
    tests = [test for name in gdtorch.testing.__all__ for test in finder.find(both[name], name)]
    assert len(tests) == 2
    for test in tests:
        assert test.examples
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
