"""What one file, the target, is of the others: parameters, statistics and counters each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.many.common import Common, Values, names_of, read
from bncli.changes.many.counters import counters_of
from bncli.changes.many.spoilt import Health, spoilt
from bncli.changes.many.sums import (
    FEWEST,
    Fit,
    Sources,
    mean_of,
    nearest,
    one_of,
    pooled,
    reset,
    subset_of,
    weighted_sum,
)
from bncli.light import np
from bncli.model.many import Kind, Made, Many, Origin
from bncli.report import Certainty
from bncli.rulebook.interface import examples, percent
from bncli.rulebook.pairs import initial_weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model import TensorFile

STATISTICS = ("running_mean", "running_var")
AFFINE = ("weight", "bias")
HALVES_OF = {
    "parameters": (("weight and bias", AFFINE), ("layers before", ("before",))),
    "statistics": (("running_mean", STATISTICS[:1]), ("running_var", STATISTICS[1:])),
}
"""The halves of a group that are judged apart where they are not made alike."""

MOST_NAMED = 4
"""How many files of a mean are named."""


def of_target(files: Sequence[TensorFile], target: TensorFile) -> Many:
    """What the target is of the files, one or more of them. Raises FileError for damaged files."""
    common = Common.of([*files, target])
    names = [*names_of([str(file.path) for file in files]).values()]
    origins: list[Origin] = []
    if common.layers:
        parameters = read([*common.tensors(*AFFINE), *common.before()])
        origins += _group("parameters", parameters, names)
        like = origins[0] if len(origins) == 1 else None
        statistics = _group("statistics", read(common.tensors(*STATISTICS)), names, like)
        counters = counters_of(common, names, statistics[0] if statistics else None)
        origins += [*statistics, *([] if counters is None else [counters])]
    paths = [str(file.path) for file in common.files]
    health = Health.of(common)
    return Many(
        Kind.TARGET,
        tuple(paths[:-1]),
        len(common.layers),
        paths[-1],
        lacking=common.lacking,
        origins=tuple(origins),
        spoilt=spoilt(paths, health, series=False),
        new=tuple(paths[at] for at in sorted(health.new)),
        sure=common.sure,
    )


def _group(
    group: str, values: Values, names: Sequence[str], like: Origin | None = None
) -> list[Origin]:
    """A row for the group, or one for each half where the halves are not made alike.

    `like` is what another group is of the files, which this one may be, too.
    """
    if not values.parts:
        return []
    whole = _origin(group, values, names, like)
    if whole.made is not Made.NONE:
        return [whole]
    halves = [
        _origin(title, some, names, like)
        for title, leaves in HALVES_OF[group]
        if (some := values.only(leaves)).parts
    ]
    told = [half.made not in (Made.NONE, Made.UNTOLD) for half in halves]
    return halves if len(halves) > 1 and any(told) else [whole]


def _origin(group: str, values: Values, names: Sequence[str], like: Origin | None = None) -> Origin:
    sources = Sources(values)
    fit = (
        _explained(sources) or _alike(sources, like) or _still_initial(sources) or nearest(sources)
    )
    if fit.made is Made.NONE and _cannot_tell(sources, fit):
        what = "too few values differ between the files to tell"
        return Origin(group, Made.UNTOLD, what, values=values.each.shape[1], total=values.total)
    off = () if fit.off is None else values.layers_where(fit.off)
    layers = len({layer for layer, _, _ in values.parts})
    count, total = values.each.shape[1], values.total
    where = f" in the {count:,} of {total:,} values that were read" if count < total else ""
    return Origin(
        group,
        fit.made,
        _said(fit, names, len(off), layers, where),
        fit.certainty,
        exact=fit.exact,
        weights=tuple(fit.weights.tolist()),
        unique=fit.unique,
        initial=fit.initial,
        residual=fit.residual,
        roundings=fit.roundings,
        values=count,
        total=total,
        off=off,
    )


def _explained(sources: Sources) -> Fit | None:
    """The plainest candidate that explains the target up to rounding."""
    found = one_of(sources)
    found = found or reset(sources)
    if found is not None or sources.files < 2:
        return found or weighted_sum(sources, initial=True)
    found = mean_of(sources)
    if found is not None:
        return found
    weights = weighted_sum(sources)
    return (
        subset_of(sources, weights)
        or pooled(sources)
        or weights
        or weighted_sum(sources, initial=True)
    )


def _alike(sources: Sources, like: Origin | None) -> Fit | None:
    """The sum of another group, whose weights are known, where this one has too few values."""
    if like is None or like.made not in (Made.WEIGHTED, Made.SUBSET) or not like.unique:
        return None
    return sources.sum_of(like.made, np.array(like.weights), fitted=True)


def _cannot_tell(sources: Sources, fit: Fit) -> bool:
    """Whether the target agrees with the files as far as they agree among themselves."""
    return sources.informative < FEWEST and fit.off is not None and not fit.off.any()


def _still_initial(sources: Sources) -> Fit | None:
    """INITIAL, likely: an average of states between those of the files, beside the last of them."""
    values = sources.values
    found = []
    for leaf in STATISTICS:
        columns = [where for _, own, where in values.parts if own == leaf]
        if not columns:
            return None
        found.append(np.concatenate([values.each[:, where] for where in columns], axis=1))
    mean, var = found
    if mean.shape != var.shape:
        return None
    share = initial_weight([(mean[-1], var[-1], mean[-2], var[-2])], float(var[-1].min()))
    if share is None:
        return None
    weights = np.zeros(sources.files)
    weights[-1] = 1 - share
    expected = weights @ sources.x + share * sources.initial
    left = sources.left(expected)
    return Fit(
        Made.INITIAL,
        weights,
        left[0],
        left[1],
        certainty=Certainty.LIKELY,
        initial=share,
    )


def _said(fit: Fit, names: Sequence[str], off: int, layers: int, where: str) -> str:
    """The candidate in a few words; it does not hold in `off` of the layers.

    `where` follows a claim about bits, and says which values were compared.
    """
    files = len(names)
    these = f"these {files} files" if files > 1 else names[0]
    some = [name for name, weight in zip(names, fit.weights, strict=True) if weight > 0]
    rounding = f"bit for bit{where}" if fit.exact else "up to rounding"
    if fit.dtype:
        rounding = f"up to the rounding of {fit.dtype}"
    if fit.made is Made.SAME:
        return f"the same in all files, {rounding}" if files > 1 else f"{names[0]}'s, {rounding}"
    if fit.made is Made.FILE:
        like = f" (and {len(some) - 1} more file{'s' * (len(some) > 2)})" if len(some) > 1 else ""
        return f"{some[0]}'s{like}, {rounding}"
    if fit.made is Made.MEAN:
        return f"the mean of {these}"
    if fit.made is Made.SUM:
        return f"the sum of {these}, not divided by their number"
    if fit.made is Made.SUBSET:
        return f"the mean of {len(some)} of {these}: {examples(some, MOST_NAMED)}"
    if fit.made is Made.POOLED:
        return f"pooled over all data of {these}"
    unknown = "" if fit.unique else "; the weights are not unique"
    if fit.made is Made.WEIGHTED:
        one = abs(float(fit.weights.sum()) - 1) < 1e-3
        kind = "mean" if one and bool((fit.weights > -1e-3).all()) else "sum"
        return f"a weighted {kind} of {these}{unknown}"
    if fit.made is Made.RESET:
        return "those of a new layer"
    if fit.made is Made.INITIAL:
        about = "about " if fit.certainty is Certainty.LIKELY else ""
        share = percent(fit.initial or 0)
        return f"an average that still holds {about}{share} of the initial 0 and 1{unknown}"
    best = f"the mean of {these}" if len(some) > 1 else f"{some[0]}'s"
    if 0 < 2 * off < layers:
        return f"{best} in all but {off} of {layers} layers"
    return f"none of these; {best} is nearest"
