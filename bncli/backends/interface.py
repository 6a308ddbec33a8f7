"""What a backend is: another implementation of BatchNorm, run on the same input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bncli.model import BatchNormSettings, FloatArray, RunningStats
    from bncli.tolerance import Arithmetic

QUANTITIES = (
    "mean",
    "var",
    "invstd",
    "output",
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "grad_input",
    "grad_weight",
    "grad_bias",
)
"""What can be compared, in the order of a report. A run holds those that exist in its mode."""


@dataclass(frozen=True, slots=True)
class BatchNormCall:
    """One forward and backward pass to be run.

    `x` and the upstream gradient `grad_output` have the user's axes and hold values that `dtype`
    represents exactly (bfloat16 as float32). The per-channel arrays are float64 of shape
    (num_features,) and representable in `parameter_dtype`; weight and bias are None without
    `settings.affine`, `running` is None without `settings.track_running_stats`.
    """

    x: NDArray[Any]
    grad_output: NDArray[Any]
    dtype: str
    parameter_dtype: str
    channel_axis: int
    settings: BatchNormSettings
    weight: FloatArray | None
    bias: FloatArray | None
    running: RunningStats | None


@dataclass(frozen=True, slots=True)
class BackendRun:
    """What a backend computed: arrays by quantity, in the user's axes, bfloat16 as float32.

    `threads` is the number that shared the rows.
    """

    version: str
    quantities: Mapping[str, NDArray[Any]]
    arithmetic: Arithmetic
    threads: int


class Backend(Protocol):
    """Another implementation of BatchNorm; its library is imported in `run`, never before."""

    @property
    def name(self) -> str:
        """The value of `--against` that chooses it."""

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run the pass. Raises MissingBackendError where the library is not installed."""

    def steps(self, call: BatchNormCall) -> Mapping[str, NDArray[Any]]:
        """Every step between input and output, and back, by the library's own operations.

        By the names that `bncli.trace` gives them: arrays of shape (num_features,), and those of
        each element in the user's axes. Raises MissingBackendError as `run` does.
        """
