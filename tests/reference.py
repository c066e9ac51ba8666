"""Reference implementations in NumPy, from the post's text: none of gdtorch's code is used."""

import numpy as np

X = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0]], float)
Y = np.array([[1, 1, 0, 0, 0, 0, 1]], float).T
HELD_OUT = np.array([[1, 1, 1]], float)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def output(x, syn0, syn1):
    return sigmoid(np.dot(sigmoid(np.dot(x, syn0)), syn1))


def gradient(syn0, syn1):
    """∂L/∂syn0 and ∂L/∂syn1 over the post's seven rows."""
    hidden = sigmoid(np.dot(X, syn0))
    out = sigmoid(np.dot(hidden, syn1))
    delta = (out - Y) * out * (1 - out)
    return np.dot(X.T, np.dot(delta, syn1.T) * hidden * (1 - hidden)), np.dot(hidden.T, delta)


def post(syn0, syn1, passes, alpha=1):
    """The post's loop, statement for statement, with the lost `np.dot(` put back."""
    syn0, syn1 = syn0.copy(), syn1.copy()
    for _ in range(passes):
        Samples = X  # noqa: N806 (the post's names)
        Hidden = sigmoid(np.dot(Samples, syn0))  # noqa: N806
        Output = sigmoid(np.dot(Hidden, syn1))  # noqa: N806
        syn1 += (-1) * alpha * np.dot(Hidden.T, (Output - Y) * Output * (1 - Output))
        syn0 += (
            (-1)
            * alpha
            * np.dot(
                Samples.T,
                ((Output - Y) * Output * (1 - Output)).dot(syn1.T) * Hidden * (1 - Hidden),
            )
        )
    return syn0, syn1
