"""What several files have in common, and how much of it is read."""

from __future__ import annotations

import numpy as np
import torch

from bncli.changes.many import common
from bncli.changes.many.common import Common, coarsest, names_of, read, sample
from tests.changes.many.networks import copied, epochs, network, opened, to, trained


def test_all_values_are_read(tmp_path):
    found = Common.of(opened(tmp_path, *epochs()))
    values = read(found.tensors("running_mean", "running_var"))
    assert values.each.shape == (6, 32)
    assert values.total == 32
    expected = torch.cat([
        epochs()[2][f"{layer}.{leaf}"] for leaf in ("running_mean", "running_var")
        for layer in ("1", "4")
    ])  # fmt: skip
    assert values.each[2].tolist() == expected.tolist()
    assert values.only(["running_var"]).each[2].tolist() == expected[16:].tolist()
    assert values.only(["running_var"]).total == 16


def test_of_very_many_values_some_of_each_tensor_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MOST_VALUES", 6 * 8)
    found = Common.of(opened(tmp_path, *epochs()))
    values = read(found.tensors("running_mean", "running_var"))
    assert values.each.shape == (6, 8)
    assert values.total == 32
    assert {name for name, _, _ in values.parts} == {"1", "4"}
    assert values.each[0, :2].tolist() == epochs()[0]["1.running_mean"][::4].tolist()


def test_the_weights_in_front_are_read_alike_in_all_containers(tmp_path):
    """Some rows of a large weight, the same ones whether it is plain or packed."""
    weight = torch.randn(70, 40, 3, 3)
    plain, other = opened(tmp_path, {"a": weight}, {"a": weight})
    np.savez_compressed(tmp_path / "a.npz", a=weight.numpy())
    from bncli.loaders import open_file

    packed = open_file(tmp_path / "a.npz")
    some = sample(plain.tensors["a"])
    assert 2000 < some.size <= common.MOST_ROWS * common.MOST_OF_A_ROW
    assert some.tolist() == sample(other.tensors["a"]).tolist()
    assert some.tolist() == sample(packed.tensors["a"]).tolist()
    assert set(some.tolist()) <= set(weight.double().flatten().tolist())
    last_row_read = weight[range(0, 70, 5)[-1]].double().flatten().tolist()
    assert set(some[-200:].tolist()) <= set(last_row_read)


def test_the_weight_in_front_of_each_layer(tmp_path):
    first, second = epochs(2)
    found = Common.of(opened(tmp_path, first, {f"module.{k}": v for k, v in second.items()}))
    before = found.before()
    assert [(name, [ref.name for ref in refs]) for name, _, refs in before] == [
        ("1", ["0.weight", "module.0.weight"]),
        ("4", ["3.weight", "module.3.weight"]),
    ]
    assert [name for name, _, _ in found.before(["4"])] == ["4"]


def test_of_a_deep_network_some_of_them_are_read(tmp_path):
    net = network(depth=40, width=4)
    states = [copied(net), copied(trained(net, 1, 0))]
    found = Common.of(opened(tmp_path, *states))
    assert 10 <= len(found.before()) <= common.MOST_WEIGHTS
    assert len(found.before(found.names)) == 40


def test_another_order_of_the_files_keeps_the_names(tmp_path):
    first, second = epochs(2)
    wrapped = {f"module.{name}": value for name, value in second.items()}
    found = Common.of(opened(tmp_path, first, wrapped)).in_order([1, 0])
    assert found.names == ("1", "4")
    assert found.layers[0][0].name == "module.1"
    assert found.files[0].path.name == "1.pt"
    assert [name for name, _, _ in found.before()] == ["1", "4"]


def test_tensors_of_other_shapes_and_kinds_are_left_out(tmp_path):
    first, second = (dict(state) for state in epochs(2))
    second["1.running_mean"] = torch.zeros(9)
    second["4.running_var"] = torch.zeros(8, dtype=torch.int64)
    values = read(Common.of(opened(tmp_path, first, second)).tensors("running_mean", "running_var"))
    assert [(name, leaf) for name, leaf, _ in values.parts] == [
        ("4", "running_mean"),
        ("1", "running_var"),
    ]


def test_the_rounding_is_that_of_the_coarsest_dtype(tmp_path):
    files = opened(tmp_path, epochs()[0], to(epochs()[0], torch.bfloat16))
    values = read(Common.of(files).tensors("running_mean"))
    assert set(values.roundoffs) == {2.0**-8}
    assert coarsest(["float32", "float16", "bfloat16", "float64"]) == "bfloat16"
    assert values.rounded(values.each[0]).tolist() == values.each[1].tolist()


def test_names_are_short_where_that_is_clear():
    assert names_of(["x/a.pt", "x/b.pt"]) == {"x/a.pt": "a.pt", "x/b.pt": "b.pt"}
    assert names_of(["x/a.pt", "y/a.pt"]) == {"x/a.pt": "x/a.pt", "y/a.pt": "y/a.pt"}
