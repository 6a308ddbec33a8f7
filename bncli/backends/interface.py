"""What a backend is: another implementation of BatchNorm and its relatives, on the same input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bncli.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from bncli.backends.arithmetic import Arithmetic
    from bncli.model import BatchNormSettings, FloatArray, RunningStats
    from bncli.norms import Norm

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

    `device` is "cpu" or "cuda"; `memory_format` is "contiguous" or
    "channels_last", None for the one in which `x` is stored; `threads` is the library's own
    number of them, None for its default.
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
    device: str = "cpu"
    memory_format: str | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class BackendRun:
    """What a backend computed: arrays by quantity, in the user's axes, bfloat16 as float32.

    `threads` is the number that shared the rows.
    """

    version: str
    quantities: Mapping[str, NDArray[Any]]
    arithmetic: Arithmetic
    threads: int


NORM_QUANTITIES = ("mean", "invstd", "output")
"""What can be compared of a norm, in the order of a report."""


@dataclass(frozen=True, slots=True)
class NormCall:
    """A forward pass of one norm in training, with weight 1 and bias 0; `norm` is not refused.

    `x` has the user's axes and holds values that `dtype` represents exactly (bfloat16 as float32).
    """

    norm: Norm
    x: NDArray[Any]
    dtype: str


@dataclass(frozen=True, slots=True)
class NormRun:
    """What a backend computed: arrays by quantity, bfloat16 as float32.

    The output has the user's axes, a statistic the shape `Norm.kept`. Where the library lacks the
    norm there is none, and `affine_shape` is None: else the shape of the module's weight, () where
    it has none by default.
    """

    version: str
    quantities: Mapping[str, NDArray[Any]]
    affine_shape: tuple[int, ...] | None
    arithmetic: Arithmetic
    threads: int


@dataclass(frozen=True, slots=True)
class SteppingCall:
    """A module to be taken through batches in training mode, its input and buffers of `dtype`.

    A batch has `ndim` axes, the channels on axis 1, and values that `dtype` represents (bfloat16
    as float32). `running` are the buffers before, representable in `dtype`. After `freeze_after`
    batches (None: never) the module is in evaluation mode. `threads` share the work.
    """

    num_features: int
    ndim: int
    dtype: str
    momentum: float | None
    running: RunningStats
    freeze_after: int | None
    threads: int


class Backend(Protocol):
    """Another implementation of the norms; its library is imported in a run, never before."""

    @property
    def name(self) -> str:
        """The value of `--against` that chooses it."""

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run the pass.

        Raises MissingBackendError where the library or the device is not there, UsageError where
        this input has no such memory format.
        """

    def run_norm(self, call: NormCall) -> NormRun:
        """Run one norm. Raises MissingBackendError where the library is not installed."""

    def steps(self, call: BatchNormCall) -> Mapping[str, NDArray[Any]]:
        """Every step between input and output, and back, by the library's own operations.

        By the names that `bncli.verify.trace` gives them: arrays of shape (num_features,), and
        those of each element in the user's axes. Raises MissingBackendError as `run` does.
        """

    def version(self) -> str:
        """The library's version. Raises MissingBackendError where it is not installed."""

    def repeats(self) -> bool:
        """Whether `bncli.pytorch_cpu` repeats this library's arithmetic here, bit for bit."""

    def step(self, call: SteppingCall, batches: Iterable[NDArray[Any]]) -> Iterator[RunningStats]:
        """The module's buffers after each batch; one that the module refuses leaves them."""

    def average(self, call: SteppingCall, batches: Iterable[NDArray[Any]]) -> RunningStats:
        """The buffers that the library's own recomputation of running statistics leaves."""
