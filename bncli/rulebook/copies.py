"""What names tell about a copy: of the whole network, or of its parameters alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from bncli.rulebook.layers import Checkpoint
from bncli.rulebook.summaries import Summary

COPY = re.compile(
    r"(?:^|_)ema(?:_|\d|$)|teacher|(?:^|_)swa(?:_|$)|averaged|shadow|polyak"
    r"|(?:^|_)(?:avg|average|mean)_(?:model|net|network)(?:_|$)"
    r"|(?:^|_)(?:model|net|network)_(?:avg|average)$"
    r"|momentum_(?:encoder|model|net|network|backbone|projector|projection|branch)"
    r"|(?:encoder|model|net|network|backbone|projector|projection|branch|head)_momentum$"
    r"|encoder_k$|key_encoder|encoder_m$"
    r"|(?:^|_)target_(?:net|encoder|network|model|backbone|projector|branch)",
    re.IGNORECASE,
)
"""A component of a name that marks an averaged copy of another model."""

FOLLOWER = re.compile(r"(?:^|_)(?:target|targ|old|slow|lagged|momentum)(?=_|$)", re.IGNORECASE)
"""A component of a name that may mark one, and does where the weights are close as well."""

_MARK = re.compile(
    r"(?:^|_)(?:ema|swa|avg|average|averaged|teacher|target|targ|old|slow|lagged|momentum|polyak)"
    r"(?=_|$)",
    re.IGNORECASE,
)
"""What such a component adds to the live model's: _ema in model_ema, _target in q_net_target."""

_ASIDE = re.compile(r"^optim|exp_avg|(?:^|_)grads?(?:_|$)|gradient|momentum_buffer", re.IGNORECASE)
"""A component of a name that marks numbers about the parameters, such as an optimiser's."""

FEWEST_MIRRORED = 3
"""How many layers a network needs for a part of the file with the same names to be a copy of it."""

WRAPPERS = frozenset({"module", "_orig_mod", "model", "state_dict", "online_model", "shadow"})
"""Names that wrappers put before a model's own, and that say nothing about the model."""

LONGEST_NAME = 1000
"""No network that a person wrote has longer names."""


def parameters_alone(file: Checkpoint) -> set[str]:
    """The names of layers without statistics because only a network's parameters were copied.

    Such a copy shows by its name (shadow, exp_avg, grads), or has a layer for each of the file's
    layers with statistics, if these are FEWEST_MIRRORED or more.
    """
    affine_only = {
        bare.name: parts_of(bare.name)
        for bare in file.bare
        if set(bare.leaves) <= {"weight", "bias"}
    }
    copies = {
        name
        for name, parts in affine_only.items()
        if any(_ASIDE.search(part) or COPY.search(snake(part)) for part in parts[:-1])
    }
    whole = {parts_of(each.name) for each in file.own() if each.has_statistics}
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
    """Whether a name is that of a layer's weight or bias, and not of an optimiser's state."""
    from bncli.state_dict.names import BIASES, WEIGHTS

    known = (*WEIGHTS, *BIASES, "kernel", "in_proj_weight", "in_proj_bias")
    return parts_of(name)[-1] in known and not is_aside(name)


def is_aside(name: str) -> bool:
    """Whether a module in a tensor's name says that it is about parameters, as an optimiser's."""
    return any(map(_ASIDE.search, parts_of(name)[:-1]))


def parts_of(name: str) -> tuple[str, ...]:
    """The components of a name."""
    return tuple(re.split(r"[./]", name))


def snake(part: str) -> str:
    """A component in snake case: "modelEMA" as "model_EMA"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part)


def twins(
    layers: Sequence[Summary],
    averaged: Iterable[str] = (),
    alike: Callable[[str, str], bool] = lambda _copy, _live: False,
) -> dict[str, str]:
    """For each layer of an averaged copy, the layer of the live model that it belongs to.

    A copy is recognised by a component of its name (ema, teacher, swa and the like), or because it
    is below one of the `averaged` prefixes. What follows that component, without wrappers, must be
    the end of the live layer's name, and the number of channels must be the same. A live layer
    below the same component without the mark is preferred (model.bn for model_ema.bn). A name that
    is not always a copy's (q_net_target) counts as one where `alike` is true of the two layers.
    """
    roots = [tuple(root.split(".")) for root in averaged if root]
    certain: dict[str, list[tuple[str, ...]]] = {}
    maybe: dict[str, list[tuple[str, ...]]] = {}
    live: list[tuple[tuple[str, ...], Summary]] = []
    for layer in layers:
        if len(layer.name) > LONGEST_NAME:
            continue
        parts = parts_of(layer.name)
        at = _where(parts, COPY, roots)
        if at is not None:
            certain[layer.name] = list(_readings(parts, at))
            continue
        live.append((parts, layer))
        at = _where(parts, FOLLOWER)
        if at is not None:
            maybe[layer.name] = list(_readings(parts, at))
    channels = {layer.name: layer.channels for layer in layers}
    leading = [pair for pair in live if pair[1].name not in maybe]
    found = _paired(certain, live, channels)
    for name, partner in _paired(maybe, leading, channels).items():
        if alike(name, partner):
            found[name] = partner
    return {name: partner for name, partner in found.items() if partner not in found}


def _paired(
    copies: dict[str, list[tuple[str, ...]]],
    live: list[tuple[tuple[str, ...], Summary]],
    channels: dict[str, int | None],
) -> dict[str, str]:
    """For each layer of a copy, the live layer whose name ends in one of the copy's readings."""
    wanted = {rest for several in copies.values() for rest in several}
    lengths = {len(rest) for rest in wanted}
    ends: dict[tuple[str, ...], list[tuple[int, Summary]]] = {}
    for parts, layer in live:
        for length in lengths:
            end = parts[-length:]
            if len(parts) >= length and end in wanted:
                ends.setdefault(end, []).append((len(parts), layer))
    found: dict[str, str] = {}
    below: dict[str, dict[str, int]] = {}
    for name, several in copies.items():
        fits = (
            (rest, min(same, key=lambda pair: pair[0])[1])
            for rest in several
            if (same := [p for p in ends.get(rest, ()) if p[1].channels == channels[name]])
        )
        end, partner = next(fits, ((), None))
        if partner is not None:
            found[name] = partner.name
            root = name[: len(name) - sum(map(len, end)) - len(end) + 1]
            below.setdefault(root, {})[name] = len(end)
    # "ema.bn" may be an attention block called ema: a copy has most of the network's layers.
    for names in below.values():
        if 2 * len(names) < len(live):
            for name in (each for each, length in names.items() if length == 1):
                del found[name]
    return found


def _where(
    parts: tuple[str, ...], marks: re.Pattern[str], roots: Sequence[tuple[str, ...]] = ()
) -> int | None:
    """The index of the last component that marks a copy or ends a root; None if there is none."""
    for root in roots:
        if parts[: len(root)] == root:
            return len(root) - 1
    found = [index for index, part in enumerate(parts[:-1]) if marks.search(snake(part))]
    return found[-1] if found else None


def _readings(parts: tuple[str, ...], at: int) -> Iterator[tuple[str, ...]]:
    """What a copy's layer may be called in the live model, the longest name first."""
    rest = parts[at + 1 :]
    rests = [rest]
    while len(rest) > 1 and rest[0] in WRAPPERS:
        rest = rest[1:]
        rests.append(rest)
    marked = snake(parts[at])
    unmarked = _MARK.sub("", marked).strip("_")
    if unmarked and unmarked != marked:
        yield from ((unmarked, *rest) for rest in rests)
    yield from rests
