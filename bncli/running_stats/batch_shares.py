"""The statistics of some of the batches as bytes, for another process that puts all in order.

An .npz without pickles. `batch` has the batches' numbers, and every other array a row for each of
them; `fourth` and `few/...` for each of those that `fourth_of` and `few_of` name.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.model import ChannelStats
from bncli.running_stats.collect import BatchNumbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FEW = ("shift", "offset", "var", "third", "fourth")
"""What the kurtosis of several small batches takes of each."""


def packed(batches: Mapping[int, BatchNumbers], num_features: int) -> bytes:
    """The numbers of batches, by their place in the order from 0."""
    rows = list(batches.values())
    cumulants = [i for i, row in enumerate(rows) if isinstance(row.fourth, np.ndarray)]
    few = [(i, row.fourth) for i, row in enumerate(rows) if isinstance(row.fourth, ChannelStats)]
    held = [row.held for row in rows if row.held is not None]
    arrays: dict[str, NDArray[Any]] = {
        "batch": np.array([*batches], np.int64),
        "count": np.array([row.count for row in rows], np.int64),
        "samples": np.array([row.samples for row in rows], np.int64),
        "mean": _stacked([row.mean for row in rows], num_features),
        "var": _stacked([row.var for row in rows], num_features),
        "squares": _stacked([row.squares for row in rows], num_features),
        "held": np.array(held, np.float32).reshape(len(held), 2, num_features),
        "fourth_of": np.array(cumulants, np.int64),
        "fourth": np.array([rows[i].fourth for i in cumulants]).reshape(-1, 2, num_features),
        "few_of": np.array([i for i, _ in few], np.int64),
        "engines": np.frombuffer(json.dumps([row.engines for row in rows]).encode(), np.uint8),
    }
    for name in FEW:
        arrays[f"few/{name}"] = _stacked([getattr(stats, name) for _, stats in few], num_features)
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def unpacked(data: bytes) -> dict[int, BatchNumbers]:
    """What `packed` was given."""
    with np.load(BytesIO(data), allow_pickle=False) as members:
        arrays = {name: members[name] for name in members.files}
    engines = json.loads(arrays["engines"].tobytes())
    fourth: dict[int, Any] = dict(zip(arrays["fourth_of"].tolist(), arrays["fourth"], strict=True))
    for row, i in enumerate(arrays["few_of"].tolist()):
        few = {name: arrays[f"few/{name}"][row] for name in FEW}
        fourth[i] = _small(int(arrays["count"][i]), few)
    held = arrays["held"] if len(arrays["held"]) else [None] * len(arrays["batch"])
    return {
        number: BatchNumbers(
            count=int(arrays["count"][i]),
            samples=int(arrays["samples"][i]),
            mean=arrays["mean"][i],
            var=arrays["var"][i],
            squares=arrays["squares"][i],
            held=held[i],
            fourth=fourth.get(i),
            engines=tuple(engines[i]),
        )
        for i, number in enumerate(arrays["batch"].tolist())
    }


def _stacked(rows: list[NDArray[Any]], num_features: int) -> NDArray[Any]:
    """Rows of channels as one array, of none as well."""
    return np.array(rows, np.float64).reshape(len(rows), num_features)


def _small(count: int, few: dict[str, NDArray[Any]]) -> ChannelStats:
    """The statistics of a small batch, of which only the moments are known."""
    unknown = np.full(len(few["shift"]), np.nan)
    none = np.zeros(len(unknown), np.int64)
    return ChannelStats(
        count=count,
        min=unknown,
        max=unknown,
        nan=none,
        posinf=none,
        neginf=none,
        first_nonfinite=(None,) * len(unknown),
        shift=few["shift"],
        offset=few["offset"],
        var=few["var"],
        third=few["third"],
        fourth=few["fourth"],
    )
