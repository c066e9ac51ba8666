"""docs/optimizers.md, line by line: optax itself, Keras and the papers in NumPy.

Each of these is a function of a rule, whose numbers it takes, and of the weights. It gives a
function of the gradient there and of the step's learning rate that gives the next weights. A
gradient is a function, so that it can be asked for at another point.
"""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from conftest import ROOT

from gdtorch import optimizers

PAGE = (ROOT / "docs" / "optimizers.md").read_text()
STEPS, EPS = 40, 1e-3  # an ε large enough to show where it stands
START = np.array([0.9, -0.3, 0.1, -1.2, 0.6])


@pytest.fixture(autouse=True)
def float64():
    """What PyTorch keeps in its default dtype, ASGD's η and NAdam's product, is not rounded."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def table(heading):
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)[1:]
    return [[cell.strip() for cell in row.split("|")] for row in rows if "---" not in row]


def rule(text):
    return eval(text.strip("`"), {**vars(optimizers), "math": math})


def gradient_at(step):
    """A slope that turns now and then, and is another at each step."""
    return lambda w: w * np.array([1.0, 3.0, 0.3, 2.0, 5.0]) + np.sin((step + 1) * (w + 1.5)) / 2


def rates(rule):
    """A learning rate that varies, where the rule looks at it after its first step."""
    constant = isinstance(rule, optimizers.Rprop | optimizers.ASGD)
    return [rule.lr * (1 if constant else 1 + 0.5 * math.sin(step)) for step in range(STEPS)]


def here(rule, rates):
    """The weights that the page gives, step by step."""
    weight, state = torch.tensor(START), {}
    for step, lr in enumerate(rates):
        gradient = torch.tensor(gradient_at(step)(weight.numpy()))
        dataclasses.replace(rule, lr=lr).step(weight, gradient, state)
        yield weight.numpy().copy()


def there(follow, rule, rates):
    """The weights that somebody else gives."""
    w = START.copy()
    take = follow(rule, w)
    for step, lr in enumerate(rates):
        w = take(gradient_at(step), lr)
        yield w


def far(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


# --- optax -------------------------------------------------------------------------------------


def optax_with(make, **more):
    """optax' own, made of a rule's numbers; the learning rates are those of `rates`."""

    def follow(rule, w):
        import jax
        import optax

        jax.config.update("jax_enable_x64", True)  # float64, as everything here
        lr = jax.numpy.array(rates(rule))
        options = {name: value(rule) if callable(value) else value for name, value in more.items()}
        transform = make(optax)(lambda step: lr[step], **options)
        params, state = jax.numpy.array(w), transform.init(jax.numpy.array(w))

        def take(gradient, _lr):
            nonlocal params, state
            slope = jax.numpy.array(gradient(np.array(params)))
            updates, state = transform.update(slope, state, params)
            params = optax.apply_updates(params, updates)
            return np.array(params)

        return take

    return follow


def of(option, index=None):
    return lambda rule: getattr(rule, option) if index is None else getattr(rule, option)[index]


BETAS = {"b1": of("betas", 0), "b2": of("betas", 1)}
IN_ROOT = {"eps": 0.0, "eps_root": of("eps")}


def ema(optax):
    def make(lr):
        return optax.chain(optax.ema(0.9, debias=False), optax.scale_by_learning_rate(lr))

    return make


# --- Keras, as its documentation and its `update_step` write each rule -------------------------


def keras_decay(follow):
    """`weight_decay`: variable ← variable − variable · weight_decay · lr, then the update."""

    def decayed(rule, w):
        take = follow(rule, w)

        def then(gradient, lr):
            slope = gradient(w)
            w[...] = w - w * rule.weight_decay * lr
            return take(lambda _: slope, lr)

        return then

    return decayed


def keras_sgd(rule, w):
    v = np.zeros_like(w)

    def take(gradient, lr):
        nonlocal v
        g = gradient(w)
        v = rule.momentum * v - lr * g
        w[...] += rule.momentum * v - lr * g if rule.nesterov else v
        return w.copy()

    return take


def keras_adam(rule, w):
    m, v, largest, t = 0.0, 0.0, 0.0, 0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, v, largest, t
        g, t = gradient(w), t + 1
        alpha = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        m = m + (g - m) * (1 - beta1)
        v = v + (g**2 - v) * (1 - beta2)
        largest = np.maximum(largest, v)
        w[...] -= m * alpha / (np.sqrt(largest if rule.amsgrad else v) + rule.eps)
        return w.copy()

    return take


def keras_adamax(rule, w):
    m, u, t = 0.0, 0.0, 0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, u, t
        g, t = gradient(w), t + 1
        m = m + (g - m) * (1 - beta1)
        u = np.maximum(beta2 * u, np.abs(g))
        w[...] -= lr * m / ((1 - beta1**t) * (u + rule.eps))
        return w.copy()

    return take


def keras_nadam(rule, w, decay=1.0):
    m, v, product, t = 0.0, 0.0, 1.0, 0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, v, product, t
        g, t = gradient(w), t + 1
        now = beta1 * (1 - 0.5 * 0.96 ** (decay * t))
        then = beta1 * (1 - 0.5 * 0.96 ** (decay * (t + 1)))
        product = product * now
        m = m + (g - m) * (1 - beta1)
        v = v + (g**2 - v) * (1 - beta2)
        m_hat = then * m / (1 - product * then) + (1 - now) * g / (1 - product)
        w[...] -= m_hat * lr / (np.sqrt(v / (1 - beta2**t)) + rule.eps)
        return w.copy()

    return take


def keras_2_nadam(rule, w):
    """Today `tf.keras.optimizers.legacy.Nadam`, whose `schedule_decay` is 0.004."""
    return keras_nadam(rule, w, decay=0.004)


def keras_rmsprop(rule, w, begin=0.0):
    v, mean, momentum = begin, 0.0, 0.0

    def take(gradient, lr):
        nonlocal v, mean, momentum
        g = gradient(w)
        v = rule.alpha * v + (1 - rule.alpha) * g**2
        mean = rule.alpha * mean + (1 - rule.alpha) * g
        denominator = (v - mean**2 if rule.centered else v) + rule.eps
        momentum = rule.momentum * momentum + lr * g / np.sqrt(denominator)
        w[...] -= momentum
        return w.copy()

    return take


def tensorflow_1_rmsprop(rule, w):
    return keras_rmsprop(rule, w, begin=1.0)


def keras_adagrad(rule, w):
    s = 0.1

    def take(gradient, lr):
        nonlocal s
        g = gradient(w)
        s = s + g**2
        w[...] -= lr * g / np.sqrt(s + rule.eps)
        return w.copy()

    return take


def keras_adadelta(rule, w):
    v, u = 0.0, 0.0

    def take(gradient, lr):
        nonlocal v, u
        g = gradient(w)
        v = rule.rho * v + (1 - rule.rho) * g**2
        delta = -np.sqrt(u + rule.eps) * g / np.sqrt(v + rule.eps)
        u = rule.rho * u + (1 - rule.rho) * delta**2
        w[...] += lr * delta
        return w.copy()

    return take


# --- papers ------------------------------------------------------------------------------------


def sutskever(rule, w):
    """v ← μv − γ∇f(θ + μv), θ ← θ + v; what is handed out is θ + μv, at a constant rate."""
    v = np.zeros_like(w)

    def take(gradient, lr):
        nonlocal v
        assert lr == rule.lr
        v = rule.momentum * v - lr * gradient(w + rule.momentum * v)
        w[...] += v
        return w + rule.momentum * v

    return take


def weight_first(rule, w):
    v = np.zeros_like(w)

    def take(gradient, lr):
        nonlocal v
        g = gradient(w)
        w[...] -= lr * v
        v = rule.momentum * v + g
        return w.copy()

    return take


def nesterov_in_place(rule, w):
    v = np.zeros_like(w)

    def take(gradient, lr):
        nonlocal v
        g = gradient(w)
        v = rule.momentum * v + g
        v = g + rule.momentum * v
        w[...] -= lr * v
        return w.copy()

    return take


def adam_by_hand(m_hat=None, v_hat=None, squared=None, kept=False, root=np.sqrt):
    """Adam, each of whose formulas may be another: of (m, 1 − β₁ᵗ), (v, 1 − β₂ᵗ), (g, m) and v."""
    m_hat, v_hat = m_hat or divided, v_hat or divided
    squared = squared or (lambda g, _m: g * g)

    def follow(rule, w):
        m, v, t = 0.0, 0.0, 0
        beta1, beta2 = rule.betas

        def take(gradient, lr):
            nonlocal m, v, t
            g, t = gradient(w), t + 1
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * squared(g, m)
            first, second = m_hat(m, 1 - beta1**t), v_hat(v, 1 - beta2**t)
            if kept:
                m, v = first, second
            w[...] -= lr * first / (root(second) + rule.eps)
            return w.copy()

        return take

    return follow


def divided(average, correction):
    return average / correction


def as_it_is(average, _correction):
    return average


def times(average, correction):
    return average * correction


def without_root(add):
    """A step along g / (v + ε), where `add` makes the next v of v and g²."""

    def follow(rule, w):
        v = 0.0

        def take(gradient, lr):
            nonlocal v
            g = gradient(w)
            v = add(rule, v, g**2)
            w[...] -= lr * g / (v + rule.eps)
            return w.copy()

        return take

    return follow


def second_form(rule, w):
    """Kingma and Ba, the end of section 2: "replacing the last three lines in the loop"."""
    m, v, t = 0.0, 0.0, 0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, v, t
        g, t = gradient(w), t + 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        w[...] -= rate * m / (np.sqrt(v) + rule.eps)
        return w.copy()

    return take


def reddi(rule, w):
    m, v, largest = 0.0, 0.0, 0.0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, v, largest
        g = gradient(w)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        largest = np.maximum(largest, v)
        w[...] -= lr * m / np.sqrt(largest)
        return w.copy()

    return take


def bert(rule, w):
    """AdamWeightDecayOptimizer of google-research/bert."""
    m, v = 0.0, 0.0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, v
        g = gradient(w)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        update = m / (np.sqrt(v) + rule.eps)
        update += rule.weight_decay * w
        w[...] -= lr * update
        return w.copy()

    return take


def loshchilov(rule, w):
    """Algorithm 2, line 12, with a schedule multiplier of 1."""
    m, v, t = 0.0, 0.0, 0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, v, t
        g, t = gradient(w), t + 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        w[...] -= lr * m_hat / (np.sqrt(v_hat) + rule.eps) + rule.weight_decay * w
        return w.copy()

    return take


def kingma_adamax(rule, w):
    m, u, t = 0.0, 0.0, 0
    beta1, beta2 = rule.betas

    def take(gradient, lr):
        nonlocal m, u, t
        g, t = gradient(w), t + 1
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g))
        w[...] -= lr / (1 - beta1**t) * m / u
        return w.copy()

    return take


def liu(rule, w):
    """Algorithm 2."""
    m, v, t = 0.0, 0.0, 0
    beta1, beta2 = rule.betas
    longest = 2 / (1 - beta2) - 1

    def take(gradient, lr):
        nonlocal m, v, t
        g, t = gradient(w), t + 1
        v = beta2 * v + (1 - beta2) * g**2
        m = beta1 * m + (1 - beta1) * g
        m_hat = m / (1 - beta1**t)
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        if length > 4:
            adaptive = np.sqrt((1 - beta2**t) / v)
            r = (length - 4) * (length - 2) * longest
            r = math.sqrt(r / ((longest - 4) * (longest - 2) * length))
            w[...] -= lr * r * m_hat * adaptive
        else:
            w[...] -= lr * m_hat
        return w.copy()

    return take


def duchi(rule, w):
    s = 0.0

    def take(gradient, lr):
        nonlocal s
        g = gradient(w)
        s = s + g**2
        w[...] -= lr * g / (rule.eps + np.sqrt(s))
        return w.copy()

    return take


def rprop(backtrack):
    """Igel and Hüsken, figures 1 (Rprop+, of Riedmiller and Braun) and 2 (Rprop−)."""

    def follow(rule, w):
        (shrink, grow), (least, most) = rule.etas, rule.step_sizes
        size, before, last = np.full_like(w, rule.lr), np.zeros_like(w), np.zeros_like(w)

        def take(gradient, _lr):
            g = gradient(w).copy()
            for i in range(len(w)):
                product = before[i] * g[i]
                if product > 0:
                    size[i] = min(size[i] * grow, most)
                elif product < 0:
                    size[i] = max(size[i] * shrink, least)
                if product < 0 and backtrack:
                    w[i] -= last[i]
                    g[i] = last[i] = 0
                else:
                    last[i] = -np.sign(g[i]) * size[i]
                    w[i] += last[i]
                before[i] = g[i]
            return w.copy()

        return take

    return follow


ELSEWHERE = {
    "Keras SGD": keras_sgd,
    "Keras SGD, nesterov": keras_sgd,
    "Keras SGD, weight_decay": keras_decay(keras_sgd),
    "Sutskever et al.": sutskever,
    "optax.sgd": optax_with(lambda optax: optax.sgd, momentum=0.9, nesterov=True),
    "optax.ema": optax_with(ema),
    "loops by hand": weight_first,
    "loops by hand, Nesterov in place": nesterov_in_place,
    "Kingma and Ba, end of section 2": second_form,
    "Keras Adam, amsgrad": keras_adam,
    "optax.adam": optax_with(lambda optax: optax.adam, eps=of("eps"), **BETAS),
    "optax.adam, eps_root": optax_with(lambda optax: optax.adam, **IN_ROOT, **BETAS),
    "optax.amsgrad": optax_with(lambda optax: optax.amsgrad, eps=of("eps"), **BETAS),
    "Reddi et al.": reddi,
    "BERT": bert,
    "Loshchilov and Hutter": loshchilov,
    "optax.adamw": optax_with(lambda optax: optax.adamw, eps=of("eps"), **BETAS),
    "loops by hand, m": adam_by_hand(m_hat=as_it_is),
    "loops by hand, v": adam_by_hand(v_hat=as_it_is),
    "ConvNetJS": adam_by_hand(times, times),
    "loops by hand, m̂ kept": adam_by_hand(kept=True),
    "loops by hand, m²": adam_by_hand(squared=lambda _g, m: m * m),
    "loops by hand, no root": adam_by_hand(root=lambda v: v),
    "Kingma and Ba, Adamax": kingma_adamax,
    "Keras Adamax": keras_adamax,
    "Keras Adamax, weight_decay": keras_decay(keras_adamax),
    "optax.adamax": optax_with(lambda optax: optax.adamax, eps=of("eps"), **BETAS),
    "Keras Nadam": keras_nadam,
    "Keras 2 Nadam": keras_2_nadam,
    "optax.nadam": optax_with(lambda optax: optax.nadam, eps=of("eps"), **BETAS),
    "optax.nadam, eps_root": optax_with(lambda optax: optax.nadam, **IN_ROOT, **BETAS),
    "Liu et al.": liu,
    "optax.radam": optax_with(lambda optax: optax.radam, eps=of("eps"), **BETAS),
    "optax.radam, eps_root": optax_with(lambda optax: optax.radam, **IN_ROOT, **BETAS),
    "Keras RMSprop": keras_rmsprop,
    "Keras RMSprop, centered": keras_rmsprop,
    "Keras RMSprop, weight_decay": keras_decay(keras_rmsprop),
    "TensorFlow 1 RMSProp": tensorflow_1_rmsprop,
    "optax.rmsprop": optax_with(lambda optax: optax.rmsprop, eps=of("eps"), momentum=0.9),
    "optax.rmsprop, eps_in_sqrt=False": optax_with(
        lambda optax: optax.rmsprop, eps=of("eps"), eps_in_sqrt=False
    ),
    "RMSprop by hand, no root": without_root(lambda o, v, s: o.alpha * v + (1 - o.alpha) * s),
    "Keras Adagrad": keras_adagrad,
    "Keras Adagrad, weight_decay": keras_decay(keras_adagrad),
    "optax.adagrad": optax_with(lambda optax: optax.adagrad, eps=of("eps")),
    "Adagrad by hand, no root": without_root(lambda _, v, s: v + s),
    "Duchi et al.": duchi,
    "Keras Adadelta, weight_decay": keras_decay(keras_adadelta),
    "optax.adadelta": optax_with(
        lambda optax: optax.adadelta, eps=of("eps"), weight_decay=of("weight_decay")
    ),
    "Riedmiller and Braun": rprop(backtrack=True),
    "Igel and Hüsken, Rprop−": rprop(backtrack=False),
}
LINES = {who: here for who, _, here in table("Where others differ")}


def test_every_line_has_its_other_and_every_switch_a_line():
    assert list(LINES) == list(ELSEWHERE)
    switched = {
        (type(line).__name__.replace("AdamW", "Adam"), name)
        for line in map(rule, LINES.values())
        for name in line.switches()
        if getattr(line, name) != getattr(type(line)(), name)
    }
    assert switched == {
        (name, switch)
        for name in optimizers.RULES
        if name != "AdamW"
        for switch in optimizers.find(name).switches()
    }


@pytest.mark.parametrize(
    "who",  # of optax slowly, as JAX loads
    [pytest.param(who, marks=pytest.mark.slow if "optax" in who else []) for who in LINES],
)
def test_a_switch_makes_the_page_do_what_others_do(who):
    ours = rule(LINES[who])
    if getattr(ours, "eps", 0) != 0:
        ours = dataclasses.replace(ours, eps=EPS)
    # Sutskever's shifted point is PyTorch's weight as long as the rate stays.
    varied = [ours.lr] * STEPS if who == "Sutskever et al." else rates(ours)
    theirs = list(there(ELSEWHERE[who], ours, varied))
    # Rounding: the weights are about 1, and Adadelta divides by √ε.
    assert far(here(ours, varied), theirs) < 1e-11
    switches = {name: getattr(type(ours)(), name) for name in ours.switches()}
    pytorchs = dataclasses.replace(ours, **switches)
    assert pytorchs == ours or far(here(pytorchs, varied), theirs) > 1e-9


@pytest.mark.parametrize(("who", "pair"), [(row[0], row[2]) for row in table("What each adds")])
def test_what_a_rule_adds_can_be_taken_away(who, pair):
    if pair:
        new, old = map(rule, pair.split(" = "))
        assert f"[{type(new).__name__}]" in who
        assert far(here(new, [new.lr] * STEPS), here(old, [old.lr] * STEPS)) < 1e-13


def test_all_rules_are_in_the_table():
    names = re.findall(r"^\| \[(\w+)\]", PAGE, re.MULTILINE)
    assert sorted(names) == sorted(optimizers.RULES)


@pytest.mark.slow
def test_the_program_prints_what_it_says(capsys):
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], {})
    assert capsys.readouterr().out == "True\n"
