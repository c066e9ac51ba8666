"""What a program does with PyTorch while it takes a step: gradients, optimizers, their options.

Nothing in the program changes. PyTorch's own means are used: the global hooks of
`torch.optim.optimizer`, and a `torch.overrides.TorchFunctionMode`, which sees each function of
torch as it is called. Both are in place only while the program runs, in its thread alone.
"""

from __future__ import annotations

__all__ = ["Observer", "Seen", "hooks", "taken"]

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.overrides import TorchFunctionMode

from .products import lower
from .tape import Recording, Tape

# Functions with a kink: name → by how much the derivative jumps there.
KINKED = {"relu": 1.0, "leaky_relu": 1.0, "abs": 2.0, "clamp": 1.0, "clamp_min": 1.0}
POOLS = {"max_pool1d": 1, "max_pool2d": 2, "max_pool3d": 3}  # name → over how many axes
UNSCALE = "_amp_foreach_non_finite_check_and_unscale_"  # what `GradScaler.unscale_` calls
OF_CLASSES = {"nll_loss", "cross_entropy"}  # losses of which the classes of a row are one output
BARE = {  # losses without a square, and so without a ½
    *OF_CLASSES,
    *("l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
}
REDUCTIONS = {*BARE, "mean", "sum", "mse_loss", "smooth_l1_loss", "huber_loss"}
LOOKED_AT = {"backward", UNSCALE, *REDUCTIONS, *KINKED, *POOLS}
MOST_KINKS = 32  # looked at one by one in a step; more of them are no accident
ROUNDINGS = 64  # of the largest input, within which an input is on the kink


@dataclass(frozen=True)
class _Kink:
    """A function of which some outputs have, but for rounding, another derivative.

    Args:
        inputs: the array that it was given.
        outputs: what it returned.
        on_it: of which outputs.
        change: by how much what is handed back to the inputs would change, given the place of one
            of the outputs and what comes back there.
    """

    inputs: Tensor
    outputs: Tensor
    on_it: Tensor
    change: Callable[[tuple[int, ...], Tensor], Tensor]


@dataclass
class Seen:
    """What one step was seen to do; the keys are the parameters' `id`.

    Args:
        fresh: the gradients that its backward passes have added; copies, or what `keep` makes.
        norms: the Euclidean norms of these.
        used: the gradients that the optimizer was given, likewise: after clipping, and with what
            earlier steps have left.
        rules: the optimizer's class and the options of the parameter's group.
        kinks: by how much a gradient is uncertain, since an input of a function was, but for
            rounding, on its kink, as ReLU has one at 0.
        tape: of the loss, where one was taken.
        strange: what the loss went through that is no function of torch, and so on no tape.
        products: in what its matrices were multiplied, if lower than their dtype (see `lower`).
        outside: whether weights have changed since the last step of their optimizer.
        added_to: how often a backward pass has added to a gradient that was not 0.
    """

    fresh: dict[int, Tensor] = field(default_factory=dict)
    norms: dict[int, float] = field(default_factory=dict)
    used: dict[int, Tensor] = field(default_factory=dict)
    rules: dict[int, tuple[type[Optimizer], dict[str, Any]]] = field(default_factory=dict)
    kinks: dict[int, Tensor] = field(default_factory=dict)
    tape: Tape | None = None
    strange: tuple[str, ...] = ()
    products: str = ""
    outside: bool = False
    added_to: Counter[int] = field(default_factory=Counter)

    def take(self, keep: Callable[[int, Tensor], Tensor]) -> None:
        """Keep of each gradient only what `keep` makes of it, given the parameter's `id`."""
        for gradients in (self.fresh, self.used):
            for key, gradient in gradients.items():
                gradients[key] = keep(key, gradient)


def taken(tensor: Tensor, places: Tensor | None) -> Tensor:
    """Some elements, in row-major order, in float64 on the CPU; none without places."""
    flat = tensor.detach().flatten()
    chosen = flat[:0] if places is None else flat[places.to(flat.device)]
    return chosen.cpu().double()


@contextmanager
def hooks(before: Callable[..., None], after: Callable[..., None]) -> Iterator[None]:
    """Within the block, call these before and after each step of any optimizer."""
    handles = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Observer(TorchFunctionMode):
    """Look on while a program runs; `seen` is what it has done since `begin`.

    Attributes:
        seen: see `Seen`.
        parameters: `id` → parameter, of all that were stepped or had a gradient, and of the frozen
            ones beside them.
        shape: that of the tensor from which the last loss was reduced, rows first.
        squared: whether its elements may have been squares.
        keep: what is kept of a parameter's gradient, given its `id` and the gradient.
        taping: whether it notes by which functions a loss is computed.
        reach: how far weights may be off, as a share of the largest one. An input that is as near
            to a kink, as a share of the largest input, counts as on it.
        exact: whether mine has had the same bits so far. Nothing has been rounded otherwise then,
            and an input that is just on a kink is so in both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parameters: dict[int, Tensor] = {}
        self.options: dict[int, dict[str, Any]] = {}
        self.shape: tuple[int, ...] = ()
        self.squared = True
        self.reach = 0.0
        self.exact = True
        self.taping = True
        self.stepping = False
        self.sums: dict[int, float] = {}  # of each parameter's elements, after its last step
        self.keep: Callable[[int, Tensor], Tensor] = lambda _, gradient: gradient.clone()
        self.begin()

    def begin(self) -> None:
        """Begin a step: forget what was seen of the one before, unless a step is under way."""
        if self.stepping:
            return
        self.seen = Seen()
        self.left: dict[int, Tensor | None] = {}  # what earlier steps have left in `.grad`
        self.recording = Recording()
        self.kinks: list[_Kink] = []
        self.unscaled = False  # the loss on the tape

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look on while the block runs, in this thread."""
        self.thread, self.stepping = threading.get_ident(), False
        with hooks(self._before, self._after), self:
            yield

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,  # noqa: ANN401 (as torch has it)
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function of torch, and note what matters here."""
        # A graph in one piece, or torch.func's own tensors, leave no room to look on.
        if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack():
            return function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        if name == "grad" and args:
            return self._grad(function, args, kwargs or {})
        if not self.taping or not torch.is_grad_enabled():
            return self._called(name, function, args, kwargs)
        drawn_from = self.recording.drawn_from(name)
        made = self._called(name, function, args, kwargs)
        self.seen.products = self.seen.products or lower(name, made)
        if name != "backward":
            self.recording.note(function, args, kwargs or {}, made, drawn_from)
        return made

    def _called(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
    ) -> Any:  # noqa: ANN401
        if name not in LOOKED_AT:
            return function(*args, **(kwargs or {}))
        call: Callable[..., Any] = partial(function, **(kwargs or {}))
        if name == "backward" and args:
            return self._backward(call, args, kwargs or {})
        if name == UNSCALE:
            self._unscale(args[0], args[2].item())
        if name in REDUCTIONS and args and isinstance(args[0], Tensor) and args[0].requires_grad:
            shape = tuple(args[0].shape)
            self.shape = shape[:1] + shape[2:] if name in OF_CLASSES else shape
            self.squared = name not in BARE
        kinked = name in KINKED or name in POOLS
        if not kinked or not isinstance(args[0], Tensor) or not args[0].requires_grad:
            return call(*args)
        on_it = self._on_the_kink(args[0], args[1:], kwargs or {}) if name in KINKED else None
        made = call(*args)
        if on_it is None:
            kink = self._tie(name, made, args, kwargs or {})
        else:
            kink = _Kink(args[0], made, on_it, partial(_jump, args[0], KINKED[name]))
        if kink.on_it.any():
            self.kinks.append(kink)
        return made

    @torch.no_grad()
    def _on_the_kink(
        self, inputs: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        bounds = [
            x for x in (*args, kwargs.get("min"), kwargs.get("max")) if type(x) in (int, float)
        ]
        share = ROUNDINGS * torch.finfo(inputs.dtype).eps + self.reach
        near = share * inputs.abs().max() if inputs.numel() else inputs
        on_it = torch.zeros_like(inputs, dtype=torch.bool)
        for at in bounds or [0.0]:
            apart = (inputs - at).abs()
            on_it |= (apart <= near) & ((apart > 0) if self.exact else True)
        return on_it

    @torch.no_grad()
    def _tie(
        self,
        name: str,
        made: Any,  # noqa: ANN401 (the outputs, or a pair with their places)
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> _Kink:
        """Windows of a pool whose largest two inputs are the same but for rounding."""
        inputs = args[0].detach()
        pool = partial(getattr(F, name), **{**kwargs, "return_indices": True})
        largest, first = pool(inputs, *args[1:6])
        flat = inputs.flatten(-POOLS[name])
        rest = flat.scatter(-1, first.flatten(-POOLS[name]), -torch.inf).view_as(inputs)
        next_one, second = pool(rest, *args[1:6])
        share = ROUNDINGS * torch.finfo(inputs.dtype).eps + self.reach
        apart = largest - next_one
        # Two that are just the same, as those which ReLU has set to 0, are so in both programs.
        on_it = (apart > 0) & (apart <= share * inputs.abs().max())

        def change(at: tuple[int, ...], slope: Tensor) -> Tensor:
            moved = torch.zeros_like(flat)
            channel = at[: -POOLS[name]]
            moved[(*channel, first[at])] -= slope
            moved[(*channel, second[at])] += slope
            return moved.view_as(inputs)

        outputs = made[0] if isinstance(made, tuple) else made
        return _Kink(args[0], outputs, on_it, change)

    def _grad(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401
        """`torch.autograd.grad`: gradients that are returned, not added up."""
        made = function(*args, **kwargs)
        inputs = args[1] if len(args) > 1 else kwargs.get("inputs", ())
        self._tape(args[0], kwargs.get("grad_outputs"))
        for leaf, fresh in zip(_listed(inputs), _listed(made), strict=True):
            if leaf.is_leaf and fresh is not None:
                self._keep(leaf, fresh.detach())
        return made

    def _keep(self, leaf: Tensor, fresh: Tensor) -> None:
        key, fresh = id(leaf), _dense(fresh)
        self.parameters[key] = leaf
        self.seen.fresh[key] = self.keep(key, fresh)
        self.seen.norms[key] = fresh.norm().item()

    def _tape(self, roots: Any, given: Any) -> None:  # noqa: ANN401
        if self.taping:
            found = _listed(roots)
            self.recording.backward(found, _listed(given) or [None] * len(found))
            self.seen.tape = tape = self.recording.tape()
            self.seen.strange = self.recording.strange
            if tape:
                frozen = [tape.parameters[slot] for slot in tape.frozen]
                self.parameters |= {id(parameter): parameter for parameter in frozen}

    def _backward(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401
        roots = _listed(args[0])
        given = [*args[1:2], kwargs.get("gradient"), kwargs.get("grad_tensors")]
        self._tape(roots, next((one for one in given if one is not None), None))
        leaves = _leaves(root.grad_fn for root in roots)
        if len(roots) == 1 and roots[0].numel() == 1:
            self._note_kinks(roots[0], leaves)
        self.kinks.clear()
        for leaf in leaves:
            if leaf.grad is None or not leaf.grad.any():
                self.left[id(leaf)] = None
            else:
                self.seen.added_to[id(leaf)] += 1
                if id(leaf) not in self.left:
                    self.left[id(leaf)] = leaf.grad.clone()
        made = call(*args)
        for leaf in leaves:
            self.parameters[id(leaf)] = leaf
            # One that was stepped already takes no part in the loss of another optimizer.
            if leaf.grad is not None and id(leaf) not in self.seen.used:
                left = self.left.get(id(leaf))
                self._keep(leaf, leaf.grad if left is None else leaf.grad - left)
        return made

    @torch.no_grad()
    def put(self, parameter: Tensor, values: Tensor) -> None:
        """Put other values into a parameter, which is no change by the program itself."""
        self._note_change(parameter)
        parameter.copy_(values)
        self._note_sum(parameter)

    def _note_change(self, parameter: Tensor) -> None:
        known = self.sums.get(id(parameter)) if self.taping else None
        self.seen.outside |= known is not None and known != _sum(parameter)

    def _note_sum(self, parameter: Tensor) -> None:
        if self.taping:
            self.sums[id(parameter)] = _sum(parameter)

    def _unscale(self, gradients: Iterable[Tensor], share: float) -> None:
        """Take the scale of a `GradScaler` out of gradients, and out of the loss on the tape."""
        scaled = {gradient.data_ptr() for gradient in gradients}
        for key in self.seen.fresh:
            grad = self.parameters[key].grad
            if grad is not None and grad.data_ptr() in scaled:
                self.seen.fresh[key] *= share
                self.seen.norms[key] *= share
                if key in self.seen.kinks:
                    self.seen.kinks[key] *= share
        tape = self.seen.tape
        if tape and not self.unscaled:  # another optimizer's gradients may follow, of the same loss
            scaling = [tape.makers[slot] for slot, _ in tape.losses]
            scaled_losses = {slot for slot, _ in tape.losses}
            self.seen.tape = replace(
                tape,
                functions=tuple(f for f in tape.functions if scaled_losses.isdisjoint(f.outputs)),
                losses=tuple((inner, None) for one in scaling for inner in one.inputs()),
                value=tape.value * share,
            )
            self.unscaled = True

    def _note_kinks(self, loss: Tensor, leaves: list[Tensor]) -> None:
        """Add up how the gradients would change if each input on a kink were on its other side."""
        if sum(int(kink.on_it.sum()) for kink in self.kinks) > MOST_KINKS:
            return
        for kink in self.kinks:
            if kink.inputs is kink.outputs:  # changed in place: what it was made of is gone
                continue
            (slope,) = torch.autograd.grad(loss, kink.outputs, retain_graph=True, allow_unused=True)
            for at in map(tuple, kink.on_it.nonzero().tolist() if slope is not None else ()):
                moved = kink.change(at, slope[at])
                shares = torch.autograd.grad(
                    kink.inputs, leaves, moved, retain_graph=True, allow_unused=True
                )
                for leaf, share in zip(leaves, shares, strict=True):
                    if share is not None:
                        known = self.seen.kinks.get(id(leaf), 0.0)
                        self.seen.kinks[id(leaf)] = known + share.abs()

    def _before(self, optimizer: Optimizer, *_: object) -> None:
        if threading.get_ident() != self.thread:
            return
        self.stepping = True
        for group in optimizer.param_groups:
            options = {key: _plain(value) for key, value in group.items() if key != "params"}
            for parameter in group["params"]:
                self.parameters[id(parameter)] = parameter
                self.options[id(parameter)] = options
                self._note_change(parameter)

    def _after(self, optimizer: Optimizer, *_: object) -> None:
        """Take the gradients after the step: a closure computes them within it."""
        if threading.get_ident() != self.thread:
            return
        self.stepping = False
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                key = id(parameter)
                self._note_sum(parameter)
                if parameter.grad is None or key not in self.options:  # which it does not step
                    continue
                self.seen.rules[key] = type(optimizer), self.options[key]
                fresh, used = self.seen.fresh.get(key), _dense(parameter.grad)
                if fresh is None or not _is_equal(fresh, used):
                    fresh = self.keep(key, used)
                self.seen.used[key] = fresh


def _is_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same; one that was copied to another device need not be."""
    alike = one.shape == other.shape and one.device == other.device
    return alike and torch.equal(one, other)


def _jump(inputs: Tensor, jump: float, at: tuple[int, ...], slope: Tensor) -> Tensor:
    """What is handed back by one element of a function whose derivative jumps there."""
    moved = torch.zeros_like(inputs)
    moved[at] = jump * slope
    return moved


def _sum(parameter: Tensor) -> float:
    """The sum of its elements. It tells of changes, those of `parameter.data` included."""
    return parameter.detach().nan_to_num().sum().item()


def _listed(one: Any) -> list[Any]:  # noqa: ANN401 (a tensor, several, or none)
    if one is None:
        return []
    return [one] if isinstance(one, Tensor) else list(one)


def _leaves(nodes: Iterable[Any]) -> list[Tensor]:
    """The tensors at which a graph ends and gradients gather."""
    found, waiting, known = [], list(nodes), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [inner for inner, _ in node.next_functions]
    return found


def _dense(tensor: Tensor) -> Tensor:
    return (tensor.to_dense() if tensor.is_sparse else tensor).detach()


def _plain(value: Any) -> Any:  # noqa: ANN401 (as an optimizer has it)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    return float(value) if isinstance(value, float) else value  # NumPy's are of that kind, too
