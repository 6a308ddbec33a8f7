"""What a page shows of inspected checkpoints: each layer's ranges over depth, and the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.many.common import names_of
from bncli.commands.inspect_checkpoint.answer import place
from bncli.pictures import Kind, Panel, Picture, Series
from bncli.rulebook.counters import counter_groups
from bncli.rulebook.interface import examples
from bncli.rulebook.layers import plain_count
from bncli.sections.answer import counted
from bncli.sections.depth import (
    above,
    codes_said,
    drawn,
    drawn_said,
    findings_said,
    known,
    layer_axis,
    panel,
    ranges,
    sentences,
    spanned,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bncli.pictures import Numbers
    from bncli.report import Finding, Value

    Row = dict[str, Value]

MOST_FILES = 6
"""Files that are shown side by side."""
MOST_GROUPS = 6
"""Values of counters that are told apart by colours."""
BAR = "A bar goes from a layer's least channel to its greatest."
SKETCH = "In the table, |scale| counts the channels by half decades, from below 0.03 to above 30."
WIDE = 100
"""The ratio of two counters from which a log axis shows both."""

Place = tuple[str, str]


def pictures(
    findings: Sequence[Finding], *, rows: Sequence[Row], shared: Collection[Place]
) -> tuple[Picture, ...]:
    """The pictures of one file, or of the few of several that say most; () without layers.

    `rows` are the layers' in the order of the files, and `shared` the places of those that stand
    under another name, too.
    """
    found: dict[Place, list[Finding]] = {}
    for finding in findings:
        for name in _layers_of(finding):
            found.setdefault((finding.path, name), []).append(finding)
    files: dict[str, list[Row]] = {}
    for row in rows:
        if place(row) not in shared or place(row) in found:
            files.setdefault(str(row["path"]), []).append(row)
    if len(files) > 1:
        return _several(files, found)
    return tuple(each for own in files.values() for each in _one(own, found, any(findings)))


def _layers_of(finding: Finding) -> list[str]:
    """The layers of a finding: the one that it is about, or those that show what the file has."""
    one, several = (finding.evidence.get(key) for key in ("layer", "layers"))
    if isinstance(one, str):
        return [one]
    names = several if isinstance(several, (list, tuple)) else ()
    return [name for name in dict.fromkeys(names) if isinstance(name, str)]


# ------------------------------------------------------------------ one file


def _one(
    rows: Sequence[Row], found: Mapping[Place, Sequence[Finding]], troubled: bool
) -> tuple[Picture, ...]:
    """The ranges of running_var and of the scale over depth, and the counters where they differ.

    `troubled` says whether anything was found, be it of a layer or not.
    """
    shown = drawn(rows, lambda row: place(row) in found)
    marked = {at: found[place(row)] for at, row in enumerate(shown) if place(row) in found}
    names = [str(row["name"]) for row in shown]
    axis = layer_axis(names)
    lows, highs = (known(row[key] for row in shown) for key in ("var_min", "var_max"))
    sizes = _sizes(shown)
    var = panel("running_var", axis, "running_var", [ranges("", lows, highs)], marked)
    scale = panel(
        "Scale, |weight| / sqrt(running_var + eps)",
        axis,
        "|scale|",
        [ranges("", *sizes)],
        {} if var is not None else marked,
    )
    told = list({id(each): each for those in marked.values() for each in those}.values())
    panels = tuple(filter(None, [var, scale]))
    text = sentences(
        drawn_said(len(shown), len(rows)),
        BAR,
        spanned("running_var", lows, highs, names),
        spanned("the scale |weight| / sqrt(running_var + eps)", *sizes, names),
        *_odd(shown),
        findings_said(told),
        "" if troubled else "There are no findings.",
        SKETCH if any(row["scale_sketch"] is not None for row in shown) else "",
    )
    picture = Picture("statistics", "Range of each layer's channels over depth", panels, text)
    return (*((picture,) if panels else ()), *_counters(shown, names))


def _sizes(rows: Sequence[Row]) -> tuple[list[float | None], list[float | None]]:
    """The least and the greatest |scale| of each layer."""
    lows = known(row["abs_scale_min"] for row in rows)
    ends = zip(
        *(known(row[key] for row in rows) for key in ("scale_min", "scale_max")), strict=True
    )
    return lows, [
        None if low is None or high is None else max(abs(low), abs(high)) for low, high in ends
    ]


def _odd(rows: Sequence[Row]) -> list[str]:
    """What of the layers cannot be drawn, or not where it is."""
    said = []
    if none := [row for row in rows if row["var_min"] is None]:
        said.append(f"{_which(none)} {_have(none)} no finite running_var to be drawn.")
    if spoilt := _spoilt(rows):
        said.append(spoilt)
    low = [row for row in rows if isinstance(row["var_min"], float) and row["var_min"] <= 0]
    if low:
        said.append(f"{_which(low)} {_have(low)} a running_var of 0 or below, at the lower edge.")
    zero = [row for row in rows if row["abs_scale_min"] == 0]
    if zero:
        said.append(f"{_which(zero)} {_have(zero)} a scale of 0, at the lower edge.")
    return said


def _which(some: Sequence[Row]) -> str:
    """How many layers, and the names of the first."""
    return f"{counted(len(some), 'layer')} ({examples([str(row['name']) for row in some])})"


def _spoilt(rows: Sequence[Row]) -> str:
    """Which layers have values that cannot be drawn; "" for none."""
    spoilt = [row for row in rows if row["nonfinite"]]
    hold = "holds" if len(spoilt) == 1 else "hold"
    return f"{_which(spoilt)} {hold} NaN or infinite values, which are not drawn." if spoilt else ""


def _have(some: Sequence[object]) -> str:
    return "has" if len(some) == 1 else "have"


def _counters(rows: Sequence[Row], names: Sequence[str]) -> tuple[Picture, ...]:
    """The layers by their counters, a colour for each group; () where there is one group."""
    counts = known(row["num_batches_tracked"] for row in rows)
    values = sorted({count for count in counts if count is not None})
    if len(values) < 2:
        return ()
    groups = {value: [at for at, count in enumerate(counts) if count == value] for value in values}
    if len(groups) <= MOST_GROUPS:
        series = [
            Series(
                f"{plain_count(value)} ({counted(len(places), 'layer')})",
                Kind.POINTS,
                tuple(places),
                (value,) * len(places),
            )
            for value, places in groups.items()
        ]
    else:
        series = [Series("", Kind.POINTS, range(len(counts)), counts)]
    log = values[0] > 0 and values[-1] > WIDE * values[0]
    drawn_panel = panel("", layer_axis(names), "num_batches_tracked", series, log=log)
    assert drawn_panel is not None
    text = f"The layers have counted different numbers of batches: {counter_groups(counts)}."
    return (Picture("counters", "Batches that each layer has counted", (drawn_panel,), text),)


# ------------------------------------------------------------------ several files


def _several(
    files: Mapping[str, Sequence[Row]], found: Mapping[Place, Sequence[Finding]]
) -> tuple[Picture, ...]:
    """running_var over depth in some of the files, those with the worst findings first."""
    worst: dict[str, int] = {}
    for (path, _), those in found.items():
        ranks = (finding.severity.rank for finding in those)
        worst[path] = max(worst.get(path, -1), *ranks)
    ordered = sorted(files, key=lambda path: -worst.get(path, -1))[:MOST_FILES]
    called = names_of(files)
    panels, said = [], []
    for path in ordered:
        each, text = _file_panel(called[path], files[path], found)
        panels += [] if each is None else [each]
        said.append(text)
    if not panels:
        return ()
    quiet = sum(path not in worst for path in files)
    some = f"{len(ordered)} of {len(files)} files, those with the worst findings first"
    text = sentences(
        f"Shown are {some}." if len(files) > len(ordered) else "",
        BAR,
        f"{counted(quiet, 'file')} {_have([''] * quiet)} no layer with findings." if quiet else "",
        *said,
    )
    title = "Range of running_var over depth, file by file"
    return (Picture("files", title, tuple(panels), text, columns=2, one_scale=True),)


def _file_panel(
    name: str, rows: Sequence[Row], found: Mapping[Place, Sequence[Finding]]
) -> tuple[Panel | None, str]:
    """The panel of a file, and what one sees in it."""
    shown = drawn(rows, lambda row: place(row) in found)
    marked = {at: found[place(row)] for at, row in enumerate(shown) if place(row) in found}
    names = [str(row["name"]) for row in shown]
    lows, highs = (known(row[key] for row in shown) for key in ("var_min", "var_max"))
    told = codes_said({id(each): each for those in marked.values() for each in those}.values())
    ends = spanned("running_var", lows, highs, names)
    text = sentences(
        f"{name}:",
        drawn_said(len(shown), len(rows)),
        f"{ends[:1].lower()}{ends[1:]}" or "no layer has a finite running_var.",
        _spoilt(shown),
        f"Findings: {told}." if told else "",
    )
    series = [ranges("", lows, highs), *_spoilt_marks(shown, lows, highs)]
    each = panel(name, layer_axis(names), "running_var", series, marked, coded=False)
    return each, text


def _spoilt_marks(rows: Sequence[Row], lows: Numbers, highs: Numbers) -> list[Series]:
    """A mark of its own, above the data, for each layer with values that cannot be drawn.

    It tells such layers from those with other findings; none where nothing is drawn.
    """
    places = [at for at, row in enumerate(rows) if row["nonfinite"]]
    drawn_ones = [value for value in (*lows, *highs) if value is not None]
    if not places or not drawn_ones:
        return []
    height = above(drawn_ones, log=any(value > 0 for value in drawn_ones))
    return [Series("NaN or infinite values", Kind.POINTS, places, [height] * len(places))]
