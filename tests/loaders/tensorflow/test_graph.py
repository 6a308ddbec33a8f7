"""Graphs, functions and what they capture, as they stand in a file."""

import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import open_source
from bncli.loaders.tensorflow.graph import Node, program_of

from .written import field, function, meta_graph, node, saved_model, saved_objects


def program(tmp_path, data, *, saved=False):
    (tmp_path / "graph").write_bytes(data)
    with open_source(tmp_path / "graph") as source:
        return program_of(source, saved_model=saved)


def test_nodes_have_their_inputs_and_the_attributes_that_matter(tmp_path):
    graph = meta_graph(
        [
            node("n", "FusedBatchNormV3", ["x", "g:0", "^c"], epsilon=1e-3, is_training=False,
                 data_format="NCHW", T=("function", "t")),
            node("c", "Const", value=("tensor", 1e-5)),
            node("l", "Const", value=("list", 0.25)),
            node("v", "VarHandleOp", shared_name="v"),
            node("r", "Relu", ["x"], kind="left out"),
        ]
    )  # fmt: skip
    nodes = program(tmp_path, graph).main.nodes
    assert nodes["n"] == Node(
        "FusedBatchNormV3", ("x", "g:0", "^c"),
        {"epsilon": 1e-3, "is_training": 0, "data_format": "NCHW", "T": "t"},
    )  # fmt: skip
    assert nodes["c"].attributes["value"] == 1e-5
    assert nodes["l"].attributes["value"] == 0.25
    assert nodes["v"].attributes["shared_name"] == "v"
    assert nodes["r"] == Node("Relu", ("x",), {})


@pytest.mark.parametrize("typed", [1e-3, 1e-5, 0.01, 1.001e-5, 2e-5, 0.0010000000474974513])
def test_numbers_are_the_decimals_that_were_typed(tmp_path, typed):
    nodes = program(tmp_path, meta_graph([node("c", "Const", value=("tensor", typed))])).main.nodes
    assert nodes["c"].attributes["value"] == (1e-3 if typed == 0.0010000000474974513 else typed)


@pytest.mark.parametrize("value", [1 << 40, 7, b"1234", b""])
def test_a_number_that_is_stored_as_another_kind_is_not_told(tmp_path, value):
    """The float of an attribute is 4 bytes; the file has a longer number or a text there."""
    attribute = field(1, "epsilon") + field(2, field(4, value))
    odd = field(1, "n") + field(2, "FusedBatchNorm") + field(5, attribute)
    flag = field(1, "is_training") + field(2, field(5, b"yes"))
    odd += field(5, flag)
    found = program(tmp_path, meta_graph([odd])).main.nodes["n"]
    assert found.attributes == {"epsilon": None, "is_training": None}


def test_functions_and_what_they_capture(tmp_path):
    objects = saved_objects(["", "bn/gamma", "bn/beta"], {"f": [2, 1], "g": [0, 7], "h": []})
    graph = meta_graph([], [function("f", ["x", "a", "b"], [node("y", "Relu", ["x"])])], objects)
    found = program(tmp_path, saved_model(graph), saved=True)
    assert found.functions["f"].arguments == {"x": 0, "a": 1, "b": 2}
    assert found.functions["f"].nodes == {"y": Node("Relu", ("x",), {})}
    assert found.captured == {"f": ("bn/beta", "bn/gamma"), "g": ("", ""), "h": ()}
    assert found.main.nodes == {}


@pytest.mark.parametrize(
    "data", [b"\xff\xff", field(2, b"\x0a\xff"), field(2, field(1, field(1, b"\xff\xfe"))), b"\0"]
)
def test_damaged_graphs(tmp_path, data):
    with pytest.raises(CorruptFileError, match="its protobuf messages are damaged"):
        program(tmp_path, data)


def test_a_graph_of_far_too_many_fields_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bncli.loaders.tensorflow.graph.MOST_FIELDS", 50)
    with pytest.raises(UnsupportedFileError, match="it has more than 50 fields"):
        program(tmp_path, meta_graph([node(str(at), "Relu", ["x"]) for at in range(20)]))
