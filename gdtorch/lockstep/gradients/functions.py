"""Functions of torch by what they do, so that a mistake is looked for where it can be made."""

from __future__ import annotations

__all__ = [
    "ACROSS",
    "ACTIVATIONS",
    "ADDITION",
    "BROADCASTING",
    "BY_CONSTANTS",
    "CENTERED",
    "CONVOLUTIONS",
    "ELEMENTWISE",
    "GATHERING",
    "LINEAR_LAYERS",
    "LOSSES",
    "MATRICES",
    "MOVING",
    "NORMS",
    "NORMS_OF_VECTORS",
    "OF_CLASSES",
    "OF_ERRORS",
    "PIECEWISE",
    "POOLING",
    "PRODUCTS",
    "REDUCING",
    "RESHAPING",
    "SCORED",
    "TAKING",
    "WITHOUT_A_LOSS",
    "WITH_A_LOSS",
]

from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

ACROSS = frozenset({"softmax", "log_softmax"})  # whose derivative is no number for each element
BY_CONSTANTS = frozenset({"mul", "div", "neg", "dropout"})  # what else they are given is constant
PIECEWISE = ("relu", "leaky_relu", "relu6", "hardtanh", "clamp", "clamp_min")
ELEMENTWISE = frozenset(
    {
        *("tanh", "sigmoid", "leaky_relu", "elu", "gelu", "silu", "softplus", "selu", "relu6"),
        *("relu", "hardtanh", "softmax", "log_softmax", "celu", "dropout", "logsigmoid", "mish"),
        *("exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "abs", "sin", "cos", "erf"),
        *("reciprocal", "pow", "atan", "sinh", "cosh", "clamp", "clamp_min"),
    }
)
ACTIVATIONS = (
    *("tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "selu", "relu6"),
    *("hardtanh", "celu", "mish"),
)
WITH_A_LOSS = ACROSS | {"sigmoid"}  # which some losses have within
WITHOUT_A_LOSS = (ELEMENTWISE | BY_CONSTANTS) - WITH_A_LOSS
LINEAR_LAYERS = {"matmul": (0, 1), "mm": (0, 1), "mv": (0, 1), "linear": (0, 1), "addmm": (1, 2)}
CONVOLUTIONS = {"conv1d": (0, 1), "conv2d": (0, 1), "conv3d": (0, 1)}
PRODUCTS = LINEAR_LAYERS | CONVOLUTIONS | {"bmm": (0, 1)}
BROADCASTING = {"add", "sub", "mul", "div", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
MATRICES = tuple(PRODUCTS.keys() - CONVOLUTIONS.keys())
ADDITION = {"linear": (2,), "addmm": (0,), "add": (0, 1)}  # and where a bias is
RESHAPING = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"}
TAKING = {"embedding", "__getitem__", "index_select"}
MOVING = {"t", "transpose", "permute", "__get__", *RESHAPING, *TAKING}  # weights as they are
GATHERING = {"cat", "stack", "embedding"}
OF_CLASSES = {"cross_entropy", "nll_loss"}
LOSSES = {"cross_entropy", "binary_cross_entropy_with_logits", "binary_cross_entropy"}
SCORED = {"cross_entropy": "softmax", "binary_cross_entropy_with_logits": "sigmoid"}
CENTERED = ("batch_norm", "layer_norm")
NORMS = (*CENTERED, "rms_norm")
NORMS_OF_VECTORS = ("norm", "linalg_norm", "linalg_vector_norm")
POOLING = {"max_pool1d": F.avg_pool1d, "max_pool2d": F.avg_pool2d, "max_pool3d": F.avg_pool3d}
OF_ERRORS = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
REDUCING = {"mean", "mse_loss", "l1_loss", "nll_loss", *LOSSES}
