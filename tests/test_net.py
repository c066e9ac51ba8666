"""The network: its initial weights, its loss, and the gradient by hand against autograd."""

import math
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdtorch import Rows, SigmoidNet, initial_weights, load_table

seeds = st.integers(0, 2**64 - 1)
starts = st.integers(0, 2**40)
sizes = st.integers(1, 40)
dtypes = st.sampled_from([torch.float32, torch.float64])


def random_rows(rows, features, outputs, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, features, dtype=dtype, generator=generator)
    return Rows(inputs, torch.rand(rows, outputs, dtype=dtype, generator=generator))


@given(seeds, starts, st.integers(0, 9), sizes)
def test_a_start_is_the_same_in_whatever_block_it_is_drawn(seed, start, offset, size):
    block = initial_weights(seed, start, 10, size)
    assert block.shape == (10, size)
    assert block.dtype == torch.float32
    assert torch.equal(initial_weights(seed, start + offset, 1, size)[0], block[offset])


def test_starts_and_seeds_differ():
    block = initial_weights(0, 0, 1000, 60)
    assert len({tuple(row.tolist()) for row in block}) == 1000
    assert not torch.equal(block[:1], initial_weights(1, 0, 1, 60))


def test_starts_are_uniform_from_minus_one_to_one():
    draws = initial_weights(7, 0, 10_000, 60).double()
    assert draws.min() >= -1
    assert draws.max() < 1
    # Mean 0 and variance 1/3, to five standard errors of 600,000 draws.
    assert abs(draws.mean()) < 5 * math.sqrt(1 / 3 / draws.numel())
    assert abs(draws.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / draws.numel())
    # Neighbours, in a start and across starts, are uncorrelated.
    for lag in (1, 60):
        flat = draws.flatten()
        correlation = (flat[:-lag] * flat[lag:]).mean() * 3
        assert abs(correlation) < 5 / math.sqrt(draws.numel())


def test_starts_are_philox_as_published():
    """Against NumPy's own generator, run up to the start and not moved there."""
    generator = np.random.Philox(key=5)
    raw = generator.random_raw(16 * 60)[15 * 60 :]
    expected = (raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1
    assert initial_weights(5, 15, 1, 60)[0].double().numpy().tolist() == expected.tolist()


@given(seeds, starts)
def test_weights_are_widened_exactly(seed, start):
    single, double = (SigmoidNet(seed=seed, start=start).to(d) for d in (torch.float32, None))
    double = double.double()
    for name, weight in single.named_parameters():
        assert torch.equal(weight.double(), double.get_parameter(name))
    flat = torch.cat([weight.flatten() for weight in single.parameters()])
    assert torch.equal(flat, initial_weights(seed, start, 1, 60)[0])


def test_each_weight_has_memory_of_its_own():
    """So that a weight saved alone does not carry the other along."""
    for weight in SigmoidNet().parameters():
        assert weight.untyped_storage().nbytes() == weight.nbytes


@pytest.mark.slow
def test_weights_do_not_depend_on_threads_or_process():
    program = (
        "import torch, gdtorch; torch.set_num_threads({}); "
        "net = gdtorch.SigmoidNet(seed=3, start=12345); print(net.syn0.sum().item().hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program.format(n)], capture_output=True, check=True
        ).stdout
        for n in (1, 2)
    }
    here = SigmoidNet(seed=3, start=12345).syn0.sum().item().hex()
    assert outputs == {f"{here}\n".encode()}


def test_shapes_and_repr():
    net = SigmoidNet(4, 6, 2)
    assert {n: tuple(w.shape) for n, w in net.named_parameters()} == {
        "syn0": (4, 6),
        "syn1": (6, 2),
    }
    assert repr(net) == "SigmoidNet(features=4, hidden=6, outputs=2)"
    assert {n: tuple(w.shape) for n, w in SigmoidNet().named_parameters()} == {
        "syn0": (3, 15),
        "syn1": (15, 1),
    }


@given(seeds, starts)
def test_forward_and_loss_are_the_posts(seed, start):
    net = SigmoidNet(seed=seed, start=start).double()
    rows = load_table("post").learned
    syn0, syn1 = (w.detach().numpy() for w in net.parameters())
    output = reference.output(reference.X, syn0, syn1)
    # Two products and two sigmoids of numbers around 1: a few ulps.
    np.testing.assert_allclose(net(rows.inputs).detach().numpy(), output, rtol=1e-14)
    loss = np.sum((reference.Y - output) ** 2) / 2
    np.testing.assert_allclose(net.loss(rows).item(), loss, rtol=1e-14)


@given(seeds, sizes, sizes, st.integers(1, 5), st.integers(1, 20), dtypes)
def test_gradient_by_hand_has_the_bits_of_autograds(seed, features, hidden, outputs, rows, dtype):
    net = SigmoidNet(features, hidden, outputs, seed=seed).to(dtype)
    data = random_rows(rows, features, outputs, dtype, seed % 2**63)
    by_autograd = torch.autograd.grad(net.loss(data), list(net.parameters()))
    by_hand = net.gradient(data)
    assert list(by_hand) == ["syn0", "syn1"]
    for hand, auto in zip(by_hand.values(), by_autograd, strict=True):
        assert torch.equal(hand, auto)
        assert not hand.requires_grad


@pytest.mark.parametrize("start", range(10))
def test_gradient_by_hand_agrees_with_difference_quotients(start):
    """To gradcheck's own tolerance, as an autograd function whose backward is the hand's."""
    rows = load_table("post").learned
    net = SigmoidNet(start=start).double()

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx, syn0, syn1):
            ctx.save_for_backward(syn0, syn1)
            return (
                torch.func.functional_call(net, {"syn0": syn0, "syn1": syn1}, rows.inputs)
                .sub(rows.targets)
                .square()
                .sum()
                / 2
            )

        @staticmethod
        def backward(ctx, grad):
            copy = SigmoidNet().double()
            copy.load_state_dict(dict(zip(("syn0", "syn1"), ctx.saved_tensors, strict=True)))
            return tuple(grad * g for g in copy.gradient(rows).values())

    assert torch.autograd.gradcheck(ByHand.apply, tuple(net.parameters()))


def test_networks_side_by_side_are_each_as_alone():
    rows = load_table("post").learned
    nets = [SigmoidNet(start=k).double() for k in range(3)]
    together = SigmoidNet().double()
    for name, weight in together.named_parameters():
        weight.data = torch.stack([net.get_parameter(name).data for net in nets])
    for k, net in enumerate(nets):
        # A batched product may round differently from a single one, by an ulp or two.
        torch.testing.assert_close(together(rows.inputs)[k], net(rows.inputs), rtol=1e-14, atol=0)
        torch.testing.assert_close(together.loss(rows)[k], net.loss(rows), rtol=1e-14, atol=0)
        for name, gradient in together.gradient(rows).items():
            torch.testing.assert_close(
                gradient[k], net.gradient(rows)[name], rtol=1e-13, atol=1e-16
            )
