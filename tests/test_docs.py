"""docs/lockstep.md: its programs run as printed and print what it says; its table is complete."""

import doctest
import re
import sys

import pytest
from conftest import ROOT

from gdtorch.explain import MEANING

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


def test_the_table_has_every_cause_and_no_other():
    causes = re.findall(r"^\| `([^`]+)` \|", PAGE.split("## The causes")[1], re.MULTILINE)
    assert sorted(causes) == sorted(["cause", "shape", *MEANING])
