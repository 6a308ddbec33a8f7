"""Arrays and tensors of any library as tensors of bncli, without a copy where memory is shared.

NumPy's and PyTorch's are known, those of other libraries come by DLPack or by `__array__`. PyTorch
is looked for among what is imported already: an object of it implies that it is.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import TensorError, UnsupportedFileError
from bncli.light import np
from bncli.loaders.npy import MOST_AXES, contiguous, kind_said
from bncli.loaders.torch_values import NO_TENSOR
from bncli.model import TensorRef
from bncli.report import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOLS = ("__dlpack__", "__array__", "__array_interface__")
"""What the class of an array of any library has one of."""
MASKED = "it is a masked array; give its filled() with a value for what is masked"
FREED = "its storage was freed and has no values"


def torch_if_imported() -> Any:
    """PyTorch where it is imported, else None."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "Tensor") else None


def is_torch_tensor(value: object) -> bool:
    """Whether it is a tensor of PyTorch."""
    torch = torch_if_imported()
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: object) -> bool:
    """Whether it is an array or a tensor of any library, rather than what holds some."""
    if isinstance(value, np.ndarray | array.array | memoryview) or is_torch_tensor(value):
        return True
    kind = type(value)
    return kind is not type and any(hasattr(kind, protocol) for protocol in PROTOCOLS)


def as_ref(value: object, path: Path, name: str = "") -> TensorRef:
    """An array, a tensor or nested lists of numbers as a tensor of this name.

    One whose values cannot be had is `unreadable`, and its dtype NO_TENSOR where it is none that a
    tensor may have. Raises TensorError for what does not become an array.
    """
    if not is_torch_tensor(value) and not isinstance(value, np.ndarray):
        value = _by_protocol(value, path, name)
    return _of_torch(value, path, name) if is_torch_tensor(value) else _of_numpy(value, path, name)


def single(value: object, path: Path) -> TensorRef:
    """The same, for one that stands by itself; raises UnsupportedFileError for text and objects."""
    ref = as_ref(value, path)
    if ref.dtype == NO_TENSOR:
        raise UnsupportedFileError(path, f"{ref.unreadable}; give an array of numbers.")
    return ref


def _by_protocol(value: Any, path: Path, name: str) -> Any:
    """What another library's array or a list is for NumPy, or else for PyTorch."""
    first = None
    if hasattr(type(value), "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except Exception as error:  # noqa: BLE001  # another library's code
            first = error
        with suppress(Exception):  # nor is PyTorch always there
            return _torch_from_dlpack(value)
    try:
        return np.asarray(value)
    except Exception as error:
        problem = printable(" ".join(str(first or error).split()).rstrip("."))
        where = printable(f"{path}::{name}" if name else str(path))
        raise TensorError(
            f"{where}: it does not become an array of NumPy ({problem}); give a NumPy array or a "
            "tensor of PyTorch."
        ) from error


def _torch_from_dlpack(value: Any) -> Any:
    """What NumPy does not take: bfloat16, float8, and what lies on another device."""
    from torch.utils.dlpack import from_dlpack

    return from_dlpack(value)


# ---------------------------------------------------------------------------- NumPy's


def _of_numpy(given: Any, path: Path, name: str) -> TensorRef:
    values: NDArray[Any] = np.asarray(given)
    dtype, shape = values.dtype.name, values.shape
    known = DTYPES.get(dtype)
    if known is None or values.dtype.itemsize != known.itemsize:
        why = f"it holds {_kind_said(values.dtype)}"
        return TensorRef(name, path, shape, NO_TENSOR, contiguous(shape), None, why)
    if values.dtype.kind == "V":  # bfloat16 and float8 of ml_dtypes, by their bits
        values = values.view(known.stored)
    why = _unreadable(shape)
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        why = MASKED
    if why:
        return TensorRef(name, path, shape, dtype, contiguous(shape), None, why)
    size = values.dtype.itemsize
    if any(step < 0 or step % size for step in values.strides):
        # Turned around, or among the fields of records: there is no flat array that it is in.
        flat = partial(_dense, values)
        return TensorRef(name, path, shape, dtype, contiguous(shape), flat)
    strides = tuple(step // size for step in values.strides)
    origin = -1, values.__array_interface__["data"][0]
    storage = partial(_flat, values, _count(shape, strides))
    return TensorRef(name, path, shape, dtype, _stepped(shape, strides), storage, origin=origin)


def _kind_said(dtype: np.dtype[Any]) -> str:
    """What an array holds that is none of numbers."""
    if dtype.fields is not None:
        return "records of several fields"
    return "Python objects" if dtype.hasobject else kind_said(dtype.kind, dtype.name)


def _dense(values: NDArray[Any]) -> NDArray[Any]:
    """The elements side by side."""
    return np.ascontiguousarray(values).reshape(-1)


def _flat(values: NDArray[Any], count: int) -> NDArray[Any]:
    """The memory from the first element on, as far as the array reaches."""
    from numpy.lib.stride_tricks import as_strided

    if not count:
        return np.empty(0, values.dtype)
    return as_strided(values, (count,), (values.dtype.itemsize,), writeable=False)


# ---------------------------------------------------------------------------- PyTorch's


def _of_torch(given: Any, path: Path, name: str) -> TensorRef:
    torch = torch_if_imported()
    from torch.nn.parameter import is_lazy

    dtype = str(given.dtype).removeprefix("torch.")
    if is_lazy(given):
        why = "it has no shape before the first forward pass"
        return TensorRef(name, path, (), dtype, (), None, why)
    if given.is_nested:
        why = "it is a nested tensor, whose parts differ in shape"
        return TensorRef(name, path, (), dtype, (), None, why)
    shape = tuple(given.shape)
    why = _unreadable_tensor(torch, given, dtype) or _unreadable(shape)
    if why:
        return TensorRef(name, path, shape, dtype, contiguous(shape), None, why)
    memory = given.untyped_storage()
    begins = given.storage_offset() * given.element_size()
    strides, count = tuple(given.stride()), _count(shape, given.stride())
    if begins + count * given.element_size() > memory.nbytes():
        return TensorRef(name, path, shape, dtype, contiguous(shape), None, FREED)
    origin = memory.data_ptr(), begins
    storage: Callable[[], NDArray[Any]] = partial(_flat_torch, given, count)
    if given.device.type != "cpu" or given.is_neg() or given.is_conj():
        # Copied once, when it is read; with its own strides, where these leave no gaps.
        strides = strides if _is_dense(shape, strides) else contiguous(shape)
        storage = lru_cache(maxsize=1)(partial(_copied, given, strides))
    return TensorRef(name, path, shape, dtype, _stepped(shape, strides), storage, origin=origin)


def _unreadable_tensor(torch: Any, given: Any, dtype: str) -> str:
    """Why the values of a tensor cannot be had; "" where they can."""
    if given.layout is not torch.strided:
        layout = str(given.layout).removeprefix("torch.")
        return "it is sparse" if "sparse" in layout else f"its layout is {layout}"
    if given.is_quantized:
        return "it is quantised"
    if given.is_meta:
        return "it is on the meta device and has no values"
    if type(given).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return "it is a tensor subclass with parts of its own"
    return "" if dtype in DTYPES else f"the dtype {dtype} is not read"


def _copied(given: Any, strides: tuple[int, ...]) -> NDArray[Any]:
    """The elements of a tensor of another device, or of one that is negated as it is read."""
    torch = torch_if_imported()
    with torch.no_grad():
        copy = torch.empty_strided(given.shape, strides, dtype=given.dtype, device="cpu")
        copy.copy_(given)
    return _flat_torch(copy, _count(tuple(given.shape), strides))


def _flat_torch(given: Any, count: int) -> NDArray[Any]:
    """The memory from the first element on, as far as the tensor reaches."""
    torch = torch_if_imported()
    name = str(given.dtype).removeprefix("torch.")
    stored = np.dtype(DTYPES[name].stored)
    if not count:
        return np.empty(0, stored)
    with torch.no_grad():
        flat = given.detach().as_strided((count,), (1,))
        if name in ("bfloat16", "complex32") or name.startswith("float8"):
            bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[stored.itemsize]
            flat = flat.view(bits)
        values: NDArray[Any] = flat.numpy()
    return values.view(stored)


# ---------------------------------------------------------------------------- of both


def _unreadable(shape: tuple[int, ...]) -> str:
    return f"it has {len(shape)} axes" if len(shape) > MOST_AXES else ""


def _count(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many elements lie from the first to the last."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie side by side, in any order of the axes."""
    reach = 1
    for step, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and step != reach:
            return False
        reach *= max(size, 1)
    return True


def _stepped(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The strides; an axis that is never stepped along has that of a dense tensor."""
    if 0 in shape:
        return contiguous(shape)
    return tuple(
        step if size > 1 else dense
        for size, step, dense in zip(shape, strides, contiguous(shape), strict=True)
    )
