"""Backward passes by hand, with mistakes to choose, and the same networks in PyTorch.

Nothing of gdtorch is used here. Each network has `MISTAKES`: the mistake's name → the word by which
`lockstep` is to call it, and what the report is to say.
"""

import itertools

import numpy as np
import torch
from descents import initial
from numpy.lib.stride_tricks import sliding_window_view
from torch.nn import functional as F  # noqa: N812

EARLY = "updated too early"


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def pick(mistakes, written, right):
    """What is written in place of what is right, by the mistake that is made there."""
    return next((written[one] for one in mistakes if one in written), right)


def slope_of_sigmoid(mistakes, z, a):
    """σ′, or what people write for it; the mistakes without the layer's name."""
    written = {
        "no σ′": np.ones_like(a),
        "σ′ of z": z * (1 - z),
        "σ′ of a": sigmoid(a) * (1 - sigmoid(a)),
        "a alone": a,
        "1 − a alone": 1 - a,
        "tanh′ for σ′": 1 - a * a,
        "σ′ twice": (a * (1 - a)) ** 2,
    }
    return pick(mistakes, written, a * (1 - a))


def slope_of_tanh(mistakes, z, h):
    written = {
        "no tanh′": np.ones_like(h),
        "tanh′ of z": 1 - z * z,
        "tanh′ of h": 1 - np.tanh(h) ** 2,
        "1 − h": 1 - h,
        "σ′ for tanh′": h * (1 - h),
        "tanh′ twice": (1 - h * h) ** 2,
    }
    return pick(mistakes, written, 1 - h * h)


SIGMOIDS = {
    "no σ′": "leaves out σ′",
    "σ′ of z": "takes σ′ from the input of the sigmoid",
    "σ′ of a": "takes σ′ at the output of sigmoid",
    "a alone": "has the output, a, for σ′",
    "1 − a alone": "has 1 − a for σ′",
    "tanh′ for σ′": "has tanh's 1 − a² for σ′",
    "σ′ twice": "multiplies by σ′ twice",
}
TANHS = {
    "no tanh′": "leaves out tanh′",
    "tanh′ of z": "takes tanh′ from the input of tanh",
    "tanh′ of h": "takes tanh′ at the output of tanh",
    "1 − h": "has 1 − h for tanh′",
    "σ′ for tanh′": "has sigmoid's h(1 − h) for tanh′",
    "tanh′ twice": "multiplies by tanh′ twice",
}


def derivatives(words, place):
    return {name: ("derivative", text, f"({place}") for name, text in words.items()}


class Sigmoid:
    """The post's 3-15-1 network."""

    rows, lr = 7, 0.5
    MISTAKES = {
        **derivatives(SIGMOIDS, "sigmoid number 1 of 2; it reaches syn0"),
        **{
            f"output: {name}": ("derivative", text, "(sigmoid number 2 of 2")
            for name, text in SIGMOIDS.items()
            if name != "σ′ of z"
        },
        "no σ′ in what is handed down": (
            "derivative",
            "σ′ (sigmoid number 2 of 2; it reaches syn0)",
        ),
        "input before σ": ("input of the layer", "(matmul number 2 of 2; it reaches syn1)"),
        "new syn1": (EARLY, "hands the gradient down by the updated syn1"),
        "all with new syn1": (EARLY, "updates syn1 then syn0"),
    }

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x = rng.integers(0, 2, (7, 3)).astype(float)
        self.y = rng.integers(0, 2, (7, 1)).astype(float)
        self.weights = {"syn0": rng.uniform(-1, 1, (3, 15)), "syn1": rng.uniform(-1, 1, (15, 1))}

    def loss(self, w, _):
        x, y = (torch.tensor(a).to(w["syn0"].dtype) for a in (self.x, self.y))
        return ((torch.sigmoid(torch.sigmoid(x @ w["syn0"]) @ w["syn1"]) - y) ** 2).sum() / 2

    def gradient(self, w, mistakes, new, step):
        x, y = (a.astype(w["syn0"].dtype) for a in (self.x, self.y))
        z1 = x @ w["syn0"]
        a1 = sigmoid(z1)
        z2 = a1 @ w["syn1"]
        a2 = sigmoid(z2)
        output = [one.removeprefix("output: ") for one in mistakes if "output: " in one]
        delta = (a2 - y) * slope_of_sigmoid(output, z2, a2)
        syn1 = (z1 if "input before σ" in mistakes else a1).T @ delta
        if "all with new syn1" in mistakes:
            other, rest = {**w, "syn1": new("syn1", syn1)}, set(mistakes) - {"all with new syn1"}
            return {"syn0": self.gradient(other, rest, new, step)["syn0"], "syn1": syn1}
        down = new("syn1", syn1) if "new syn1" in mistakes else w["syn1"]
        handed = a2 - y if "no σ′ in what is handed down" in mistakes else delta
        return {"syn0": x.T @ (handed @ down.T * slope_of_sigmoid(mistakes, z1, a1)), "syn1": syn1}


class ThreeLayers:
    """tanh, then ReLU, with biases; the layer between is square, and rows are as many as units."""

    rows, lr = 6, 0.05
    MISTAKES = {
        **derivatives(TANHS, "the only tanh; it reaches W1 and b1"),
        "no mask": ("derivative", "leaves out relu's mask"),
        "relu for its mask": ("derivative", "has the output, a, for relu's mask"),
        "W2 for its transpose": (
            "transposed product",
            "hands the gradient down by the matrix itself",
        ),
        "W2's gradient transposed": ("transposed product", "has a weight's gradient transposed"),
        "b2 over the wrong axis": ("bias gradient", "over the wrong axis (add number 2 of 3"),
        "b1 of the first row": ("bias gradient", "from the first row alone (add number 1 of 3"),
        "b1 of the last row": ("bias gradient", "from the last row alone (add number 1 of 3"),
        "b1 from W1": ("bias gradient", "as the sum of its weight's gradient (add number 1 of 3"),
        "b1 averaged": ("scale of one weight", "0.166667 times the gradient of b1"),
        "new W3": (EARLY, "by the updated W3"),
        "new W2": (EARLY, "by the updated W2"),
        "new W2 and W3": (EARLY, "by the updated W2 and W3"),
        "input before relu": ("input of the layer", "(matmul number 3 of 3; it reaches W3)"),
    }

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
        self.weights = {
            "W1": rng.normal(size=(4, 6)) / 2, "b1": rng.normal(size=6) / 4,
            "W2": rng.normal(size=(6, 6)) / 2, "b2": rng.normal(size=6) / 4,
            "W3": rng.normal(size=(6, 2)) / 2, "b3": rng.normal(size=2) / 4,
        }  # fmt: skip

    def loss(self, w, _):
        x, y = (torch.tensor(a).to(w["W1"].dtype) for a in (self.x, self.y))
        hidden = torch.tanh(x @ w["W1"] + w["b1"])
        hidden = torch.relu(hidden @ w["W2"] + w["b2"])
        return F.mse_loss(hidden @ w["W3"] + w["b3"], y)

    def gradient(self, w, mistakes, new, _):
        x, y = (a.astype(w["W1"].dtype) for a in (self.x, self.y))
        z1 = x @ w["W1"] + w["b1"]
        h1 = np.tanh(z1)
        z2 = h1 @ w["W2"] + w["b2"]
        h2 = np.maximum(z2, 0)
        d3 = 2 * (h2 @ w["W3"] + w["b3"] - y) / y.size
        g = {"W3": (z2 if "input before relu" in mistakes else h2).T @ d3, "b3": d3.sum(0)}
        down3 = new("W3", g["W3"]) if mistakes & {"new W3", "new W2 and W3"} else w["W3"]
        mask = pick(mistakes, {"no mask": np.ones_like(h2), "relu for its mask": h2}, z2 > 0)
        d2 = d3 @ down3.T * mask
        g["W2"] = (h1.T @ d2).T if "W2's gradient transposed" in mistakes else h1.T @ d2
        g["b2"] = d2.sum(1 if "b2 over the wrong axis" in mistakes else 0)
        down2 = new("W2", g["W2"]) if mistakes & {"new W2", "new W2 and W3"} else w["W2"]
        d1 = d2 @ (down2 if "W2 for its transpose" in mistakes else down2.T)
        d1 = d1 * slope_of_tanh(mistakes, z1, h1)
        g["W1"] = x.T @ d1
        written = {
            "b1 of the first row": d1[0],
            "b1 of the last row": d1[-1],
            "b1 from W1": g["W1"].sum(0),
            "b1 averaged": d1.mean(0),
        }
        g["b1"] = pick(mistakes, written, d1.sum(0))
        return g


class Softmax:
    """A sigmoid layer, softmax and cross-entropy, in batches of 10 rows."""

    rows, lr = 10, 0.5
    MISTAKES = {
        **derivatives(
            {n: t for n, t in SIGMOIDS.items() if n != "σ′ of z"}, "the only sigmoid; it reaches W1"
        ),
        "p(1 − p) once more": ("derivative", "multiplies the loss's derivative by that of softmax"),
        "Jacobian once more": ("derivative", "by softmax's Jacobian once more"),
        "target's column alone": ("derivative", "in the target's column alone"),
        "no softmax": ("derivative", "takes z − y for the derivative of cross_entropy"),
        "softmax twice": ("softmax twice", "applies softmax before cross_entropy"),
        "sum for mean": ("scale", "a sum over 10 rows where theirs takes the mean"),
        "new W2": (EARLY, "by the updated W2"),
        "a step ahead": ("rows of another step", "with the rows of the step after"),
        "a step behind": ("rows of another step", "with the rows of the step before"),
    }

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.weights = {
            "W1": rng.normal(size=(8, 4)) / 2, "b1": rng.normal(size=8) / 4,
            "W2": rng.normal(size=(3, 8)) / 3, "b2": rng.normal(size=3) / 4,
        }  # fmt: skip
        self.x, self.y = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
        self.batches = [rng.permutation(30)[:10] for _ in range(40)]

    def loss(self, w, step):
        rows = self.batches[step]
        x, y = torch.tensor(self.x[rows]).to(w["W1"].dtype), torch.tensor(self.y[rows])
        hidden = torch.sigmoid(F.linear(x, w["W1"], w["b1"]))
        return F.cross_entropy(F.linear(hidden, w["W2"], w["b2"]), y)

    def gradient(self, w, mistakes, new, step):
        step = max(0, step + pick(mistakes, {"a step ahead": 1, "a step behind": -1}, 0))
        x = self.x[self.batches[step]].astype(w["W1"].dtype)
        y = np.eye(3, dtype=x.dtype)[self.y[self.batches[step]]]
        z1 = x @ w["W1"].T + w["b1"]
        hidden = sigmoid(z1)
        z = hidden @ w["W2"].T + w["b2"]
        p = softmax(z)
        d = p - y
        if "no softmax" in mistakes:
            d = z - y
        if "p(1 − p) once more" in mistakes:
            d = d * p * (1 - p)
        if "target's column alone" in mistakes:
            d = d * y
        if mistakes & {"Jacobian once more", "softmax twice"}:
            d = softmax(p) - y if "softmax twice" in mistakes else d
            d = p * (d - (d * p).sum(1, keepdims=True))
        d = d if "sum for mean" in mistakes else d / len(x)
        g = {"W2": d.T @ hidden, "b2": d.sum(0)}
        down = new("W2", g["W2"]) if "new W2" in mistakes else w["W2"]
        back = d @ down * slope_of_sigmoid(mistakes, z1, hidden)
        return g | {"W1": back.T @ x, "b1": back.sum(0)}


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class Recurrent:
    """Five steps of tanh with shared weights."""

    rows, lr = 8, 0.05
    MISTAKES = {
        **derivatives(TANHS, "in each of 5 calls of tanh; it reaches W, U and b"),
        "no tanh′ at the end": ("derivative", "leaves out tanh′ (tanh number 5 of 5"),
        "truncated": ("branch cut off", "hands no gradient on from matmul"),
        "U for its transpose": ("transposed product", "(matmul number 2, 4, 6, 8 and 10 of 11"),
        "new V": (EARLY, "by the updated V"),
        "hₜ for hₜ₋₁": ("input of the layer", "from the state after each step", "reaches U)"),
    }

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.normal(size=(5, 8, 3)), rng.normal(size=(8, 2))
        self.weights = {
            "W": rng.normal(size=(3, 5)) / 2, "U": rng.normal(size=(5, 5)) / 2,
            "b": rng.normal(size=5) / 4, "V": rng.normal(size=(5, 2)) / 2,
        }  # fmt: skip

    def loss(self, w, _):
        x, y = (torch.tensor(a).to(w["W"].dtype) for a in (self.x, self.y))
        h = torch.zeros(8, 5, dtype=w["W"].dtype)
        for step in x:
            h = torch.tanh(step @ w["W"] + h @ w["U"] + w["b"])
        return F.mse_loss(h @ w["V"], y)

    def gradient(self, w, mistakes, new, _):
        x, y = (a.astype(w["W"].dtype) for a in (self.x, self.y))
        states, inputs = [np.zeros((8, 5), dtype=x.dtype)], []
        for row in x:
            inputs.append(row @ w["W"] + states[-1] @ w["U"] + w["b"])
            states.append(np.tanh(inputs[-1]))
        d = 2 * (states[-1] @ w["V"] - y) / y.size
        g = {n: np.zeros_like(v) for n, v in w.items()}
        g["V"] = states[-1].T @ d
        back = d @ (new("V", g["V"]) if "new V" in mistakes else w["V"]).T
        for t in reversed(range(5)):
            last = {"no tanh′"} if "no tanh′ at the end" in mistakes and t == 4 else mistakes
            dz = back * slope_of_tanh(last, inputs[t], states[t + 1])
            g["W"] += x[t].T @ dz
            g["U"] += states[t + 1 if "hₜ for hₜ₋₁" in mistakes else t].T @ dz
            g["b"] += dz.sum(0)
            back = dz @ (w["U"] if "U for its transpose" in mistakes else w["U"].T)
            if "truncated" in mistakes:
                break
        return g


class Gated:
    """PyTorch's own LSTM, and a linear layer."""

    rows, lr = 6, 0.3
    MISTAKES = {
        "no σ′ of f": ("derivative", "leaves out σ′ (sigmoid number 1, 4 and 7 of 9"),
        "no tanh′ of g": ("derivative", "leaves out tanh′ (tanh number 1, 3 and 5 of 6"),
        "c for tanh(c)": ("derivative", "takes the input of the activation for factor 1 of mul"),
        "cₜ for cₜ₋₁": ("derivative", "takes the factor of the step after for factor 1 of mul"),
        "without o": ("derivative", "leaves the other factor out of the gradient of factor 2"),
        "c not carried": ("branch cut off", "hands no gradient on from mul"),
        "h not carried": ("branch cut off", "hands no gradient on from linear"),
        "hₜ for hₜ₋₁": ("input of the layer", "from the state after each step", "reaches U)"),
    }

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.normal(size=(3, 6, 2)), rng.normal(size=(6, 2))
        self.weights = {
            "W": rng.normal(size=(12, 2)) / 2, "U": rng.normal(size=(12, 3)) / 2,
            "b": rng.normal(size=12) / 4, "c": rng.normal(size=12) / 4,
            "V": rng.normal(size=(3, 2)),
        }  # fmt: skip

    def loss(self, w, _):
        x, y = (torch.tensor(a).to(w["W"].dtype) for a in (self.x, self.y))
        begin = torch.zeros(1, 6, 3, dtype=x.dtype)
        weights = [w[name] for name in "WUbc"]
        outputs, *_ = torch.lstm(
            x,
            (begin, begin),
            weights,
            True,
            1,
            0.0,
            True,
            False,
            False,
        )
        return F.mse_loss(outputs[-1] @ w["V"], y)

    def gradient(self, w, mistakes, _new, _step):
        x, y = (a.astype(w["W"].dtype) for a in (self.x, self.y))
        h, c, gates = [np.zeros((6, 3), dtype=x.dtype)], [np.zeros((6, 3), dtype=x.dtype)], []
        for row in x:
            z = row @ w["W"].T + w["b"] + h[-1] @ w["U"].T + w["c"]
            i, f, g, o = np.split(z, 4, axis=1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c.append(f * c[-1] + i * g)
            h.append(o * np.tanh(c[-1]))
            gates.append((i, f, g, o))
        d = 2 * (h[-1] @ w["V"] - y) / y.size
        grads = {n: np.zeros_like(v) for n, v in w.items()} | {"V": h[-1].T @ d}
        dh, dc = d @ w["V"].T, np.zeros_like(h[0])
        for t in reversed(range(3)):
            (i, f, g, o), squashed = gates[t], np.tanh(c[t + 1])
            dc = 0 * dc if "c not carried" in mistakes else dc
            dc = dc + dh * (1 if "without o" in mistakes else o) * (1 - squashed**2)
            do = dh * (c[t + 1] if "c for tanh(c)" in mistakes else squashed) * o * (1 - o)
            df = dc * c[t + 1 if "cₜ for cₜ₋₁" in mistakes else t]
            df = df * (1 if "no σ′ of f" in mistakes else f * (1 - f))
            dg = dc * i * (1 if "no tanh′ of g" in mistakes else 1 - g * g)
            dz = np.concatenate([dc * g * i * (1 - i), df, dg, do], axis=1)
            grads["W"] += dz.T @ x[t]
            grads["U"] += dz.T @ h[t + 1 if "hₜ for hₜ₋₁" in mistakes else t]
            grads["b"] += dz.sum(0)
            grads["c"] += dz.sum(0)
            dh, dc = dz @ w["U"], dc * f
            dh = 0 * dh if "h not carried" in mistakes else dh
        return grads


class Convolution:
    """A convolution, ReLU and a linear layer."""

    rows, lr = 5, 0.05
    MISTAKES = {
        "no mask": ("derivative", "leaves out relu's mask (the only relu; it reaches K and c)"),
        "c averaged": ("scale of one weight", "0.0125 times the gradient of c"),
        "input before relu": ("input of the layer", "it reaches W)"),
        "new W": (EARLY, "by the updated W"),
    }

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.normal(size=(5, 6, 6)), rng.normal(size=(5, 2))
        self.weights = {
            "K": rng.normal(size=(3, 1, 3, 3)) / 2, "c": rng.normal(size=3) / 4,
            "W": rng.normal(size=(2, 48)) / 4, "b": rng.normal(size=2) / 4,
        }  # fmt: skip

    def loss(self, w, _):
        x, y = (torch.tensor(a).to(w["K"].dtype) for a in (self.x, self.y))
        hidden = torch.relu(F.conv2d(x[:, None], w["K"], w["c"]))
        return F.mse_loss(F.linear(hidden.flatten(1), w["W"], w["b"]), y)

    def gradient(self, w, mistakes, new, _):
        x, y = (a.astype(w["K"].dtype) for a in (self.x, self.y))
        windows = sliding_window_view(x, (3, 3), axis=(1, 2))
        z = np.einsum("nijab,kab->nkij", windows, w["K"][:, 0]) + w["c"][:, None, None]
        hidden = np.maximum(z, 0).reshape(5, -1)
        d = 2 * (hidden @ w["W"].T + w["b"] - y) / y.size
        seen = z.reshape(5, -1) if "input before relu" in mistakes else hidden
        g = {"W": d.T @ seen, "b": d.sum(0)}
        down = new("W", g["W"]) if "new W" in mistakes else w["W"]
        back = (d @ down).reshape(z.shape)
        back = back if "no mask" in mistakes else back * (z > 0)
        g["K"] = np.einsum("nkij,nijab->kab", back, windows)[:, None]
        g["c"] = back.mean((0, 2, 3)) if "c averaged" in mistakes else back.sum((0, 2, 3))
        return g


NETWORKS = [Sigmoid, ThreeLayers, Softmax, Recurrent, Gated, Convolution]


def by_hand(network, dtype, optimizer, *mistakes):
    """NumPy, with mistakes in the gradient; `new` gives a weight as the step will leave it."""
    w = initial(network, dtype)
    lr, state = (
        (network.lr if optimizer == "SGD" else 0.01),
        {n: (0 * v, 0 * v) for n, v in w.items()},
    )
    for step in itertools.count():
        yield {n: v.copy() for n, v in w.items()}

        def averages(n, g, state=state):
            m, v = state[n]
            return 0.9 * m + (1 - 0.9) * g, 0.999 * v + (1 - 0.999) * g * g

        def new(n, g, w=w, step=step, averages=averages):
            if optimizer == "SGD":
                return w[n] - lr * g
            m, v = averages(n, g)
            m, v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            return w[n] - lr * m / (np.sqrt(v) + 1e-8)

        grads = network.gradient(w, set(mistakes), new, step)
        after = {n: new(n, grads[n].astype(dtype)) for n in w}
        state = {n: averages(n, grads[n].astype(dtype)) for n in w}
        w = after


def by_torch(network, dtype, optimizer):
    w = {n: torch.tensor(v).requires_grad_() for n, v in initial(network, dtype).items()}
    lr = network.lr if optimizer == "SGD" else 0.01
    made = getattr(torch.optim, optimizer)(w.values(), lr=lr)
    for step in itertools.count():
        yield w
        made.zero_grad()
        network.loss(w, step).backward()
        made.step()
