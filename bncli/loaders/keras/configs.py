"""Keras' config of a model: its layers by name, nested ones too, and what stands before each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from bncli.light import dataclass
from bncli.loaders.interface import lean_json

MOST_NODES = 100_000
MOST_DEPTH = 32
NO_LAYERS = ("dtype", "optimizer", "loss", "metrics")
"""What a config has that is named and is no layer."""
INITIALIZERS = {"moving_mean_initializer", "moving_variance_initializer"}
"""What the config of a BatchNormalization has, and so of any class that is made from it."""
MOST_MARKS = 1 << 20
"""How many marks a config may have (`lean_json`); a layer has some 60."""


@dataclass(slots=True)
class Node:
    """A layer of a config. `names` are those of the models that it is in, the root's left out.

    `place` is where Keras 3 keeps its variables, and `before` the layer of the same model whose
    output it takes, where that is one.
    """

    names: tuple[str, ...]
    class_name: str
    config: dict[str, Any]
    place: str
    before: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The layer's name with those of the models that it is in."""
        return "/".join(self.names)

    @property
    def is_batch_norm(self) -> bool:
        """Whether its class is BatchNormalization, or has its name or its arguments."""
        return "BatchNorm" in self.class_name or self.config.keys() >= INITIALIZERS

    def all(self) -> Iterator[Node]:
        """It and all that is in it."""
        yield self
        for child in self.children:
            yield from child.all()


def parse_config(text: str | bytes) -> Node | None:
    """The model that a config describes; None where the text is no config that can be read."""
    try:
        value = lean_json(text.encode() if isinstance(text, str) else text, MOST_MARKS)
        return _Parser().node(value, (), "", 0) if _is_layer(value) else None
    except ValueError:
        return None


def _is_layer(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_name"), str)
        and isinstance(value.get("config"), dict | list)
    )


class _Parser:
    """Makes nodes of a config, so many of them and no more."""

    def __init__(self) -> None:
        self.left = MOST_NODES

    def node(self, value: dict[str, Any], above: tuple[str, ...], place: str, depth: int) -> Node:
        """A layer and all that is in it. Raises ValueError where there is too much of it."""
        self.left -= 1
        if self.left < 0 or depth > MOST_DEPTH:
            raise ValueError(depth)
        config = value["config"]
        layers: object = config if isinstance(config, list) else config.get("layers")
        config = config if isinstance(config, dict) else {}
        name = config.get("name", value.get("name"))
        names = (*above, name) if depth and isinstance(name, str) else above
        node = Node(names, value["class_name"].rpartition(">")[2], config, place)
        if isinstance(layers, list) and all(map(_is_layer, layers)):
            self._model(node, layers, names, depth)
            return node
        for key, part in config.items():
            if key in NO_LAYERS:
                continue
            inner = f"{place}/{key}" if place else key
            if _is_layer(part) and _may_hold(part):
                node.children.append(self.node(part, names, inner, depth + 1))
            elif isinstance(part, list) and part and all(map(_is_layer, part)):
                node.children += self._list(part, names, inner, depth)
        return node

    def _model(self, node: Node, layers: list[Any], names: tuple[str, ...], depth: int) -> None:
        inner = f"{node.place}/layers" if node.place else "layers"
        node.children = self._list(layers, names, inner, depth)
        graph = any("inbound_nodes" in layer for layer in layers)
        last = ""
        for child, layer in zip(node.children, layers, strict=True):
            own = child.names[-1] if child.names else ""
            if graph:
                name = layer.get("name", own)
                before = _inbound(layer.get("inbound_nodes"))
                child.before = before if name != before else ""
            else:
                child.before = last
            last = own

    def _list(
        self, layers: list[Any], names: tuple[str, ...], inner: str, depth: int
    ) -> list[Node]:
        """Layers in a list, which Keras 3 calls by their classes, numbered."""
        used: dict[str, int] = {}
        nodes = []
        for layer in layers:
            kind = _snake(layer["class_name"].rpartition(">")[2])
            number = used.get(kind, -1) + 1
            used[kind] = number
            own = f"{kind}_{number}" if number else kind
            nodes.append(self.node(layer, names, f"{inner}/{own}", depth + 1))
        return nodes


def _may_hold(part: dict[str, Any]) -> bool:
    """Whether it may be a layer: an initializer or a regularizer has no name."""
    config = part["config"]
    return isinstance(config, list) or "name" in config or "layers" in config


def _inbound(nodes: object) -> str:
    """The one layer whose output is taken, of what a config says of the graph; "" if none is."""
    found: set[str] = set()

    def look(value: object, depth: int) -> None:
        if isinstance(value, dict):
            history = value.get("keras_history")
            if isinstance(history, list) and history and isinstance(history[0], str):
                found.add(history[0])
            else:
                for part in value.values():
                    look(part, depth + 1)
        elif isinstance(value, list):
            if (
                len(value) in (3, 4)
                and isinstance(value[0], str)
                and isinstance(value[1], int)
                and isinstance(value[2], int)
            ):
                found.add(value[0])
            else:
                for part in value:
                    look(part, depth + 1)

    if isinstance(nodes, list) and len(nodes) == 1:
        look(nodes, 0)
    return found.pop() if len(found) == 1 else ""


def _snake(name: str) -> str:
    """A class' name as Keras 3 writes it in a file."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
