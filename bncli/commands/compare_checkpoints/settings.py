"""What is said of the eps and the momentum of two files, beside the findings on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.commands.compare_checkpoints.answer import called
from bncli.given import is_given
from bncli.model.changes import STORED, Momentum
from bncli.rulebook.change_settings import (
    SAME,
    STILL,
    TOLD,
    effect_of_eps,
    owner,
    settings_findings,
)
from bncli.rulebook.interface import examples, percent
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.model.changes import Comparison, Eps, LayerVersion


MOST = 3
"""Values of one setting that are named."""


def settings(compared: Comparison) -> Iterator[str]:
    """Lines on eps and momentum: an eps that is assumed, another momentum, and what is equal."""
    yield from _assumed_eps(compared)
    yield from _momentum(compared)
    yield from _equal(compared)


def _assumed_eps(compared: Comparison) -> Iterator[str]:
    """That the files' frameworks have another eps each, which neither file stores."""
    still = [layer for layer in compared.matched if layer.found.state in STILL and layer.eps]
    apart = [
        layer
        for layer in still
        if layer.eps
        and layer.eps[0].value != layer.eps[1].value
        and STORED not in (layer.eps[0].source, layer.eps[1].source)
    ]
    pairs = {layer.eps for layer in apart if layer.eps}
    far = max(map(effect_of_eps, apart), default=0.0)
    if far < TOLD or len(pairs) != 1:
        return
    one, two = next(iter(pairs))
    said = (
        f"{one.value:g} in {compared.path} ({owner(one.source)} default), "
        f"{two.value:g} in {compared.other_path} ({owner(two.source)} default)"
    )
    need = "the second file's layers need"
    if len(apart) < len(compared.matched):
        names = examples([layer.other_name for layer in apart])
        need = f"{names} of the second file need{'s' * (len(apart) == 1)}"
    yield (
        f"eps is assumed: {said}. If so, outputs differ by up to {percent(far)}: {need} "
        f"eps={one.value:g}"
    )


def _momentum(compared: Comparison) -> Iterator[str]:
    """Another momentum, where at least one file stores it and no finding is about it."""
    told = {
        finding.subject
        for finding in settings_findings(compared)
        if finding.evidence["cause"] == "momentum"
    }
    apart: dict[tuple[Momentum, Momentum], list[LayerVersion]] = {}
    for layer in compared.matched:
        one, two = layer.momentum
        if one is None or two is None or STORED not in (one.source, two.source):
            continue
        if not _close(one.value, two.value) and called(layer) not in told:
            apart.setdefault((one, two), []).append(layer)
    if not apart:
        return
    (one, two), layers = max(apart.items(), key=lambda item: len(item[1]))
    others = sum(map(len, apart.values())) - len(layers)
    names = "" if len(layers) == len(compared.matched) else f" of {examples(_names(layers))}"
    more = f" ({counted(others, 'more layer')} by other numbers)" if others else ""
    yield (
        f"the momentum{names} is {_said(one)} in {compared.path} and {_said(two)} in "
        f"{compared.other_path}{more}. It matters if the network is trained on"
    )


def _said(momentum: Momentum) -> str:
    if momentum.source == STORED:
        return momentum.said
    return f"{momentum.said} ({owner(momentum.source)} default, assumed)"


def _equal(compared: Comparison) -> Iterator[str]:
    """The eps and the momentum that are equal in both files, where at least one stores them."""
    eps = [layer.eps for layer in compared.matched if layer.eps]
    momentum = [(one, two) for layer in compared.matched for one, two in [layer.momentum]]
    both = [(one, two) for one, two in momentum if one is not None and two is not None]
    parts, assumed = [], set()
    found: tuple[tuple[str, Sequence[tuple[Eps | Momentum, Eps | Momentum]]], ...] = (
        ("eps", eps),
        ("momentum", both),
    )
    for name, pairs in found:
        equal = [
            pair
            for pair in pairs
            if _close(pair[0].value, pair[1].value) and STORED in (pair[0].source, pair[1].source)
        ]
        if not equal:
            continue
        said = list(dict.fromkeys(map(_said_of_both, equal)))
        total = len(compared.layers)
        of = f" ({len(equal)} of {total} layers)" if len(equal) < total else ""
        said = said if len(said) == 1 else [f"({' or '.join(said[:MOST])}, by layer)"]
        parts.append(f"{name} {said[0]}{of}")
        for at, path in enumerate((compared.path, compared.other_path)):
            if any(pair[at].source != STORED for pair in equal):
                assumed.add(f"{path}: assumed")
    if parts:
        note = f" ({', '.join(sorted(assumed))})" if assumed else ""
        where = "both" if is_given(compared.path) or is_given(compared.other_path) else "both files"
        yield f"{' and '.join(parts)} {'are' if len(parts) > 1 else 'is'} in {where}{note}"


def _said_of_both(pair: tuple[Eps | Momentum, Eps | Momentum]) -> str:
    """A number that is equal in both files, in the words of one that stores it.

    Where two frameworks mean opposite things by a momentum, it is said in PyTorch's sense.
    """
    value = pair[0].value
    said = "none" if value is None else f"{value:g}"
    stored = [each.said for each in pair if isinstance(each, Momentum) and each.source == STORED]
    if not any("(" in each for each in stored):
        return said
    return stored[0] if len(set(stored)) == 1 else f"{said} in PyTorch's sense"


def _names(layers: Sequence[LayerVersion]) -> list[str]:
    return [called(layer) for layer in layers]


def _close(one: float | None, two: float | None) -> bool:
    """Whether two numbers are one, perhaps stored in different dtypes."""
    if one is None or two is None:
        return one is two
    return math.isclose(one, two, rel_tol=SAME)
