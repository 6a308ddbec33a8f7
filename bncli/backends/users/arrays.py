"""The arrays that a user's function takes, by their library, and those that it returns."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from typing import Any

from bncli.backends.users.guard import Code
from bncli.errors import ModelError
from bncli.light import dataclass, np

MAKERS = ("asarray", "array", "to_tensor", "convert_to_tensor")
"""What libraries call the function that makes an array of a NumPy array, the usual name first."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """How the arrays of a function are made: from a NumPy array, which is the function's own.

    `library` is the module that they are from, "" for NumPy's or where only the maker is known.
    `bfloat16` is that library's dtype, None where bfloat16 comes as float32 with rounded values.
    `assumed` says that the function does not tell which arrays it takes.
    """

    make: Callable[[Any], Any]
    library: str = ""
    bfloat16: Any = None
    assumed: bool = False

    def made(self, values: Any, dtype: str, code: Code) -> Any:
        """An array of `dtype` with these values. Raises ModelError where it has another dtype."""
        values = values.astype("float32" if dtype == "bfloat16" else dtype)
        with code.running(f"making an array for {code.called}"):
            made = self.make(np.array(values, order="C"))
            if dtype == "bfloat16" and self.bfloat16 is not None:
                made = made.astype(self.bfloat16)
        held = dtype_of(made)
        if held and held != dtype and (held, dtype) != ("float32", "bfloat16"):
            library = self.library or "its library"
            raise ModelError(
                f"{code.called}: {library} makes {held} of {dtype}; give the input as {held}, with "
                f"--dtype {held}."
            )
        return made


def arrays_of(code: Code, annotation: Any) -> Arrays:
    """What makes the arrays of a function whose first parameter has this annotation.

    That is its attribute `array` where it has one; else what the library of the annotation has for
    it; else NumPy's arrays. PyTorch's tensors are not made here.
    """
    own = getattr(code.value, "array", None)
    if callable(own):
        return Arrays(own)
    kind = _class_of(annotation)
    if kind is None or kind is np.ndarray:
        return Arrays(np.asarray, assumed=kind is None)
    module = str(getattr(kind, "__module__", ""))
    root = module.partition(".")[0]
    places = [module, f"{root}.numpy", root]
    for place in places:
        library = sys.modules.get(place)
        for name in MAKERS:
            make = getattr(library, name, None)
            if callable(make):
                return Arrays(make, root, getattr(library, "bfloat16", None))
    return Arrays(kind, root)


def is_torch(annotation: Any) -> bool:
    """Whether an annotation is a tensor of PyTorch's."""
    torch = sys.modules.get("torch")
    kind = _class_of(annotation)
    return torch is not None and isinstance(kind, type) and issubclass(kind, torch.Tensor)


def _class_of(annotation: Any) -> Any:
    """The class that an annotation names, without what stands in brackets; None for no class."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    kind = typing.get_origin(annotation) or annotation
    return kind if isinstance(kind, type) and kind.__module__ != "builtins" else None


def dtype_of(array: Any) -> str:
    """The name of an array's dtype, such as "float32", however its library writes it; or ""."""
    dtype = getattr(array, "dtype", None)
    if dtype is None:
        return ""
    name = getattr(dtype, "name", None)
    name = name if isinstance(name, str) else str(dtype)
    name = name.rpartition(".")[2].rstrip("'>) ").rpartition("'")[2]
    return {"half": "float16", "float": "float32", "double": "float64"}.get(name, name)


def to_numpy(value: Any, what: str, code: Code) -> Any:
    """A NumPy array of its own with the values of any array, bfloat16 as float32.

    `what` names it in sentences. Raises ModelError for what is no array of real floating-point
    numbers.
    """
    if value is None or isinstance(
        value, str | bytes | int | float | complex | dict | list | tuple
    ):
        raise ModelError(f"{code.called}: {what} is {kind_of(value)}, not an array.")
    with code.running(f"reading {what} of {code.called}"):
        found = _read(value)
    if found is None or found.dtype == object:
        raise ModelError(f"{code.called}: {what} is {kind_of(value)}, not an array.")
    if found.dtype.name == "bfloat16":  # a dtype that another library has added
        found = found.astype(np.float32)
    if found.dtype.kind not in "fiu":
        raise ModelError(f"{code.called}: {what} holds {found.dtype}, not floating-point numbers.")
    return np.array(found)


def _read(value: Any) -> Any:
    """A NumPy array by whatever protocol the value has; None where it has none."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    wide = getattr(sys.modules.get(type(value).__module__), "float32", None)
    if dtype_of(value) == "bfloat16" and wide is not None and hasattr(value, "astype"):
        value = value.astype(wide)  # neither DLPack nor buffers have it for NumPy
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError):  # a device, or a dtype
            pass
    if callable(getattr(value, "numpy", None)):
        return np.asarray(value.numpy())
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        return None


def kind_of(value: Any) -> str:
    """What a value is, with an article."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name.lower().startswith((*'aeiou', 'nd')) else 'a'} {name}"
