"""What names tell of a copy: of the whole network, or of its parameters alone."""

from __future__ import annotations

import re

from bncli.layer_names import BIASES, WEIGHTS
from bncli.rules.layers import Checkpoint

COPY = re.compile(
    r"(?:^|_)ema(?:_|\d|$)|teacher|(?:^|_)swa(?:_|$)|averaged|(?:^|_)avg_model(?:_|$)|shadow"
    r"|momentum_encoder|encoder_k$|key_encoder|encoder_m$|(?:^|_)target_(?:net|encoder|network)",
    re.IGNORECASE,
)
"""A component of a name that says: this is an averaged copy of another model."""

_ASIDE = re.compile(r"^optim|exp_avg|(?:^|_)grads?(?:_|$)|gradient|momentum_buffer", re.IGNORECASE)
"""A component of a name that says: numbers about the parameters, such as an optimiser's."""

FEWEST_MIRRORED = 3
"""Layers from which a part of the file that has all of them by name is a copy, not a sibling."""

_PARAMETERS = frozenset((*WEIGHTS, *BIASES, "kernel", "in_proj_weight", "in_proj_bias"))


def parameters_alone(file: Checkpoint) -> set[str]:
    """The names of what lacks statistics because the parameters of a network were copied.

    A copy says by its name what it is (shadow, exp_avg, grads), or has a layer for each of the
    file's layers with statistics, FEWEST_MIRRORED or more.
    """
    affine_only = {
        bare.name: tuple(re.split(r"[./]", bare.name))
        for bare in file.bare
        if set(bare.leaves) <= {"weight", "bias"}
    }
    copies = {
        name
        for name, parts in affine_only.items()
        if any(_ASIDE.search(part) or COPY.search(part) for part in parts[:-1])
    }
    whole = {tuple(re.split(r"[./]", each.name)) for each in file.own() if each.has_statistics}
    if len(whole) < FEWEST_MIRRORED:
        return copies
    shared = 0
    while len({parts[: shared + 1] for parts in whole}) == 1:
        shared += 1
    ends = {parts[shared:] for parts in whole}
    lengths = {len(end) for end in ends}
    roots: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
    for name, parts in affine_only.items():
        for at in (len(parts) - length for length in lengths if length < len(parts)):
            if parts[at:] in ends:
                roots.setdefault(parts[:at], {})[parts[at:]] = name
    mirrored = (found.values() for found in roots.values() if len(found) == len(ends))
    return copies.union(*mirrored)


def is_parameter(name: str) -> bool:
    """Whether a tensor's name is that of a layer's weight or bias, and no optimiser's number."""
    *above, leaf = re.split(r"[./]", name)
    return leaf in _PARAMETERS and not any(map(_ASIDE.search, above))
