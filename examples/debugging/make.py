"""Make the tensors of the three stories, with NumPy alone: python examples/debugging/make.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
CHANNELS = (1, -1, 1)


def normalised(x, mean, var, eps, weight, bias):
    """Batch normalisation of (N, C, L), rounded to float32."""
    mean, var, weight, bias = (np.reshape(part, CHANNELS) for part in (mean, var, weight, bias))
    return ((x - mean) / np.sqrt(var + eps) * weight + bias).astype(np.float32)


def main() -> None:
    """Write every file of this folder."""
    rng = np.random.default_rng(42)
    spread = np.array([1.0, 0.02, 3.0, 0.5]).reshape(CHANNELS)
    x = (rng.normal(size=(6, 4, 5)) * spread + rng.normal(size=(1, 4, 1))).astype(np.float32)
    wide = x.astype(np.float64)
    weight = np.array([1.0, 0.8, 1.2, 0.9])
    bias = np.array([0.1, 0.0, -0.3, 0.2])
    # What training left behind: near the data's own statistics, and not the same.
    mean = (wide.mean((0, 2)) + np.array([0.1, -0.004, 0.5, 0.02])).astype(np.float32)
    var = (wide.var((0, 2), ddof=1) * np.array([1.1, 0.9, 1.3, 0.8])).astype(np.float32)
    np.save(FOLDER / "x.npy", x)
    np.savez(
        FOLDER / "bn.npz",
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        running_mean=mean,
        running_var=var,
    )
    affine = weight.astype(np.float32), bias.astype(np.float32)

    # 1. Keras' eps is 1e-3. The weights were copied, and the port kept PyTorch's 1e-5.
    np.save(FOLDER / "keras.npy", normalised(wide, mean, var, 1e-3, *affine))
    np.save(FOLDER / "port.npy", normalised(wide, mean, var, 1e-5, *affine))

    # 2. Somebody forgot model.eval(): the batch normalises itself.
    batch = wide.mean((0, 2)), wide.var((0, 2))
    np.save(FOLDER / "served.npy", normalised(wide, *batch, 1e-5, *affine))

    # 3. A layer of one's own moves running_var towards the biased variance.
    np.savez(
        FOLDER / "after.npz",
        running_mean=(0.9 * mean + 0.1 * batch[0]).astype(np.float32),
        running_var=(0.9 * var + 0.1 * batch[1]).astype(np.float32),
    )


if __name__ == "__main__":
    main()
