"""PaddlePaddle's .pdparams: a pickle of NumPy arrays by name, read as any pickle is here.

What paddle.save writes has a table of the parameters' own names beside the arrays, or keeps each
with its own name; what older versions wrote has arrays alone, under names that only Paddle gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from bncli.errors import CorruptFileError, FileError
from bncli.light import np
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.pickle_records import Dict, Pickle, Record
from bncli.loaders.probes import is_pickle
from bncli.loaders.torch_tree import collect
from bncli.loaders.torch_values import Storage, as_view, class_of
from bncli.model import BatchNormModule, StoredLayer, TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_NAMES = "StructuredToParameterName@@"
"""The key of the table with the own name of each parameter."""
BIG = "UnpackBigParamInfor@@"
"""The key of the table of arrays that lie in parts, each with its shape and their names."""
MOST_NESTED = 4
"""How deeply dictionaries of parameters lie in each other in files that paddle.save wrote."""
PROBED = 8
"""How many items of a dictionary tell what it is."""

_STATISTICS = re.compile(r"(?:.*\.)?_(?:mean|variance)|(?:.*[./])?(?:sync_)?batch_norm\w*\.w_[12]")
_STATIC = re.compile(r"(?P<layer>(?:.*[./])?(?:sync_)?batch_norm\w*)\.w_1")
"""What the running mean of a layer is called by Paddle itself: the second of its weights."""
_MOMENTS = re.compile(r".*_(?:moment[12]?|velocity|beta[12]_pow_acc|mean_square|mean_grad)_\d+")
"""What an optimiser's tensors are called, behind the names of the parameters."""


def detect(source: Source) -> bool:
    """Whether it is a pickle of parameters as Paddle pickles them."""
    if not is_pickle(source.head):
        return False
    try:
        return _is_paddle(source.pickle)
    except FileError:
        return False


def open_tensors(source: Source) -> TensorFile:
    """The arrays by name, those that lie in parts as one."""
    pickle = source.pickle
    value = _plain(pickle.value, MOST_NESTED, {})
    plain = Pickle(value, (), pickle.start, pickle.end, pickle.data)
    contents = collect(source.path, plain, partial(_no_storage, source))
    tensors = dict(contents.tensors)
    big = _item(pickle.value, BIG)
    for name, parts in _pairs(big):
        if isinstance(name, str):
            tensors[name] = _joined(source, name, parts, tensors)
    layers, modules = _layers(tensors)
    without = ""
    if tensors and all(map(_MOMENTS.fullmatch, tensors)):
        without = "it holds an optimiser's state, and the model's weights lie in a .pdparams file"
    return TensorFile(
        source.path, "paddle", tensors, modules, contents.skipped, layers, without_layers=without
    )


def _is_paddle(pickle: Pickle) -> bool:
    """Whether the pickle is a dictionary that only Paddle writes, perhaps of several models."""
    roots = [pickle.value, *(value for _, value in _pairs(pickle.value)[:PROBED])]
    return any(map(_is_state, roots))


def _is_state(root: object) -> bool:
    """Whether these are parameters by name: it says so, keeps each with its own, or has _mean."""
    if isinstance(_item(root, OWN_NAMES), Dict):
        return True
    pairs = _pairs(root)
    if pairs and all(_named(value) is not None for _, value in pairs[:PROBED]):
        return True
    names = [name for name, _ in pairs if isinstance(name, str)]
    return any(map(_STATISTICS.fullmatch, names)) and all(_is_array(value) for _, value in pairs)


def _pairs(node: object) -> Sequence[tuple[object, object]]:
    """The items of a dictionary, ordered or not; none of anything else."""
    if isinstance(node, Dict):
        return node.pairs
    cls = class_of(node) if isinstance(node, Record) else None
    ordered = cls is not None and cls.name == "OrderedDict"
    return node.pairs if isinstance(node, Record) and ordered else ()


def _item(root: object, key: str) -> object:
    """An item of a dictionary, the last of that key."""
    return next((value for name, value in reversed(_pairs(root)) if name == key), None)


def _is_array(node: object) -> bool:
    try:
        return as_view(node) is not None
    except (ValueError, TypeError, IndexError):
        return True  # a damaged one


def _named(node: object) -> Record | None:
    """The array of a parameter that is kept as tuple((its own name, its array)).

    Tensors are kept as eval("data", {"data": array}) inside other objects.
    """
    cls = class_of(node) if isinstance(node, Record) else None
    if not isinstance(node, Record) or cls is None:
        return None
    array: object = None
    match cls.module, cls.name, node.args:
        case "builtins" | "__builtin__", "tuple", ((str(), Record() as array),):
            pass
        case "builtins" | "__builtin__", "eval", ("data", Dict() as table):
            array = _item(table, "data")
    return array if isinstance(array, Record) and _is_array(array) else None


def _plain(node: object, depth: int, made: dict[int, object]) -> object:
    """The same objects with the arrays of parameters in their places; each is made once."""
    if (array := _named(node)) is not None:
        return array
    if not (pairs := _pairs(node)) or depth == 0:
        return node
    if id(node) not in made:
        plain = made[id(node)] = Dict()
        plain.pairs += [
            (key, _plain(value, depth - 1, made))
            for key, value in pairs
            if key not in (OWN_NAMES, BIG)
        ]
    return made[id(node)]


def _no_storage(source: Source, storage: Storage) -> NoReturn:
    raise CorruptFileError(
        source.path,
        f"it refers to the storage {quoted(storage.key)}, which files of Paddle do not have; save"
        " it again.",
    )


def _joined(source: Source, name: str, entry: object, tensors: dict[str, TensorRef]) -> TensorRef:
    """The array that lies in parts, which are taken out of the tensors."""
    shape, names = _item(entry, "OriginShape"), _item(entry, "slices")
    shape = shape if isinstance(shape, tuple | list) else (-1,)
    sizes = tuple(size for size in shape if isinstance(size, int) and 0 <= size < 1 << 62)
    names = names if isinstance(names, list) else [None]
    numel = 1
    for size in sizes[:MOST_AXES]:
        numel *= size
    parts = [tensors.pop(part) for part in names if isinstance(part, str) and part in tensors]
    dtypes = {part.dtype for part in parts}
    if (
        (len(parts), len(sizes[:MOST_AXES])) != (len(names), len(shape))
        or len(dtypes) != 1
        or sum(part.numel for part in parts) != numel
        or any(part.storage is None for part in parts)
    ):
        raise CorruptFileError(
            source.path,
            f"its array {quoted(name)} lies in parts that do not fit together; it is damaged, so"
            " download or save it again.",
        )
    values = partial(_concatenated, parts)
    return TensorRef(name, source.path, sizes, dtypes.pop(), contiguous(sizes), values)


def _concatenated(parts: list[TensorRef]) -> NDArray[Any]:
    flat = [part.stored().reshape(-1) for part in parts]
    return np.concatenate(flat, dtype=flat[0].dtype)


def _layers(
    tensors: Mapping[str, TensorRef],
) -> tuple[dict[str, StoredLayer], dict[str, BatchNormModule]]:
    """The layers under the names that Paddle gives by itself; the convention of all layers."""
    layers, modules = {}, {}
    module = BatchNormModule("BatchNorm", has_momentum=False, convention="paddle")
    for name in tensors:
        static = _STATIC.fullmatch(name)
        if static is not None:
            layer = static["layer"]
            own = {"running_mean": "w_1", "running_var": "w_2", "weight": "w_0", "bias": "b_0"}
            full = {leaf: f"{layer}.{end}" for leaf, end in own.items()}
            full = {leaf: other for leaf, other in full.items() if other in tensors}
            if "running_var" in full:
                layers[layer] = StoredLayer(full)
                modules[layer] = module
        layer, _, leaf = name.rpartition(".")
        beside = f"{layer}._variance" if layer else "_variance"
        if leaf == "_mean" and beside in tensors:
            modules[layer] = module
    return layers, modules
