"""What tensors are called where the checkpoint has a tree of objects."""

import numpy as np
import pytest

from bncli.loaders import open_file

from .written import bundle, object_graph

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
ONE, TWO = np.arange(3, dtype="f4"), np.arange(3, 6).astype("f4")


def names(tmp_path, arrays, full):
    texts = {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(full)}
    for name, data in bundle(arrays, texts=texts).items():
        (tmp_path / name).write_bytes(data)
    return list(open_file(tmp_path / "model.index").tensors)


@pytest.mark.parametrize(
    ("arrays", "full", "expected"),
    [
        ({"a" + VALUE: ONE}, {"a" + VALUE: "conv/kernel"}, ["conv/kernel"]),
        ({"a" + VALUE: ONE}, {}, ["a"]),
        ({"a" + VALUE: ONE}, {"a" + VALUE: ""}, ["a"]),
        ({"conv/kernel": ONE}, {}, ["conv/kernel"]),
        ({"a/.ATTRIBUTES/OBJECT": ONE}, {}, ["a/.ATTRIBUTES/OBJECT"]),
        # Two variables of one name keep their places, as does one that is called like a place.
        ({"a" + VALUE: ONE, "b" + VALUE: TWO}, dict.fromkeys(["a" + VALUE, "b" + VALUE], "w"),
         ["a", "b"]),
        ({"a" + VALUE: ONE, "b" + VALUE: TWO}, {"a" + VALUE: "b"}, ["a", "b"]),
        # One variable that is stored twice has its name once.
        ({"a" + VALUE: ONE, "b" + VALUE: ONE}, dict.fromkeys(["a" + VALUE, "b" + VALUE], "w"),
         ["w", "b"]),
        # What an optimiser keeps of a weight is no weight, though it is called so.
        ({"a" + VALUE: ONE, "optimizer/_variables/3" + VALUE: TWO},
         {"a" + VALUE: "w/kernel", "optimizer/_variables/3" + VALUE: "Adam/m/w/kernel"},
         ["w/kernel", "optimizer/_variables/3"]),
        ({"a/.OPTIMIZER_SLOT/optimizer/m" + VALUE: ONE},
         {"a/.OPTIMIZER_SLOT/optimizer/m" + VALUE: "w/m"}, ["a/.OPTIMIZER_SLOT/optimizer/m"]),
        # A key that is not there.
        ({"a" + VALUE: ONE}, {"z" + VALUE: "w"}, ["a"]),
    ],
)  # fmt: skip
def test_names(tmp_path, arrays, full, expected):
    assert names(tmp_path, arrays, full) == expected


def test_a_key_that_is_no_text_is_shown_as_it_can_be(tmp_path):
    for name, data in bundle({b"\xff\xfe": ONE}).items():
        (tmp_path / name).write_bytes(data)
    assert list(open_file(tmp_path / "model.index").tensors) == ["\\xff\\xfe"]
