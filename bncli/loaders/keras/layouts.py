"""The two ways in which Keras keeps the variables of its layers in an HDF5 file."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import field

from bncli.light import dataclass
from bncli.loaders.hdf5.datasets import Objects
from bncli.loaders.keras.configs import Node

STATISTICS = frozenset(("moving_mean", "moving_variance"))
_BATCH_NORM = re.compile(r"batch_?norm|(?:^|[_/])bn(?![a-z])", re.IGNORECASE)
"""What Keras' default name or a user's says of a BatchNorm layer."""


WRAPPED = "layer"
"""Where Keras 3 keeps the layer inside another one, such as TimeDistributed, without its class."""


@dataclass(slots=True)
class Part:
    """The variables of one layer: their full names by the layer's own names for them.

    `group` is where they are. `node` is the layer of the config, None where it is not known.
    `behind` is the name of the layer that the file lists directly before this one, where that
    leaves no doubt that it stands before it.
    """

    name: str
    group: str
    variables: dict[str, str] = field(default_factory=dict)
    node: Node | None = None
    behind: str = ""


def is_by_name(found: Objects) -> bool:
    """Whether it is the layout of Keras 2 (and of Keras 3's old format): variables have names."""
    return any(name == "layer_names" for _, name in found.texts)


def is_numbered(found: Objects) -> bool:
    """Whether it is the layout of Keras 3's `.weights.h5`: variables have numbers."""
    return any(re.search(r"(?:^|/)vars/[0-9]+$", name) for name in found.tensors)


def parts_by_name(found: Objects, root: Node | None) -> list[Part]:
    """The layers of a file in the layout of Keras 2, in the model's order where it is known."""
    top = "model_weights/" if ("model_weights", "layer_names") in found.texts else ""
    groups: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for full in found.tensors:
        if not full.startswith(top):
            continue
        group, _, rest = full.removeprefix(top).partition("/")
        scope, _, leaf = rest.rpartition("/")
        groups[group][scope][leaf.removesuffix(":0")] = full
    listed = found.texts.get((top.rstrip("/"), "layer_names"), [])
    order = [name for name in listed if name in groups] if isinstance(listed, list) else []
    nodes = {} if root is None else {node.names[0]: node for node in root.children if node.names}
    if not order:
        order = [name for name in nodes if name in groups]
    parts = []
    for group in dict.fromkeys((*order, *groups)):
        scopes = groups[group]
        parts += _parts_of_group(f"{top}{group}", group, scopes, nodes.get(group))
    if root is None and isinstance(listed, list):
        _note_order(parts, listed)
    return parts


def _note_order(parts: list[Part], listed: list[str]) -> None:
    """Note what stands before each layer, by the order in which a file lists them all.

    Branches are listed in turns: so neither may stand in a run of its kind.
    """
    alone = {part.name: part for part in parts}
    norms = [
        set(alone[name].variables) >= STATISTICS if name in alone else False for name in listed
    ]
    weights = [name in alone and not norm for name, norm in zip(listed, norms, strict=True)]
    for at in range(1, len(listed)):
        after = at + 1 < len(listed) and norms[at + 1]
        runs = after or (at > 1 and weights[at - 2])
        if norms[at] and weights[at - 1] and not runs:
            alone[listed[at]].behind = listed[at - 1]


def _parts_of_group(
    where: str, group: str, scopes: dict[str, dict[str, str]], node: Node | None
) -> list[Part]:
    """The layers in the group of a layer, which may be a model of its own."""
    leaves = [each for each in node.all() if not each.children] if node is not None else []
    by_own: dict[str, list[Node]] = defaultdict(list)
    for leaf in leaves:
        by_own[leaf.names[-1]].append(leaf)
    parts = []
    for scope, variables in scopes.items():
        own = scope.rpartition("/")[2]
        fitting = by_own.get(own, [])
        if len(fitting) > 1:
            parts_of_scope = tuple(scope.split("/"))
            fitting = [leaf for leaf in fitting if parts_of_scope in (leaf.names, leaf.names[1:])]
        if len(scopes) == 1 and len(leaves) == 1:
            fitting = leaves
        elif not fitting and variables.keys() >= STATISTICS:
            norms = [leaf for leaf in leaves if leaf.is_batch_norm]
            places = [each for each, held in scopes.items() if held.keys() >= STATISTICS]
            fitting = norms if len(norms) == len(places) == 1 else []
        known = fitting[0] if len(fitting) == 1 else None
        if known is not None:
            name = known.name
        elif len(scopes) == 1 and (own == group or scope.startswith(f"{group}_")):
            name = group
        else:
            name = scope if f"{scope}/".startswith(f"{group}/") else f"{group}/{scope}".rstrip("/")
        parts.append(Part(name, where, variables, known))
    return parts


def parts_by_number(found: Objects, root: Node | None) -> list[Part]:
    """The layers of a file in the layout of Keras 3, those of the config first."""
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for full in found.tensors:
        match = re.fullmatch(r"(?:(.*)/)?vars/([0-9]{1,9})", full)
        if match is not None:
            groups[match[1] or ""][int(match[2])] = full
    nodes = {} if root is None else {node.place: node for node in root.all()}
    order = [place for place in nodes if place in groups]
    parts = []
    for group in dict.fromkeys((*order, *groups)):
        node = nodes.get(group)
        said = found.texts.get((f"{group}/vars".lstrip("/"), "name"))
        if node is not None and isinstance(said, str) and node.names and node.names[-1] != said:
            node = None  # the config is of another model
        name = _named(found, group) if node is None else node.name
        numbers = {str(number): groups[group][number] for number in sorted(groups[group])}
        parts.append(Part(name, group, numbers, node))
    return parts


def _named(found: Objects, group: str) -> str:
    """The name of a layer without a config: its own, and those of the groups that it is in."""
    names, above = [], ""
    for part in group.split("/"):
        above = f"{above}/{part}" if above else part
        said = found.texts.get((f"{above}/vars", "name"))
        if isinstance(said, str) and said:
            names.append(said)
        elif part != "layers":
            names.append(part)
    return "/".join(names)


def says_batch_norm(part: Part) -> bool:
    """Whether a layer is a BatchNorm by what it is called, or by the class that its group names.

    That of a wrapped layer is not in the file; of Keras' layers, BatchNorm alone has four vectors.
    """
    last = part.group.rpartition("/")[2]
    if last == WRAPPED and len(part.variables) == 4:
        return True
    return any(_BATCH_NORM.search(name) for name in (part.name.rpartition("/")[2], last))
