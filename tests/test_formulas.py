"""Functions of PyTorch written out step by step, against the functions themselves."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

from gdtorch.lockstep.gradients.backward import gradient
from gdtorch.lockstep.gradients.breaks import breaks
from gdtorch.lockstep.observing.formulas import FORMULAS
from gdtorch.lockstep.observing.tape import Pass, Recording

LAYERS = [
    *(make(3, 4, nonlinearity=how) for make in (nn.RNN,) for how in ("tanh", "relu")),
    *(make(3, 4, bias=False) for make in (nn.RNN, nn.LSTM, nn.GRU)),
    *(make(3, 4, 2, bidirectional=True, batch_first=True) for make in (nn.LSTM, nn.GRU)),
    *(make(3, 4) for make in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)),
]
HEADS = [nn.MultiheadAttention(6, 2, bias=bias, batch_first=bias) for bias in (True, False)]
MASK = torch.ones(5, 5, dtype=torch.bool).tril(1)
WAYS = [{}, {"is_causal": True}, {"attn_mask": MASK}, {"attn_mask": 1.0 * MASK}, {"scale": 0.3}]


def tape_of(program):
    """A program's tape, its parameters at their values, and the true gradients of these."""
    recording = Recording()
    with recording:
        loss = program()
    recording.backward([loss], [None])
    tape = recording.tape()
    kept = {id(one): one for one in recording.kept}
    weights = {key: kept[key] for key in tape.leaves.values()}
    true = torch.autograd.grad(loss, [*weights.values()])
    return tape, weights, dict(zip(weights, true, strict=True))


def check(program):
    """Written out, it calls none of these functions, and has the gradients of autograd."""
    tape, weights, true = tape_of(program)
    unfolded = tape.unfolded(weights)
    assert not {one.name for one in unfolded.functions} & FORMULAS.keys()
    assert {one.name for one in tape.functions} & FORMULAS.keys()
    for key, grad in unfolded.gradients(weights).items():
        torch.testing.assert_close(grad, true[key], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_recurrent_layers_are_written_out(layer):
    torch.manual_seed(0)
    layer.double()
    inputs = torch.randn(*((2,) if "Cell" in str(layer) else (5, 2)), 3).double()

    def program():
        """Called twice, the second time with the state that the first has left."""
        state = layer(inputs) if "Cell" in str(layer) else layer(inputs)[1]
        return sum((one * one).sum() for one in flat(layer(inputs, state)))

    check(program)


def flat(made):
    return [made] if isinstance(made, torch.Tensor) else [x for one in made for x in flat(one)]


@pytest.mark.parametrize("layer", HEADS, ids=str)
@pytest.mark.parametrize("own", [True, False])
def test_attention_with_heads_is_written_out(layer, own):
    torch.manual_seed(0)
    layer.double()
    query, key, value = (torch.randn(5, 3, 6).double() for _ in range(3))
    given = (query,) * 3 if own else (query, key, value)
    check(lambda: sum((one * one).sum() for one in layer(*given)))


@pytest.mark.parametrize("options", WAYS, ids=list)
def test_attention_is_written_out(options):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    check(lambda: (F.scaled_dot_product_attention(q, k, v, **options) ** 2).sum())


def test_what_is_not_written_out_stays_one_function():
    layer = nn.LSTM(3, 4, 2, dropout=0.5)
    tape, weights, _ = tape_of(lambda: layer(torch.randn(5, 2, 3))[0].sum())
    assert [one.name for one in tape.unfolded(weights).functions] == ["lstm", "sum"]


@pytest.mark.slow
def test_a_mistake_is_the_same_whether_made_in_a_kept_pass_or_in_a_fresh_one():
    torch.manual_seed(0)
    layer, last = nn.LSTM(3, 4).double(), nn.Linear(4, 2).double()
    x, y = torch.randn(3, 5, 3).double(), torch.tensor([0, 1, 1, 0, 1])
    tape, weights, _ = tape_of(lambda: F.cross_entropy(last(layer(x)[0][-1]), y))
    tape, names = tape.unfolded(weights), {key: str(key) for key in weights}
    new = {key: weight.detach() - 0.1 for key, weight in weights.items()}
    known, made = Pass(tape, weights), 0
    for one in breaks(tape, names):
        if one.what == "other_rows":
            continue
        rates = dict.fromkeys(weights, 0.1)
        fresh = gradient(tape, weights, new, names, one, rates)
        kept = gradient(tape, weights, new, names, one, rates, known)
        assert (fresh is None) == (kept is None), one
        made += fresh is not None
        for key in fresh or ():
            torch.testing.assert_close(kept[key], fresh[key], rtol=1e-9, atol=1e-12)
    assert made > 300


@pytest.mark.parametrize("activation", [F.relu, F.relu_], ids=["kept", "in place"])
def test_a_pass_is_kept_unless_a_function_changes_its_input_in_place(activation):
    """What nn.Linear returns for inputs whose axes were moved, torch has changed in place."""
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 4).double(), torch.randn(2, 5, 3).double().transpose(0, 1)
    tape, weights, _ = tape_of(lambda: activation(layer(x)).sum())
    known = Pass(tape, weights)
    assert known.kept == (activation is F.relu)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.BatchNorm1d(4), nn.RMSNorm(4)], ids=str)
def test_a_slip_in_the_derivative_of_a_norm_leaves_its_own_weights_right(norm):
    torch.manual_seed(0)
    layer, x, norm = nn.Linear(3, 4).double(), torch.randn(5, 3).double(), norm.double()
    tape, weights, true = tape_of(lambda: norm(layer(x)).tanh().sum())
    known, own = Pass(tape, weights), {id(one) for one in norm.parameters()}
    names = {key: str(key) for key in weights}
    slips = [one for one in breaks(tape, names) if one.what == "formula" and "norm" in one.function]
    assert len(slips) > 40
    for one in slips:
        made = gradient(tape, weights, weights, names, one, known=known)
        for key in own if made else ():  # one that takes a root of a number cannot be made
            torch.testing.assert_close(made[key], true[key], rtol=1e-10, atol=1e-13)
