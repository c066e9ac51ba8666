"""Tables: the post's rows, two classics, CSV files, and what is refused."""

import itertools

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdtorch import Rows, load_table


def test_post_table_is_the_posts():
    table = load_table("post")
    assert np.array_equal(table.learned.inputs.numpy(), reference.X)
    assert np.array_equal(table.learned.targets.numpy(), reference.Y)
    assert np.array_equal(table.held_out.inputs.numpy(), reference.HELD_OUT)
    assert table.held_out.targets.tolist() == [[1]]
    assert table.learned_labels == ("000", "001", "010", "011", "100", "101", "110")
    assert table.held_out_labels == ("111",)
    assert table.features == 3


@pytest.mark.parametrize(
    ("name", "bits", "rule"), [("xor", 2, lambda s: s % 2), ("parity3", 3, lambda s: s % 2)]
)
def test_classics_hold_every_row_and_hold_none_out(name, bits, rule):
    table = load_table(name)
    assert table.learned.inputs.tolist() == [
        list(map(float, row)) for row in itertools.product((0, 1), repeat=bits)
    ]
    assert all(
        y == rule(sum(x))
        for x, (y,) in zip(
            table.learned.inputs.tolist(), table.learned.targets.tolist(), strict=True
        )
    )
    assert table.held_out_labels == ()
    assert table.held_out.inputs.shape == (0, bits)


def test_to_changes_every_tensor_and_nothing_else():
    table = load_table("post").to(torch.float32)
    dtypes = {t.dtype for rows in (table.learned, table.held_out) for t in rows}
    assert dtypes == {torch.float32}
    assert table.learned_labels == load_table("post").learned_labels


def write(folder, text):
    path = folder / "table.csv"
    path.write_text(text)
    return str(path)


def test_csv_with_rows_held_out_in_any_column(tmp_path):
    table = load_table(write(tmp_path, "a, held_out ,b,y\n0,0,1,1\n\n1,1,1,0\n1,0,0,.5\n"))
    assert table.learned.inputs.tolist() == [[0, 1], [1, 0]]
    assert table.learned.targets.tolist() == [[1], [0.5]]
    assert table.held_out.inputs.tolist() == [[1, 1]]
    assert (table.learned_labels, table.held_out_labels) == (("01", "10"), ("11",))


def test_held_out_may_be_the_last_column(tmp_path):
    table = load_table(write(tmp_path, "a,y,held_out\n0.25,1,0\n0.5,0,1\n"))
    assert table.learned == Rows(*(t[:1] for t in table.learned))
    assert table.learned.targets.tolist() == [[1]]
    assert table.held_out.inputs.tolist() == [[0.5]]


@pytest.mark.parametrize(
    "text",
    ["a,b,y\n0,1,1\n0,1,0\n", "a,b,y\n0,2,1\n1,1,0\n", "a,b,y\n0.5,1,1\n1,1,0\n"],
    ids=["the same row twice", "a two", "a fraction"],
)
def test_rows_are_numbered_where_bits_cannot_name_them(tmp_path, text):
    assert load_table(write(tmp_path, text)).learned_labels == ("1", "2")


def test_a_byte_order_mark_and_crlf_are_read(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes("\ufeffa,y\r\n1,0\r\n".encode())
    assert load_table(str(path)).learned.inputs.tolist() == [[1]]


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1)), min_size=1, max_size=30))
def test_numbers_survive_the_csv(tmp_path_factory, rows):
    text = "x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows)
    table = load_table(write(tmp_path_factory.mktemp("csv"), text))
    assert table.learned.inputs.flatten().tolist() == [x for x, _ in rows]
    assert table.learned.targets.flatten().tolist() == [y for _, y in rows]


BAD = {
    "": "empty",
    "\n\n": "empty",
    "a,y\n": "rows of numbers under it",
    "a,y,held_out\n0,1,1\n": "no rows to learn",
    "y\n1\n": "at least one input",
    "y,held_out\n1,0\n": "at least one input",
    "a,y,Held_Out\n0,1,1\n": "no rows to learn",
    "a;b;y\n0;1;1\n": "separated by commas",
    "0,1\n1,0\n": "must name the columns",
    "a,1\n1,0\n": "line 1 holds numbers",
    "a,a,y\n0,0,0\n": "names a column twice",
    "a,y\n0\n": "line 2 has 1 cells, the header has 2",
    "a,y\n0,1\n0,1,1\n": "line 3 has 3 cells, the header has 2",
    "a,y\n0,one\n": "line 2, column 'y': 'one' is not a finite number",
    "a,y\nnan,1\n": "line 2, column 'a': 'nan' is not a finite number",
    "a,y\n-inf,1\n": "'-inf' is not a finite number",
    "a,y\n,1\n": "'' is not a finite number",
    "a,y\n0,1.5\n": r"the target is 1.5; it must lie in \[0, 1\]",
    "a,y\n0,-1\n": "the target is -1",
    "a,y,held_out\n0,1,2\n": "held_out is 2; it must be 0 or 1",
    "a,y\n\0,1\n": "line 2",
}


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_bad_csv_is_refused_with_the_reason(tmp_path, text):
    with pytest.raises(ValueError, match=BAD[text]):
        load_table(write(tmp_path, text))


def test_what_is_no_text_file_is_refused(tmp_path):
    binary = tmp_path / "weights.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not a CSV text file"):
        load_table(str(binary))
    with pytest.raises(ValueError, match="Is a directory"):
        load_table(str(tmp_path))
    with pytest.raises(ValueError, match="none of post, xor, parity3 and no such file"):
        load_table(str(tmp_path / "missing.csv"))
    with pytest.raises(ValueError, match="no table ''"):
        load_table("")
