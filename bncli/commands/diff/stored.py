"""`bncli diff ACTUAL EXPECTED`: two stored tensors, or two files of them by name."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bncli.commands.diff.differences import drawn
from bncli.commands.diff.stored_tables import (
    StoredPair,
    channels_table,
    differences_table,
    worst_pairs_first,
)
from bncli.errors import MissingTensorError, TensorError, UsageError
from bncli.light import dataclass
from bncli.loaders import open_file, split_spec
from bncli.loaders.names import find_name
from bncli.report import Report
from bncli.verify.closeness import default_tolerance

if TYPE_CHECKING:
    from bncli.arguments.flags import KnownFlags
    from bncli.model import TensorFile, TensorRef
    from bncli.report import Finding, Table, Value


@dataclass(frozen=True, slots=True)
class StoredFlags:
    """What the user chose; `tolerance` None is that of `torch.testing.assert_close`.

    `given_input` is what both tensors were made from, and `known` is known of the layer.
    """

    channel_axis: int
    channel: list[str] | None
    tolerance: tuple[float, float] | None
    equal_nan: bool
    given_input: str | None
    known: KnownFlags


def diff_stored(specs: tuple[str, str], flags: StoredFlags) -> Report:
    """The report on ACTUAL and EXPECTED."""
    from bncli.commands.diff import stored_answer as answer
    from bncli.rulebook.comparison import not_compared_findings

    sides = _open(specs[0]), _open(specs[1])
    named = _both_named(sides, specs)
    single = all(name is not None for name in named)
    reasons: dict[str, str] = {}
    if single:
        actual, expected = (
            file.tensors[name or ""] for (file, _), name in zip(sides, named, strict=True)
        )
        pairs = [(expected.name or "values", actual, expected)]
    else:
        pairs, reasons = _by_name(sides, specs)
    labels = tuple(
        file.tensors[name].label if name is not None else spec
        for (file, _), name, spec in zip(sides, named, specs, strict=True)
    )
    done = _compare(pairs, flags, reasons, single=single)
    cause, read = _cause(done, flags, labels, single=single)
    nothing = not any(pair.compared.whole.total for pair in done)
    tables = (
        differences_table(done, labels, nothing=nothing),
        channels_table(done, flags.channel, single=single, nothing=nothing),
    )
    findings = _findings(done, labels, tables[1], cause, single=single)
    in_order = [pair.name for pair in worst_pairs_first(done)]
    sides_alone = {
        f"only in {spec}": f"in {side} alone"
        for spec, side in zip(specs, ("ACTUAL", "EXPECTED"), strict=True)
    }
    findings += [
        answer.told_of_others(finding, reasons)
        for finding in not_compared_findings(reasons, sides_alone)
    ]
    return Report(
        command="diff",
        facts=_facts(done, labels, len(reasons), single=single, equal_nan=flags.equal_nan),
        subject=answer.subject(done, labels, flags.tolerance, single=single),
        answer=(
            answer.pair_answer(tables[1], labels)
            if single
            else (answer.set_answer(done, len(reasons)),)
        ),
        remarks=() if single else (*answer.set_remarks(done), *_checkpoints(sides, specs, done)),
        tables=tables,
        pictures=partial(drawn, *tables),
        findings=tuple(findings),
        verdict=answer.verdict(done, reasons, single=single),
        checked={"": [pair.compared.whole.quantity for pair in done]},
        nothing_checked=nothing,
        read=(*(str(file.path) for file, _ in sides), *read),
        names={"": list(dict.fromkeys((*in_order, *sorted(reasons))))},
        about=tuple(
            (str(file.path), whole or name)
            for (file, name), whole in zip(sides, named, strict=True)
        ),
    )


def _checkpoints(
    sides: tuple[tuple[TensorFile, str], tuple[TensorFile, str]],
    specs: tuple[str, str],
    done: list[StoredPair],
) -> tuple[str, ...]:
    """What tells more of two whole files that differ, if both hold BatchNorm layers."""
    from bncli.state_dict import batch_norm_layers

    if done and all(pair.compared.whole.passed for pair in done):
        return ()
    if any(name or not batch_norm_layers(file) for file, name in sides):
        return ()
    command = f"bncli compare-checkpoints {' '.join(map(shlex.quote, specs))}"
    return (f"{command} says what happened to each BatchNorm layer",)


def _facts(
    done: list[StoredPair],
    labels: tuple[str, ...],
    not_compared: int,
    *,
    single: bool,
    equal_nan: bool,
) -> dict[str, Value]:
    """What the report says of the `single` pair, or how many were compared and how many not."""
    facts: dict[str, Value] = {"shape": None, "tensors": len(done), "not_compared": not_compared}
    if single:
        facts = {
            "shape": done[0].expected.shape,
            "dtype": done[0].actual.dtype,
            "expected_dtype": done[0].expected.dtype,
            "channel_axis": done[0].channel_axis,
        }
    return {"actual": labels[0], "expected": labels[1], **facts, "equal_nan": equal_nan}


def _findings(
    done: list[StoredPair],
    labels: tuple[str, ...],
    channels: Table,
    cause: tuple[str, str],
    *,
    single: bool,
) -> list[Finding]:
    """What differs; `labels` are the names of ACTUAL and EXPECTED."""
    from bncli.commands.diff.stored_answer import told_of_pair, told_of_set
    from bncli.rulebook.comparison import stored_findings

    findings = stored_findings([pair.compared for pair in done], labels[1], "")
    if single:
        return [told_of_pair(found, done[0], labels, channels, cause) for found in findings]
    pairs = {pair.name: pair for pair in done}
    return [told_of_set(found, pairs.get(found.subject), labels[1]) for found in findings]


def _cause(
    done: list[StoredPair], flags: StoredFlags, labels: tuple[str, ...], *, single: bool
) -> tuple[tuple[str, str], tuple[str, ...]]:
    """How the two were made, where `--input` asks, with a fix; and the files that were read.

    Raises UsageError for a flag of one tensor where they are not a `single` pair.
    """
    from bncli.arguments.input import open_input
    from bncli.sections.identification import cause_of_difference, identify_output_of

    if not single and flags.channel:
        raise UsageError("--channel shows channels of one tensor; name one of each as FILE::NAME.")
    if flags.given_input is None:
        return ("", ""), ()
    if not single:
        raise UsageError("--input explains one tensor; name one of each as FILE::NAME.")
    (pair,) = done
    given = open_input([flags.given_input], flags.channel_axis, None)
    actual, _, _ = identify_output_of(given, pair.actual, flags.known, labels[0])
    expected, _, read = identify_output_of(given, pair.expected, flags.known, labels[1])
    return cause_of_difference(actual, expected), read


def _open(spec: str) -> tuple[TensorFile, str]:
    path, name = split_spec(spec)
    return open_file(path), name


def _both_named(
    sides: tuple[tuple[TensorFile, str], tuple[TensorFile, str]], specs: tuple[str, str]
) -> list[str | None]:
    """The tensor of each side, or None twice for all that they hold.

    Raises UsageError where one side is a tensor by itself and the other is several.
    """
    named = [_named(file, name) for file, name in sides]
    if (named[0] is None) == (named[1] is None):
        return named
    alone = 1 if named[0] is None else 0
    if sides[alone][1] or not named[alone]:
        raise UsageError(
            f"{specs[alone]} is one tensor, and {specs[1 - alone]} holds several; name one of "
            "those as FILE::NAME."
        )
    return [None, None]  # a file that happens to hold one


def _named(file: TensorFile, name: str) -> str | None:
    """The one tensor that is meant, or None for all of a file of several, or below a prefix.

    Raises MissingTensorError where there is none.
    """
    if not name and len(file.tensors) != 1:
        if not file.tensors:
            raise MissingTensorError(file.path, "there is no tensor in it.")
        return None
    if name and _below(file, name):
        return None
    return find_name(file.path, file.tensors, name, "tensor")


def _below(file: TensorFile, prefix: str) -> dict[str, TensorRef]:
    """The tensors below a prefix, by the rest of their names; all of them below none."""
    if not prefix:
        return dict(file.tensors)
    return {
        name[len(prefix) + 1 :]: ref
        for name, ref in file.tensors.items()
        if name.startswith((f"{prefix}.", f"{prefix}/"))
    }


def _by_name(
    sides: tuple[tuple[TensorFile, str], tuple[TensorFile, str]], specs: tuple[str, str]
) -> tuple[list[tuple[str, TensorRef, TensorRef]], dict[str, str]]:
    """The tensors that both sides have, and why each other one was not compared."""
    from bncli.verify.stored_pair import check_pair

    ours, theirs = (_below(file, name) for file, name in sides)
    reasons = {name: f"only in {specs[0]}" for name in ours if name not in theirs}
    reasons |= {name: f"only in {specs[1]}" for name in theirs if name not in ours}
    pairs = []
    for name, actual in ours.items():
        if name not in theirs:
            continue
        expected = theirs[name]
        try:
            check_pair(actual, expected)
        except TensorError:
            if actual.shape != expected.shape:
                shapes = f"{list(actual.shape)} against {list(expected.shape)}"
                reasons[name] = f"of different shapes, {shapes}"
            else:
                reasons[name] = "of a kind that is not compared (complex, or unreadable)"
        else:
            pairs.append((name, actual, expected))
    return pairs, reasons


def _compare(
    pairs: list[tuple[str, TensorRef, TensorRef]],
    flags: StoredFlags,
    reasons: dict[str, str],
    *,
    single: bool,
) -> list[StoredPair]:
    """Every pair, compared; a set's tensors that have no such channel axis by their first one."""
    from bncli.dtypes import DTYPES
    from bncli.process.progress import progress
    from bncli.verify.stored_pair import check_pair, compare_stored

    if single:
        check_pair(*pairs[0][1:])
    done = []
    total = sum(ref.numel * DTYPES[ref.dtype].itemsize for _, *refs in pairs for ref in refs)
    with progress("comparison", total) as advance:
        for name, actual, expected in pairs:
            axis = _axis(expected, flags.channel_axis, single=single)
            tolerance = flags.tolerance or default_tolerance(actual.dtype, expected.dtype)
            compared = compare_stored(
                actual,
                expected,
                name,
                axis,
                tolerance,
                equal_nan=flags.equal_nan,
                advance=advance,
            )
            if not compared.whole.total:
                reasons[name] = "without any value"
            done.append(StoredPair(name, actual, expected, axis, compared))
            if not single:
                done = _lightened(done)
    return done


def _lightened(done: list[StoredPair]) -> list[StoredPair]:
    """The pairs with the channels of the worst ones alone, `MOST_CHANNELS` of them."""
    from bncli.verify.stored_pair import MOST_CHANNELS

    kept = [n for n, pair in enumerate(done) if pair.compared.channels]
    total = sum(len(done[n].compared.channels) for n in kept)
    for n in sorted(kept, key=lambda n: done[n].compared.whole.used):
        compared = done[n].compared
        if not compared.whole.passed and total <= MOST_CHANNELS:
            break
        total -= len(compared.channels)
        light = replace(compared, channels=(), sizes=(max(compared.sizes, default=0.0),))
        done[n] = replace(done[n], compared=light)
    return done


def _axis(tensor: TensorRef, channel_axis: int, *, single: bool) -> int:
    """The axis of the channels, from the front; a tensor of one axis has no other."""
    if tensor.ndim < 2:
        return 0
    if -tensor.ndim <= channel_axis < tensor.ndim:
        return channel_axis % tensor.ndim
    if single:
        raise UsageError(
            f"--channel-axis {channel_axis}: {tensor.label} has {tensor.ndim} axes, "
            f"so it must be from {-tensor.ndim} to {tensor.ndim - 1}."
        )
    return 0
