"""The rules of torch.optim by hand, one page each. None of them loads torch before its step."""

from __future__ import annotations

__all__ = [
    "ASGD",
    "RULES",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Rule",
    "call",
    "find",
    "read",
]

from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .asgd import ASGD
from .nadam import NAdam
from .radam import RAdam
from .reading import call, find, read
from .rmsprop import RMSprop
from .rprop import Rprop
from .rule import Rule
from .sgd import SGD

_PAGES = (SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Adagrad, Adadelta, ASGD, Rprop)
RULES: dict[str, type[Rule]] = {rule.__name__: rule for rule in _PAGES}
