"""`--optimizer`: any of torch.optim's rules in place of SGD, on the command line."""

import json
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from gdtorch import SigmoidNet, load_table
from gdtorch.optimizers import RULES, Adam

OTHERS = [name for name in RULES if name != "SGD"]
ADAM = "Adam(lr=0.01, betas=(0.9, 0.99), amsgrad=True)"


def facts_of(main, *arguments):
    status, out, error = main("--json", *arguments)
    assert (status, error) == (0, "")
    return json.loads(out)


def read(folder):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return reader


def final(tmp_path, run, trainer):
    return torch.load(tmp_path / "runs" / run / trainer / "final.pt", weights_only=True)


def torchs_own(optimizer, steps):
    """The post's network after so many steps of it, all rows a step."""
    net = SigmoidNet().double()
    rows = load_table("post").learned
    taken = optimizer(net.parameters())
    for _ in range(steps):
        taken.zero_grad()
        net.loss(rows).backward()
        taken.step()
    return net.state_dict()


def assert_same(weights, others):
    assert set(weights) == set(others)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("rule", OTHERS)
def test_by_hand_and_for_real_hold_the_same_bits(main, rule):
    status, out, error = main("--optimizer", rule, "--steps", 20)
    same = f"manual = {rule.lower()}: the same bits in all 60 weights after each of 20 steps"
    assert (status, error) == (0, "")
    assert same in out.splitlines()
    assert f"post is left out: its loop has no --optimizer {rule}" in out
    assert re.search(rf"^{rule.lower()} +0\.\d+|^{rule.lower()} +1\.\d+", out, re.MULTILINE)


@pytest.mark.parametrize("rule", OTHERS)
def test_all_other_options_go_with_each(main, tmp_path, rule):
    """At once; the curvature has no limit, for there is none but for SGD."""
    torch.save(SigmoidNet(start=9).double().state_dict(), tmp_path / "w.pt")
    options = ["--descent", "stochastic", "--maximize", "--curvature", 5, "--init", "w.pt"]
    facts = facts_of(main, "--optimizer", rule, "--steps", 10, *options, "--name", "x")
    assert facts["comparisons"]["manual"]["identical"] is True
    assert set(facts["left_out"]) == {"post"}
    for trainer in ("manual", rule.lower()):
        tags = read(tmp_path / "runs" / "x" / trainer).Tags()["scalars"]
        assert {tag for tag in tags if "curvature" in tag} == {
            "curvature/sharpness",
            "curvature/smallest",
        }


@pytest.mark.parametrize("rule", OTHERS)
def test_a_line_search_goes_with_none_of_them(main, rule):
    status, out, error = main("--optimizer", rule, "--descent", "steepest")
    assert (status, out) == (2, "")
    assert error == (
        f"gdtorch: --descent steepest goes along the gradient alone; leave out --optimizer {rule}\n"
    )


@pytest.mark.parametrize("descent", ["batch", "stochastic", "steepest"])
def test_plain_sgd_goes_with_every_descent(main, descent):
    _, out, _ = main("--optimizer", "SGD", "--descent", descent, "--steps", 5)
    assert "manual = sgd: the same bits in all 60 weights after each of 5 steps" in out


def test_the_options_are_those_of_torchs_own(main, tmp_path):
    main("--quiet", "--optimizer", ADAM, "--steps", 30, "--name", "x")
    options = {"lr": 0.01, "betas": (0.9, 0.99), "amsgrad": True}
    wanted = torchs_own(lambda weights: torch.optim.Adam(weights, **options), 30)
    for trainer in ("manual", "adam"):
        assert_same(final(tmp_path, "x", trainer), wanted)


def test_left_out_options_are_torchs_defaults_lr_too(main, tmp_path):
    main("--quiet", "--optimizer", "RMSprop", "--steps", 10, "--name", "x")
    assert_same(final(tmp_path, "x", "manual"), torchs_own(torch.optim.RMSprop, 10))


def test_float32_likewise(main):
    facts = facts_of(main, "--optimizer", ADAM, "--steps", 20, "--dtype", "float32")
    assert facts["comparisons"]["manual"]["identical"] is True


@pytest.mark.parametrize("options", [["--maximize"], []], ids=["option", "within"])
def test_it_ascends(main, options):
    """From the outside or from within the parentheses."""
    rule = "Adam(lr=0.1)" if options else "Adam(lr=0.1, maximize=True)"
    facts = facts_of(main, "--optimizer", rule, "--steps", 50, *options)
    assert facts["settings"]["maximize"] is True
    losses = {trainer["loss"] for trainer in facts["trainers"].values()}
    assert min(losses) > 1.350  # that of the initial weights
    assert len(losses) == 1


@pytest.mark.parametrize(
    ("options", "heading"),
    [
        ([ADAM], f"1 row held out; 5 steps of descent by {ADAM}"),
        (["Adam"], "5 steps of descent by Adam(lr=0.001)"),
        (["AdamW(weight_decay=0.01)", "--maximize"], "5 steps of ascent by AdamW(lr=0.001)"),
        (["Rprop(etas=[0.25, 2])"], "5 steps of descent by Rprop(lr=0.01, etas=(0.25, 2.0))"),
        (
            ["Adadelta", "--descent", "stochastic"],
            "stochastic descent, one row a step, all rows in each epoch, by Adadelta(lr=1.0)",
        ),
        (["SGD(lr=0.5, momentum=0.9)"], "5 steps of descent at lr 0.5"),
    ],
)
def test_the_heading_names_the_optimizer(main, options, heading):
    _, out, _ = main("--steps", 5, "--optimizer", *options)
    assert out.splitlines()[1].endswith(heading.removeprefix("1 row held out; "))


def test_json_holds_its_name_and_options_and_none_of_sgds(main):
    settings = facts_of(main, "--optimizer", ADAM, "--steps", 2)["settings"]
    assert settings["optimizer"] == "Adam"
    wanted = Adam(lr=0.01, betas=[0.9, 0.99], amsgrad=True).options()
    assert {name: settings[name] for name in wanted} == wanted
    assert not {"momentum", "dampening", "nesterov"} & set(settings)


def test_json_says_sgd_where_none_is_named(main):
    assert facts_of(main, "--steps", 2)["settings"]["optimizer"] == "SGD"


def test_sgd_within_the_parentheses_is_sgds_options(main):
    """The post's loop is in it as ever, and what it lacks is named likewise."""
    plain = facts_of(main, "--lr", 0.5, "--steps", 5)
    named = facts_of(main, "--optimizer", "SGD(lr=0.5)", "--steps", 5)
    options = ["--lr", 1, "--momentum", 0.5, "--nesterov", "--weight-decay", 0.1]
    with_momentum = facts_of(main, *options, "--steps", 5)
    rule = "SGD(lr=1, momentum=0.5, nesterov=True, weight_decay=0.1)"
    named_with_momentum = facts_of(main, "--optimizer", rule, "--steps", 5)
    for one, other in ((plain, named), (with_momentum, named_with_momentum)):
        assert {**one, "run": ""} == {**other, "run": ""}
    assert list(named["trainers"]) == ["post", "manual", "sgd"]


def test_sgd_within_the_parentheses_can_be_compiled(main):
    """As far as it is looked at before anything is: the same is refused for the same reason."""
    _, _, error = main("--optimizer", "SGD", "--compile", "--steps", 7)
    assert "--compile takes 10 steps at a time: --steps 7 is no multiple" in error


def test_trainers_can_be_chosen_by_name(main):
    for chosen in (["adam", "manual"], ["adam"], ["manual"]):
        facts = facts_of(main, "--optimizer", ADAM, "--steps", 2, "--trainers", *chosen)
        assert all(c["reference"] == "adam" for c in facts["comparisons"].values())
        assert list(facts["trainers"]) == chosen
        assert facts["left_out"] == {}


def test_it_starts_from_saved_weights(main, tmp_path):
    torch.save(SigmoidNet(start=9).double().state_dict(), tmp_path / "w.pt")
    main("--quiet", "--optimizer", ADAM, "--steps", 7, "--init", "w.pt", "--name", "a")
    main("--quiet", "--optimizer", ADAM, "--steps", 7, "--start", 9, "--name", "b")
    assert_same(final(tmp_path, "a", "adam"), final(tmp_path, "b", "adam"))


@pytest.mark.slow
def test_a_step_that_differs_is_status_1(main, monkeypatch):
    monkeypatch.setattr(Adam, "step", lambda _, weight, grad, __: weight.sub_(grad))
    status, out, error = main("--optimizer", ADAM, "--steps", 3)
    assert (status, error) == (1, "")
    assert "manual ≠ adam: they part at step 1 in syn" in out


def test_a_step_that_cannot_be_taken_ends_the_run(main, tmp_path):
    """torch takes a lambd below 0, and then divides by 1 + lambd · lr · t."""
    rule = "ASGD(lr=1, lambd=-0.25)"
    status, out, error = main("--optimizer", rule, "--steps", 10, "--name", "x")
    assert status == 3
    assert error == (
        "gdtorch: ASGD cannot go on after step 3: float division by zero; all until then is in "
        "runs/x\n"
    )
    assert "3 steps of descent by ASGD(lr=1.0, lambd=-0.25)" in out
    assert [event.step for event in read(tmp_path / "runs" / "x" / "asgd").Scalars("loss")] == [
        *range(4)
    ]


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [
        ("Adam(lr=3e38)", "float32"),  # lr / (1 − β₁)
        ("ASGD(alpha=1e308)", "float64"),
        ("ASGD(lr=1, lambd=-1)", "float64"),
    ],
)
def test_numbers_that_make_no_step_are_refused(main, tmp_path, rule, dtype):
    status, out, error = main("--optimizer", rule, "--dtype", dtype)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"gdtorch: --optimizer: with these .* overflows {dtype}; .*\n", error)
    assert list(tmp_path.iterdir()) == []


def test_integers_of_any_size_are_numbers(main):
    status, out, _ = main("--optimizer", f"Adam(eps={10**300})", "--steps", 2)
    assert status == 0
    assert "by Adam(lr=0.001, eps=1e+300)" in out


# TensorBoard.


@pytest.fixture
def logged(main, tmp_path):
    """The readers of a run of Adam and of one of SGD, each with the curvature."""
    main("--quiet", "--steps", 4, "--curvature", 2, "--name", "adam", "--optimizer", ADAM)
    main("--quiet", "--steps", 4, "--curvature", 2, "--name", "sgd", "--trainers", "manual", "sgd")
    folders = (tmp_path / "runs" / name for name in ("adam", "sgd"))
    adam, sgd = ({p.name: read(p) for p in f.iterdir() if p.is_dir()} for f in folders)
    return adam, sgd


def test_the_tags_are_those_of_sgd_but_for_the_limit(logged):
    adam, sgd = logged
    assert set(adam) == {"manual", "adam"}
    for mine, sgds in (("manual", "manual"), ("adam", "sgd")):
        tags, theirs = adam[mine].Tags(), sgd[sgds].Tags()
        assert set(theirs["scalars"]) - set(tags["scalars"]) == {"curvature/limit"}
        for kind in ("scalars", "histograms", "tensors"):
            assert set(tags[kind]) <= set(theirs[kind])
    assert "difference/syn0" in adam["manual"].Tags()["scalars"]


def test_hparams_hold_its_name_and_options(logged):
    adam, _ = logged
    for name, reader in adam.items():
        content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        session = HParamsPluginData.FromString(content).session_start_info.hparams
        assert session["trainer"].string_value == name
        assert session["optimizer"].string_value == "Adam"
        assert session["lr"].number_value == 0.01
        assert session["eps"].number_value == 1e-8
        assert session["betas"].string_value == "(0.9, 0.99)"
        assert session["amsgrad"].number_value == 1
        assert "momentum" not in session


def test_the_charts_name_the_reference(main, tmp_path):
    """Wherever it stands among the trainers."""
    options = ["--optimizer", "Adam", "--trainers", "adam", "manual", "--name", "x"]
    main("--quiet", "--steps", 1, *options)
    proto = read(tmp_path / "runs" / "x").Tensors("custom_scalars__config__")[0].tensor_proto
    assert b"syn0: largest distance from adam" in proto.string_val[0]
