"""The README says what is so: its commands, examples, pictures, numbers and links."""

import doctest
import json
import re
import shlex

import pytest
import torch
from conftest import ROOT
from matplotlib.image import imread

from gdtorch import Manual, SigmoidNet, initial_weights, load_table
from gdtorch.ensemble import single

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = re.findall(r"^python train\.py .*", README, re.MULTILINE)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_two_commands_do_all_the_set_up():
    commands = [line for block in blocks("sh") for line in block.splitlines() if "venv" in line]
    assert [command.split(" && ")[-1] for command in commands] == ["python train.py", "pytest"]


def test_the_output_shown_is_the_output(main):
    _, out, _ = main()
    assert out.startswith(blocks("text")[0])


def shown_as(printed, out):
    return doctest.OutputChecker().check_output(printed, out, doctest.ELLIPSIS)


def test_the_wrong_line_is_found(capsys):
    source, printed = blocks("python")[0], blocks("text")[1]
    exec(source, {})
    out = capsys.readouterr().out
    assert shown_as(printed, out), out
    exec(source.replace("1 - z**2", "1 - h**2"), {})
    assert capsys.readouterr().out.startswith("cause: rounding\n")


def test_my_optimizer_is_tested():
    source, printed = blocks("python")[1], blocks("text")[2]
    names = {}
    exec(source, names)
    with pytest.raises(AssertionError) as caught:
        names["test_mine"]()
    assert shown_as(printed, f"AssertionError: {caught.value}\n"), caught.value
    exec(source.replace(', alpha=1 - group["momentum"]', ""), names)
    names["test_mine"]()


def test_every_command_shown_has_options_that_exist(main, monkeypatch):
    monkeypatch.setattr(single, "try_out", lambda _: "not here: it takes long")
    shown = [shlex.split(line, comments=True)[2:] for line in COMMANDS]
    ours = [words for words in shown if words[0] not in {"questions", "ensemble"}]
    assert len(ours) == len(shown) - 2 == 11
    for words in ours:
        status, _, error = main(*words, "--steps", 10)
        assert status == (words[0] == "lockstep") or "NAME" in error, error


@pytest.mark.slow
def test_the_stochastic_example_learns(main):
    (line,) = (line for line in COMMANDS if "stochastic" in line)
    facts = json.loads(main(*line.split("#")[0].split()[2:], "--json", "--log-every", 1000)[1])
    for trainer in facts["trainers"].values():
        assert trainer["rows_right"] == trainer["rows"] == 7
        assert trainer["loss"] < 0.01


@pytest.mark.slow
def test_pictures_are_what_the_commands_draw(main, tmp_path):
    """To a pixel in a thousand, for fonts and starts that rounding decides; measured: none."""
    for line in COMMANDS:
        words = line.split("#")[0].split()[2:]
        if words[0] in {"questions", "quartic", "ensemble"}:
            assert main(*words, "--name", words[0])[0] == 0
    drawn = {path.name: path for path in (tmp_path / "runs").glob("*/*.png")}
    shown = set(re.findall(r"docs/([\w-]+\.png)", README)) - {"dashboard-custom-scalars.png"}
    assert len(shown) == 3
    for name in shown:
        mine, theirs = (imread(path)[..., :3] for path in (ROOT / "docs" / name, drawn[name]))
        assert mine.shape == theirs.shape
        assert (abs(mine - theirs).max(axis=2) > 0.5).mean() < 0.001


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)", page.read_text()):
            assert (page.parent / "".join(link)).is_file(), (page, link)


def test_it_is_one_page_and_says_where_all_else_is():
    assert len(README.splitlines()) < 180
    pages = {path.name for path in (ROOT / "docs").glob("*.*") if path.suffix in {".md", ".ipynb"}}
    assert pages | {"exercises/README.md"} <= set(re.findall(r"\(docs/([^)]+)\)", README))


def test_pre_commit_and_ci_run_the_linters_that_contributing_names():
    hooks = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    for page in (CONTRIBUTING, (ROOT / ".ci" / "run").read_text()):
        assert re.findall(r"^(?:ruff|mypy) .*", page, re.MULTILINE) == hooks


@pytest.mark.slow
def test_shares_over_two_thousand_starts():
    """99.6 % learn all seven rows, 23 % answer the row held out: 2000 networks side by side."""
    table, count = load_table("post"), 2000
    net = SigmoidNet().double()
    syn0, syn1 = initial_weights(0, 0, count, 60).double().split([45, 15], dim=1)
    net.syn0.data, net.syn1.data = syn0.reshape(count, 3, 15), syn1.reshape(count, 15, 1)
    manual = Manual(net, table.learned, 1.0)
    for _ in range(1000):
        manual.step()
    with torch.no_grad():
        output = manual.objective(torch.cat([table.learned.inputs, table.held_out.inputs]))
    right = (output > 0.5) == torch.cat([table.learned.targets, table.held_out.targets]).bool()
    # To a start or two, whose outputs lie so near to ½ that rounding decides.
    assert abs(right[:, :7].all(dim=1).double().mean() - 0.996) <= 0.001
    assert abs(right[:, 7].double().mean() - 0.23) <= 0.005
