"""Arrays of any library, in and out: made as a function wants them, read by whatever protocol."""

from __future__ import annotations

import sys
import types
from typing import Annotated

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bncli.backends.users.arrays import arrays_of, dtype_of, is_torch, to_numpy
from bncli.backends.users.guard import Code
from bncli.errors import ModelError
from bncli.live.users_code import users_code


class Array:
    """An array of another library's, which has no more than what its class gives it."""

    def __init__(self, values):
        self.values = np.array(values)

    @property
    def dtype(self):
        return f"other.{self.values.dtype}"


class ByArray(Array):
    def __array__(self, dtype=None, copy=None):
        return self.values


class ByDlpack(Array):
    def __dlpack__(self, **how):
        return self.values.__dlpack__()

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class ByNumpy(Array):
    def __dlpack__(self, **how):
        raise BufferError("on a device")

    def __dlpack_device__(self):
        return (2, 0)

    def numpy(self):
        return self.values


def code_of(value=None):
    return Code.of(value or (lambda x: x), users_code, "it")


@pytest.fixture
def other(monkeypatch):
    """A library with arrays of its own and a function that makes them."""
    library = types.ModuleType("otherlib.core")
    library.asarray = ByArray
    monkeypatch.setitem(sys.modules, "otherlib", types.ModuleType("otherlib"))
    monkeypatch.setitem(sys.modules, "otherlib.core", library)
    return library


@pytest.mark.parametrize("kind", [np.asarray, ByArray, ByDlpack, ByNumpy, torch.tensor, memoryview])
def test_every_protocol_is_read(kind):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = to_numpy(kind(values), "the output", code_of())
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32
    assert not np.shares_memory(found, values)


def test_torch_in_bfloat16_and_with_a_gradient_is_read():
    found = to_numpy(torch.ones(3, dtype=torch.bfloat16, requires_grad=True), "it", code_of())
    assert found.tolist() == [1, 1, 1]


def test_bfloat16_is_widened_by_its_own_library(other):
    class Narrow(ByNumpy):
        dtype = "otherlib.core.bfloat16"

        def astype(self, dtype):
            return ByArray(self.values.astype(dtype))

    Narrow.__module__ = "otherlib.core"
    other.float32 = np.float32
    found = to_numpy(Narrow([1.0, 2.5]), "it", code_of())
    assert (found.dtype, found.tolist()) == (np.float32, [1.0, 2.5])


@pytest.mark.parametrize("value", [None, 3.0, "x", [1.0], {}, object(), lambda: 0])
def test_what_is_no_array_is_told(value):
    with pytest.raises(ModelError, match=r"it: the output is .*, not an array"):
        to_numpy(value, "the output", code_of())


def test_other_numbers_are_told():
    with pytest.raises(ModelError, match="the output holds complex64, not floating-point"):
        to_numpy(np.ones(3, np.complex64), "the output", code_of())


def test_the_annotation_chooses_the_library(other):
    ByArray.__module__ = "otherlib.core"
    try:
        arrays = arrays_of(code_of(), ByArray)
        assert arrays.library == "otherlib"
        assert isinstance(arrays.made(np.ones(2), "float32", code_of()), ByArray)
    finally:
        ByArray.__module__ = __name__


def test_a_class_alone_makes_its_arrays():
    made = arrays_of(code_of(), ByDlpack).made(np.ones(2), "float16", code_of())
    assert isinstance(made, ByDlpack)
    assert made.values.dtype == np.float16


def test_an_attribute_goes_before_the_annotation():
    def function(x: np.ndarray): ...

    function.array = ByArray
    assert isinstance(
        arrays_of(code_of(function), np.ndarray).made(np.ones(2), "float32", code_of()), ByArray
    )


@pytest.mark.parametrize("annotation", [None, np.ndarray, NDArray[np.float32], list, float])
def test_numpys_arrays_are_the_default(annotation):
    made = arrays_of(code_of(), annotation).made(np.ones(2), "float32", code_of())
    assert isinstance(made, np.ndarray)
    assert made.flags.writeable


def test_bfloat16_comes_as_float32_where_the_library_has_none():
    assert arrays_of(code_of(), None).made(np.ones(2), "bfloat16", code_of()).dtype == np.float32


def test_a_library_without_the_dtype_is_told(other):
    other.asarray = lambda values: ByArray(values.astype(np.float32))
    arrays = arrays_of(code_of(), type("Array", (), {"__module__": "otherlib.core"}))
    with pytest.raises(ModelError, match=r"otherlib makes float32 of float64; .*--dtype float32"):
        arrays.made(np.ones(2), "float64", code_of())


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (torch.Tensor, True),
        (torch.nn.Parameter, True),
        (Annotated[torch.Tensor, "N C"], True),
        (np.ndarray, False),
        (None, False),
        ("torch.Tensor", False),
    ],
)
def test_tensors_are_known(annotation, found):
    assert is_torch(annotation) is found


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.ones(1, np.float16), "float16"),
        (torch.ones(1, dtype=torch.bfloat16), "bfloat16"),
        (types.SimpleNamespace(dtype="<dtype: 'float32'>"), "float32"),
        (types.SimpleNamespace(dtype="mlx.core.float32"), "float32"),
        (types.SimpleNamespace(dtype=types.SimpleNamespace(name="half")), "float16"),
        (types.SimpleNamespace(dtype="dtypes.float"), "float32"),
        (object(), ""),
    ],
)
def test_the_dtype_is_known_however_it_is_written(array, name):
    assert dtype_of(array) == name
