"""The five questions: each number from elsewhere, the command as a user runs it, the page."""

import io
import itertools
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module

import numpy as np
import pytest
import reference
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gdtorch import SGD, Manual, Rows, SigmoidNet, initial_weights, load_table
from gdtorch.curvature import flat_weights, spectra
from gdtorch.questions import answers, minimum, stability
from gdtorch.questions.answer import bound
from gdtorch.questions.gradient import both_ways, three_ways
from gdtorch.questions.step import linear_step, step_at

POST = load_table("post").learned
EPSILON = np.finfo(float).eps
NAMES = [
    "1-difference-quotient",
    "2-one-step",
    "3-theta",
    "4-sharpness",
    "5-spectrum",
    "6-surface",
]
PAGE = (ROOT / "docs" / "questions.md").read_text()
WORDS = " ".join(PAGE.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the command: its folder, what it printed, and the answers' own numbers."""
    from gdtorch import questions
    from gdtorch.cli import main

    folder = tmp_path_factory.mktemp("logs")
    kept = []

    def keep(*arguments):
        kept.extend(answers(*arguments))
        return kept

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(questions, "answers", keep)
        assert main(["questions", "--logdir", str(folder), "--name", "run"]) == 0
    return {
        "folder": folder / "run",
        "out": out.getvalue().removesuffix("\n"),
        **dict(zip(NAMES, kept, strict=True)),
    }


def weights(start=0):
    net = SigmoidNet(start=start).double()
    return [w.detach().numpy().copy() for w in net.parameters()]


def loss(theta):
    """The loss at all 60 weights, in NumPy."""
    output = reference.output(reference.X, theta[:45].reshape(3, 15), theta[45:].reshape(15, 1))
    return np.sum((reference.Y - output) ** 2) / 2


def gradient(theta):
    """By hand, in NumPy, at all 60 weights."""
    syn0, syn1 = theta[:45].reshape(3, 15), theta[45:].reshape(15, 1)
    hidden = reference.sigmoid(reference.X @ syn0)
    output = reference.sigmoid(hidden @ syn1)
    delta = (output - reference.Y) * output * (1 - output)
    by_syn0 = reference.X.T @ (delta @ syn1.T * hidden * (1 - hidden))
    return np.concatenate([by_syn0.ravel(), (hidden.T @ delta).ravel()])


def numpy_hessian(theta, h=1e-5):
    """Central quotients of the gradient: each entry errs by about 1e-10."""
    axes = np.eye(len(theta))
    return np.stack([(gradient(theta + h * e) - gradient(theta - h * e)) / (2 * h) for e in axes])


START = np.concatenate([w.ravel() for w in weights()])


def test_q1_errors_of_the_quotient_are_those_of_numpy(run):
    facts, drawn = run["1-difference-quotient"].facts, run["1-difference-quotient"].drawn
    assert facts["by_hand"] == {"syn0": 0, "syn1": 0}
    assert drawn["steps"].tolist() == [10.0**-k for k in range(1, 13)]
    exact = gradient(START)
    for h, errors in zip(drawn["steps"].tolist(), drawn["errors"].tolist(), strict=True):
        quotient = np.array([(loss(START + h * e) - loss(START)) / h for e in np.eye(60)])
        for part, error in ((slice(45), errors[0]), (slice(45, 60), errors[1])):
            scale = np.abs(exact[part]).max()
            expected = np.abs(quotient - exact)[part].max() / scale
            # Each of two losses of about 1 errs by some ulps, and h divides their difference.
            assert abs(error - expected) <= 16 * EPSILON / h / scale + 1e-12


def test_q1_best_step_lies_between_rounding_and_curvature(run):
    answer = run["1-difference-quotient"]
    assert answer.facts["best_step"] == 1e-7
    # Down to there the error is h/2 of a second derivative: it falls tenfold with h.
    ratios = answer.drawn["errors"][:4] / answer.drawn["errors"][1:5]
    assert ((ratios > 9) & (ratios < 12)).all()


def test_q1_no_direction_is_steeper(run):
    facts = run["1-difference-quotient"].facts
    exact = gradient(START)
    along = loss(START + 1e-3 * exact / np.linalg.norm(exact)) - loss(START)
    assert facts["rise"] == pytest.approx(along, rel=1e-10)  # of 1e-3, from losses to 1e-16 each
    assert facts["steeper"] == 0
    # The largest of 1000 cosines with one direction in 60 dimensions: their spread is 60^-1/2.
    assert 2 < facts["largest_random_rise"] / facts["rise"] * np.sqrt(60) < 5


@pytest.mark.parametrize("index", range(4))
def test_q2_predictions_and_outcomes_are_those_of_numpy(run, index):
    step = run["2-one-step"].facts["points"][index]
    theta = START.copy()
    for _ in range(step["before"]):
        theta -= gradient(theta)

    def output(at, row=slice(None)):
        return reference.output(reference.X[row], at[:45].reshape(3, 15), at[45:].reshape(15, 1))

    h = 1e-6
    jacobian = np.stack(
        [(output(theta + h * e) - output(theta - h * e)).ravel() / (2 * h) for e in np.eye(60)], 1
    )
    wanted = reference.Y - output(theta)
    # The Jacobian's central quotients err by 1e-10; 60 products of them with numbers below 1.
    np.testing.assert_allclose(
        step["predicted"], (jacobian @ jacobian.T @ wanted).ravel(), atol=1e-8, rtol=0
    )
    happened = output(theta - gradient(theta)) - output(theta)
    # 100 steps from the same start, in another order of additions.
    np.testing.assert_allclose(step["happened"], happened.ravel(), atol=1e-11, rtol=0)
    assert step["right"] == np.sum(happened * wanted > 0)
    assert step["alone_right"] == 7


def test_q2_prediction_becomes_exact_as_the_step_shrinks(monkeypatch):
    from gdtorch.questions import step

    theta, errors = torch.from_numpy(START), []
    for alpha in (1e-2, 1e-3):
        monkeypatch.setattr(step, "ALPHA", alpha)
        taken = step_at(SigmoidNet().double(), POST, theta, 0)
        errors.append(np.abs(np.subtract(taken["predicted"], taken["happened"])).max())
    assert 80 < errors[0] / errors[1] < 125  # of the second order in alpha


@pytest.mark.parametrize("seed", range(20))
def test_q2_is_exact_to_rounding_for_a_linear_layer(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y, theta = (
        torch.randn(*shape, dtype=torch.float64, generator=generator)
        for shape in ((7, 3), (7, 1), (3, 1))
    )
    predicted, happened = linear_step(Rows(x, y), theta)
    assert predicted.abs().max() > 0.1
    # Some tens of products and sums of numbers up to 100.
    assert (predicted - happened).abs().max() < 100 * 100 * EPSILON


def test_q2_linear_layer_cannot_move_the_row_of_zeros(run):
    facts = run["2-one-step"].facts
    theta = weights()[0][:, :1]
    wanted = reference.Y - reference.X @ theta
    moved = reference.X @ reference.X.T @ wanted
    assert facts["linear_error"] <= 8 * EPSILON
    assert facts["linear_right"] == np.sum(moved * wanted > 0)
    assert facts["linear_still"] == 1
    assert moved[0] == 0


def test_q3_shapes_and_bits(run):
    facts = run["3-theta"].facts
    assert facts["shapes"] == facts["autograd_shapes"] == {"syn0": (3, 15), "syn1": (15, 1)}
    assert facts["products"] == {"syn0": ((3, 7), (7, 15)), "syn1": ((15, 7), (7, 1))}
    assert facts["same_bits"]


@pytest.mark.parametrize(("index", "lr"), [*enumerate([0.1, 1.0, 3.0, 10.0])])
def test_q4_sharpness_and_losses_are_those_of_torchs_sgd(run, index, lr):
    facts, drawn = run["4-sharpness"].facts, run["4-sharpness"].drawn
    course, sgd = facts["courses"][index], SGD(SigmoidNet().double(), POST, lr)
    losses, limit = [], 2 / lr
    for step, now in zip(range(1001), sgd, strict=False):
        theta = torch.cat([w.flatten() for w in now.values()]).numpy()
        losses.append(loss(theta))
        if step in (0, course["peak_step"], 1000):
            sharpness = np.linalg.eigvalsh(numpy_hessian(theta)).max()
            assert drawn["sharpness"][index, step].item() == pytest.approx(sharpness, abs=1e-8)
    # The same steps and the same weights; two ways to the loss.
    np.testing.assert_allclose(drawn["losses"][index], losses, rtol=1e-12)
    assert (course["lr"], course["limit"], course["loss"]) == (
        lr,
        limit,
        drawn["losses"][index, -1].item(),
    )
    assert course["peak"] == drawn["sharpness"][index].max().item()
    above, rose = drawn["sharpness"][index, :-1].numpy() > limit, np.diff(losses) > 0
    assert (course["above"], course["rose"]) == (above.sum(), rose.sum())
    assert course["rose_below"] == (rose & ~above).sum()


def test_q5_negative_eigenvalues_are_numpys(run):
    facts, drawn = run["5-spectrum"].facts, run["5-spectrum"].drawn
    sgd = SGD(SigmoidNet().double(), POST, 1.0)
    for step, now in zip(range(1001), sgd, strict=False):
        if step in (0, 1000):
            theta = torch.cat([w.flatten() for w in now.values()]).numpy()
            values = np.linalg.eigvalsh(numpy_hessian(theta))
            assert np.abs(values).min() > 1e-8  # so that no sign is a matter of rounding
            end = min(step, 1)
            assert facts["negative"][end] == np.sum(values < 0)
            np.testing.assert_allclose(drawn["spectra"][end], values, atol=1e-8, rtol=0)
            np.testing.assert_allclose(facts["extremes"][end], values[[0, -1]], atol=1e-8, rtol=0)


def test_q5_the_loss_falls_as_the_weights_grow(run):
    falls = run["5-spectrum"].facts["falls"]
    assert [fall["steps"] for fall in falls] == [1000, 10_000, 100_000]
    for before, after in itertools.pairwise(falls):
        assert after["loss"] < before["loss"] / 5
        assert after["weight_norm"] > before["weight_norm"] + 1
    theta = START.copy()
    for _ in range(10_000):
        theta -= gradient(theta)
    assert falls[1]["loss"] == pytest.approx(loss(theta), rel=1e-9)
    assert falls[1]["weight_norm"] == pytest.approx(np.linalg.norm(theta), rel=1e-9)


def test_surface_is_the_plane_of_numpys_principal_directions(run):
    facts, drawn = run["6-surface"].facts, run["6-surface"].drawn
    shadows, (across, up) = drawn["paths"], drawn["axes"]
    path = np.stack(
        [
            np.concatenate([w.numpy().ravel() for w in now.values()])
            for _, now in zip(range(1001), SGD(SigmoidNet().double(), POST, 1.0), strict=False)
        ]
    )
    centre = path.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(path.T))
    np.testing.assert_allclose(facts["variance"], (values / values.sum())[[-1, -2]], rtol=1e-9)
    plane = vectors[:, [-1, -2]].T
    plane *= np.sign(np.sum(((path - centre) @ plane.T) * shadows["sgd"].numpy(), axis=0))[:, None]
    np.testing.assert_allclose(shadows["sgd"], (path - centre) @ plane.T, atol=1e-9)
    for i, j in ((0, 0), (119, 0), (0, 119), (20, 90)):
        there = centre + across[i].item() * plane[0] + up[j].item() * plane[1]
        assert drawn["losses"][j, i].item() == pytest.approx(loss(there), rel=1e-6)
    assert facts["same_bits"]
    assert torch.equal(shadows["sgd"], shadows["manual"])
    assert facts["loss"][0] == pytest.approx(loss(path[-1]), rel=1e-12)


def side_by_side(count):
    """Starts 0 to count − 1 of seed 0 as one network."""
    net = SigmoidNet().double()
    syn0, syn1 = initial_weights(0, 0, count, 60).double().split([45, 15], dim=1)
    net.syn0.data, net.syn1.data = syn0.reshape(count, 3, 15), syn1.reshape(count, 15, 1)
    return net


def flat(trainer):
    return torch.cat([w.flatten(1) for w in trainer.weights.values()], dim=1)


@torch.no_grad()
def test_first_step_from_a_hundred_starts():
    """3 or 4 rows the right way in 99 % (never < 2 nor > 6); one row alone always."""
    net = side_by_side(100)

    def right(rows):
        trainer = Manual(net, rows, 1.0)
        trainer.step()
        before = net(POST.inputs)
        return (trainer.objective(POST.inputs) - before) * (POST.targets - before) > 0

    together = right(POST).sum(dim=(1, 2))
    assert ((together >= 2) & (together <= 6)).all()
    assert ((together == 3) | (together == 4)).sum() >= 99
    three, four = (int((together == rows).sum()) for rows in (3, 4))
    assert f"3 rows of 7 the right way from {three} of 100 starts, 4 rows from {four}." in WORDS
    for i in range(7):
        assert right(Rows(POST.inputs[i : i + 1], POST.targets[i : i + 1]))[:, i].all()


@pytest.mark.slow
def test_curvature_from_a_hundred_starts():
    """23 to 38 negative eigenvalues; sharpness peaks at 1.74 in the median, between 1.31 and 2.60.

    Here at every third step to 120, then at some. At every step to 200 and every tenth to 1000 the
    median is 1.752, the range 1.388 to 2.246, and 9 of the 100 go over 2 (one in thirteen: 8).
    """
    trainer, one = Manual(side_by_side(100), POST, 1.0), SigmoidNet().double()
    watched = {*range(0, 120, 3), 120, 150, 200, 300, 430, 600, 1000}
    peak = torch.full((100,), -torch.inf, dtype=torch.float64)
    for step in range(1001):
        if step in watched:
            values = spectra(one, POST, flat(trainer))
            peak = torch.maximum(peak, values[:, -1])
        if step == 0:
            negative = (values < 0).sum(dim=1)
        trainer.step()
    low, high = negative.aminmax()
    assert low >= 23
    assert high <= 38
    assert f"At the start {low} to {high} of the Hessian's 60 eigenvalues are negative." in WORDS
    middle, least, most = peak.quantile(0.5), *peak.aminmax()
    over = int((peak > 2).sum())
    assert abs(middle - 1.74) <= 0.02
    assert least >= 1.31
    assert most <= 2.60
    assert 5 <= over <= 11  # one in thirteen is 7.7 of 100, give or take 2.7
    assert f"at {middle:.2f} in the median, between {least:.1f} and {most:.1f};" in WORDS
    assert f"from {over} of 100 starts it goes over the limit of 2." in WORDS


@torch.no_grad()
def test_plateau_at_alpha_ten_from_a_hundred_starts():
    """33 of 100 starts are at a loss of 1.5 after 1000 steps, 42 above 0.4: on some plateau.

    Of starts 0 to 1999 it is 39 % and 46 %, after 20,000 steps 8.6 % and 11.8 %: the page's
    "nearly half" and "one in nine" hold for plateaus of whatever height.
    """
    trainer = Manual(side_by_side(100), POST, 10.0)
    for _ in range(1000):
        trainer.step()
    losses = trainer.objective.loss(POST)
    # Steps this long magnify rounding; two or three starts fall to either side by it.
    assert abs(int(((losses - 1.5).abs() < 0.05).sum()) - 33) <= 3
    assert abs(int((losses > 0.4).sum()) - 42) <= 3


def test_tensorboard_has_the_texts_and_the_pictures(run):
    reader = EventAccumulator(str(run["folder"]), size_guidance={"tensors": 0, "images": 0})
    reader.Reload()
    pictures = sorted(path.stem for path in run["folder"].glob("*.png"))
    assert pictures == sorted(reader.Tags()["images"])
    assert set(pictures) == set(NAMES) - {"2-one-step", "3-theta"}
    for name in pictures:
        (image,) = reader.Images(name)
        assert image.encoded_image_string == (run["folder"] / f"{name}.png").read_bytes()
    for name in NAMES:
        (text,) = reader.Tensors(f"{name}/text_summary")
        assert run[name].text() in text.tensor_proto.string_val[0].decode()
        assert run[name].text() in run["out"]


def test_json_has_the_numbers_that_are_printed(run, main, monkeypatch):
    from gdtorch import questions

    monkeypatch.setattr(questions, "answers", lambda *_: [run[name] for name in NAMES])
    monkeypatch.setattr(questions.Answer, "figure", lambda _: None)
    status, out, error = main("questions", "--json")
    facts = json.loads(out)
    assert (status, error) == (0, "")
    assert facts["settings"] == {"table": "post", "seed": 0, "start": 0}
    assert facts["5-spectrum"]["negative"] == run["5-spectrum"].facts["negative"]
    assert facts["5-spectrum"]["falls"][0]["steps"] == 1000
    assert facts["4-sharpness"]["courses"][1]["limit"] == 2


def test_overwrite_leaves_no_picture_of_the_earlier_run(run, main, monkeypatch, tmp_path):
    from gdtorch import questions

    monkeypatch.setattr(questions, "answers", lambda *_: [run[name] for name in NAMES])
    main("questions", "--quiet", "--name", "x")
    folder = tmp_path / "runs" / "x"
    (folder / "mine.png").write_text("mine")
    assert len(list(folder.glob("*.png"))) == 5
    monkeypatch.setattr(questions, "answers", lambda *_: [run["3-theta"]])
    status, out, _ = main("questions", "--quiet", "--name", "x", "--overwrite")
    assert (status, out) == (0, "")
    assert [path.name for path in folder.glob("*.png")] == ["mine.png"]


def test_answers_until_a_disk_that_is_full_stay_readable(run, main, monkeypatch, tmp_path):
    from gdtorch import questions

    def until_full(*_):
        yield run["2-one-step"]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(questions, "answers", until_full)
    status, out, error = main("questions", "--name", "x")
    assert (status, out) == (3, "")
    assert error == "gdtorch: cannot write to runs/x after 2-one-step: No space left on device\n"
    reader = EventAccumulator(str(tmp_path / "runs" / "x"))
    reader.Reload()
    assert reader.Tags()["tensors"] == ["2-one-step/text_summary"]


def test_a_disk_that_is_full_from_the_first(main, monkeypatch):
    from gdtorch import questions

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(questions, "answers", full)
    status, out, error = main("questions", "--name", "x")
    assert (status, out) == (3, "")
    assert error == (
        "gdtorch: cannot write to runs/x before the first answer: No space left on device\n"
    )


BAD = {
    "--start -1": "--start",
    "--overwrite": "--name",
    "--name a/b": "not a folder name",
    "--steps 3": "unknown argument --steps",
}


@pytest.mark.slow
def test_matplotlib_is_loaded_only_for_a_figure(tmp_path):
    program = (
        "import sys, gdtorch.questions; from gdtorch.cli import main; "
        "assert main(['--steps', '2', '--quiet', '--logdir', sys.argv[1]]) == 0; "
        "assert all(hasattr(gdtorch, name) for name in gdtorch.__all__); "
        "print('matplotlib' in sys.modules); import gdtorch.figures; "
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "False\nTrue False\n"


def test_the_page_shows_what_the_command_prints(run):
    """Its blocks are the command's own output, and every number in its prose is in one of them."""
    shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert [block.rstrip("\n") for block in shown] == [run[name].text() for name in NAMES]
    before, _ = PAGE.split("## Over a hundred starts")
    prose = re.sub(r"^(```.*?^```|!\[.*?|#.*?)$", "", before, flags=re.DOTALL | re.MULTILINE)
    numbers = set(re.findall(r"[\d.,]*\d", prose))
    assert {"1.4.2", "2", "10", "000"} <= numbers
    assert numbers - set(re.findall(r"[\d.,]*\d", run["out"])) == {"1.3.5"}  # an equation's


def test_the_pages_pictures_are_there_and_small():
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", PAGE, re.MULTILINE)
    assert len(pictures) == 4
    for picture in pictures:
        assert 0 < (ROOT / "docs" / picture).stat().st_size < 150_000


@pytest.mark.slow
def test_another_table_is_asked_the_same(main, tmp_path):
    (tmp_path / "or.csv").write_text("a,b,y\n0,0,0\n0,1,1\n1,0,1\n1,1,1\n")
    status, out, _ = main("questions", "--table", "or.csv", "--json")
    facts = json.loads(out)
    assert (status, facts["settings"]["table"]) == (0, "or.csv")
    assert facts["2-one-step"]["rows"] == ["00", "01", "10", "11"]
    assert facts["2-one-step"]["targets"] == [0, 1, 1, 1]
    assert facts["3-theta"]["shapes"] == {"syn0": [2, 15], "syn1": [15, 1]}
    (course,) = (course for course in facts["4-sharpness"]["courses"] if course["lr"] == 1)
    losses = json.loads(main("--table", "or.csv", "--json")[1])["trainers"]
    assert course["loss"] == losses["manual"]["loss"]


@pytest.mark.slow
def test_a_table_of_numbers_is_asked_the_same(main, tmp_path):
    rows = "-0.5,2,1\n0.25,-1,0\n1.5,0.5,1\n"
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}")
    status, out, _ = main("questions", "--table", "t.csv", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["2-one-step"]["rows"] == ["1", "2", "3"]
    assert facts["2-one-step"]["linear_still"] == 0
    assert facts["1-difference-quotient"]["by_hand"] == {"syn0": 0, "syn1": 0}
    (course,) = (course for course in facts["4-sharpness"]["courses"] if course["lr"] == 1)
    losses = json.loads(main("--table", "t.csv", "--json")[1])["trainers"]
    assert course["loss"] == losses["manual"]["loss"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("0,1,0.5", "questions takes up to 8 rows, no two alike, with up to 8 inputs and with "),
        ("0,1,1\n0,1,0", "questions takes up to 8 rows"),
        ("".join(f"{x},1,1\n" for x in range(9)), "questions takes up to 8 rows"),
        ("0,0,0,0,0,0,0,0,1,1", "questions takes up to 8 rows"),
        ("0,0,1", "at this start no input moves the loss, so that there is nothing to measure; "),
        ("1e4,1e5,1", "at this start no input moves the loss"),
    ],
    ids=["a target", "two alike", "too many rows", "too many inputs", "nothing but 0", "too far"],
)
def test_a_table_that_cannot_be_asked_is_refused(main, tmp_path, rows, why):
    width = rows.partition("\n")[0].count(",")
    header = ",".join([*"abcdefghi"[:width], "y"])
    (tmp_path / "t.csv").write_text(f"{header}\n{rows}\n")
    status, out, error = main("questions", "--table", "t.csv")
    assert (status, out) == (2, "")
    assert error.startswith(f"gdtorch: table t.csv: {why}")
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_does_not_fall_is_not_said_to(monkeypatch):
    monkeypatch.setattr(import_module("gdtorch.questions.minimum"), "DECADES", (100, 200, 300))
    net = SigmoidNet().double()

    def text():
        return minimum(net, POST, torch.stack([flat_weights(net)] * 2)).text()

    assert "Nor is there a minimum to reach" in text()
    with torch.no_grad():
        net.syn0.fill_(0.0)
        net.syn1.fill_(1e4)  # every output is exactly 1, and stays
    assert "Nor is there a minimum to reach" not in text()


@pytest.mark.parametrize("start", [3, 5, 6])
def test_by_hand_and_by_autograd_are_the_same_bits_from_other_starts_too(start):
    net = SigmoidNet(start=start).double()
    assert set(three_ways(net, POST, 0).facts["by_hand"].values()) == {0.0}
    assert both_ways(net, POST).facts["same_bits"]


@pytest.mark.slow
def test_pictures_have_their_size_and_no_half_of_one_is_left(run, tmp_path):
    reader = EventAccumulator(str(run["folder"]))
    reader.Reload()
    for tag in reader.Tags()["images"]:
        (image,) = reader.Images(tag)
        assert min(image.width, image.height) > 500
    full = (  # set in the program itself: a fork of this process, which has threads, may hang
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", full, "questions", "--name", "x"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 3
    assert not list((tmp_path / "runs" / "x").glob("*.png"))


@pytest.mark.parametrize(
    ("error", "words"),
    [(2e-16, "below 1e-15"), (1e-3, "below 1e-02"), (0.02, "below 1e-01"), (0, "none")],
)
def test_a_bound_in_words_lies_above_the_error(error, words):
    assert bound(error) == words


def test_the_surface_says_how_far_post_strayed_at_most_and_has_a_margin(run):
    answer = run["6-surface"]
    post, apart = weights(), 0.0
    for _, now in zip(range(1001), SGD(SigmoidNet().double(), POST, 1.0), strict=False):
        theirs = np.concatenate([w.numpy().ravel() for w in now.values()])
        mine = np.concatenate([w.ravel() for w in post])
        apart = max(apart, np.linalg.norm(mine - theirs))
        post = reference.post(*post, 1)
    assert answer.facts["post_apart"] == pytest.approx(apart, rel=1e-6)
    paths = torch.cat(list(answer.drawn["paths"].values()))
    width = paths.amax(dim=0) - paths.amin(dim=0)
    assert (answer.drawn["axes"][:, 0] < paths.amin(dim=0) - 0.1 * width).all()
    assert (answer.drawn["axes"][:, -1] > paths.amax(dim=0) + 0.1 * width).all()


def test_a_loss_that_stays_has_not_risen():
    """From weights so large that every output is exactly 0 or 1, no step moves anything."""
    net = SigmoidNet().double()
    with torch.no_grad():
        net.syn0.fill_(0.0)
        net.syn1.fill_(1e4)
    courses = stability(net, POST, 3).facts["courses"]
    assert [course["rose"] for course in courses] == [0] * 4
    assert [course["loss"] for course in courses] == [2.0] * 4  # four targets are 0: ½ · 4
