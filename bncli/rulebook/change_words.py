"""What happened to a layer between two files, as a claim and as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.changes import State
from bncli.rulebook.interface import in_prose, percent, times
from bncli.rulebook.layers import plain_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model.changes import Found, LayerVersion, Measures
    from bncli.report import Value

IN_FRONT = "the layer before it"
"""What many layers were folded into."""

BEGIN: Mapping[str, str] = {
    "trained": "trained on ",
    "identical": "identical, ",
    "rounded": "equal ",
}
"""What the phrase of a state completes, by its cause, where it is not a clause by itself."""


def message_of(layer: LayerVersion, *, far: bool = True) -> str:
    """The claim of a state, with the numbers of how `far` the layer moved."""
    found, measures = layer.found, layer.measures
    if not far:
        return brief(found)
    if found.state is State.STATISTICS:
        kept = found.what.partition(", ")[2] or "the weights did not"
        count = measures.batches
        during = (
            f" in {plain_count(count)} batch{'es' * (count != 1)}" if count and count > 0 else ""
        )
        return f"the statistics moved{_far(measures)}{during}, {kept}"
    if found.state is State.WEIGHTS and found.numbers.get("cause") == "own":
        change = measures.weight_change
        by = f" by {percent(change)}" if change is not None else ""
        which = found.what.partition(" moved")[0]
        return f"{which} moved{by}, the statistics did not"
    return found.what or found.state.value


def brief(found: Found) -> str:
    """The claim of a state without what differs from layer to layer."""
    cause = found.numbers.get("cause")
    if found.state is State.IMPOSSIBLE and cause != "counter":
        return found.what.partition(" in ")[0]
    if found.state is State.DIFFERENT and cause == "size":
        return "the number of channels differs"
    if cause == "not-folded":
        return f"it is gone, and {IN_FRONT} is not what folding it gives"
    if found.state is State.FOLDED:
        return found.what.replace(in_prose(str(found.numbers.get("convolution"))), IN_FRONT, 1)
    return found.what or found.state.value


def clause_of(found: Found, *, many: bool) -> str:
    """The claim of a state as it stands behind "not frozen:", perhaps of `many` layers."""
    said = brief(found) if many else found.what or found.state.value
    return f"{BEGIN.get(str(found.numbers.get('cause')), '')}{said}"


def without_numbers(claim: str) -> str:
    """A claim of a convention without the eps and the n behind it, which may differ by layer."""
    head, _, tail = claim.rpartition(", ")
    if tail.startswith(("eps ", "without eps", "n ", "not one n")):
        return without_numbers(head)
    return claim


def _far(measures: Measures) -> str:
    """How far statistics moved, by the means or else by the variances; "" where not known."""
    least, most = measures.var_ratio_min, measures.var_ratio_max
    if measures.z_max is None or least is None or most is None:
        return ""
    shrank = least * most < 1
    ratio = least if shrank else most
    if measures.z_max == 0 and ratio == 1:  # variances that are nothing beside eps
        return " by less than 1e-15 std"
    if measures.z_max < 0.1 * (1 / max(ratio, 1e-300) if shrank else ratio) - 0.1:
        if abs(ratio - 1) < 0.01:
            return f" (a variance by {percent(abs(ratio - 1))})"
        said = f"fell to {ratio:.3g} of" if shrank else f"grew to {times(ratio)}"
        return f" (a variance {said} what it was)"
    return f" by up to {measures.z_max:.3g} std"


def evidence_of(layer: LayerVersion) -> dict[str, Value]:
    """The numbers of a finding, for scripts."""
    measures = layer.measures
    return {
        "layer": layer.name or layer.other_name,
        "other_name": layer.other_name or None,
        "state": layer.found.state.value,
        **layer.found.numbers,
        "batches": measures.batches,
        "z_max": measures.z_max,
        "var_ratio_min": measures.var_ratio_min,
        "var_ratio_max": measures.var_ratio_max,
        "weight_change": measures.weight_change,
        "effect": measures.effect,
    }


def copied_words(layer: LayerVersion) -> tuple[str, str] | None:
    """What stands in a layer's name, and in that of the copy whose tensors it took over."""
    numbers, batches = layer.found.numbers, layer.measures.batches
    if not numbers.get("branch") or batches is None or batches < 0:
        return None
    own = layer.other_name if numbers.get("cause") == "twin" else layer.name
    pairs = zip(own.split("."), str(numbers.get("holds")).split("."), strict=False)
    return next(((a, b) for a, b in pairs if a != b), None)
