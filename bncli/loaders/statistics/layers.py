"""One layer of a capture, by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import MissingTensorError
from bncli.loaders.names import find_name, quoted
from bncli.paths import as_path

if TYPE_CHECKING:
    from bncli.model import BatchNormState
    from bncli.model.capture import Capture, WatchedLayer


def layer_names(capture: Capture) -> dict[str, WatchedLayer]:
    """The layers by name; a BatchNorm layer called as the model's input is stands for both."""
    return {layer.name: layer for layer in capture.layers}


def find_layer(path: Path | str, capture: Capture, name: str) -> WatchedLayer:
    """The layer of this name, or of a name that ends in it; the only one where `name` is "".

    Raises MissingTensorError, which lists the names there are, or the near ones.
    """
    layers = layer_names(capture)
    if not name and len(capture.norms) == 1:
        return capture.norms[0]
    return layers[find_name(as_path(path), layers, name, "layer")]


def layer_state(path: Path | str, capture: Capture, name: str) -> BatchNormState:
    """A layer's own state, under the layer's name.

    Raises MissingTensorError as `find_layer`, and for a layer without one.
    """
    layer = find_layer(path, capture, name)
    if layer.state is None:
        raise MissingTensorError(
            as_path(path),
            f"'{quoted(layer.name)}' has statistics in it, but no weight, bias or running "
            "statistics; name a layer of a checkpoint.",
        )
    return replace(layer.state, name=layer.name)
