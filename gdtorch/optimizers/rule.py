"""What all rules share: options and switches as fields, what a step begins with, what it keeps."""

from __future__ import annotations

__all__ = ["Rule", "State", "Tensor", "buffers", "require", "switch"]

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    Tensor = Any  # no page loads torch, so that options can be checked before it is loaded

State: TypeAlias = dict[str, Any]
NOT_NEGATIVE = {  # option → its name in torch.optim's messages
    "lr": "learning rate",
    "eps": "epsilon value",
    "momentum": "momentum value",
    "weight_decay": "weight_decay value",
    "momentum_decay": "momentum_decay value",
    "lr_decay": "lr_decay value",
    "initial_accumulator_value": "initial_accumulator_value value",
}


@dataclass(frozen=True)
class Rule(ABC):
    """One of `torch.optim`'s update rules with its options, changed by `dataclasses.replace`.

    Its fields are the options of the class of that name in `torch.optim`, with its defaults, if
    they change what a step computes. Further fields, made by `switch`, stand for what other people
    write. With the defaults of these the rule is PyTorch's own.

    Raises:
        ValueError: `torch.optim` refuses these options; the message is its own.

    Example:
        >>> from dataclasses import replace
        >>> from gdtorch.optimizers import Adam
        >>> import torch
        >>> weight, state = torch.tensor([1.0]), {}
        >>> Adam(lr=0.5).step(weight, torch.tensor([3.0]), state)
        >>> weight, replace(Adam(lr=0.5), eps=1e-6).eps
        (tensor([0.5000]), 1e-06)
    """

    lr: float = 1e-3
    _: KW_ONLY
    maximize: bool = False

    # Of rules without these: on other pages they are fields.
    weight_decay = 0.0
    decoupled_weight_decay = False
    decay_without_lr = False
    eps = 0.0
    eps_in_root = False
    no_root = False

    def __post_init__(self) -> None:
        lr: Any = self.lr
        if hasattr(lr, "numel"):  # a tensor stays one: it rounds differently
            require(lr.numel() == 1, "Tensor lr must be 1-element")
            object.__setattr__(self, "lr", lr.squeeze())
        self._check()

    def _check(self) -> None:
        """Refuse what `torch.optim` refuses, in its words."""
        for option, value in self.options().items():
            if option in NOT_NEGATIVE:
                require(value >= 0.0, f"Invalid {NOT_NEGATIVE[option]}: {value}")
            if option == "betas":
                for index, beta in enumerate(value):
                    require(0.0 <= beta < 1.0, f"Invalid beta parameter at index {index}: {beta}")

    @abstractmethod
    def step(self, weight: Tensor, grad: Tensor, state: State) -> None:
        """Take one step: change the weight and its state in place, and leave the gradient alone.

        Args:
            weight: θ, of any shape; row-major, for the same bits as `torch.optim`.
            grad: ∂f/∂θ, of its shape.
            state: what each step of this weight passes on to the next, under `torch.optim`'s names;
                empty before the first.
        """

    def signed_and_decayed(self, weight: Tensor, grad: Tensor) -> Tensor:
        """−g if maximize; then g + λθ, or with decoupled decay g as it is, and θ ← θ − γλθ."""
        if self.maximize:
            grad = -grad
        if self.weight_decay != 0:
            if self.decay_without_lr:
                weight.mul_(1 - self.weight_decay)
            elif self.decoupled_weight_decay:
                weight.mul_(1 - self.lr * self.weight_decay)
            else:
                grad = grad.add(weight, alpha=self.weight_decay)
        return grad

    def root(self, square: Tensor) -> Tensor:
        """√v + ε; where `eps_in_root` says so √(v + ε), and with `no_root` v + ε."""
        if self.no_root:
            return square.add(self.eps)
        if self.eps_in_root:
            return square.add(self.eps).sqrt_()
        return square.sqrt().add_(self.eps)

    def try_out(self, dtype: torch.dtype) -> None:
        """Refuse numbers that are fine one by one, but not together, as in lr / (1 − β₁).

        Raises:
            ValueError: a first step in this dtype fails.
        """
        import torch

        weight = torch.zeros(1, dtype=dtype)
        try:
            self.step(weight, weight.clone(), {})
        except (ArithmeticError, RuntimeError) as error:
            raise ValueError(
                f"with these numbers a step of {type(self).__name__} divides by zero or overflows "
                f"{str(dtype).removeprefix('torch.')}; choose others"
            ) from error

    def options(self) -> dict[str, Any]:
        """Name → value of PyTorch's own options, as the class in `torch.optim` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init and not f.metadata}

    @classmethod
    def switches(cls) -> dict[str, str]:
        """Name → who writes it so, for each field that is not an option of PyTorch's."""
        return {f.name: f.metadata["who"] for f in fields(cls) if f.metadata}


def switch(who: str, default: Any = False) -> Any:  # noqa: ANN401 (a field of any type)
    """A field that is not an option of PyTorch's; `who` says who writes the rule that way."""
    return field(default=default, kw_only=True, metadata={"who": who})


def buffers(state: State, weight: Tensor, **start: float) -> list[Tensor]:
    """The tensors that each step of a weight passes on to the next, all of the weight's shape.

    Args:
        state: where they are kept; empty before the first step.
        weight: θ.
        start: name → the number that fills the tensor before the first step.
    """
    if not state:
        for name, number in start.items():
            state[name] = weight.new_full(weight.shape, number)
    return [state[name] for name in start]


def require(fine: bool, refusal: str) -> None:
    """Raise ValueError with this message, unless the option is fine."""
    if not fine:
        raise ValueError(refusal)
