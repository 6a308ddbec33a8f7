"""Outputs made in every way that `identify` knows, by hand in NumPy or by torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bncli.verify.identify.hypotheses import Known


@dataclass(frozen=True)
class Planted:
    """An input, an output made from it, what is known, and what has to be said of it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    known: Known
    mode: str
    ddof: int | None
    eps: float | None
    variant: str


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(values).to(dtype).double().numpy()


def planted(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Iterator[Planted]:
    """Every planted difference on random data of this shape; variances from about 0.01 to 2."""
    rng = np.random.default_rng(seed)
    channels = shape[1]
    lay = (1, -1) + (1,) * (len(shape) - 2)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    spread = np.exp(rng.uniform(-2.3, 0.4, channels))
    x = (
        rng.normal(size=shape) * spread.reshape(lay) + rng.normal(size=channels).reshape(lay)
    ).astype(dtype)

    def held(values):
        return values.astype(dtype).astype(np.float64)

    weight, bias = held(rng.normal(1, 0.3, channels)), held(rng.normal(0, 0.5, channels))
    mean = held(np.abs(rng.normal(size=channels)) + 0.1)  # positive, so that it could be a variance
    var = held(np.exp(rng.uniform(-4, 0, channels)))
    known = Known(weight, bias, mean, var)
    wide = x.astype(np.float64)
    one = np.ones(channels)

    def norm(values, center, invstd, w=weight, b=bias):
        center, invstd, w, b = (np.reshape(part, lay) for part in (center, invstd, w, b))
        return (values - center) * invstd * w + b

    def batch(values, ddof=0):
        return values.mean(axes), values.var(axes, ddof=ddof)

    def case(name, y, mode, ddof, eps, variant="", *, x=x, known=known):
        return Planted(
            name, x, np.ascontiguousarray(y).astype(dtype), known, mode, ddof, eps, variant
        )

    mu, v = batch(wide)
    _, v1 = batch(wide, 1)
    r = 1 / np.sqrt(v + 1e-5)
    for eps in (0.0, 1e-8, 1e-6, 1e-5, 1.001e-5, 2e-5, 1e-3, 4.2e-4):
        variant = "fitted eps" if eps == 4.2e-4 else ""
        yield case(
            "training eps", norm(wide, mu, 1 / np.sqrt(v + eps)), "training", 0, eps, variant
        )
        yield case("eval eps", norm(wide, mean, 1 / np.sqrt(var + eps)), "eval", None, eps, variant)
    yield case("unbiased", norm(wide, mu, 1 / np.sqrt(v1 + 1e-5)), "training", 1, 1e-5)
    outside = "eps outside the root"
    yield case("outside", norm(wide, mu, 1 / (np.sqrt(v) + 1e-3)), "training", 0, 1e-3, outside)
    yield case("outside", norm(wide, mean, 1 / (np.sqrt(var) + 1e-3)), "eval", None, 1e-3, outside)
    re = 1 / np.sqrt(var + 1e-5)
    yield case("no weight", norm(wide, mean, re, one), "eval", None, 1e-5, "weight ignored")
    yield case("no bias", norm(wide, mu, r, weight, 0 * one), "training", 0, 1e-5, "bias ignored")
    neither = "weight and bias ignored"
    yield case("no affine", norm(wide, mu, r, one, 0 * one), "training", 0, 1e-5, neither)
    swapped = "running_mean and running_var swapped"
    yield case("swapped", norm(wide, var, 1 / np.sqrt(mean + 1e-5)), "eval", None, 1e-5, swapped)
    yield case("invstd", norm(wide, mean, var), "eval", None, 1e-5, "running_var taken for invstd")
    stored = "invstd taken for running_var"
    yield case(
        "invstd stored", norm(wide, mean, 1 / np.sqrt(re + 1e-5)), "eval", None, 1e-5, stored
    )
    yield case("fresh", norm(wide, 0 * one, one / np.sqrt(1 + 1e-5)), "eval", None, 1e-5,
               "statistics 0 and 1")  # fmt: skip
    uncentered, unscaled = "mean not subtracted", "not divided by the standard deviation"
    yield case("uncentered", norm(wide, 0 * one, r), "training", 0, 1e-5, uncentered)
    yield case("uncentered", norm(wide, 0 * one, re), "eval", None, 1e-5, uncentered)
    yield case("unscaled", norm(wide, mu, one), "training", 0, 1e-5, unscaled)
    yield case("unscaled", norm(wide, mean, one), "eval", None, 1e-5, unscaled)
    kept = "eps added into running_var"
    yield case("kept", norm(wide, mean, 1 / np.sqrt(var + 2e-3)), "eval", None, 1e-3, kept)
    training, evaluated = norm(wide, mu, r), norm(wide, mean, re)
    if channels > 2:
        roll, mix = np.roll(np.arange(channels), 1), np.random.default_rng(3).permutation(channels)
        if (np.roll(mix, -mix[0]) == np.arange(channels)).all():
            mix[:2] = mix[1::-1]
        yield case("rolled", evaluated[:, roll], "eval", None, 1e-5, "output channels shifted by 1")
        yield case("mixed", training[:, mix], "training", 0, 1e-5, "output channels permuted")
        yield case(
            "mixed input", norm(wide[:, mix], mu[mix], r[mix]), "training", 0, 1e-5,
            "input channels permuted",
        )  # fmt: skip
        yield case(
            "rolled state", norm(wide, mean[roll], re[roll], weight[roll], bias[roll]), "eval",
            None, 1e-5, "state's channels shifted by 1",
        )  # fmt: skip
        yield case(
            "mixed state", norm(wide, mu, r, weight[mix], bias[mix]), "training", 0, 1e-5,
            "state's channels permuted",
        )  # fmt: skip
    for half in (torch.float16, torch.bfloat16):
        name = str(half).removeprefix("torch.")
        coarse = rounded(wide, half)
        of_coarse = norm(coarse, batch(coarse)[0], 1 / np.sqrt(batch(coarse)[1] + 1e-5))
        for y, what in (
            (rounded(training, half), "output"),
            (of_coarse, "input"),
            (rounded(of_coarse, half), "input and output"),
        ):
            yield case(f"{what} half", y, "training", 0, 1e-5, f"{what} rounded to {name}")
    if len(shape) > 2:
        last = np.moveaxis(training, 1, -1)
        if last.shape != x.shape:
            yield case("last", last, "training", 0, 1e-5, "output channels last")
        moved = np.moveaxis(wide, -1, 1)
        y = (moved - moved.mean(axes, keepdims=True)) / np.sqrt(
            moved.var(axes, keepdims=True) + 1e-5
        )
        nothing = Known()
        yield case("axis", np.moveaxis(y, 1, -1), "training", 0, 1e-5, "axis -1", known=nothing)
        yield from family(case, torch.from_numpy(wide), channels)


def family(case, x: torch.Tensor, channels: int) -> Iterator[Planted]:
    """The other norms, by torch in float64."""
    f = torch.nn.functional
    nothing = Known()
    over = f"over the last {x.ndim - 1} axes"
    for eps in (1e-5, 1e-3):
        yield case(
            "layer",
            f.layer_norm(x, x.shape[1:], eps=eps),
            "LayerNorm",
            None,
            eps,
            over,
            known=nothing,
        )
        yield case(
            "instance", f.instance_norm(x, eps=eps), "InstanceNorm", None, eps, known=nothing
        )
        if hasattr(f, "rms_norm"):
            y = f.rms_norm(x, x.shape[1:], eps=eps)
            yield case("rms", y, "RMSNorm", None, eps, over, known=nothing)
        if channels % 2 == 0 and channels > 2:
            y = f.group_norm(x, 2, eps=eps)
            yield case("group", y, "GroupNorm", None, eps, "2 groups", known=nothing)
