"""One forward pass of a BatchNorm layer, computed exactly, and the same asked of a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.batchnorm import normalization
from bncli.dtypes import decode, encode
from bncli.light import dataclass, np
from bncli.running_stats import update

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.backends.interface import BatchNormCall
    from bncli.batchnorm import Normalization
    from bncli.model import BatchNormLayer, BatchNormSettings, ChannelStats, RunningStats


@dataclass(frozen=True, slots=True)
class BatchNormPass:
    """What bncli computed of one forward pass of `layer` over an input with these statistics.

    `dtype` is the input's, and `channel_axis` counts its axes from the front. `after` are the
    running statistics after the pass, None without them.
    """

    dtype: str
    channel_axis: int
    layer: BatchNormLayer
    stats: ChannelStats
    norm: Normalization
    after: RunningStats | None

    @property
    def settings(self) -> BatchNormSettings:
        """The layer's arguments and its mode."""
        return self.layer.settings

    @property
    def parameter_dtype(self) -> str:
        """The dtype of weight, bias and buffers."""
        return self.layer.parameter_dtype

    @property
    def before(self) -> RunningStats | None:
        """The running statistics before the pass, None without them."""
        return self.layer.running


def batch_norm_pass(
    layer: BatchNormLayer, stats: ChannelStats, *, dtype: str, channel_axis: int
) -> BatchNormPass:
    """The pass of `layer` over an input of `dtype` that has these statistics."""
    settings, running = layer.settings, layer.running
    return BatchNormPass(
        dtype,
        channel_axis,
        layer,
        stats,
        normalization(stats, running, layer.weight, layer.bias, settings),
        update(running, stats, settings) if running is not None else None,
    )


@dataclass(frozen=True, slots=True)
class Path:
    """Which way the backend goes; see `BatchNormCall`.

    Tolerances follow from what the run says of its arithmetic, and so from this path.
    """

    device: str = "cpu"
    memory_format: str | None = None
    threads: int | None = None


def backend_call(done: BatchNormPass, x: NDArray[Any], grad_output: NDArray[Any]) -> BatchNormCall:
    """The same pass as a backend is asked for it."""
    from bncli.backends.interface import BatchNormCall

    return BatchNormCall(
        x=x,
        grad_output=grad_output,
        dtype=done.dtype,
        parameter_dtype=done.parameter_dtype,
        channel_axis=done.channel_axis,
        settings=done.settings,
        weight=done.layer.weight,
        bias=done.layer.bias,
        running=done.before,
    )


def upstream_gradient(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    """Standard normal noise, rounded to `dtype` (bfloat16 then widened to float32)."""
    noise = np.random.default_rng(seed).standard_normal(
        shape, dtype=np.float64 if dtype == "float64" else np.float32
    )
    return decode(encode(noise, dtype), dtype)
