"""What is said of two files in sentences: what they are, what happened, what has no partner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.commands.compare_checkpoints.answer import batches_said, called, grouped
from bncli.commands.compare_checkpoints.limits import limits
from bncli.commands.compare_checkpoints.rows import Numbers
from bncli.model.changes import How, State
from bncli.rulebook.change_words import brief, without_numbers
from bncli.rulebook.changes import Expected
from bncli.rulebook.interface import examples
from bncli.rulebook.layers import label
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bncli.commands.compare_checkpoints.answer import Group
    from bncli.model.changes import Comparison, LayerVersion, OtherWeights
    from bncli.report import Severity
    from bncli.rulebook.changes import Expectation

SCREEN = 80
"""Characters of a line above which the subject takes two."""

MOST_NAMES = 3
"""Layers that the verdict names; more are counted."""

BY = {
    How.NAME: "by name",
    How.NAMING: "by another framework's names",
    How.VALUES: "by equal values",
    How.ORDER: "by shape and order",
}
FAULTS = {
    State.IMPOSSIBLE: "values became impossible",
    State.LOST: "tensors are missing",
    State.RESET: "the statistics were reset to 0 and 1",
    State.EMPTY: "the statistics are all 0",
    State.CONVENTION: "the convention differs",
    State.ORDER: "the order differs",
    State.STATISTICS: "the statistics moved and the weights did not",
    State.WEIGHTS: "the weights moved and the statistics did not",
}
"""The states that the verdict tells by the names of their layers, behind "in"."""
CLAIMED = {State.IMPOSSIBLE, State.LOST, State.EMPTY, State.CONVENTION, State.RESET}
"""The states whose claim, where all their layers share it, says more than these words."""
MOST_SAID = 90
"""Characters of a claim that the verdict takes over."""
OTHER_LAYERS = {"chain", "exchanged", "other-layer", "other-statistics"}
"""The causes of an order that differs by which whole layers are in others' places."""


def subject(compared: Comparison) -> tuple[str, ...]:
    """The two files and how many layers were matched, by what."""
    files = " -> ".join(specs(compared))
    total = sum(map(in_first, compared.layers))
    matched = compared.matched
    how = [(text, sum(layer.how is kind for layer in matched)) for kind, text in BY.items()]
    how = [(text, number) for text, number in how if number]
    ways = how[0][0] if len(how) == 1 else ", ".join(f"{number} {text}" for text, number in how)
    of = f" of {total}" if len(matched) < total else ""
    layers = f"{len(matched)}{of} BatchNorm layer{'s' * (total != 1)} matched"
    folded = sum(layer.how is None for layer in compared.layers if has_partner(layer))
    if folded and not matched:
        layers = f"{folded} of {counted(len(compared.layers), 'BatchNorm layer')} folded"
    elif folded:
        layers += f", {folded} folded"
    said = f"{layers}{',' if len(how) == 1 else ':'} {ways}" if how else layers
    if len(f"{files}  {said}") <= SCREEN:
        return (f"{files}  {said}",)
    if len(files) <= SCREEN:
        return files, said
    one, two = specs(compared)
    folder = compared.path.rpartition("/")[0]
    if folder and folder == compared.other_path.rpartition("/")[0]:
        one, two = (spec.removeprefix(f"{folder}/") for spec in (one, two))
        if len(files := f"{one} -> {two}") <= SCREEN:
            return f"in {folder}:", files, said
        return f"in {folder}:", one, f"-> {two}", said
    return one, f"-> {two}", said


def specs(compared: Comparison) -> list[str]:
    """The two files as they are typed."""
    pairs = ((compared.path, compared.part), (compared.other_path, compared.other_part))
    return [f"{path}::{part}" if part else path for path, part in pairs]


def scope(shown: Sequence[LayerVersion], compared: Comparison) -> str:
    """What was judged: "20 BatchNorm layers", or "3 of 20 BatchNorm layers"."""
    if len(shown) < len(compared.layers):
        return f"{len(shown)} of {len(compared.layers)} BatchNorm layers"
    return counted(len(shown), "BatchNorm layer")


def verdict(
    layers: Sequence[LayerVersion],
    severities: Mapping[str, Severity],
    asked: Sequence[Expectation] = (),
) -> str:
    """What happened to the layers as a whole, without a full stop.

    What was `asked` of them comes first, then what may be wrong, then the rest.
    """
    here = [layer for layer in layers if has_partner(layer)]
    groups = grouped(here, severities)
    told = [group for group in groups if group.state not in FAULTS]
    faults = [group for group in groups if group.state in FAULTS]
    total = len(layers)
    parts = _as_asked(layers, asked)
    parts += [f"in {_which(group.layers, total)} {_fault(group)}" for group in faults]
    lost = [layer for layer in layers if layer.found.numbers.get("cause") == "not-folded"]
    if lost:
        be, it = ("is", "it") if len(lost) == 1 else ("are", "them")
        gone = f"gone, and the convolutions do not hold {it} folded"
        parts.append(f"{_which(lost, total)} {be} {gone}")
    if told:
        told.sort(key=lambda group: -len(group.layers))
        parts.append(
            ", ".join(
                f"{_number(group.layers, total, first=not at)} {_phrase(group)}"
                for at, group in enumerate(told)
            )
        )
    alone = [layer for layer in layers if not has_partner(layer) and layer not in lost]
    first = sum(map(in_first, alone))
    second = len(alone) - first
    if first or second:
        where = [(first, "first file"), (second, "second file")]
        said = [f"{number} in the {which} alone" for number, which in where if number]
        number, rest = said[0].split(" ", 1)
        be = "is" if number == "1" else "are"
        parts.append(", ".join([f"{counted(int(number), 'layer')} {be} {rest}", *said[1:]]))
    if any(layer.found.numbers.get("cause") == "unrelated" for layer in here):
        parts.append("the weights of the two files are not correlated")
    return "; ".join(parts)


def _as_asked(layers: Sequence[LayerVersion], asked: Sequence[Expectation]) -> list[str]:
    """How many layers are as --expect asks, and of which kind those are that are not."""
    if not asked:
        return []
    failed = []
    meant: set[str] = set()
    for what in Expected:
        own = [each for each in asked if each.what is what]
        of = [layer for layer in layers if any(each.means(_asked_by(layer)) for each in own)]
        bad = [layer for layer in of if any(each.fails(layer) for each in own)]
        meant.update(map(_asked_by, of))
        if bad:
            which = "the layer" if len(of) == 1 else f"{len(bad)} of {len(of)} layers"
            be = "is" if len(bad) == 1 else "are"
            failed.append(f"{which} that should be {what.value} {be} not")
    if failed or not meant:
        return failed
    be = "layer that --expect names is as it asks"
    if len(meant) > 1:
        be = "layers that --expect names are as it asks"
    return [f"{'the' if len(meant) == 1 else f'all {len(meant)}'} {be}"]


def _asked_by(layer: LayerVersion) -> str:
    return layer.name or layer.other_name


def in_first(layer: LayerVersion) -> bool:
    """Whether the first file has the layer; the name of one that both have may be empty."""
    return layer.how is not None or bool(layer.name)


def in_second(layer: LayerVersion) -> bool:
    """Whether the second file has the layer."""
    return layer.how is not None or not layer.name


def has_partner(layer: LayerVersion) -> bool:
    """Whether the other file has the layer, or the convolution that it was folded into."""
    return layer.how is not None or layer.found.state is State.FOLDED


def _number(layers: Sequence[LayerVersion], total: int, *, first: bool = True) -> str:
    number = len(layers)
    if number == total:
        return {1: called(layers[0]), 2: "both layers"}.get(total, f"all {total} layers")
    return f"{number} of {total} layers" if first else str(number)


def _which(layers: Sequence[LayerVersion], total: int) -> str:
    """The layers by name, or how many there are."""
    if len(layers) == total or len(layers) > MOST_NAMES:
        return _number(layers, total)
    return examples([called(layer) for layer in layers])


def _fault(group: Group) -> str:
    """What is not as it should be in the layers of a state."""
    causes = {layer.found.numbers.get("cause") for layer in group.layers}
    claims = {brief(layer.found) for layer in group.layers}
    if len(claims) > 1 and group.state is State.CONVENTION:
        claims = set(map(without_numbers, claims))
    if group.state in CLAIMED and len(claims) == 1 and not _all_new(group):
        claim = group.layers[0].found.what if len(group.layers) == 1 else claims.pop()
        if claim and len(claim) <= MOST_SAID:
            return claim
    if group.state is State.ORDER and causes == {"exchanged"} and len(group.layers) == 2:
        return "the tensors are exchanged"
    if group.state is State.ORDER and causes <= OTHER_LAYERS:
        return "the tensors are another layer's"
    own = any(layer.found.numbers.get("own_moved", True) for layer in group.layers)
    if group.state is State.WEIGHTS and (causes == {"before"} or not own):
        return "only the weights before the layer moved"
    if group.state is State.RESET and _all_new(group):
        return "the tensors are those of a network before training"
    if group.state is State.RESET and causes == {"half"}:
        return "the mean or the variance was reset"
    if group.state is State.EMPTY and causes == {"half"}:
        return "the variance is 0 in every channel"
    return FAULTS[group.state]


def _all_new(group: Group) -> bool:
    """Whether the layers are those before training; one without weight and bias cannot show it."""
    new = [layer.found.numbers.get("cause") == "untrained" for layer in group.layers]
    bare = [layer.measures.weight_change is None for layer in group.layers]
    return any(new) and all(map(max, new, bare))


def _folded(layers: Sequence[LayerVersion]) -> str:
    """That layers were folded, in which file, and whether rightly."""
    wrong = sum(bool(layer.found.numbers.get("fault")) for layer in layers)
    said = "was folded into the layer before it"
    if len(layers) > 1:
        said = "were folded into the layers before them"
    apart = sum(layer.found.numbers.get("cause") == "scale-and-shift" for layer in layers)
    if apart == len(layers):
        said = "became a scale and a shift"
    elif apart:
        said = f"were folded, {len(layers) - apart} into the layer before and {apart} into a "
        said += "scale and a shift"
    if all(layer.found.numbers.get("in") == "first" for layer in layers):
        said += " in the first file"
    unknown = sum(layer.found.numbers.get("bias_known") is False for layer in layers)
    if unknown and not wrong:
        said += f", and {counted(unknown, 'bias', 'biases')} could not be compared"
    if not wrong:
        return said
    return f"{said}, {'wrongly' if wrong == len(layers) else f'{wrong} of them wrongly'}"


def _phrase(group: Group) -> str:
    """What happened to the layers of a state, behind their number."""
    one = len(group.layers) == 1
    be, were = ("is", "was") if one else ("are", "were")
    if group.state is State.IDENTICAL:
        return f"{be} identical, bit for bit"
    if group.state is State.ROUNDED:
        dtypes = {layer.found.numbers.get("dtype") for layer in group.layers}
        dtype = dtypes.pop() if len(dtypes) == 1 else None
        return f"{be} equal up to {f'the rounding of {dtype}' if dtype else 'rounding'}"
    if group.state is State.COUNTER:
        return f"{'differs' if one else 'differ'} in the counter alone"
    if group.state is State.FOLDED:
        return _folded(group.layers)
    if group.state is State.TRAINED:
        return f"{were} trained{_on(group.layers)}"
    return "differs" if one else "differ"


def _on(layers: Sequence[LayerVersion]) -> str:
    """For how many batches the layers were trained, and in which direction."""
    ends = Numbers.of(layers).batches
    if ends is None or ends[0] == ends[1] == 0:
        return " on"
    if ends[1] < 0:
        less = (batches_said((-ends[1], -ends[0])) or "").replace(" .. ", " to ")
        return f" in between, the counter {less} lower in the second file"
    if ends[0] < 0:
        return " on"
    said = (batches_said(ends) or "").replace(" .. ", " to ")
    return f" on for {said} batch{'es' * (said != '1')}"


def remarks(compared: Comparison, told: Collection[str]) -> tuple[str, ...]:
    """Which layers have no partner, which were matched without a name, and the other weights.

    Those without a partner that are `told` in findings are not said again.
    """
    said = []
    for own, path in ((True, compared.other_path), (False, compared.path)):
        alone = [
            layer
            for layer in compared.layers
            if not has_partner(layer) and in_first(layer) is own and called(layer) not in told
        ]
        if alone:
            which = "first" if own else "second"
            have = "has" if len(alone) == 1 else "have"
            said.append(
                f"{counted(len(alone), 'layer')} of the {which} file {have} no partner in {path}: "
                f"{examples([called(layer) for layer in alone])}"
            )
    by_order = [layer for layer in compared.matched if layer.how is How.ORDER]
    if by_order:
        first = by_order[0]
        more = f" and {len(by_order) - 1} more" if len(by_order) > 1 else ""
        said.append(
            f"matched by shape and order ({first.sure.value}): {first.name} with "
            f"{first.other_name}{more}"
        )
    said += limits(compared)
    if compared.others is not None:
        said.append(_others(compared.others))
    return tuple(said)


def _others(others: OtherWeights) -> str:
    """How the weights compare that belong to no BatchNorm layer, in one line."""
    return f"other weights: {', '.join(_of_others(others)) or 'there are none'}"


def _of_others(others: OtherWeights) -> Iterator[str]:
    if others.moved:
        total = len(others.moved) + others.same + others.rounded
        yield f"{len(others.moved)} of {total} tensors moved ({examples(others.moved, 2)})"
    if others.rounded:
        yield f"{others.rounded} equal up to rounding"
    if others.same:
        yield f"{others.same} the same bit for bit"
    if others.unread:
        yield f"{len(others.unread)} could not be read ({examples(others.unread, 2)})"
    for names, which in ((others.alone, "first"), (others.other_alone, "second")):
        if names:
            yield f"{len(names)} in the {which} file alone ({examples(names, 2)})"


def nothing_in_common(compared: Comparison, why: tuple[str, str] = ("", "")) -> str:
    """That there is no layer to compare, and what the files have.

    `why` says of each file why it has no layer, where that shows.
    """
    first = [label(layer.name) for layer in compared.layers if in_first(layer)]
    second = [label(layer.other_name) for layer in compared.layers if in_second(layer)]
    one, two = specs(compared)
    if not first and not second:
        both = f"there is no BatchNorm layer in {one} or {two}"
        reasons = list(dict.fromkeys(filter(None, why)))
        if len(reasons) == 1 and all(why):
            reasons = [reasons[0].replace("its ", "each one's ", 1)]
        return f"{both}: {'; '.join(reasons)}" if reasons else both
    for names, path, reason in ((first, one, why[0]), (second, two, why[1])):
        if not names:
            return f"there is no BatchNorm layer in {path}{f': {reason}' * bool(reason)}"
    return (
        f"no layer of {one} is in {two}: the first has {examples(first, 2)}, the second "
        f"{examples(second, 2)}"
    )
