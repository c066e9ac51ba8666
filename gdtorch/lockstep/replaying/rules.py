"""`torch.optim`'s rules as text, in which a slip can be made; `optimizers/` has them in full.

Of a weight w and its gradient g in step t. What a text assigns is 0 before the first step, or the
initial_accumulator_value; the other names are those of options, and beta1 and beta2.
"""

from __future__ import annotations

__all__ = ["kept", "take", "text_of"]

import re
from typing import Any

from torch import Tensor

from ...optimizers import Rule
from ..gradients.mutations import assigned, evaluate

DECAYED = "decayed = g + weight_decay * w"
SHRUNK = "w = w - lr * weight_decay * w"
MOMENTS = """
m = beta1 * m + (1 - beta1) * g
v = beta2 * v + (1 - beta2) * g ** 2
"""
CORRECTED = """
m_hat = m / (1 - beta1 ** t)
v_hat = v / (1 - beta2 ** t)
w = w - lr * m_hat / (sqrt(v_hat) + eps)
"""
TEXTS = {
    "SGD": "w = w - lr * g",
    "SGD, momentum": "b = momentum * b + g\nw = w - lr * b",
    "SGD, nesterov": "b = momentum * b + g\nw = w - lr * (g + momentum * b)",
    "Adagrad": "s = s + g ** 2\nw = w - lr * g / (sqrt(s) + eps)",
    "Adagrad, lr_decay": """
s = s + g ** 2
w = w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)
""",
    "Adadelta": """
v = rho * v + (1 - rho) * g ** 2
d = sqrt(u + eps) / sqrt(v + eps) * g
u = rho * u + (1 - rho) * d ** 2
w = w - lr * d
""",
    "RMSprop": """
v = alpha * v + (1 - alpha) * g ** 2
w = w - lr * g / (sqrt(v) + eps)
""",
    "RMSprop, momentum": """
v = alpha * v + (1 - alpha) * g ** 2
b = momentum * b + g / (sqrt(v) + eps)
w = w - lr * b
""",
    "RMSprop, centered": """
v = alpha * v + (1 - alpha) * g ** 2
a = alpha * a + (1 - alpha) * g
b = momentum * b + g / (sqrt(v - a ** 2) + eps)
w = w - lr * b
""",
    "Adam": MOMENTS + CORRECTED,
    "Adam, amsgrad": MOMENTS + "u = maximum(u, v)" + CORRECTED.replace("v /", "u /"),
    "Adamax": """
m = beta1 * m + (1 - beta1) * g
u = maximum(beta2 * u, abs(g) + eps)
w = w - lr / (1 - beta1 ** t) * m / u
""",
    "NAdam": """
mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
p = mu if t == 1 else p * mu
"""
    + MOMENTS
    + """
m_hat = mu_next * m / (1 - p * mu_next) + (1 - mu) * g / (1 - p)
v_hat = v / (1 - beta2 ** t)
w = w - lr * m_hat / (sqrt(v_hat) + eps)
""",
}
# By the first of these that is on, texts of one rule differ.
TURNED_ON = ("nesterov", "amsgrad", "centered", "momentum", "lr_decay")


def text_of(rule: Rule) -> str:
    """A rule with its options as text; empty where there is none."""
    kind = "Adam" if type(rule).__name__ == "AdamW" else type(rule).__name__
    options = rule.options()
    turned_on = [option for option in TURNED_ON if options.get(option)]
    text = TEXTS.get(", ".join([kind, *turned_on[:1]]), "")
    if options.get("dampening"):  # which the first step leaves out
        text = text.replace("b + g", "b + (1 - dampening) * g if t > 1 else g")
    if not text or not rule.weight_decay:
        return text
    if rule.decoupled_weight_decay:
        return f"{SHRUNK}\n{text}"
    return DECAYED + "\n" + re.sub(r"\bg\b", "decayed", text)


def kept(text: str) -> list[str]:
    """The names that a text passes on from one step to the next."""
    return [name for name in assigned(text) if name not in {"w", "g"}]


def take(text: str, rule: Rule, weight: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
    """Take a step of a rule as a text has it, in place; see `Rule.step`."""
    names = rule.options()
    names["beta1"], names["beta2"] = names.get("betas", (0.0, 0.0))
    t = state["step"] = state.get("step", 0) + 1
    names |= {"w": weight, "g": -grad if rule.maximize else grad, "t": t}
    begin = names.get("initial_accumulator_value", 0.0)
    for name in kept(text):
        names[name] = state[name] if name in state else weight.new_full(weight.shape, begin)
    evaluate(text, names)
    weight.copy_(names["w"])
    state |= {name: names[name] for name in kept(text)}
