"""What a part's JSON holds of its checkpoints beside the report: all that the whole is made of.

It is one text, JSON in itself: numbers that are not finite and names that are not Unicode come back
as they were, which the report's own JSON does not promise. Findings are those before the gate, so
that --select, --ignore, --baseline and --fail-on are applied when the whole is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING, Any

from bncli.commands.inspect_checkpoint.judged_file import Judged
from bncli.commands.inspect_checkpoint.rows import Rows
from bncli.light import dataclass
from bncli.loaders.interface import lean_json
from bncli.loaders.names import quoted
from bncli.model.part import PartInput
from bncli.report import Certainty, Finding, Severity, Unread

if TYPE_CHECKING:
    from bncli.report import Value

Kind = Any
"""A type, None, a tuple of kinds (any of them), a list of one kind (a list of such values), a dict
with the key "*" (an object of such values), or any other dict (an object of exactly these keys)."""

TEXT, NUMBER = (str, NoneType), (int, float, NoneType)
ROW: Mapping[str, tuple[type, ...]] = {
    "path": (str,),
    "name": (str,),
    "kind_hint": TEXT,
    "channels": (int, NoneType),
    "dtype": TEXT,
    "flags": TEXT,
    "num_batches_tracked": NUMBER,
    "mean_min": NUMBER,
    "mean_max": NUMBER,
    "var_min": NUMBER,
    "var_max": NUMBER,
    "scale_min": NUMBER,
    "scale_max": NUMBER,
    "abs_scale_min": NUMBER,
    "scale_sketch": TEXT,
    "nonfinite": (int, NoneType),
    "eps": (int, float),
    "momentum": (int, float, str),
    "note": TEXT,
    "stated_momentum": NUMBER,
    "convention": TEXT,
    "channel_axis": (int, NoneType),
    "momentum_said": (str,),
    "mean": TEXT,
    "var": TEXT,
    "scale": TEXT,
    "eps_source": (str,),
    "momentum_source": (str,),
    "replaced": (list,),
}
"""A layer's row: the types that the values of a column may have."""

FINDING: Kind = {
    "code": str,
    "severity": str,
    "subject": str,
    "message": str,
    "evidence": {"*": Any},
    "hint": str,
    "path": str,
    "extent": [(str, list)],
    "places": [str],
    "instead_of": (None, [str]),
    "claim": str,
    "detail": str,
    "certainty": str,
    "where": str,
}
JUDGED: Kind = {
    "rows": {"*": list},
    "findings": [FINDING],
    "eps_sources": [str],
    "momentum_sources": [str],
    "classes": [(None, str)],
    "found": [str],
    "containers": [str],
    "checked": {"*": [str]},
    "skipped": [[str]],
    "names": {"*": [str]},
    "shards": int,
    "members": int,
    "shared": [[str]],
    "tensors": int,
    "without": {"*": str},
}
ENTRY: Kind = {
    "at": int,
    "spec": str,
    "path": str,
    "files": [list],
    "judged": (None, JUDGED),
    "unread": (None, {"path": str, "problem": str}),
    "notes": [str],
}
MOST_MARKS, WIDTH = 1 << 16, 4
"""How many marks the text may have (`lean_json`), and in how many bytes one more."""
LARGEST = 1 << 1000
"""No whole number is as large, and every smaller one is a float, too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint of a part: what was seen of it, or why it could not be read.

    `at` is its place among those of all parts, in the order of the call. `spec` is how it was
    named, and `path` the file or folder that this means. `files` are those that its tensors lie in,
    where it is none of them or not the only one. `notes` are sentences of `Reading.notes`.
    """

    at: int
    spec: str
    path: str
    files: tuple[PartInput, ...] = ()
    judged: Judged | None = None
    unread: Unread | None = None
    notes: tuple[str, ...] = ()


def text_of(entries: Iterable[Entry]) -> str:
    """The entries as one text, in ASCII."""
    return json.dumps([_plain(entry) for entry in entries], separators=(",", ":"))


def entries_of(text: object) -> list[Entry]:
    """The entries that such a text holds. Raises ValueError for any other, which says why."""
    if not isinstance(text, str):
        raise ValueError(f"its record cannot be {_shown(text)}")  # noqa: TRY004  # a file's value
    try:
        values = lean_json(text.encode("ascii"), MOST_MARKS, WIDTH)
    except ValueError:
        raise ValueError("its record is not JSON, or far larger than it should be") from None
    _check(values, [ENTRY], "record")
    return [_entry(value, f"record[{i}]") for i, value in enumerate(values)]


# ------------------------------------------------------------------ as JSON has it


def _plain(entry: Entry) -> dict[str, Any]:
    unread = entry.unread
    return {
        "at": entry.at,
        "spec": entry.spec,
        "path": entry.path,
        "files": [[each.path, each.nbytes, each.fingerprint] for each in entry.files],
        "judged": None if entry.judged is None else _plain_judged(entry.judged),
        "unread": None if unread is None else {"path": unread.path, "problem": unread.problem},
        "notes": entry.notes,
    }


def _plain_judged(judged: Judged) -> dict[str, Any]:
    values = {each.name: getattr(judged, each.name) for each in fields(judged)}
    values["rows"] = {key: judged.rows.column(key) for key in ROW}
    values["findings"] = [_plain_finding(finding) for finding in judged.findings]
    values["skipped"] = [[*key, why] for key, why in judged.skipped.items()]
    # In one order, whatever the seed of this process's hashes is.
    values["classes"] = sorted(judged.classes, key=lambda name: (name is not None, name or ""))
    for key in ("eps_sources", "momentum_sources", "shared"):
        values[key] = sorted(values[key])
    return values


def _plain_finding(finding: Finding) -> dict[str, Any]:
    values = {each.name: getattr(finding, each.name) for each in fields(finding)}
    return values | {
        "severity": finding.severity.value,
        "certainty": finding.certainty.value,
        "evidence": dict(finding.evidence),
    }


# ------------------------------------------------------------------ and back


def _entry(values: dict[str, Any], where: str) -> Entry:
    judged, unread = values["judged"], values["unread"]
    if (judged is None) is (unread is None):
        raise ValueError(f"{where} has to be judged or unread")
    files = []
    for row in values["files"]:
        if list(map(type, row)) != [str, int, str] or row[1] < 0:
            raise ValueError(f"{where}.files cannot hold {_shown(row)}")
        files.append(PartInput(*row))
    return Entry(
        at=values["at"],
        spec=values["spec"],
        path=values["path"],
        files=tuple(files),
        judged=None if judged is None else _judged(judged, f"{where}.judged"),
        unread=None if unread is None else Unread(**unread),
        notes=tuple(values["notes"]),
    )


def _judged(values: dict[str, Any], where: str) -> Judged:
    sets = ("eps_sources", "momentum_sources", "classes")
    return Judged(
        **{
            **values,
            **{key: set(values[key]) for key in sets},
            "rows": Rows(_rows(values["rows"], f"{where}.rows")),
            "findings": [_finding(each, f"{where}.findings") for each in values["findings"]],
            "skipped": {(a, b): c for a, b, c in _wide(values["skipped"], 3, f"{where}.skipped")},
            "shared": {(a, b) for a, b in _wide(values["shared"], 2, f"{where}.shared")},
        }
    )


def _rows(columns: dict[str, list[Any]], where: str) -> list[dict[str, Value]]:
    """The rows that the columns hold."""
    if columns.keys() != ROW.keys():
        odd = sorted(columns.keys() ^ ROW.keys())
        raise ValueError(f"{where} lacks, or has without need, the column {_shown(odd[0])}")
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError(f"{where} has columns of different lengths")
    for key, column in columns.items():
        for value in column:
            if type(value) not in ROW[key]:
                raise ValueError(f"{where}.{key} cannot hold {_shown(value)}")
        _check_whole(column, f"{where}.{key}")
    _check(columns["replaced"], [[str]], f"{where}.replaced")
    said = [value for value in columns["momentum"] if isinstance(value, str)]
    _check_among(said, ("none",), f"{where}.momentum")
    for key in ("eps_source", "momentum_source"):
        _check_among(columns[key], ("flag", "file", "assumed"), f"{where}.{key}")
    ordered = [columns[key] for key in ROW]
    return [dict(zip(ROW, row, strict=True)) for row in zip(*ordered, strict=True)]


def _finding(values: dict[str, Any], where: str) -> Finding:
    for member in values["extent"]:
        if isinstance(member, list) and list(map(type, member)) != [str, int, int]:
            raise ValueError(f"{where}.extent cannot hold {_shown(member)}")
    for key, value in values["evidence"].items():
        _check_value(value, f"{where}.evidence.{key}")
    _check_among([values["severity"]], [each.value for each in Severity], f"{where}.severity")
    _check_among([values["certainty"]], [each.value for each in Certainty], f"{where}.certainty")
    instead_of = values["instead_of"]
    return Finding(
        **{
            **values,
            "severity": Severity(values["severity"]),
            "certainty": Certainty(values["certainty"]),
            "extent": tuple(tuple(m) if isinstance(m, list) else m for m in values["extent"]),
            "places": tuple(values["places"]),
            "instead_of": None if instead_of is None else tuple(instead_of),
        }
    )


def _check(value: Any, kind: Kind, where: str) -> None:
    """Raise ValueError where a value, which stands at `where`, is of another kind."""
    if isinstance(kind, tuple):
        kind = next((each for each in kind if _is_of(value, each)), kind[-1])
    if not _is_of(value, kind):
        raise ValueError(f"{where} cannot be {_shown(value)}")
    if isinstance(kind, list):
        for i, each in enumerate(value):
            _check(each, kind[0], f"{where}[{i}]")
    elif isinstance(kind, dict):
        if "*" not in kind and value.keys() != kind.keys():
            odd = sorted(value.keys() ^ kind.keys())
            raise ValueError(f"{where} lacks, or has without need, the key {_shown(odd[0])}")
        for key, each in value.items():
            _check(each, kind.get("*", kind.get(key)), f"{where}.{quoted(key)}")
    elif kind is int:
        _check_whole([value], where)


def _is_of(value: object, kind: Kind) -> bool:
    """Whether a value is of a kind, whatever it holds."""
    if kind is Any:
        return True
    if kind is None:
        return value is None
    kind = kind if isinstance(kind, type) else type(kind)
    return type(value) is kind


def _check_value(value: object, where: str) -> None:
    """Raise ValueError for what is no `Value`."""
    if isinstance(value, list):
        for each in value:
            _check_value(each, where)
    elif isinstance(value, dict):
        raise ValueError(f"{where} cannot be {_shown(value)}")  # noqa: TRY004  # a file's value
    else:
        _check_whole([value], where)


def _check_whole(values: Sequence[object], where: str) -> None:
    """Raise ValueError for a whole number that is no float."""
    for value in values:
        if isinstance(value, int) and not -LARGEST < value < LARGEST:
            raise ValueError(f"{where} cannot hold a number of {value.bit_length()} bits")


def _check_among(values: Sequence[str], among: Sequence[str], where: str) -> None:
    """Raise ValueError for any other text."""
    for value in values:
        if value not in among:
            raise ValueError(f"{where} cannot be {_shown(value)}")


def _wide(rows: list[list[str]], width: int, where: str) -> list[list[str]]:
    """The rows. Raises ValueError where one has another length."""
    for row in rows:
        if len(row) != width:
            raise ValueError(f"{where} cannot hold {_shown(row)}")
    return rows


def _shown(value: object) -> str:
    """A value as JSON has it, in a few words."""
    return quoted(json.dumps(value), 40)
