"""The model of each rank of a distributed run, as far as it takes to compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class RankTensor:
    """A parameter or a buffer on one rank.

    `crc` is of its bytes, None where it has none. `values`, float64 (num_features,), are those of a
    BatchNorm layer's tensor.
    """

    dtype: str
    shape: tuple[int, ...]
    crc: int | None
    values: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class RankDifference:
    """A tensor that some ranks have in another way than rank 0.

    `layer` has it under `name`. `ranks` are those that differ in the same way, `what`: "values",
    "dtype", "shape", "missing" where they have no such tensor, or "added" where rank 0 has none.
    `apart` is the largest absolute difference of the values on any of them, None where it is not
    known.
    """

    layer: str
    name: str
    ranks: tuple[int, ...]
    what: str
    apart: float | None


def differences(states: Mapping[int, Mapping[str, RankTensor]]) -> list[RankDifference]:
    """In which tensors the states of ranks, each by the tensors' names, differ from rank 0's.

    A tensor comes once for each way in which ranks have another.
    """
    first = states[0]
    names = dict.fromkeys(name for state in states.values() for name in state)
    found = []
    for name in names:
        mine = first.get(name)
        others: dict[str, list[int]] = {}
        for rank, state in states.items():
            if what := _difference(mine, state.get(name)):
                others.setdefault(what, []).append(rank)
        layer, _, leaf = name.rpartition(".")
        for what, ranks in others.items():
            apart = [_apart(mine, states[rank].get(name)) for rank in ranks]
            known = [each for each in apart if each is not None]
            largest = max(known) if known else None
            found.append(RankDifference(layer, leaf, tuple(ranks), what, largest))
    return found


def _difference(mine: RankTensor | None, other: RankTensor | None) -> str:
    """How another tensor is not this one, "" where it is."""
    if mine is None:
        return "" if other is None else "added"
    if other is None:
        return "missing"
    for key in ("dtype", "shape"):
        if getattr(mine, key) != getattr(other, key):
            return key
    return "values" if mine.crc != other.crc else ""


def _apart(mine: RankTensor | None, other: RankTensor | None) -> float | None:
    """The largest absolute difference of the values; None where it is not known, or not finite."""
    from bncli.light import np

    if mine is None or other is None or mine.values is None or other.values is None:
        return None
    if mine.values.shape != other.values.shape or not mine.values.size:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        apart = float(np.abs(mine.values - other.values).max())
    return apart if np.isfinite(apart) else None
