"""A file becomes its tensors: found by content, read lazily, nothing in the file ever run.

`bncli.loaders.registry` lists the formats; the first that knows the content opens the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import MissingTensorError, UnsupportedFileError
from bncli.given import is_given
from bncli.loaders.interface import STANDARD_INPUT, check_regular, is_statistics_file, open_source
from bncli.loaders.names import find_name, quoted
from bncli.loaders.registry import READ, TYPED, loader_of, loader_of_folder, whole_of
from bncli.model import BatchNormState, TensorFile, TensorRef
from bncli.paths import as_path, is_remote, without_scheme
from bncli.urls import cut_spec

if TYPE_CHECKING:
    from bncli.loaders.whole import Models


def open_file(path: Path | str) -> TensorFile:
    """The tensors of a file by full name, none of them read yet; "-" is standard input.

    The name of an object of Python opens that object.
    A folder is the one model that lies in it. Numbers in text are read at once: their shape is
    known at their end. Raises FileError: missing, of a kind that is not read, cut short,
    inconsistent or hostile.
    """
    path = as_path(path)
    if is_given(path):
        from bncli.loaders.objects import open_object

        return open_object(path)
    if path == STANDARD_INPUT:
        from bncli.loaders.standard_input import open_standard_input

        return open_standard_input()
    given, path = path, whole_of(path)
    check_regular(path)
    if path.is_dir():
        return open_model(given)
    if path.suffix == ".distcp":
        from bncli.loaders import refused

        refused.refuse_part(path)
    with open_source(path) as source:
        loader = loader_of(source)
        assert loader is not None  # the last of them knows every file
        return loader.open_tensors(source)


def open_model(path: Path, models: Models | None = None) -> TensorFile:
    """The tensors of the model that a file or a folder is, holds or is a part of.

    So a shard opens its index, or the shards beside it that carry its name and another number.
    `models` knows what lies beside files that were opened before.
    Raises FileError as `open_file`, for numbers in text, and where shards are missing, which it
    names.
    """
    if path == STANDARD_INPUT or is_given(path):
        return _with_layers(open_file(path))
    given, path = path, whole_of(path)
    check_regular(path)
    if path.is_dir() and (loader := loader_of_folder(path)) is not None:
        from bncli.loaders.whole import models_with

        if path == given and (several := models_with(path)):
            from bncli.loaders import refused

            refused.refuse_several(path, several)
        return loader.open_folder(path)
    from bncli.loaders.whole import Models, open_shards

    models = Models() if models is None else models
    whole = models.path_of(path)
    if whole.is_dir():
        from bncli.loaders import refused

        refused.refuse_directory(whole)
    shards = models.shards_of(whole)
    return _with_layers(open_file(whole)) if shards is None else open_shards(shards)


def _with_layers(file: TensorFile) -> TensorFile:
    """The same; raises UnsupportedFileError for numbers in text, which have no names."""
    if file.container in TYPED:
        raise UnsupportedFileError(
            file.path,
            f"it is an array of numbers in text, not a checkpoint; bncli reads {READ}.",
        )
    return file


def open_tensor(spec: str) -> TensorRef:
    """One tensor, as `PATH` or `PATH::NAME`; NAME may be any unique suffix of its name.

    Of a BatchNorm layer, it may be the layer's name and that of the tensor in it, too.
    Without NAME the file must hold just one tensor. Raises FileError; its MissingTensorError
    lists the names there are, or the near ones.
    """
    path, name = split_spec(spec)
    file = open_file(path)
    try:
        return file.tensors[find_name(path, file.tensors, name, "tensor")]
    except MissingTensorError as error:
        ref = _of_layer(file, name)
        if ref is not None:
            return ref
        _refuse_layers(file, name, error)
        raise


def _of_layer(file: TensorFile, name: str) -> TensorRef | None:
    """A layer's tensor by the layer's name and its own, where the file calls it otherwise."""
    from bncli.state_dict import batch_norm_layers
    from bncli.state_dict.names import role, split

    layer, leaf = split(name)
    for each in batch_norm_layers(file) if leaf else ():
        if each.name == layer:
            return each.tensors.get(role(leaf))
    return None


def _refuse_layers(file: TensorFile, name: str, error: MissingTensorError) -> None:
    """Raise MissingTensorError for a BatchNorm layer in a tensor's place, or a file of layers."""
    from bncli.state_dict import batch_norm_layers

    layers = [layer.name for layer in batch_norm_layers(file)]
    if not name and layers:
        how = f"bncli inspect-checkpoint {quoted(str(file.path))}"
        raise MissingTensorError(
            file.path,
            f"{error.problem.removesuffix('.')}, or check its BatchNorm layers with "
            f"{'inspect_checkpoint' if is_given(file.path) else how}.",
        )
    if name in layers or _ends(layers, name):
        spec = f"{quoted(str(file.path))}::{quoted(name)}"
        raise MissingTensorError(
            file.path,
            f"'{quoted(name)}' is a BatchNorm layer, not a tensor: give it as --state {spec}, or "
            f"look at it with bncli inspect-checkpoint {spec}.",
        )


def split_spec(spec: str) -> tuple[Path, str]:
    """`PATH::NAME` as its path and name, the name "" where there is none.

    A path that itself contains "::" is taken as it is where such a file exists. In a URL the first
    "::" ends the path.
    """
    if is_given(spec):
        given, _, name = spec.partition("::")
        return Path(given), name
    if is_remote(spec):
        url, name = cut_spec(spec)
        return as_path(url), name
    spec = without_scheme(spec)
    if os.path.exists(spec):  # noqa: PTH110 (unlike Path.exists, false for an impossible path)
        return Path(spec), ""
    cuts = [at for at in range(len(spec)) if spec.startswith("::", at)]
    for at in reversed(cuts):
        if os.path.exists(spec[:at]):  # noqa: PTH110 (as above)
            return Path(spec[:at]), spec[at + 2 :]
    if cuts:
        return Path(spec[: cuts[0]]), spec[cuts[0] + 2 :]
    return Path(spec), ""


def open_layer(spec: str) -> BatchNormState:
    """One BatchNorm layer, read, as `CKPT::LAYER`; LAYER may be any unique suffix of its name.

    Without LAYER the file must hold just one. A statistics file gives the state that the layer had
    when it was captured. A layer that lacks its statistics, or its weight
    and bias, is found by its full name (or a suffix that only it has); the caller judges what is
    missing. Raises FileError, and TensorError where its tensors cannot be read as a layer's.
    """
    from bncli.state_dict import announce, batch_norm_layers, possible_layers, read_state

    path, name = split_spec(spec)
    if is_statistics_file(path):
        from bncli.loaders.statistics import layer_state, open_statistics

        return layer_state(path, open_statistics(path), name)
    file = open_file(path)
    layers = {layer.name: layer for layer in batch_norm_layers(file)}
    if not layers and file.without_layers:
        raise MissingTensorError(path, f"there is no BatchNorm layer in it: {file.without_layers}.")
    known = name in layers or _ends(layers, name) or (not name and layers)
    if not known:
        # No BatchNorm by its looks, but the user may still mean it.
        others = possible_layers(file)
        if name in others or _ends(others, name):
            return read_state(others[find_name(path, others, name, "layer")])
    layer = layers[find_name(path, layers, name, "BatchNorm layer")]
    announce([layer])
    return read_state(layer)


def _ends(names: Iterable[str], wanted: str) -> bool:
    """Whether `wanted`, which is not empty, is a suffix of a name."""
    return bool(wanted) and any(name.endswith((f".{wanted}", f"/{wanted}")) for name in names)
