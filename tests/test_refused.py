"""What is refused: in one line, with nothing left behind, and at once if torch is not needed."""

import json
import re
import subprocess
import sys

import pytest
import test_compare
import test_ensemble_command
import test_lockstep_command
import test_quartic_command
import test_questions
from conftest import ROOT

REFUSED = {
    "compare": test_compare.BAD,
    "lockstep": test_lockstep_command.BAD,
    "questions": test_questions.BAD,
    "quartic": test_quartic_command.BAD,
    "ensemble": test_ensemble_command.BAD,
}
HEAVY = ("torch", "numpy", "tensorboard", "matplotlib", "tqdm")
# What torch alone knows, and what the user's own code does.
MAY = {
    "--device", "mine.py:nothing", "mine.py:slow", "mine.py:number", "mine.py:changes",
    "mine.py:ends",
}  # fmt: skip
NO_COMMAND = ("compra", "xyz")  # words in place of one
PROGRAM = f"""
import json, os, sys
from gdtorch.cli import COMMANDS, main
for command in COMMANDS:
    __import__(f"gdtorch.cli.{{command}}")
for arguments in json.load(sys.stdin):
    if os.fork() == 0:  # from a process in which none of it is loaded
        status = 0
        try:
            status = main(arguments)
        except SystemExit:  # of --help
            pass
        loaded = [name for name in {HEAVY} if name in sys.modules]
        os.write(1, f"{{json.dumps([status, loaded, arguments])}}\\n".encode())
        os._exit(0)
    os.wait()
"""


CASES = [(name, options) for name in REFUSED if name != "lockstep" for options in REFUSED[name]]


@pytest.mark.parametrize(("command", "options"), CASES)
def test_bad_input_gets_one_line_and_leaves_nothing(main, tmp_path, command, options):
    (tmp_path / "file").write_text("a file")
    named = [] if options in NO_COMMAND else [command]
    status, out, error = main(*named, *options.split())
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gdtorch: .*\n", error)
    assert REFUSED[command][options] in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Arguments → exit status, and what of the heavy had been loaded when it was told."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "file").write_text("a file")
    for name in ("mine", "theirs", "syntax", "raises"):
        (folder / f"{name}.py").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "bad.csv").write_text("a,y\n0,2\n")
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "mine.txt").write_text("")
    cases = [[command, *case.split()] for command, table in REFUSED.items() for case in table]
    cases = [case for case in cases if not MAY & set(case)]
    cases += [[command, "--help"] for command in REFUSED]
    cases += [["--help"], ["--table", "bad.csv"], ["--name", "taken"], ["compra"]]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(cases), cwd=folder,
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in result.stdout.splitlines() if line.startswith("[")]
    return {tuple(arguments): tuple(rest) for *rest, arguments in map(json.loads, lines)}


def test_bad_input_is_refused_before_anything_heavy_is_loaded(outcomes):
    refused = {arguments: loaded for arguments, (status, loaded) in outcomes.items() if status == 2}
    assert len(refused) > 90
    assert set(map(tuple, refused.values())) == {()}


def printed_by(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, gdtorch; print(*sys.modules)"
    assert not set(HEAVY) & set(printed_by(program).split())


@pytest.mark.slow
def test_the_public_names_draw_nothing():
    program = """
import sys, gdtorch
for name in gdtorch.__all__:
    getattr(gdtorch, name)
print("torch" in sys.modules, "matplotlib" in sys.modules)
"""
    assert printed_by(program) == "True False\n"


def test_without_torch_it_says_how_to_get_it(main, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    status, out, error = main("--steps", 1)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gdtorch: torch is not installed for .*; .* pip install -e \.\n", error)


def test_help_loads_nothing_heavy(outcomes):
    helps = [loaded for a, (status, loaded) in outcomes.items() if "--help" in a and status == 0]
    assert helps == [[]] * 6


@pytest.mark.parametrize("command", REFUSED)
def test_help_gives_an_example_and_each_default(main, capsys, command):
    with pytest.raises(SystemExit):
        main(command, "--help")
    out = capsys.readouterr().out
    assert re.search(rf"^example:\n  python train\.py ({command}|--)", out, re.MULTILINE)
    assert "None" not in out
