"""What a backend is: another implementation of BatchNorm and its relatives, on the same input.

`Backend` is what each must have, `run` above all; the protocols after it are what it may have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from bncli.light import dataclass

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


class Overwritten(NamedTuple):
    """An argument whose `values` of `total` are others after the pass than before it."""

    argument: str
    values: int
    total: int


@dataclass(frozen=True, slots=True)
class BackendRun:
    """What a backend computed: arrays by quantity, in the user's axes, bfloat16 as float32.

    There is an output, and what else the backend has of QUANTITIES. `threads` shared the rows.
    `overwritten` are the arguments that it changed in place, which BatchNorm leaves alone.
    """

    quantities: Mapping[str, NDArray[Any]]
    arithmetic: Arithmetic
    threads: int = 1
    overwritten: tuple[Overwritten, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the arguments that were overwritten."""
        return tuple(each.argument for each in self.overwritten)


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

    quantities: Mapping[str, NDArray[Any]]
    affine_shape: tuple[int, ...] | None
    arithmetic: Arithmetic
    threads: int = 1


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


@runtime_checkable
class Backend(Protocol):
    """What every backend is: another BatchNorm. Its library is imported in a run, never before.

    What it may be beside that are the protocols below: a command asks with `isinstance`.
    """

    @property
    def name(self) -> str:
        """The value of `--against` that chooses it."""

    def version(self) -> str:
        """The library's version. Raises MissingBackendError where it is not installed."""

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run the pass.

        Raises MissingBackendError where the library or the device is not there, UsageError where
        this input has no such memory format.
        """


@runtime_checkable
class ChoosesPath(Backend, Protocol):
    """A backend that minds the device, memory format and threads of a call; see `BatchNormCall`."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that a call may name."""


@runtime_checkable
class IsUsers(Backend, Protocol):
    """A backend that a user wrote; its name is as it was chosen, such as "package.module:name"."""

    @property
    def called(self) -> str:
        """What sentences and tables call it: its name in the code."""


@runtime_checkable
class RunsNorms(Backend, Protocol):
    """A backend that has the other norms too."""

    def run_norm(self, call: NormCall) -> NormRun:
        """Run one norm. Raises MissingBackendError where the library is not installed."""


@runtime_checkable
class GivesSteps(Backend, Protocol):
    """A backend that shows what is between input and output."""

    def steps(self, call: BatchNormCall) -> Mapping[str, NDArray[Any]]:
        """Every step between input and output, and back, by the library's own operations.

        By the names that `bncli.verify.trace` gives them: arrays of shape (num_features,), and
        those of each element in the user's axes. Raises MissingBackendError as `run` does.
        """


@runtime_checkable
class StepsModule(Backend, Protocol):
    """A backend that takes a module through batches, updating as PyTorch does."""

    @property
    def module(self) -> str:
        """The module's name, such as "torch.nn.BatchNorm"."""

    def step(self, call: SteppingCall, batches: Iterable[NDArray[Any]]) -> Iterator[RunningStats]:
        """The module's buffers after each batch; one that the module refuses leaves them."""


@runtime_checkable
class Averages(Backend, Protocol):
    """A backend whose library recomputes running statistics, as PyTorch's `update_bn` does."""

    def average(self, call: SteppingCall, batches: Iterable[NDArray[Any]]) -> RunningStats:
        """The buffers that the library's own recomputation of running statistics leaves."""


@runtime_checkable
class IsRepeated(Backend, Protocol):
    """A backend whose arithmetic `bncli.pytorch_cpu` may repeat."""

    def repeats(self) -> bool:
        """Whether it does here, bit for bit."""
