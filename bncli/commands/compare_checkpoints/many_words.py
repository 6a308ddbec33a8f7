"""What the report on many files says of them, in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bncli.changes.many.common import names_of
from bncli.changes.many.spoilt import where_spoilt
from bncli.model.many import Counted, Kind, Made
from bncli.rulebook.interface import examples, percent
from bncli.sections.answer import counted, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.many import Many, Origin
    from bncli.report import Value


def weights_said(origin: Origin) -> str | None:
    """The weights of a sum that are not all alike, in the order of the files.

    One that is nothing beside the largest, or the initial values' own, is what rounding leaves.
    """
    if origin.made not in (Made.WEIGHTED, Made.INITIAL) or not origin.unique:
        return None
    least = 1e-5 * max(map(abs, (*origin.weights, origin.initial or 0)))
    return ", ".join(percent(w if abs(w) > least else 0) for w in origin.weights) or None


def made(origins: Sequence[Origin]) -> str:
    """Where each group comes from; those that come from the same are told together."""
    groups: dict[str, list[str]] = {}
    for origin in origins:
        groups.setdefault(origin.what, []).append(origin.group)
    said = []
    for what, names in groups.items():
        untold = all(each.made is Made.UNTOLD for each in origins if each.what == what)
        verb = "is" if len(names) == 1 and names[0].startswith("running_") else "are"
        is_what = what.replace("; ", ", ")
        some = examples(names, len(names))
        said.append(f"{some}: {is_what}" if untold else f"{some} {verb} {is_what}")
    return "; ".join(said)


def kind(many: Many) -> str:
    """What the files are taken for, and why."""
    if many.kind is Kind.SERIES:
        if many.counted is Counted.NONE:
            return "no counters; a series in the order given, as the weights move on (likely)"
        if many.wanders:
            return (
                "a series by its counters (likely), or clients: the weights do not move on from "
                "file to file"
            )
        order = "sorted by" if many.reordered else "in the order of"
        return f"a series, {order} their counters: each file against the one before"
    if many.related is False:
        return "some of these networks were trained apart: each file against the first"
    if many.kind is Kind.CLIENTS and many.counted is not Counted.EQUAL:
        return (
            "weights about equally far from each other, as of clients (likely), no series: each "
            "against the first"
        )
    if many.counted is Counted.NONE:
        what = "equal parameters, as of ranks" if many.kind is Kind.RANKS else "their order in time"
        unknown = "" if many.kind is Kind.RANKS else " is not known"
        return f"no counters; {what}{unknown}: each against the first"
    return {
        Kind.RANKS: "equal parameters and counters, as of ranks: each against the first",
        Kind.CLIENTS: "equal counters and other parameters, as of clients: each against the first",
        Kind.APART: "neither a series nor ranks: each file against the first",
    }.get(many.kind, "")


def happened(many: Many) -> str:
    """What is special about the files as a whole."""
    names = names_of([*many.paths, *(each.path for each in many.strangers)])
    wrong: dict[str, list[str]] = {}
    for each in many.spoilt:
        wrong.setdefault(where_spoilt(each), []).append(names[each.path])
    said = [f"in {examples(files)}, {what}" for what, files in wrong.items()]
    if many.strangers:
        files = examples([names[each.path] for each in many.strangers])
        is_apart = "was" if len(many.strangers) == 1 else "were"
        said.append(f"{files} {is_apart} trained apart from the others")
    said += [f"{names[path]} is a network before any training" for path in many.new]
    for jump in many.jumps:
        after = {True: " and come back", False: " and stay there", None: ""}[jump.back]
        if jump.path == many.paths[0]:
            here = examples(jump.layers, 2)
            said.append(f"{names[jump.path]} is far from the files after it in {here}")
        else:
            said.append(f"the statistics of {names[jump.path]} jump{after}")
    for still in many.stills:
        which = examples(still.layers)
        said.append(f"the statistics of {which} stand still since {names[still.since]}")
    if many.ranks is not None:
        number = f"{len(many.ranks.layers)} of {counted(many.layers, 'layer')}"
        said.append(f"the statistics differ in {number}, most in {many.ranks.worst}")
    if many.related is False:
        runs = [f"{examples([names[path] for path in run])} are of one run" for run in many.runs]
        said.append(", ".join(("some of these networks were trained apart", *runs)))
    said = said or ["no file stands out"]
    if many.drift is not None:
        first, last = (short(value) for value in many.drift)
        said.append(
            f"the first third of the layers moves by {first} std a file, the last by {last}"
        )
    return "; ".join(said)


def states(many: Many) -> list[list[Value]]:
    """How many files jump, and how many layers stand still or differ."""
    counts = (
        ("another-network", len(many.strangers)),
        *Counter(each.state.value for each in many.spoilt).items(),
        ("jump", len(many.jumps)),
        ("still", sum(len(still.layers) for still in many.stills)),
        ("statistics-differ", len(many.ranks.layers) if many.ranks is not None else 0),
    )
    return [[state, number] for state, number in counts if number]


def layers(many: Many) -> str:
    """How many layers all files have."""
    return f"{counted(many.layers, 'BatchNorm layer')} in all of them"


def unmatched(many: Many) -> tuple[str, ...]:
    """A line on what only some of the files have, () where it is nothing."""
    if not many.unmatched or not many.layers:
        return ()
    files = names_of([*many.paths, many.target, *(path for path, _ in many.lacking)])
    said: dict[tuple[str, ...], list[str]] = {}
    for path, names in many.lacking:
        said.setdefault(names, []).append(files[path])
    return tuple(
        f"{examples(names)} {'is' if len(names) == 1 else 'are'} missing in {examples(where)}"
        for names, where in said.items()
    )


def nothing(many: Many) -> str:
    """Why no layer was compared."""
    if not many.unmatched:
        return "there is no BatchNorm layer in the first file"
    files = names_of([*many.paths, many.target, *(path for path, _ in many.lacking)])
    none = [files[path] for path, names in many.lacking if len(names) == many.unmatched]
    first = files[many.paths[0]]
    if not none:
        return f"none of the {many.unmatched} layers of {first} is in all others"
    if many.unmatched == 1:
        return f"the layer of {first} is not in {examples(none)}"
    return f"none of the {many.unmatched} layers of {first} is in {examples(none)}"
