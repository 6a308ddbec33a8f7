"""Make the inputs of the exercises, in a folder `exercises` here, with NumPy alone.

    python examples/exercises/make.py

The random numbers are those of the notebook: its seed, and its order of drawing. What a correct
solution computes from them is made too, in the form in which you would save your own.
"""

from pathlib import Path

import numpy as np

FOLDER = Path("exercises")
EPS = 1e-5


def scores(samples, w1, w2):
    """The second layer's output of a two-layer net with ReLU, for random samples (N, 3)."""
    x = np.random.randn(samples, 50)  # noqa: NPY002  # the notebook's generator, here and below
    return np.maximum(0, x.dot(w1)).dot(w2)


def seeded(samples):
    """The same from the seed on, where the samples are drawn before the weights."""
    np.random.seed(231)  # noqa: NPY002
    x, w1, w2 = (np.random.randn(*shape) for shape in ((samples, 50), (50, 60), (60, 3)))  # noqa: NPY002
    return np.maximum(0, x.dot(w1)).dot(w2)


def test_time():
    """50 batches, what they leave in bn_param, and the batch after them."""
    np.random.seed(231)  # noqa: NPY002
    w1, w2 = np.random.randn(50, 60), np.random.randn(60, 3)  # noqa: NPY002
    running_mean, running_var = np.zeros(3), np.zeros(3)
    np.savez(FOLDER / "zeros.npz", running_mean=running_mean, running_var=running_var)
    batches = []
    for _ in range(50):
        a = scores(200, w1, w2)
        running_mean = 0.9 * running_mean + 0.1 * a.mean(axis=0)
        running_var = 0.9 * running_var + 0.1 * a.var(axis=0)
        batches.append(a)
    first = batches[0].astype("float32")
    np.save(FOLDER / "first.npy", first)
    wide = first.astype("float64")
    after = {"running_mean": 0.1 * wide.mean(axis=0), "running_var": 0.1 * wide.var(axis=0)}
    np.savez(FOLDER / "first.npz", **{name: x.astype("float32") for name, x in after.items()})
    np.save(FOLDER / "batches.npy", np.stack(batches))
    np.savez(FOLDER / "bn_param.npz", running_mean=running_mean, running_var=running_var)
    np.save(FOLDER / "test.npy", scores(200, w1, w2))


def backward(n, d):
    """An input (n, d), weight, bias and upstream gradient; and the input's, in two ways."""
    np.random.seed(231)  # noqa: NPY002
    x = 5 * np.random.randn(n, d) + 12  # noqa: NPY002
    weight, bias, grad_output = (np.random.randn(*shape) for shape in ((d,), (d,), (n, d)))  # noqa: NPY002

    centred, std = x - x.mean(axis=0), np.sqrt(x.var(axis=0) + EPS)
    # Backwards through the graph: the variance, the mean, and x itself.
    grad_x_hat = grad_output * weight
    grad_var = (grad_x_hat * centred).sum(axis=0) * -0.5 / std**3
    grad_mean = -(grad_x_hat / std).sum(axis=0) - 2 * grad_var * centred.mean(axis=0)
    graph = grad_x_hat / std + 2 * grad_var * centred / n + grad_mean / n
    # The same in one formula, simplified on paper.
    x_hat = centred / std
    grad_bias, grad_weight = grad_output.sum(axis=0), (grad_output * x_hat).sum(axis=0)
    paper = weight / std / n * (n * grad_output - grad_bias - x_hat * grad_weight)
    arrays = {"x": x, "weight": weight, "bias": bias, "grad_output": grad_output}
    return arrays | {"graph": graph, "paper": paper}


def d2l():
    """A batch of images, and what the book's batch_norm makes of it and of 0 and 1."""
    x = np.random.default_rng(0).normal(2, 3, (4, 3, 5, 5)).astype("float32")
    wide = x.astype("float64")
    mean, var = wide.mean((0, 2, 3), keepdims=True), wide.var((0, 2, 3), keepdims=True)
    made = {
        "y": (wide - mean) / np.sqrt(var + EPS),
        "moving_mean_before": np.zeros(3),
        "moving_var_before": np.ones(3),
        "moving_mean_after": 0.9 * 0 + 0.1 * mean.ravel(),
        "moving_var_after": 0.9 * 1 + 0.1 * var.ravel(),
    }
    rounded = {name: values.astype("float32") for name, values in made.items()}
    np.savez(FOLDER / "d2l.npz", x=x, **rounded)


def main():
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    np.save(FOLDER / "a.npy", seeded(200))
    np.savez(FOLDER / "affine.npz", weight=[1.0, 2.0, 3.0], bias=[11.0, 12.0, 13.0])
    test_time()
    np.savez(FOLDER / "backward.npz", **backward(4, 5))
    np.savez(FOLDER / "alternative.npz", **backward(100, 500))
    np.save(FOLDER / "rows.npy", seeded(4))
    np.savez(FOLDER / "rows-affine.npz", weight=[3.0] * 4, bias=[5.0] * 4)
    d2l()


if __name__ == "__main__":
    main()
