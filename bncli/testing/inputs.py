"""The arrays of a configuration: seeded, and representable in its dtypes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from bncli.batchnorm import along
from bncli.dtypes import DTYPES, decode, encode
from bncli.light import dataclass, np
from bncli.model import BatchNormSettings, RunningStats
from bncli.testing.exact import exact_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray
    from bncli.testing.configurations import Configuration, Layout


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of a configuration's layer before its first step; see `BatchNormCall`."""

    weight: FloatArray | None
    bias: FloatArray | None
    running: RunningStats | None


def layer_of(configuration: Configuration) -> Layer:
    """The layer: weights about 1, running statistics that are not those of a new one."""
    noise, features = _noise(configuration, "layer"), configuration.num_features
    weight, running_var = noise.uniform(0.5, 1.5, (2, features))
    bias, running_mean = noise.normal(0, 1, (2, features))
    if configuration.signed:
        weight[::2] *= -1
        weight[1] = 0.0
    running_var *= min(configuration.std, 1.0) ** 2
    running_mean *= min(configuration.std, 1.0)

    def held(values: FloatArray) -> FloatArray:
        rounded = rounded_to(values, configuration.parameter_dtype)
        return np.asarray(rounded.astype(np.float64))

    affine, tracked = configuration.affine, configuration.track_running_stats
    return Layer(
        held(weight) if affine else None,
        held(bias) if affine else None,
        RunningStats(held(running_mean), held(running_var), configuration.tracked)
        if tracked
        else None,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of a step and the upstream gradient, and the input's exact statistics.

    `stats` are None where there are no values.
    """

    x: NDArray[Any]
    g: NDArray[Any]
    stats: ChannelStats | None


def batch_of(configuration: Configuration, step: int) -> Batch:
    """The batch of a step in the configuration's layout, with arrays of its own."""
    made = _made(configuration, step)
    x, g = (laid_out(values, configuration.layout) for values in (made.x, made.g))
    return Batch(x, g, made.stats)


@cache
def _made(configuration: Configuration, step: int) -> Batch:
    """The batch of a step, in the usual layout."""
    shape, features = configuration.shape_of(step), configuration.num_features
    noise = _noise(configuration, f"step {step}")
    x, g = noise.standard_normal((2, *shape))
    means = np.full(features, configuration.mean) + noise.uniform(-0.5, 0.5, features)
    spread = configuration.std * np.exp(noise.uniform(-0.3, 0.3, features))
    x = (x + along(means, x.ndim, 1)) * along(spread, x.ndim, 1)
    _make_unusual(x, configuration)
    x, g = (rounded_to(values, configuration.dtype) for values in (x, g))
    return Batch(x, g, exact_stats(x) if x.size else None)


def settings_of(configuration: Configuration, step: int) -> BatchNormSettings:
    """The layer's arguments in a step."""
    return BatchNormSettings(
        eps=configuration.eps,
        momentum=configuration.momentum,
        affine=configuration.affine,
        track_running_stats=configuration.track_running_stats,
        training=configuration.modes[step] == "t",
    )


def rounded_to(values: FloatArray, dtype: str) -> NDArray[Any]:
    """Values as a tensor of `dtype` holds them; bfloat16 as float32."""
    return decode(encode(values, dtype), dtype)


def laid_out(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """The same array in another order or with gaps in memory."""
    if layout == "channels_last":
        return np.moveaxis(np.array(np.moveaxis(values, 1, -1), order="C"), -1, 1)
    if layout == "reversed":
        return np.array(values, order="F")
    if layout == "strided":
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
        wide[..., 1::2] = -7.0  # what is between is seen, if it is read
        wide[..., ::2] = values
        return np.asarray(wide[..., ::2])
    return np.array(values)


def _make_unusual(x: FloatArray, configuration: Configuration) -> None:
    """Put the configuration's unusual values into the channel 1."""
    if configuration.values == "overflow":
        largest = DTYPES[configuration.dtype].largest
        signs = np.where(np.arange(x[:, 1].size) % 2, -1.0, 1.0).reshape(x[:, 1].shape)
        x[:, 1] = largest * signs * np.linspace(0.4, 0.98, signs.size).reshape(signs.shape)
    elif configuration.values == "constant":
        x[:, 1] = 1.75
    elif configuration.values == "zeros":
        x[:, 1] = 0.0
    elif configuration.values in ("nan", "inf"):
        x[2, 1].flat[3] = float(configuration.values)


def _noise(configuration: Configuration, part: str) -> np.random.Generator:
    """The same numbers wherever the configuration is made, whichever others there are."""
    return np.random.default_rng(crc32(f"{configuration.name} {part}".encode()))
