"""Bad input of every kind: refused in one line, run by nobody, and nothing left or lost."""

import contextlib
import csv
import gc
import io
import os
import random
import re
import signal
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import hostile
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gdtorch import SigmoidNet, figures, load_table, questions
from gdtorch.cli import COMMANDS, main
from gdtorch.ensemble import engine, single
from gdtorch.net import load_weights

COMMAND_LINES, MANY_COMMAND_LINES = 30, 2000  # of each command
TABLES, MANY_TABLES = 100, 5000
DAMAGED, MANY_DAMAGED = 150, 10_000  # files of weights
LONGEST = 300  # characters of a message about a table
PNG = b"\x89PNG\r\n\x1a\n"


def few_and_many(few, many):
    many = pytest.param(many, marks=pytest.mark.slow, id="many")
    return pytest.mark.parametrize("examples", [pytest.param(few, id="few"), many])


@pytest.fixture(scope="module", autouse=True)
def cheap():
    """Nothing is compiled or drawn, so that what is accepted takes milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Engine", partial(engine.Engine, compiled=False))
        patch.setattr(single, "compiled", lambda steps: steps)
        patch.setattr(figures, "png", lambda _: PNG)
        patch.setattr(figures, "quartic", lambda _: figures.Figure())
        patch.setattr(figures, "ensemble", lambda *_: figures.Figure())
        patch.setattr(questions, "answers", lambda *_: ())
        yield


def run(folder, *arguments):
    """The program, in a folder, on streams that take UTF-8 alone; status, output, errors."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["train.py"])
        patch.setattr(sys, "path", [*sys.path])
        status = main([*map(str, arguments)])
    for stream in streams:
        stream.seek(0)
    return status, *(stream.read() for stream in streams)


def contents(folder):
    """All that is below a folder: what lies where, and what it holds."""
    return {
        path: path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


def assert_refused(folder, *arguments):
    """In one line, without a trace; that line."""
    before = contents(folder)
    status, out, error = run(folder, *arguments)
    assert (status, out) == (2, ""), error
    assert re.fullmatch(r"gdtorch: [^\n]{1,2500}\n", error)
    assert error[:-1].isprintable()
    assert contents(folder) == before
    return error


# Command lines.


@few_and_many(COMMAND_LINES, MANY_COMMAND_LINES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_run_or_refused(command, examples):
    seen = set()

    @settings(max_examples=examples)
    @given(hostile.command_lines(command))
    def check(line):
        with TemporaryDirectory() as place:
            folder = Path(place, "a")  # so that ../x is in the place, too
            folder.mkdir()
            (folder / "t.csv").write_text("x,y\n1,0\n0,1\n")
            (folder / "mine.py").write_text("def f(): yield {'syn0': [[1.0]], 'syn1': [[2.0]]}\n")
            torch.save(SigmoidNet().double().state_dict(), folder / "w.pt")
            before = contents(Path(place))
            if {"-h", "--help"} & set(line):
                with contextlib.suppress(SystemExit):
                    run(folder, *line)
                return
            status, out, error = run(folder, *line)
            seen.add(status)
            assert status in ({0, 2, 3} if command in {"questions", "ensemble"} else {0, 1, 2, 3})
            assert "Traceback" not in error
            if status == 2:
                assert out == ""
                assert re.fullmatch(r"gdtorch: [^\n]+\n", error)
                assert error[:-1].isprintable()
                assert contents(Path(place)) == before

    check()
    assert 2 in seen
    assert seen & {0, 1}


WORDS = ["", " ", "compare ", "COMPARE", "日本", "\x1b[2J", "a\nb", "\ud800", "x" * 100_000, "/"]


@pytest.mark.parametrize("word", WORDS, ids=range(len(WORDS)))
def test_a_word_that_is_no_command_is_refused(tmp_path, word):
    assert "unknown command" in assert_refused(tmp_path, word)


@pytest.mark.parametrize("device", ["hpu", "privateuseone", "mkldnn", "mps", "lazy", "cuda:-1", ""])
def test_a_device_that_is_not_here_is_refused_in_a_sentence(tmp_path, device):
    assert len(assert_refused(tmp_path, "--device", device)) < 250


# Tables.


@few_and_many(TABLES, MANY_TABLES)
def test_a_table_is_finite_or_refused(tmp_path, monkeypatch, examples):
    monkeypatch.chdir(tmp_path)
    file, seen = Path("t.csv"), set()

    @settings(max_examples=examples)
    @given(hostile.tables() | st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
    def check(content):
        file.write_bytes(content)
        try:
            table = load_table("t.csv")
        except ValueError as error:
            words = str(error)
            assert words.isprintable()
            assert len(words) <= LONGEST
            seen.add("refused")
            return
        seen.add("read")
        assert all(numbers.isfinite().all() for numbers in (*table.learned, *table.held_out))
        _, *lines = filter(None, csv.reader(io.StringIO(file.read_text("utf-8-sig"), newline="")))
        numbers = r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*"
        assert all(re.fullmatch(numbers, cell, re.ASCII) for line in lines for cell in line)

    check()
    assert seen == {"read", "refused"}


@pytest.mark.parametrize("text", hostile.CSV, ids=range(len(hostile.CSV)))
def test_a_bad_cell_is_shown_in_short(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    error = assert_refused(tmp_path, "--table", "t.csv")
    assert hostile.CSV[text] in error
    assert len(error) < LONGEST


def test_what_other_programs_write_is_read(tmp_path):
    names = ",".join(f"x{i}" for i in range(9999))
    for text, inputs in {
        "a,y\r+1,1\r": [1.0],
        "inf,nan\n 1 ,1\n": [1.0],
        '"a","y"\n"-1e-3","1"\n': [-0.001],
        f"{names},y\n{'0,' * 9999}1\n": [0.0] * 9999,
    }.items():
        (file := tmp_path / "t.csv").write_text(text, newline="")
        assert load_table(str(file)).learned.inputs.tolist() == [inputs]


# Files that are none, and files of weights.


@pytest.fixture
def patience():
    """What hangs, or reads without end, fails."""
    before = signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
    signal.alarm(3)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("option", ["--init", "--table"])
@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "/dev/null", "folder", "link", "x" * 300])
def test_what_is_no_file_is_not_read(tmp_path, option, place):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("link")
    error = assert_refused(tmp_path, option, place)
    assert place in error
    assert re.search("not a file|Is a directory|Too many levels|too long", error)


@pytest.mark.parametrize("kind", hostile.FILES)
def test_a_hostile_file_of_weights_is_refused_and_not_run(tmp_path, kind):
    (tmp_path / "w.pt").write_bytes(hostile.FILES[kind])
    assert assert_refused(tmp_path, "--init", "w.pt").startswith("gdtorch: --init w.pt: ")


def test_the_archives_are_sound_but_for_what_is_wrong(tmp_path):
    for content in (hostile.archive(), hostile.archive(**{"data.pkl": hostile.weights_with()})):
        (tmp_path / "w.pt").write_bytes(content)
        load_weights(net := SigmoidNet().double(), str(tmp_path / "w.pt"))
        assert torch.equal(net.syn0, hostile.STATE["syn0"])


@few_and_many(DAMAGED, MANY_DAMAGED)
@pytest.mark.parametrize("new", [True, False], ids=["archive", "before it"])
def test_damaged_weights_are_finite_or_refused(tmp_path, new, examples):
    chance, seen, file = random.Random(0), set(), tmp_path / "w.pt"
    sound = hostile.saved(hostile.STATE, _use_new_zipfile_serialization=new)
    for _ in range(examples):
        content = bytearray(sound)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        at, length = chance.randrange(len(content)), chance.choice([0, 0, 8, 64])
        content[at : at + length] = chance.randbytes(chance.randint(0, length))
        whole = chance.random() < 0.7
        file.write_bytes(content if whole else content[: chance.randrange(len(content))])
        try:
            load_weights(net := SigmoidNet().double(), str(file))
        except ValueError as error:
            seen.add("refused")
            words = str(error)
            assert words.isprintable()
        else:
            seen.add("read")
            assert all(weight.isfinite().all() for weight in net.parameters())
    assert seen == {"read", "refused"}
    assert [*tmp_path.iterdir()] == [file]


# Names of a run, and links in its place.


@pytest.mark.parametrize("name", hostile.NAMES, ids=range(len(hostile.NAMES)))
def test_a_name_is_that_of_the_folder_or_refused(tmp_path, name):
    command = ["--quiet", "--steps", 1, "--trainers", "sgd", f"--name={name}"]
    if not hostile.NAMES[name]:
        assert "--name" in assert_refused(tmp_path, *command)
        return
    assert run(tmp_path, *command) == (0, "", "")
    assert os.listdir(tmp_path / "runs") == [name]  # noqa: PTH208 (as it is written)
    reader = EventAccumulator(str(tmp_path / "runs" / name / "sgd"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("loss")] == [0, 1]


@pytest.mark.parametrize("logdir", hostile.LOGDIRS, ids=range(len(hostile.LOGDIRS)))
def test_a_log_directory_is_made_or_refused(tmp_path, logdir):
    folder = tmp_path / "a"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("a file")
    os.mkfifo(folder / "pipe")
    links = {"lost": "x", "loop": "loop", "to file": "file", "to folder": "folder"}
    for link, target in links.items():
        (folder / link).symlink_to(target)
    command = ["--quiet", "--steps", 1, "--name=x", f"--logdir={logdir}"]
    if not hostile.LOGDIRS[logdir]:
        assert_refused(folder, *command)
        return
    assert run(folder, *command) == (0, "", "")
    assert list((folder / logdir / "x").glob("*.gdtorch"))


PARTS = {"compare": "sgd", "lockstep": "theirs", "quartic": "from_1", "ensemble": "blocks"}
LINKS = [
    (command, part, option)
    for command in COMMANDS
    for part in {"", PARTS.get(command, "")}
    for option in ["", "--overwrite", *["--resume"] * (command == "ensemble")]
]


@pytest.mark.parametrize(("command", "part", "option"), sorted(LINKS), ids=str)
def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path, command, part, option):
    """To a folder, then to nothing, then to a file."""
    (tmp_path / "mine.py").write_text("def f(): yield {'w': 1.0}\n")
    arguments = [command, *hostile.BASES[command], "--name", "x"]
    assert run(tmp_path, *arguments)[0] < 2
    place, earlier = (tmp_path / "runs" / "x" / part).resolve(), tmp_path / "earlier"
    place.rename(earlier)
    place.symlink_to(earlier)
    assert_refused(tmp_path, *arguments, *option.split())
    earlier.rename(tmp_path / "away")
    assert_refused(tmp_path, *arguments, *option.split())
    earlier.write_text("a file")
    assert_refused(tmp_path, *arguments, *option.split())


# Trajectories of users.

TRAJECTORIES = hostile.TRAJECTORIES | hostile.NAMED


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch of what it is asked to make
@pytest.mark.parametrize("other", ["sound", "itself"])
@pytest.mark.parametrize("what", TRAJECTORIES, ids=range(len(TRAJECTORIES)))
def test_a_trajectory_is_compared_or_refused_by_name(tmp_path, what, other):
    (tmp_path / "u.py").write_text(hostile.users_code("pass" if what in hostile.NAMED else what))
    name = f"u.py:{what if what in hostile.NAMED else 'f'}"
    both = [name, name] if other == "itself" else ["u.py:sound", name]
    status, out, error = run(tmp_path, "lockstep", *both, "--steps", 5, "--name", "x")
    assert "gdtorch/" not in error  # no frame of ours
    if TRAJECTORIES[what] is None:
        same = other == "itself" and "not finite" not in out  # as where all is nan in both
        assert (status, error) in ([(0, "")] if same else [(0, ""), (1, "")])
        assert "cause: " in out
        return
    assert (status, out) == (2, "")
    *theirs, last = error.splitlines()
    assert last.startswith(f"gdtorch: {name}")
    assert TRAJECTORIES[what] in last
    assert last.isprintable()
    assert bool(theirs) == (" raised " in last)
    assert not (tmp_path / "runs").exists()


def test_what_python_says_once_all_is_over_is_of_the_users_code_alone(tmp_path, monkeypatch):
    unraised = []
    monkeypatch.setattr(sys, "unraisablehook", unraised.append)
    body = "try:\n  while True: yield GOOD\n finally: raise ValueError('as it is closed')"
    (tmp_path / "u.py").write_text(hostile.users_code(body))
    status, out, error = run(tmp_path, "lockstep", "u.py:f", "u.py:f", "--steps", 5)
    assert (status, out[:16], error) == (0, "cause: identical", "")
    assert_refused(tmp_path, "lockstep", "u.py:coroutine", "u.py:f")
    gc.collect()  # which would tell of a coroutine that nobody has awaited
    frames = [each.exc_traceback for each in unraised]
    assert [frame.tb_frame.f_code.co_name for frame in frames] == ["f", "f"]
    assert not any(frame.tb_next for frame in frames)
