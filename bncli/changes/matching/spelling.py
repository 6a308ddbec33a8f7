"""How the names of layers are spelled: with wrappers or scopes around them, or by counting."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bncli.gate.places import INNER, WRAPPERS
from bncli.rulebook.copies import parts_of

_OPERATION = re.compile(r"(?:BatchNormalization|FusedBatchNorm(?:V[23])?)(?:_[0-9]+)?")
"""The operations of graphs, which their nodes are called after."""
_COUNTED = re.compile(r"(batch_?norm(?:alization)?(?:_v1|[123]d)?)(?:_?[0-9]+)?", re.IGNORECASE)
"""Names that a framework gives to layers without one: their kind, and how many there were."""


def bare_name(name: str) -> str:
    """A name without wrappers at any depth; "/" counts as "."."""
    parts = parts_of(name)
    return ".".join(part for part in parts if part not in WRAPPERS and part not in INNER) or name


def loosely(name: str) -> str:
    """A name as other frameworks may spell it: block1.bn for block1_bn, and nothing twice.

    Nodes of graphs are named by scopes that repeat those above, as /layer1/layer1.0/bn1, and end
    in the operation.
    """
    name = "/".join(_scopes(name)) or name
    parts = [part for part in re.split(r"[^0-9a-z]+", bare_name(name).lower()) if part]
    return ".".join(part for at, part in enumerate(parts) if at == 0 or part != parts[at - 1])


def _scopes(name: str) -> list[str]:
    """The scopes of a name, each once, and without the operation that a node is called after."""
    scopes: list[str] = []
    for scope in filter(None, name.split("/")):
        if scopes and f"{scope}.".startswith(f"{scopes[-1]}."):
            scopes.pop()
        scopes.append(scope)
    if len(scopes) > 1 and _OPERATION.fullmatch(scopes[-1]):
        scopes.pop()
    return scopes


def counted_as(name: str) -> str:
    """The kind by which a framework counted a layer without a name: "batch_normalization" or "".

    Such are batch_normalization_4, BatchNorm_4 and batchnorm9.
    """
    *_, last = re.split(r"[./]", "/".join(_scopes(name)))
    found = _COUNTED.fullmatch(last)
    return found[1].lower() if found else ""


def without_numbers(names: Iterable[str]) -> list[str]:
    """Names with a sign for each number, sorted."""
    return sorted(re.sub(r"[0-9]+", "#", name) for name in names)
