"""Trajectories side by side: after every step, do they hold the same bits, and where do they part?

A trajectory is an iterable of weights, name → array: first the initial weights, then the weights
after each step. The arrays may be live, changed in place by the next step.
"""

from __future__ import annotations

__all__ = ["Inspection", "Lockstep", "Report", "lockstep"]

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from .diagnosis import Diagnosis, Edit, listed
from .distance import Comparison, Difference, WeightDifference, Weights, farthest
from .observing.observe import Observer
from .observing.products import in_full, in_words
from .reading.pairing import Pairing, pair
from .reading.reading import (
    Trajectory,
    check_memory,
    on_one_device,
    one_thread,
    plain_defaults,
    read,
)
from .reading.start import Start
from .replaying.record import Keeper, has_page
from .report.explain import explain
from .report.findings import diagnose
from .rounding import coarser
from .search.screening import Progress, silent
from .search.search import SECONDS_OF_BREAKS as SECONDS

AGREEING = {"identical", "rounding"}  # causes
SURE = 32  # bits; numbers with fewer tell little
DRIFT = 1e5  # roundings: how far they may have carried the weights in the end
FINER = (
    "The two are many roundings apart by now, as float32 allows; but a difference of less than one "
    "rounding a step would look the same: compare in float64, too."
)
OTHER_RULE = "Theirs steps by {}, which is not replayed. Train both by SGD: do they agree then?"
VIEWS = (
    "Theirs yields views of its parameters, as weight.T is one. Let it yield the parameters "
    "themselves, and more can be found: weights are paired if they are transposed, too."
)
SWAP = (
    "Theirs was not seen to train in PyTorch, so nothing is known of the steps after the first "
    "that differs. If mine does, swap the two, and more can be found."
)


class Lockstep:
    """Advance trajectories together, one step at a time, each compared to the reference.

    Iterating yields the number of steps taken, from 0. For each trajectory but the reference,
    `differences` then holds the largest |mine − theirs| of each weight at that step, and
    `comparisons` what has been seen since step 0. The shortest trajectory ends it.

    Args:
        trajectories: name → trajectory, of the same weights in the same dtype on one device.
        reference: the name of the one that all others are compared to.
        stride: how many steps lie between the weights that the trajectories yield.

    Example:
        >>> net, rows = SigmoidNet().double(), load_table("post").learned
        >>> both = Lockstep({"manual": Manual(net, rows), "sgd": SGD(net, rows)}, reference="sgd")
        >>> for step in both:
        ...     if step == 3: break
        >>> both.differences
        {'manual': {'syn0': 0.0, 'syn1': 0.0}}
    """

    def __init__(
        self, trajectories: Mapping[str, Iterable[Weights]], reference: str, stride: int = 1
    ) -> None:
        self.trajectories = trajectories
        self.reference = reference
        self.stride = stride
        self.comparisons = {name: Comparison() for name in trajectories if name != reference}
        self.differences: dict[str, dict[str, float]] = {}

    def __iter__(self) -> Iterator[int]:
        together = zip(*self.trajectories.values(), strict=False)
        for step, weights in zip(count(0, self.stride), together, strict=False):
            current = dict(zip(self.trajectories, weights, strict=True))
            for name, comparison in self.comparisons.items():
                self.differences[name] = comparison.update(
                    step, current[name], current[self.reference]
                )
            yield step


@dataclass(frozen=True)
class Report:
    """What `lockstep` found; printed, it says what was seen, what it means and what to change.

    A report is true where the two agree, so that `assert lockstep(mine, theirs)` is a test.

    Args:
        cause: why the two part, in a word of the tables of docs/lockstep.md.
        factor: the number that belongs to the cause (mine over theirs, or mine minus theirs), a
            dict weight → multiple for `scale of one weight`, else None.
        steps: how many steps were compared.
        first_difference: the first step at which they differ by more than rounding explains or, if
            rounding explains it all, in any bit; and the weight and the element that then differ
            most. None if there is none.
        weights: for each weight, since when and how far it differs.
        edits: what mine does otherwise than theirs, if theirs is PyTorch code and a replay has
            shown it: with these edits theirs takes mine's steps.
        reproduced: in how many steps that has been shown.
        residual: the largest distance then left in any of them, in roundings; None without edits.
        diagnosis: the cause with its evidence.
        text: the report in words.

    Example:
        >>> down, up = ({"w": [1.0]}, {"w": [0.5]}), ({"w": [1.0]}, {"w": [1.5]})
        >>> report = lockstep(down, up)
        >>> report.cause, report.factor, report.agree
        ('sign', -1.0, False)
    """

    cause: str
    factor: float | dict[str, float] | None
    steps: int
    first_difference: Difference | None
    weights: dict[str, WeightDifference]
    edits: tuple[Edit, ...]
    reproduced: int
    residual: float | None
    diagnosis: Diagnosis
    text: str

    @property
    def identical(self) -> bool:
        """Whether both held the same bits throughout."""
        return self.cause == "identical"

    @property
    def agree(self) -> bool:
        """Whether the two are identical, or apart by rounding only."""
        return self.cause in AGREEING

    def __bool__(self) -> bool:
        return self.agree

    def __str__(self) -> str:
        return self.text


class Inspection:
    """Two trajectories of the user's own, advanced together; `lockstep` with a look at each step.

    Iterating yields the number of steps taken, from 0. `weights` then holds the weights of both,
    `differences` the largest |mine − theirs| of each weight. Call `report()` at the end. The
    arguments are those of `lockstep`, and `who`, the names of both in messages.

    Raises:
        ValueError: the two cannot be compared at all; here or while iterating.
    """

    def __init__(
        self,
        mine: Trajectory,
        theirs: Trajectory,
        steps: int = 100,
        *,
        rows: int | None = None,
        rename: Mapping[str, str] | None = None,
        lr: float | None = None,
        who: tuple[str, str] = ("mine", "theirs"),
    ) -> None:
        _check("steps", steps, int, 0)
        _check("rows", 1 if rows is None else rows, int, 1)
        _check("lr", 0 if lr is None else lr, float, 0)
        if mine is theirs and isinstance(mine, Iterator):
            raise ValueError("mine and theirs are one iterator; make two")
        self.observer, self.of_mine = Observer(), Observer()
        self.keeper = Keeper(self.observer, self.of_mine, steps)
        self.read = (
            read(mine, who[0], self._watching_mine),
            read(theirs, who[1], self.observer.watching),
        )
        self.rename = dict(rename or {})
        self.steps, self.rows, self.lr = steps, rows, lr
        self.complete = self.ended = False
        self.refusal: Diagnosis | None = None  # why nothing can be compared
        self.comparison = Comparison()
        self.weights: tuple[Weights, Weights] = ({}, {})
        self.differences: dict[str, float] = {}
        self.parting: Difference | None = None
        self.pairing = Pairing({}, None)
        self.start: Start | None = None  # the initial weights, while none has moved
        self.precisions = (torch.float64, torch.float64)  # of mine and theirs
        # Since which step which weights are finite in neither.
        self.blind: tuple[int, tuple[str, ...]] | None = None

    def _watching_mine(self) -> AbstractContextManager[None]:
        return self.of_mine.watching() if self.keeper.watches_mine else nullcontext()

    def __iter__(self) -> Iterator[int]:
        with closing(self.read[0]), closing(self.read[1]):
            yield from self._steps()

    def _steps(self) -> Iterator[int]:
        for step, both in enumerate(zip(*self.read, strict=False)):
            with plain_defaults():
                if not self._take(step, *self._renamed(*both)):
                    return
            self.complete = step == self.steps
            yield step
            if self.complete:
                return
            if not self.refusal:
                self.keeper.put(self.weights[0])
        self.ended = True

    def _take(self, step: int, mine: Weights, theirs: Weights) -> bool:
        """See the weights after a step; False if they cannot be compared."""
        if step == 0:
            self.pairing = pair(*on_one_device(mine, theirs), list(self.rename.values()))
            self.refusal = self.pairing.refusal
            if self.refusal:
                return False
        mine, theirs = self.pairing.named(mine, theirs)
        if step == 1:
            check_memory(mine, theirs)
        mine, theirs = on_one_device(mine, theirs)
        self.weights = mine, theirs
        self.differences = self.comparison.update(step, mine, theirs)
        if self.blind is None and (broken := _finite_in_neither(mine, theirs)):
            self.blind = step, broken
        if step == 0:
            start = Start(mine, theirs, max(self.differences.values()))
            self.refusal, self.precisions = start.refusal, start.precisions
            self.keeper.begin(start.mine, start.theirs, self.pairing.layout())
            self.start = start
            return True
        if step == 1 and self.start:
            self.start.settle(mine, theirs)
            self.refusal, self.precisions = self.start.refusal, self.start.precisions
        if self.start and self.start.has_moved(mine, theirs):
            self.start = None
        if not self.refusal:
            self._look(step, mine, theirs)
        return True

    def _look(self, step: int, mine: Weights, theirs: Weights) -> None:
        """Keep a step for the replay, and note where the two part."""
        self.keeper.look(mine, theirs, self.differences, coarser(self.precisions))
        if self.keeper.parting and self.parting is None:
            name = max(self.differences, key=lambda name: self.differences[name])
            self.parting = farthest(step, name, mine[name], theirs[name])

    def _renamed(self, mine: Weights, theirs: Weights) -> tuple[Weights, Weights]:
        """Give a weight its new name in mine, or in theirs where mine has none of its old name."""
        ours = {old: new for old, new in self.rename.items() if old in mine}
        others = {old: new for old, new in self.rename.items() if old not in mine}
        for old in others:
            if old not in theirs:
                raise ValueError(f"rename: neither has a weight {old}; mine has {', '.join(mine)}")
        both = []
        for weights, names in ((mine, ours), (theirs, others)):
            both.append({names.get(name, name): weight for name, weight in weights.items()})
            if len(both[-1]) < len(weights):
                raise ValueError("rename gives two weights the same name")
        return both[0], both[1]

    def report(self, seconds: float = SECONDS, progress: Progress = silent) -> Report:
        """What has been found, once the iteration has ended.

        Args:
            seconds: how long to look for mistakes in the gradient.
            progress: called with how many of these were tried, and how many there are; the
                search ends if it returns something true.
        """
        with plain_defaults(), one_thread(), in_full():
            return self._report(seconds, progress)

    def _report(self, seconds: float, progress: Progress) -> Report:
        first, diagnosis = self.comparison.first_difference, self._diagnosis(seconds, progress)
        if self.blind and self.blind[0] <= 1 and diagnosis.cause in AGREEING:
            step, names = self.blind
            evidence = f"no element of {listed(names)} is finite, in either: nothing is compared"
            diagnosis = Diagnosis("not finite", step=step, weights=names, evidence=evidence)
        if diagnosis.step and self.parting:
            first = self.parting
        steps = self.comparison.steps
        text = explain(diagnosis, first, self.rows, self._precisions(), steps)
        notes = [*self._notes(diagnosis), *self._shapes(text)]
        return Report(
            diagnosis.cause,
            diagnosis.factor,
            steps,
            first,
            self.comparison.weights,
            diagnosis.edits,
            diagnosis.reproduced,
            diagnosis.residual if diagnosis.edits else None,
            diagnosis,
            "\n".join([text, *notes]),
        )

    def _diagnosis(self, seconds: float, progress: Progress) -> Diagnosis:
        """Why the two part, if they do."""
        if self.refusal:
            return self.refusal
        if self.comparison.identical:
            return Diagnosis("identical")
        record = self.keeper.record() if self.keeper.steps else None
        found = diagnose(record, self.lr, seconds, progress) if record else Diagnosis("rounding")
        if record and found.step and (not self.parting or found.step != self.parting.step):
            self.parting = record.farthest(found.step)
        if found.cause != "rounding":
            return found
        if not self.keeper.observed and self._have_drifted():
            seen = "the difference began as small as rounding, but grew beyond it"
            return Diagnosis("unexplained", evidence=seen, bare=self.lr or 1.0)
        return found if len({*self._precisions()}) == 1 else Diagnosis("precision")

    def _precisions(self) -> tuple[str, str]:
        """What mine and theirs run in, in words."""
        dtypes = [str(dtype).removeprefix("torch.") for dtype in self.precisions]
        products = self.keeper.record().products if self.keeper.steps else ("", "")
        mine, theirs = (
            f"{dtype}, with products {in_words(lower)}" if lower else dtype
            for dtype, lower in zip(dtypes, products, strict=True)
        )
        return mine, theirs

    def _have_drifted(self) -> bool:
        """Whether two that run free are farther apart than rounding may have carried them."""
        size = max(float(weight.abs().max()) for weight in self.weights[1].values())
        most = DRIFT * coarser(self.precisions) * max(1.0, size)
        return self.keeper.parted or self.keeper.distance > most

    def _notes(self, diagnosis: Diagnosis) -> Iterator[str]:
        """What the reader should know beside the cause, a line each."""
        steps = self.comparison.steps
        if self.start and steps:
            yield f"No weight moved in any of {steps} steps, in either: does a step update them?"
        if diagnosis.bare and not self.observer.parameters:
            yield SWAP
        if diagnosis.bare and self._theirs_are_views():
            yield VIEWS
        kinds = {kind for step in self.keeper.steps for kind, _ in step.rules.values()}
        unknown = sorted(kind.__name__ for kind in kinds if not has_page(kind))
        if diagnosis.bare and unknown:
            yield OTHER_RULE.format(listed(unknown))
        if self.blind and diagnosis.cause in AGREEING:
            step, names = self.blind
            yield f"From step {step} on no element of {listed(names)} is finite, in either."
        coarse = max(self.precisions, key=lambda dtype: torch.finfo(dtype).eps)
        if diagnosis.cause == "rounding" and torch.finfo(coarse).bits < SURE:
            name = str(coarse).removeprefix("torch.")
            yield f"{name} rounds so much that it may hide a difference: compare in float32, too."
        elif diagnosis.cause == "rounding" and coarse == torch.float32 and self.keeper.parted:
            yield FINER
        if how := str(self.pairing):
            yield how
        if not self.complete and diagnosis.cause not in {"names", "shape"}:
            why = "one of the two ended" if self.ended else "the comparison was interrupted"
            yield f"Compared: the first {steps} of {self.steps} steps; {why} there."

    def _theirs_are_views(self) -> bool:
        """Whether theirs yields its parameters laid out otherwise than they are."""
        parameters = {one.data_ptr(): one for one in self.observer.parameters.values()}
        pairs = [(one, parameters.get(one.data_ptr(), one)) for one in self.weights[1].values()]
        return any(a.shape != b.shape or a.stride() != b.stride() for a, b in pairs)

    def _shapes(self, text: str) -> Iterator[str]:
        """The shapes of weights that have no names but p0, p1, …, and that a text speaks of."""
        said = re.findall(r"\bp\d+\b", text)
        shapes = {name: tuple(weight.shape) for name, weight in self.weights[1].items()}
        unnamed = [f"{name} {shape}" for name, shape in shapes.items() if name in said]
        if unnamed:
            yield f"shapes: {', '.join(unnamed)}"


def lockstep(
    mine: Trajectory,
    theirs: Trajectory,
    steps: int = 100,
    *,
    rows: int | None = None,
    rename: Mapping[str, str] | None = None,
    lr: float | None = None,
    seconds: float = SECONDS,
) -> Report:
    """Put two trajectories side by side and say where and why they part.

    Where theirs trains in PyTorch, it is observed while it runs. Once the two have parted, mine's
    weights are put into its parameters before each further step, and stay there afterwards.

    Args:
        mine: a trajectory of NumPy arrays, tensors on any device, nested lists or JAX arrays; or a
            function without arguments that returns one. A function may also train with an optimizer
            of torch.optim: it is looked at after each `step()`, and ended after `steps` of them.
        theirs: the trajectory that mine is compared with, likewise.
        steps: how many steps to compare at most; the shorter trajectory ends it.
        rows: how many rows the loss is over, so that a factor of N or 1/N can be named.
        rename: name → new name, for weights that the two name differently; a name of mine, or else
            one of theirs.
        lr: learning rate, so that a weight decay is given as λ and not as lr · λ.
        seconds: the most seconds to spend on mistakes in the gradient.

    Raises:
        ValueError: the two cannot be compared at all. Never because they differ.

    Example:
        >>> def descend(lr, w=(1.0, 2.0, 4.0)):  # f(w) = Σ w⁴/4
        ...     while True:
        ...         yield {"w": w}
        ...         w = [x - lr * x**3 for x in w]
        >>> lockstep(descend(lr=0.02), descend(lr=0.01), steps=9).cause
        'scale'
    """
    inspection = Inspection(mine, theirs, steps, rows=rows, rename=rename, lr=lr)
    _check("seconds", seconds, float, 0)
    for _ in inspection:
        pass
    return inspection.report(seconds)


def _finite_in_neither(mine: Weights, theirs: Weights) -> tuple[str, ...]:
    """The weights without a finite element in either."""
    return tuple(
        name
        for name, weight in theirs.items()
        if not (_is_finite_anywhere(weight) or _is_finite_anywhere(mine[name]))
    )


def _is_finite_anywhere(weight: Tensor) -> bool:
    # Nearly always the first element tells: this is asked of each weight after each step.
    return bool(weight[(0,) * weight.ndim].isfinite() or weight.isfinite().any())


def _check(name: str, value: object, kind: type, low: int) -> None:
    number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not number or not low <= value < math.inf:  # type: ignore[operator]
        whole = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {value!r}; give {whole}, {low} or more")
