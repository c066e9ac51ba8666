"""docs/notebook.ipynb: its cells run in order, and give what is stored under them."""

import ast
import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.image import imread

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def execute(source, namespace):
    """Run a cell; the value of its last line, if that is an expression, as a notebook has it."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        exec(source, namespace)
        return None
    exec(compile(ast.Module(statements, []), "cell", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


def without_roundings(printed):
    """Without how many roundings a report speaks of, which a chip has its own share in."""
    return re.sub(r", to \S+ of rounding", ", to … of rounding", printed)


@pytest.fixture
def one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_cells_give_what_is_stored(one_folder, capsys):
    namespace, bars = {}, 0
    for cell in CODE:
        value = execute("".join(cell["source"]), namespace)
        out, bar = capsys.readouterr()
        streams = {o["name"]: "".join(o["text"]) for o in cell["outputs"] if "name" in o}
        assert without_roundings(out) == without_roundings(streams.get("stdout", ""))
        assert ("100%" in bar) == ("100%" in streams.get("stderr", ""))
        bars += "100%" in bar
        shown = [o["data"]["image/png"] for o in cell["outputs"] if "data" in o]
        assert len(shown) == (value is not None)
        for picture in shown:
            stored, drawn = (
                imread(io.BytesIO(png), format="png")
                for png in (base64.b64decode(picture), value._repr_png_())
            )
            assert stored.shape == drawn.shape
            # Fonts shift a few pixels from one release of Matplotlib's to the next.
            assert np.mean(np.abs(stored - drawn) > 0.5) < 0.001
    assert bars == 3
    assert {"post", "manual", "sgd"} <= {p.name for p in (one_folder / "runs/notebook").iterdir()}


def test_it_is_a_small_notebook_that_has_been_run_once_from_top_to_bottom():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert (ROOT / "docs" / "notebook.ipynb").stat().st_size < 200_000
    assert not any(output["output_type"] == "error" for cell in CODE for output in cell["outputs"])
