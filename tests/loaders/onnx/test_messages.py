"""The messages of ONNX files, and their bounds."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import open_source
from bncli.loaders.onnx import messages
from bncli.loaders.onnx.messages import Node, read_model
from bncli.loaders.protobuf import shortest

from .models import model, norm, norm_model, opened


@given(st.floats(width=32, allow_nan=False))
def test_a_float32_is_given_as_the_shortest_number_that_becomes_it(value):
    found = shortest(struct.pack("<f", value))
    assert found == float(str(np.float32(value)))


@pytest.mark.parametrize("value", [1e-5, 0.9, 0.99, 1e-3, 0.0, -0.0, 3.4028234663852886e38])
def test_a_float32_that_was_typed_is_what_was_typed(value):
    assert repr(shortest(struct.pack("<f", value))) in {repr(value), "3.4028235e+38"}


def test_a_float32_that_is_no_number():
    assert np.isnan(shortest(struct.pack("<f", np.nan)))
    assert shortest(struct.pack("<f", -np.inf)) == -np.inf


def test_attributes_of_every_kind(tmp_path):
    node = helper.make_node(
        "Op", [], ["y"], f=0.1, i=-3, floats=[0.5, 0.25], none=0, zero=0.0, text="x"
    )
    path = tmp_path / "m"
    path.write_bytes(model([node]))
    with open_source(path) as source:
        read = read_model(source)
        (node,) = read.messages.graph(read.graph).nodes
        found = read.messages.attributes(node)
    assert (found["f"].number, found["i"].number) == (0.1, -3)
    assert found["floats"].numbers == (0.5, 0.25)
    assert (found["none"].number, found["zero"].number) == (0, 0)
    assert found["text"].number is None


@pytest.mark.parametrize(
    ("bound", "value"), [("MOST_NODES", 3), ("MOST_TEXT", 10), ("MOST_ATTRIBUTES", 1)]
)
def test_what_is_kept_of_a_file_is_bounded(bound, value, tmp_path, monkeypatch):
    monkeypatch.setattr(messages, bound, value)
    with pytest.raises(
        UnsupportedFileError, match=r"more than \d+ (nodes and tensors|MB|attributes)"
    ):
        opened(tmp_path, norm_model(epsilon=1e-3, momentum=0.5))


def test_names_that_are_no_text_are_refused(tmp_path):
    data = norm_model().replace(b"bn.weight", b"bn.w\xff\xfe\xfd\xfc\xfb")
    with pytest.raises(CorruptFileError, match="its protobuf messages are damaged"):
        opened(tmp_path, data)


def test_a_node_is_named_by_its_output_where_it_has_no_name():
    assert Node("Op", "", "", (), ("", "b"), ()).label == "b"
    assert Node("Op", "", "a", (), ("b",), ()).label == "a"
    assert Node("Op", "", "", (), (), ()).label == ""
    assert Node("Op", "ai.onnx", "", (), (), ()).is_own("Op")
    assert not Node("Op", "x", "", (), (), ()).is_own("Op")


def test_the_opset_of_another_domain_is_not_onnx(tmp_path):
    made = norm()
    path = tmp_path / "m"
    path.write_bytes(model([made.node], made.tensors, opset=9))
    with open_source(path) as source:
        read = read_model(source)
    assert read.opset == 9
    read.opsets = {"com.example": 3}
    assert read.opset == 1
    read.opsets = {"ai.onnx": 14}
    assert read.opset == 14
