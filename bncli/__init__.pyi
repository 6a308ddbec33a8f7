"""The Python interface's types; `pytest tests/api/test_stub.py --update` renews them."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, overload

from bncli import testing as testing
from bncli.api.recorded import Captured, Recorded
from bncli.api.report import Report
from bncli.cli import main as main
from bncli.errors import BncliError as BncliError
from bncli.errors import ExitCode as ExitCode
from bncli.loaders import open_file as open_file
from bncli.loaders import open_layer as open_layer
from bncli.loaders import open_tensor as open_tensor
from bncli.moments import channel_stats as channel_stats
from bncli.moments import merge as merge

__version__: str
__all__ = [
    "BncliError",
    "ExitCode",
    "__version__",
    "capture",
    "channel_stats",
    "compare_checkpoints",
    "compare_norms",
    "compute",
    "conventions",
    "diagnose",
    "diff",
    "identify",
    "inspect_checkpoint",
    "main",
    "merge",
    "open_file",
    "open_layer",
    "open_tensor",
    "recalibrate",
    "rules",
    "schema",
    "simulate_ema",
    "testing",
    "trace",
]

Path: TypeAlias = str | PathLike[str]
Given: TypeAlias = object
"""A path, or the object itself, such as an array, a module, or batches."""

def diagnose(
    *given: Given,
    checkpoint: Given = None,
    allow_missing_keys: bool = False,
    arg: str | Mapping[str, Any] | Sequence[str] | None = None,
    frozen: str | Sequence[str] | None = None,
    device: Literal["cpu", "cuda"] | Any | None = None,
    seed: int | None = None,
    data: Given = None,
    input_key: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    metric: Given = None,
    try_: int | None = None,
    train_batch_size: int | None = None,
    reference: Given = None,
    chart: bool = False,
    no_checksum: bool = False,
    download: bool = False,
    allow_missing_parts: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Find out why a model is good in training and bad in evaluation."""

def recalibrate(
    model: Given = None,
    *,
    checkpoint: Given = None,
    allow_missing_keys: bool = False,
    arg: str | Mapping[str, Any] | Sequence[str] | None = None,
    frozen: str | Sequence[str] | None = None,
    device: Literal["cpu", "cuda"] | Any | None = None,
    seed: int | None = None,
    data: Given = None,
    input_key: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    stats: Given = None,
    average: Literal["population", "batches", "ema"] | None = None,
    momentum: float | None = None,
    propagate: Literal["eval", "training"] | None = None,
    convention: str | None = None,
    layer: str | Sequence[str] | None = None,
    max_error: float | None = None,
    metric: Given = None,
    metric_goal: Literal["max", "min"] | None = None,
    no_check: bool = False,
    save_checkpoint: Path | None = None,
    force: bool = False,
    counter: int | str | None = None,
    no_verify: bool = False,
    no_checksum: bool = False,
    download: bool = False,
    allow_missing_parts: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Write the right running statistics into a copy of a checkpoint, and nothing else."""

@overload
def capture(
    model: Given,
    *,
    frozen: str | Sequence[str] | None = None,
    per_batch: bool = False,
) -> Recorded:
    """Run a model over data, and keep the statistics of every BatchNorm layer's input."""

@overload
def capture(
    model: Given,
    *,
    checkpoint: Given = None,
    allow_missing_keys: bool = False,
    arg: str | Mapping[str, Any] | Sequence[str] | None = None,
    frozen: str | Sequence[str] | None = None,
    device: Literal["cpu", "cuda"] | Any | None = None,
    seed: int | None = None,
    data: Given,
    input_key: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    save_stats: Path | None = None,
    per_batch: bool = False,
    shard: str | None = None,
    resume: bool = False,
    no_checksum: bool = False,
    download: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Captured:
    """Run a model over data, and keep the statistics of every BatchNorm layer's input."""

def inspect_checkpoint(
    *checkpoints: Given,
    shard: str | None = None,
    resume: bool = False,
    layer: str | Sequence[str] | None = None,
    sort: Literal["file", "name", "trouble"] = "file",
    eps: float | str | Mapping[str, float] | Sequence[str] | None = None,
    momentum: float | str | Mapping[str, float | None] | Sequence[str] | None = ...,
    expect_layers: int | None = None,
    no_checksum: bool = False,
    download: bool = False,
    allow_missing_parts: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Find every BatchNorm layer of a checkpoint, and say what is wrong with it."""

def compare_checkpoints(
    *checkpoints: Given,
    with_: Given = None,
    layer: str | Sequence[str] | None = None,
    weights: bool = False,
    expect: str | Sequence[str] | None = None,
    no_checksum: bool = False,
    download: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Say what happened to each BatchNorm layer between two checkpoints, or among many."""

def diff(
    *tensors: Given,
    values: str | Sequence[Any] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    channel: int | str | Iterable[int | str] | None = None,
    input: Given = None,
    per_quantity: bool = False,
    budget: bool = False,
    training: bool | None = None,
    state: Given = None,
    eps: float | None = None,
    momentum: float | None = ...,
    affine: bool | None = None,
    track_running_stats: bool | None = None,
    weight: Given = None,
    bias: Given = None,
    running_mean: Given = None,
    running_var: Given = None,
    against: Given = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance_factor: float | None = None,
    equal_nan: bool = False,
    seed: int | None = None,
    device: Literal["cpu", "cuda"] | Any | None = None,
    memory_format: Literal["contiguous", "channels_last"] | Any | None = None,
    torch_threads: int | None = None,
    threads: int | None = None,
    no_checksum: bool = False,
    download: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Explain a difference, channel by channel: bncli against PyTorch, or two stored tensors."""

def identify(
    *tensors: Given,
    values: str | Sequence[Any] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    state: Given = None,
    eps: float | None = None,
    weight: Given = None,
    bias: Given = None,
    running_mean: Given = None,
    running_var: Given = None,
    training: bool | None = None,
    running_mean_before: Given = None,
    running_var_before: Given = None,
    running_mean_after: Given = None,
    running_var_after: Given = None,
    no_checksum: bool = False,
    download: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Tell which normalisation made OUTPUT from INPUT, or how running statistics were updated."""

def compute(
    *inputs: Given,
    values: str | Sequence[Any] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    channel: int | str | Iterable[int | str] | None = None,
    per_input: bool = False,
    training: bool = True,
    state: Given = None,
    eps: float | None = None,
    momentum: float | None = ...,
    affine: bool | None = None,
    track_running_stats: bool = True,
    weight: Given = None,
    bias: Given = None,
    running_mean: Given = None,
    running_var: Given = None,
    against: Given = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance_factor: float | None = None,
    seed: int = 0,
    save_output: Path | None = None,
    save_stats: Path | None = None,
    per_batch: bool = False,
    shard: str | None = None,
    resume: bool = False,
    threads: int | None = None,
    no_checksum: bool = False,
    download: bool = False,
    allow_missing_parts: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Show a batch's statistics, channel by channel, and check them against PyTorch."""

def trace(
    input: Given = None,
    *,
    values: str | Sequence[Any] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    channel: int | str | Iterable[int | str] | None = None,
    at: int | str | Sequence[int] | None = None,
    backward: bool = False,
    grad_output: Given = None,
    arithmetic: Literal["float64", "float32"] = "float64",
    training: bool = True,
    state: Given = None,
    eps: float | None = None,
    momentum: float | None = ...,
    affine: bool | None = None,
    track_running_stats: bool = True,
    weight: Given = None,
    bias: Given = None,
    running_mean: Given = None,
    running_var: Given = None,
    against: Given = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance_factor: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    no_checksum: bool = False,
    download: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Show every step of the normalisation with its formula and numbers, channel by channel."""

def compare_norms(
    input: Given = None,
    *,
    values: str | Sequence[Any] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    channel: int | str | Iterable[int | str] | None = None,
    first_values: int | None = None,
    groups: int | None = None,
    normalized_shape: int | str | Iterable[int | str] | None = None,
    eps: float | None = None,
    against: Given = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance_factor: float | None = None,
    no_checksum: bool = False,
    download: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Put one tensor through BatchNorm, LayerNorm, InstanceNorm, GroupNorm and RMSNorm."""

def simulate_ema(
    *inputs: Given,
    values: str | Sequence[Any] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | Any | None = None,
    channel: int | str | Iterable[int | str] | None = None,
    batch_axis: int | None = None,
    batch_size: int | None = None,
    drop_last: bool = False,
    generate: int | str | Sequence[int] | None = None,
    batches: int | None = None,
    between_std: float | None = None,
    drift: float | None = None,
    epochs: int = 1,
    shuffle: bool = False,
    seed: int = 0,
    convention: str | Sequence[str] | None = None,
    momentum: float | None = ...,
    buffer_dtype: Literal["float32", "float64", "float16", "bfloat16"] = "float32",
    freeze_after: int | None = None,
    state: Given = None,
    running_mean: Given = None,
    running_var: Given = None,
    reach_steps: int | None = None,
    reach_noise: float | None = None,
    against: Given = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance_factor: float | None = None,
    torch_threads: int = 1,
    every: int | None = None,
    chart: bool = False,
    plot: Path | None = None,
    threads: int | None = None,
    no_checksum: bool = False,
    download: bool = False,
    allow_missing_parts: bool = False,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """Follow running statistics over many batches, and see what a momentum leaves in them."""

def conventions(
    *,
    from_: str | None = None,
    to: str | None = None,
    momentum: float | None = ...,
    eps: float | None = None,
    count: int | None = None,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """List how frameworks keep running statistics, or convert from one to another."""

def rules(
    code: str | None = None,
    *,
    fail_on: Literal["error", "warning", "info", "never"] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    baseline: Path | None = None,
    update_baseline: bool = False,
) -> Report:
    """List every rule that findings come from, or explain one."""

def schema() -> dict[str, Any]:
    """The JSON Schema of `Report.to_dict()`."""
