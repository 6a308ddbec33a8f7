"""Two files compared: their layers are matched, read and dropped pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bncli.changes.contents import compared
from bncli.changes.kinship import kinship
from bncli.changes.matching import matched
from bncli.changes.matching.behind import Fronts
from bncli.changes.others import other_weights
from bncli.changes.pair import Files, LayerPair, Side
from bncli.changes.partners import Weights, partners
from bncli.changes.states import explain, folded
from bncli.light import dataclass
from bncli.loaders.names import under
from bncli.model.changes import Comparison, Found, LayerVersion, OtherWeights, Same, State
from bncli.process.progress import progress
from bncli.report import Certainty
from bncli.rulebook.interface import in_prose
from bncli.state_dict import LayerRefs
from bncli.state_dict.in_front import in_front

if TYPE_CHECKING:
    from bncli.changes.matching import Match
    from bncli.model import TensorFile, TensorRef


def compare(
    a: TensorFile, b: TensorFile, parts: tuple[str, str] = ("", ""), *, weights: bool = False
) -> Comparison:
    """What happened to each BatchNorm layer of `a` on the way to `b`.

    `parts` are the parts of the files to compare, as prefixes without a dot at their end, "" for
    all of a file. `weights` compares all other tensors, too. One pair of layers is in memory at a
    time. Raises FileError where a file is damaged, MissingTensorError where it has no such part.
    """
    matches = matched(a, b, parts)
    correlation, related = kinship(a, b, matches)
    files = Files(
        {match.a.name: match.a for match in matches if match.a is not None},
        {match.b.name: match.b for match in matches if match.b is not None},
        related,
        {match.a.name: match.b.name for match in matches if match.a and match.b},
    )
    fronts = in_front(a, files.layers), in_front(b, files.other_layers)
    inside = _inside(a, parts[0]), _inside(b, parts[1])
    layers = _together(tuple(_versions(matches, files, fronts, inside)))
    if related is False and any(layer.found.state is State.ORDER for layer in layers):
        related = None  # the weights of layers in each other's places have little in common
    return Comparison(
        str(a.path),
        str(b.path),
        *parts,
        layers,
        correlation,
        related,
        _others(files, fronts, parts, inside) if weights else None,
        containers=(a.container, b.container),
    )


def _versions(
    matches: Sequence[Match],
    files: Files,
    fronts: tuple[Fronts, Fronts],
    inside: tuple[TensorFile, TensorFile],
) -> Iterator[LayerVersion]:
    """Each match, looked at."""
    there = _There.of(matches, fronts, inside)
    with progress("layers", len(matches)) as advance:
        for match in matches:
            if match.a is not None and match.b is not None:
                yield _version(match, match.a, match.b, files, fronts)
            else:
                yield _alone(match, files, fronts, there)
            advance(1)


def _version(
    match: Match,
    a: LayerRefs,
    b: LayerRefs,
    files: Files,
    fronts: tuple[Fronts, Fronts],
) -> LayerVersion:
    """A layer that both files have."""
    sides = Side.read(a, fronts[0].get(a.name)), Side.read(b, fronts[1].get(b.name))
    pair = LayerPair(*sides, before=_front(*sides))
    found = explain(pair, files)
    if match.sure is not Certainty.CERTAIN and found.state not in (State.IDENTICAL, State.ROUNDED):
        found = replace(found, certainty=match.sure)
    vectors = [v for v in sides[0].layer.vectors.values() if v is not None]
    return LayerVersion(
        a.name,
        b.name,
        match.how,
        match.sure,
        found,
        pair.measures,
        channels=len(vectors[0]) if vectors else None,
        before=pair.before,
        before_name=sides[0].before.name if sides[0].before is not None else "",
        out_of_order=match.out_of_order,
        eps=(sides[0].eps, sides[1].eps),
        momentum=(sides[0].momentum, sides[1].momentum),
        modules=(a.module, b.module),
    )


def _front(a: Side, b: Side) -> Same | None:
    """How the weights before two layers compare: as the one of weight and bias that moved more."""
    if a.before is None or b.before is None:
        return None
    found = compared(a.before.weight, b.before.weight)
    if found is None or found is Same.MOVED or a.before.bias is None or b.before.bias is None:
        return found
    bias = compared(a.before.bias, b.before.bias)
    return found if bias is None or bias is Same.SAME else bias


@dataclass(frozen=True, slots=True)
class _There:
    """What stands before layers of one file alone, as the other file has it: first, second.

    `vectors` are those of the other file, any of which may be a bias without a name that tells it.
    """

    fronts: tuple[Fronts, Fronts]
    vectors: tuple[Sequence[TensorRef], Sequence[TensorRef]]

    @classmethod
    def of(
        cls,
        matches: Sequence[Match],
        fronts: tuple[Fronts, Fronts],
        inside: tuple[TensorFile, TensorFile],
    ) -> _There:
        """Of all layers; nothing where each has its partner."""
        if all(match.a is not None and match.b is not None for match in matches):
            return cls(({}, {}), ((), ()))
        ours, theirs = map(Weights.of, inside)
        alone = (
            {
                name: fronts[0][name]
                for each in matches
                if each.b is None and each.a is not None
                if (name := each.a.name) in fronts[0]
            },
            {
                name: fronts[1][name]
                for each in matches
                if each.a is None and each.b is not None
                if (name := each.b.name) in fronts[1]
            },
        )
        found = partners(alone[0], ours, theirs), partners(alone[1], theirs, ours)
        return cls(found, (theirs.vectors, ours.vectors))


def _alone(
    match: Match,
    files: Files,
    fronts: tuple[Fronts, Fronts],
    there: _There,
) -> LayerVersion:
    """A layer of one file alone: it was folded, or lost, or the other file lacks its part."""
    first = match.a is not None
    refs = match.a if match.a is not None else match.b
    assert refs is not None
    side = Side.read(refs, fronts[0 if first else 1].get(refs.name))
    after = there.fronts[0 if first else 1].get(refs.name)
    found = folded.gone(side, after, files, there.vectors[0 if first else 1])
    where = "second" if first else "first"
    if found is None:
        same = None
        if after is not None and side.before is not None:
            same = compared(side.before.weight, after.weight)
        found = _lost(where, same, "" if after is None else after.name)
    names = (refs.name, "") if first else ("", refs.name)
    return LayerVersion(
        *names,
        None,
        match.sure,
        found,
        channels=next((ref.numel for ref in refs.tensors.values() if ref.ndim == 1), None),
        before_name=side.before.name if side.before is not None else "",
    )


def _lost(where: str, same: Same | None, convolution: str) -> Found:
    """The state of a layer that one file lacks: its convolution may be there, as it was or not."""
    if same is not Same.MOVED:
        cause = "alone" if same is None else "gone"
        numbers = {"cause": cause, "missing_in": where}
        return Found(State.LOST, f"it is not in the {where} file", numbers=numbers)
    other = "first" if where == "second" else "second"
    return Found(
        State.LOST,
        f"it is gone, and {in_prose(convolution)} is not what folding it gives",
        f"The {where} file has no such layer, and the weight in front of it is not that of the "
        f"{other} file times weight / sqrt(running_var + eps).",
        numbers={"cause": "not-folded", "missing_in": where, "convolution": convolution},
        hint="Fold the layer again, or keep it. If the weights were trained on or quantised after "
        "they were folded, compare a file from before that.",
    )


def _inside(file: TensorFile, part: str) -> TensorFile:
    """A part of a file, by the names that its tensors have there."""
    begin = len(part) + 1 if part else 0
    tensors = under(file.path, file.tensors, part)
    return replace(file, tensors={name[begin:]: ref for name, ref in tensors.items()})


def _together(layers: tuple[LayerVersion, ...]) -> tuple[LayerVersion, ...]:
    """The layers, each with what those of the others tell of it.

    One whose counter fell while others' rose was not trained on. One that the first file lacks is
    new in the second, whose weights were trained on since, unless other layers were folded.
    """
    layers = tuple(map(partial(_new_if_none_was_folded, every=layers), layers))
    causes = {layer.found.numbers.get("cause") for layer in layers}
    if not {"trained", "backwards"} <= causes:
        return layers
    return tuple(
        replace(layer, found=_fell(layer.found, layer.sure))
        if layer.found.numbers.get("cause") == "backwards"
        else layer
        for layer in layers
    )


def _new_if_none_was_folded(layer: LayerVersion, every: Sequence[LayerVersion]) -> LayerVersion:
    numbers = layer.found.numbers
    if (numbers.get("cause"), numbers.get("missing_in")) != ("not-folded", "first"):
        return layer
    if any(each.found.state is State.FOLDED for each in every):
        return layer
    return replace(layer, found=_lost("first", None, ""))


def _fell(found: Found, sure: Certainty) -> Found:
    """The state of a layer whose counter alone fell."""
    return Found(
        State.DIFFERENT,
        found.what,
        "The counters of other layers rose.",
        sure,
        numbers={"cause": "counter-fell"},
        hint="Find out whether the layer was built anew between the two files.",
    )


def _others(
    files: Files,
    fronts: tuple[Fronts, Fronts],
    parts: tuple[str, str],
    inside: tuple[TensorFile, TensorFile],
) -> OtherWeights:
    """How the tensors of the parts compare that are not compared with the layers."""
    used = _used(files.layers, fronts[0]), _used(files.other_layers, fronts[1])
    ours, theirs = (
        {name[len(part) + 1 :] if part else name for name in names}
        for names, part in zip(used, parts, strict=True)
    )
    return other_weights(*inside, ours, theirs)


def _used(layers: Mapping[str, LayerRefs], fronts: Fronts) -> set[str]:
    """The names of the tensors that are compared with the layers."""
    of_layers = {ref.name for refs in layers.values() for ref in refs.tensors.values()}
    before = {ref.name for each in fronts.values() for ref in (each.weight, each.bias) if ref}
    return of_layers | before
