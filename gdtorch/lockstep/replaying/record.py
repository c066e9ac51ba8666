"""What is kept of two trajectories while they run, for the replay: a sample of their elements."""

from __future__ import annotations

__all__ = ["Keeper", "Record", "Rule", "Step", "Whole", "has_page"]

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ...optimizers import RULES
from ..distance import Difference, Weights, ulps_between
from ..gradients.backward import IMPOSSIBLE, gradient
from ..gradients.breaks import Break, rows_of
from ..observing.observe import Observer, taken
from ..observing.tape import Pass, Tape
from ..reading.pairing import Pair
from ..rounding import GROWTH, of_gradients

SAMPLE = 1 << 14  # elements at most
STORE = 1 << 21  # numbers kept of each kind, over all steps
FEW = 64  # elements of each weight in the sample, if it has as many
WINDOW = 32  # steps looked at from the first that differs, where there is room
LEAST = 10  # of them; if all weights at so many do not fit in ROOM, a sample is taken
ROOM = 1 << 23  # numbers in all weights of all steps that are looked at
PIECE = 1 << 20  # elements of a weight that are looked at together
TINY = 1e-300  # no norm is divided by less
FREE = 1 << 6  # roundings by which they may be apart before mine's weights are put into theirs

Rule = tuple[type[Optimizer], dict[str, Any]]


def has_page(kind: type[Optimizer]) -> bool:
    """Whether a class is one of torch.optim's, and its rule is in `optimizers/`."""
    return kind.__name__ in RULES and getattr(torch.optim, kind.__name__) is kind


def window(weights: int) -> int:
    """How many steps are looked at, from the first that differs, with so many weights."""
    steps = min(WINDOW, ROOM // weights)
    return steps if steps >= LEAST else WINDOW  # then with a sample of the weights alone


@dataclass(frozen=True)
class Whole:
    """All weights at a step (`Step` has a sample), and how theirs' loss came from them.

    Args:
        tape: of theirs' loss.
        mine: the tape of mine's loss, where mine is PyTorch code as well.
        before: weight → mine before the step.
        after: weight → mine after it.
        base: weight → theirs before it.
    """

    tape: Tape
    mine: Tape | None
    before: Weights
    after: Weights
    base: Weights


@dataclass(frozen=True)
class Step:
    """One step of both from the same weights, up to `carried`; flat samples in float64.

    Args:
        before: mine's weights before the step.
        after: mine's weights after it.
        base: theirs' weights before it; mine's once these are put into theirs.
        predicted: what theirs made of `base`.
        fresh: the gradient of theirs' loss there.
        used: the gradient that theirs' optimizer was given.
        raw: the gradient of mine's loss; None where mine is not PyTorch code.
        given: the gradient that mine's optimizer was given, likewise.
        kinks: by how much the gradient is uncertain, next to a kink (see `Seen`).
        carried: the largest distance of `before` and `base`.
        apart: weight → the largest distance of both after the step, of all elements. A weight is
            missing once a gradient of its own was next to a kink, unless the distance is infinite.
        norms: weight → Euclidean norm of the whole fresh gradient.
        rules: weight → the class and the options of theirs' optimizer; empty where none was seen.
        rules_of_mine: the same of mine's.
        products: in what theirs multiplies matrices, if lower than their dtype (see `lower`).
        products_of_mine: the same of mine.
        strange: what the losses went through of which there is no tape (see `Seen`).
        outside: whether theirs' weights have changed since its optimizer's last step.
        outside_of_mine: the same of mine's.
        added_to: weight → how often its gradient was not 0 when theirs called backward().
        added_to_of_mine: the same of mine's.
        whole: what it takes to compute the gradient again; None if that is not kept.
    """

    before: Tensor
    after: Tensor
    base: Tensor
    predicted: Tensor
    fresh: Tensor
    used: Tensor
    raw: Tensor | None
    given: Tensor | None
    kinks: Tensor
    carried: float
    apart: Mapping[str, float]
    norms: Mapping[str, float]
    rules: Mapping[str, Rule]
    rules_of_mine: Mapping[str, Rule]
    products: str
    products_of_mine: str
    strange: tuple[str, ...]
    outside: bool
    outside_of_mine: bool
    added_to: Mapping[str, int]
    added_to_of_mine: Mapping[str, int]
    whole: Whole | None = None


@dataclass(frozen=True)
class Record:
    """Steps of two trajectories.

    Args:
        steps: the steps, from the first on.
        parts: weight → where its elements lie in the sample.
        places: weight → which elements they are, in row-major order.
        shapes: weight → its shape.
        dtypes: weight → the wider dtype of both.
        epsilon: relative rounding error, of the lower of both precisions.
        reduced: the shape of what theirs' loss is reduced from.
        squared: whether that may be squares.
        observed: whether theirs' gradients were seen, and mine's weights put into theirs.
        bare: where theirs' updates stand for its gradients, the learning rate that they were
            divided by; else 0.
        turned: whether mine stands for theirs, and theirs for mine.
        parameters: name → the parameter in theirs.
        ours: name → the parameter in mine; empty where mine is not PyTorch code.
        layout: name → how mine's array is laid out as theirs.
        made: gradients with a mistake that have been computed.
        tapes: what `tape` has written out.
    """

    steps: list[Step]
    parts: Mapping[str, slice]
    places: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    epsilon: float
    reduced: tuple[int, ...]
    squared: bool
    observed: bool
    parameters: Mapping[str, Tensor]
    ours: Mapping[str, Tensor]
    layout: Mapping[str, Pair]
    bare: float = 0.0
    turned: bool = False
    made: dict[tuple[int, Break | None], Tensor | None] = field(default_factory=dict)
    tapes: dict[int, Tape] = field(default_factory=dict)

    @property
    def products(self) -> tuple[str, str]:
        """In what mine and theirs were seen to multiply matrices, if lower than their dtype."""
        both = ((step.products_of_mine, step.products) for step in self.steps)
        mine, theirs = (next(filter(None, one), "") for one in zip(*both, strict=True))
        return mine, theirs

    def in_full(self) -> Record:
        """The same with theirs' gradients once more, by its tapes, without a lower precision.

        It ends with the steps that have a tape, unless there is none.
        """
        steps = []
        for number, step in enumerate(self.steps):
            full = self.gradient(number, None)
            if full is None:
                break
            norms = {
                name: norm * float(full[part].norm()) / max(float(step.fresh[part].norm()), TINY)
                for (name, norm), part in zip(step.norms.items(), self.parts.values(), strict=True)
            }
            used = step.used + (full - step.fresh)
            # How far apart the two then are is known of the sample alone.
            steps.append(replace(step, fresh=full, used=used, norms=norms, apart={}))
        return replace(self, steps=steps or self.steps)

    def stack(self, what: str) -> Tensor:
        """One of a step's tensors over all steps, of shape (steps, elements)."""
        return torch.stack([getattr(step, what) for step in self.steps])

    @property
    def window(self) -> int:
        """How many steps are looked at, from the first that differs on."""
        return window(sum(math.prod(shape) for shape in self.shapes.values()))

    @property
    def sees_mine(self) -> bool:
        """Whether mine's gradients were seen in all steps."""
        return all(step.given is not None for step in self.steps)

    @property
    def sees_mines_rules(self) -> bool:
        """Whether, besides, optimizers of torch.optim were seen to step all of mine with them."""
        if not self.sees_mine:
            return False
        rules = [step.rules_of_mine for step in self.steps]
        known = all(has_page(kind) for one in rules for kind, _ in one.values())
        return known and all(one.keys() >= self.parts.keys() for one in rules)

    @property
    def kinds(self) -> set[type[Optimizer]]:
        """The classes of the optimizers that theirs was seen to step by."""
        return {kind for step in self.steps for kind, _ in step.rules.values()}

    @property
    def known(self) -> bool:
        """Whether theirs was seen to step by an optimizer that has a page in `optimizers/`."""
        return any(map(has_page, self.kinds))

    @property
    def foreign(self) -> bool:
        """Whether theirs was seen to step by a rule of torch.optim's that `optimizers/` has not."""
        own = (kind for kind in self.kinds if kind.__module__.startswith("torch.optim."))
        return not all(map(has_page, own))

    @property
    def broken(self) -> tuple[int, tuple[str, ...]] | None:
        """The first step after which only one is finite somewhere, and the weights."""
        for number, step in enumerate(self.steps, start=1):
            names = tuple(name for name, apart in step.apart.items() if apart == math.inf)
            if names:
                return number, names
        return None

    @property
    def apart_by_rounding(self) -> bool:
        """Whether all weights are kept, and no update of mine differs but by its own rounding."""
        if any(len(self.places[n]) < math.prod(shape) for n, shape in self.shapes.items()):
            return False
        before, after = self.stack("before"), self.stack("after")
        update = self.stack("predicted") - self.stack("base")
        off = 2 * self.epsilon * torch.maximum(before.abs(), after.abs())
        off += (1 + GROWTH) * torch.tensor([[step.carried] for step in self.steps])
        for part in self.parts.values():
            largest = update[:, part].abs().amax(1, keepdim=True)
            off[:, part] += of_gradients(self.epsilon) * largest
        return bool(((after - before - update).abs() <= off).all())

    def by_updates(self, lr: float) -> Record:
        """The same with theirs' updates, divided by lr, for its gradients: theirs is then SGD."""
        steps = []
        for step in self.steps:
            grads = (step.base - step.predicted) / lr
            bare = replace(
                step,
                fresh=grads,
                used=grads,
                raw=None,
                given=None,
                kinks=torch.zeros_like(grads),
                norms={name: float(grads[part].norm()) for name, part in self.parts.items()},
                rules={},
                rules_of_mine={},
                whole=None,
            )
            steps.append(bare)
        return replace(self, steps=steps, bare=lr)

    def mirrored(self) -> Record:
        """The same with mine for theirs and theirs for mine."""
        steps = [
            replace(s, before=s.base, after=s.predicted, base=s.before, predicted=s.after)
            for s in self.steps
        ]
        return replace(self, steps=steps, turned=not self.turned)

    def runaway(self, begin: int) -> int:
        """How many steps there are before the weights are so large that their powers overflow."""
        most = min(torch.finfo(dtype).max for dtype in self.dtypes.values()) ** 0.25
        for number, step in enumerate(self.steps[begin:], start=begin):
            if not float(step.after.abs().max()) < most:
                return number
        return len(self.steps)

    def same(self, one: Tensor, other: Tensor) -> bool:
        """Whether two gradients are the same but for rounding."""
        off = of_gradients(self.epsilon) * other.abs().max()
        return bool(((one - other).abs() <= off).all())

    def same_loss(self, one: float, other: float) -> bool:
        """Whether two losses are the same but for rounding."""
        close = math.sqrt(self.epsilon)
        return math.isclose(one, other, rel_tol=close, abs_tol=close)

    def unlike(self, one: Tensor, other: Tensor) -> list[str]:
        """The weights in which two gradients of all are not the same."""
        return [n for n, part in self.parts.items() if not self.same(one[part], other[part])]

    def same_gradients(self, first: int, last: int) -> bool:
        """Whether both optimizers were given the same gradients in these steps."""
        steps = self.steps[first:last]
        return all(s.given is not None and not self.unlike(s.given, s.used) for s in steps)

    def rounded_as_mine(self) -> Record:
        """The same with mine's gradients for theirs, where these are the same but for rounding."""
        if not self.sees_mine:
            return self
        steps = []
        for step in self.steps:
            used, fresh, given = step.used.clone(), step.fresh.clone(), step.given
            for part in self.parts.values():
                for theirs in (used, fresh):
                    if given is not None and self.same(given[part], theirs[part]):
                        theirs[part] = given[part]
            steps.append(replace(step, used=used, fresh=fresh))
        return replace(self, steps=steps)

    def tape(self, step: int) -> Tape | None:
        """The tape of a step, in which mistakes are made; None where it was not kept."""
        whole = self.steps[step].whole if 0 <= step < len(self.steps) else None
        if whole and step not in self.tapes:
            self.tapes[step] = whole.tape.unfolded(self.values(whole.base))
        return self.tapes.get(step)

    def gradient(self, step: int, one: Break | None) -> Tensor | None:
        """The gradient of theirs with a mistake in it, at a step; None where it cannot be made."""
        if one and one.what == "known":
            made: Tensor | None = one.detail(step)
            return made
        key = step, one
        if key not in self.made:
            self.made[key] = self._gradient(step, one)
        return self.made[key]

    def gradients(self, step: int, mistakes: Iterable[Break]) -> Iterator[Tensor | None]:
        """The gradients with one mistake each, to a few roundings: sooner found, and not kept."""
        known = self.run(step)
        return (self._gradient(step, one, known) for one in mistakes)

    def run(self, step: int) -> Pass | None:
        """The tape of a step, run at the weights before it; None where there is none that runs."""
        whole, tape = self.steps[step].whole, self.tape(step)
        if not whole or not tape:
            return None
        try:
            return Pass(tape, self.values(whole.base))
        except (
            IMPOSSIBLE
        ):  # within torch.autocast it may cast by itself, and nothing else does here
            return None

    def _gradient(self, step: int, one: Break | None, known: Pass | None = None) -> Tensor | None:
        whole, tape = self.steps[step].whole, self.tape(step)
        if whole is None:
            return None
        base = whole.base
        if one and one.what == "look_ahead":
            base, one = self._ahead(step, whole), None
        if one and one.what == "other_rows":
            tape, one = self.tape(rows_of(one, step)), None
        if tape is None:
            return None
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        keys = {name: key for key, name in names.items()}
        rules = self.steps[step].rules.items()
        rates = {keys[n]: options["lr"] for n, (_, options) in rules if "lr" in options}
        now, after = self.values(base), self.values(whole.after)
        found = gradient(tape, now, after, names, one, rates, known if one else None)
        return None if found is None else self.sampled(found, self.parameters)

    def sampled(self, found: Mapping[int, Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        """The sample of gradients by their parameters' `id`, of theirs or of mine; else 0."""
        samples = []
        for name, places in self.places.items():
            grad = found.get(id(parameters[name]))
            if grad is None:
                samples.append(torch.zeros(len(places), dtype=torch.float64))
                continue
            laid = self.layout[name].view(grad) if parameters is self.ours else grad
            samples.append(taken(laid, places))
        return torch.cat(samples)

    def _ahead(self, step: int, whole: Whole) -> Weights:
        """Theirs' weights and, from the second step on, mine's last step times theirs' momentum."""
        last = self.steps[step - 1].whole if step else None
        ahead = dict(whole.base)
        if last:
            for name, (_, options) in self.steps[step].rules.items():
                moved = (whole.before[name] - last.before[name]).to(ahead[name])
                ahead[name] = ahead[name] + options.get("momentum", 0.0) * moved
        return ahead

    def values(self, weights: Weights) -> dict[int, Tensor]:
        """`id` of each parameter of theirs → its values."""
        return {id(p): weights[name].to(p) for name, p in self.parameters.items()}

    def until(self, step: int) -> Record:
        """The record of the steps before one."""
        return replace(self, steps=self.steps[: step - 1])

    def farthest(self, step: int) -> Difference:
        """The element of the sample in which a step differs most."""
        at = self.steps[step - 1]
        theirs = at.before + (at.predicted - at.base)
        apart = (at.after - theirs).abs().nan_to_num(nan=torch.inf)
        far = int(apart.argmax())
        name = next(n for n, part in self.parts.items() if part.start <= far < part.stop)
        place = int(self.places[name][far - self.parts[name].start])
        index = tuple(int(i) for i in np.unravel_index(place, self.shapes[name]))
        x, y = float(at.after[far]), float(theirs[far])
        ulps = ulps_between(x, y, self.dtypes[name])
        return Difference(step, name, index, x, y, float(apart[far]), ulps)


class Keeper:
    """Keep what the replay needs, and put mine's weights into theirs once the two have parted.

    Args:
        observer: of theirs.
        of_mine: of mine.
        limit: the most steps there may be.
    """

    def __init__(self, observer: Observer, of_mine: Observer, limit: int) -> None:
        self.observer, self.of_mine = observer, of_mine
        self.limit = limit
        self.steps: list[Step] = []
        self.parted = False  # so that mine's weights are put into theirs
        self.parting = 0  # the step by which they differ beyond rounding
        self.watches_mine = True
        self.observed = True  # whether all that is trained in theirs is
        self.kinked: set[str] = set()

    def begin(self, mine: Weights, theirs: Weights, layout: Mapping[str, Pair]) -> None:
        """Take in the initial weights, which do not change until the first step is seen."""
        self.layout = layout
        # Of large networks no tape is kept, and so there is little to be seen in mine.
        self.size = sum(weight.numel() for weight in theirs.values())
        self.watches_mine = LEAST * self.size <= ROOM
        self.shapes = {name: tuple(weight.shape) for name, weight in theirs.items()}
        self.dtypes = {
            name: torch.promote_types(mine[name].dtype, weight.dtype)
            for name, weight in theirs.items()
        }
        self.start = mine, theirs
        self.distance = 0.0
        self.largest: dict[str, float] = {}  # element of theirs' updates so far, by weight
        self.observer.begin()
        self.of_mine.begin()

    def look(
        self, mine: Weights, theirs: Weights, differences: Mapping[str, float], epsilon: float
    ) -> None:
        """Take in the weights after a step, and how far they are apart, weight by weight."""
        if self.parted and not self.observed:
            return  # the two stand at other weights
        if not self.steps:
            self.parameters = _behind(theirs, self.observer, self.start[1])
            self.ours = _behind(mine, self.of_mine, self.start[0], self.layout)
            self._choose(mine, theirs)
            self.observer.taping = self.watches_mine and bool(self.parameters)
            self.before, self.base = (self._sample(weights) for weights in self.start)
            self._keep_samples(self.observer, self.parameters)
            self._keep_samples(self.of_mine, self.ours)
        after, predicted = self._sample(mine), self._sample(theirs)
        seen, own = self.observer.seen, self.of_mine.seen
        found = self._gradients(self.observer, self.parameters)
        if found is None:  # theirs is no PyTorch code, or makes its weights anew at each step
            self.observed = self.watches_mine = False
            if self.parted:
                return
        fresh, used = found or (torch.zeros_like(after), torch.zeros_like(after))
        raw, given = self._gradients(self.of_mine, self.ours) or (None, None)
        keys = {name: id(parameter) for name, parameter in self.parameters.items()}
        self.kinked |= {name for name, key in keys.items() if key in seen.kinks}
        apart = {n: x for n, x in differences.items() if x == math.inf or n not in self.kinked}
        self.steps.append(
            Step(
                before=self.before,
                after=after,
                base=self.base,
                predicted=predicted,
                fresh=fresh,
                used=used,
                raw=raw,
                given=given,
                kinks=self._sample({n: seen.kinks.get(k) for n, k in keys.items()}),
                carried=self.distance,
                apart=apart,
                norms={n: seen.norms.get(k, 0.0) for n, k in keys.items()},
                rules=_rules(self.observer, self.parameters),
                rules_of_mine=_rules(self.of_mine, self.ours),
                products=seen.products,
                products_of_mine=own.products,
                strange=(*own.strange, *seen.strange),
                outside=seen.outside,
                outside_of_mine=own.outside,
                added_to={n: seen.added_to[k] for n, k in keys.items()},
                added_to_of_mine={n: own.added_to[id(p)] for n, p in self.ours.items()},
            )
        )
        self._judge(differences, epsilon)
        self._keep_whole(mine, theirs)
        self.before = after
        self.base = after if self.parted else predicted
        self.distance = 0.0 if self.parted else max(differences.values())
        self.observer.begin()
        self.of_mine.begin()
        self.observer.exact &= not any(differences.values())
        self.observer.reach = (1 + GROWTH) * self.distance / max(1e-300, float(after.abs().max()))

    def _keep_samples(self, observer: Observer, parameters: Mapping[str, Tensor]) -> None:
        """Keep of each gradient only the sample, laid out as theirs; none of other parameters."""
        names = {id(parameter): name for name, parameter in parameters.items()}

        def keep(key: int, gradient: Tensor) -> Tensor:
            if key not in names:
                return taken(gradient, None)
            name = names[key]
            laid = self.layout[name].view(gradient) if parameters is self.ours else gradient
            return taken(laid, self.places[name])

        observer.seen.take(keep)
        observer.keep = keep

    def _gradients(
        self, observer: Observer, parameters: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """The samples of the gradients of its loss, and of those that its optimizer was given.

        None where it has gradients, but of other tensors.
        """
        seen, keys = observer.seen, {name: id(one) for name, one in parameters.items()}
        if not keys or (seen.fresh and not {*keys.values()} & {*seen.fresh}):
            return None
        fresh = {n: seen.fresh.get(k, seen.used.get(k)) for n, k in keys.items()}
        used = {n: seen.used.get(k, seen.fresh.get(k)) for n, k in keys.items()}
        return self._gathered(fresh), self._gathered(used)

    def _keep_whole(self, mine: Weights, theirs: Weights) -> None:
        """Keep all weights and tapes: of the last steps before the two part, and of the next."""
        if not self.observer.taping:
            self.start = {}, {}
            return
        before, base = self.start
        after = _copied(mine)
        self.start = after, after if self.parted else _copied(theirs)
        tape, of_mine = self.observer.seen.tape, self.of_mine.seen.tape
        if tape:
            whole = Whole(tape, of_mine, before, after, base)
            self.steps[-1] = replace(self.steps[-1], whole=whole)
        number, most = len(self.steps), window(self.size)
        if not self.parting and number > most:
            self.steps[-most - 1] = replace(self.steps[-most - 1], whole=None)
        taping = not self.parting or number <= self.parting + most
        self.observer.taping = self.of_mine.taping = taping

    def _judge(self, differences: Mapping[str, float], epsilon: float) -> None:
        """Have they parted by more than this step's rounding, or by much rounding altogether?"""
        step = self.steps[-1]
        self.epsilon = epsilon
        for name, part in self.parts.items():
            size = float(step.after[part].abs().max())
            update = float((step.predicted - step.base)[part].abs().max())
            self.largest[name] = largest = max(update, self.largest.get(name, 0.0))
            rounding = 2 * epsilon * size + of_gradients(epsilon) * largest
            rounding += (1 + GROWTH) * self.distance
            # Where theirs cannot be put to mine's weights, the two go on until they surely have.
            most = rounding if self.observed else 2 * rounding
            if not self.parting and not differences[name] <= most:
                self.parting = len(self.steps)
            far = self.observed and differences[name] > FREE * epsilon * max(size, update)
            self.parted |= far or self.parting > 0

    def put(self, mine: Weights) -> None:
        """Put mine's weights into theirs, if the two have parted."""
        if self.parted and self.observed:
            for name, parameter in self.parameters.items():
                self.observer.put(parameter, mine[name])

    def record(self) -> Record:
        """What has been kept."""
        return Record(
            self.steps,
            self.parts,
            self.places,
            self.shapes,
            self.dtypes,
            self.epsilon,
            self.observer.shape,
            self.observer.squared,
            self.observed,
            self.parameters,
            self.ours,
            self.layout,
        )

    def _choose(self, mine: Weights, theirs: Weights) -> None:
        """Choose the sample: some evenly spread over each weight, and those that differ most."""
        room = min(SAMPLE, max(FEW * len(theirs), STORE // max(1, self.limit)))
        whole = sum(weight.numel() for weight in theirs.values())
        self.places, self.parts, begin = {}, {}, 0
        for name, weight in theirs.items():
            count = min(weight.numel(), max(FEW, room * weight.numel() // whole))
            if count == weight.numel():
                places = torch.arange(count)
            else:
                places = torch.linspace(0, weight.numel() - 1, count // 2).round().long()
                most = _farthest(mine[name], theirs[name], count // 2)
                places = torch.cat([places, most]).unique()
            self.places[name] = places
            self.parts[name] = slice(begin, begin + len(places))
            begin += len(places)

    def _sample(self, tensors: Mapping[str, Tensor | None]) -> Tensor:
        return self._gathered(
            {n: t if t is None else taken(t, self.places[n]) for n, t in tensors.items()}
        )

    def _gathered(self, samples: Mapping[str, Tensor | None]) -> Tensor:
        """The samples of all weights in one tensor; 0 where there is none."""
        parts = []
        for name, places in self.places.items():
            sample = samples.get(name)
            none = torch.zeros(len(places), dtype=torch.float64)
            parts.append(none if sample is None else sample)
        return torch.cat(parts)


def _farthest(mine: Tensor, theirs: Tensor, count: int) -> Tensor:
    """Where two arrays differ most, piece by piece, so that none is sorted or copied whole."""
    pieces = list(zip(mine.flatten().split(PIECE), theirs.flatten().split(PIECE), strict=True))
    found = []
    for number, (a, b) in enumerate(pieces):
        apart = (a - b).abs_()
        most = apart.topk(min(len(apart), count // len(pieces) + 1))
        found.append(most.indices.cpu() + number * PIECE)
    return torch.cat(found)


def _rules(observer: Observer, parameters: Mapping[str, Tensor]) -> dict[str, Rule]:
    """Weight → the optimizer that was seen to step it in this step."""
    rules = observer.seen.rules
    return {name: rules[id(one)] for name, one in parameters.items() if id(one) in rules}


def _behind(
    weights: Weights, observer: Observer, start: Weights, layout: Mapping[str, Pair] | None = None
) -> dict[str, Tensor]:
    """The parameter behind each weight that a program shows; empty where there is not one for each.

    Args:
        weights: name → what it shows after its first step.
        observer: of the program.
        start: name → what it has shown before.
        layout: name → how the parameter is laid out in what is shown; as it is, without.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        for parameter in observer.parameters.values():
            laid = parameter.detach()
            if layout and laid.shape == layout[name].own:
                laid = layout[name].view(laid)
            if laid.shape == weight.shape and _same(laid, weight):
                found[name] = parameter
                if laid.data_ptr() == weight.data_ptr():
                    break
        else:
            if name not in found and _same(weight, start[name]):
                found[name] = weight  # it never moves
    keys = {id(parameter) for parameter in found.values()}
    whole = len(keys) == len(weights) and not keys.isdisjoint(observer.parameters)
    return found if whole else {}


def _copied(weights: Weights) -> Weights:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two arrays hold the same numbers."""
    if one.data_ptr() == other.data_ptr():
        return True
    return bool(torch.equal(one.cpu(), other.detach().cpu().to(one.dtype)))
