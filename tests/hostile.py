"""Hostile input: at random, and in tables: weights that run code, trajectories of users."""

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from importlib import import_module

import torch
from hypothesis import strategies as st

from gdtorch import SigmoidNet
from gdtorch.cli.options import Parser

# Command lines.

NUMERALS, TEXTS = (
    ["1", "2", "3", "10"],
    ["x", "a b", "cpu", "sgd", "manual", "xor", "t.csv", "w.pt"],
)
RULES = ["Adam", "adam", "SGD(lr=1)", "ASGD(lambd=-1)", "Rprop(etas=(.5,3))", "Adam(eps=1e999)"]
ODD = [
    *("", " ", "-", "--", "=", "0", "-1", "-1e-3", "nan", "inf", "-inf", "1e999", "1e308"),
    *("1_0", "٣", "1.5", "word", "a b", "a=b", "a=b=c", "日本", "%s", "../x", ".", "..", "t.csv/x"),
    *("9" * 30, "9" * 5000, "x" * 300, "x" * 100_000, "\x1b[31m", "\u202e", "a\nb", "a\0b"),
    *("\ud800", "\udcff", "--help", "-h", "mkldnn", "hpu", "mine.py:f", "builtin:x", ":", "x:y"),
]  # fmt: skip
BASES = {
    "compare": ["--steps", "2"],
    "lockstep": ["builtin:sgd", "mine.py:f", "--steps", "2"],
    "questions": [],
    "quartic": ["--from", "1", "--steps", "2"],
    "ensemble": ["--starts", "3", "--steps", "2"],
}
HARMLESS = st.text(st.characters(exclude_characters="/"), max_size=3)  # --logdir / is not


@st.composite
def command_lines(draw, command):
    """Options of the command's own parser, with values that fit and values that do not."""
    parser = Parser("train.py", "", import_module(f"gdtorch.cli.{command}").OPTIONS)
    line = list(BASES[command])
    for action in draw(st.lists(st.sampled_from(parser._actions), max_size=6)):
        kinds = RULES if action.dest == "optimizer" else NUMERALS if action.type else TEXTS
        good = st.sampled_from([*(action.choices or kinds)])
        words = st.one_of(good, good, good, st.sampled_from(ODD))
        count = 3 if action.nargs == "+" else 1 - (action.nargs == 0)
        least = draw(st.sampled_from([min(count, 1)] * 9 + [0]))  # now and then none
        values = draw(st.lists(words, min_size=least, max_size=count))
        flag = draw(st.sampled_from([*action.option_strings] or [""]))
        form = draw(st.sampled_from([*["as it is"] * 17, "with =", "abbreviated", "stray"]))
        if form == "with =":
            line.append(f"{flag}={''.join(values)}")
        elif form == "stray":
            line.append(draw(HARMLESS | st.sampled_from(ODD)))
        else:
            line += [flag[:-1] if form == "abbreviated" else flag, *values]
    return [command, *line] if command != "compare" or draw(st.booleans()) else line


# Tables, and what is said of some; names of runs and log directories, and whether they serve.

CELLS = st.sampled_from([
    *("", "0", "1", "0.5", "-1", ".5", "1e-3", " 1 ", "+1", "nan", "infinity", "1e999", "9" * 400),
    *("1_000", "٣", "１", "0x1", "1,5", "1;5", "=1+1", "@SUM(A1)", "-1+1", "+A1", "%", "held_out"),
    *("\0", "\ufeff", '"', '"a', 'a"b', "'", "\x1b[31m", "\u202e", "\u2028", "\r", "\n", "\t"),
    *("x" * 100_000, "x" * 200_000, "\0" * 1000),
])  # fmt: skip
DIGITS = st.sampled_from(["0", "1", "0.5", "1e-3"])


@st.composite
def tables(draw):
    """A table of numbers, and now and then something else in it."""
    columns = draw(st.integers(1, 4))
    lines = [list("abcd")[:columns]]
    lines += [[draw(DIGITS) for _ in range(columns)] for _ in range(draw(st.integers(0, 4)))]
    for _ in range(draw(st.integers(0, 3))):
        line = lines[draw(st.integers(0, len(lines) - 1))]
        line[draw(st.integers(0, 3)) :][:1] = [draw(CELLS | st.text(max_size=3))]
        at, until = sorted(draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))
        line[at : min(until, at + 1)] = [draw(CELLS | st.text(max_size=3))]
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    text = draw(st.sampled_from(["", "", "\ufeff"])) + end.join(map(",".join, lines))
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig"])))


CSV = {
    "a,y\n=1+1,1\n": "'=1+1' is not a finite number",
    "a,y\n@SUM(A1),1\n": "'@SUM(A1)' is not a finite number",
    "a,y\n1_000,1\n": "'1_000' is not a finite number",
    "a,y\n١٢,1\n": "'١٢' is not a finite number",
    "a,y\ninfinity,1\n": "'infinity' is not a finite number",
    "a,y\n1e999,1\n": "'1e999' is not a finite number",
    "a,y\n\x1b[31m,1\n": r"'\x1b[31m' is not a finite number",
    "\x1b[31m,y\nx,1\n": r"column '\x1b[31m': 'x' is not",
    f"{'n' * 100_000},y\nx,1\n": "...",
    f"{'n' * 100_000}\n1\n": "too few columns",
    f"a,y\n{'x' * 100_000},1\n": "...",
    f"a,y\n{'1' * 140_000},1\n": "field larger than field limit",
    ",".join(map(str, range(10_000))) + "\n" + "0," * 9999: "line 1 holds numbers",
    "a," * 9999 + "y\n": "rows of numbers under it",
    "a,y\n" + "0," * 9999 + "1\n": "line 2 has 10000 cells, the header has 2",
    'a,y\n"0,1\n0,1\n': "line 3 has 1 cells",
}
NAMES = {
    **dict.fromkeys(["...", " ", "a b", "a.", "-x", "日本", "😀", "é", "$(x)", "n" * 200], True),
    **dict.fromkeys(["..", "../x", "a/b", "a/", "/abs", ".", "./x", "", "a\nb", "a\0b"], False),
    **dict.fromkeys(["\x1b[31m", "\u202egnp", "\u200b", "\ud800", "\udcff", "n" * 300], False),
    **dict.fromkeys(["日" * 67, "\xa0", "\ufeff", "--"], False),
}  # fmt: skip
LOGDIRS = {
    **dict.fromkeys(["a/b/c", "日本 x", "-x", ".", "..", "x/../y", "to folder", "a\tb"], True),
    **dict.fromkeys(["", "file", "file/x", "pipe", "lost", "loop", "to file", "n" * 300], False),
    **dict.fromkeys(["n/" * 3000, "/dev/null/x", "a\0b", "\ud800"], False),
}

# Files of weights.


class Executes:
    """Unpickled without care, this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


class Calls:
    """Unpickled, it is what a function that torch trusts makes of these arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        return thing if isinstance(thing, tuple) and thing[:1] == ("storage",) else None


STATE = SigmoidNet().double().state_dict()


def saved(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def pickled(thing, protocol=2):
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(thing)
    return buffer.getvalue()


def weights_with(numel=45, offset=0, size=(3, 15), stride=(15, 1)):
    """A pickle of weights, the first of which claims to be what these say."""

    def tensor(key, *claims):
        storage = ("storage", torch.DoubleStorage, key, "cpu", claims[0])
        return Calls(torch._utils._rebuild_tensor_v2, storage, *claims[1:], False, OrderedDict())

    syn0, syn1 = tensor("0", numel, offset, size, stride), tensor("1", 15, 0, (15, 1), (1, 1))
    return pickled({"syn0": syn0, "syn1": syn1})


def archive(folder="archive/", more=(), compression=zipfile.ZIP_STORED, **replaced):
    """The weights as torch saves them, but for some of the files in its archive."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(STATE))) as sound,
        zipfile.ZipFile(buffer, "w", compression) as made,
    ):
        for name in sound.namelist():
            file = name.removeprefix("archive/")
            made.writestr(folder + file, replaced.get(file, sound.read(name)))
        for name in more:
            made.writestr(name, b"evil")
    return buffer.getvalue()


def tarred():
    buffer, content = io.BytesIO(), pickle.dumps(Executes())
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("../evil", "storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {
    **{f"pickle, {p}": pickle.dumps(Executes(), p) for p in range(6)},
    **{f"archive, {p}": archive(**{"data.pkl": pickled([Executes()], p)}) for p in range(6)},
    "before the archive was": saved(Executes(), _use_new_zipfile_serialization=False),
    "before that was": tarred(),
    "a program": archive(more=["archive/constants.pkl"], **{"data.pkl": pickled(Executes())}),
    "one more file": archive(more=["archive/code/evil.py", "archive/constants.pkl"]),
    "names that lead out": archive(more=["../evil"]),
    "a name that leads out": archive("../evil/", **{"data.pkl": b""}),
    "a terabyte": archive(**{"data.pkl": weights_with(10**12, 0, (10**6, 10**6), (10**6, 1))}),
    "a terabyte of little": archive(**{"data.pkl": weights_with(size=(10**6,) * 2)}),
    "a terabyte of one": archive(**{"data.pkl": weights_with(size=(10**6,) * 2, stride=(0, 0))}),
    "steps too long": archive(**{"data.pkl": weights_with(stride=(10**11, 1))}),
    "steps back": archive(**{"data.pkl": weights_with(offset=44, stride=(-15, -1))}),
    "from before": archive(**{"data.pkl": weights_with(offset=-5)}),
    "to beyond": archive(**{"data.pkl": weights_with(offset=40)}),
    "more than there is": archive(**{"data.pkl": weights_with(10**9)}),
    "less than none": archive(**{"data.pkl": weights_with(-1)}),
    "too short": archive(**{"data/0": bytes(8)}),
    "too long": archive(**{"data/0": bytes(8000)}),
    "ten terabytes of bytes": archive(**{"data.pkl": pickled(Calls(bytearray, 10**13))}),
    "small, and large": archive(compression=zipfile.ZIP_DEFLATED, **{"data.pkl": bytes(10**8)}),
    "deep": archive(**{"data.pkl": b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b"."}),
    "on no device": archive(**{"data.pkl": pickled(dict.fromkeys(STATE, Calls(
        torch._utils._rebuild_meta_tensor_no_storage, torch.float64, (3, 15), (15, 1), False
    )))}),
}  # fmt: skip


# Trajectories: a function each, and what the last line says of it. None: there is a report.

PREAMBLE = """
import sys
import numpy as np
import torch
from collections.abc import Mapping

GOOD = {"w": [1.0, 2.0]}

class Array:
    def __array__(self, *_, **__): raise ZeroDivisionError("on the way")
class Name:
    def __str__(self): raise ZeroDivisionError("on the way")
class Weights(Mapping):
    def __getitem__(self, _): raise ZeroDivisionError("on the way")
    def __iter__(self): return iter("ab")
    def __len__(self): return 2
class Silent(Exception):
    def __str__(self): raise RuntimeError
class Other(BaseException): pass
class Steps:
    def __iter__(self): return iter([GOOD] * 9)
class BadSteps:
    def __iter__(self): raise OSError("on the way")
class NoSteps:
    def __iter__(self): return 3
class Indexed:
    def __getitem__(self, _): return GOOD
class Empty: pass
async def asynchronous(): yield GOOD
async def coroutine(): return GOOD
def needs(argument): yield GOOD
constant = 3
def sound():
    for step in range(9): yield {"w": [0.5**step, 2.0]}
"""
MAPPING, NUMBERS, DENSE = (
    "where a mapping name → array",
    "is no array of numbers",
    "only dense real",
)
YIELDED = {
    **dict.fromkeys(["None", "3", "1j", "[]", "'abc'", "b'abc'", "{1.0}", "{}", "sys"], MAPPING),
    **dict.fromkeys(["np.ones(2)", "torch.ones(2)", "object()"], MAPPING),
    "Weights()": "cannot be read (ZeroDivisionError: on the way)",
    "{Name(): [1.0]}": "cannot be read (ZeroDivisionError: on the way)",
    "{1: [1.0], '1': [2.0]}": "two names are the same text",
    "{'a': {'b': 1.0}, 'a/b': 1.0}": "two names are the same text",
    "(lambda itself: itself.update(a=itself) or itself)({})": "cannot be read (RecursionError",
    **{f"{{'w': {array}}}": NUMBERS for array in (
        "None", "{'a': None}", "'abc'", "b'abc'", "{1.0}", "object()", "Array()", "10**400",
        "[[1.0], [1.0, 2.0]]", "np.ones(2, object)", "np.zeros(2, [('a', float)])",
        "np.ones(2, np.longdouble)", "np.ones(2).astype('M8[D]')", "GOOD.items()",
        "torch.nn.Linear(1, 1)", "torch.ones(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)",
        "(lambda itself: itself.append(itself) or itself)([])", "torch.ones", "Array",
    )},
    **{f"{{'w': {array}}}": DENSE for array in (
        "[]", "np.ones((2, 0))", "[1j]", "torch.ones(2) * 1j", "torch.ones(2).to_sparse()",
        "torch.ones(2, 2).to_sparse_csr()", "torch.ones(2, device='meta')",
        "torch.ones(2).to_mkldnn()",
        "torch._empty_affine_quantized([2], scale=1, dtype=torch.qint8)",
        "torch._nested_tensor_from_tensor_list([torch.ones(2), torch.ones(3)])",
        "torch._subclasses.FakeTensorMode().from_tensor(torch.ones(2))",
    )},
    **{f"{{'w': {array}}}": None for array in (
        "1.0", "[[[1]]]", "[True]", "2**60", "(1, 2)", "range(3)", "np.float16(1)",
        "[float('nan')]", "np.ma.masked_array([1.0, 2.0], [0, 1])", "np.ones(2, '>f8')",
        "np.ones(4)[::-2]", "np.broadcast_to(1.0, (3, 3))", "torch.ones(2).bfloat16()",
        "torch.ones(2).to(torch.float8_e4m3fn)", "torch.ones(2, dtype=torch.uint32)",
        "torch.nn.Parameter(torch.ones(2))", "torch.ones(2).expand(3, 2)", "[float('inf')]",
    )},
    **dict.fromkeys(["[1.0]", "[GOOD]", "(GOOD,)", "{'w': {'a': [1.0]}}", "GOOD.items()"]),
    **dict.fromkeys(["{None: [1.0]}", "{1: [1.0]}", "{'': [1.0]}", "{'a b': 1, 'a/b': 2}"]),
}  # fmt: skip
BODIES = {
    "raise ValueError('at once')": "raised ValueError",
    "raise StopIteration": "raised StopIteration",
    "raise KeyboardInterrupt": "raised KeyboardInterrupt",
    "raise Other": "raised Other",
    "sys.exit(0)": "raised SystemExit",
    "open('missing')": "raised FileNotFoundError",
    "return 'abc'": "use `yield` in a loop, not `return`",
    "return GOOD": "use `yield` in a loop, not `return`",
    "return [GOOD, None]": f"step 1 is an object of type NoneType, {MAPPING}",
    "return None": "takes 0 backward passes and no step of torch.optim, in the thread that called",
    "return GOOD.get": "() returns an object of type builtin_function_or_method",
    "return\n yield": "is empty",
    "return [GOOD] * 9": None,
    "return iter([GOOD])": "ended before its first step",
    "for _ in range(3): yield GOOD": None,
    "for _ in range(3): yield GOOD\n raise ValueError('two\\nlines')": "raised ValueError",
    **{f"yield GOOD\n raise {error}": f"raised {error.partition('(')[0]}" for error in (
        "Silent", "Other", "KeyboardInterrupt", "GeneratorExit", "SystemExit(0)", "MemoryError",
        "OSError(28, 'No space left')", "RuntimeError('out of memory')", "ConnectionError",
        "ExceptionGroup('two', [ValueError(1), ValueError(2)])", "UnicodeError", "Warning",
    )},
    "yield GOOD\n raise StopIteration": "raised RuntimeError",
    "yield GOOD\n def again(): again()\n again()": "raised RecursionError",
    "yield GOOD\n try: 1 / 0\n except ArithmeticError: raise KeyError('w')": "raised KeyError",
    "yield GOOD\n yield {'w': [1.0]}": "step 1: other weights or shapes than at step 0",
    "yield GOOD\n yield {'v': [1.0, 2.0]}": "step 1: other weights or shapes than at step 0",
    "yield GOOD\n yield {**GOOD, 'v': 1.0}": "step 1: other weights or shapes than at step 0",
    "yield GOOD\n yield None": f"step 1 is an object of type NoneType, {MAPPING}",
    "d = {'w': [1.0, 2.0]}\n yield d\n d['v'] = 2.0\n yield d": "other weights or shapes",
    "yield GOOD\n yield {'w': np.ones(2, np.float16)}\n yield {'w': [1, 2]}": None,
    "w = np.ones(2)\n while True: yield {'w': w}; w *= 0.5; w[:1] = 7": None,
    "print('x' * 100_000)\n yield GOOD\n print('y' * 100_000)\n yield GOOD": None,
}  # fmt: skip
NAMED = {  # what the preamble defines
    "Steps": None,
    "BadSteps": "raised OSError",
    "NoSteps": "raised TypeError",
    "Indexed": "() returns an object of type Indexed; it must yield weights",
    "Empty": "() returns an object of type Empty; it must yield weights",
    "asynchronous": "() returns an object of type async_generator; it must yield weights",
    "coroutine": "() returns an object of type coroutine; it must yield weights",
    "needs": "missing a required argument",
    "constant": "has no function constant",
    "GOOD": "has no function GOOD",
}
TRAJECTORIES = {
    f"for _ in range(4): yield {made}": words for made, words in YIELDED.items()
} | BODIES


def users_code(body):
    """A file with a function f of that body."""
    return f"{PREAMBLE}def f():\n {body}\n"
