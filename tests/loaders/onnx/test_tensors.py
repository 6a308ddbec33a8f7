"""The tensors of ONNX files: every dtype, in every place where their elements may be."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bncli.errors import CorruptFileError, TensorError
from bncli.loaders.onnx.tensors import cast, of_numbers, varints
from tests.loaders.files import bits, newer_values, values
from tests.loaders.test_protobuf import message, varint

from .models import CODES, model, opened, raw, typed

EVERY = {name: value for name, value in (values() | newer_values()).items() if name in CODES}


@pytest.mark.parametrize("make", [raw, typed])
@pytest.mark.parametrize("name", EVERY)
def test_every_dtype_has_the_bits_that_the_onnx_package_gives(name, make, tmp_path):
    value = EVERY[name]
    tensor = make("t", value)
    ref = opened(tmp_path, model(tensors=[tensor])).tensors["t"]
    assert ref.dtype == name
    assert bits(ref.stored()) == bits(value)
    theirs = onnx.numpy_helper.to_array(tensor)
    assert ref.stored().tobytes() == theirs.tobytes()


def graph_of(*tensors):
    """A model as bytes whose tensors are these messages, as no library would write them."""
    return message(
        (1, 0, 8),
        (7, 2, b"".join(message((5, 2, tensor)) for tensor in tensors)),
        (8, 2, message((2, 0, 17))),
    )


def test_elements_may_come_one_by_one_or_in_parts(tmp_path):
    head = ((1, 0, 4), (8, 2, b"t"))
    floats = np.arange(4, dtype="<f4") / 3
    one_by_one = [(4, 5, number.tobytes()) for number in floats]
    in_parts = [(4, 2, floats[:1].tobytes()), (4, 2, floats[1:].tobytes())]
    for parts in (one_by_one, in_parts):
        data = graph_of(message(*head, (2, 0, 1), *parts))
        assert opened(tmp_path, data).tensors["t"].read().tolist() == floats.tolist()
    numbers = [(5, 0, 1), (5, 2, varint(-2) + varint(3)), (5, 0, -4)]
    data = graph_of(message(*head, (2, 0, 6), *numbers))
    assert opened(tmp_path, data).tensors["t"].read().tolist() == [1, -2, 3, -4]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ([(1, 0, 3), (2, 0, 1), (9, 2, bytes(8))], "'?t'? of 3 elements cannot take 8 bytes"),
        ([(1, 0, 3), (2, 0, 1), (4, 2, bytes(8))], "of 3 elements cannot take 8 bytes"),
        ([(1, 0, 3), (2, 0, 7), (7, 2, bytes(2))], "of 3 elements cannot take 2 bytes"),
        ([(1, 0, 3), (2, 0, 7), (7, 2, bytes(31))], "of 3 elements cannot take 31 bytes"),
        ([(1, 0, -1), (2, 0, 1)], "impossible shape"),
        ([(1, 0, 1 << 40), (1, 0, 1 << 40), (2, 0, 1)], "impossible shape"),
        ([(1, 2, bytes(65)), (2, 0, 1)], "its protobuf messages are damaged"),
        ([(1, 2, bytes(9999)), (2, 0, 1)], "its protobuf messages are damaged"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, sentence, tmp_path):
    with pytest.raises(CorruptFileError, match=sentence):
        opened(tmp_path, graph_of(message(*fields, (8, 2, b"t"))))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ([(1, 0, 3), (2, 0, 3), (5, 2, b"\1\2" + varint(200))], "too large for int8"),
        ([(1, 0, 2), (2, 0, 10), (5, 2, varint(1 << 16) + b"\1")], "too large for float16"),
        ([(1, 0, 1), (2, 0, 7), (7, 2, b"\1\2")], "more than 1 numbers"),
        ([(1, 0, 2), (2, 0, 7), (7, 2, b"\1\x80")], "of 2 elements cannot take 2 bytes"),
        ([(1, 0, 2), (2, 0, 7), (7, 2, b"\x80\x80")], "of 2 elements cannot take 2 bytes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_when_read(fields, sentence, tmp_path):
    file = opened(tmp_path, graph_of(message(*fields, (8, 2, b"t"))))
    with pytest.raises(CorruptFileError, match=sentence):
        file.tensors["t"].read()


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (TensorProto(name="t", dims=[1], data_type=8, string_data=[b"x"]), "the dtype string"),
        (TensorProto(name="t", dims=[2], data_type=22, raw_data=b"x"), "the dtype int4 is"),
        (TensorProto(name="t", dims=[2], data_type=99, raw_data=b"x"), "the dtype onnx 99 is"),
        (TensorProto(name="t", dims=[2], data_type=1), "its values are not in the file"),
        (TensorProto(name="t", dims=[1] * 33, data_type=1, raw_data=bytes(4)), "33 axes"),
    ],
)
def test_what_cannot_be_read_says_why(tensor, why, tmp_path):
    ref = opened(tmp_path, model(tensors=[tensor])).tensors["t"]
    assert ref.shape == tuple(tensor.dims)
    with pytest.raises(TensorError, match=why):
        ref.read()


def test_a_sparse_tensor_says_so(tmp_path):
    numbers = helper.make_tensor("t", TensorProto.FLOAT, [1], [3.0])
    places = helper.make_tensor("", TensorProto.INT64, [1], [2])
    sparse = helper.make_sparse_tensor(numbers, places, [5])
    file = opened(tmp_path, model(sparse_initializer=[sparse]))
    with pytest.raises(TensorError, match="it is sparse"):
        file.tensors["t"].read()


def test_a_tensor_without_elements(tmp_path):
    empty = TensorProto(name="t", dims=[0, 3], data_type=1)
    assert opened(tmp_path, model(tensors=[empty])).tensors["t"].read().shape == (0, 3)


@given(st.lists(st.integers(-(1 << 63), (1 << 64) - 1)))
def test_varints_are_what_they_were(numbers):
    decoded = [int(each) for block in varints(b"".join(map(varint, numbers))) for each in block]
    assert decoded == [number & ((1 << 64) - 1) for number in numbers]


def test_varints_of_many_blocks(monkeypatch):
    monkeypatch.setattr("bncli.loaders.onnx.tensors.BLOCK", 16)
    numbers = [3, 1 << 60, 0, 300] * 20
    blocks = list(varints(b"".join(map(varint, numbers))))
    assert len(blocks) > 10
    assert np.concatenate(blocks).tolist() == numbers


def test_a_cast_keeps_every_value_or_is_not_made(tmp_path):
    refs = opened(
        tmp_path, model(tensors=[raw(name, EVERY[name]) for name in ("bfloat16", "float64")])
    ).tensors
    wide = cast(refs["bfloat16"], TensorProto.FLOAT)
    assert wide.dtype == "float32"
    assert torch.equal(torch.tensor(wide.read()), EVERY["bfloat16"].float())
    assert cast(refs["float64"], TensorProto.FLOAT) is None
    assert cast(refs["bfloat16"], TensorProto.INT8) is None
    assert cast(refs["float64"], TensorProto.DOUBLE) is refs["float64"]


def test_numbers_of_a_constant(tmp_path):
    scalar = of_numbers(tmp_path, (0.1,), scalar=True)
    assert (scalar.shape, scalar.read()) == ((), np.float32(0.1))
    assert of_numbers(tmp_path, (1.0, 2.0), scalar=False).read().tolist() == [1, 2]
