"""`python train.py quartic`: what it prints, what it logs, how it ends when x runs away."""

import json
import re
import subprocess
import sys
from fractions import Fraction

import matplotlib.image
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from gdtorch import figures

STARTS = ["-1", "0.9", "1", "1.1", "3"]
PNG = b"\x89PNG\r\n\x1a\n"
DRAWN = figures.png
EXAMPLE = ["--from", *STARTS, "--lr", "0.1", "--steps", "200"]


@pytest.fixture
def main(main, monkeypatch):
    """The program, with no time spent on drawing."""
    monkeypatch.setattr(figures, "png", lambda _: PNG)
    return main


def read(folder):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    return reader


def facts(main, *options):
    status, out, error = main("quartic", "--json", *options)
    return status, json.loads(out, parse_constant=pytest.fail)["starts"], error


def numpys(x, lr, steps):
    """The post's f′ = x(x − 1)(x − 2), followed in NumPy."""
    path = [x]
    for _ in range(steps):
        x = x - lr * x * (x - 1) * (x - 2)
        path.append(x)
    return np.array(path)


def test_the_issues_example(main, tmp_path):
    status, out, error = main("quartic", *EXAMPLE, "--name", "x")
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "f(x) = x⁴/4 − x³ + x², float64; 200 steps of descent at lr 0.1"
    table = [re.split(r"\s{2,}", line) for line in lines[3:8]]
    ends = {"-1": 0, "0.9": 0, "1": 1, "1.1": 2, "3": 2}
    for start, x, f, second, kind, step in table:
        end = ends[start]
        assert (x, f) == (f"{end:.6f}", f"{float(Fraction(end**4, 4) - end**3 + end**2):.6f}")
        assert (second, kind) == (("-1.00", "maximum") if end == 1 else ("2.00", "minimum"))
        path = numpys(float(start), 0.1, 200)
        at_rest = np.abs(path * (path - 1) * (path - 2)) <= 1e-9
        assert int(step) == np.argmax(at_rest)
    assert "from 1: the gradient is zero, on a maximum, so no step moves x" in lines
    assert "manual = sgd: the same bits of x after each step, from every start" in lines
    assert str(tmp_path / "runs" / "x" / "quartic.png").endswith(lines[-3].split()[-1])


def test_each_start_is_a_run_in_tensorboard(main, tmp_path):
    main("quartic", *EXAMPLE, "--name", "x", "--quiet")
    folder = tmp_path / "runs" / "x"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        f"from_{s}" for s in STARTS
    }
    for start in STARTS:
        reader = read(folder / f"from_{start}")
        assert set(reader.Tags()["scalars"]) == {"loss", "x", "gradient", "difference/x"}
        values = {tag: [e.value for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
        assert [e.step for e in reader.Scalars("x")] == list(range(201))
        path = numpys(float(start), 0.1, 200)
        # 200 steps, each right to a few eps of numbers below 3, then rounded to float32.
        np.testing.assert_allclose(values["x"], path, rtol=1e-7, atol=1e-13)
        np.testing.assert_allclose(
            values["loss"], path**4 / 4 - path**3 + path**2, rtol=1e-6, atol=1e-13
        )
        np.testing.assert_allclose(
            values["gradient"], path * (path - 1) * (path - 2), rtol=1e-6, atol=1e-13
        )
        assert not any(values["difference/x"])


def test_every_start_is_within_the_scale(main, tmp_path):
    """TensorBoard's leaves out what is beyond the 5th and 95th percentile of a chart's points."""
    main("quartic", *EXAMPLE, "--name", "x", "--quiet")
    folder = tmp_path / "runs" / "x"
    whole = read(folder)
    for tag in ("x", "loss", "gradient"):
        readers = [(tag, read(folder / f"from_{start}")) for start in STARTS]
        readers += [(f"range/{tag}/{end}", whole) for end in ("least", "greatest")]
        points = [event.value for name, reader in readers for event in reader.Scalars(name)]
        assert np.quantile(points, [0.05, 0.95]).tolist() == [min(points), max(points)]
    assert "leaves out" in whole.SummaryMetadata("range/x/least").summary_description


def test_the_scale_is_not_that_of_a_start_that_runs_away(main, tmp_path):
    main("quartic", "--from", "3", "10", "--lr", "0.2", "--steps", "9", "--name", "x", "--quiet")
    (greatest, *_) = read(tmp_path / "runs" / "x").Scalars("range/x/greatest")
    assert greatest.value == 3


def test_charts_say_what_they_show(main, tmp_path):
    main("quartic", "--from", "3", "--descent", "steepest", "--name", "x", "--quiet")
    reader = read(tmp_path / "runs/x/from_3")
    said = {tag: reader.SummaryMetadata(tag) for tag in reader.Tags()["scalars"]}
    assert set(said) == {"loss", "x", "gradient", "difference/x", "step_size"}
    assert all(metadata.summary_description for metadata in said.values())
    assert "f′(x) = x (x − 1) (x − 2)" in said["gradient"].summary_description
    whole = read(tmp_path / "runs/x")
    assert whole.SummaryMetadata("quartic").summary_description
    proto = whole.Tensors("custom_scalars__config__")[0].tensor_proto
    layout = layout_pb2.Layout.FromString(proto.string_val[0])
    patterns = [chart.multiline.tag[0] for group in layout.category for chart in group.chart]
    shown = [[tag for tag in said if re.fullmatch(pattern, tag)] for pattern in patterns]
    assert sorted(shown) == sorted([tag] for tag in said)  # one curve a chart, and each somewhere


def test_the_picture_is_a_file_and_in_tensorboard(main, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "png", DRAWN)
    main("quartic", "--from", "-1", "3", "--name", "x", "--quiet")
    folder = tmp_path / "runs" / "x"
    (event,) = read(folder).Images("quartic")
    assert event.encoded_image_string == (folder / "quartic.png").read_bytes()
    image = matplotlib.image.imread(folder / "quartic.png")
    assert image.shape[:2] == (1600, 1400)
    assert image.std() > 0.05  # something is drawn


def test_steepest_logs_its_step_sizes(main, tmp_path):
    options = ["--from", "-1", "3", "--descent", "steepest", "--steps", 3, "--name", "x"]
    _, starts, _ = facts(main, *options)
    assert [start["at_rest_after"] for start in starts.values()] == [1, 1]
    sizes = read(tmp_path / "runs/x/from_3").Scalars("step_size")
    assert [e.step for e in sizes] == [1, 2, 3]
    assert sizes[0].value == np.float32(1 / 6)  # from 3, where f′ is 6, to 2


def test_up_the_slope_the_inner_starts_find_the_maximum_and_the_outer_run_away(main, tmp_path):
    status, out, error = main("quartic", *EXAMPLE, "--maximize", "--name", "x")
    assert status == 3
    assert error == (
        "gdtorch: x ran away from -1 (after step 5) and 3 (after step 5): f rises without end "
        "outside [0, 2]; all until then is in runs/x\n"
    )
    assert "200 steps of ascent" in out
    assert len(re.findall(r"^(?:0\.9|1|1\.1) +1\.000000 .* maximum", out, re.MULTILINE)) == 3
    assert len(re.findall(r"^(?:-1|3) +ran away", out, re.MULTILINE)) == 2
    assert "nan" not in out.lower() + error
    for start in ("-1", "3"):
        values = [e.value for e in read(tmp_path / "runs/x" / f"from_{start}").Scalars("loss")]
        assert len(values) == 6
        assert np.isfinite(values).all()


def test_a_step_too_long_runs_away_as_well(main):
    status, starts, error = facts(main, "--from", "3", "1", "--lr", "2")
    assert status == 3
    assert "x ran away from 3 (after step 2): a smaller --lr may help" in error
    assert (starts["3"]["ran_away"], starts["1"]["ran_away"]) == (True, False)


def test_steepest_ascent_goes_as_far_as_it_may(main):
    status, starts, error = facts(main, "--from", "0.9", "1", "--maximize", "--descent", "steepest")
    assert status == 3
    assert "x ran away from 0.9 (after step 0)" in error
    assert starts["1"]["kind"] == "maximum"


def test_a_start_that_is_not_done_is_still_moving(main):
    status, out, _ = main("quartic", "--from", "0.9", "--steps", 2)
    assert status == 0
    where = f"{numpys(0.9, 0.1, 2)[-1]:.6f}"
    assert re.search(rf"^0\.9 +not at rest: {where} +\S+ +\S+ +neither", out, re.MULTILINE)


def test_a_point_that_is_left_again_does_not_count_as_rest(main):
    """Beside the maximum f′ is small at first; it is the end that counts."""
    _, starts, _ = facts(main, "--from", "1.0000000001", "--steps", 500)
    (start,) = starts.values()
    assert (start["kind"], start["x"]) == ("minimum", pytest.approx(2, abs=1e-9))
    assert start["at_rest_after"] > 200


def test_overwrite_takes_away_all_that_it_wrote(main, tmp_path):
    main("quartic", "--from", "-1", "3", "--name", "x", "--quiet")
    assert main("quartic", "--from", "1", "--name", "x", "--quiet", "--overwrite") == (0, "", "")
    names = {path.name for path in (tmp_path / "runs" / "x").iterdir()}
    assert {name for name in names if "tfevents" not in name} == {"from_1", "quartic.png"}


def test_starts_named_one_by_one_all_run(main):
    _, starts, _ = facts(main, "--from", "3", "--from", "1")
    assert list(starts) == ["3", "1"]


def test_help_speaks_of_no_rows_where_there_are_none(main, capsys):
    with pytest.raises(SystemExit):
        main("quartic", "--help")
    assert "row" not in capsys.readouterr().out


BAD = {
    "": "required: --from",
    "--from 1 --from 1": "--from names a start twice; name it once",
    "--from": "--from: expected at least one argument",
    "--from nan": "--from: 'nan' is not a finite number",
    "--from x": "--from: 'x' is not a number",
    "--from 1 2 1.0": "--from names a start twice; name it once",
    "--from 0 -0": "--from names a start twice",
    "--from 1e7": "--from 10000000 is too far out; stay within ±1e+06",
    "--from " + " ".join(map(str, range(15))): "--from takes up to 14 starts; these are 15",
    "--from 1 --descent stochastic": "--descent: invalid choice: 'stochastic'",
    "--from 1 --descent steepest --lr 0.1": "finds its own step sizes; leave out --lr",
    "--from 1 --steps 0": "--steps: 0 is not 1 or more",
    "--from 1 --momentum 0.9": "unknown argument --momentum",
    "--from 1 --overwrite": "--overwrite needs the --name",
}


@pytest.mark.slow
def test_starts_as_far_out_as_is_allowed(main):
    status, starts, _ = facts(main, "--from", "1e6", "-1e6", "-1e-50", "--descent", "steepest")
    assert status == 0
    assert all(start["identical"] for start in starts.values())
    assert {start["kind"] for start in starts.values()} == {"minimum"}


@pytest.mark.slow
def test_without_quartic_nothing_loads_matplotlib(tmp_path):
    program = "import sys; from gdtorch.cli import main; main(['--quiet', '--steps', '2'])\n"
    program += "print('matplotlib' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_a_start_that_leaves_a_maximum_late_is_at_rest_late(main):
    _, out, _ = main("quartic", "--from", "1.0000000000000002", "--descent", "steepest", "--json")
    (walk,) = json.loads(out)["starts"].values()
    assert (walk["x"], walk["at_rest_after"]) == (2.0, 1)


def test_a_gradient_that_rounds_to_zero_is_not_called_zero(main):
    _, out, _ = main("quartic", "--from", "1e-300")
    assert "from 1e-300: the gradient rounds to zero, on a minimum" in out
