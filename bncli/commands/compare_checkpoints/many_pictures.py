"""What a page shows of many files: how far each moved, layer by layer, and the weights of a sum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from bncli.changes.many.common import names_of
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.rulebook.layers import label
from bncli.sections.answer import counted
from bncli.sections.depth import (
    codes_said,
    drawn,
    findings_said,
    known,
    layer_axis,
    level,
    panel,
    points,
    ranges,
    sentences,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.report import Finding, Value

    Row = Mapping[str, Value]

MOST_FILES = 12
"""Files that are shown side by side, layer by layer."""


# ------------------------------------------------------------------ a series, ranks or clients


def files_pictures(
    findings: Sequence[Finding],
    *,
    rows: Sequence[Row],
    moves: Sequence[Row],
    paths: Mapping[str, str],
    against: str,
) -> tuple[Picture, ...]:
    """How far each file moved, and its layers; () where nothing did and nothing was found.

    `rows` and `moves` are those of the tables, which name files as they were typed; `paths` has
    what findings call them. `against` says what each file is compared with.
    """
    found = {str(row["path"]): _of_file(findings, str(row["path"]), paths) for row in rows}
    names = names_of(found)
    return (
        *_files(rows, found, names, against),
        *_layers(moves, {path: those for path, those in found.items() if those}, names, against),
    )


def _of_file(findings: Sequence[Finding], spec: str, paths: Mapping[str, str]) -> list[Finding]:
    """The findings of a file, told by the name that was typed where they have it."""
    return [
        finding
        for finding in findings
        if finding.evidence.get("file", finding.path) in (spec, paths.get(spec, spec))
    ]


def _files(
    rows: Sequence[Row],
    found: Mapping[str, Sequence[Finding]],
    names: Mapping[str, str],
    against: str,
) -> tuple[Picture, ...]:
    """The medians over the layers, file by file."""
    shown = drawn(rows, lambda row: bool(found[str(row["path"])]))
    paths = [str(row["path"]) for row in shown]
    marked = {at: found[path] for at, path in enumerate(paths) if found[path]}
    axis = Axis("file", names=tuple(names[path] for path in paths))
    of = {key: known(row[key] for row in shown) for key in ("z", "z_max", *RATIOS)}
    if not any(of["z_max"]) and not marked and all(value in (None, 1) for value in of[RATIOS[1]]):
        return ()
    shift = [ranges("median layer to worst channel", of["z"], of["z_max"])]
    ratios = [points("median", of[RATIOS[0]]), points("furthest from 1", of[RATIOS[1]])]
    panels = (
        panel("Shift of the means", axis, "standard deviations", shift, marked),
        panel(f"Variance over that of {against}", axis, "ratio", [*ratios, level("equal", 1.0)]),
    )
    there = tuple(each for each in panels if each is not None)
    if not there:
        return ()
    told = [finding for those in marked.values() for finding in those]
    text = sentences(
        f"Each of {counted(len(rows), 'file')} is compared with {against}.",
        _furthest(shown, names),
        findings_said(told),
    )
    return (Picture("files", f"How far each file is from {against}", there, text),)


RATIOS = ("var_ratio", "var_ratio_worst")


def _furthest(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """Which file moved furthest, and in which layer."""
    there = [(value, row) for row in rows if isinstance(value := row["z_max"], float)]
    if not there:
        return "No file could be compared."
    most, row = max(there, key=lambda each: each[0])
    moved = f"A mean moved by up to {most:.3g} standard deviations, in {names[str(row['path'])]}."
    ratios = [(value, row) for row in rows if isinstance(value := row[RATIOS[1]], float)]
    far, row = max(ratios, key=lambda each: _factor(each[0]), default=(1.0, row))
    changed = f"A variance became {far:.3g} times as large in {names[str(row['path'])]}."
    return sentences(
        moved if most else "No mean moved.", changed if far != 1 else "No variance changed."
    )


def _layers(
    moves: Sequence[Row],
    found: Mapping[str, Sequence[Finding]],
    names: Mapping[str, str],
    against: str,
) -> tuple[Picture, ...]:
    """The moves of each layer, a panel for each file; of files with findings, or that moved most.

    Means and variances have a picture each, those of them that moved.
    """
    files: dict[str, list[Row]] = {}
    for row in moves:
        files.setdefault(str(row["path"]), []).append(row)
    furthest = {path: max(map(_distance, own)) for path, own in files.items()}
    worst = sorted(files, key=lambda path: (path not in found, -furthest[path]))[:MOST_FILES]
    shown = {path: drawn(own, lambda _: False) for path, own in files.items() if path in worst}
    some = f"{len(worst)} of {len(files)} files, those with findings or that moved most"
    said = sentences(
        f"Shown are {some}." if len(worst) < len(files) else "",
        f"Each file is compared with {against}.",
    )
    means, variances = [], []
    for path, rows in shown.items():
        axis = layer_axis([str(row["name"]) for row in rows])
        marked = _marked(found.get(path, ()), [str(row["name"]) for row in rows])
        shift = ranges(
            "median to worst channel", *(known(row[key] for row in rows) for key in SHIFTS)
        )
        means.append(panel(names[path], axis, "shift (std)", [shift], marked, coded=False))
        low_high = zip(*(known(row[key] for row in rows) for key in RATIOS), strict=True)
        ends = [sorted(each) if None not in each else (None, None) for each in low_high]
        ratio = ranges("median to worst channel", *zip(*ends, strict=True))
        variances.append(panel(names[path], axis, "ratio", [ratio, level("equal", 1.0)]))
    shifts, factors = [said], [said]
    for path, rows in shown.items():
        shifts.append(_shift_said(names[path], rows, found.get(path, ())))
        factors.append(_ratio_said(names[path], rows))
    of_means, of_variances = sentences(*shifts), sentences(*factors)
    title = f"Variance of each layer over that of {against}"
    return (
        *_multiples("moves", f"Shift of each layer's means from {against}", means, of_means),
        *_multiples("ratios", title, variances, of_variances),
    )


SHIFTS = ("z", "z_max")


def _multiples(
    key: str, title: str, panels: Sequence[Panel | None], text: str
) -> tuple[Picture, ...]:
    """Panels side by side, on one scale; () where nothing moved in any."""
    there = tuple(each for each in panels if each is not None)
    still = 1.0 if key == "ratios" else 0.0
    moved = any(
        value not in (None, still)
        for each in there
        for series in each.series
        if series.kind is Kind.RANGE
        for value in (*series.y, *series.upper)
    )
    return (Picture(key, title, there, text, columns=3, one_scale=True),) if moved else ()


def _distance(row: Row) -> float:
    """How far a layer moved, by its median channel: about that of two normal distributions."""
    z, ratio = known((row["z"], row["var_ratio"]))
    change = math.inf if not ratio or ratio < 0 else abs(math.log(ratio)) / math.sqrt(2)
    return math.hypot(math.inf if z is None else z, change)


def _shift_said(name: str, rows: Sequence[Row], found: Sequence[Finding]) -> str:
    """Which layer's means moved furthest in a file, and its findings."""
    there = [row for row in rows if isinstance(row["z_max"], float)]
    if not there:
        said = f"{name}: no shift is known"
    elif not (most := max(there, key=lambda row: cast("float", row["z_max"])))["z_max"]:
        said = f"{name}: no mean moved"
    else:
        said = f"{name}: the means of {most['name']} moved furthest, "
        usual, worst = (_number(most[key]) for key in SHIFTS)
        said += f"by {usual} standard deviations"
        said += "" if usual == worst else f" in the median channel and by {worst} in the worst"
    codes = codes_said(found)
    return f"{said}; {codes}." if codes else f"{said}."


def _ratio_said(name: str, rows: Sequence[Row]) -> str:
    """Which layer's variances became most another in a file."""
    there = [row for row in rows if isinstance(row[RATIOS[1]], float)]
    if not there:
        return f"{name}: no ratio is known."
    most = max(there, key=lambda row: _factor(cast("float", row[RATIOS[1]])))
    if most[RATIOS[1]] == 1:
        return f"{name}: no variance changed."
    usual, worst = (_number(most[key]) for key in RATIOS)
    said = f"{name}: the variances of {most['name']} changed most, "
    if usual == worst:
        return f"{said}to {usual} times what they were."
    return (
        f"{said}the median channel's to {usual} times and the worst one's to {worst} times what it "
        "was."
    )


def _number(value: Value) -> str:
    """A number as a sentence has it."""
    return f"{value:.3g}" if isinstance(value, float) else "an unknown number of"


def _factor(ratio: float) -> float:
    """How many times larger or smaller."""
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf


def _marked(findings: Sequence[Finding], layers: Sequence[str]) -> dict[int, list[Finding]]:
    """The findings of each layer, by its place."""
    marked: dict[int, list[Finding]] = {}
    places = {name: at for at, name in enumerate(layers)}
    for finding in findings:
        named = finding.evidence.get("layers")
        for name in named if isinstance(named, (list, tuple)) else ():
            if (at := places.get(label(str(name)))) is not None:
                marked.setdefault(at, []).append(finding)
    return marked


# ------------------------------------------------------------------ a target


def target_pictures(origins: Sequence[Row], files: Sequence[str]) -> tuple[Picture, ...]:
    """The weights of the files in each part of the target that is a sum; () where none is."""
    names = tuple(names_of(files)[path] for path in files)
    panels, said = [], []
    for row in origins:
        weights = known(row["weights"] if isinstance(row["weights"], (list, tuple)) else ())
        if len(weights) != len(files) or not row["unique"]:
            continue
        bars = Series("weight", Kind.BARS, range(len(weights)), weights)
        panels.append(Panel(str(row["group"]), Axis("file", names=names), Axis("weight"), (bars,)))
        said.append(f"{row['group']}: {row['what']}.")
    if not panels:
        return ()
    title = "Weights of the files in the target"
    return (Picture("weights", title, tuple(panels), " ".join(said), columns=3),)
