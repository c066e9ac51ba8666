"""The Hessian of a loss, and its extreme eigenvalues: exactly, or by Lanczos where it is large."""

from __future__ import annotations

__all__ = [
    "eigenvalues",
    "extremes",
    "flat_weights",
    "hessian",
    "loss_function",
    "spectra",
    "stable_limit",
]

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vjp, vmap

from .data import Rows
from .objective import Objective

EXACT = 2000  # the most weights for which the whole Hessian is computed: 32 MB in float64
CHUNK = 64  # products with the Hessian at once; each stores a forward pass over all rows
FIRST_LOOK = 10  # steps of Lanczos before the first estimate of the eigenvalues
LIMIT = 20  # the most steps per weight; a spectrum over twelve decades takes up to 10


class _Loss(nn.Module):
    """A module whose forward pass is the loss of an objective, for `functional_call`."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, rows: Rows) -> Tensor:
        return self.objective.loss(rows)


def flat_weights(objective: Objective) -> Tensor:
    """θ: all present weights in one vector of shape (n,)."""
    return torch.cat([weight.detach().flatten() for _, weight in objective.named_parameters()])


def loss_function(objective: Objective, rows: Rows) -> Callable[[Tensor], Tensor]:
    """The loss as a function of one vector θ of all weights (see `flat_weights`).

    Args:
        objective: an `nn.Module`; its own weights stay as they are.
        rows: the rows that the loss is over.

    Returns:
        A function (n,) → scalar. `torch.func` can differentiate it, and `vmap` it over many θ.
    """
    module = _Loss(objective)
    weights = dict(module.named_parameters())
    sizes = [weight.numel() for weight in weights.values()]

    def loss(theta: Tensor) -> Tensor:
        parts = zip(weights.items(), theta.split(sizes), strict=True)
        values = {name: part.view(weight.shape) for (name, weight), part in parts}
        value: Tensor = functional_call(module, values, (rows,))
        return value

    return loss


def hessian(objective: Objective, rows: Rows) -> Tensor:
    """The Hessian ∂²L/∂θ² at the present weights, exact but for rounding.

    Args:
        objective: an `nn.Module` of n weights whose loss `torch.func` can differentiate twice.
        rows: the rows that the loss is over.

    Returns:
        A matrix of shape (n, n), in the order of `flat_weights`; symmetric but for rounding.

    Example:
        >>> hessian(Quartic(1.0), load_table("xor").learned)  # f″(1) = −1: a maximum
        tensor([[-1.]], dtype=torch.float64)
    """
    gradient = grad(loss_function(objective, rows))
    matrix: Tensor = jacrev(gradient, chunk_size=CHUNK)(flat_weights(objective))
    return matrix


def eigenvalues(objective: Objective, rows: Rows) -> Tensor:
    """All eigenvalues of the Hessian, of shape (n,), ascending; nan if it is not finite.

    Example:
        >>> values = eigenvalues(SigmoidNet().double(), load_table("post").learned)
        >>> int((values < 0).sum()), len(values)  # the loss is not convex
        (32, 60)
    """
    matrix = hessian(objective, rows)
    if not matrix.isfinite().all():
        return torch.full_like(matrix[0], math.nan)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values


def spectra(objective: Objective, rows: Rows, thetas: Tensor) -> Tensor:
    """The Hessian's eigenvalues at many points θ, faster than one after the other.

    Args:
        objective: as for `hessian`; its own weights do not matter.
        rows: the rows that the loss is over.
        thetas: the points, of shape (points, n), each as in `flat_weights`.

    Returns:
        The eigenvalues, of shape (points, n), ascending for each point.
    """
    hessians = vmap(jacrev(grad(loss_function(objective, rows))), chunk_size=CHUNK)(thetas)
    values: Tensor = torch.linalg.eigvalsh(hessians)
    return values


def extremes(objective: Objective, rows: Rows) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of the Hessian; the largest is the sharpness.

    Up to 2,000 weights they are those of the full Hessian. Above that, Lanczos' method finds them
    from products of the Hessian and a vector. Their error is then at most √ε times the larger of
    the two in magnitude, with the dtype's ε (√ε is 1.5e-8 in float64 and 3.5e-4 in float32).

    Args:
        objective: as for `hessian`.
        rows: the rows that the loss is over.

    Returns:
        Two numbers; nan if the Hessian is not finite.

    Raises:
        ArithmeticError: Lanczos does not converge, as when the loss differs from call to call.

    Example:
        >>> smallest, sharpness = extremes(SigmoidNet().double(), load_table("post").learned)
        >>> print(f"{smallest:.3f} {sharpness:.3f}")
        -0.299 0.110
    """
    theta = flat_weights(objective)
    if len(theta) <= EXACT:
        values = eigenvalues(objective, rows)
        return values[0].item(), values[-1].item()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(theta), dtype=theta.dtype, generator=generator).to(theta.device)
    product = vjp(grad(loss_function(objective, rows)), theta)[1]  # v → vᵀH = Hv
    return _lanczos(lambda v: product(v)[0], start)


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor) -> tuple[float, float]:
    r"""The extreme eigenvalues of a symmetric matrix A, given only its products with vectors.

        β₁ q₂ = A q₁ − α₁ q₁,    βₖ qₖ₊₁ = A qₖ − αₖ qₖ − βₖ₋₁ qₖ₋₁

    The α and β form a tridiagonal matrix. Its eigenvalues approach those of A from within, the
    extreme ones first; one with eigenvector s is at most βₖ|sₖ| from an eigenvalue of A. Rounding
    makes the q lose their orthogonality. That repeats eigenvalues, but harms neither the extreme
    ones nor the bound (Paige, "Accuracy and effectiveness of the Lanczos algorithm", 1980), so
    only two of the q are kept.
    """
    tolerance = math.sqrt(torch.finfo(start.dtype).eps)
    q, before = start / torch.linalg.vector_norm(start), torch.zeros_like(start)
    alphas: list[float] = []
    betas = [0.0]
    look = FIRST_LOOK
    while len(alphas) < LIMIT * len(start):
        r = product(q) - betas[-1] * before
        alphas.append(torch.dot(q, r).item())
        r -= alphas[-1] * q
        betas.append(torch.linalg.vector_norm(r).item())
        if not math.isfinite(betas[-1]):
            return math.nan, math.nan
        if len(alphas) == look or betas[-1] == 0:
            smallest, largest, error = _ends(alphas, betas[1:])
            if error <= tolerance * max(-smallest, largest):
                return smallest, largest
            look += 1 + look // 10
        before, q = q, r / betas[-1]
    raise ArithmeticError("Lanczos does not converge: these are no products of a symmetric matrix")


def _ends(alphas: list[float], betas: list[float]) -> tuple[float, float, float]:
    """The extreme eigenvalues of the tridiagonal matrix, and a bound on their error."""
    diagonal, beside = (torch.tensor(x, dtype=torch.float64) for x in (alphas, betas))
    tridiagonal = diagonal.diag() + beside[:-1].diag(1) + beside[:-1].diag(-1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    errors = beside[-1] * vectors[-1, [0, -1]].abs()
    return values[0].item(), values[-1].item(), errors.max().item()


def stable_limit(
    lr: float,
    momentum: float = 0,
    dampening: float = 0,
    weight_decay: float = 0,
    nesterov: bool = False,
) -> float:
    r"""The sharpness up to which steps are stable: below it they converge on a quadratic.

    Along an eigenvector with eigenvalue h, the gradient with weight decay λ is (h + λ) x. With
    a = lr (h + λ), momentum μ and dampening d, three successive x of `torch.optim.SGD` satisfy

        x″ = (1 + μ − (1 − d) a) x′ − μ x                   momentum
        x″ = (1 + μ)(1 − a) x′ − μ (1 − a) x                Nesterov (d = 0)

    The roots of z² − bz + c lie within the unit circle where |c| < 1 and |b| < 1 + c, which is
    (1 − d) a < 2 (1 + μ), and for Nesterov a < 2 (1 + μ) / (1 + 2μ). Hence

        h < 2 (1 + μ) / ((1 − d) lr) − λ,    h < 2 (1 + μ) / ((1 + 2μ) lr) − λ.

    Dampening matters only with momentum, as in `torch.optim.SGD`.

    Args:
        lr: learning rate.
        momentum: μ; from 1 on, no step is stable.
        dampening: d; above 1, no step with momentum is stable.
        weight_decay: λ.
        nesterov: whether the momentum is Nesterov's.

    Returns:
        The limit. It is infinite for an `lr` of 0 and, with momentum, for a dampening of 1; it is
        nan where no step is stable.

    Example:
        >>> stable_limit(1.0), stable_limit(1.0, momentum=0.5)
        (2.0, 3.0)
    """
    if momentum >= 1 or (momentum > 0 and dampening > 1):
        return math.nan
    scale = lr * (1 - dampening if momentum else 1) * (1 + 2 * momentum if nesterov else 1)
    return 2 * (1 + momentum) / scale - weight_decay if scale > 0 else math.inf
