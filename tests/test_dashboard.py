"""What a person sees: TensorBoard in a real browser, after a real run.

In CI, GDTORCH_CI=1 says that the browser must be there, and that the pictures in docs/ must be of
what it shows: one that is not is taken anew, and the test fails.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, redirect_stdout
from functools import partial
from io import BytesIO, StringIO

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect, sync_playwright

from gdtorch.cli import main
from gdtorch.ensemble import engine

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
CI = os.environ.get("GDTORCH_CI") == "1"
FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-background-networking")
FLAGS += ("disable-component-update", "disable-sync", "no-first-run")
expect.set_options(timeout=60_000)  # of a machine that is busy with other tests
SIZE = {"width": 1100, "height": 1270}
LOADED = """async runs => {
    const texts = await (await fetch("/data/plugin/text/tags")).json();
    return runs.every(run => run in texts);
}"""  # a run's text is the last that is written


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Where runs/ lies."""
    if CHROMIUM is None:
        (pytest.fail if CI else pytest.skip)("no chromium (Debian: apt-get install chromium)")
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def printed(logs):
    """What the default run prints."""
    return _train(logs, "--name", "first")


@pytest.fixture(scope="module")
def open_page(logs, printed):
    """Open a page of the dashboard that the run names, or of that of all runs."""
    (command,) = re.findall(r"^To see it:  tensorboard (.*)", printed, re.MULTILINE)
    with ExitStack() as stack:
        servers = {"one run": _serve(stack, logs, *command.split())}
        _train(logs, "quartic", "--from", "-1", "3", "--steps", "9", "--name", "quartic")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "BLOCK", 16)
            patch.setattr(engine, "Engine", partial(engine.Engine, compiled=False))
            some = ["--starts", "16", "--steps", "9", "--lr", "0.1", "1", "10"]
            _train(logs, "ensemble", *some, "--name", "ensemble")
        servers["all runs"] = _serve(stack, logs, "--logdir", "runs", "--load_fast", "false")
        trainers = ["post", "manual", "sgd"]
        runs = {
            "one run": [".", *trainers],
            "all runs": [
                "first",
                "quartic",
                "ensemble",
                *(f"first/{trainer}" for trainer in trainers),
            ],
        }
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=CHROMIUM, args=[f"--{flag}" for flag in FLAGS]
        )
        stack.callback(browser.close)
        context = browser.new_context(viewport=SIZE)
        context.route(re.compile("^http(?!://127[.])"), lambda route: route.abort())
        urls = {}
        for name, server in servers.items():
            urls[name] = _address(server)
            page = context.new_page()
            page.goto(f"{urls[name]}data/runs")  # a page of that server, and a light one
            page.wait_for_function(LOADED, arg=runs[name])
            page.close()

        tabs = {}

        def go(name, place, tab="any"):
            page = tabs.get((name, tab)) or context.new_page()
            page.goto(f"{urls[name]}#{place}")
            tabs[name, tab] = page
            return page

        yield go


@pytest.fixture(scope="module")
def many(tmp_path_factory, open_page):
    """The page on which TensorBoard opens after 15 comparisons: 60 runs, more than it ticks."""
    folder = tmp_path_factory.mktemp("many")
    for start in range(15):
        _train(folder, "--start", str(start), "--steps", "50", "--name", f"start-{start}")
    with ExitStack() as stack:
        server = _serve(stack, folder, "--logdir", "runs")
        url = _address(server)
        page = open_page("one run", "text", "many").context.new_page()
        stack.callback(page.close)
        page.goto(f"{url}data/runs")
        page.wait_for_function(LOADED, arg=["start-0", "start-14", "start-14/sgd"])
        page.goto(url)
        yield page


@pytest.fixture(scope="module")
def lockstep(logs, open_page):
    """The page whose address lockstep prints, of the post's loop against SGD."""
    command = ("lockstep", "builtin:post", "builtin:sgd", "--steps", "50", "--name", "lockstep")
    out = _train(logs, *command, status=1)
    (command,) = re.findall(r"^To see it:  tensorboard (.*)", out, re.MULTILINE)
    (place,) = re.findall(r"http://localhost:6006/(#\S+)", out)
    with ExitStack() as stack:
        server = _serve(stack, logs, *command.split())
        url = _address(server)
        page = open_page("one run", "text", "lockstep").context.new_page()
        stack.callback(page.close)
        page.goto(f"{url}data/runs")
        page.wait_for_function(LOADED, arg=["."])
        page.goto(f"{url}{place}")
        yield page


def _address(server):
    """Where a server listens, once it does."""
    address = next(line for line in server.stderr if "http://" in line)
    return re.search(r"http://127\.0\.0\.1:\d+/", address).group()


def _train(logs, *arguments, status=0):
    """Run the program there; what it prints."""
    with redirect_stdout(StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        patch.chdir(logs)
        assert main([*arguments]) == status
    return out.getvalue()


def _serve(stack, logs, *arguments):
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *arguments, "--host=127.0.0.1", "--port=0"],
        cwd=logs,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(server.stderr.close)
    stack.callback(server.wait)
    stack.callback(server.terminate)
    return server


@pytest.fixture(scope="module")
def questions(open_page, printed):
    """The page whose address the run prints, its charts drawn as they are; title → chart."""
    (place,) = re.findall(r"http://localhost:6006/#(\S+)", printed)
    page = open_page("one run", f"{place}&_smoothingWeight=0", "questions")
    cards = page.locator("tf-custom-scalar-multi-line-chart-card")
    # Two trainers differ from sgd, in 4 charts; three have a loss, an accuracy, a loss on the row
    # held out, an output for it, and one for each of 7 rows; to each of the former 2 limits.
    for what in (".match-list-entry", "path.line"):
        expect(cards.locator(what)).to_have_count(2 * 4 + 3 * (3 + 1 + 7) + 2 * 3)
    titles = cards.locator("tf-card-heading .heading-row:first-child")
    return page, dict(zip(titles.all_inner_texts(), cards.all(), strict=True))


def curves(card):
    """Tag and trainer → the curve in pixels, (points, 2), by the colour the legend gives it."""
    look = """(elements, property) => elements.map(element =>
        [getComputedStyle(element)[property], element.textContent, element.getAttribute("d")])"""
    entries = card.locator(".match-list-entry").evaluate_all(look, "color")
    paths = {
        colour: np.array(re.findall(r"[-\d.]+", path), float).reshape(-1, 2)
        for colour, _, path in card.locator("path.line").evaluate_all(look, "stroke")
    }
    return {re.search(r"\(([\w.]+)\)", text).group(1): paths[colour] for colour, text, _ in entries}


def test_all_three_trainers_are_listed(questions):
    page, _ = questions
    listed = page.locator("tf-runs-selector .item-label-container").all_text_contents()
    assert [name.strip() for name in listed] == [".", "post", "manual", "sgd"]


def test_the_printed_address_asks_three_questions_in_order(questions):
    page, charts = questions
    groups = page.locator("tf-category-paginated-view .category-name")
    assert groups.all_inner_texts() == [
        "Do they agree?",
        "Do they learn?",
        "What do they predict?",
    ]
    assert list(charts) == [
        "syn0: largest distance from sgd",
        "syn0: log10 of it (−20: no distance)",
        "syn1: largest distance from sgd",
        "syn1: log10 of it (−20: no distance)",
        "loss (curves that coincide hide one another)",
        "accuracy: share of rows right",
        "loss on the rows held out, which nobody learns",
        "held out, right is above ½: 111",
        "learned, right is above ½: 000, 001, 110",
        "learned, right is below ½: 010, 011, 100, 101",
    ]


def test_loss_curves_lie_over_one_another(questions):
    _, charts = questions
    drawn = curves(charts["loss (curves that coincide hide one another)"])
    assert set(drawn) == {"post", "manual", "sgd", "."}
    del drawn["."]  # the limits, of one colour
    assert np.array_equal(drawn["manual"], drawn["sgd"])
    assert not np.array_equal(drawn["post"], drawn["sgd"])
    steps, height = drawn["sgd"].T
    assert abs(height - np.interp(steps, *drawn["post"].T)).max() < 2  # pixels: one to the eye
    for line in drawn.values():
        steps, height = line.T
        assert np.ptp(steps) > 200  # pixels, of a chart that is 330 wide
        assert np.ptp(height) > 100
        assert height.min() > 0  # the start, which the scale would leave out by itself


@pytest.mark.parametrize("weight", ["syn0", "syn1"])
def test_manual_stays_at_zero_and_post_leaves_at_once(questions, weight):
    _, charts = questions
    distance = curves(charts[f"{weight}: largest distance from sgd"])
    logarithm = curves(charts[f"{weight}: log10 of it (−20: no distance)"])
    for drawn in (distance, logarithm):
        assert set(drawn) == {"post", "manual"}
        assert np.ptp(drawn["manual"][:, 1]) == 0
        assert (drawn["post"][0] == drawn["manual"][0]).all()
    # Upwards is less. The distance grows over the run; its logarithm is there at the second step.
    assert np.ptp(distance["post"][:, 1]) > 100
    assert logarithm["post"][0, 1] - logarithm["post"][2, 1] > 100


def test_the_text_tells_the_outcome(open_page):
    page = open_page("one run", "text")
    first = page.locator("tf-text-loader").first
    expect(first).to_contain_text("manual = sgd: the same bits in all 60 weights")
    expect(first).to_contain_text("post ≠ sgd: they part at step 1 in syn0")
    expect(first.locator("#heading-run")).to_have_text(".")


def test_the_table_of_hparams_has_a_line_for_each_trainer(open_page):
    page = open_page("one run", "hparams")
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    for text in ("trainer", "table", "lr", "steps", "start", "loss", "accuracy"):
        expect(cells.filter(has_text=re.compile(rf"^\s*{text}\s*$"))).to_have_count(1)
    # As the trial, and as an hparam; post is each one's table, too.
    for trainer, count in {"post": 2 + 3, "manual": 2, "sgd": 2}.items():
        expect(cells.filter(has_text=re.compile(rf"^\s*{trainer}\s*$"))).to_have_count(count)


def test_histograms_are_drawn_for_each_trainer(open_page):
    page = open_page("one run", "histograms", "picture")
    cards = page.locator("tf-histogram-loader")
    for tag in ("hidden", "syn0"):  # the third group opens at a click
        for trainer in ("manual", "post", "sgd"):
            card = cards.filter(has=page.locator("#heading-run", has_text=trainer)).filter(
                has=page.locator(".name", has_text=tag)
            )
            expect(card.locator(".histogram path")).to_have_count(50)


def test_images_are_shown(open_page):
    page = open_page("all runs", "images&regexInput=quartic")
    image = page.locator("tf-image-loader img")
    expect(image).to_have_count(1)
    page.wait_for_function("image => image.naturalWidth > 400", arg=image.element_handle())


def test_an_ensemble_is_drawn_over_its_learning_rates(open_page):
    page = open_page("all runs", "custom_scalars&_smoothingWeight=0", "ensemble")
    titles = [
        *(f"share: {kind}" for kind in ("all rows right", "held-out row 111 right", "stuck")),
        *("share: still falling", "log10 of the loss: median, 1 to 99 %"),
    ]
    cards = page.locator("tf-custom-scalar-margin-chart-card")
    expect(cards.locator("tf-card-heading .heading-row:first-child")).to_have_text(titles)
    for title in titles:
        card = cards.filter(has_text=title)
        line = card.locator("path.line").first
        expect(line).to_be_attached()
        at, up = np.array(re.findall(r"[-\d.]+", line.get_attribute("d")), float).reshape(-1, 2).T
        assert up.min() > 0  # within the chart
        assert len(at) == 3  # learning rates 0.1, 1 and 10
        # Equally far from one another, to a pixel.
        assert abs(at[2] - 2 * at[1] + at[0]) < 1


@pytest.mark.parametrize("dashboard", ["one run", "all runs"])  # by either of two servers
def test_charts_say_what_they_show(open_page, dashboard):
    page = open_page(dashboard, "scalars&_smoothingWeight=0&tagFilter=loss|accuracy|difference")
    card = (
        page.locator("tf-scalar-card")
        .filter(has=page.locator(".name", has_text="difference_log10/syn0"))
        .first
    )
    card.locator("tf-card-heading paper-icon-button").click()
    description = card.locator("#descriptionDialog")
    expect(description).to_be_visible()
    expect(description).to_contain_text("−20 stands for no difference")
    tags = page.request.get(f"{page.url.partition('#')[0]}data/plugin/scalars/tags").json()
    for run in ("post", "manual", "sgd"):
        charts = tags[run if dashboard == "one run" else f"first/{run}"]
        assert {"loss", "accuracy", "held_out/111", "weight_norm/syn0"} <= set(charts)
        assert all(chart["description"] for chart in charts.values())


def test_after_many_comparisons_it_opens_on_curves(many):
    card = many.locator("scalar-card").first
    expect(card).to_contain_text("start-0/manual")  # in the table below its chart
    many.wait_for_timeout(1000)  # a curve has no mark of having been drawn
    shown = Image.open(BytesIO(card.locator("line-chart").screenshot())).convert("HSV")
    saturation = np.asarray(shown)[..., 1]
    assert (saturation > 100).sum() > 300  # pixels in colour: axes and labels are grey


def test_a_name_above_the_list_ticks_its_runs_among_many(many):
    many.locator(".plugins .mat-mdc-tab", has_text="Custom Scalars").click()
    lines = many.locator("tf-custom-scalar-multi-line-chart-card path.line")
    expect(many.locator("tf-runs-selector .item-label-container")).to_have_count(60)
    expect(many.locator(".matches-text").first).to_be_attached()
    assert lines.count() == 0
    many.locator("tf-runs-selector #names-regex input").fill("start-14")
    expect(lines.first).to_be_attached()


def test_lockstep_opens_on_the_cause_and_its_charts(lockstep):
    groups = lockstep.locator("tf-category-paginated-view .category-name")
    expect(groups).to_have_text(
        [re.compile(r"Do they agree\? \(cause: "), "How large are the weights?"]
    )
    cards = lockstep.locator("tf-custom-scalar-multi-line-chart-card")
    # Of two weights a distance and its two limits, a logarithm, and two norms and their limits.
    expect(cards.locator("path.line")).to_have_count(2 * (3 + 1 + 4))
    lockstep.locator(".plugins .mat-mdc-tab", has_text="Text").click()
    expect(lockstep.locator("tf-text-loader")).to_contain_text("First difference: step 1")


def test_the_picture_of_the_printed_address(questions, printed):
    page, _ = questions
    take(page, "custom-scalars", printed)


def take(page, name, printed):
    """In CI, see that docs/dashboard-NAME.png is of this run and these charts, or take it anew.

    The file says what it is of; pixels shift with fonts, and a little from run to run.
    """
    if not CI:
        return
    titles = page.locator(".category-name, tf-card-heading .heading-row").all_text_contents()
    of = "\n".join([printed, *(" ".join(title.split()) for title in titles)])
    file = ROOT / "docs" / f"dashboard-{name}.png"
    if not file.exists() or Image.open(file).text.get("of") != of:
        carried = PngInfo()
        carried.add_itxt("of", of)
        shown = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        shown.quantize(256).save(file, optimize=True, pnginfo=carried)
        pytest.fail(f"{file} was out of date and has been taken anew: look at it, and commit it")
