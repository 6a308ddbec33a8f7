"""One network as the files of other frameworks hold it, as their readers give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorFile
from tests.changes.files import made
from tests.changes.ports import leaves, transposed
from tests.changes.trainings import BEFORE, LAYERS

Arrays = dict[str, NDArray[np.float32]]
Tensors = Mapping[str, torch.Tensor]
Writer = Callable[[Tensors, float], TensorFile]

TORCH = leaves("weight", "bias", "running_mean", "running_var")
KERAS = leaves("gamma", "beta", "moving_mean", "moving_variance")
COUNTER = "num_batches_tracked"


def of(state: Tensors, module: str) -> Arrays:
    """A module's own tensors by their names, without a counter."""
    found = {}
    for full, values in state.items():
        layer, _, leaf = full.rpartition(".")
        if layer == module and leaf != COUNTER:
            found[leaf] = values.contiguous().numpy()
    return found


def modules_of(state: Tensors) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in state))


def kernel(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A weight with its outputs last."""
    return np.ascontiguousarray(transposed(torch.from_numpy(values)).numpy())


def module(layer: str, eps: float | None, convention: str, stated: float | None) -> BatchNormModule:
    """What a file says of a layer whose framework weighs the old value with its momentum."""
    return BatchNormModule(
        "BatchNormalization",
        eps=eps,
        momentum=None if stated is None else round(1 - stated, 10),
        has_momentum=stated is not None,
        stated_momentum=stated,
        convention=convention,
    )


# ------------------------------------------------------------------ PyTorch


def torch_state(state: Tensors, eps: float) -> TensorFile:
    """A state_dict, which stores no eps."""
    del eps
    return made({name: values.numpy() for name, values in state.items()}, "net.pth", "torch-zip")


def torch_module(state: Tensors, eps: float) -> TensorFile:
    """A pickled module, which stores it."""
    told = {layer: BatchNormModule("BatchNorm2d", eps=eps, momentum=0.1) for layer in LAYERS}
    return replace(torch_state(state, eps), modules=told)


# ------------------------------------------------------------------ ONNX


def scope(name: str) -> str:
    """A module as an exporter of PyTorch writes it into a node: /layer1/layer1.0/bn1."""
    parts = name.split(".")
    comps, current = [], ""
    for part in parts:
        current = f"{current}.{part}" if current else part
        if part.isdecimal() or len(comps) == 0:
            comps.append(current)
        else:
            comps.append(part)
            current = part
    return "/" + "/".join(comps)


def onnx(state: Tensors, eps: float, *, tensors: str = "torch", nodes: str = "torch") -> TensorFile:
    """BatchNormalization nodes, every input of which is there: named as in PyTorch or not at all.

    The initializers stand in no order.
    """
    arrays: Arrays = {}
    layers, told = {}, {}
    number = 100

    def add(full: str, values: NDArray[np.float32], kind: str) -> str:
        nonlocal number
        number += 1
        name = full if tensors == "torch" else f"onnx::{kind}_{number}"
        arrays[name] = values
        return name

    for at, layer in enumerate(LAYERS):
        front, own = of(state, BEFORE[layer]), of(state, layer)
        width = len(own["running_var"])
        own = {"weight": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)} | own
        kind = "Conv" if front["weight"].ndim == 4 else "MatMul"
        turned = kind == "MatMul" and tensors != "torch"
        weight = kernel(front["weight"]) if turned else front["weight"]
        before = StoredFront(
            BEFORE[layer],
            add(f"{BEFORE[layer]}.weight", weight, kind),
            add(f"{BEFORE[layer]}.bias", front["bias"], kind) if "bias" in front else None,
            1 if turned else 0,
        )
        kept = {leaf: add(f"{layer}.{leaf}", own[leaf], "BatchNormalization") for leaf in TORCH}
        name = {
            "torch": layer,
            "scope": f"{scope(layer)}/BatchNormalization",
            "number": f"BatchNormalization_{2 * at}",
        }[nodes]
        layers[name] = StoredLayer(kept, before)
        told[name] = module(layer, eps, "onnx", 0.9)
    order = dict(sorted(arrays.items()))
    return replace(made(order, "net.onnx", "onnx"), layers=layers, modules=told)


def onnx_anonymous(state: Tensors, eps: float) -> TensorFile:
    return onnx(state, eps, tensors="none", nodes="number")


def onnx_scoped(state: Tensors, eps: float) -> TensorFile:
    return onnx(state, eps, tensors="none", nodes="scope")


# ------------------------------------------------------------------ TensorFlow and Keras


def keras_names(state: Tensors) -> dict[str, str]:
    """The names that Keras gives to layers without one, in their order."""
    names, counts = {}, {}
    for each in modules_of(state):
        kind = "batch_normalization" if each in LAYERS else "conv2d"
        if of(state, each).get("weight", np.ones(1)).ndim == 2:
            kind = "dense"
        count = counts[kind] = counts.get(kind, -1) + 1
        names[each] = f"{kind}_{count}" if count else kind
    return names


def keras_like(
    state: Tensors, eps: float | None, join: Callable[[str, str], str], names: Mapping[str, str]
) -> tuple[Arrays, dict[str, BatchNormModule]]:
    arrays: Arrays = {}
    told = {}
    for each, name in names.items():
        own = of(state, each)
        if each in LAYERS:
            arrays |= {join(name, KERAS[leaf]): own[leaf] for leaf in TORCH if leaf in own}
            told[name] = module(name, eps, "keras3", 0.99)
        else:
            arrays[join(name, "kernel")] = kernel(own["weight"])
            if "bias" in own:
                arrays[join(name, "bias")] = own["bias"]
    return arrays, told


def keras_h5(state: Tensors, eps: float) -> TensorFile:
    """A whole model whose layers have the names that Keras gives them."""
    arrays, told = keras_like(state, eps, "{}/{}".format, keras_names(state))
    return replace(made(arrays, "net.h5", "keras"), modules=told)


def keras_named(state: Tensors, eps: float) -> TensorFile:
    """Layers that are named as in PyTorch, each group inside of one of its name."""
    names = {each: each.replace(".", "_") for each in modules_of(state)}
    doubled = {each: f"{name}/{name}" for each, name in names.items()}
    arrays, told = keras_like(state, eps, "{}/{}:0".format, doubled)
    return replace(made(arrays, "net.h5", "keras"), modules=told)


def keras_weights(state: Tensors, eps: float) -> TensorFile:
    """Weights by number, which the layer's configuration tells apart."""
    arrays: Arrays = {}
    layers, told = {}, {}
    for each, name in keras_names(state).items():
        own = of(state, each)
        if each in LAYERS:
            there = [leaf for leaf in TORCH if leaf in own]
            full = {leaf: f"layers/{name}/vars/{at}" for at, leaf in enumerate(there)}
            arrays |= {full[leaf]: own[leaf] for leaf in there}
            near = keras_names(state)[BEFORE[each]]
            last = 3 if own["running_var"].size and f"layers/{near}/vars/0" in arrays else 0
            last = arrays[f"layers/{near}/vars/0"].ndim - 1 if last else 0
            front = StoredFront(near, f"layers/{near}/vars/0", None, last)
            layers[name] = StoredLayer(full, front)
            told[name] = module(name, eps, "keras3", 0.99)
        else:
            arrays[f"layers/{name}/vars/0"] = kernel(own["weight"])
            if "bias" in own:
                arrays[f"layers/{name}/vars/1"] = own["bias"]
    return replace(made(arrays, "net.weights.h5", "keras"), layers=layers, modules=told)


def tf_checkpoint(state: Tensors, eps: float) -> TensorFile:
    """The variables of a graph, sorted; it stores no eps."""
    del eps
    arrays, _ = keras_like(state, None, "model/{}/{}".format, keras_names(state))
    return made(dict(sorted(arrays.items())), "model.ckpt.index", "tensorflow")


# ------------------------------------------------------------------ JAX, Paddle, MXNet


def flax(state: Tensors, eps: float) -> TensorFile:
    """Two trees, with the names that Flax gives; nothing but tensors."""
    del eps
    names = leaves("scale", "bias", "mean", "var")
    arrays: Arrays = {}
    counts: dict[str, int] = {}
    for each in modules_of(state):
        own = of(state, each)
        kind = "BatchNorm" if each in LAYERS else "Conv"
        if own.get("weight", np.ones(1)).ndim == 2:
            kind = "Dense"
        count = counts[kind] = counts.get(kind, -1) + 1
        name = f"{kind}_{count}"
        if each in LAYERS:
            for leaf in own:
                tree = "batch_stats" if leaf.startswith("running") else "params"
                arrays[f"{tree}/{name}/{names[leaf]}"] = own[leaf]
        else:
            arrays[f"params/{name}/kernel"] = kernel(own["weight"])
            if "bias" in own:
                arrays[f"params/{name}/bias"] = own["bias"]
    told = {
        f"BatchNorm_{at}": BatchNormModule("BatchNorm", has_momentum=False, convention="flax")
        for at in range(len(LAYERS))
    }
    return replace(made(dict(sorted(arrays.items())), "net.msgpack", "flax"), modules=told)


def paddle(state: Tensors, eps: float) -> TensorFile:
    del eps
    names = leaves("weight", "bias", "_mean", "_variance")
    arrays: Arrays = {}
    for each in modules_of(state):
        own = of(state, each)
        if each in LAYERS:
            arrays |= {f"{each}.{names[leaf]}": values for leaf, values in own.items()}
        else:
            weight = own["weight"]
            arrays[f"{each}.weight"] = weight.T.copy() if weight.ndim == 2 else weight
            if "bias" in own:
                arrays[f"{each}.bias"] = own["bias"]
    return made(arrays, "net.pdparams", "paddle")


def mxnet(state: Tensors, eps: float) -> TensorFile:
    names = leaves("gamma", "beta", "moving_mean", "moving_var")
    arrays: Arrays = {}
    told = {}
    for at, each in enumerate(modules_of(state)):
        own = of(state, each)
        if each in LAYERS:
            name = f"batchnorm{at}"
            for leaf in own:
                kind = "aux" if leaf.startswith("running") else "arg"
                arrays[f"{kind}:{name}_{names[leaf]}"] = own[leaf]
            told[name] = module(name, eps, "mxnet", 0.9)
        else:
            arrays |= {f"arg:conv{at}_{leaf}": values for leaf, values in own.items()}
    return replace(made(arrays, "net.params", "mxnet"), modules=told)


WRITERS: dict[str, Writer] = {
    "torch": torch_state,
    "torch-module": torch_module,
    "onnx": onnx,
    "onnx-scoped": onnx_scoped,
    "onnx-anonymous": onnx_anonymous,
    "keras-h5": keras_h5,
    "keras-named": keras_named,
    "keras-weights": keras_weights,
    "tf-checkpoint": tf_checkpoint,
    "flax": flax,
    "paddle": paddle,
    "mxnet": mxnet,
}
