"""What a person sees of inspected checkpoints: the layers in trouble, or a row for each file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from bncli.commands.inspect_checkpoint.layer_rows import WHOLE_FILE
from bncli.report import ANSWER_ROWS, Column, FailOn, Report, Table, count_findings
from bncli.sections.answer import counted, short, troubled_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bncli.report import Finding, Value

    Row = dict[str, Value]

COLUMNS = (
    Column("name", "layer"),
    Column("channels", "channels", spare=3),
    Column("num_batches_tracked", "batches", spare=1),
    Column("mean", "mean", spare=4),
    Column("var", "var"),
    Column("scale", "scale", spare=2),
    Column("flags", "findings"),
    Column("scale_sketch", "|scale|", spare=5),
    Column("dtype", "dtype", spare=6),
    Column("eps", "eps", spare=7),
    Column("momentum", "momentum", spare=8),
    Column("kind_hint", "kind", spare=9),
)
MOST_SENSES = 3
"""Momenta of a file that are explained, a line each."""
FILE_COLUMNS = (
    Column("path", "file"),
    Column("layers", "layers", spare=1),
    Column("batches", "batches", spare=2),
    Column("verdict", "verdict"),
)


def layers_table(report: Report, fail_on: FailOn, rows: Sequence[Row]) -> tuple[Table, ...]:  # noqa: ARG001  # a verdict is for files
    """The layers in trouble before the others; these are summed up where they are many."""
    codes = codes_of(report.findings)
    flagged = [{**row, "flags": " ".join(codes.get(place(row), ())) or None} for row in rows]
    shown, rest = troubled_first(flagged, lambda row: row["flags"] is not None)
    # An eps that differs between layers is what someone asked for, or should know.
    wanted = {"eps"} if len({row["eps"] for row in rows}) > 1 else set()
    columns = tuple(
        replace(column, spare=1) if column.key in wanted else column
        for column in COLUMNS
        if any(row[column.key] is not None for row in shown)
    )
    return (Table("answer", "", columns, shown, note=_rest(rest)),)


def files_table(
    report: Report, fail_on: FailOn, rows: Sequence[Row], shared: set[tuple[str, str]]
) -> tuple[Table, ...]:
    """A row for each file with its verdict, the worst first; many good files in one line."""
    files: list[Row] = [
        {"path": item.path, "layers": None, "batches": None, "verdict": "ERROR  cannot be read"}
        for item in report.unread
    ]
    counters: dict[str, list[Value]] = {}  # of each file, gathered once for all of many files
    for row in rows:
        if place(row) not in shared:
            counters.setdefault(str(row["path"]), []).append(row["num_batches_tracked"])
    findings: dict[str, list[Finding]] = {}
    for finding in report.findings:
        findings.setdefault(finding.path, []).append(finding)
    for path in report.checked:
        own, found = counters.get(path, []), findings.get(path, [])
        part = replace(report, findings=tuple(found), unread=(), nothing_checked=not own, names={})
        word = part.word_for(part.exit_code(fail_on))
        said = count_findings(found) or ("" if own else "no BatchNorm layer")
        files.append(
            {
                "path": path,
                "layers": len(own),
                "batches": _batches(own),
                "verdict": f"{word}  {said}".rstrip(),
            }
        )
    order = ("ERROR", "FAIL", "WARN", "NOTHING", "PASS")
    files.sort(key=lambda row: order.index(str(row["verdict"]).split()[0]))
    shown, rest = files[:ANSWER_ROWS], files[ANSWER_ROWS:]
    words = [str(row["verdict"]).split()[0] for row in rest]
    kinds = ", ".join(f"{words.count(word)} {word}" for word in order if word in words)
    note = f"{counted(len(rest), 'more file')}: {kinds} (-v lists their layers)" if rest else ""
    return (Table("answer", "", FILE_COLUMNS, shown, note=note),)


def place(row: Row) -> tuple[str, str]:
    """The file and the layer of a row, as findings name them in their evidence."""
    name = str(row["name"])
    return str(row["path"]), "" if name == WHOLE_FILE else name


def codes_of(findings: Iterable[Finding]) -> dict[tuple[str, str], list[str]]:
    """The codes of the findings of each file and layer, the worst first."""
    codes: dict[tuple[str, str], dict[str, None]] = {}
    for finding in findings:
        layer = finding.evidence.get("layer")
        if isinstance(layer, str):
            codes.setdefault((finding.path, layer), {})[finding.code] = None
    return {place: list(those) for place, those in codes.items()}


def settings_remarks(rows: Sequence[Row], why: str = "") -> Iterator[str]:
    """eps and momentum: what the file stores, what was assumed, and which a flag replaced.

    A momentum that weighs the old value in the file's framework is said in its own sense, too.
    `why` is the reason why they are assumed, where the file may have them all the same.
    """
    rows = _settings(rows)
    everywhere: dict[str, list[str]] = {"file": [], "assumed": []}
    rest = []
    for name in ("eps", "momentum"):
        for source, said in everywhere.items():
            some = _from(rows, name, source)
            if some and len(some) == len(rows):
                said.append(_values(some, name))
            elif some and source == "assumed":
                rest.append(_of_some(some, rows, name, "{} is assumed"))
            elif some:
                rest.append(_of_some(some, rows, name, "the file stores {}"))
    if stored := everywhere["file"]:
        if any(map(_is_mixed, stored)):
            yield f"from the file: {'; '.join(stored)}"
        else:
            yield f"{' and '.join(stored)} {'are' if len(stored) > 1 else 'is'} from the file"
    if assumed := everywhere["assumed"]:
        verb, none = ("are", "neither") if len(assumed) > 1 else ("is", "none")
        why = why or f"the file stores {none}"
        yield f"{' and '.join(assumed)} {verb} assumed: {why}"
    yield from rest
    for name in ("eps", "momentum"):
        number = sum(name in cast("list[str]", row["replaced"]) for row in rows)
        if number:
            yield f"--{name} replaces the {name} that the file stores in {counted(number, 'layer')}"


def _settings(rows: Iterable[Row]) -> list[Row]:
    """What rows say of eps and momentum; those that say the same are one and the same row."""
    keys = ("eps", "eps_source", "momentum_source", "momentum_said", "convention")
    known: dict[object, Row] = {}
    settings = []
    for row in rows:
        replaced = cast("list[str]", row["replaced"])
        told = (*(row[key] for key in keys), *replaced)
        if told not in known:
            known[told] = {**{key: row[key] for key in keys}, "replaced": replaced}
        settings.append(known[told])
    return settings


def _from(rows: Sequence[Row], name: str, source: str) -> list[Row]:
    """The layers whose eps or momentum is from there, and is judged."""
    some = [row for row in rows if row[f"{name}_source"] == source]
    if (name, source) == ("momentum", "assumed"):  # Haiku has no default, and no rule needs it
        some = [row for row in some if row["convention"] != "haiku"]
    return some


def _of_some(some: Sequence[Row], rows: Sequence[Row], name: str, said: str) -> str:
    """What holds of the eps or the momentum of some layers: "eps 1e-05 is assumed for 1 of 2"."""
    values, of = _values(some, name), f"for {len(some)} of {len(rows)} layers"
    if _is_mixed(values):
        return f"{said.format(name)} {of} ({values})"
    return f"{said.format(values)} {of}"


def _is_mixed(values: str) -> bool:
    """Whether `_values` names several."""
    return values.endswith((" layer", " layers", ")")) and " layer" in values


def _values(rows: Sequence[Row], name: str) -> str:
    """The eps or the momenta of layers: one, or those of most layers first, with how many."""
    said: dict[str, int] = {}
    for row in rows:
        each = str(row["momentum_said"]) if name == "momentum" else f"eps {_number(row[name])}"
        said[each] = said.get(each, 0) + 1
    if len(said) == 1:
        return next(iter(said))
    most = sorted(said.items(), key=lambda item: -item[1])
    shown = [f"{each} in {counted(number, 'layer')}" for each, number in most[:MOST_SENSES]]
    if (more := len(most) - MOST_SENSES) > 0:
        shown.append(f"{counted(more, 'other value')} (-v lists {'them' if more > 1 else 'it'})")
    return ", ".join(shown)


def _number(value: Value) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _rest(rows: Sequence[Row]) -> str:
    """One line that sums up the layers that are not shown; "" for none."""
    if not rows:
        return ""
    sick = sum(row["flags"] is not None for row in rows)
    what = f"{counted(len(rows), 'layer')} without findings"
    if sick:
        what = f"{counted(len(rows), 'more layer')}, {sick} with findings"
    lows, highs = (
        [value for row in rows if isinstance(value := row[key], float)]
        for key in ("var_min", "var_max")
    )
    said = [f"var {short(min(lows))} .. {short(max(highs))}"] if lows and highs else []
    if batches := _batches([row["num_batches_tracked"] for row in rows]):
        said.append(f"{batches} batches")
    if said:
        what += f": {', '.join(said)}"
    return f"{what} (-v lists {'it' if len(rows) == 1 else 'them'})"


def _batches(counters: Sequence[Value]) -> str | None:
    """The counters of some layers, as one number or a range."""
    from bncli.rulebook.layers import plain_count

    known = sorted(value for value in counters if isinstance(value, (int, float)))
    if not known:
        return None
    return " .. ".join(dict.fromkeys(map(plain_count, (known[0], known[-1]))))
