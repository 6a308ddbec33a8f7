"""What a comparison of two files leaves open: places, weights that were not found, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.commands.compare_checkpoints.answer import called
from bncli.commands.compare_checkpoints.settings import settings
from bncli.model.changes import How, State
from bncli.rulebook.interface import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.model.changes import Comparison, LayerVersion


def limits(compared: Comparison) -> Iterator[str]:
    """Lines on what the comparison does not show, none where it shows all."""
    yield from _by_values(compared.matched)
    yield from _in_front(compared.matched)
    yield from settings(compared)
    yield from _neutral(compared)
    yield from _averages(compared)


def _by_values(layers: Sequence[LayerVersion]) -> Iterator[str]:
    """Which layers were matched by their values, and whether that goes across their order."""
    matched = [layer for layer in layers if layer.how is How.VALUES]
    if not matched:
        return
    crossed = [layer for layer in matched if layer.out_of_order]
    said = f"matched by equal values: {_pairs(matched, 1)}"
    if crossed:
        said += (
            f"; {len(crossed)} of them out of order: {_pairs(crossed, 2)}. Check that the "
            "networks apply them in that order"
        )
    yield said


def _pairs(layers: Sequence[LayerVersion], most: int) -> str:
    return examples([f"{called(layer)} with {layer.other_name}" for layer in layers], most)


def _in_front(layers: Sequence[LayerVersion]) -> Iterator[str]:
    """How many layers were compared without what is in front of them."""
    alike = [layer for layer in layers if layer.found.numbers.get("cause") != "size"]
    unknown = [called(layer) for layer in alike if layer.before is None]
    if not unknown:
        return
    if len(unknown) == len(layers):
        yield (
            "the convolutions before the layers were not found with equal shapes in both "
            "files: only the BatchNorm layers were compared"
        )
        return
    one = len(unknown) == 1
    yield (
        f"the {'convolution' if one else 'convolutions'} before {examples(unknown, 2)} "
        f"{'was' if one else 'were'} not found with equal shapes in both files, and not compared"
    )


def _neutral(compared: Comparison) -> Iterator[str]:
    """That layers of one file have no weight or bias where the other's is 1 or 0 throughout."""
    paths = compared.path, compared.other_path
    for which, path, other_path in (("first", *paths), ("second", *paths[::-1])):
        for leaves, has_none, is_there in (
            (["weight"], "weight", "it is 1"),
            (["bias"], "bias", "it is 0"),
            (["weight", "bias"], "weight and bias", "they are 1 and 0"),
        ):
            named = [
                called(layer)
                for layer in compared.matched
                if layer.found.numbers.get(f"neutral_in_{which}") == leaves
            ]
            if named:
                have = "has" if len(named) == 1 else "have"
                yield (
                    f"{examples(named, 2)} {have} no {has_none} in {other_path}, and in {path} "
                    f"{is_there} throughout: both compute the same"
                )


def _averages(compared: Comparison) -> Iterator[str]:
    """That two networks of one file are compared as an average and its live network elsewhere."""
    moved = {State.TRAINED, State.DIFFERENT, State.STATISTICS, State.WEIGHTS}
    if compared.path == compared.other_path and any(
        layer.found.state in moved for layer in compared.matched
    ):
        yield (
            f"bncli inspect-checkpoint {compared.path} says whether one of the two is an average "
            "whose statistics stayed behind"
        )
