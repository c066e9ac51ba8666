"""The ensemble's engine, beside what a user would write or pick instead: one core, one table."""

import ctypes
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from gdtorch import initial_weights, load_table
from gdtorch.ensemble.engine import BLOCK, Engine

HERE = Path(__file__).parent
ROWS = load_table("post").learned.to(torch.float32)
LR = 1.0


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """One thread on one core for everyone: a run has a process for each core."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    os.sched_setaffinity(0, {max(before)})
    torch.set_num_threads(1)
    yield
    os.sched_setaffinity(0, before)
    torch.set_num_threads(threads)


@pytest.fixture
def show(capsys):
    def line(*cells):
        with capsys.disabled():
            print("\n" + "".join(f"{cell:>16}" for cell in cells[1:]) + f"   {cells[0]}", end="")

    return line


def engine(networks=BLOCK, hidden=15, **options):
    """The call and how many networks it advances by how many steps, as for all that follow."""
    made = Engine(ROWS, hidden, {"lr": LR}, **options)
    state = made.begin(initial_weights(0, 0, networks, 4 * hidden))
    steps = max(1, 1000 // hidden)
    return (lambda: made.advance(state, steps)), networks * steps


def uncompiled():
    return engine(compiled=False)


def batched():
    """Eager torch: `SigmoidNet.gradient` on weights with a leading dimension."""
    syn0, syn1 = initial_weights(0, 0, 1024, 60).split([45, 15], dim=1)
    syn0, syn1 = syn0.reshape(-1, 3, 15).clone(), syn1.reshape(-1, 15, 1).clone()
    x, y = ROWS

    def call():
        for _ in range(50):
            hidden = torch.sigmoid(x @ syn0)
            output = torch.sigmoid(hidden @ syn1)
            delta = (output - y) * (1 - output) * output
            gradient0 = x.mT @ (delta @ syn1.mT * (1 - hidden) * hidden)
            syn1.sub_(hidden.mT @ delta, alpha=LR)
            syn0.sub_(gradient0, alpha=LR)

    return call, 1024 * 50


def vmap():
    """`torch.func.vmap(grad)` of one network's loss."""

    def loss(weights):
        syn0, syn1 = weights[:45].reshape(3, 15), weights[45:].reshape(15, 1)
        output = torch.sigmoid(torch.sigmoid(ROWS.inputs @ syn0) @ syn1)
        return (output - ROWS.targets).square().sum() / 2

    gradients = torch.func.vmap(torch.func.grad(loss))
    weights = initial_weights(0, 0, 1024, 60)

    def call():
        for _ in range(50):
            weights.sub_(gradients(weights), alpha=LR)

    return call, 1024 * 50


def numpy():
    """The post's loop, one network."""
    syn0, syn1 = np.split(initial_weights(0, 0, 1, 60)[0].double().numpy(), [45])
    return (lambda: reference.post(syn0.reshape(3, 15), syn1.reshape(15, 1), 500)), 500


def jax():
    """`jit(vmap(scan))` of one network's steps."""
    jax = pytest.importorskip("jax", reason="pip install gdtorch[bench]")
    x, y = (jax.numpy.asarray(t.numpy()) for t in ROWS)

    def loss(weights):
        syn0, syn1 = weights[:45].reshape(3, 15), weights[45:].reshape(15, 1)
        output = jax.nn.sigmoid(jax.nn.sigmoid(x @ syn0) @ syn1)
        return ((output - y) ** 2).sum() / 2

    def descend(weights):
        step = lambda w, _: (w - LR * jax.grad(loss)(w), None)  # noqa: E731
        return jax.lax.scan(step, weights, length=50)[0]

    advance = jax.jit(jax.vmap(descend))
    weights = jax.numpy.asarray(initial_weights(0, 0, 1024, 60).numpy())
    return (lambda: advance(weights).block_until_ready()), 1024 * 50


def c(folder):
    """C by hand, 16 networks to a vector, compiled here and now."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("ensemble.c is written for AVX-512")
    library = folder / "ensemble.so"
    flags = ["-Ofast", "-march=native", "-shared", "-fPIC", "-o", str(library)]
    command = [os.environ.get("CC", "gcc"), *flags, str(HERE / "ensemble.c"), "-lmvec", "-lm"]
    subprocess.run(command, check=True)
    advance = ctypes.CDLL(str(library)).advance
    advance.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_float]
    weights = initial_weights(0, 0, BLOCK, 60).T.contiguous()
    return (lambda: advance(weights.data_ptr(), BLOCK, 50, LR)), BLOCK * 50


def nanoseconds(contenders, rounds=15):
    """Turn by turn, each one's nanoseconds per network and step: (least disturbed, median)."""
    measured = {name: [] for name in contenders}
    for call, _ in contenders.values():
        call()  # what is done once only
    for _ in range(rounds):
        for name, (call, network_steps) in contenders.items():
            start = time.perf_counter()
            call()
            measured[name].append((time.perf_counter() - start) / network_steps * 1e9)
    return {name: (min(ns), statistics.median(ns)) for name, ns in measured.items()}


def test_against_what_one_would_pick_instead(show, tmp_path):
    makers = {
        "this engine": engine,
        "this engine, uncompiled": uncompiled,
        "C by hand, AVX-512": lambda: c(tmp_path),
        "JAX jit(vmap(scan))": jax,
        "eager torch, batched": batched,
        "torch.func.vmap(grad)": vmap,
        "NumPy, the post's loop": numpy,
    }
    contenders = {}
    for name, make in makers.items():
        try:
            contenders[name] = make()
        except pytest.skip.Exception as reason:
            show(f"{name}: {reason}", "-", "-")
    found = nanoseconds(contenders)
    least = {name: ns for name, (ns, _) in found.items()}
    show("float32, 3-15-1, one core", "ns: least", "median", "ratio of least")
    for name, (ns, median) in found.items():
        show(name, f"{ns:.1f}", f"{median:.1f}", f"{ns / least['this engine']:.2f}")
    assert least["this engine"] <= 1.25 * least.get("C by hand, AVX-512", torch.inf)
    assert least["this engine"] <= least.get("JAX jit(vmap(scan))", torch.inf) / 7


def test_wider_networks_cost_by_the_weight(show):
    widths = (4, 15, 64, 256, 1024)
    found = nanoseconds({hidden: engine(hidden=hidden) for hidden in widths}, rounds=5)
    show("hidden units", "ns: least", "median", "least per weight")
    for hidden, (ns, median) in found.items():
        show(f"{hidden}", f"{ns:.1f}", f"{median:.1f}", f"{ns / (4 * hidden):.2f}")
    assert found[1024][0] / 1024 <= 2 * found[15][0] / 15


def test_starts_by_the_block(show):
    """A block takes what it takes, full or not; memory is that of one block."""
    made = Engine(ROWS, 15, {"lr": LR})
    show("starts, 20 steps each", "ns", "seconds")
    for starts in (10**3, 10**4, 10**5, 10**6, 10**7):
        begun = time.perf_counter()
        for first in range(0, starts, BLOCK):
            state = made.begin(initial_weights(0, first, min(BLOCK, starts - first), 60))
            made.advance(state, 20)
            made.losses(state)
        seconds = time.perf_counter() - begun
        show(f"{starts:,}", f"{seconds / starts / 20 * 1e9:.1f}", f"{seconds:.2f}")


PROCESS = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from test_ensemble import *
torch.set_num_threads(1)
call, network_steps = engine()
call()
input()
begun = time.perf_counter()
for _ in range(20):
    call()
print((time.perf_counter() - begun) / 20 / network_steps * 1e9)
"""


def test_two_processes_do_twice_as_much(show):
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}:{HERE.parents[1]}"}
    os.sched_setaffinity(0, range(os.cpu_count()))
    together = {}
    for count in (1, 2):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(core)],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for core in range(count)
        ]  # fmt: skip
        time.sleep(20)
        found = [float(p.communicate("\n")[0]) for p in processes]
        together[count] = 1 / sum(1 / ns for ns in found)
        show(f"{count} processes, one core each", f"{together[count]:.1f}")
    assert together[2] <= 0.6 * together[1]
