"""`python train.py lockstep`: the user's own files, exit status, TensorBoard, what is refused."""

import json
import math
import re
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

# A linear layer, as somebody might write it in NumPy, and the same with torch.optim.SGD.
MINE = """
import numpy as np
x, y = np.array([[0., 1], [1, 0], [1, 1]]), np.array([[1.], [0], [2]])

def descend(momentum=0.0, factor=1.0):
    W = np.array([[0.5], [-0.25]])
    velocity = 0
    yield {"W": W}
    while True:
        gradient = factor * x.T @ (x @ W - y)
        velocity = momentum * velocity + gradient
        W -= 0.1 * velocity
        yield {"W": W}

def with_momentum(): return descend(momentum=0.9)
def doubled(): return descend(factor=2)
def ends(): return [{"W": [[0.5], [-0.25]]}]
def breaks():
    yield {"W": [[0.5], [-0.25]]}
    raise RuntimeError("my own mistake")
def changes():
    yield {"W": [[0.5], [-0.25]]}
    yield {"W": [[0.5]]}
def quits(): raise SystemExit("no")
def number(): return 3
slow = 7
"""
THEIRS = """
import torch
x, y = torch.tensor([[0., 1], [1, 0], [1, 1]]).double(), torch.tensor([[1.], [0], [2]]).double()

def descend():
    weight = torch.tensor([[0.5], [-0.25]], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    while True:
        yield {"weight": weight}
        optimizer.zero_grad()
        (((x @ weight - y) ** 2).sum() / 2).backward()
        optimizer.step()
"""
RENAME = ["--rename", "W=weight"]


@pytest.fixture(autouse=True)
def files(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "syntax.py").write_text("def descend(:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "notes.txt").write_text("")


def test_two_that_agree(main):
    status, out, error = main("lockstep", "mine.py:descend", "theirs.py:descend", *RENAME)
    assert (status, error) == (0, "")
    assert out.startswith("cause: ")
    assert re.match("cause: (rounding|identical)\n", out)


@pytest.mark.parametrize(
    "arguments",
    [
        "--rename W=weight mine.py:descend theirs.py:descend",
        "--rename W=weight mine.py:descend(factor=1.0) theirs.py:descend",
        "mine.py:descend --rename W=weight theirs.py:descend --steps 100",
        "--steps 100 --rename=W=weight mine.py:descend theirs.py:descend",
        "--rename W=w weight=w mine.py:descend theirs.py:descend",
        "--rename W=w mine.py:descend --rename weight=w theirs.py:descend",
    ],
)
def test_weights_are_renamed_wherever_it_stands(main, arguments):
    status, out, error = main("lockstep", *arguments.split())
    assert (status, error) == (0, "")
    assert re.match("cause: (rounding|identical)\n", out)


@pytest.mark.parametrize(
    ("function", "cause", "factor"), [("with_momentum", "momentum", 0.9), ("doubled", "scale", 2)]
)
def test_two_that_part(main, function, cause, factor):
    command = ["lockstep", f"mine.py:{function}", "theirs.py:descend", *RENAME, "--steps", 10]
    status, out, error = main(*command, "--json")
    facts = json.loads(out)
    assert (status, error) == (1, "")
    assert (facts["cause"], facts["agree"], facts["steps"]) == (cause, False, 10)
    assert facts["factor"] == pytest.approx(factor)
    assert facts["first_difference"]["weight"] == "weight"
    assert facts["text"] == main(*command)[1].rstrip("\n")


@pytest.mark.parametrize(
    ("mine", "theirs", "status"),
    [("manual", "sgd", 0), ("sgd", "sgd", 0), ("post", "sgd", 1)],
)
def test_gdtorchs_own_trainers(main, mine, theirs, status):
    assert main("lockstep", f"builtin:{mine}", f"builtin:{theirs}")[0] == status


@pytest.mark.parametrize(
    ("mine", "theirs", "cause"),
    [
        ("mine.py:descend(momentum=0.9)", "theirs.py:descend", "momentum"),
        ("mine.py:descend( factor = 2 )", "theirs.py:descend()", "scale"),
        ("builtin:manual(momentum=0.9, lr=0.5)", "builtin:sgd(lr=0.5, momentum=0.9)", "identical"),
        ("builtin:manual(momentum=0.9)", "builtin:sgd(nesterov=True, momentum=0.9)", "nesterov"),
        ("builtin:post(lr=0.1)", "builtin:sgd(lr=0.1)", "updated too early"),
    ],
)
def test_functions_take_literals(main, mine, theirs, cause):
    _, out, error = main("lockstep", mine, theirs, "--steps", 20)
    assert (out.splitlines()[0], error) == (f"cause: {cause}", "")


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        ("mine.py:descend(0.9)", "'descend(0.9)' is no call with named literals; write it as desc"),
        ("mine.py:descend(factor=1+)", "is no call with named literals; write it as descend(mom"),
        ("mine.py:descend(factor=open('x'))", "factor: write a literal, not an expression"),
        ("mine.py:descend(factor=1, factor=2)", "factor is given twice"),
        ("mine.py:descend(faktor=1)", "got an unexpected keyword argument 'faktor'"),
        ("mine.py:descend(momentum=0.9", "'descend(momentum=0.9' is no call with named literals"),
        ("builtin:sgd(momentun=0.9)", "SGD has no option momentun; the nearest is momentum"),
        ("builtin:manual(lr='1')", "lr='1' should be a number"),
        ("builtin:post(momentum=0.9)", "builtin:post has no option but lr"),
    ],
)
def test_other_arguments_are_refused(main, mine, words):
    status, out, error = main("lockstep", mine, "theirs.py:descend")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gdtorch: .*\n", error)
    assert words in error


def test_rows_and_lr_reach_the_report(main):
    _, out, _ = main("lockstep", "mine.py:doubled", "theirs.py:descend", *RENAME, "--rows", 2)
    assert "a sum over 2 rows" in out


def test_norms_and_differences_go_to_tensorboard(main, tmp_path):
    command = ["lockstep", "mine.py:doubled", "theirs.py:descend", *RENAME, "--steps", 5]
    status, out, _ = main(*command, "--name", "x")
    assert status == 1
    assert out.splitlines()[-2:] == [
        "To see it:  tensorboard --logdir runs/x",
        "then open   http://localhost:6006/#custom_scalars&_smoothingWeight=0",
    ]
    folder = tmp_path / "runs" / "x"
    readers = {part: EventAccumulator(str(folder / part)) for part in ("", "mine", "theirs")}
    for reader in readers.values():
        reader.Reload()
    logged = {"weight_norm/weight", "difference/weight", "difference_log10/weight"}
    assert set(readers["mine"].Tags()["scalars"]) == logged
    assert set(readers["theirs"].Tags()["scalars"]) == {"weight_norm/weight"}
    norms = [e.value for e in readers["theirs"].Scalars("weight_norm/weight")]
    assert norms[0] == pytest.approx(torch.tensor([0.5, -0.25]).norm().item())
    differences = readers["mine"].Scalars("difference/weight")
    assert [e.step for e in differences] == list(range(6))
    # The first update is doubled, so the difference is its largest element: 0.1 · |gradient|.
    assert differences[1].value == pytest.approx(0.1 * 3.0)
    logarithms = readers["mine"].Scalars("difference_log10/weight")
    assert logarithms[0].value == -20  # the same at first
    for distance, logarithm in zip(differences[1:], logarithms[1:], strict=True):
        assert logarithm.value == pytest.approx(math.log10(distance.value), abs=1e-5)  # in float32
    ends = {
        f"range/{tag}/weight/{end}"
        for tag in ("difference", "weight_norm")
        for end in ("least", "greatest")
    }
    assert set(readers[""].Tags()["scalars"]) == ends
    for part in ("", "mine", "theirs"):
        for tag in readers[part].Tags()["scalars"]:
            assert readers[part].SummaryMetadata(tag).summary_description
    assert "mine from theirs" in (
        readers["mine"].SummaryMetadata("difference/weight").summary_description
    )
    text = readers[""].Tensors("summary/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("cause: scale")
    assert main(*command, "--name", "x")[0] == 2
    assert "To see it" not in main(*command)[1]
    assert "To see it" not in main(*command, "--name", "y", "--json")[1]
    assert main(*command, "--name", "x", "--overwrite")[0] == 1


BAD = {
    "mine.py:descend": "required",
    "mine.py descend": "name a file and a function",
    "missing.py:f mine.py:descend": "there is no file missing.py",
    "notes.txt:f mine.py:descend": "no Python file",
    "mine.py:nothing mine.py:descend": "mine.py has no function nothing",
    "mine.py:slow mine.py:descend": "mine.py has no function slow",
    "mine.py:number mine.py:descend": "returns an object of type int; it must yield weights",
    "mine.py:ends mine.py:descend": "mine.py:ends ended before its first step; yield the weights",
    "mine.py:descend mine.py:ends": "mine.py:ends ended before its first step; yield the weights",
    "builtin:adam mine.py:descend": "there is post, manual, sgd",
    "mine.py:changes mine.py:descend": "step 1: other weights or shapes than at step 0",
    "mine.py:descend mine.py:descend --rename W": "write it as OLD=NEW",
    "--rename W mine.py:descend mine.py:descend": "'W': write it as OLD=NEW",
    "mine.py:descend mine.py:descend --rename W=a W=b": "names a weight twice; name it once",
    "mine.py:descend mine.py:descend --steps -1": "--steps: -1 is not 1 or more",
    "mine.py:descend mine.py:descend --lr nan": "not a finite number",
    "mine.py:descend mine.py:descend --overwrite": "--overwrite needs the --name",
}
USERS = {
    "mine.py:breaks mine.py:descend": ("my own mistake", "breaks"),
    "mine.py:quits mine.py:descend": ("SystemExit", "quits"),
    "syntax.py:descend mine.py:descend": ("SyntaxError", "syntax.py"),
    "raises.py:descend mine.py:descend": ("ZeroDivisionError", "raises.py"),
}


@pytest.mark.parametrize("named", ["", "--name x"], ids=["unnamed", "named"])
@pytest.mark.parametrize("arguments", BAD)
def test_what_cannot_be_used_is_refused_in_one_line(main, tmp_path, arguments, named):
    status, out, error = main("lockstep", *arguments.split(), *named.split())
    if "--overwrite" in arguments and named:
        return  # that is no mistake
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gdtorch: .*\n", error)
    assert BAD[arguments] in error
    runs = tmp_path / "runs"
    assert not runs.exists() or not any(runs.iterdir())


@pytest.mark.parametrize("arguments", USERS)
def test_an_exception_of_the_users_is_shown_with_its_own_traceback(main, tmp_path, arguments):
    status, out, error = main("lockstep", *arguments.split(), "--name", "x")
    assert (status, out) == (2, "")
    assert all(words in error for words in USERS[arguments])
    assert error.splitlines()[-1].endswith("; the traceback above is of that code")
    assert "gdtorch/cli" not in error
    runs = tmp_path / "runs"
    assert not runs.exists() or not any(runs.iterdir())


def test_an_interrupt_reports_what_was_seen(tmp_path):
    (tmp_path / "endless.py").write_text(
        textwrap.dedent("""
        import os, signal
        def descend(kill=True):
            for step in range(10**9):
                if step == 50 and kill:
                    os.kill(os.getpid(), signal.SIGINT)
                yield {"w": [float(step)]}
        def quiet(): return descend(kill=False)
        """)
    )
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "lockstep", "endless.py:descend",
         "endless.py:quiet", "--steps", "1000000"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 128 + signal.SIGINT
    assert result.stdout.startswith("cause: identical")
    last = result.stdout.splitlines()[-1]
    said = r"Compared: the first 5\d of 1000000 steps; the comparison was interrupted there\."
    assert re.fullmatch(said, last)
    assert re.fullmatch(r"gdtorch: interrupted \(SIGINT\) after step 5\d\n", result.stderr)


@pytest.mark.parametrize("name", ["weight", "a.b (c)/d*"])
def test_charts_of_each_weight_stand_under_the_cause(main, tmp_path, name):
    (tmp_path / "two.py").write_text(
        f"def mine(): return [{{{name!r}: [0.0]}}, {{{name!r}: [0.25]}}, {{{name!r}: [0.5]}}]\n"
        f"def theirs(): return [{{{name!r}: [0.0]}}, {{{name!r}: [0.5]}}, {{{name!r}: [1.0]}}]\n"
    )
    _, out, _ = main("lockstep", "two.py:mine", "two.py:theirs", "--name", "x", "--steps", 2)
    tags = set()
    for part in ("", "mine", "theirs"):
        reader = EventAccumulator(str(tmp_path / "runs" / "x" / part))
        tags |= set(reader.Reload().Tags()["scalars"])
        if part == "":
            proto = reader.Tensors("custom_scalars__config__")[0].tensor_proto
    agree, norms = layout_pb2.Layout.FromString(proto.string_val[0]).category
    assert agree.title == f"Do they agree? ({out.splitlines()[0]}; the report is on the Text page)"
    assert out.startswith("cause: ")
    shown = [
        {tag.removesuffix(f"/{name}") for tag in tags if re.match(chart.multiline.tag[0], tag)}
        for chart in (*agree.chart, *norms.chart)
    ]
    ends = [
        {f"range/{tag}/{name}/{end}" for end in ("least", "greatest")}
        for tag in ("difference", "weight_norm")
    ]
    assert shown == [{"difference", *ends[0]}, {"difference_log10"}, {"weight_norm", *ends[1]}]


def test_a_dashboard_that_is_open_sees_the_run_under_way(main, tmp_path):
    (tmp_path / "watched.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        def descend():
            for step in range(4):
                yield {"w": [float(step)]}
                (log,) = Path("runs/x/mine").glob("*tfevents*")
                print(log.stat().st_size)
        """)
    )
    _, out, _ = main("lockstep", "watched.py:descend", "watched.py:descend", "--name", "x")
    sizes = [int(line) for line in out.splitlines() if line.isdigit()]
    assert sizes[0] > 40  # more than the line that every event file begins with
    assert sizes[::2] == sorted(set(sizes))  # each step adds to it; both functions tell


def test_neighbours_of_the_same_name_are_two(main, tmp_path):
    for folder, lr in (("a", 0.1), ("b", 0.2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(f"LR = {lr}\n")
        (tmp_path / folder / "run.py").write_text(
            "import model\ndef f():\n"
            "    w = [1.0, 2.0]\n"
            "    while True:\n"
            "        yield {'w': w}\n"
            "        w = [x - model.LR * x * x for x in w]\n"
        )
    status, out, _ = main("lockstep", "a/run.py:f", "b/run.py:f")
    assert status == 1
    assert "0.5 times theirs" in out


def test_a_file_may_bear_the_name_of_what_gdtorch_imports(tmp_path):
    (tmp_path / "random.py").write_text("def f(): return [{'w': [1.0]}] * 2\n")
    command = [sys.executable, str(ROOT / "train.py"), "lockstep", "random.py:f", "random.py:f"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
