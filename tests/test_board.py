"""What TensorBoard shows, read back by TensorBoard's own reader."""

import re
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from gdtorch import SGD, Board, Rows, SigmoidNet, load_table
from gdtorch.board import events
from gdtorch.board.measure import DESCRIPTIONS, layout, measure

ALL = {"scalars": 0, "histograms": 0, "tensors": 0}
BITS = ["000", "001", "010", "011", "100", "101", "110"]
SCALARS = {
    "loss",
    "accuracy",
    "held_out/loss",
    "held_out/111",
    *(f"prediction/{bits}" for bits in BITS),
    *(f"{kind}_norm/{weight}" for kind in ("gradient", "weight") for weight in ("syn0", "syn1")),
}
DIFFERENCES = {"difference/syn0", "difference/syn1"}
LOGARITHMS = {"difference_log10/syn0", "difference_log10/syn1"}


def read(folder):
    reader = EventAccumulator(str(folder), size_guidance=ALL)
    reader.Reload()
    return reader


def scalars(reader, tag):
    """Steps and values of a tag, as TensorBoard has them: float32."""
    events = reader.Scalars(tag)
    return [e.step for e in events], np.array([e.value for e in events], np.float32)


def logged(main, tmp_path, *options):
    status, _, error = main("--quiet", "--name", "x", *options)
    assert (status, error) == (0, "")
    return tmp_path / "runs" / "x"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The default run, as TensorBoard reads it: trainer → reader, "" → the comparison."""
    from gdtorch.cli import main

    logdir = tmp_path_factory.mktemp("logs")
    assert main(["--quiet", "--logdir", str(logdir), "--name", "run"]) == 0
    folder = logdir / "run"
    readers = {name: read(folder / name) for name in ("post", "manual", "sgd")}
    return {"": read(folder), **readers, "folder": folder}


def descend(steps):
    """Weights after each step of torch.optim.SGD, without gdtorch: from the run's own start."""
    from gdtorch import SigmoidNet  # for the initial weights alone

    syn0, syn1 = (w.detach().double().requires_grad_() for w in SigmoidNet().parameters())
    x, y = torch.tensor(reference.X), torch.tensor(reference.Y)
    optimizer = torch.optim.SGD([syn0, syn1], lr=1.0)
    for _ in range(steps + 1):
        yield syn0.detach().numpy().copy(), syn1.detach().numpy().copy()
        optimizer.zero_grad()
        output = torch.sigmoid(torch.sigmoid(x @ syn0) @ syn1)
        (((output - y) ** 2).sum() / 2).backward()
        optimizer.step()


def measured(syn0, syn1):
    """Tag → value at these weights, in NumPy."""
    output = reference.output(reference.X, syn0, syn1)
    held_out = reference.output(reference.HELD_OUT, syn0, syn1)
    gradient = dict(zip(("syn0", "syn1"), reference.gradient(syn0, syn1), strict=True))
    return {
        "loss": np.sum((reference.Y - output) ** 2) / 2,
        "accuracy": np.mean((output > 0.5) == (reference.Y > 0.5)),
        "held_out/loss": np.sum((1 - held_out) ** 2) / 2,
        "held_out/111": held_out.item(),
        **{f"prediction/{b}": o.item() for b, o in zip(BITS, output, strict=True)},
        **{f"gradient_norm/{n}": np.sqrt(np.sum(g**2)) for n, g in gradient.items()},
        "weight_norm/syn0": np.sqrt(np.sum(syn0**2)),
        "weight_norm/syn1": np.sqrt(np.sum(syn1**2)),
    }


def test_every_tag_at_every_step(run):
    for trainer in ("post", "manual", "sgd"):
        wanted = SCALARS | (DIFFERENCES | LOGARITHMS if trainer != "sgd" else set())
        assert set(run[trainer].Tags()["scalars"]) == wanted
        for tag in wanted:
            assert scalars(run[trainer], tag)[0] == list(range(1001))


def test_lines_hold_every_point_that_the_scale_would_leave_out(run):
    """Of a chart's points, by default, it leaves out those beyond the 5th and 95th percentile."""
    assert set(run[""].Tags()["scalars"]) == {
        f"range/{tag}/{end}"
        for tag in ("loss", "accuracy", "held_out/loss")
        for end in ("least", "greatest")
    }
    for chart in layout_of(run[""]).category[1].chart:
        points = np.concatenate(
            [
                scalars(reader, tag)[1]
                for reader in (run[name] for name in ("", "post", "manual", "sgd"))
                for tag in reader.Tags()["scalars"]
                if re.match(chart.multiline.tag[0], tag)
            ]
        )
        held = np.quantile(points, [0.05, 0.95])
        assert held.tolist() == [points.min(), points.max()], chart.title
    for end in ("least", "greatest"):
        assert scalars(run[""], f"range/loss/{end}")[0][:: 400 // 4] == [0, 250, 500, 750, 1000]
    assert "leaves out" in run[""].SummaryMetadata("range/loss/least").summary_description


def test_what_is_not_finite_is_no_end(tmp_path):
    with events.event_files(tmp_path, ["a"], {}) as files:
        for x in (np.nan, 2.0, np.inf, 1.0, 3.0, -np.inf):
            files["a"].add_scalars({"x": x}, 0)
        events.show_ranges(files, ["x", "y"], 0)
    whole = read(tmp_path)
    ends = {tag: scalars(whole, tag)[1].tolist() for tag in whole.Tags()["scalars"]}
    assert ends == {"range/x/least": [1.0], "range/x/greatest": [3.0]}


def test_manual_never_differs_and_post_does_from_the_first_step(run):
    for tag in DIFFERENCES:
        assert not scalars(run["manual"], tag)[1].any()
        _, values = scalars(run["post"], tag)
        assert values[0] == 0
        assert values[2:].all()


def test_the_logarithm_shows_a_last_bit_beside_the_rest_and_stops_at_1e_20(run):
    for tag in DIFFERENCES:
        logarithm = tag.replace("difference", "difference_log10")
        assert (scalars(run["manual"], logarithm)[1] == -20).all()
        differences = scalars(run["post"], tag)[1].astype(np.float64)
        shown = scalars(run["post"], logarithm)[1]
        assert shown[0] == -20
        # Both are rounded to float32: the difference by 6e-8 of itself, the logarithm by 2e-6.
        np.testing.assert_allclose(shown[2:], np.log10(differences[2:]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("trainer", ["manual", "sgd"])
def test_scalars_are_those_of_torchs_sgd_measured_in_numpy(run, trainer):
    expected = [measured(*weights) for weights in descend(1000)]
    for tag in SCALARS:
        values = scalars(run[trainer], tag)[1]
        # NumPy's sums and products may round the sixteenth digit otherwise, and so, once in a
        # hundred million, the float32 that is nearest.
        wanted = np.array([row[tag] for row in expected], np.float32)
        np.testing.assert_array_max_ulp(values, wanted, maxulp=1)


def test_scalars_of_post_are_those_of_numpys_loop(run):
    syn0, syn1 = (w.numpy() for w in torch.load(run["folder"] / "post" / "initial.pt").values())
    manual = list(descend(1000))
    for step in range(0, 1001, 50):
        weights = reference.post(syn0, syn1, step)
        for tag, value in measured(*weights).items():
            logged = scalars(run["post"], tag)[1][step]
            np.testing.assert_allclose(logged, np.float32(value), rtol=1e-6, err_msg=tag)
        for name, mine, theirs in zip(("syn0", "syn1"), weights, manual[step], strict=True):
            logged = scalars(run["post"], f"difference/{name}")[1][step]
            # Both trajectories are known to 1e-9.
            np.testing.assert_allclose(
                logged, np.abs(mine - theirs).max(), rtol=1e-6, atol=1e-9, err_msg=name
            )


def test_scalars_of_one_step_are_one_event(run):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = (run["folder"] / "manual").glob("*tfevents*")
    with_scalars = [
        event.step
        for event in EventFileLoader(str(file)).Load()
        if any(value.tag in SCALARS for value in event.summary.value)
    ]
    assert with_scalars == list(range(1001))


def test_fifty_histograms_of_each_weight_and_of_the_hidden_units(run):
    initial = torch.load(run["folder"] / "sgd" / "initial.pt", weights_only=True)
    for trainer in ("post", "manual", "sgd"):
        assert set(run[trainer].Tags()["histograms"]) == {"syn0", "syn1", "hidden"}
        for tag, size in (("syn0", 45), ("syn1", 15), ("hidden", 7 * 15)):
            events = run[trainer].Histograms(tag)
            assert len(events) == 50
            assert (events[0].step, events[-1].step) == (0, 1000)
            assert all(
                e.histogram_value.num == sum(e.histogram_value.bucket) == size for e in events
            )
        first = run[trainer].Histograms("syn0")[0].histogram_value
        assert (first.min, first.max) == (initial["syn0"].min(), initial["syn0"].max())
        np.testing.assert_allclose(first.sum, initial["syn0"].sum(), rtol=1e-12)


def test_texts_say_what_was_run_and_what_came_out(run):
    texts = {
        name: run[name].Tensors("summary/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("", "post", "manual", "sgd")
    }
    assert all("network 3-15-1" in text and " loss " in text for text in texts.values())
    assert "manual = sgd: the same bits" in texts[""]
    assert "manual = sgd: the same bits" in texts["manual"]
    assert "post ≠ sgd" in texts["post"]
    assert re.search(r"^lr +1\.0$", texts[""], re.MULTILINE)


def hparams(reader, tag):
    content = reader.SummaryMetadata(tag).plugin_data.content
    return HParamsPluginData.FromString(content)


def test_hparams_stand_in_the_trainers_own_run(run):
    for trainer in ("post", "manual", "sgd"):
        session = hparams(run[trainer], "_hparams_/session_start_info").session_start_info.hparams
        assert session["trainer"].string_value == trainer
        assert session["lr"].number_value == 1.0
        experiment = hparams(run[trainer], "_hparams_/experiment").experiment
        metrics = {info.name.tag for info in experiment.metric_infos}
        assert metrics == {"loss", "accuracy", "held_out/loss"}
        assert metrics <= set(run[trainer].Tags()["scalars"])
        end = hparams(run[trainer], "_hparams_/session_end_info").session_end_info
        assert end.status == 1  # STATUS_SUCCESS
    assert sorted(p.name for p in run["folder"].iterdir() if p.is_dir()) == [
        "manual",
        "post",
        "sgd",
    ]


def test_the_table_of_hparams_opens_on_what_tells_runs_apart(run):
    experiment = hparams(run["manual"], "_hparams_/experiment").experiment
    first = {info.name for info in experiment.hparam_infos if info.differs}
    assert first == {"trainer", "table", "lr", "steps", "start"}  # it shows five


def layout_of(reader):
    proto = reader.Tensors("custom_scalars__config__")[0].tensor_proto
    return layout_pb2.Layout.FromString(proto.string_val[0])


def test_layout_has_the_three_questions_and_shows_all_but_the_norms(run):
    layout = layout_of(run[""])
    assert [category.title for category in layout.category] == [
        "Do they agree?",
        "Do they learn?",
        "What do they predict?",
    ]
    # TensorBoard matches tags as these regular expressions do.
    patterns = [chart.multiline.tag[0] for group in layout.category for chart in group.chart]
    tags = SCALARS | DIFFERENCES | LOGARITHMS
    shown = {tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)}
    assert shown == {tag for tag in tags if "_norm/" not in tag}


def test_rows_are_shown_by_the_side_on_which_they_should_come_out(run):
    charts = {c.title: c.multiline.tag[0] for c in layout_of(run[""]).category[2].chart}
    rows = {
        title: [bits for bits in (*BITS, "111") if re.match(pattern, f"prediction/{bits}")]
        or [bits for bits in (*BITS, "111") if re.match(pattern, f"held_out/{bits}")]
        for title, pattern in charts.items()
    }
    assert rows == {  # XNOR of the first two bits
        "held out, right is above ½: 111": ["111"],
        "learned, right is above ½: 000, 001, 110": ["000", "001", "110"],
        "learned, right is below ½: 010, 011, 100, 101": ["010", "011", "100", "101"],
    }


@pytest.mark.parametrize(
    "options",
    [
        ["--trainers", "sgd"],
        ["--trainers", "post", "manual"],
        ["--table", "parity3"],
        ["--table", "long.csv"],
        ["--table", "ones.csv"],
        ["--descent", "steepest", "--curvature", 1],
        ["--curvature", 1],
    ],
)
def test_no_chart_is_empty_and_no_two_groups_are_the_same(main, tmp_path, options):
    rows = "".join(f"{i / 20},{i % 2},{int(i == 16)}\n" for i in range(17))
    (tmp_path / "long.csv").write_text(f"x,y,held_out\n{rows}")
    (tmp_path / "ones.csv").write_text("x,y\n0,1\n1,1\n")
    folder = logged(main, tmp_path, *options, "--steps", 2)
    tags = {t for part in folder.iterdir() if part.is_dir() for t in read(part).Tags()["scalars"]}
    layout = layout_of(read(folder))
    titles = [group.title for group in layout.category]
    assert len(set(titles)) == len(titles)
    for group in layout.category:
        assert group.chart
        for chart in group.chart:
            assert any(re.match(chart.multiline.tag[0], tag) for tag in tags), chart.title


def test_the_first_value_of_a_tag_bears_its_description_and_no_other(run):
    """TensorBoard takes a description from there, if the value says what kind it is."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    (file,) = (run["folder"] / "post").glob("*tfevents*")
    first = {}
    for event in map(Event.FromString, RawEventFileLoader(str(file)).Load()):
        for value in event.summary.value:
            if value.WhichOneof("value") in ("simple_value", "histo"):
                assert value.HasField("metadata") == (value.tag not in first), value.tag
                first.setdefault(value.tag, value.metadata)
    histograms = {"syn0", "syn1", "hidden"}
    assert set(first) == SCALARS | DIFFERENCES | LOGARITHMS | histograms
    for tag, metadata in first.items():
        plugin, kind = ("histograms", 2) if tag in histograms else ("scalars", 1)
        assert (metadata.plugin_data.plugin_name, metadata.data_class) == (plugin, kind)
        assert len(metadata.summary_description) > 20, tag
    assert "no trainer sees" in first["held_out/111"].summary_description


def test_weights_are_saved_before_and_after(run):
    weights = list(descend(1000))
    for trainer in ("manual", "sgd"):
        for file, (syn0, syn1) in (("initial.pt", weights[0]), ("final.pt", weights[-1])):
            state = torch.load(run["folder"] / trainer / file, weights_only=True)
            assert np.array_equal(state["syn0"].numpy(), syn0)
            assert np.array_equal(state["syn1"].numpy(), syn1)


def test_steepest_logs_the_step_that_led_to_each_point(main, tmp_path):
    """Times the gradient before it, it is how far the weights went."""
    options = ["--descent", "steepest", "--steps", 4, "--dtype", "float64"]
    folder = logged(main, tmp_path, *options)
    assert layout_of(read(folder)).category[-1].chart[0].multiline.tag == ["^step_size$"]
    first = torch.load(folder / "sgd" / "initial.pt", weights_only=True)
    syn0, syn1 = (weight.numpy() for weight in first.values())
    for trainer in ("manual", "sgd"):
        reader = read(folder / trainer)
        steps, sizes = scalars(reader, "step_size")
        assert steps == [1, 2, 3, 4]
        logarithms = scalars(reader, "step_size_log10")[1]
        np.testing.assert_allclose(10.0**logarithms, sizes, rtol=1e-5)  # float32's logarithms
        gradient = reference.gradient(syn0, syn1)
        after = measured(
            *(w - np.float64(sizes[0]) * g for w, g in zip((syn0, syn1), gradient, strict=True))
        )
        # The step as logged is rounded to float32; at a minimum, that shows but squared.
        assert scalars(reader, "loss")[1][1] == np.float32(after["loss"])


def test_without_a_line_search_no_step_size_is_logged(run):
    assert not any("step_size" in run[name].Tags()["scalars"] for name in ("", "post", "sgd"))


def hessian(syn0, syn1):
    """The Hessian of the loss in NumPy: central differences of the gradient by hand."""
    flat = np.concatenate([syn0.ravel(), syn1.ravel()])

    def gradient(theta):
        parts = reference.gradient(theta[:45].reshape(3, 15), theta[45:].reshape(15, 1))
        return np.concatenate([part.ravel() for part in parts])

    h = 1e-5
    columns = [
        (gradient(flat + h * e) - gradient(flat - h * e)) / (2 * h) for e in np.eye(flat.size)
    ]
    return np.array(columns)


def test_curvature_every_so_many_steps_is_the_hessians(main, tmp_path):
    options = ["--curvature", 4, "--steps", 10, "--log-every", 3, "--lr", 0.5, "--momentum", 0.5]
    folder = logged(main, tmp_path, *options)
    for trainer in ("manual", "sgd"):
        reader = read(folder / trainer)
        assert scalars(reader, "loss")[0] == [0, 3, 4, 6, 8, 9, 10]
        steps, sharpness = scalars(reader, "curvature/sharpness")
        assert steps == scalars(reader, "curvature/smallest")[0] == [0, 4, 8]
        state = torch.load(folder / trainer / "initial.pt", weights_only=True)
        values = np.linalg.eigvalsh(hessian(*(weight.numpy() for weight in state.values())))
        # Central differences err by h² times the fourth derivative, 1e-10 here.
        assert sharpness[0] == pytest.approx(values[-1], abs=1e-7)
        assert scalars(reader, "curvature/smallest")[1][0] == pytest.approx(values[0], abs=1e-7)
        assert scalars(reader, "curvature/limit")[1].tolist() == [6, 6, 6]  # 2 (1 + ½) / ½
    assert layout_of(read(folder)).category[-1].title == "At the edge?"


def test_the_greatest_sharpness_seen_is_printed(main, tmp_path):
    _, out, _ = main("--curvature", 3, "--steps", 30, "--name", "x")
    steps, sharpness = scalars(read(tmp_path / "runs" / "x" / "sgd"), "curvature/sharpness")
    most = int(np.argmax(sharpness))
    assert 0 < most < len(steps) - 1
    assert (
        f"sharpness of sgd: {sharpness[most]:.3g} at most, seen after step {steps[most]}; "
        "steps are stable up to 2\n"
    ) in out


def test_looking_at_the_curvature_changes_nothing(main, tmp_path):
    for name, options in (("a", ["--curvature", 1]), ("b", [])):
        main("--quiet", "--steps", 5, "--name", name, *options)
    for trainer in ("manual", "sgd"):
        a, b = (torch.load(tmp_path / "runs" / n / trainer / "final.pt") for n in "ab")
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_steepest_has_curvature_but_no_limit(main, tmp_path):
    options = ["--curvature", 2, "--steps", 2, "--descent", "steepest"]
    tags = read(logged(main, tmp_path, *options) / "sgd").Tags()["scalars"]
    assert {tag for tag in tags if tag.startswith("curvature/")} == {
        "curvature/sharpness",
        "curvature/smallest",
    }


def test_log_every_thins_scalars_but_for_the_last(main, tmp_path):
    folder = logged(main, tmp_path, "--steps", 25, "--log-every", 10)
    assert scalars(read(folder / "post"), "loss")[0] == [0, 10, 20, 25]
    assert [e.step for e in read(folder / "post").Histograms("syn0")] == list(range(26))


def test_without_sgd_the_last_trainer_named_is_the_reference(main, tmp_path):
    folder = logged(main, tmp_path, "--steps", 3, "--trainers", "post", "manual")
    assert set(read(folder / "post").Tags()["scalars"]) >= DIFFERENCES
    assert not set(read(folder / "manual").Tags()["scalars"]) & DIFFERENCES


def test_a_table_with_none_held_out_has_no_such_tags(main, tmp_path):
    folder = logged(main, tmp_path, "--steps", 2, "--table", "parity3")
    tags = set(read(folder / "sgd").Tags()["scalars"])
    assert not any(tag.startswith("held_out") for tag in tags)
    assert {f"prediction/{i:03b}" for i in range(8)} <= tags


def test_a_long_table_has_no_line_for_each_row(main, tmp_path):
    rows = "".join(f"{i / 20},{i % 2},{int(i == 16)}\n" for i in range(17))
    (tmp_path / "long.csv").write_text(f"x,y,held_out\n{rows}")
    folder = logged(main, tmp_path, "--steps", 2, "--table", "long.csv")
    tags = set(read(folder / "sgd").Tags()["scalars"])
    assert not any(tag.startswith("prediction/") for tag in tags)
    assert {"held_out/17", "loss", "accuracy"} <= tags
    assert load_table(str(tmp_path / "long.csv")).held_out_labels == ("17",)


def test_an_output_of_exactly_one_half_counts_as_below():
    """As does such a target: in the accuracy, and in the charts."""
    net = SigmoidNet().double()
    for weight in net.parameters():
        weight.data.zero_()
        weight.data = weight.data[None]
    table = load_table("post")
    tags, (values,) = measure(net, table)
    assert dict(zip(tags, values, strict=True))["prediction/000"] == 0.5
    assert values[tags.index("accuracy")] == 4 / 7  # as many targets are 0
    halves = replace(table, learned=Rows(table.learned.inputs, table.learned.targets * 0 + 0.5))
    charts = layout(halves, ["sgd"], steepest=False, curvature=False)["What do they predict?"]
    assert [title.partition(":")[0] for title in charts] == [
        "held out, right is above ½",
        "learned, right is below ½",
    ]


def test_many_rows_held_out_have_no_line_each():
    table = load_table("post")
    many = Rows(table.held_out.inputs.repeat(17, 1), table.held_out.targets.repeat(17, 1))
    table = replace(table, held_out=many, held_out_labels=tuple(map(str, range(17))))
    net = SigmoidNet().double()
    for weight in net.parameters():
        weight.data = weight.data[None]
    tags, _ = measure(net, table)
    assert [tag for tag in tags if tag.startswith("held_out")] == ["held_out/loss"]


def test_each_tag_has_the_description_that_is_its_own(main, tmp_path):
    folder = logged(main, tmp_path, "--steps", 1, "--curvature", 1, "--trainers", "sgd")
    reader = read(folder / "sgd")
    own = {"held_out/loss", "curvature/sharpness", "curvature/smallest", "curvature/limit"}
    for tag in own:
        assert reader.SummaryMetadata(tag).summary_description == DESCRIPTIONS[tag]
    assert reader.SummaryMetadata("held_out/111").summary_description == DESCRIPTIONS["held_out"]


def test_hparams_name_no_metric_that_is_not_logged(main, tmp_path):
    folder = logged(main, tmp_path, "--steps", 1, "--table", "xor", "--trainers", "sgd")
    experiment = hparams(read(folder / "sgd"), "_hparams_/experiment").experiment
    assert {info.name.tag for info in experiment.metric_infos} == {"loss", "accuracy"}


def test_a_run_that_is_not_complete_has_no_successful_end(tmp_path):
    table, net = load_table("post"), SigmoidNet().double()
    board = Board(tmp_path, net, [SGD(net, table.learned, lr=1.0)], table, {"lr": 1.0}, steps=9)
    board.finish(0, {}, complete=False)
    board.close()
    reader = read(tmp_path / "sgd")
    assert reader.SummaryMetadata("_hparams_/session_start_info")
    with pytest.raises(KeyError):
        reader.SummaryMetadata("_hparams_/session_end_info")
    assert (tmp_path / "sgd" / "final.pt").exists()


def test_event_files_of_which_one_cannot_be_begun_are_all_closed(tmp_path, monkeypatch):
    closed, close = [], events.RecordWriter.close

    def full(file, _):
        if file.path.parent.name == "b":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(events.EventFile, "_write", full)
    monkeypatch.setattr(events.RecordWriter, "close", lambda w: (closed.append(w), close(w)))
    together = events.event_files(tmp_path, ("a", "b"), {})
    with pytest.raises(OSError, match="No space left"), together:
        pass
    assert len(closed) == 3
