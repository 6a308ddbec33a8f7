"""Inspecting a large ONNX model, against the onnx package."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from .conftest import Row
from .processes import BNCLI, raced

RIVAL = """
import sys, onnx
from onnx import numpy_helper
graph = onnx.load(sys.argv[1]).graph
tensors = {tensor.name: tensor for tensor in graph.initializer}
for node in graph.node:
    if node.op_type == "BatchNormalization":
        print(node.input[4], numpy_helper.to_array(tensors[node.input[4]]).min())
"""
LAYERS = 53
CHANNELS = 512


def network(path, megabytes):
    """A chain of convolutions, each with a BatchNormalization behind it."""
    nodes, tensors, last = [], [], "x"
    inputs = megabytes * 1_000_000 // 4 // LAYERS // CHANNELS
    for layer in range(LAYERS):
        arrays = {f"layer{layer}.conv.weight": np.zeros((CHANNELS, inputs, 1, 1), np.float32)}
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"layer{layer}.bn.{leaf}"] = np.linspace(1, 2, CHANNELS, dtype=np.float32)
        tensors += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        names = list(arrays)
        nodes.append(helper.make_node("Conv", [last, names[0]], [f"conv{layer}"]))
        last = f"norm{layer}"
        nodes.append(helper.make_node("BatchNormalization", [f"conv{layer}", *names[1:]], [last]))
    ends = [helper.make_tensor_value_info(name, 1, None) for name in ("x", last)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("megabytes", [100, 1000])
def test_inspect_onnx(megabytes, tmp_path, rows):
    path = tmp_path / "net.onnx"
    network(path, megabytes)
    seconds, memory = raced(
        {
            "bncli": (BNCLI, "inspect-checkpoint", str(path), "-f", "json"),
            "onnx script": (RIVAL, str(path)),
        },
        5,
    )
    took = {name: min(times) for name, times in seconds.items()}
    path.unlink()
    ratio = took["onnx script"] / took["bncli"]
    case = f"inspect-checkpoint, ONNX, {megabytes} MB"
    told = f"{ratio:.1f} ({took['bncli']:.2f} s; rival {took['onnx script']:.2f} s)"
    rows.append(Row(case, "onnx script", "", "4.00", told, ratio >= 4))
    told = f"{memory['bncli']:.0f} MB; onnx script {memory['onnx script']:.0f} MB"
    rows.append(Row(f"{case}, memory", "80 MB", "", "", told, memory["bncli"] <= 80))
