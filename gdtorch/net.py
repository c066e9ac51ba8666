"""The post's network: two sigmoid layers without biases, its loss, and its gradient by hand."""

from __future__ import annotations

__all__ = ["SigmoidNet", "initial_weights", "load_weights", "squared_error"]

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from .data import Rows, check_readable


def initial_weights(seed: int, start: int, count: int, size: int) -> Tensor:
    r"""Starts `start` to `start + count - 1` of a seed, uniform in [−1, 1).

    Start k is the same on every machine, with any number of threads, and in any block. Philox is a
    counter-based generator: it goes to start k directly, without drawing the starts before it.
    (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.)

    Args:
        seed: which family of starts, 0 to 2⁶⁴ − 1.
        start: the first start, 0 or more.
        count: how many starts.
        size: how many weights each start has.

    Returns:
        float32 of shape (count, size), multiples of 2⁻²³, so that float64 holds them exactly.

    Example:
        >>> thousand, last = initial_weights(0, 0, 1000, 60), initial_weights(0, 999, 1, 60)
        >>> thousand[999].equal(last[0])
        True
    """
    counts = -(-size // 4)  # Philox yields four numbers of 64 bits for each value of its counter
    philox = np.random.Philox(key=seed).advance(start * counts)
    raw = philox.random_raw(count * counts * 4).reshape(count, counts * 4)[:, :size]
    uniform = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)  # [0, 1)
    return torch.from_numpy(2 * uniform - 1)


def squared_error(output: Tensor, targets: Tensor) -> Tensor:
    """L = ½ Σ (y − δ)², the sum over rows and outputs, not the mean.

    Args:
        output: δ, of shape (..., rows, outputs).
        targets: y, of shape (rows, outputs).

    Returns:
        One loss for each network, of shape (...).
    """
    return (output - targets).square().sum(dim=(-2, -1)) / 2


class SigmoidNet(nn.Module):
    r"""The post's network, δ = σ(σ(x · syn0) · syn1), with the loss L = ½ Σ (y − δ)².

    One net can hold several networks side by side: if the weights have a leading dimension, so
    has everything that is computed from them.

    New weights are start `start` of seed `seed`, in float32. `.to(torch.float64)` changes none of
    their values.

    Args:
        features: inputs of a row; syn0 has the shape (features, hidden).
        hidden: hidden units.
        outputs: outputs of a row; syn1 has the shape (hidden, outputs).
        seed: which family of starts (see `initial_weights`).
        start: which start of that family.

    Example:
        >>> net = SigmoidNet(seed=0, start=0).double()
        >>> net
        SigmoidNet(features=3, hidden=15, outputs=1)
        >>> rows = load_table("post").learned
        >>> net.loss(rows).backward()
        >>> net.gradient(rows)["syn0"].equal(net.syn0.grad)
        True
    """

    def __init__(
        self,
        features: int = 3,
        hidden: int = 15,
        outputs: int = 1,
        *,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__()
        sizes = [features * hidden, hidden * outputs]
        syn0, syn1 = initial_weights(seed, start, 1, sum(sizes))[0].split(sizes)
        self.syn0 = nn.Parameter(syn0.reshape(features, hidden).clone())
        self.syn1 = nn.Parameter(syn1.reshape(hidden, outputs).clone())

    def layers(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden layer (rows, hidden) and output δ (rows, outputs) for inputs (rows, features)."""
        hidden = torch.sigmoid(inputs @ self.syn0)
        output = torch.sigmoid(hidden @ self.syn1)
        return hidden, output

    def forward(self, inputs: Tensor) -> Tensor:
        """The output δ, of shape (rows, outputs), for inputs of shape (rows, features)."""
        return self.layers(inputs)[1]

    def loss(self, rows: Rows) -> Tensor:
        """L = ½ Σ (y − δ)² (see `squared_error`): a scalar."""
        return squared_error(self(rows.inputs), rows.targets)

    @torch.no_grad()
    def gradient(self, rows: Rows) -> dict[str, Tensor]:
        """∂L/∂syn0 and ∂L/∂syn1 by the chain rule, in their weights' shapes, both at one point.

        These are the same products in the same order as autograd's for `loss`; that is why the
        two agree in every bit. If `output * (1 - output)` is multiplied first, or a product is
        transposed, the last bits differ.
        """
        inputs, targets = rows
        hidden, output = self.layers(inputs)
        error = output - targets  # dL/dδ = −(y − δ), equation 1.3.1
        output_delta = error * (1 - output) * output  # (rows, outputs)
        hidden_delta = output_delta @ self.syn1.mT * (1 - hidden) * hidden  # (rows, hidden)
        return {
            "syn0": inputs.mT @ hidden_delta,
            "syn1": hidden.mT @ output_delta,
        }

    def extra_repr(self) -> str:
        """The sizes, for `print(net)`."""
        (features, hidden), outputs = self.syn0.shape[-2:], self.syn1.shape[-1]
        return f"features={features}, hidden={hidden}, outputs={outputs}"


def load_weights(net: SigmoidNet, file: str) -> None:
    """Put saved weights into a network, without running any code that the file may hold.

    Args:
        net: the network. Its dtype and device stay as they are.
        file: a file that `torch.save(net.state_dict(), file)` has written.

    Raises:
        ValueError: the file holds no weights of this network's shapes; the message says why.
    """
    check_readable(file)
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different error for each kind of wrong file
        raise ValueError(
            f"{file}: not a file of weights that can be read without running code; "
            "save it with torch.save(net.state_dict(), FILE)"
        ) from error
    wanted = net.state_dict()
    if not isinstance(state, dict) or set(state) != set(wanted):
        raise ValueError(f"{file}: not a state dict of {' and '.join(wanted)}")
    for name, weight in wanted.items():
        _check_weight(f"{file}: {name}", state[name], weight)
    net.load_state_dict(state)


def _check_weight(what: str, value: object, wanted: Tensor) -> None:
    dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    if (
        not isinstance(value, Tensor)
        or value.dtype not in dtypes
        or value.layout != torch.strided
        or value.is_nested
        or value.is_meta
    ):
        raise ValueError(f"{what} is no dense array of floating-point numbers")
    if value.shape != wanted.shape:
        raise ValueError(
            f"{what} has the shape {tuple(value.shape)}, but the network's is "
            f"{tuple(wanted.shape)}; --hidden and --table set that"
        )
    if not value.to(wanted.dtype).isfinite().all():
        raise ValueError(f"{what} holds numbers that are not finite in {wanted.dtype}")
