"""Random configurations of a BatchNorm pass, and the pass computed by bncli."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bncli.dtypes import decode, encode
from bncli.model import BatchNormLayer, BatchNormSettings, RunningStats
from bncli.moments import channel_stats
from bncli.verify.batch_norm_pass import BatchNormPass, batch_norm_pass

KINDS = ("normal", "uniform", "two values", "constant")


@dataclass(frozen=True)
class Configuration:
    """Input values in the user's axes, and a layer that takes them."""

    x: np.ndarray
    dtype: str
    channel_axis: int
    settings: BatchNormSettings
    weight: np.ndarray | None
    bias: np.ndarray | None
    running: RunningStats | None

    @property
    def parameter_dtype(self) -> str:
        if self.dtype == "float64":
            return "float64"
        kept = self.settings.affine or self.settings.track_running_stats
        return "float32" if kept or self.dtype == "float32" else self.dtype

    @property
    def count(self) -> int:
        return self.x.size // self.x.shape[self.channel_axis]

    def done(self) -> BatchNormPass:
        stats = channel_stats(self.x, self.channel_axis)
        layer = BatchNormLayer(
            self.settings, self.parameter_dtype, self.weight, self.bias, self.running
        )
        return batch_norm_pass(layer, stats, dtype=self.dtype, channel_axis=self.channel_axis)

    def with_eps(self, eps: float) -> Configuration:
        return replace(self, settings=replace(self.settings, eps=eps))


def configuration(seed: int, largest: int = 100_000) -> Configuration:
    """Rank, dtype, layout, size, mean, spread, kind of data and layer, all drawn from `seed`."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(2, 6))
    dtype = str(rng.choice(["float16", "bfloat16", "float32", "float32", "float64"]))
    channels = int(rng.integers(1, 9))
    shape = _shape(rng, rank, channels, largest)
    far = float(rng.choice([0, 0, 1, 10, 100, 1e3, 1e4]))
    if dtype == "float16":
        far = min(far, 100.0)  # beyond, float16 has no digits left for the spread
    scale = float(np.exp(rng.normal(0, 1.5)))
    kind = str(rng.choice(KINDS, p=[0.6, 0.2, 0.1, 0.1]))
    noise = {
        "normal": rng.standard_normal(shape),
        "uniform": rng.uniform(-1.7, 1.7, shape),
        "two values": rng.choice([-1.0, 1.0], shape),
        "constant": np.zeros(shape),
    }[kind]
    x = decode(encode((noise + far * rng.choice([-1, 1])) * scale, dtype), dtype)
    channel_axis = 1
    if rank > 3 and rng.random() < 0.4:  # stored channels last, named so or seen transposed
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        if rng.random() < 0.5:
            channel_axis = rank - 1
        else:
            x = np.moveaxis(x, -1, 1)
    elif rng.random() < 0.3:
        if rng.random() < 0.5:
            x = np.asfortranarray(x)
        else:  # channels first of all, as a transposed table has them
            x = np.ascontiguousarray(np.moveaxis(x, 1, 0))
            channel_axis = 0
    settings = BatchNormSettings(
        eps=float(rng.choice([1e-5, 1e-3])),
        momentum=[0.1, 0.01, None][int(rng.integers(3))],
        affine=bool(rng.random() < 0.6),
        track_running_stats=bool(rng.random() < 0.8),
        training=bool(rng.random() < 0.7),
    )
    held = "float64" if dtype == "float64" else "float32"

    def parameter(values: np.ndarray) -> np.ndarray:
        return values.astype(held).astype(np.float64)

    return Configuration(
        x=x,
        dtype=dtype,
        channel_axis=channel_axis,
        settings=settings,
        weight=parameter(rng.normal(1, 0.5, channels)) if settings.affine else None,
        bias=parameter(rng.normal(0, 1, channels)) if settings.affine else None,
        running=RunningStats(
            parameter(rng.normal(0, 1, channels)),
            parameter(np.exp(rng.normal(0, 1, channels))),
            int(rng.integers(0, 9)),
        )
        if settings.track_running_stats
        else None,
    )


def _shape(rng: np.random.Generator, rank: int, channels: int, largest: int) -> tuple[int, ...]:
    """A shape with 2 to `largest` values a channel, as likely small as large."""
    count = int(np.exp(rng.uniform(np.log(2), np.log(largest))))
    if rank == 2:
        return (count, channels)
    batch = int(rng.integers(1, min(count, 16) + 1))
    length = max(1, count // batch)
    spatial = [1] * (rank - 2)
    spatial[-1] = length
    if rank > 3 and length > 3:
        spatial[-2] = int(rng.integers(1, 4))
        spatial[-1] = max(1, length // spatial[-2])
    if batch * int(np.prod(spatial)) < 2:
        batch = 2
    return (batch, channels, *spatial)
