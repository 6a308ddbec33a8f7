"""Several statistics files of the same layers as one: what all of their batches come to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cmp_to_key
from itertools import zip_longest
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError, UsageError
from bncli.light import np
from bncli.loaders.names import listed, quoted
from bncli.loaders.parts import check_parts
from bncli.loaders.statistics.columns import LEAVES
from bncli.loaders.statistics.fields import plain
from bncli.loaders.statistics.file import open_statistics
from bncli.model.capture import Capture, OutputSums, Propagation, WatchedLayer
from bncli.moments.batches import merge_sums
from bncli.report import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormState


def read_statistics(paths: Sequence[Path | str]) -> Capture:
    """The capture in one file, or in several of the same layers, merged.

    Raises FileError as `open_statistics` and `merge_captures`.
    """
    return merge_captures(paths, [open_statistics(path) for path in paths])


def merge_captures(paths: Sequence[Path | str], captures: Sequence[Capture]) -> Capture:
    """The captures of these files as one, the same bits for any order of them.

    Raises FileError as `check_parts`, and where two cannot be merged, which it names: other layers
    or other weights.
    """
    if not captures:
        raise UsageError("there is no statistics file to read.")
    whole = check_parts(paths, [capture.part for capture in captures])
    check_alike(paths, captures)
    return captures[0] if len(captures) == 1 else replace(merged(captures), part=whole)


def check_alike(paths: Sequence[Path | str], captures: Sequence[Capture]) -> None:
    """Raise FileError where one of the captures is of other layers or weights than the first."""
    first = captures[0]
    for path, capture in zip(paths[1:], captures[1:], strict=True):
        if fact := _difference(first, capture, printable(str(paths[0]))):
            raise FileError(path, f"{fact}; only files of one model can be merged.")
        for key, what in (("dtype", "inputs are of"), ("kind", "inputs are for")):
            mine, theirs = (each.source.get(key) for each in (first, capture))
            if capture.shard[1] > 1 and isinstance(mine, str) and mine != theirs:
                raise FileError(
                    path,
                    f"its {what} {quoted(str(theirs), 40)}, but those of {printable(str(paths[0]))}"
                    f" {quoted(mine, 40)}; all inputs of a whole must have the same dtype (--dtype "
                    "casts them) and the same number of axes.",
                )


def merged(captures: Sequence[Capture]) -> Capture:
    """Captures of the same layers as one, the same bits for any order of them."""
    captures = _trained(sorted(captures, key=cmp_to_key(_order)))
    first = captures[0]
    rounds = [capture.rounds for capture in captures if capture.rounds is not None]
    return Capture(
        tuple(
            _layer([capture.layers[i] for capture in captures]) for i in range(len(first.layers))
        ),
        _outputs([capture.outputs for capture in captures]),
        still_training=_all_of([capture.still_training for capture in captures]),
        dropout=_all_of([capture.dropout for capture in captures]),
        rounds=max(rounds, default=None),
        settled=all(capture.settled for capture in captures),
        renewals=max(1, sum(each.renewals for each in captures if each.rounds is not None)),
        weights_moved=any(capture.weights_moved for capture in captures),
        refused_training=_either([capture.refused_training for capture in captures]),
        no_gap=_either([capture.no_gap for capture in captures]),
        uncalled=_all_of([capture.uncalled for capture in captures]),
        left_out=_all_of([capture.left_out for capture in captures]),
        source=_source([dict(capture.source) for capture in captures]),
        fingerprint=_fingerprint([capture.fingerprint for capture in captures]),
        per_batch={
            key: _every_batch(captures, [capture.per_batch[key] for capture in captures])
            for key in first.per_batch
            if all(key in capture.per_batch for capture in captures)
        },
    )


def _trained(captures: list[Capture]) -> list[Capture]:
    """The captures without shards whose only batches are of one sample that training refuses.

    One process would have left them out, as others run; so they are named among those.
    """
    refused = [capture for capture in captures if capture.refused_training]
    alone = [capture for capture in refused if capture.shard[1] > 1 and _of_one_sample(capture)]
    if len(refused) == len(captures) or not alone:
        return captures
    rest = [capture for capture in captures if not any(capture is each for each in alone)]
    names = [
        f"batch {number + 1} of shard {capture.part.k}/{capture.part.n}"
        for capture in alone
        for number in range(_batch_count(capture))
    ]
    return [replace(rest[0], left_out=(*rest[0].left_out, *names)), *rest[1:]]


def _of_one_sample(capture: Capture) -> bool:
    seen = [layer.seen.get(Propagation.EVAL) for layer in capture.layers[:1]]
    return all(sums is not None and sums.samples == sums.batches for sums in seen)


def _batch_count(capture: Capture) -> int:
    """How many batches a part ran over."""
    return (capture.part.batches or len(capture.part.inputs)) - len(capture.left_out)


def _every_batch(
    captures: Sequence[Capture], tables: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """The batches of all: of shards in the order in which one process would have taken them."""
    whole = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    n = captures[0].part.n
    rows = [len(table["count"]) for table in tables]
    numbers = [_batch_count(capture) for capture in captures]
    calls = {
        divmod(row, number) if number > 0 else (0, row)
        for row, number in zip(rows, numbers, strict=True)
    }
    (often, rest), *other = calls
    if n == 1 or any(each.part.n != n for each in captures) or other or rest or not often:
        return whole
    places = [
        place * n + capture.part.k
        for capture, number in zip(captures, numbers, strict=True)
        for place in range(number)
        for _ in range(often)
    ]
    order = np.argsort(np.array(places), kind="stable")
    return {name: values[order] for name, values in whole.items()}


def _layer(parts: Sequence[WatchedLayer]) -> WatchedLayer:
    """One layer of all captures; what a propagation lacks in one of them comes from the others."""
    seen = {
        propagation: [part.seen[propagation] for part in parts if propagation in part.seen]
        for propagation in Propagation
    }
    return replace(
        parts[0],
        frozen=any(part.frozen for part in parts),
        in_training=any(part.in_training for part in parts),
        calls=max(part.calls for part in parts),
        seen={key: merge_sums(sums) for key, sums in seen.items() if sums},
    )


def _outputs(captured: Sequence[tuple[OutputSums, ...]]) -> tuple[OutputSums, ...]:
    """The outputs of all captures; none where a capture has others, or none."""
    kinds = {tuple((part.name, len(part.mean)) for part in outputs) for outputs in captured}
    if len(kinds) > 1:
        return ()
    return tuple(map(_output, zip(*captured, strict=True)))


def _output(parts: Sequence[OutputSums]) -> OutputSums:
    """One output of all captures: pooled means, and what the parts lie apart added up."""
    parts = sorted(parts, key=_output_content)
    count = sum(part.count for part in parts)
    shift = parts[0].mean
    with np.errstate(all="ignore"):
        offset = np.zeros(len(shift))
        for part in parts:
            offset += (part.mean - shift) * (part.count / count)
        squares = np.zeros(len(shift))
        for part in parts:
            squares += part.squares + np.square((part.mean - shift) - offset) * part.count
    shared = set.intersection(*(set(part.apart) for part in parts))
    apart = {
        each: _sum([part.apart[each] for part in parts]) for each in Propagation if each in shared
    }
    return OutputSums(parts[0].name, count, shift + offset, squares, apart)


def _sum(values: list[float]) -> float:
    """The sum, the same for any order; of what is not finite, as IEEE arithmetic gives it."""
    return fsum(values) if np.isfinite(values).all() else sum(values)


def _all_of(captured: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Names of all captures: in the order of the one, or sorted where they are not the same."""
    if len(set(captured)) == 1:
        return captured[0]
    return tuple(sorted({name for names in captured for name in names}))


def _either(reasons: Sequence[str]) -> str:
    """The reasons of all captures, in order, each once."""
    return "; ".join(sorted(set(filter(None, reasons))))


def _fingerprint(fingerprints: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """That of all: the weights are the same, and may come from several checkpoints.

    So it is where one of these holds them in another dtype.
    """
    stored = {each for one in fingerprints for each in one.get("checkpoint", "").split()}
    whole = dict(fingerprints[0])
    return whole | {"checkpoint": " ".join(sorted(stored))} if stored else whole


def _source(sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where all is from: what all captures say, and of what differs every value, in order."""
    keys = sorted({key for source in sources for key in source})
    whole = {}
    for key in keys:
        given = {_json(source[key]): source[key] for source in sources if key in source}
        values = [given[text] for text in sorted(given)]
        whole[key] = values[0] if len(values) == 1 else values
    return whole


def _json(value: Any) -> str:
    return json.dumps(plain(value), sort_keys=True)


def _order(one: Capture, other: Capture) -> int:
    """Which of two captures of the same layers comes first, by what they differ in."""
    for mine, theirs in zip_longest(_content(one), _content(other)):
        if mine != theirs:
            return -1 if theirs is None or (mine is not None and mine < theirs) else 1
    return 0


def _content(capture: Capture) -> Iterator[Any]:
    """What captures of the same layers differ in, to sort by, one after the other."""
    yield capture.shard
    yield _json(capture.source)
    for layer in capture.layers:
        for propagation in Propagation:
            if sums := layer.seen.get(propagation):
                for field in fields(sums):
                    yield np.asarray(getattr(sums, field.name)).tobytes()
    for table in capture.per_batch.values():
        for array in table.values():
            yield array.tobytes()


def _output_content(part: OutputSums) -> tuple[Any, ...]:
    apart = sorted((key.value, str(value)) for key, value in part.apart.items())
    return part.mean.tobytes(), part.squares.tobytes(), part.count, apart


# ---------------------------------------------------------------------------- what cannot be merged


def _difference(one: Capture, other: Capture, path: str) -> str:
    """In what the layers of the other are not those of the one, "" where they are the same.

    `path` is where the one is from.
    """
    names, others = ([layer.name for layer in capture.layers] for capture in (one, other))
    if names != others:
        unlike = [name for name in (*others, *names) if name not in names or name not in others]
        which = f" ({listed(unlike)})" if unlike else ""
        return f"its layers are not those of {path}, or run in another order{which}"
    for first, second in zip(one.layers, other.layers, strict=True):
        for key, what in (("num_features", "number of channels"), ("order", "place in the model")):
            mine, theirs = getattr(first, key), getattr(second, key)
            if mine != theirs:
                return f"the {what} of '{quoted(second.name)}' is {theirs}, but {mine} in {path}"
        dtypes = [getattr(layer.state, "dtype", None) for layer in (second, first)]
        if None not in dtypes and dtypes[0] != dtypes[1]:
            return f"'{quoted(second.name)}' is {dtypes[0]} in it, but {dtypes[1]} in {path}"
    if one.fingerprint.get("weights") != other.fingerprint.get("weights"):
        return f"the weights of its model differ from those in {path}"
    for first, second in zip(one.layers, other.layers, strict=True):
        if leaf := _changed(first.state, second.state):
            return f"the {leaf} of '{quoted(second.name)}' differs from that in {path}"
    return ""


def _changed(one: BatchNormState | None, other: BatchNormState | None) -> str:
    """What is another in the state of a layer, "" where it is the same."""
    if one is None or other is None:
        return "" if one is other else "state"
    for leaf in LEAVES:
        mine, theirs = getattr(one, leaf), getattr(other, leaf)
        if (mine is None) is not (theirs is None):
            return leaf
        if mine is not None and mine.tobytes() != theirs.tobytes():
            return leaf
    for leaf in ("eps", "momentum"):
        if getattr(one.module, leaf, None) != getattr(other.module, leaf, None):
            return leaf
    return ""
