"""Arrays and tensors as tensors of bncli: the values, the memory, and what has no values."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bncli.errors import BncliError, UnsupportedFileError
from bncli.loaders.objects.arrays import as_ref, is_array, single
from tests.objects import alike, run, said

NAME = Path("<ndarray>")
DTYPES = [
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
]
TORCH = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
]


@st.composite
def arrays(draw):
    """An array of any dtype and byte order, sliced, turned around, transposed or repeated."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(draw(st.sampled_from("<>")))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = (rng.normal(size=shape) * 20).astype(dtype)
    steps = st.sampled_from([1, 2, -1, -2])
    cut = [slice(draw(st.integers(0, 1)), None, draw(steps)) for _ in shape]
    values = np.asarray(values)[(*cut, ...)]
    values = values.transpose(draw(st.permutations(range(values.ndim))))
    if draw(st.booleans()):
        values = np.broadcast_to(values, (draw(st.integers(0, 3)), *values.shape))
    if draw(st.booleans()):
        values.flags.writeable = False
    return values


@given(arrays(), st.data())
@settings(max_examples=200, deadline=None)
def test_an_array_is_read_as_it_is_whatever_its_memory_looks_like(values, data):
    ref = as_ref(values, NAME)
    assert (ref.shape, ref.dtype, ref.unreadable) == (values.shape, values.dtype.name, "")
    read = ref.read()
    assert read.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, values)
    block = tuple(
        slice(low := data.draw(st.integers(0, size)), data.draw(st.integers(low, size)))
        for size in values.shape
    )
    np.testing.assert_array_equal(ref.stored(block), values[block])
    np.testing.assert_array_equal(ref.part(block).read(), values[block])
    turned = any(step < 0 for step in values.strides)
    if values.size and values.ndim and not turned:
        assert np.shares_memory(ref.stored(), values)


@given(arrays())
@settings(max_examples=60, deadline=None)
def test_a_report_of_an_array_is_that_of_its_file(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("same") / "x.npy"
    np.save(path, values)
    assert alike(told(values), {"<ndarray>": str(path)}) == told(str(path))


def told(given_one):
    """The report of an input, or the sentence that refuses it."""
    try:
        return said("compute", given_one)
    except BncliError as error:
        return str(error)


@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_a_tensor_of_any_dtype_is_that_of_its_file(dtype, tmp_path):
    values = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(1)) * 5
    for number, x in enumerate(
        (
            values.to(dtype),
            values.to(dtype).to(memory_format=torch.channels_last),
            values.to(dtype)[:, 1:, :, ::2],
            values.to(dtype)[:1].expand(3, 3, 2, 5),
        )
    ):
        ref = single(x, NAME)
        assert (ref.dtype, ref.strides) == (str(dtype).removeprefix("torch."), x.stride())
        np.testing.assert_array_equal(ref.read(), x.to(torch.float64).numpy())
        if number:
            continue
        path = str(tmp_path / "x.pt")
        torch.save(x, path)
        flags = {} if dtype.is_floating_point and x.element_size() > 1 else {"dtype": "float32"}
        assert alike(said("compute", x, **flags), {"<Tensor>": path}) == said(
            "compute", path, **flags
        )


def test_memory_is_shared_and_nothing_of_a_parameter_is_changed():
    x = torch.nn.Parameter(torch.randn(4, 3, 5))
    stored = single(x, NAME).stored()
    assert np.shares_memory(stored, x.detach().numpy())
    assert not stored.flags.writeable
    assert x.requires_grad
    half = x.detach().bfloat16()
    bits = single(half, NAME).stored()
    assert np.shares_memory(bits, half.view(torch.int16).numpy())


@pytest.mark.parametrize("kind", ["ndarray", "Tensor"])
def test_statistics_of_a_large_array_take_no_memory_of_its_size(kind):
    x = np.random.default_rng(0).standard_normal((64, 8, 128, 128), np.float32)
    given_one = (
        x if kind == "ndarray" else torch.from_numpy(x).to(memory_format=torch.preserve_format)
    )
    run("compute", x[:2])  # what is imported and kept for good
    tracemalloc.start()
    try:
        run("compute", given_one)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 4, f"{peak} bytes for an array of {x.nbytes}"


class Elsewhere:
    """An array of another library, which knows DLPack alone."""

    def __init__(self, values, *, device=(1, 0)):
        self.values = values
        self.device = device

    def __dlpack__(self, **given):
        return self.values.__dlpack__(**given)

    def __dlpack_device__(self):
        return self.device


def test_an_array_that_knows_dlpack_is_taken_without_a_copy():
    values = np.arange(12.0).reshape(4, 3)
    ref = single(Elsewhere(values), NAME)
    np.testing.assert_array_equal(ref.read(), values)
    assert np.shares_memory(ref.stored(), values)


def test_what_numpy_does_not_take_by_dlpack_comes_by_pytorch():
    values = torch.randn(4, 3).bfloat16()
    ref = single(Elsewhere(values), NAME)
    assert ref.dtype == "bfloat16"
    np.testing.assert_array_equal(ref.read(), values.float().numpy())
    assert np.shares_memory(ref.stored(), values.view(torch.int16).numpy())


class Failing:
    """An array whose library cannot give it out."""

    def __dlpack__(self, **given):
        raise BufferError("line one\nline two \x1b[31m")

    def __dlpack_device__(self):
        raise BufferError("line one\nline two \x1b[31m")

    def __array__(self, *given, **more):
        raise TypeError("no array either")


def test_an_array_that_is_not_given_out_is_one_sentence():
    with pytest.raises(BncliError) as refused:
        run("compute", Failing())
    assert str(refused.value) == (
        r"<Failing>: it does not become an array of NumPy (line one line two \x1b[31m); give a "
        "NumPy array or a tensor of PyTorch."
    )


class ByArray:
    """What knows __array__ alone, as a DataFrame."""

    def __array__(self, dtype=None, copy=None):
        return np.arange(6.0).reshape(2, 3)


def test_what_becomes_an_array_is_one():
    assert is_array(ByArray())
    assert not is_array(np.ndarray)
    assert single(ByArray(), NAME).read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert single([[1, 2], [3, 4.5]], NAME).read().tolist() == [[1, 2], [3, 4.5]]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: torch.randn(2, 3).to_sparse(), "it is sparse"),
        (lambda: torch.empty(2, 3, device="meta"), "it is on the meta device and has no values"),
        (
            lambda: torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 0, torch.qint8),
            "it is quantised",
        ),
        (
            lambda: torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(1, 3)]),
            "it is a nested tensor, whose parts differ in shape",
        ),
        (torch.nn.UninitializedParameter, "it has no shape before the first forward pass"),
        (lambda: freed(torch.randn(2, 3)), "its storage was freed and has no values"),
        (
            lambda: np.ma.masked_less(np.ones((2, 3)) * [1, -1, 1], 0),
            "it is a masked array; give its filled() with a value for what is masked",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_what_has_no_values_says_why(make, why):
    value = make()
    assert single(value, NAME).unreadable == why
    with pytest.raises(BncliError) as refused:
        run("compare_norms", value)
    name = f"<{type(value).__name__}>: "
    assert str(refused.value).startswith(name)


def freed(tensor):
    """A tensor whose storage was freed, as FSDP does between its uses."""
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (np.array([["a"]]), "text"),
        (np.array([{}]), "Python objects"),
        (np.zeros(2, [("x", "f4"), ("y", "f4")]), "records of several fields"),
        (np.zeros(2, "M8[s]"), "dates"),
    ],
)
def test_what_holds_no_numbers_is_refused(values, what):
    with pytest.raises(UnsupportedFileError, match=f"^<ndarray>: it holds {what}; give an array"):
        run("compute", values)


def test_a_masked_array_with_nothing_masked_is_as_good_as_any():
    values = np.ma.masked_less(np.ones((2, 3)), 0)
    assert single(values, NAME).read().tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_fields_of_records_are_read_one_by_one():
    for packed in ([("a", "u1"), ("x", "f4")], [("x", "f4"), ("y", "f4")]):
        values = np.zeros((2, 3), packed)
        values["x"] = [[1, 2, 3], [4, 5, 6]]
        assert single(values["x"], NAME).read().tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.to(memory_format=torch.channels_last)[:, :, ::2],
        lambda x: x.permute(2, 0, 3, 1),
        lambda x: x[:, 1:, :, 1::3],
        lambda x: x[:1].expand(4, 3, 4, 5),
        lambda x: x[:, :1].permute(3, 1, 0, 2),
        lambda x: x[0, 0, 0, 0],
        lambda x: x[:, :0],
    ],
)
def test_a_tensor_that_has_to_be_copied_is_read_as_it_is_with_its_own_strides(view):
    """As one of another device: here, one whose sign is turned as it is read."""
    x = view(torch.randn(2, 3, 4, 5, dtype=torch.complex64).conj()).imag
    if not x.is_neg():  # x.imag of the others has gaps; such as these have none
        x = torch._neg_view(x)
    dense = torch._neg_view(view(torch.randn(2, 3, 4, 5)))
    for each in (x, dense):
        ref = single(each, NAME)
        np.testing.assert_array_equal(ref.read(), each.resolve_neg().numpy())
        assert ref.stored() is not None
    if torch.ops.aten.is_non_overlapping_and_dense(dense) and dense.numel():
        assert [step for step, size in zip(ref.strides, ref.shape, strict=True) if size > 1] == [
            step for step, size in zip(dense.stride(), dense.shape, strict=True) if size > 1
        ]


def test_views_of_complex_numbers_are_read_as_pytorch_reads_them():
    z = torch.randn(3, 4, dtype=torch.complex64)
    for view in (z.conj().imag, z.imag, z.t().conj()):
        np.testing.assert_array_equal(
            single(view, NAME).read(), view.resolve_neg().resolve_conj().numpy()
        )
