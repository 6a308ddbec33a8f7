"""MXNet's symbol.json: the nodes of a graph with their attributes, which are texts, and inputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.light import dataclass
from bncli.loaders.interface import check_regular, lean_json, open_source

LARGEST, MOST_MARKS = 1 << 24, 1 << 20
"""How long the JSON may be, and how many marks it may have (`lean_json`); a node has some 40."""
_EPOCH = re.compile(r"(?:-\d{4})?\.params$")


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its operation ("null" for a variable), and the numbers of the nodes it reads."""

    op: str
    name: str
    attributes: dict[str, str]
    inputs: tuple[int, ...]


def symbol_of(path: Path) -> Path:
    """Where the symbol of PREFIX-0000.params or PREFIX.params lies, if it is there."""
    return path.with_name(f"{_EPOCH.sub('', path.name)}-symbol.json")


def read_symbol(path: Path) -> list[Node]:
    """The nodes in their order, in which each reads only nodes before it.

    Raises CorruptFileError where it is no such graph.
    """
    check_regular(path)
    with open_source(path) as source:
        if source.size > LARGEST:
            raise UnsupportedFileError(
                path, f"it has more than {LARGEST} bytes, which no symbol needs; save it again."
            )
        text = source.head_of(source.size)
    try:
        graph = lean_json(text, MOST_MARKS)
        return [_node(node, number) for number, node in enumerate(graph["nodes"])]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _corrupt(path) from error


def _node(node: dict[str, Any], number: int) -> Node:
    """A node of the JSON. Raises ValueError, KeyError, TypeError or IndexError for what is none."""
    inputs = tuple(each[0] for each in node["inputs"])
    # Its attributes were called "param" first, then "attr", and stand there beside the user's.
    attributes: dict[str, str] = {}
    for key in ("param", "attr", "attrs"):
        attributes |= node.get(key) or {}
    texts = [node["op"], node["name"], *attributes, *attributes.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(texts)
    if not all(isinstance(each, int) and 0 <= each < number for each in inputs):
        raise ValueError(inputs)
    return Node(node["op"], node["name"], attributes, inputs)


def _corrupt(path: Path) -> CorruptFileError:
    return CorruptFileError(
        path,
        "it should be the symbol file of an MXNet model, but is not; download or save it again.",
    )
