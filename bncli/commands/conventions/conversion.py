"""From one convention of running statistics to another: what becomes of each quantity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass
from bncli.renderers.drawing.cells import format_cell
from bncli.report import Column, Report, Table
from bncli.running_stats.conventions import converted_momentum, variance_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bncli.report import Value
    from bncli.running_stats.conventions import Convention

CONVERSION_COLUMNS = (
    Column("quantity", "quantity"),
    Column("from_value", "from", ".9g"),
    Column("to_value", "to", ".9g"),
    Column("how", "how"),
    Column("from_name", "its name"),
    Column("to_name", "becomes"),
)
MEANT = {"new": "new batch", "old": "old value"}
"""What the momentum is the weight of."""

NOT_NEEDED = "not needed"

CHANGED = ("channel axis", "variance kept", "mean_0, var_0", "debiased")
"""Quantities that the answer shows only where the two conventions differ."""

COUNTS = (2, 4, 8, 16, 32, 64, 256, 1024, 65536)
"""Values per channel for which the error is shown where none were asked for."""

FEW_COUNTS = (2, 8, 32, 256)
"""Those of them for which the answer says it."""

VARIANCE_COLUMNS = (
    Column("count", "values per channel"),
    Column("running_var_ratio", "running_var ratio"),
    Column("running_var_error", "its error", ".3%"),
    Column("output_error", "output's error", ".3%"),
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion; `momentum` and `eps` are the source's.

    The momentum is None for the cumulative average, and where there is no default.
    """

    source: Convention
    target: Convention
    momentum: float | None
    eps: float

    def report(self, count: int | None) -> Report:
        """The conversion, and what another variance leaves at this count, or at several."""
        from bncli.rulebook.batch import outside_findings

        source, target = self.source, self.target
        counts = COUNTS if count is None else (count,)
        variance = [self._variance_row(count) for count in counts]
        same = source.variance == target.variance
        title = f"running_var of {target.name} over that of {source.name}, both settled"
        return Report(
            command="conventions",
            facts={
                "from": source.name,
                "to": target.name,
                "momentum_from": self.momentum,
                "momentum_to": self.momentum_to,
                "eps_from": self.eps,
                "eps_to": self.eps_to,
                "variance_from": source.variance,
                "variance_to": target.variance,
            },
            tables=(
                Table(
                    "conversion",
                    f"From {source.framework} to {target.framework}",
                    CONVERSION_COLUMNS,
                    self._rows(),
                ),
                Table(
                    "variance",
                    title,
                    VARIANCE_COLUMNS,
                    variance,
                    note=""
                    if same
                    else "This is the change after training further under the other convention; "
                    "copy running_var unchanged. To convert its history too, after t equal "
                    "batches, with q the weight of the old value and var_0 the initial variance: "
                    "q**t * var_0 + ratio * (running_var - q**t * var_0).",
                ),
            ),
            findings=tuple(outside_findings(self.momentum)),
            subject=self._subject(),
            answer=(self._answer(),),
            remarks=tuple(self._remarks(variance)),
            verdict=self._verdict(),
            judged=False,
        )

    @property
    def momentum_to(self) -> float | None:
        """The target's momentum."""
        if self.momentum is None:
            return None
        return converted_momentum(self.momentum, self.source, self.target)

    @property
    def eps_to(self) -> float:
        """The target's eps: the one that gives the same output at variance 1, or all of them."""
        if self.source.eps_outside_root == self.target.eps_outside_root:
            return max(self.eps, self.target.least_eps)
        # sqrt(1 + eps) - 1 and (1 + eps)**2 - 1, without losing the digits of a small eps.
        if self.target.eps_outside_root:
            return self.eps / (math.sqrt(1 + self.eps) + 1)
        return max(self.eps * (2 + self.eps), self.target.least_eps)

    def _subject(self) -> tuple[str, str]:
        """Which two, and what the momentum becomes and why."""
        source, target = self.source, self.target
        frameworks = f"{source.framework} to {target.framework}"
        if self.momentum is None:
            return frameworks, (
                f"{source.name} has no default momentum: give one with --momentum"
                if source.momentum is None
                else "momentum none, the cumulative average, stays"
            )
        why = f"the weight of the {MEANT[target.weighs]}"
        if source.weighs == target.weighs:
            return frameworks, f"momentum {self.momentum:.9g} stays: both make it {why}"
        return frameworks, (
            f"momentum {self.momentum:.9g} becomes {self.momentum_to:.9g}, in {target.name} {why}"
        )

    def _answer(self) -> Table:
        """What to do with each quantity: its numbers, or its names where it is copied."""
        rows: list[dict[str, Value]] = []
        for row in self._rows():
            cells = row["from_value"], row["to_value"]
            same = row["quantity"] in CHANGED and cells[0] == cells[1]
            if same or row["how"] == NOT_NEEDED:
                continue
            if cells == (None, None):
                cells = row["from_name"], row["to_name"]
            there, here = (format_cell(cell, ".9g") for cell in cells)
            rows.append({**row, "from_value": there, "to_value": here})
        columns = (
            Column("quantity", ""),
            Column("from_value", self.source.name),
            Column("to_value", self.target.name),
            Column("how", "what to do", wraps=True),
        )
        return Table("", "", columns, rows, lead=3)  # names, to the left

    def _remarks(self, variance: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """What training on does to running_var, and what else is special."""
        source, target = self.source, self.target
        if source.variance != target.variance:
            shown = [row for row in variance if len(variance) == 1 or row["count"] in FEW_COUNTS]
            at = [f"{100 * row['running_var_error']:+.3g}% at {row['count']}" for row in shown]
            more = "".join(f", {each}" for each in at[1:])
            yield f"Training further shifts running_var by {at[0]} values per channel{more}."
        for side in dict.fromkeys((source, target)):
            if side.note:
                yield f"{side.name}: {side.note}"

    def _rows(self) -> list[dict[str, Value]]:
        """What becomes of each quantity."""
        source, target = self.source, self.target
        a, b = source.names, target.names
        same_variance = source.variance == target.variance
        rows: list[tuple[str, Value, Value, str, str | None, str | None]] = [
            ("momentum", self.momentum, self.momentum_to, self._how(), a.momentum, b.momentum),
            ("eps", self.eps, self.eps_to, self._how_eps(), a.eps, b.eps),
        ]
        rows += [
            (quantity, None, None, "copy it", getattr(a, quantity), getattr(b, quantity))
            for quantity in ("weight", "bias", "running_mean", "running_var")
        ]
        rows += [
            (
                "channel axis",
                source.channel_axis,
                target.channel_axis,
                "the same" if source.channel_axis == target.channel_axis else "transpose the data",
                None,
                None,
            ),
            (
                "variance kept",
                source.variance,
                target.variance,
                "the same" if same_variance else "nothing; see below",
                None,
                None,
            ),
            (
                "mean_0, var_0",
                [source.initial_mean, source.initial_var],
                [target.initial_mean, target.initial_var],
                "matters only for a new layer",
                None,
                None,
            ),
            (
                "debiased",
                source.debias,
                target.debias,
                "the same" if source.debias == target.debias else _how_debias(target),
                None,
                None,
            ),
            ("batches so far", None, None, _how_counter(target), None, None),
        ]
        keys = ("quantity", "from_value", "to_value", "how", "from_name", "to_name")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def _how(self) -> str:
        """What becomes of the momentum."""
        if self.momentum is None:
            return "give --momentum"
        if self.source.weighs == self.target.weighs:
            return "the same"
        return f"1 - {self.momentum:.9g}"

    def _how_eps(self) -> str:
        """What becomes of eps."""
        source, target = self.source, self.target
        if source.eps_outside_root != target.eps_outside_root:
            where = "outside" if target.eps_outside_root else "under"
            return f"{where} the root: equal at variance 1"
        if self.eps_to != self.eps:
            return f"raised: {target.name} takes no less"
        if self.eps == float(target.eps):
            return "the same, and its default"
        return f"set it: its default is {float(target.eps):g}"

    def _variance_row(self, count: int) -> dict[str, Value]:
        """The ratio at this count; the output is off by the root of it, where it has one."""
        ratio = variance_ratio(count, self.source, self.target, self.eps, self.eps_to)
        return {
            "count": count,
            "running_var_ratio": ratio,
            "running_var_error": ratio - 1,
            "output_error": 1 / math.sqrt(ratio) - 1 if ratio > 0 else None,
        }

    def _verdict(self) -> str:
        """What to do, in a sentence."""
        eps = f"set eps to {self.eps_to:.9g}"
        if self.momentum is None:
            return f"For inference copy the four tensors and {eps}"
        return (
            f"{self.source.name}'s momentum {self.momentum:.9g} is {self.momentum_to:.9g} in "
            f"{self.target.name}; for inference copy the four tensors and {eps}"
        )


def _how_debias(target: Convention) -> str:
    """What the target's treatment of the initial value asks for."""
    if target.debias == "divided":
        return "divides by 1 - momentum**batches"
    if target.debias == "first":
        return "the first batch replaces them"
    return "nothing; the initial values fade"


def _how_counter(target: Convention) -> str:
    """What the number of batches so far is needed for."""
    if target.name == "pytorch":
        return "set num_batches_tracked"
    return "needed for debiasing" if target.debias != "no" else NOT_NEEDED
