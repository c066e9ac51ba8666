"""docs/lockstep.md: its programs run as printed and print what it says; its table is complete.

docs/reliability.md: the tests that it names are there, and do each fault as often as it says.
"""

import doctest
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import test_faults
import torch
from conftest import ROOT

from gdtorch import Recorder, lockstep
from gdtorch.lockstep.gradients import breaks
from gdtorch.lockstep.replaying.replay import options_of
from gdtorch.lockstep.report.explain import MEANING
from gdtorch.lockstep.search import candidates, parting, rates, screening, search
from gdtorch.optimizers import RULES

PAGE = (ROOT / "docs" / "lockstep.md").read_text()
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {m[1]: b for kind, b in BLOCKS if kind == "python" and (m := re.match(r"# (\w+\.py)", b))}
FIVE_LINES = [b for kind, b in BLOCKS if kind == "python" and b.endswith("print(report)\n")]
DERIVATIVE, AGREED, EPS = (b for kind, b in BLOCKS if kind == "text")


@pytest.mark.parametrize(
    ("five_lines", "change", "printed"),
    [
        (FIVE_LINES[0], ("", ""), DERIVATIVE),
        (FIVE_LINES[0], ("z**2", "h**2"), AGREED),
        (FIVE_LINES[1], ("", ""), EPS),
        (FIVE_LINES[1], ("+ eps)", "+ eps * np.sqrt(1 - b2**t))"), AGREED),
    ],
    ids=["a derivative", "mended", "eps", "PyTorch's eps"],
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


@pytest.mark.parametrize("given", re.findall(r"`'(mine.*?|builtin.*?)'`", PAGE))
def test_what_the_page_gives_to_functions_is_taken(tmp_path, main, given):
    for name, source in FILES.items():
        (tmp_path / name).write_text(source)
    _, out, error = main("lockstep", given, given, "--steps", 5)
    assert (out.partition("\n")[0], error) == ("cause: identical", "")


def test_the_loop_with_a_recorder_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (source,) = [b for kind, b in BLOCKS if kind == "python" and "record.save" in b]
    names = {"W1": np.ones((3, 4)), "b1": np.zeros(4)}
    exec(source.replace("...", "W1 *= 0.5"), names)
    assert len(Recorder.load("mine.npz")) == 101
    assert lockstep(names["record"], Recorder.load("mine.npz")).identical


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
    rows = re.findall(r"^\| (`.*?) \|", PAGE.split("## The causes")[1], re.MULTILINE)
    told = set(re.findall(r"`([^`]+)`", " ".join(rows))) - {"cause"}
    options = {
        option.partition("[")[0].replace("_", " ")
        for rule in RULES.values()
        for option in options_of(rule())
        if option not in candidates.CAUSES
    }
    modules = (candidates, rates, screening, search)
    source = "".join(Path(module.__file__).read_text() for module in modules)
    known = {"shape", *MEANING, *candidates.CAUSES.values(), *breaks.CAUSES, *parting.CAUSES}
    known |= {rates.SCALES}
    known |= set(re.findall(r'Candidate\(\s*"([a-z].*?)"', source))
    known |= set(re.findall(r'return "([a-z].*)"', source)) | {"decay outside the velocity"}
    assert known - told <= options  # of which the table names some
    assert told <= known | options


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
