"""What the torch backend's files share: PyTorch itself, and tensors for arrays and back."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from bncli.backends.arithmetic import Arithmetic
from bncli.errors import MissingBackendError, UsageError
from bncli.light import np

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from bncli.backends.interface import BatchNormCall

INSTALL = "python -m pip install torch"

REPEATED_VERSION = "2.13."
"""The release whose order of additions was found to be what `bncli.pytorch_cpu` repeats."""

REPEATED_KERNELS = ("AVX2", "AVX512")
"""The builds of its kernels for which that was found; they add by fused multiply-add."""


def library() -> ModuleType:
    """PyTorch. Raises MissingBackendError where it is not installed, or MemoryError."""
    try:
        import torch
    except ImportError as error:
        if "failed to map segment" in str(error):  # it is there, but there is no room for it
            raise MemoryError from error
        raise MissingBackendError(
            f"PyTorch is not installed here, and the comparison needs it: {INSTALL}"
        ) from error
    return torch


class _Threads:
    """How many threads PyTorch had before the blocks that are open, and how many these are."""

    lock = Lock()
    before = 0
    open = 0


@contextmanager
def with_threads(number: int | None) -> Iterator[None]:
    """PyTorch with so many threads while the block runs; None is as many as it has.

    The number is the process's. Where blocks of several threads overlap, what was there before the
    first comes back with the end of the last.
    """
    torch = library()
    with _Threads.lock:
        if not _Threads.open:
            _Threads.before = torch.get_num_threads()
        _Threads.open += 1
        if number is not None:
            torch.set_num_threads(number)
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.open -= 1
            if not _Threads.open:
                torch.set_num_threads(_Threads.before)


@contextmanager
def way_of(call: BatchNormCall) -> Iterator[None]:
    """PyTorch with the threads that a call asks for, while the block runs.

    Raises MissingBackendError where the call's device is not there.
    """
    torch = library()
    if call.device == "cuda" and not torch.cuda.is_available():
        raise MissingBackendError(
            "--device cuda: PyTorch sees no CUDA device here; leave --device out, or run where "
            "there is one."
        )
    with with_threads(call.threads):
        yield


def repeats() -> bool:
    """Whether `bncli.pytorch_cpu` repeats this library's arithmetic here, bit for bit."""
    torch = library()
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.cpu.get_cpu_capability() in REPEATED_KERNELS
        and str(torch.__version__).startswith(REPEATED_VERSION)
    )


def to_tensor(values: NDArray[Any], dtype: Any) -> Any:
    """A tensor of `dtype` with the strides of `values`, sharing no memory with them."""
    import torch

    return torch.from_numpy(np.array(values, order="K")).to(dtype)


def laid_out(x: Any, memory_format: str | None) -> Any:
    """`x` in the memory format that is named, or else in its own where that is channels last.

    Its strides become those of a fresh tensor: with the odd ones that axes of size 1 allow,
    PyTorch falls back to a kernel that sums half precision in half precision.
    """
    import torch

    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    chosen = torch.contiguous_format
    if memory_format == "channels_last":
        if channels_last is None:
            raise UsageError(
                f"--memory-format channels_last: it is for 4 or 5 axes, but this input has "
                f"{x.ndim}; leave it out."
            )
        chosen = channels_last
    elif (
        memory_format is None
        and channels_last is not None
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=channels_last)
    ):
        chosen = channels_last
    return torch.empty(x.shape, dtype=x.dtype, memory_format=chosen).copy_(x)


def to_array(tensor: Any) -> NDArray[Any]:
    """A NumPy array with the tensor's values, bfloat16 widened to float32."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def arithmetic_of(x: Any, dtype: str, parameter_dtype: str) -> Arithmetic:
    """How BatchNorm's kernels take `x`, of shape (N, C, ...)."""
    import torch

    count = x.numel() // x.shape[1]
    if x.device.type != "cpu":
        return _cuda_arithmetic(x, dtype, parameter_dtype)
    # What counts for them: (N, C) input is summed row by row, as channels last is.
    rows = not x.is_contiguous() or x.numel() == x.shape[0] * x.shape[1]
    share = -(-count // torch.get_num_threads())
    additions = backward_additions = share if rows else count
    accumulate_dtype = backward_dtype = "float64"
    if dtype != "float64":
        backward_dtype = "float32"
        if rows or dtype != "float32":
            accumulate_dtype = "float32"
        if not rows and dtype == "float32":
            # Backward, images are summed one by one, and the images' sums in float64.
            backward_additions = count // x.shape[0]
    return Arithmetic(
        dtype=dtype,
        parameter_dtype=parameter_dtype,
        accumulate_dtype=accumulate_dtype,
        backward_dtype=backward_dtype,
        additions=additions,
        backward_additions=backward_additions,
        rows=rows,
        order="repeated" if repeats() else "similar",
    )


def _cuda_arithmetic(x: Any, dtype: str, parameter_dtype: str) -> Arithmetic:
    """How the CUDA kernels take `x`: as PyTorch's Normalization.cuh has them.

    Each thread has running moments, which are merged pairwise, in an order of the device's own.
    """
    import torch

    count = x.numel() // x.shape[1]
    wide = "float64" if dtype == "float64" else "float32"
    backward_dtype, backward_additions = wide, count
    plain = x.is_contiguous() and x.numel() > x.shape[0] * x.shape[1]
    half = dtype in ("float16", "bfloat16")
    if half and plain:
        # The partial sums of the threads are rounded to the input's dtype each time that they are
        # handed on within a warp or between warps: at most 5 + 4 times for 512 threads.
        backward_dtype, backward_additions = dtype, 9
    strided = not x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)
    return Arithmetic(
        dtype=dtype,
        parameter_dtype=parameter_dtype,
        accumulate_dtype=wide,
        backward_dtype=backward_dtype,
        additions=count,
        backward_additions=backward_additions,
        rows=False,
        order="similar",
        # What has no kernel of its own is reduced by var_mean, which gives the input's dtype.
        statistics_dtype=dtype if half and strided else "",
        moving_mean=True,
    )


def batch_statistics(x: Any, parameter_dtype: Any, eps: float) -> dict[str, Any]:
    """The mean, biased variance and invstd of the batch, from the kernels the module uses."""
    import torch

    zeros = torch.zeros(x.shape[1], dtype=parameter_dtype, device=x.device)
    ones = torch.ones(x.shape[1], dtype=parameter_dtype, device=x.device)
    mean, var = torch.batch_norm_update_stats(x, zeros, ones, 0.0)
    _, _, invstd = torch.native_batch_norm(x, ones, zeros, zeros, ones, True, 0.0, eps)
    return {"mean": mean, "var": var, "invstd": invstd}
