"""The examples in docstrings: each public name has one, and it prints what it says."""

import doctest

import pytest

import gdtorch

PUBLIC = {name: getattr(gdtorch, name) for name in gdtorch.__all__}


@pytest.mark.parametrize("name", gdtorch.__all__)
def test_each_public_name_has_an_example_that_holds(name, capsys):
    example, *of_methods = sorted(
        doctest.DocTestFinder().find(PUBLIC[name], name, globs=PUBLIC), key=lambda test: test.name
    )
    assert example.name == name
    assert example.examples
    for test in (example, *of_methods):
        failed, _ = doctest.DocTestRunner().run(test)
        assert failed == 0, capsys.readouterr().out
