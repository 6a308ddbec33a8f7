"""The BatchNorm layers of a Keras model: their tensors, their arguments, what stands in front."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bncli.light import dataclass
from bncli.loaders.hdf5.datasets import Objects
from bncli.loaders.keras.configs import Node
from bncli.loaders.keras.layouts import (
    STATISTICS,
    Part,
    is_by_name,
    parts_by_name,
    parts_by_number,
    says_batch_norm,
)
from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorRef
from bncli.running_stats.frameworks import convention

TORCH_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
KERNELS = ("pointwise_kernel", "kernel", "depthwise_kernel")
"""Names of weights; of several that a layer has, the first makes its output."""
_TRANSPOSED = re.compile(r"transpose|deconv", re.IGNORECASE)
UNCLEAR = "{} is gamma or beta, and only the model's config, as in a .keras file, tells which"
UNCLEAR_IN_CONFIG = "{} is gamma or beta, and the config does not tell which"


@dataclass(slots=True)
class Layers:
    """What a Keras file tells of its layers, as `TensorFile` has it."""

    layers: dict[str, StoredLayer]
    modules: dict[str, BatchNormModule]
    skipped: dict[str, str]


def read_layers(found: Objects, root: Node | None, version: str) -> Layers:
    """The BatchNorm layers among the datasets of a file, with the config where there is one.

    `version` is that of the Keras that wrote it, "" where it is not known.
    """
    _keep_links(found)
    by_name = is_by_name(found)
    parts = parts_by_name(found, root) if by_name else parts_by_number(found, root)
    told = Layers({}, {}, {})
    by_part_name = {part.name: part for part in parts}
    for part in parts:
        roles = _named(part) if by_name else _numbered(part, found.tensors)
        if roles is None:
            continue
        if not by_name and part.node is None and len(part.variables) == 3:
            roles |= _unclear(part, found, UNCLEAR if root is None else UNCLEAR_IN_CONFIG)
        place = roles["running_mean"].rpartition("/")[0]
        name = part.name if part.name not in told.layers else place
        before = _before(part, by_part_name)
        width = found.tensors[roles["running_mean"]].numel
        front = None if before is None else _front(before, found.tensors, width, named=by_name)
        told.layers[name] = StoredLayer(roles, front)
        told.modules[name] = _module(part, version, before)
    return told


def _keep_links(found: Objects) -> None:
    """Make a layer's variable that is a link which leads nowhere a tensor without values."""
    like: dict[str, dict[tuple[int, ...], TensorRef]] = {}
    links = {name for name in found.links if name in found.skipped}
    groups = {name.rpartition("/")[0] for name in links}
    for name, tensor in found.tensors.items():
        if (group := name.rpartition("/")[0]) in groups:
            like.setdefault(group, {})[tensor.shape] = tensor
    for name in links:
        group, _, leaf = name.rpartition("/")
        same = list(like.get(group, {}).values())
        is_variable = leaf.removesuffix(":0") in TORCH_NAMES or group.endswith("vars")
        if len(same) == 1 and same[0].ndim == 1 and is_variable:
            why = found.skipped.pop(name)
            found.tensors[name] = replace(same[0], name=name, storage=None, unreadable=why)


def _named(part: Part) -> dict[str, str] | None:
    """Which tensors are which of a BatchNorm's, by their names; None where it is none."""
    if not part.variables.keys() >= STATISTICS:
        return None
    return {TORCH_NAMES[leaf]: full for leaf, full in part.variables.items() if leaf in TORCH_NAMES}


def _numbered(part: Part, tensors: Mapping[str, TensorRef]) -> dict[str, str] | None:
    """The same, by their order: gamma, beta, moving_mean and moving_variance.

    The config tells which of the first two are there. Without it, neither is known where there is
    one of them.
    """
    full = list(part.variables.values())
    if part.node is not None:
        flags = {"weight": "scale", "bias": "center"}
        leaves = [leaf for leaf, flag in flags.items() if part.node.config.get(flag, True)]
        leaves += ["running_mean", "running_var"]
        is_whole = part.node.is_batch_norm and len(full) >= len(leaves)
        return dict(zip(leaves, full, strict=False)) if is_whole else None
    shapes = {tensors[name].shape for name in full}
    if not says_batch_norm(part) or len(shapes) != 1 or len(next(iter(shapes))) != 1:
        return None
    leaves = list(TORCH_NAMES.values()) if len(full) == 4 else ["running_mean", "running_var"]
    return dict(zip(leaves, full[-len(leaves) :], strict=True)) if 2 <= len(full) <= 4 else None


def _unclear(part: Part, found: Objects, why: str) -> dict[str, str]:
    """A weight and a bias without values, of which one has those of the layer's first variable."""
    number, full = next(iter(part.variables.items()))
    first = found.tensors[full]
    roles = {}
    for leaf in ("gamma", "beta"):
        name = f"{part.group}/{leaf}".lstrip("/")
        if name in found.tensors:
            continue
        found.tensors[name] = replace(
            first, name=name, storage=None, unreadable=why.format(f"vars/{number}")
        )
        roles[TORCH_NAMES[leaf]] = name
    return roles


def _before(part: Part, by_name: Mapping[str, Part]) -> Part | None:
    """The layer whose output a layer takes: by the config, else by the order of the file."""
    if part.node is None:
        return by_name.get(part.behind)
    above = part.node.names[:-1]
    return by_name.get("/".join((*above, part.node.before))) if part.node.before else None


def _front(
    part: Part, tensors: Mapping[str, TensorRef], width: int, *, named: bool
) -> StoredFront | None:
    """A convolution or linear layer with its weight, if it has as many outputs as the layer.

    Nothing but its names tells of its kind where there is no config.
    """
    variables = part.variables
    kind = part.name if part.node is None else part.node.class_name
    if part.node is not None:
        if part.node.config.get("activation", "linear") not in ("linear", None):
            return None
        if not kind.startswith(("Conv", "Dense", "Depthwise", "Separable")):
            return None
    if not named:
        separable = kind.startswith("Separable")
        order = SEPARABLE if separable else ("kernel", "bias")
        variables = dict(zip(order, variables.values(), strict=False))
    leaf = next((each for each in KERNELS if each in variables), "")
    if not leaf:
        return None
    weight = tensors[variables[leaf]]
    depthwise = leaf == "depthwise_kernel" or kind.startswith("Depthwise")
    axis = weight.ndim - (2 if depthwise or _TRANSPOSED.search(kind) else 1)
    if weight.ndim < 2 or weight.shape[axis] != width or (depthwise and weight.shape[-1] != 1):
        return None
    bias = variables.get("bias")
    if bias is not None and tensors[bias].shape != (width,):
        return None
    return StoredFront(part.name, variables[leaf], bias, axis)


def _module(part: Part, version: str, before: Part | None) -> BatchNormModule:
    """What is known of a BatchNorm layer, by its config where there is one."""
    config = {} if part.node is None else part.node.config
    class_name = "BatchNormalization" if part.node is None else part.node.class_name
    axis = _axis(config)
    kind = convention(_convention(class_name, config, version, before))
    momentum = _number(config.get("momentum"))
    flags = [config.get(key) for key in ("scale", "center")]
    return BatchNormModule(
        class_name if "BatchNorm" in class_name else "BatchNormalization",
        eps=_number(config.get("epsilon")),
        momentum=None if momentum is None else kind.new_weight(momentum),
        affine=any(flags) if all(isinstance(flag, bool) for flag in flags) else None,
        training=False if config.get("trainable") is False else None,
        has_momentum=momentum is not None,
        convention=kind.name,
        stated_momentum=momentum,
        channel_axis=axis,
    )


def _axis(config: Mapping[str, Any]) -> int | None:
    """The axis of the channels, which Keras 2 keeps in a list once the layer is built."""
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    return axis if isinstance(axis, int) and not isinstance(axis, bool) else None


def _number(value: object) -> float | None:
    """A finite number, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number - number == 0 else None


def _convention(
    class_name: str, config: Mapping[str, Any], version: str, before: Part | None
) -> str:
    """How the Keras of this version updates the running statistics of such a layer.

    tf.keras' fused kernel, for images, takes the unbiased variance. Whether a layer uses it shows
    in the axis, which counts from the first one once the layer is built, or in what is before it.
    """
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", version)
    numbers = tuple(int(part or 0) for part in match.groups()) if match else (3, 0, 0)
    if numbers >= (3, 0, 0):
        return "keras3"
    if numbers < (2, 4, 0) and "tf" not in version:
        return "keras2" if numbers >= (2, 1, 3) else "tf-unfused"
    fused = config.get("fused")
    if config.get("renorm") is True or "Sync" in class_name:
        return "tf-unfused"
    front = before.node.class_name if before is not None and before.node is not None else ""
    images = _axis(config) in (3, 4) or "2D" in front or "3D" in front
    return "tf-fused" if fused is True or (images and fused is not False) else "tf-unfused"
