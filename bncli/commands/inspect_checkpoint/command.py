"""`bncli inspect-checkpoint`: every BatchNorm layer of a checkpoint, and what is wrong with it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.completion import complete_layers
from bncli.arguments.options import argument, option
from bncli.arguments.shard import PartFlags
from bncli.commands.inspect_checkpoint.flags import Asked
from bncli.light import dataclass
from bncli.report import Column, Report, Saved, Table
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.commands.inspect_checkpoint.files import Files
    from bncli.commands.inspect_checkpoint.judged_file import Judged
    from bncli.commands.inspect_checkpoint.looking import Looked
    from bncli.commands.inspect_checkpoint.rows import Rows
    from bncli.pictures import Shown
    from bncli.report import Answer, Finding, Value


class Sort(str, Enum):
    """The order of the layers."""

    FILE = "file"
    NAME = "name"
    TROUBLE = "trouble"


def inspect_checkpoint(
    checkpoints: Annotated[
        list[str],
        argument(
            "CKPT[::NAME]...",
            "Checkpoints of PyTorch (.pt2 too), safetensors, NumPy, ONNX, Keras, TensorFlow, Flax, "
            "MXNet or Paddle, most of them in archives, too. "
            "Quote patterns ('**/*.pt'); bncli expands them. For a sharded checkpoint, give its "
            "folder or any one shard. NAME is a layer's name, or a prefix shared by several "
            "layers. The JSON reports of calls with --shard, given instead, are merged.",
            complete_layers,
        ),
    ],
    scale: PartFlags,
    layer: Annotated[
        list[str] | None,
        option(
            "Show only layers whose full name, or any dotted suffix of it, matches this pattern, "
            "such as 'layer1.*'; may be repeated.",
            options.INPUT,
            metavar="GLOB",
            default="all",
        ),
    ] = None,
    sort: Annotated[Sort, option("The order of the layers.", options.INPUT)] = Sort.FILE,
    eps: Annotated[
        list[str] | None,
        option(
            "The number added to the variance before the square root. For some layers only, write "
            "'backbone.*=1e-3'; may be repeated.",
            options.LAYER,
            metavar="[GLOB=]NUMBER",
            default="the value in the file, otherwise the framework's default",
        ),
    ] = None,
    momentum: Annotated[
        list[str] | None,
        option(
            "The weight of the new batch in the running statistics; none for the cumulative "
            "average. For some layers only, write 'backbone.*=0.01'; may be repeated.",
            options.LAYER,
            metavar="[GLOB=]NUMBER|none",
            default="the value in the file, otherwise the framework's default",
        ),
    ] = None,
    expect_layers: Annotated[
        int | None,
        option(
            "Report an error for each file that does not have N BatchNorm layers.",
            options.FINDINGS,
            metavar="N",
            default="any number",
            least=1,
        ),
    ] = None,
) -> Report:
    """Find every BatchNorm layer of a checkpoint, and say what is wrong with it.

    Nothing in the file is run, and torch is not needed. Each finding has a code that `bncli rules`
    explains. eps and momentum are taken from the file where it stores them (ONNX, Keras, .pt2,
    whole pickled modules, TensorFlow's graphs and MXNet's symbol files do, and a state_dict does
    not), and are assumed otherwise.

    With --shard, one of several tasks judges every N-th checkpoint, and its JSON report is a part.
    Given the parts, the report is that of one call on all checkpoints. A part holds all findings:
    --select, --ignore, --baseline and --fail-on are those of the call that merges.
    """
    from functools import partial

    from bncli.commands.inspect_checkpoint.looking import look
    from bncli.report import in_order

    looked = look(
        checkpoints,
        scale,
        Asked(layer or (), eps or (), momentum or (), expect_layers, sort.value),
    )
    files, seen = looked.files, looked.seen
    if looked.shard is None:
        _check_globs(looked)
    findings = in_order(seen.findings)
    _flag(seen.rows, findings)
    rows = _sorted(seen.rows, findings, Sort(looked.asked.sort))
    counts = Counts.of(rows, seen.shared)
    return Report(
        command="inspect-checkpoint",
        facts=_facts(looked, counts, findings),
        tables=(_table(files, seen, rows),),
        findings=findings,
        pictures=partial(_pictures, findings=findings, rows=seen.rows, shared=seen.shared),
        subject=(_subject(looked, counts),),
        answer=_answer(files, seen, rows),
        remarks=_remarks(rows, seen),
        scope=_scope(files, seen, rows, counts),
        verdict=_verdict(looked) if not rows else "",
        nothing_checked=not rows,
        read=tuple(files.read),
        unread=tuple(files.unread),
        checked=seen.checked,
        partial=len(seen.rows) < len(seen.found),
        names=seen.names,
        part=looked.part,
        saved=_saved(looked),
    )


def _check_globs(looked: Looked) -> None:
    """Raise UsageError where a glob means no layer of all files.

    The layers that it means may all be in other shards, so that only the whole can tell.
    """
    from bncli.arguments.checkpoints import refuse_globs
    from bncli.commands.inspect_checkpoint.layer_settings import LayerSettings

    asked, seen = looked.asked, looked.seen
    if asked.layer and seen.found and not seen.rows:
        refuse_globs(f"--layer {' '.join(asked.layer)}", asked.layer, seen.found)
    if seen.found:
        LayerSettings.parsed([*asked.eps], [*asked.momentum]).check_globs(seen.found)


def _saved(looked: Looked) -> Saved:
    """What becomes of -o: no part replaces another one, and no shard without files is one."""
    if looked.shard is None or looked.resumed:
        return Saved.YES
    return Saved.NEW if looked.part["inputs"] else Saved.NO


@dataclass(frozen=True, slots=True)
class Counts:
    """How many layers are shown, under how many names, with how many channels.

    `counters` groups their num_batches_tracked.
    """

    layers: int
    names: int
    channels: int
    counters: str

    @classmethod
    def of(cls, rows: Sequence[dict[str, Value]], shared: set[tuple[str, str]]) -> Counts:
        """Those of the rows; what is `shared` stands in a row above, and counts once."""
        from bncli.rulebook.counters import counter_groups

        layers = channels = 0
        counters: list[Value] = []
        for row in rows:
            if (row["path"], row["name"]) in shared:
                continue
            layers += 1
            counters.append(row["num_batches_tracked"])
            if isinstance(row["channels"], int):
                channels += row["channels"]
        return cls(layers, len(rows), channels, counter_groups(counters))  # type: ignore[arg-type]


def _facts(looked: Looked, counts: Counts, findings: tuple[Finding, ...]) -> dict[str, Value]:
    """What the files are, and what was found in them."""
    from bncli.report import count_findings

    files, seen = looked.files, looked.seen
    paths = [*files.read, *(item.path for item in files.unread)]
    return {
        "path": list(paths) if files.several or not paths else paths[0],
        "container": _one_or_all(seen.containers),
        "shards": seen.shards or None,
        "layers": counts.layers,
        **({"names": counts.names} if counts.names > counts.layers else {}),
        "channels": counts.channels,
        "unread": len(seen.skipped) or None,
        "counters": counts.counters or None,
        "found": count_findings(findings) or None if counts.names else None,
        "eps_source": _source(seen.eps_sources),
        "momentum_source": _source(seen.momentum_sources),
        **({} if looked.shard is None else {"shard": str(looked.shard)}),
    }


def _table(files: Files, seen: Judged, rows: Sequence[dict[str, Value]]) -> Table:
    """The layers, behind the files that could not be read."""
    from bncli.commands.inspect_checkpoint.layer_rows import LAYER_COLUMNS, NOTE

    note = NOTE
    if None in seen.classes:
        note += " Names alone do not tell BatchNorm from an InstanceNorm that tracks statistics."
    columns = (Column("path", "path"), *LAYER_COLUMNS) if files.several else LAYER_COLUMNS
    unread: list[dict[str, Value]] = [
        {**dict.fromkeys(column.key for column in columns), "path": item.path, "note": item.problem}
        for item in files.unread
    ]
    return Table(
        "layers",
        "BatchNorm layers",
        columns,
        [*unread, *rows] if unread else rows,
        note if rows else "",
        lead=2 if files.several else 1,
    )


def _flag(rows: Rows, findings: tuple[Finding, ...]) -> None:
    """Write into each row the codes of its findings, the worst first."""
    from bncli.commands.inspect_checkpoint.answer import codes_of, place

    codes = codes_of(findings)
    rows.fill("flags", [" ".join(codes.get(place(row), ())) or None for row in rows])


def _sorted(
    rows: Sequence[dict[str, Value]], findings: tuple[Finding, ...], sort: Sort
) -> Sequence[dict[str, Value]]:
    """The rows in the order asked for."""
    if sort is Sort.NAME:
        from bncli.loaders.patterns import natural

        return sorted(rows, key=lambda row: (str(row["path"]), natural(str(row["name"]))))
    if sort is Sort.TROUBLE:
        ranks = {finding.code: finding.severity.rank + 1 for finding in findings}

        def trouble(row: dict[str, Value]) -> list[int]:
            return [*sorted(-ranks[code] for code in str(row["flags"] or "").split()), 0]

        return sorted(rows, key=trouble)
    return rows


def _source(sources: set[str]) -> str | None:
    """Where a number comes from: one source, or "mixed"."""
    return next(iter(sources)) if len(sources) == 1 else "mixed" if sources else None


def _one_or_all(names: list[str]) -> Value:
    return names[0] if len(set(names)) == 1 else names or None


def _subject(looked: Looked, counts: Counts) -> str:
    """The file, or how many, and how many layers it has, under how many names."""
    files, seen = looked.files, looked.seen
    paths = [*files.read, *(item.path for item in files.unread)]
    what = paths[0] if paths and not files.several else counted(len(paths), "file")
    if looked.shard is not None:
        what = f"shard {looked.shard}: {what} of {len(looked.models)}"
    containers = dict.fromkeys(seen.containers)
    kind = f"  {', '.join(containers)}" if containers else ""
    names = f" under {counts.names} names" if counts.names > counts.layers else ""
    shards = f" in {seen.shards} shards" if seen.shards else ""
    shards += f" in {seen.members} models" if seen.members else ""
    if not counts.layers:
        return f"{what}{kind}"
    layers = counted(counts.layers, "BatchNorm layer")
    return f"{what}{kind}  {layers}{names}{shards}, {counted(counts.channels, 'channel')}"


def _answer(files: Files, seen: Judged, rows: Sequence[dict[str, Value]]) -> Answer:
    """The table of layers, or that of files if there are several."""
    from functools import partial

    from bncli.commands.inspect_checkpoint.answer import files_table, layers_table

    if files.several:
        return partial(files_table, rows=rows, shared=seen.shared)
    return partial(layers_table, rows=rows)


def _pictures(
    findings: Sequence[Finding], rows: Rows, shared: set[tuple[str, str]]
) -> tuple[Shown, ...]:
    """What a page shows of the layers, in the order of the files."""
    from bncli.commands.inspect_checkpoint.pictures import pictures

    return pictures(findings, rows=rows, shared=shared)


def _remarks(rows: Sequence[dict[str, Value]], seen: Judged) -> tuple[str, ...]:
    """What was assumed, and what of the files was not read."""
    from bncli.commands.inspect_checkpoint.answer import settings_remarks

    spoilt = sum(row["note"] is not None for row in rows)
    without = [path for path, names in seen.checked.items() if not names] if rows else []
    unsure = any(str(row["kind_hint"]).endswith("?") for row in rows)
    why = ""
    if "torchscript" in seen.containers:
        why = "bncli does not read the file's code"
    elif any(name in ("model_config", "config.json") for _, name in seen.skipped):
        why = "bncli could not read the file's config"
    settings = list(settings_remarks(rows, why))
    if set(seen.containers) == {"memory"}:
        settings = [each.replace("the file", "the object") for each in settings]
    remarks = [
        *settings,
        "names alone do not tell BatchNorm from an InstanceNorm that tracks statistics"
        if unsure
        else "",
        *_without(without, seen),
        f"{counted(spoilt, 'layer')} could not be read completely" if spoilt else "",
        _skipped(seen.skipped),
    ]
    return tuple(filter(None, remarks))


def _without(paths: list[str], seen: Judged) -> Iterator[str]:
    """Which of several files have no BatchNorm layer, and why, where that shows."""
    from bncli.rulebook.interface import examples

    unknown = [path for path in paths if path not in seen.without]
    if unknown:
        yield f"there is no BatchNorm layer in {examples(unknown)}"
    for path in paths:
        if why := seen.without.get(path):
            yield f"there is no BatchNorm layer in {path}: {why}"


def _scope(files: Files, seen: Judged, rows: Sequence[dict[str, Value]], counts: Counts) -> str:
    """What was judged: "220 BatchNorm layers of 7 files", or "1 of 3 BatchNorm layers"."""
    number = sum(map(bool, seen.checked.values()))
    where = f" of {counted(number, 'file')}" if files.several else ""
    if len(rows) < len(seen.found):
        return f"{len(rows)} of {len(seen.found)} BatchNorm layers{where}"
    return f"{counted(counts.layers, 'BatchNorm layer')}{where}"


def _verdict(looked: Looked) -> str:
    """That there is no BatchNorm layer, and why."""
    seen, shard = looked.seen, looked.shard
    if shard is not None and not shard.of(looked.models):
        from bncli.arguments.shard import no_inputs

        return no_inputs(shard, looked.models)
    if seen.found:
        layers = counted(len(seen.found), "BatchNorm layer")
        return f"--layer {' '.join(looked.asked.layer)} means none of the {layers} of this shard"
    if seen.without and len(seen.without) == len(seen.checked):
        return f"there is no BatchNorm layer: {'; '.join(dict.fromkeys(seen.without.values()))}"
    tensors = counted(seen.tensors, "tensor")
    where = f" in {len(seen.checked)} files" if len(seen.checked) > 1 else ""
    return (
        f"no BatchNorm layer was recognised among {tensors}{where}; such a layer has a "
        "running_mean or running_var of one axis beside a weight, a bias or a counter"
    )


def _skipped(skipped: dict[tuple[str, str], str]) -> str:
    """How much of the files was not read, which and why, as a sentence; "" for nothing.

    A file that would say more of the layers and is not there is no such entry.
    """
    from bncli.loaders.interface import ABSENT
    from bncli.loaders.names import listed

    absent = [
        f"{name} {reason.removeprefix('it ')}"
        for (_, name), reason in skipped.items()
        if reason.startswith(ABSENT)
    ]
    skipped = {key: reason for key, reason in skipped.items() if not reason.startswith(ABSENT)}
    if not skipped:
        return "; ".join(absent)
    why: dict[str, list[str]] = {}
    for (_, name), reason in skipped.items():
        why.setdefault(reason, []).append(name)
    said = "; ".join(f"{listed(names)} ({reason})" for reason, names in list(why.items())[:3])
    said += f"; {len(why) - 3} more reasons" if len(why) > 3 else ""
    were = f"{len(skipped)} entries were" if len(skipped) > 1 else "1 entry was"
    return "; ".join([f"{were} not read: {said}", *absent])
