"""Pictures: PNG files at twice a screen's resolution, in colours that all can tell apart."""

import io
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from gdtorch import figures

CURVE = torch.logspace(0, -3, 50, dtype=torch.float64)


AXIS = torch.linspace(0, 1, 9, dtype=torch.float64)
RISING = 10 ** (AXIS + AXIS[:, None] - 1)  # a loss that rises to the right and upwards
PATH = torch.stack([CURVE, CURVE**2], dim=1)


def surface():
    paths = dict.fromkeys(("post", "manual", "sgd"), PATH)
    return figures.surface(AXIS.expand(2, -1), RISING, paths, (0.9, 0.1))


COURSE = """step,post/loss,manual/loss,sgd/loss,post/difference,manual/difference
0,1.5,1.5,1.5,0.0,0.0
1,0.5,0.25,0.25,0.125,0.0
2,inf,nan,0.125,inf,nan
"""


def curves(text=COURSE):
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        return figures.curves(Path(file.name))


DRAWN = {
    "curves": curves,
    "quotient_error": lambda: figures.quotient_error(
        CURVE, torch.stack([CURVE, 2 * CURVE], dim=1), ["syn0", "syn1"]
    ),
    "stability": lambda: figures.stability([0.1, 1, 3, 10], *(2 * [CURVE.expand(4, -1)])),
    "spectrum": lambda: figures.spectrum(torch.linspace(-1, 1, 120).reshape(2, 60), 1000),
    "surface": surface,
    "quartic": lambda: figures.quartic(
        {"-1: minimum": [-1.0, -0.4, 0.0], "3: minimum": [3.0, 2.0]}
    ),
    "ensemble": lambda: figures.ensemble(
        [0.1, 1, 10],
        {"all rows right": [0, 1, 0.5], "stuck": [0.2, 0, 0.5]},
        [[2 * quantile, quantile, 3 * quantile] for quantile in (1e-4, 1e-3, 1e-2, 0.1, 1)],
        "5 starts at each learning rate, 9 steps",
    ),
}


@pytest.fixture(params=DRAWN.values(), ids=DRAWN)
def figure(request):
    return request.param()


def test_every_figure_is_drawn_here():
    assert set(DRAWN) == set(figures.__all__) - {"png"}


@pytest.mark.slow
def test_png_is_twice_a_screens_resolution_and_labelled(figure):
    image = imread(io.BytesIO(figures.png(figure)), format="png")
    width, height = figure.get_size_inches()
    assert image.shape[:2] == (round(200 * height), round(200 * width))
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert figure.axes[0].get_ylabel()
    assert figure.legends or all(axes.get_legend() for axes in figure.axes)


def test_no_text_lies_over_another(figure):
    figure.draw_without_rendering()
    texts = []
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    for legend in (*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))):
        texts += legend.get_texts()
    boxes = [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]
    boxes = [box for box in boxes if box.width > 0]
    assert len(boxes) > 9
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)


def simulated(colour):
    """What somebody without red cones sees, in linear RGB (Viénot et al., 1999)."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2
    return np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]) @ rgb


def test_palette_is_okabe_and_itos_and_apart_for_the_red_blind():
    assert figures.COLOURS[0] == "#000000"
    assert len(set(figures.COLOURS)) == 8
    for one, other in itertools.combinations(figures.COLOURS, 2):
        assert np.abs(simulated(one) ** (1 / 2.2) - simulated(other) ** (1 / 2.2)).max() > 0.05


def test_the_surface_is_drawn_where_its_losses_are():
    """The darkest grey, for the smallest loss, stands in the corner that holds it."""
    figure = surface()
    image = imread(io.BytesIO(figures.png(figure)), format="png")
    box = figure.axes[0].get_window_extent()
    height = image.shape[0]

    def grey(x, y):
        column, row = round(box.x0 + x * box.width), round(height - box.y0 - y * box.height)
        return image[row, column, :3].mean()

    low, high, right, top = grey(0.02, 0.06), grey(0.98, 0.94), grey(0.9, 0.03), grey(0.05, 0.9)
    assert low < min(right, top)
    assert max(right, top) < high


def drawn(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line


def test_an_ensemble_is_drawn_over_its_learning_rates():
    above, below = DRAWN["ensemble"]().axes
    assert above.get_title() == "5 starts at each learning rate, 9 steps"
    assert drawn(above, "stuck").get_xdata().tolist() == [0.1, 1, 10]
    assert drawn(above, "stuck").get_ydata().tolist() == [20, 0, 50]
    assert drawn(below, "median").get_ydata().tolist() == pytest.approx([0.02, 0.01, 0.03])


def test_the_axis_names_the_learning_rates_that_were_run_and_have_room():
    rates = [0.3, 1, 1.01, 3, 30]
    _, below = figures.ensemble(rates, {"stuck": [0] * 5}, [[1] * 5] * 5, "").axes
    assert [label.get_text() for label in below.get_xticklabels()] == ["0.3", "1", "3", "30"]
    assert len(below.get_xticks(minor=True)) == 0


def test_curves_of_an_ensemble_that_coincide_are_all_seen():
    above, _ = figures.ensemble([1, 10], {name: [0, 0] for name in "abcde"}, [[1, 1]] * 5, "").axes
    for size in ("linewidth", "markersize"):
        sizes = [getattr(drawn(above, name), f"get_{size}")() for name in "abcde"]
        assert sizes == sorted(set(sizes), reverse=True)  # each lies on those before it


def test_an_ensemble_of_which_all_diverged_is_drawn():
    everything = figures.ensemble([1, 10], {"diverged": [1, 1]}, [[np.inf, np.inf]] * 5, "")
    assert figures.png(everything)
    assert everything.axes[1].get_yscale() == "linear"  # a logarithm of nothing warns


def test_the_quartics_picture_holds_both_minima_and_every_start():
    for start in (-2.0, 0.0, 1.0, 4.0):
        curve, _ = figures.quartic({"path": [start, 1.0]}).axes
        left, right = curve.get_xlim()
        assert left < min(start, 0)
        assert right > max(start, 2)
        bottom, top = curve.get_ylim()
        assert bottom < 0
        assert top > max(0.25, start**2 * (start - 2) ** 2 / 4)  # the maximum is 1/4


@pytest.mark.parametrize("last", [3, 11, 23, 56, 240, 1001])
def test_the_last_step_of_the_quartics_paths_is_labelled_and_has_room(last):
    _, track = figures.quartic({"path": [3.0] * (last + 1)}).axes
    *before, end = track.get_yticks()
    assert end == last
    assert max(before) < 0.8 * last


def test_a_start_that_stays_is_a_circle_around_its_diamond():
    curve, _ = figures.quartic({"1: maximum": [1.0, 1.0], "3: minimum": [3.0, 2.0]}).axes
    sizes = [
        {line.get_marker(): line.get_markersize() for line in curve.lines[start : start + 3]}
        for start in (1, 4)  # after the curve, three lines each
    ]
    assert [size["o"] > 1.5 * size["D"] for size in sizes] == [True, False]


def test_seven_paths_have_seven_colours():
    curve, _ = figures.quartic({str(k): [float(k), 2.0] for k in range(7)}).axes
    starts = [line for line in curve.lines if line.get_marker() == "o"]
    assert len({line.get_color() for line in starts}) == len(starts) == 7


def test_the_spectrum_shows_every_eigenvalue_zero_among_them():
    spectra = torch.tensor([[-1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    panels = figures.spectrum(spectra, 1000).axes
    for axes, values in zip(panels, spectra.tolist(), strict=True):
        shown = [y for line in axes.lines for y in line.get_ydata() if line.get_marker() in "vo"]
        assert sorted(float(y) for y in shown) == values


def test_curves_show_each_trainers_loss_and_its_distance_from_the_reference():
    above, below = curves().axes
    drawn = [{line.get_label(): list(line.get_ydata()) for line in a.lines} for a in (above, below)]
    assert drawn[0]["sgd"] == [1.5, 0.25, 0.125]
    assert list(drawn[0]) == ["post", "manual", "sgd"]
    assert drawn[1]["post"][:2] == [0.0, 0.125]
    assert list(drawn[1]) == ["post", "manual"]
    low, high = below.get_ylim()
    assert low < 0 < 0.125 < high < 100


def test_curves_of_one_trainer_have_no_distance():
    (axes,) = curves("step,manual/loss\n0,1.5\n1,0.5\n").axes
    assert list(axes.lines[0].get_xdata()) == [0, 1]
