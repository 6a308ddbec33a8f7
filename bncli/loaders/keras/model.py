"""An HDF5 file becomes its tensors, and its BatchNorm layers where Keras wrote it."""

from __future__ import annotations

from collections import Counter

from bncli.light import dataclass
from bncli.loaders.hdf5.datasets import Objects, read_objects
from bncli.loaders.hdf5.region import Region, opened, without_user_block
from bncli.loaders.interface import lean_json
from bncli.loaders.keras.configs import MOST_MARKS, Node, parse_config
from bncli.loaders.keras.layers import read_layers
from bncli.loaders.keras.layouts import is_by_name, is_numbered
from bncli.loaders.names import quoted
from bncli.model import TensorFile

ATTRIBUTES = frozenset(("layer_names", "model_config", "keras_version", "name"))
"""What is read of the attributes of groups."""
NO_CONFIG = "it is damaged or is not the config of a Keras model, so nothing in it is used"
NOT_THERE = "it is missing, too large or compressed in a way that is not read"


@dataclass(frozen=True, slots=True)
class Config:
    """The JSON texts that a `.keras` archive has beside the variables; empty where it has none."""

    config: bytes
    metadata: bytes


def open_region(region: Region, archive: Config | None = None) -> TensorFile:
    """The tensors of an HDF5 file, which is in a `.keras` archive if that is given.

    Raises UnsupportedFileError without h5py, CorruptFileError for a damaged file.
    """
    region = without_user_block(region)
    with opened(region) as file:
        found = read_objects(region, file, ATTRIBUTES)
    by_name = is_by_name(found)
    if archive is None and not by_name and not is_numbered(found):
        return TensorFile(region.path, "hdf5", found.tensors, skipped=found.skipped)
    container = "keras-h5" if archive is None else "keras"
    config = archive.config if archive is not None else _said(found, "model_config")
    version = _version(archive) if archive is not None else _said(found, "keras_version")
    root = parse_config(config) if config else None
    told = read_layers(found, root, version)
    if root is None and (config or archive is not None):
        name = "model_config" if archive is None else "config.json"
        found.skipped[name] = NO_CONFIG if config else NOT_THERE
    return TensorFile(
        region.path,
        container,
        found.tensors,
        told.modules,
        found.skipped | told.skipped,
        told.layers,
        "" if root is None or told.layers else _without_layers(root),
    )


def _without_layers(root: Node) -> str:
    """Why a model of this config has no layer; "" where it should have one."""
    nodes = list(root.all())
    if any(node.is_batch_norm for node in nodes):
        return ""
    others = Counter(n.class_name for n in nodes if n.class_name.endswith("Normalization"))
    have = ", ".join(f"{count} {quoted(name)}" for name, count in others.most_common(3))
    return "its config has no BatchNormalization layer" + (f" (it has {have})" if have else "")


def _said(found: Objects, name: str) -> str:
    """An attribute of the file, or of its group of weights; "" where there is none."""
    for group in ("", "model_weights"):
        text = found.texts.get((group, name))
        if isinstance(text, str):
            return text
    return ""


def _version(archive: Config) -> str:
    """The version in a `.keras` archive's metadata; "" where it is not there."""
    try:
        said = lean_json(archive.metadata, MOST_MARKS)
    except ValueError:
        return ""
    version = said.get("keras_version") if isinstance(said, dict) else None
    return version if isinstance(version, str) else ""
