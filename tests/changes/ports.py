"""The same network under the names and in the layout of other frameworks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tests.changes.trainings import LAYERS

Arrays = dict[str, NDArray[np.float32]]
Tensors = Mapping[str, torch.Tensor]
Name = Callable[[str, str], str]


def transposed(values: torch.Tensor) -> torch.Tensor:
    """A kernel of TensorFlow and Flax: height, width, input, output; or input, output."""
    return values.permute(2, 3, 1, 0) if values.ndim == 4 else values.T


def ported(state: Tensors, leaves: Mapping[str, str], name: Name, *, last: bool = False) -> Arrays:
    """The arrays of a network as another framework has them.

    `leaves` are its names of a BatchNorm layer's tensors; what is not among them is left out.
    `name` joins the name of a layer and a tensor's. `last` says that a kernel's outputs come last.
    """
    arrays = {}
    for full, values in state.items():
        layer, _, leaf = full.rpartition(".")
        if layer in LAYERS:
            if leaf in leaves:
                arrays[name(layer, leaves[leaf])] = values.numpy()
        elif leaf == "weight":
            kernel = transposed(values) if last else values
            arrays[name(layer, "kernel" if last else "weight")] = kernel.contiguous().numpy()
        else:
            arrays[name(layer, "bias")] = values.numpy()
    return arrays


def leaves(weight: str, bias: str, mean: str, var: str) -> dict[str, str]:
    return {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}


def keras(state: Tensors) -> Arrays:
    names = leaves("gamma", "beta", "moving_mean", "moving_variance")
    return ported(
        state, names, lambda layer, leaf: f"{layer.replace('.', '/')}/{leaf}:0", last=True
    )


def mxnet(state: Tensors) -> Arrays:
    names = leaves("gamma", "beta", "moving_mean", "moving_var")

    def join(layer: str, leaf: str) -> str:
        kind = "aux" if leaf.startswith("moving") else "arg"
        return f"{kind}:{layer.replace('.', '_')}_{leaf}"

    return ported(state, names, join)


def gluon(state: Tensors) -> Arrays:
    return ported(state, leaves("gamma", "beta", "running_mean", "running_var"), "{}.{}".format)


def flax(state: Tensors) -> Arrays:
    def join(layer: str, leaf: str) -> str:
        tree = "batch_stats" if leaf in {"mean", "var"} else "params"
        return f"{tree}/{layer.replace('.', '/')}/{leaf}"

    return ported(state, leaves("scale", "bias", "mean", "var"), join, last=True)


def paddle(state: Tensors) -> Arrays:
    """Linear layers have their outputs last, convolutions first."""
    arrays = ported(state, leaves("weight", "bias", "_mean", "_variance"), "{}.{}".format)
    linear = (name for name in arrays if name in {"head.0.weight", "fc.weight"})
    return arrays | {name: np.ascontiguousarray(arrays[name].T) for name in linear}


def chainer(state: Tensors) -> Arrays:
    names = leaves("gamma", "beta", "avg_mean", "avg_var")
    return ported(state, names, lambda layer, leaf: f"{layer.replace('.', '/')}/{leaf}")


PORTS = {
    "keras": keras,
    "mxnet": mxnet,
    "gluon": gluon,
    "flax": flax,
    "paddle": paddle,
    "chainer": chainer,
}


def renamed(state: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A network whose modules have names that say nothing, and the new name of each old one."""
    new = {}
    modules = dict.fromkeys(name.rpartition(".")[0] for name in state)
    for number, module in enumerate(modules):
        new[module] = f"features.{number}"
    return {
        f"{new[layer]}.{leaf}": values
        for full, values in state.items()
        for layer, _, leaf in [full.rpartition(".")]
    }, new
