"""Graphs of ONNX, as its own package writes them."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def graph(path, training, *, opset=15):
    """An ONNX file of one BatchNormalization of 4 channels, called bn1."""
    rng = np.random.default_rng(0)
    tensors = {"weight": rng.normal(1, 0.1, 4), "bias": rng.normal(size=4)}
    tensors |= {"mean": rng.normal(size=4), "var": rng.uniform(0.5, 2, 4)}
    extra = ["m", "v"] if training else []
    node = helper.make_node(
        "BatchNormalization",
        ["x", *tensors],
        ["y", *extra],
        name="bn1",
        epsilon=1e-3,
        **({"training_mode": 1} if training else {}),
    )
    made = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4, 5])],
        [numpy_helper.from_array(value.astype("f4"), name) for name, value in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(model)
    onnx.save(model, path)


def folded(path):
    """An ONNX file of a convolution and a LayerNorm that is named like a BatchNorm."""
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (4, 2, 3), "conv.bias": (4,), "bn.weight": (3,), "bn.bias": (3,)}
    tensors = [
        numpy_helper.from_array(rng.normal(size=shape).astype("f4"), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["y"], name="conv"),
        helper.make_node("LayerNormalization", ["y", "bn.weight", "bn.bias"], ["z"], name="bn"),
    ]
    ends = [("x", ["n", 2, 5]), ("z", ["n", 4, 3])]
    given, result = (helper.make_tensor_value_info(name, 1, shape) for name, shape in ends)
    made = helper.make_graph(nodes, "net", [given], [result], tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), path)
