"""Make a network as three files: `python make.py` in this folder, with torch and onnx installed.

`net.pt` is PyTorch's state_dict, `net.onnx` the same network with a momentum that was copied
without being converted, and `folded.onnx` what an export in evaluation mode leaves of it.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

FOLDER = Path(__file__).parent
EPS = 1e-3
LAYERS = ("conv1", "bn1", "relu1", "conv2", "bn2")


def network() -> nn.Sequential:
    """Two convolutions with a BatchNorm behind each, whose statistics are those of 300 batches."""
    torch.manual_seed(0)
    made = (
        nn.Conv1d(3, 8, 3),
        nn.BatchNorm1d(8, eps=EPS),
        nn.ReLU(),
        nn.Conv1d(8, 16, 3),
        nn.BatchNorm1d(16, eps=EPS),
    )
    model = nn.Sequential(OrderedDict(zip(LAYERS, made, strict=True)))
    for layer in (model.bn1, model.bn2):
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias, std=0.3)
    for _ in range(300):
        model(1 + 2 * torch.randn(16, 3, 20))
    return model.eval()


def folded(convolution: nn.Conv1d, norm: nn.BatchNorm1d) -> dict[str, torch.Tensor]:
    """The weight and the bias of a convolution that does the BatchNorm's work too."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = (convolution.bias - norm.running_mean) * scale + norm.bias
    return {"weight": convolution.weight * scale[:, None, None], "bias": bias}


def graph(model: nn.Sequential, *, fold: bool) -> onnx.ModelProto:
    """The network as ONNX; momentum is what PyTorch's module has, which ONNX means otherwise."""
    nodes, tensors, value = [], [], "x"
    for number, name in enumerate(LAYERS):
        layer, after = model[number], f"y{number}"
        if isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [value], [after], name=name))
        elif not fold or isinstance(layer, nn.Conv1d):
            own = folded(layer, model[number + 1]) if fold else layer.state_dict()
            own.pop("num_batches_tracked", None)
            tensors += [
                numpy_helper.from_array(own[leaf].detach().numpy(), f"{name}.{leaf}")
                for leaf in own
            ]
            operator, more = "Conv", {}
            if isinstance(layer, nn.BatchNorm1d):
                operator, more = "BatchNormalization", {"epsilon": EPS, "momentum": layer.momentum}
            inputs = [value, *(f"{name}.{leaf}" for leaf in own)]
            nodes.append(helper.make_node(operator, inputs, [after], name=name, **more))
        else:
            continue
        value = after
    ends = [("x", [None, 3, 20]), (value, [None, 16, 16])]
    given, result = (helper.make_tensor_value_info(end, TensorProto.FLOAT, to) for end, to in ends)
    made = helper.make_graph(nodes, "net", [given], [result], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def main() -> None:
    """Write the files."""
    model = network()
    torch.save(model.state_dict(), FOLDER / "net.pt")
    for name, fold in (("net.onnx", False), ("folded.onnx", True)):
        made = graph(model, fold=fold)
        onnx.checker.check_model(made)
        onnx.save(made, FOLDER / name)
    with torch.no_grad():
        x = model.conv1(1 + 2 * torch.randn(4, 3, 20))
    np.save(FOLDER / "x.npy", x.numpy())


if __name__ == "__main__":
    main()
