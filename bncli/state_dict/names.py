"""The names that frameworks give to the tensors of a BatchNorm layer, and PyTorch's for each."""

from __future__ import annotations

import re

from bncli.light import dataclass

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""The names that PyTorch gives to the tensors of a BatchNorm layer."""


@dataclass(frozen=True, slots=True)
class Naming:
    """One family of names, with the defaults of the frameworks that use it.

    `mean` and `var` name the running statistics. `eps` and `momentum` (the weight of the new
    batch) are what such a framework assumes where nothing else is said.
    """

    name: str
    mean: str
    var: str
    eps: float
    momentum: float

    @property
    def convention(self) -> str:
        """The name of the framework's row in `running_stats.frameworks`, its newest one."""
        return {"torch": "pytorch", "keras": "keras3"}.get(self.name, self.name)


TORCH = Naming("torch", "running_mean", "running_var", 1e-5, 0.1)
GLUON = Naming("gluon", "running_mean", "running_var", 1e-5, 0.1)
"""PyTorch's statistics beside gamma and beta, as Gluon and burn write them."""
OTHERS = (
    Naming("keras", "moving_mean", "moving_variance", 1e-3, 0.01),
    Naming("mxnet", "moving_mean", "moving_var", 1e-3, 0.1),
    Naming("paddle", "_mean", "_variance", 1e-5, 0.1),
    Naming("chainer", "avg_mean", "avg_var", 2e-5, 0.1),
    Naming("darknet", "rolling_mean", "rolling_variance", 1e-6, 0.01),
    Naming("flax", "mean", "var", 1e-5, 0.01),
)
"""Each is known by its pair of statistics; the defaults are those in the frameworks' sources."""

ONNX = Naming("onnx", "input_mean", "input_var", 1e-5, 0.1)
"""The names of the operator's inputs; the tensors themselves may be called anything."""
_FRAMEWORKS = {naming.name: naming for naming in (TORCH, GLUON, ONNX, *OTHERS)}
_FRAMEWORKS |= {"pytorch": TORCH, "tf": _FRAMEWORKS["keras"], "haiku": _FRAMEWORKS["flax"]}

WEIGHTS = ("weight", "gamma", "scale", "scales")
BIASES = ("bias", "beta", "offset", "biases")

KNOWN = frozenset(
    (*LEAVES, *WEIGHTS, *BIASES, *(name for naming in OTHERS for name in (naming.mean, naming.var)))
)

_JOINED = re.compile(r"(?:arg:|aux:)?(.+)_(gamma|beta|moving_mean|moving_variance|moving_var)")
"""MXNet joins a layer's name and the tensor's by "_", and may put the kind of tensor before."""
_JOINED_WEIGHT = re.compile(r"(?:arg:|aux:)?(.+)_(weight|bias)")


def of_convention(name: str) -> Naming | None:
    """The naming of the framework that a convention is called after, as "keras3" or "onnx-9"."""
    return _FRAMEWORKS.get(name.partition("-")[0].rstrip("0123456789"))


def role(leaf: str) -> str:
    """What PyTorch calls a tensor of a layer that some framework calls `leaf`."""
    if leaf in WEIGHTS or leaf in BIASES:
        return "weight" if leaf in WEIGHTS else "bias"
    if any(leaf == naming.mean for naming in OTHERS):
        return "running_mean"
    return "running_var" if any(leaf == naming.var for naming in OTHERS) else leaf


def split(name: str, *, trees: bool = False) -> tuple[str, str]:
    """A tensor's name as its layer's name and its own, the latter "" where no layer has such.

    `trees` says that the file keeps statistics and parameters in trees of their own, as Flax
    does under "batch_stats" and "params": these are then left out of the layer's name.
    """
    name = name.removesuffix(":0")  # TensorFlow numbers the outputs of an operation
    at = max(name.rfind("."), name.rfind("/"))
    layer, leaf = (name[:at], name[at + 1 :]) if at >= 0 else ("", name)
    if leaf not in KNOWN:
        joined = _JOINED.fullmatch(leaf)
        if joined is None:
            return layer, ""
        layer, leaf = name[: at + 1] + joined[1], joined[2]
    return _outside_trees(layer) if trees else layer, leaf


def split_any(name: str, *, trees: bool = False) -> tuple[str, str]:
    """As `split`, for the tensors of all layers; the second is the tensor's own name, whatever."""
    layer, leaf = split(name, trees=trees)
    if leaf:
        return layer, leaf
    name = name.removesuffix(":0")
    at = max(name.rfind("."), name.rfind("/")) + 1
    joined = _JOINED_WEIGHT.fullmatch(name, at)
    layer, leaf = (
        (name[:at] + joined[1], joined[2]) if joined else (name[: max(at - 1, 0)], name[at:])
    )
    return _outside_trees(layer) if trees else layer, leaf


def _outside_trees(layer: str) -> str:
    """A layer's name without the tree in which Flax keeps a tensor."""
    layer = re.sub(r"(^|[./])(?:batch_stats|params)(?:[./]|$)", r"\1", layer, count=1)
    return layer.rstrip("./")


def has_trees(name: str) -> bool:
    """Whether a tensor's name puts it into a tree of statistics, as Flax does."""
    return "batch_stats" in name and re.search(r"(^|[./])batch_stats[./]", name) is not None


def in_torch(leaves: frozenset[str]) -> tuple[Naming, dict[str, str]]:
    """The naming of a layer with these tensors, and its own name for each of PyTorch's.

    Where there are no statistics under any naming, the tensors are named as PyTorch's.
    """
    for naming in OTHERS:
        if {naming.mean, naming.var} <= leaves and not {"running_mean", "running_var"} & leaves:
            break
    else:
        naming = GLUON if "gamma" in leaves and "weight" not in leaves else TORCH
    names = {"running_mean": naming.mean, "running_var": naming.var}
    if naming is not TORCH:
        names["weight"] = next((name for name in WEIGHTS if name in leaves), "weight")
        names["bias"] = next((name for name in BIASES if name in leaves), "bias")
    return naming, {leaf: name for leaf in LEAVES if (name := names.get(leaf, leaf)) in leaves}
