"""The numbers that TensorBoard shows of networks, what it says about them, and in which chart."""

from __future__ import annotations

__all__ = [
    "DESCRIPTIONS",
    "OF_LOCKSTEP",
    "OF_QUARTIC",
    "SAID",
    "layout",
    "layout_of_lockstep",
    "layout_of_quartic",
    "measure",
    "reference_of",
]

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from ..data import Rows, Table
from ..net import SigmoidNet, squared_error

Layout = dict[str, dict[str, list[str | list[str]]]]
BY_HAND = {"post", "manual"}  # all others are of torch.optim; these are compared with them
MANY_ROWS = 16  # more lines make a chart that nobody can read
SAID = {  # of a tag, by more than one command
    "difference_log10": "The logarithm to base 10 of *difference*, so that 1e-15 can be seen "
    "beside 1e-2. −20 stands for no difference, or one below 1e-20. For a number near 1, the last "
    "bit is −16 in float64 and −7 in float32.",
    "weight_norm": "Euclidean norm of this weight after this step.",
    "step_size": "How far the line search went along the gradient to come here.",
    "range": "Where the curves of a chart on the Custom Scalars page begin and end, as level lines "
    "or a band. TensorBoard's scale leaves out a twentieth of a chart's points at either end, and "
    "these hold it open. On other pages, untick *Ignore outliers in chart scaling* to see every "
    "point.",
}
DESCRIPTIONS = SAID | {
    "loss": "½ Σ (target − output)² over the rows learned. Curves that coincide hide one another: "
    "the charts under *difference* tell them apart.",
    "accuracy": "Share of the rows learned whose output lies on the same side of ½ as the target; "
    "1 is all of them.",
    "difference": "The largest difference of any element of this weight from torch.optim's (sgd, "
    "or another) at the same step; from the last trainer named, where that does not run. manual is "
    "to stay at 0: the same bits. post leaves in its first steps, because it updates syn1 before "
    "it uses it for syn0. TensorBoard prints less than 1e-15 as 0; *difference log10* does not.",
    "held_out/loss": "½ Σ (target − output)² over the rows held out, which no trainer sees.",
    "held_out": "The output for a row that no trainer sees; the tag names its inputs or its "
    "number in the table.",
    "prediction": "The output for a row learned; the tag names its inputs or its number in the "
    "table.",
    "gradient_norm": "Euclidean norm of the loss's gradient by this weight, over all rows learned, "
    "at the weights after this step.",
    "step_size_log10": "The logarithm to base 10 of *step size*; −20 stands for 0.",
    "curvature/sharpness": "The largest eigenvalue of the loss's Hessian. Above *curvature/limit*, "
    "steps are not stable.",
    "curvature/smallest": "The smallest eigenvalue of the loss's Hessian. Below 0, the loss is not "
    "convex here.",
    "curvature/limit": "The sharpness up to which steps are stable: 2 / lr, more with momentum.",
    "syn0": "The weights from the inputs to the hidden units, all elements.",
    "syn1": "The weights from the hidden units to the output, all elements.",
    "hidden": "The outputs of the hidden units for all rows learned.",
    "curves": "Above, the loss along training; below, the largest distance of any weight from the "
    "reference's, where 0 is the same bits. Click the picture to enlarge it.",
}
OF_QUARTIC = SAID | {
    "loss": "f(x) = x⁴/4 − x³ + x²: 0 at both minima, x = 0 and x = 2, and ¼ at the maximum "
    "between them, x = 1.",
    "x": "Where this start has come. A curve that stays level is at rest, on a minimum or, from 1, "
    "on the maximum.",
    "gradient": "f′(x) = x (x − 1) (x − 2) at this step's x, signed; each step goes against it, or "
    "along it with --maximize.",
    "difference": "|x of manual − x of sgd| at the same step; 0 is the same bits.",
    "quartic": "f(x) and the path from each start on it, and below it x at each step. A circle is "
    "a start, a dot a step, a diamond where it ended. Click the picture to enlarge it.",
}
OF_LOCKSTEP = SAID | {
    "difference": "The largest difference of any element of this weight, mine from theirs, at the "
    "same step; what it comes from is on the Text page. TensorBoard prints less than 1e-15 as 0; "
    "*difference log10* does not.",
}


@torch.no_grad()
def measure(networks: SigmoidNet, table: Table) -> tuple[list[str], list[list[float]]]:
    """Every scalar that is logged of networks side by side.

    The norms of the gradient are those of the loss over all rows learned, at these weights.

    Args:
        networks: weights with a leading dimension, one network each.
        table: the rows to learn and held out.

    Returns:
        The tags, and for each network a value for each tag.
    """
    output = networks(table.learned.inputs)  # (networks, rows, 1)
    right = (output > 0.5) == (table.learned.targets > 0.5)  # the same side of ½
    scalars = {
        "loss": squared_error(output, table.learned.targets),
        "accuracy": right.to(output.dtype).mean(dim=(-2, -1)),
    }
    outputs = {"prediction": output}
    if table.held_out_labels:
        outputs["held_out"] = networks(table.held_out.inputs)
        scalars["held_out/loss"] = squared_error(outputs["held_out"], table.held_out.targets)
    for name, gradient in networks.gradient(table.learned).items():
        weights = networks.get_parameter(name)
        scalars[f"gradient_norm/{name}"] = torch.linalg.vector_norm(gradient, dim=(-2, -1))
        scalars[f"weight_norm/{name}"] = torch.linalg.vector_norm(weights, dim=(-2, -1))
    tags, values = list(scalars), [torch.stack(list(scalars.values()), dim=1)]
    for tag, labels, _ in _row_by_row(table):
        tags += [f"{tag}/{label}" for label in labels]
        values.append(outputs[tag].flatten(1))
    return tags, torch.cat(values, dim=1).tolist()


def layout(table: Table, trainers: Sequence[str], *, steepest: bool, curvature: bool) -> Layout:
    """The page of custom scalars: groups of charts, each with at least one curve.

    Args:
        table: the rows to learn and held out.
        trainers: the names of those shown.
        steepest: whether `step_size` is logged.
        curvature: whether the tags of `curvature` are logged.

    Returns:
        Group → title → chart, as `torch.utils.tensorboard.summary.custom_scalars` takes it.
    """
    groups = {
        "Do they agree?": {},
        "Do they learn?": {
            "loss (curves that coincide hide one another)": _whole("loss"),
            "accuracy: share of rows right": _whole("accuracy"),
        },
        "What do they predict?": _outputs(table),
    }
    if len(trainers) > 1:
        reference = reference_of(trainers)
        for weight in ("syn0", "syn1"):
            distance = f"{weight}: largest distance from {reference}"
            groups["Do they agree?"][distance] = f"difference/{weight}"
            logarithm = f"{weight}: log10 of it (−20: no distance)"
            groups["Do they agree?"][logarithm] = f"difference_log10/{weight}"
    if table.held_out_labels:
        held_out = "loss on the rows held out, which nobody learns"
        groups["Do they learn?"][held_out] = _whole("held_out/loss")
    if steepest:
        groups["How far?"] = {
            "step size that the line search chose": "step_size",
            "log10 of it": "step_size_log10",
        }
    if curvature:
        groups["At the edge?"] = {
            "sharpness, and the limit of stable steps": "curvature/(sharpness|limit)",
            "smallest eigenvalue (below 0: not convex)": "curvature/smallest",
        }
    return _charts(groups)


def reference_of(trainers: Sequence[str]) -> str:
    """The one that others are compared with: torch.optim's, or the last where that does not run."""
    return next((name for name in trainers if name not in BY_HAND), trainers[-1])


def layout_of_quartic(*, steepest: bool) -> Layout:
    """The same for starts on the quartic, each of them a run; `steepest` as for `layout`."""
    groups = {
        "Where do they go?": {"x": _whole("x"), "f(x)": _whole("loss")},
        "How steep is it there?": {"f′(x)": _whole("gradient")},
        "Do manual and sgd agree?": {"distance of manual's x from sgd's": "difference/x"},
    }
    if steepest:
        groups["How steep is it there?"]["step size that the line search chose"] = "step_size"
    return _charts(groups)


def layout_of_lockstep(weights: Iterable[str], cause: str) -> Layout:
    """The same for two trajectories; the cause that was found stands in the title."""
    agree, norms = {}, {}
    for name in weights:
        tag = re.escape(name)
        agree[f"{name}: largest distance of mine from theirs"] = _whole(f"difference/{tag}")
        agree[f"{name}: log10 of it (−20: no distance)"] = f"difference_log10/{tag}"
        norms[f"{name}: Euclidean norm"] = _whole(f"weight_norm/{tag}")
    told = f"{cause}; the report is on the Text page"
    return _charts({f"Do they agree? ({told})": agree, "How large are the weights?": norms})


def _whole(tag: str) -> str:
    """The pattern of a chart that shows a tag's whole range (see `show_ranges`)."""
    return f"({tag}|range/{tag}/.*)"


def _charts(groups: Mapping[str, Mapping[str, str]]) -> Layout:
    return {
        group: {title: ["Multiline", [f"^{tag}$"]] for title, tag in charts.items()}
        for group, charts in groups.items()
        if charts
    }


def _outputs(table: Table) -> dict[str, str]:
    """One chart for the rows whose target is above ½, another for the rest."""
    charts = {}
    for tag, labels, rows in _row_by_row(table):
        what = "held out" if tag == "held_out" else "learned"
        above = (rows.targets > 0.5).flatten().tolist()
        for side, right in ((True, "above"), (False, "below")):
            chosen = [label for label, a in zip(labels, above, strict=True) if a is side]
            if chosen:
                title = f"{what}, right is {right} ½: {', '.join(chosen)}"
                charts[title] = f"{tag}/({'|'.join(chosen)})"
    return charts


def _row_by_row(table: Table) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    """The tables with few enough rows for a curve each: tag, labels, rows."""
    if 0 < len(table.held_out_labels) <= MANY_ROWS:
        yield "held_out", table.held_out_labels, table.held_out
    if len(table.learned_labels) + len(table.held_out_labels) <= MANY_ROWS:
        yield "prediction", table.learned_labels, table.learned
