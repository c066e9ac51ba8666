"""docs/exercises: lockstep finds the mistake of each; once it is mended, the two agree."""

import re

import pytest
from conftest import ROOT

FOLDER = ROOT / "docs" / "exercises"
PAGE = (FOLDER / "README.md").read_text()
ANSWERS = dict(re.findall(r"^\| (\w+)\.py \| `(.+)` \|$", PAGE, re.MULTILINE))
MENDED = {
    "mean": ("* x.T @ error", "* x.T @ error / len(x)", "* error.sum(0)", "* error.mean(0)"),
    "order": ('delta @ weights["w2"].T', "delta @ (weights['w2'] + lr * h.T @ delta).T"),
    "relu": ('weights["w2"].T', 'weights["w2"].T * (h > 0)'),
    "sigmoid": ("np.exp(-h)", 'np.exp(-(x @ weights["w1"] + weights["b1"]))'),
    "bias": ("back.mean(0)", "back.sum(0)"),
    "adam": (
        "lr * m / (np.sqrt(v) + eps)",
        "lr * m / (1 - beta1 ** len(record)) / (np.sqrt(v / (1 - beta2 ** len(record))) + eps)",
    ),
    "momentum": ("0.9 * v - lr * 2", "0.9 * v - 2", "w += v", "w += lr * v"),
    "loop": (
        "        torch.nn.functional.mse",
        "        model.zero_grad()\n        torch.nn.functional.mse",
    ),
    "targets": ("(model(x) - y)", "(model(x) - y[:, None])"),
    "classes": ("torch.softmax(model(x), dim=1)", "model(x)"),
}


def test_each_is_on_the_page_and_has_a_row_in_both_tables():
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert (
        files == {*ANSWERS} == {*MENDED} == {*re.findall(r"^\| \[(\w+)\.py\]", PAGE, re.MULTILINE)}
    )
    assert all(len((FOLDER / f"{name}.py").read_text().splitlines()) <= 45 for name in files)


def test_the_command_shown_runs(main):
    (command,) = re.findall(r"^python train\.py (.*)$", PAGE, re.MULTILINE)
    arguments = [word.replace("docs/", f"{ROOT}/docs/") for word in command.split()]
    status, out, _ = main(*arguments)
    assert (status, out.splitlines()[0]) == (1, f"cause: {ANSWERS['mean']}")
    assert "\nChange: " in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_its_mistake_is_found_and_mended(name, main, tmp_path):
    source = (FOLDER / f"{name}.py").read_text()
    (tmp_path / "a.py").write_text(source)
    status, out, _ = main("lockstep", "a.py:mine", "a.py:theirs")
    assert (status, out.splitlines()[0]) == (1, f"cause: {ANSWERS[name]}")
    head, theirs = source.split("def theirs")
    for old, new in zip(MENDED[name][::2], MENDED[name][1::2], strict=True):
        assert head.count(old) == 1
        head = head.replace(old, new)
    (tmp_path / "a.py").write_text(f"{head}def theirs{theirs}")
    status, out, _ = main("lockstep", "a.py:mine", "a.py:theirs")
    assert (status, out.partition("\n")[0] in {"cause: rounding", "cause: identical"}) == (0, True)
