"""Tensors of some of the files that no training gives: NaN, 0 and 1 after training, all 0."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING

from bncli.changes.pair import Side
from bncli.changes.states.spoilt import initial, is_odd
from bncli.light import dataclass, np
from bncli.model.changes import State
from bncli.model.many import Spoilt
from bncli.rulebook.interface import examples, odd_values
from bncli.rulebook.origin import all_zero
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from bncli.changes.many.common import Common
    from bncli.model.many import FileRow

WHAT = {
    State.RESET: "the mean is 0 and the variance 1, which they are not in other files",
    State.EMPTY: "mean and variance are 0, which they are not in other files",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one layer holds in one file, as far as it is special.

    `odd` is the part of its claim for each tensor with NaN, Inf or a negative variance, `plain`
    whether its statistics are 0 and 1 or all 0, and `fresh` that weight, bias and counter are those
    of a new layer, too.
    """

    odd: tuple[tuple[str, str], ...] = ()
    plain: State | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """What is special about the layers: `layers` has a `Seen` for each file, by their names.

    `new` are the files in which every layer is one before any training.
    """

    layers: dict[str, tuple[Seen, ...]]
    new: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Find the new files."""
        rows = list(zip(*self.layers.values(), strict=True))
        new = [file for file, seen in enumerate(rows) if all(each.fresh for each in seen)]
        object.__setattr__(self, "new", frozenset(new if len(new) < len(rows) else ()))

    @classmethod
    def of(cls, common: Common) -> Health:
        """Of the layers that all files have. Raises FileError."""
        return cls(
            {
                name: tuple(_seen(Side.read(refs)) for refs in versions)
                for name, versions in zip(common.names, common.layers, strict=True)
            }
        )

    def in_order(self, order: Sequence[int]) -> Health:
        """The same with the files in another order."""
        return Health({name: tuple(row[at] for at in order) for name, row in self.layers.items()})

    def steady(self) -> set[str]:
        """The layers whose counters were not set back along with their statistics."""
        return {
            name
            for name, row in self.layers.items()
            if not any(seen.plain and file not in self.new for file, seen in enumerate(row))
        }

    def state(self, name: str, file: int, *, series: bool) -> State | None:
        """What is wrong with a layer in a file.

        Statistics of a new layer are all right where training begins: in a file that is new as a
        whole, and in a `series` where the layer was new in all files before.
        """
        row = self.layers[name]
        seen = row[file]
        if seen.odd:
            return State.IMPOSSIBLE
        if seen.plain is None or all(each.plain for each in row) or file in self.new:
            return None
        unused = series and seen.fresh and all(each.fresh for each in row[:file])
        return None if unused else seen.plain

    def bad(self, name: str, *, series: bool) -> frozenset[int]:
        """The files in which something is wrong with a layer."""
        files = range(len(self.layers[name]))
        return frozenset(at for at in files if self.state(name, at, series=series))


def spoilt(paths: Sequence[str], health: Health, *, series: bool) -> tuple[Spoilt, ...]:
    """What is wrong in each file: a row for each of its states."""
    found: list[Spoilt] = []
    for file, path in enumerate(paths):
        layers: dict[State, list[str]] = {}
        for name in health.layers:
            state = health.state(name, file, series=series)
            if state is not None:
                layers.setdefault(state, []).append(name)
        for state, names in layers.items():
            rows = [health.layers[name][file] for name in names]
            what = WHAT.get(state) or _impossible(rows)
            found.append(Spoilt(path, state, what, tuple(names), _tensors(rows)))
    return tuple(found)


def where_spoilt(spoilt: Spoilt) -> str:
    """What is wrong in a file, and in which layers, in a few words."""
    many = len(spoilt.layers) > 1
    what = {
        State.RESET: "the statistics of {} are 0 and 1",
        State.EMPTY: "the statistics of {} are all 0",
    }.get(spoilt.state, "{} hold impossible values" if many else "{} holds impossible values")
    return what.format(examples(spoilt.layers, 2))


def marked(
    rows: Sequence[FileRow], spoilt: Sequence[Spoilt], new: Collection[str]
) -> tuple[FileRow, ...]:
    """Rows that say what is wrong in their files, too."""
    said: dict[str, list[str]] = {row.path: [row.what] if row.what else [] for row in rows}
    for each in spoilt:
        said[each.path].append(where_spoilt(each))
    for path in new:
        said[path].append("a network before any training")
    return tuple(replace(row, what="; ".join(said[row.path])) for row in rows)


def _seen(side: Side) -> Seen:
    told = []
    for leaf in VECTORS:
        values = side.vector(leaf)
        if values is not None and (mask := is_odd(leaf, values)).any():
            told.append((leaf, f"{leaf} is {odd_values(values, mask)}"))
    if told:
        return Seen(tuple(told))
    plain = State.RESET if initial(side) else State.EMPTY if all_zero(side.layer) else None
    return Seen((), plain, plain is not None and _fresh(side))


def _fresh(side: Side) -> bool:
    """Whether weight, bias and counter are those of a new layer, as far as it has them."""
    weight, bias = side.layer.weight, side.layer.bias
    return (
        side.counter in (0, None)
        and (weight is None or bool(np.isin(weight, (0, 1)).all()))
        and (bias is None or not bias.any())
    )


def _tensors(rows: Sequence[Seen]) -> tuple[str, ...]:
    """The tensors that hold impossible values, in the order of `VECTORS`."""
    leaves = {leaf for seen in rows for leaf, _ in seen.odd}
    return tuple(leaf for leaf in VECTORS if leaf in leaves)


def _impossible(rows: Sequence[Seen]) -> str:
    tensors = _tensors(rows)
    if len(rows) == 1 and len(tensors) == 1:
        return rows[0].odd[0][1]
    return f"NaN, Inf or negative variances in {examples(tensors, len(tensors))}"
