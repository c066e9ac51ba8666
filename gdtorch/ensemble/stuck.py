"""Whether a network is stuck, by its gradient, and whether at a saddle, by its Hessian."""

from __future__ import annotations

__all__ = ["saddles", "sample_size", "stuck"]

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from ..curvature import EXACT, extremes, spectra
from ..data import Rows
from ..net import SigmoidNet
from .blocks import Settings

SMALL = 0.01  # share of the loss: a fall by less counts as none
SAMPLE = 64  # Hessians that are computed for a unit, at most
SAMPLE_WORK = 2_000_000  # entries of all their Hessians, if there is more than one


def reach(settings: Settings, lr: float) -> float:
    """How far as many steps again go along a gradient that stays: lr · steps, momentum added up."""
    if settings.momentum >= 1:
        return float("inf")
    added_up = (1 - settings.dampening) / (1 - settings.momentum) if settings.momentum else 1
    return lr * settings.steps * max(0, added_up)


@torch.no_grad()
def stuck(weights: Tensor, losses: Tensor, rows: Rows, settings: Settings, lr: float) -> Tensor:
    r"""Whether as many steps again would change the loss by less than 1 %, judged by the gradient.

    To first order a step changes the loss by lr · ‖g‖², so that is reach · ‖g‖² < 0.01 · L. In
    float64, because float32 rounds the smallest gradients to zero.

    Args:
        weights: of shape (count, weights), as `initial_weights` has them.
        losses: L, of shape (count,).
        rows: the rows learned.
        settings: those of the ensemble.
        lr: learning rate.

    Returns:
        Booleans of shape (count,).
    """
    sizes = [rows.inputs.shape[1] * settings.hidden, settings.hidden]
    syn0, syn1 = weights.double().split(sizes, dim=1)
    net = SigmoidNet(rows.inputs.shape[1], settings.hidden)
    net.syn0.data = syn0.unflatten(1, (-1, settings.hidden))
    net.syn1.data = syn1[:, :, None]
    gradients = net.gradient(rows)
    squares = torch.zeros(len(weights), dtype=torch.float64)
    for name, weight in net.named_parameters():
        gradient = _sign(settings) * gradients[name] + settings.weight_decay * weight
        squares += gradient.square().sum(dim=(-2, -1))
    return reach(settings, lr) * squares < SMALL * losses.double()


def saddles(weights: Tensor, rows: Rows, settings: Settings, lr: float) -> Tensor:
    r"""Whether stuck networks are at saddles; the others are on plateaus.

    Off a stationary point, a distance along an eigenvector with eigenvalue h < 0 of the Hessian
    grows by exp(−h · lr) a step. At a saddle, as many steps again make that e or more: there is a
    way down, if a slow one. On a plateau, neither gradient nor curvature leads away.

    Args:
        weights: of shape (count, weights).
        rows: the rows learned.
        settings: those of the ensemble.
        lr: learning rate.

    Returns:
        Booleans of shape (count,).
    """
    net = SigmoidNet(rows.inputs.shape[1], settings.hidden).double()
    if len(weights) and weights.shape[1] <= EXACT:
        ends = spectra(net, rows, weights.double())
    else:
        ends = torch.empty(len(weights), 2, dtype=torch.float64)
        for theta, both in zip(weights.double(), ends, strict=True):
            vector_to_parameters(theta, net.parameters())
            both.copy_(torch.tensor(extremes(net, rows)))
    lowest = (_sign(settings) * ends).amin(dim=1) + settings.weight_decay
    return lowest * reach(settings, lr) < -1


def sample_size(weights: int) -> int:
    """How many Hessians are computed for a unit, given how many weights a network has."""
    return max(1, min(SAMPLE, SAMPLE_WORK // weights**2))


def _sign(settings: Settings) -> int:
    return -1 if settings.maximize else 1
