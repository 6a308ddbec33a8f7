"""Which arrays in the trees of JAX's libraries are a BatchNorm layer's: Flax's and Haiku's.

Their statistics and parameters lie in trees of their own. Haiku keeps of each statistic the
average, which evaluation uses, what that is computed from ("hidden"), and a counter. The counter is
not given as the layer's: the average is free of its initial value however few batches there were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from bncli.light import dataclass
from bncli.model import BatchNormModule, StoredLayer, TensorRef

HAIKU = re.compile(r"(?P<layer>.*?)[./](?:~[./])?mean_ema[./]average")
FLAX = re.compile(r"(?P<layer>(?:.*[./])?batch_stats(?:[./].*)?)[./]mean")
"""What the mean of a layer is called."""
WEIGHTS, BIASES = ("scale", "weight"), ("offset", "bias")
"""What the parameters of a layer are called, Haiku's, Flax's and Equinox's."""
TREES = frozenset(("batch_stats", "params", "state", "states", "stats", "variables", "target"))
"""Names of trees, which are no part of a layer's name."""
MOMENTS = frozenset(("opt_state", "optimizer", "mu", "nu", "trace", "ema", "ema_params"))
"""Names of trees with copies of the parameters that are not the model's own."""

MOST = 1024
"""As many layers of a file, all together, are taken out of stacks."""
_KEYSTR = re.compile(r"\['([^'\]]*)'\]|\[(\d+)\]|\.(\w+)")


def plain_name(name: str) -> str:
    """A name as jax.tree_util.keystr spells it, such as ['params']['Conv_0'], joined by "/".

    The attribute in which a variable of Flax's nnx keeps its array is left out. Any other name
    stays as it is.
    """
    if "['" not in name:
        return name
    keys = list(_KEYSTR.finditer(name))
    if sum(len(key[0]) for key in keys) != len(name):
        return name
    if len(keys) > 1 and keys[-1][3] == "value":
        del keys[-1]
    return "/".join(key[1] or key[2] or key[3] or "" for key in keys)


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """`plain_name` of each; all stay as they are where two would become one."""
    names = list(names)
    plain = {name: plain_name(name) for name in names}
    return plain if len(set(plain.values())) == len(plain) else dict(zip(names, names, strict=True))


@dataclass(frozen=True, slots=True)
class _Statistics:
    """The statistics of a layer by their full names, `layer` the path to them as keys."""

    layer: tuple[str, ...]
    mean: str
    var: str
    convention: str


def layers_of(
    tensors: Mapping[str, TensorRef],
) -> tuple[dict[str, StoredLayer], dict[str, BatchNormModule]]:
    """Each layer that has statistics in such trees, and its convention, by the layer's name.

    That is the path to it without the names of trees. Weight and bias are those of the parameters
    with the same path; where several trees have it and none is called like the model's, none.
    """
    found = list(_statistics(tensors))
    if not found:
        return {}, {}
    homes: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, str]]] = {}
    for name in tensors:
        *path, leaf = _keys(name)
        kind = "weight" if leaf in WEIGHTS else "bias" if leaf in BIASES else ""
        if kind and not MOMENTS.intersection(path):
            own = tuple(key for key in path if key not in TREES)
            homes.setdefault(own, {}).setdefault(tuple(path), {})[kind] = name
    layers: dict[str, StoredLayer] = {}
    modules: dict[str, BatchNormModule] = {}
    for each in found:
        own = tuple(key for key in each.layer if key not in TREES)
        name = "/".join(own)
        if name in layers:
            name = "/".join(each.layer)
        near = homes.get(own, {})
        parameters = next(iter(near.values())) if len(near) == 1 else {}
        layers[name] = StoredLayer(
            parameters | {"running_mean": each.mean, "running_var": each.var}
        )
        modules[name] = BatchNormModule("BatchNorm", has_momentum=False, convention=each.convention)
    return layers, modules


def unstacked(
    tensors: Mapping[str, TensorRef],
) -> tuple[dict[str, TensorRef], dict[str, StoredLayer], dict[str, BatchNormModule]]:
    """The tensors with `layers_of` them; what stands for several layers of Flax is taken apart.

    nn.scan and nn.vmap, and a state that is replicated over devices, stack the layers' arrays on
    axes before that of the channels: the first of them is bn[0], of bn.
    """
    all_tensors = dict(tensors)
    layers: dict[str, StoredLayer] = {}
    modules: dict[str, BatchNormModule] = {}
    found, told = layers_of(tensors)
    left = MOST
    for name, stored in found.items():
        refs = {leaf: all_tensors[full] for leaf, full in stored.tensors.items()}
        shapes = {ref.shape for ref in refs.values()}
        above = next(iter(shapes))[:-1]
        one = not above or told[name].convention != "flax" or len(shapes) > 1
        if one or not 0 < _product(above) <= left:
            layers[name], modules[name] = stored, told[name]
            continue
        left -= _product(above)
        for place in product(*map(range, above)):
            at = f"[{', '.join(map(str, place))}]"
            own = {}
            for leaf, ref in refs.items():
                part = ref.part(tuple(slice(i, i + 1) for i in place))
                own[leaf] = f"{ref.name}{at}"
                all_tensors[own[leaf]] = replace(
                    part, name=own[leaf], shape=part.shape[-1:], strides=part.strides[-1:]
                )
            layers[f"{name}{at}"], modules[f"{name}{at}"] = StoredLayer(own), told[name]
        for ref in refs.values():
            all_tensors.pop(ref.name, None)
    return all_tensors, layers, modules


def _product(sizes: Iterable[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def _keys(name: str) -> list[str]:
    return re.split(r"[./]", name)


def _statistics(tensors: Mapping[str, TensorRef]) -> Iterator[_Statistics]:
    """Every pair of a mean and a variance under names that only these libraries use."""
    for mean in tensors:
        if not mean.endswith(("/mean", ".mean", "/average", ".average")):
            continue
        if (fits := HAIKU.fullmatch(mean)) is not None:
            var, convention = mean.replace("mean_ema", "var_ema"), "haiku"
        elif (fits := FLAX.fullmatch(mean)) is not None:
            var, convention = f"{mean.removesuffix('mean')}var", "flax"
        else:
            continue
        if var in tensors and tensors[mean].shape == tensors[var].shape:
            yield _Statistics(tuple(_keys(fits["layer"])), mean, var, convention)
