"""Pairs that part for a known reason: NumPy with the mistake as an option, and torch.optim.

Nothing of gdtorch is used here. Each rule stands in NumPy with its options and with what people
write otherwise; a program around it has what they do otherwise with gradients.
"""

import itertools

import numpy as np
import torch
from descents import Linear, Post, initial


class Batches:
    """A ReLU network with biases, mean cross-entropy over mini-batches of 10 of 40 rows."""

    rows = 10

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.weights = {
            "W1": rng.normal(size=(4, 9)) / 2,
            "b1": rng.normal(size=9) / 4,
            "W2": rng.normal(size=(9, 3)) / 3,
            "b2": rng.normal(size=3) / 4,
        }
        self.x, self.y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
        self.batches = [rng.permutation(40)[:10] for _ in range(8)]

    def batch(self, step):
        rows = self.batches[step % len(self.batches)]
        return self.x[rows], self.y[rows]

    def gradient(self, w, step):
        x, y = self.batch(step)
        x = x.astype(w["W1"].dtype)
        z = x @ w["W1"] + w["b1"]
        hidden = np.maximum(z, 0)
        scores = hidden @ w["W2"] + w["b2"]
        p = np.exp(scores - scores.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
        p[np.arange(len(x)), y] -= 1
        p = p / len(x)
        back = p @ w["W2"].T * (z > 0)
        return {"W1": x.T @ back, "b1": back.sum(0), "W2": hidden.T @ p, "b2": p.sum(0)}

    def loss(self, w, step):
        x, y = (torch.tensor(a) for a in self.batch(step))
        hidden = torch.relu(x.to(w["W1"].dtype) @ w["W1"] + w["b1"])
        return torch.nn.functional.cross_entropy(hidden @ w["W2"] + w["b2"], y)


class AllRows:
    """A problem of descents.py, whose every step sees all rows."""

    def __init__(self, kind, seed):
        self.problem = kind(seed)
        self.weights, self.rows = self.problem.weights, self.problem.rows

    def gradient(self, w, _):
        return self.problem.gradient(w)

    def loss(self, w, _):
        return self.problem.loss(w)


PROBLEMS = {
    "post": lambda seed: AllRows(Post, seed),
    "linear": lambda seed: AllRows(Linear, seed),
    "batches": Batches,
}


# Rules: (weight, gradient, state, step from 1, lr, options) → the weight after the step.


def decayed(w, g, lr, o):
    """The weight and the gradient after the decay, inside the gradient or outside."""
    g = -g if o.get("maximize") else g
    decay = o.get("weight_decay", 0.0)
    if o.get("decay_without_lr"):
        return w - decay * w, g
    if o.get("decoupled_weight_decay"):
        return w - lr * decay * w, g
    return w, g + decay * w


def sgd(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    mu, damp = o.get("momentum", 0.0), o.get("dampening", 0.0)
    if o.get("lr_in_velocity"):
        g, lr = lr * g, 1.0
    if not mu:
        return w - lr * g
    old = s.get("v", 0 * g)
    if t == 1 and not o.get("dampen_first"):
        s["v"] = g
    else:
        s["v"] = mu * old + (1 - damp) * g
    v = old if o.get("old_velocity") else s["v"]
    return w - lr * (g + mu * v if o.get("nesterov") else v)


def adam(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    (b1, b2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8)
    s["m"] = b1 * s.get("m", 0 * g) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0 * g) + (1 - b2) * g * g
    c1, c2 = (1, 1) if o.get("no_bias_correction") else (1 - b1**t, 1 - b2**t)
    v = s["v"]
    if o.get("amsgrad"):
        v = s["most"] = np.maximum(s.get("most", 0 * g), v)
    if o.get("eps_in_root"):
        root = np.sqrt(v / c2 + eps)
    elif o.get("eps_before_correction"):
        root = (np.sqrt(v) + eps) / c2**0.5
    else:
        root = np.sqrt(v / c2) + eps
    return w - lr * (s["m"] / c1) / root


def rmsprop(w, g, s, t, lr, o):
    del t
    w, g = decayed(w, g, lr, o)
    alpha, eps, mu = o.get("alpha", 0.99), o.get("eps", 1e-8), o.get("momentum", 0.0)
    begin = np.full_like(g, o.get("initial_accumulator_value", 0.0))
    s["v"] = alpha * s.get("v", begin) + (1 - alpha) * g * g
    v = s["v"]
    if o.get("centered"):
        s["m"] = alpha * s.get("m", 0 * g) + (1 - alpha) * g
        v = v - s["m"] * s["m"]
    d = g / (np.sqrt(v + eps) if o.get("eps_in_root") else np.sqrt(v) + eps)
    s["b"] = mu * s.get("b", 0 * g) + d
    return w - lr * s["b"]


def adagrad(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    eps = o.get("eps", 1e-10)
    lr = lr / (1 + (t - 1) * o.get("lr_decay", 0.0))
    begin = np.full_like(g, o.get("initial_accumulator_value", 0.0))
    s["v"] = s.get("v", begin) + g * g
    return w - lr * g / (np.sqrt(s["v"] + eps) if o.get("eps_in_root") else np.sqrt(s["v"]) + eps)


def adadelta(w, g, s, t, lr, o):
    del t
    w, g = decayed(w, g, lr, o)
    rho, eps = o.get("rho", 0.9), o.get("eps", 1e-6)
    s["v"] = rho * s.get("v", 0 * g) + (1 - rho) * g * g
    u = s.get("u", 0 * g)
    delta = np.sqrt(u + eps) / np.sqrt(s["v"] + eps) * g
    s["u"] = rho * u + (1 - rho) * delta * delta
    return w - lr * delta


def adamax(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    (b1, b2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8)
    s["m"] = b1 * s.get("m", 0 * g) + (1 - b1) * g
    if o.get("eps_outside_max"):
        s["u"] = np.maximum(b2 * s.get("u", 0 * g), np.abs(g))
        u = s["u"] + eps
    else:
        u = s["u"] = np.maximum(b2 * s.get("u", 0 * g), np.abs(g) + eps)
    return w - lr / (1 - b1**t) * s["m"] / u


def nadam(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    (b1, b2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8)
    psi = o.get("momentum_decay", 4e-3)
    now, then = (b1 * (1 - 0.5 * 0.96 ** (k * psi)) for k in (t, t + 1))
    product = s["product"] = s.get("product", 1.0) * now
    s["m"] = b1 * s.get("m", 0 * g) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0 * g) + (1 - b2) * g * g
    ahead = then / (1 - product * then) * s["m"] + (1 - now) / (1 - product) * g
    return w - lr * ahead / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def radam(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    (b1, b2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8)
    s["m"] = b1 * s.get("m", 0 * g) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0 * g) + (1 - b2) * g * g
    m = s["m"] / (1 - b1**t)
    top = 2 / (1 - b2) - 1
    rho = top - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return w - lr * m
    r = np.sqrt((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho))
    return w - lr * m * float(r * (1 - b2**t) ** 0.5) / (np.sqrt(s["v"]) + eps)


def asgd(w, g, s, t, lr, o):
    w, g = decayed(w, g, lr, o)
    lambd, alpha = o.get("lambd", 1e-4), o.get("alpha", 0.75)
    eta = s.get("eta", lr)
    s["eta"] = lr / (1 + lambd * lr * t) ** alpha
    return w * (1 - lambd * eta) - eta * g


def rprop(w, g, s, t, lr, o):
    del t
    g = -g if o.get("maximize") else g
    (less, more), (low, high) = o.get("etas", (0.5, 1.2)), o.get("step_sizes", (1e-6, 50.0))
    turn = g * s.get("g", 0 * g)
    size = s.get("size", np.full_like(g, lr))
    by = np.where(turn > 0, more, np.where(turn < 0, less, 1.0)).astype(g.dtype)
    s["size"] = np.clip(size * by, low, high)
    s["g"] = g if o.get("keep_gradient") else np.where(turn < 0, 0, g)
    return w - np.sign(s["g"]) * s["size"]


RULES = {
    "SGD": sgd, "Adam": adam, "AdamW": adam, "RMSprop": rmsprop, "Adagrad": adagrad,
    "Adadelta": adadelta, "Adamax": adamax, "NAdam": nadam, "RAdam": radam, "ASGD": asgd,
    "Rprop": rprop,
}  # fmt: skip
LR = {
    "SGD": 0.1, "Adam": 0.01, "AdamW": 0.01, "RMSprop": 0.01, "Adagrad": 0.05, "Adadelta": 1.0,
    "Adamax": 0.01, "NAdam": 0.01, "RAdam": 0.01, "ASGD": 0.05, "Rprop": 0.01,
}  # fmt: skip


def clipped(grads, how, most):
    """Gradients as they are clipped by hand."""
    if how == "value":
        return {n: np.clip(g, -most, most) for n, g in grads.items()}
    norms = {n: float(np.sqrt((g.astype(float) ** 2).sum())) for n, g in grads.items()}
    if how == "together":
        norms = dict.fromkeys(norms, float(np.sqrt(sum(n * n for n in norms.values()))))
    return {n: g * min(1.0, most / (norms[n] + 1e-6)) for n, g in grads.items()}


def by_hand(
    problem, dtype, optimizer, *, factor=1.0, factors=None, adds_up="never", late=False, clip=None,
    resets=False, rates=None, still=(), borrowed=None, **options,
):  # fmt: skip
    """NumPy, with a mistake.

    Args:
        factor, factors: of every gradient, and of single weights'.
        adds_up: whether gradients add up: "never", "always", or in the "first" step.
        late: whether a step takes the gradient of the one before.
        clip: (how, at what).
        resets: whether the optimizer's state is made anew at each step.
        rates: step, from 0 → factor of lr.
        still: weights that do not move.
        borrowed: weight → the one whose gradient it is given.
    """
    w = initial(problem, dtype)
    lr = options.pop("lr", LR[optimizer])
    if optimizer == "AdamW":
        options = {"weight_decay": 0.01, "decoupled_weight_decay": True} | options
    state, total, before = {n: {} for n in w}, dict.fromkeys(w, 0), None
    yield w
    for step in itertools.count():
        fresh = problem.gradient(w, step)
        grads = (before or fresh) if late else fresh
        before = fresh
        grads = {n: grads[(borrowed or {}).get(n, n)] for n in w}
        if adds_up == "always":
            grads = total = {n: total[n] + g for n, g in grads.items()}
        elif adds_up == "first" and step == 0:
            grads = {n: 2 * g for n, g in grads.items()}
        grads = {n: g * (factor * (factors or {}).get(n, 1.0)) for n, g in grads.items()}
        grads = grads if clip is None else clipped(grads, *clip)
        rate = lr * float(rates(step) if rates else 1.0)
        for n in w:
            if n in still:
                continue
            of, t = ({}, 1) if resets else (state[n], step + 1)
            w[n][...] = RULES[optimizer](w[n], grads[n], of, t, rate, options)
        yield w


def by_torch(
    problem, dtype, optimizer, *, factor=1.0, adds_up="never", clip=None, schedule=None, still=(),
    forgotten=(), **options,
):  # fmt: skip
    """torch.optim, as one trains with it.

    Args:
        factor: of the loss.
        adds_up: as `by_hand`'s; "first" has a backward pass before the loop.
        clip: as `by_hand`'s.
        schedule: optimizer → scheduler.
        still: weights without a gradient.
        forgotten: weights that the optimizer is not given.
    """
    w = {
        n: torch.tensor(v, requires_grad=n not in still) for n, v in initial(problem, dtype).items()
    }
    trained = [v for n, v in w.items() if n not in still and n not in forgotten]
    made = getattr(torch.optim, optimizer)(trained, **{"lr": LR[optimizer], **options})
    scheduler = schedule(made) if schedule else None
    if adds_up == "first":
        (factor * problem.loss(w, 0)).backward()
    for step in itertools.count():
        yield w
        if adds_up == "never" or (adds_up == "first" and step):
            made.zero_grad()
        (factor * problem.loss(w, step)).backward()
        if clip:
            clip_by_torch(trained, *clip)
        made.step()
        if scheduler:
            scheduler.step()


def clip_by_torch(parameters, how, most):
    """Gradients clipped by torch.nn.utils."""
    if how == "together":
        torch.nn.utils.clip_grad_norm_(parameters, most)
    elif how == "value":
        torch.nn.utils.clip_grad_value_(parameters, most)
    else:
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_([parameter], most)


# Mistakes, one at a time: what `lockstep` is to call them, and the edit with mine's value.

OPTIONS = {  # optimizer → an option's two values; both ways round
    "SGD": {
        "momentum": [(0.9, 0.5), (0.9, 0.0)], "dampening": [(0.5, 0.0), (0.3, 0.6)],
        "weight_decay": [(0.1, 0.0), (0.1, 0.02)],
    },
    "Adam": {
        "betas[0]": [(0.9, 0.8)], "betas[1]": [(0.999, 0.99)], "eps": [(1e-8, 1e-3)],
        "weight_decay": [(0.1, 0.0)],
    },
    "AdamW": {"betas[0]": [(0.9, 0.5)], "eps": [(1e-6, 1e-2)], "weight_decay": [(0.1, 0.01)]},
    "RMSprop": {
        "alpha": [(0.99, 0.9)], "eps": [(1e-8, 1e-3)], "momentum": [(0.0, 0.9), (0.5, 0.9)],
        "weight_decay": [(0.1, 0.0)],
    },
    "Adagrad": {
        "eps": [(1e-10, 1e-2)], "lr_decay": [(0.0, 0.1)], "weight_decay": [(0.1, 0.0)],
        "initial_accumulator_value": [(0.0, 0.1)],
    },
    "Adadelta": {"rho": [(0.9, 0.8)], "eps": [(1e-6, 1e-4)], "weight_decay": [(0.1, 0.0)]},
    "Adamax": {
        "betas[0]": [(0.9, 0.8)], "betas[1]": [(0.999, 0.9)], "eps": [(1e-8, 1e-2)],
        "weight_decay": [(0.1, 0.0)],
    },
    "NAdam": {
        "betas[0]": [(0.9, 0.8)], "betas[1]": [(0.999, 0.99)], "eps": [(1e-8, 1e-3)],
        "weight_decay": [(0.1, 0.0)], "momentum_decay": [(4e-3, 4e-2)],
    },
    "RAdam": {"betas[0]": [(0.9, 0.8)], "betas[1]": [(0.999, 0.99)], "weight_decay": [(0.1, 0.0)]},
    "ASGD": {"lambd": [(1e-4, 1e-1)], "weight_decay": [(0.1, 0.0)], "alpha": [(0.75, 0.1)]},
    "Rprop": {"etas[0]": [(0.5, 0.7)], "etas[1]": [(1.2, 1.4)]},
}  # fmt: skip
WITH = {  # what an option needs to show
    ("SGD", "dampening"): {"momentum": 0.9},
    ("ASGD", "alpha"): {"lambd": 0.5},
}
FLAGS = {  # PyTorch's own, both ways round
    "SGD": {"nesterov": {"momentum": 0.9}, "maximize": {}},
    "Adam": {"amsgrad": {"betas": (0.9, 0.5)}, "maximize": {}},
    "AdamW": {"amsgrad": {"betas": (0.9, 0.5)}},
    "RMSprop": {"centered": {"alpha": 0.5, "eps": 1e-2}},
    "NAdam": {"decoupled_weight_decay": {"weight_decay": 0.1}},
    "RAdam": {"decoupled_weight_decay": {"weight_decay": 0.1}},
}
SWITCHES = {  # what NumPy alone can do, with the options to see it by
    "SGD": {
        "decoupled_weight_decay": {"momentum": 0.9, "weight_decay": 0.1},
        "dampen_first": {"momentum": 0.9, "dampening": 0.5},
        "old_velocity": {"momentum": 0.9},
    },
    "Adam": {
        "eps_in_root": {"eps": 1e-4}, "eps_before_correction": {"eps": 1e-3},
        "no_bias_correction": {}, "decoupled_weight_decay": {"weight_decay": 0.1},
    },
    "AdamW": {"decay_without_lr": {"weight_decay": 0.01}},
    "RMSprop": {"eps_in_root": {"eps": 1e-3}, "initial_accumulator_value": {}},
    "Adagrad": {"eps_in_root": {"eps": 1e-3}},
    "Adamax": {"eps_outside_max": {"eps": 1e-2, "betas": (0.9, 0.9)}},
    "Rprop": {"keep_gradient": {}},
}  # fmt: skip
WORDS = {
    "maximize": "sign", "weight_decay": "weight decay", "betas[0]": "betas", "betas[1]": "betas",
    "eps_in_root": "eps", "eps_before_correction": "eps", "eps_outside_max": "eps",
    "no_bias_correction": "bias correction", "decay_without_lr": "decay without lr",
    "dampen_first": "dampening in the first step", "old_velocity": "velocity a step late",
    "initial_accumulator_value": "initial accumulator",
}  # fmt: skip


def word(optimizer, option):
    if option == "decoupled_weight_decay":
        return "decay outside the velocity" if optimizer == "SGD" else "decoupled weight decay"
    return WORDS.get(option, option.replace("_", " "))


def given(option, value):
    """The keyword of an option, one of two by its place."""
    name, _, place = option.partition("[")
    if not place:
        return {name: value}
    both = list({"betas": (0.9, 0.999), "etas": (0.5, 1.2)}[name])
    both[int(place[0])] = value
    return {name: tuple(both)}


SCHEDULES = {  # name → a scheduler, and its factors of lr by hand
    "StepLR": (
        lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5),
        lambda step: 0.5 ** (step // 5),
    ),
    "ExponentialLR": (
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        lambda step: 0.9**step,
    ),
    "CosineAnnealingLR": (
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 60),
        lambda step: (1 + np.cos(np.pi * step / 60)) / 2,
    ),
    "LinearLR": (
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.2, 1.0, 10),
        lambda step: 0.2 + 0.8 * min(step, 10) / 10,
    ),
}


def by_option(optimizer):
    """(name, cause, edit, mine, theirs), the last two keywords of `by_hand` and `by_torch`."""
    for option, pairs in OPTIONS[optimizer].items():
        base = WITH.get((optimizer, option), {})
        for pair in pairs:
            for a, b in (pair, pair[::-1]):
                mine, theirs = base | given(option, a), base | given(option, b)
                name = f"{option} {a} for {b}"
                yield name, word(optimizer, option), {option: a}, mine, theirs
    for option, base in FLAGS.get(optimizer, {}).items():
        for a, b in ((True, False), (False, True)):
            cause = word(optimizer, option)
            yield f"{option} {a}", cause, {}, base | {option: a}, base | {option: b}
    for option, base in SWITCHES.get(optimizer, {}).items():
        value = 1.0 if option == "initial_accumulator_value" else True
        yield option, word(optimizer, option), {option: value}, base | {option: value}, base


def by_program(optimizer, problem):
    """As `by_option`, of what surrounds the rule."""
    names = list(problem.weights)
    first, last, lr = names[0], names[-1], LR[optimizer]
    yield "lr thrice", "scale", {}, {"lr": 3 * lr}, {}
    yield "lr a seventh", "scale", {}, {}, {"lr": 7 * lr}
    if optimizer != "Rprop":  # of whose gradient the sign alone counts
        yield "factor 1/2", "scale", {}, {"factor": 0.5}, {}
        yield "factor of rows", "scale", {}, {}, {"factor": float(problem.rows)}
        yield "factor of one", "scale of one weight", {}, {"factors": {first: 2.0}}, {}
        yield "first not zeroed", "gradients not zeroed", {}, {"adds_up": "first"}, {}
        yield "first zeroed", "gradients not zeroed", {}, {}, {"adds_up": "first"}
        for how, most in (("together", 0.1), ("each", 0.1), ("value", 0.02)):
            yield f"clips {how}", "clipping", {}, {"clip": (how, most)}, {}
            yield f"does not clip {how}", "clipping", {}, {}, {"clip": (how, most)}
    yield "not zeroed", "gradients not zeroed", {}, {"adds_up": "always"}, {}
    yield "zeroed", "gradients not zeroed", {}, {}, {"adds_up": "always"}
    yield "stale", "stale gradient", {}, {"late": True}, {}
    if optimizer not in {"SGD", "ASGD"}:
        yield "reset", "state reset", {}, {"resets": True}, {}
    yield "still", "weight that never moves", {}, {"still": (first,)}, {}
    yield "moves", "weight that never moves", {}, {}, {"still": (last,)}
    yield "moves what is forgotten", "weight that never moves", {}, {}, {"forgotten": (last,)}
    if optimizer not in {"Rprop", "ASGD"}:  # which look at lr in their first step alone
        for name, (make, factor) in SCHEDULES.items():
            by = {
                "constant": lambda _: 1.0,
                "ahead": lambda step, factor=factor: factor(step + 1),
                "behind": lambda step, factor=factor: factor(max(0, step - 1)),
            }
            yield f"{name} for constant", "step size schedule", {}, {"rates": factor}, {}
            for how, rates in by.items():
                theirs = {"schedule": make}
                yield f"{how}: {name}", "step size schedule", {}, {"rates": rates}, theirs
    other = "Adam" if optimizer == "SGD" else "SGD"
    yield f"is {other}", "optimizer", {}, {"optimizer": other}, {}


def pair(problem, dtype, optimizer, mine, theirs):
    """Both of a case, from the same weights."""
    return (
        by_hand(problem, dtype, **{"optimizer": optimizer, **mine}),
        by_torch(problem, dtype, **{"optimizer": optimizer, **theirs}),
    )
