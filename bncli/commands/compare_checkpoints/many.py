"""The report on many files: what a target is of them, or what they are of each other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bncli.changes.many.common import names_of
from bncli.commands.compare_checkpoints import many_words as words
from bncli.commands.compare_checkpoints.rows import plain, short_certainty
from bncli.model.many import Counted, Kind
from bncli.paths import as_path
from bncli.report import ANSWER_ROWS, Column, Report, Table
from bncli.rulebook.interface import examples
from bncli.rulebook.layers import label, plain_count
from bncli.sections.answer import counted, share, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.commands.compare_checkpoints.given import Given
    from bncli.model import TensorFile
    from bncli.model.many import FileRow, Many, Origin
    from bncli.pictures import Shown
    from bncli.report import Finding, Value

    Row = dict[str, Value]

TOLD = 0.01
"""The least share of the way between the files of which people are told that it is left over."""

ORIGIN_COLUMNS = (
    *Column.plain("group", "made", "what", "certainty", "exact", "weights", "unique"),
    *Column.plain("initial", "residual", "roundings", "values", "total", "off", spec=".4g"),
)
FILE_COLUMNS = (
    *Column.plain("path", "counter", "batches", "z", "z_max", "var_ratio", spec=".4g"),
    *Column.plain("var_ratio_worst", "worst", "what", spec=".4g"),
)
FILE_NOTE = (
    "z is the median shift of the means in standard deviations, var_ratio the median ratio of the "
    "variances, against {against}."
)
MOVE_COLUMNS = Column.plain(
    "path", "name", "z", "z_max", "var_ratio", "var_ratio_worst", spec=".4g"
)
ANSWER_COLUMNS = (
    Column("path", "file"),
    Column("counter", "counter", spare=1),
    Column("z", "moved (std)"),
    Column("ratio", "var ratio"),
    Column("furthest", "worst ratio", spare=2),
    Column("what", "", wraps=True),
    Column("worst", "worst layer", spare=3),
)


def report_on_many(files: Sequence[Given], aim: Given | None) -> Report:
    """The report. Raises FileError where a file cannot be read."""
    from bncli.changes.many.kinds import compare_many
    from bncli.rulebook.many import many_findings
    from bncli.state_dict import batch_norm_layers

    opened = [_open(given) for given in files]
    target = None if aim is None else _open(aim)
    many = compare_many(opened, target)
    report = _of_files(many, files) if aim is None else _of_target(many, files, aim)
    layers = [label(layer.name) for layer in batch_norm_layers(opened[0])]
    paths = {each.spec: str(each.path) for each in (*files, *(() if aim is None else (aim,)))}
    judged = list(dict.fromkeys(paths.values()))
    groups = [] if target is None else [origin.group for origin in many.origins]
    findings = tuple(
        replace(finding, path=paths.get(finding.path, finding.path))
        for finding in (many_findings(many) if many.layers else ())
    )
    return replace(
        report,
        findings=findings,
        pictures=partial(
            _pictures,
            findings=findings,
            tables=report.tables,
            paths=paths,
            against=_against(many),
        ),
        remarks=words.unmatched(many),
        scope=f"{counted(many.layers, 'BatchNorm layer')} of {counted(len(files), 'file')}",
        nothing_checked=not many.layers,
        read=tuple(str(each.path) for each in (*files, *(() if aim is None else (aim,)))),
        checked={
            path: [*(groups if aim is None or path == str(aim.path) else ()), *layers]
            for path in judged
        },
        names=dict.fromkeys(judged, layers),
    )


def _pictures(
    findings: Sequence[Finding], tables: Sequence[Table], paths: Mapping[str, str], against: str
) -> tuple[Shown, ...]:
    """What a page shows of the tables."""
    from bncli.commands.compare_checkpoints.many_pictures import files_pictures, target_pictures

    rows = {table.key: table.rows for table in tables}
    if "origins" in rows:
        return target_pictures(rows["origins"], [*paths][:-1])
    return files_pictures(
        findings, rows=rows["files"], moves=rows["moves"], paths=paths, against=against
    )


def _against(many: Many) -> str:
    """What each file is compared with."""
    return "the file before" if many.kind is Kind.SERIES else "the first file"


def _open(given: Given) -> TensorFile:
    """A file, or the part of it that was given, under the name that was typed.

    Raises FileError, and MissingTensorError where there is no such part.
    """
    from bncli.commands.compare_checkpoints.given import part_in
    from bncli.loaders import open_model
    from bncli.loaders.names import under

    file = open_model(given.path)
    if not given.part:
        return file
    tensors = under(file.path, file.tensors, part_in(file, given.part))
    return replace(file, path=as_path(given.spec), tensors=tensors)


def _of_target(many: Many, files: Sequence[Given], aim: Given) -> Report:
    """What the target is of the files, a row for each group of its tensors."""
    rows: list[Row] = [_origin_row(origin) for origin in many.origins]
    shown: list[Row] = [
        {
            "group": origin.group,
            "what": origin.what,
            "weights": words.weights_said(origin),
            "residual": None if (origin.residual or 0) < TOLD else share(origin.residual or 0),
            "off": examples(origin.off, 2) if origin.off else None,
        }
        for origin in many.origins
    ]
    columns = (
        Column("group", "part of the target"),
        Column("what", "what it is", wraps=True),
        Column("weights", "weights", wraps=True),
        Column("residual", "left over", spare=1),
        Column("off", "except in", spare=2),
    )
    there = [column for column in columns if any(row[column.key] is not None for row in shown)]
    made = [origin.made.value for origin in many.origins]
    note = "left over is in shares of how far the files are from their mean"
    note = note if any(row["residual"] is not None for row in shown) else ""
    return Report(
        command="compare-checkpoints",
        facts=_facts(many, files, aim, [[each, made.count(each)] for each in dict.fromkeys(made)]),
        tables=(Table("origins", f"What {aim.spec} is made of", ORIGIN_COLUMNS, rows),),
        subject=(f"{aim.spec} beside {_files(files)}  {words.layers(many)}",),
        answer=(Table("answer", "", tuple(there), shown, note=note),),
        verdict=words.made(many.origins) if rows else words.nothing(many),
    )


def _origin_row(origin: Origin) -> Row:
    return {column.key: getattr(origin, column.key) for column in ORIGIN_COLUMNS} | {
        "made": origin.made.value,
        "certainty": short_certainty(origin.certainty),
    }


def _of_files(many: Many, files: Sequence[Given]) -> Report:
    """A series, ranks or clients: a row for each file."""
    against = _against(many)
    rows: list[Row] = [_file_row(row) for row in many.rows]
    told = [row for row in many.rows if row.what]
    shown = list(many.rows)
    if len(shown) > ANSWER_ROWS:
        kept = {row.path for row in (*told, *many.rows)[:ANSWER_ROWS]}
        shown = [row for row in many.rows if row.path in kept][:ANSWER_ROWS]
    left = len(many.rows) - len(shown)
    note = f"moved and var ratio are medians against {against}"
    if left:
        note += f"; {counted(left, 'more file')} (-v lists {'it' if left == 1 else 'them'})"
    names = names_of([row.path for row in many.rows])
    alone = [names[row.path] for row in many.rows[1:] if row.z is None and not row.what]
    if alone and any(row.z is not None for row in many.rows):
        note += f"; {examples(alone)} could not be compared"
    cells = [_file_cells(row, names[row.path]) for row in shown]
    columns = tuple(
        column
        for column in ANSWER_COLUMNS
        if column.key in ("path", "z") or any(row[column.key] for row in cells)
    )
    by_counter = many.kind is Kind.SERIES and many.counted is not Counted.NONE
    what = "Files in the order of their counters" if by_counter else "Files"
    return Report(
        command="compare-checkpoints",
        facts=_facts(many, files, None, words.states(many)),
        tables=(
            Table("files", what, FILE_COLUMNS, rows, FILE_NOTE.format(against=against)),
            _moves_table(many.rows, against),
        ),
        subject=(f"{_files(files)}  {words.layers(many)}", words.kind(many)),
        answer=(Table("answer", "", columns, cells, note=note),),
        verdict=words.happened(many) if many.layers else words.nothing(many),
    )


def _file_row(row: FileRow) -> Row:
    return {column.key: getattr(row, column.key) for column in FILE_COLUMNS} | {
        "worst": row.worst or None,
        "what": row.what or None,
    }


def _moves_table(rows: Sequence[FileRow], against: str) -> Table:
    """Every layer of every file that could be compared."""
    moves: list[Row] = [
        {"path": row.path}
        | {key.key: getattr(move, key.key) for key in MOVE_COLUMNS[1:]}
        | {"name": label(move.name)}
        for row in rows
        for move in row.moves
    ]
    return Table(
        "moves", f"How far each layer moved against {against}", MOVE_COLUMNS, moves, lead=2
    )


def _file_cells(row: FileRow, name: str) -> Row:
    return {
        "path": name,
        "counter": None if row.counter is None else plain_count(row.counter),
        "z": None if row.z is None else short(row.z),
        "ratio": None if row.var_ratio is None else plain(row.var_ratio),
        "furthest": None if row.var_ratio_worst is None else plain(row.var_ratio_worst),
        "what": row.what or None,
        "worst": row.worst or None,
    }


def _facts(
    many: Many, files: Sequence[Given], aim: Given | None, states: list[list[Value]]
) -> dict[str, Value]:
    """The files, how many layers the first has, and how many of them are in all."""
    return {
        "files": [each.spec for each in files],
        "layers": many.layers + many.unmatched,
        "matched": many.layers,
        "states": states,
        "kind": many.kind.value,
        "target": None if aim is None else aim.spec,
        "reordered": many.reordered,
        "drift": many.drift,
    }


def _files(files: Sequence[Given]) -> str:
    """The files, by name where they are few."""
    return examples([each.spec for each in files]) if len(files) < 3 else f"{len(files)} files"
