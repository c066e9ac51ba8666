"""docs/lockstep.md: its programs run as printed and print what it says; its table is complete.

docs/reliability.md: the tests that it names are there, and do each fault as often as it says.
"""

import doctest
import re
import sys

import pytest
import test_faults
import torch
from conftest import ROOT

from gdtorch import lockstep
from gdtorch.lockstep.explain import MEANING

PAGE = (ROOT / "docs" / "lockstep.md").read_text()
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {m[1]: b for kind, b in BLOCKS if kind == "python" and (m := re.match(r"# (\w+\.py)", b))}
FIVE_LINES = [b for kind, b in BLOCKS if kind == "python" and not b.startswith("# ")]
WRONG_MEAN, RIGHT_SUM, AVERAGE = (b for kind, b in BLOCKS if kind == "text")


@pytest.mark.parametrize(
    ("five_lines", "change", "printed"),
    [
        (FIVE_LINES[0], ("", ""), WRONG_MEAN),
        (FIVE_LINES[0], (" / len(x)", ""), RIGHT_SUM),
        (FIVE_LINES[1], ("", ""), AVERAGE),
        (FIVE_LINES[1], ("lr=0.01, beta", "lr=0.1, beta"), RIGHT_SUM),
    ],
    ids=["a mean", "mended", "an average", "ten times lr"],
)
def test_from_symptom_to_cause(tmp_path, monkeypatch, capsys, five_lines, change, printed):
    assert len([line for line in five_lines.splitlines() if line]) <= 5
    for name, source in FILES.items():
        (tmp_path / name).write_text(source.replace(*change))
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    exec(five_lines, {})
    out = capsys.readouterr().out
    assert doctest.OutputChecker().check_output(printed, out, doctest.ELLIPSIS), out


def test_what_the_page_says_to_yield_of_a_module_can_be_read():
    (yields,) = re.findall(r"Yield what is trained, `([^`]+)`", PAGE)

    def train(lr):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        while True:
            yield eval(yields, {"model": model})
            model(torch.ones(4, 3)).square().sum().backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= lr * weight.grad
            model.zero_grad()

    report = lockstep(train(0.01), train(0.02), 5)
    assert (report.cause, set(report.weights)) == ("scale", {"weight", "bias"})


def test_the_table_has_every_cause_and_no_other():
    causes = re.findall(r"^\| `([^`]+)` \|", PAGE.split("## The causes")[1], re.MULTILINE)
    assert sorted(causes) == sorted(["cause", "shape", *MEANING])


RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
FAULTS = re.findall(r"^\| .* \| (.+?) \| .* \| (`test_.*) \|$", RELIABILITY, re.MULTILINE)
TESTS = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", RELIABILITY))))
def test_every_fault_told_of_has_its_test(name):
    assert f"\ndef {name}(" in TESTS


def test_faults_are_tried_as_often_as_is_said():
    told = [
        (how_often, mark.args[1][-1].values[0])
        for how_often, names in FAULTS
        for name in re.findall(r"`(test_\w+)`", names)
        for mark in getattr(getattr(test_faults, name, None), "pytestmark", ())
        if mark.args[:1] == ("times",)
    ]
    assert len(told) == 7
    for how_often, times in told:
        assert how_often == f"{times} times"
