"""A simulation from its parts to its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.arguments.layer import about_spec
from bncli.commands.simulate_ema.against import Against, pytorch_row
from bncli.commands.simulate_ema.answer import (
    Distance,
    course_table,
    plan_lines,
    port_answer,
    settled_errors,
    subject,
    verdict,
)
from bncli.commands.simulate_ema.batch_source import Statistics, statistics_of
from bncli.commands.simulate_ema.reach import reach_answer, reached
from bncli.commands.simulate_ema.running_tables import (
    Simulated,
    channels_table,
    charted_steps,
    charts,
    chosen_steps,
    final_errors,
    plan_table,
    port_table,
    several_values,
    steps_table,
)
from bncli.errors import UsageError
from bncli.light import dataclass, np
from bncli.process.progress import progress
from bncli.report import MOST_ROWS, Report
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.scatter import Population, population
from bncli.running_stats.simulation import Course, Walk, simulate
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from bncli.commands.simulate_ema.batches import Batches
    from bncli.commands.simulate_ema.flags import PlanFlags, RunningFlags, ShownFlags
    from bncli.commands.simulate_ema.running_start import Rows, Start
    from bncli.model import IntArray
    from bncli.pictures import Shown
    from bncli.report import Finding, Table, Value

MOST_STEPS = 10**10
"""Steps of a simulation; a float64 one of these takes hours."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Everything that the command line asks for; the first of `rows` leads."""

    source: Batches
    start: Start
    rows: Rows
    running: RunningFlags
    plan: PlanFlags
    shown: ShownFlags
    against: Against | None
    torch_threads: int
    threads: int | None
    distributed: bool = False

    @property
    def dtype(self) -> str:
        """The buffers'."""
        return self.running.buffer_dtype.value

    def report(self) -> Report:
        """Run the simulation; raises the BncliError family."""
        from bncli.arguments.input import parse_channels

        source = self.source
        if source.steps > MOST_STEPS:
            raise UsageError(
                f"--epochs {source.flags.epochs}: that is {source.steps} steps, and at most "
                f"{MOST_STEPS} are allowed; the buffers settle long before."
            )
        channels = [*parse_channels(source.flags.channel, source.given.num_features)]
        shown = self._chosen(len(channels))
        steps = charted_steps(source.steps, shown)
        plot = self.shown.plot
        if plot is not None and len(steps) < 2:
            raise UsageError("--plot: one step makes no curve; give more batches or --epochs.")
        if self.against is not None:
            self.against.check(source, self.rows.conventions)
        statistics = statistics_of(
            source, self.dtype, self.threads, self.torch_threads, distributed=self.distributed
        )
        table = statistics.table
        runs = self._run(table, steps, channels)
        scatter = population(table, statistics.samples, statistics.kurtosis)
        findings = self._findings(runs, table, scatter)
        tables, answers, plan, (said, judged) = self._tables(runs, table, scatter, shown, channels)
        facts = self._facts(runs, statistics)
        compared = None
        if self.against is not None:
            row, momentum = pytorch_row(self.rows.conventions)
            course = self._course(momentum, self.dtype)
            fresh = self.start.running is None
            compared = self.against.compare(source, table, row, course, fresh=fresh)
            tables.append(compared.table)
            findings += compared.findings
            facts |= compared.facts
        pictures = self._pictures(runs, table, scatter, channels)
        if plot is not None:
            from bncli.renderers.drawing.plot import draw

            draw(plot, pictures())
            facts["plot"] = plot
        features = counted(source.given.num_features, "channel")
        about = tuple(map(about_spec, source.flags.inputs)) or (("", source.label),)
        return Report(
            command="simulate-ema",
            facts=facts,
            tables=tuple(tables),
            findings=tuple(findings),
            charts=charts(runs, table, scatter, channels),
            pictures=pictures,
            verdict=compared.verdict if compared else said,
            subject=subject(source, self.rows, table.count, self.dtype),
            answer=(*answers, *(compared.answer if compared else ())),
            remarks=plan,
            scope=f"{counted(source.per_epoch, 'batch', 'batches')} of {features}",
            judged=compared is not None or judged,
            drawn=self.shown.chart,
            read=(*source.read, *self.start.read),
            checked=compared.checked if compared else {},
            about=(*about, *self.start.about),
        )

    def _run(self, table: BatchTable, steps: IntArray, channels: list[int]) -> list[Simulated]:
        """Every convention's trajectory over these batches, with the buffers at `steps`."""
        rows = self.rows.conventions
        total = len(rows) * self.source.steps * 8 * table.num_features
        with progress("steps", total) as advance:
            return [
                Simulated(row, momentum, simulate(table, row, course, steps, channels, advance))
                for row, momentum in rows
                for course in [self._course(momentum, self.dtype)]
            ]

    def _chosen(self, channels: int) -> IntArray:
        """The steps that are shown. Raises UsageError where --every makes too many rows."""
        rows_a_step = channels * len(self.rows.conventions)
        every = self.shown.every
        if every is not None:
            rows = -(-self.source.steps // every) * rows_a_step
            if rows > MOST_ROWS and self.source.steps > every:
                raise UsageError(
                    f"--every {every}: that is {rows} rows, and at most {MOST_ROWS} are allowed; "
                    "choose a larger number, or fewer channels with --channel."
                )
        return chosen_steps(self.source.steps, rows_a_step, every)

    def _course(self, momentum: float | None, dtype: str) -> Course:
        """What is done under one convention, in buffers of `dtype`."""
        from bncli.commands.simulate_ema.running_start import rounded_start

        return Course(
            order=self.source.order,
            steps=self.source.steps,
            momentum=momentum,
            start=rounded_start(self.start.running, dtype),
            freeze_after=self.running.freeze_after,
        )

    # ------------------------------------------------------------------ what is shown

    def _tables(
        self,
        runs: list[Simulated],
        table: BatchTable,
        scatter: Population,
        shown: IntArray,
        channels: list[int],
    ) -> tuple[list[Table], tuple[Table, ...], tuple[str, ...], tuple[str, bool]]:
        """The tables but for the comparison's; those that answer, the plan and the verdict."""
        from bncli.rulebook.running import began_with

        lead = runs[0]
        counts = several_values(table)
        finite = scatter.kurtosis[np.isfinite(scatter.kurtosis)]
        typical = float(np.median(finite)) if finite.size else 0.0
        errors = final_errors(lead, table, scatter)
        distance = Distance.of(lead, scatter, errors)
        found = reached(self.plan, lead.convention, counts, typical)
        start = began_with(trained=self.start.trained)
        steps = steps_table(runs, table, shown, channels)
        plan = plan_table(lead, counts, typical, found)
        tables = [steps, plan, channels_table(lead, scatter, errors, channels)]
        chosen = self.source.flags.channel is not None
        if len(runs) > 1:
            port = port_table(runs, channels)
            tables.insert(1, port)
            answer = port_answer(port.rows, runs, channels, chosen=chosen)
        else:
            every = self.shown.every is not None
            answer = course_table(steps.rows, distance, channels, chosen=chosen, every=every)
        fresh = self.start.running is None
        settled = settled_errors(lead, counts, typical)
        return (
            tables,
            (reach_answer(found, lead, settled, fresh=fresh), answer) if found else (answer,),
            () if found else plan_lines(lead, settled, start),
            verdict(runs, distance, start),
        )

    def _pictures(
        self, runs: list[Simulated], table: BatchTable, scatter: Population, channels: list[int]
    ) -> Callable[[], tuple[Shown, ...]]:
        """What makes the pictures."""

        def make() -> tuple[Shown, ...]:
            from bncli.commands.simulate_ema.pictures import course_pictures

            chosen = self.source.flags.channel is not None
            squares = [
                Walk(table, run.convention, self._course(run.momentum, self.dtype)).squares(
                    run.trajectory.steps
                )
                for run in runs
            ]
            return course_pictures(runs, squares, table, scatter, channels, chosen=chosen)

        return make

    def _facts(self, runs: list[Simulated], statistics: Statistics) -> dict[str, Value]:
        """What a report says of the batches and of the course of the first convention."""
        source, lead, table = self.source, runs[0], statistics.table
        trajectory, memory = lead.trajectory, lead.memory
        counts = np.unique(table.count)
        seeded = source.kind == "generated" or source.flags.shuffle
        given = source.given
        return {
            "input": source.label,
            "source": source.kind,
            "shape": None if source.stored is not None else given.tensors[0].shape,
            "dtype": None if source.stored is not None else given.dtype,
            "convention": lead.convention.name,
            "conventions": [run.convention.name for run in runs] if len(runs) > 1 else None,
            "momentum": "none" if lead.momentum is None else lead.momentum,
            "momentum_weighs": lead.convention.weighs,
            "momentum_source": self.rows.momentum_source,
            "batches": source.per_epoch,
            "epochs": source.flags.epochs,
            "steps": source.steps,
            "updates": trajectory.updates,
            "count": int(counts[0]) if len(counts) == 1 else [int(counts[0]), int(counts[-1])],
            "num_features": table.num_features,
            "half_life": memory.half_life,
            "steps_to_1_percent": memory.steps_to_1_percent,
            "initial_weight": trajectory.final_weight,
            "num_batches_tracked": trajectory.final.num_batches_tracked,
            "buffer_dtype": self.dtype,
            "freeze_after": self.running.freeze_after,
            "shuffle": source.flags.shuffle or None,
            "seed": source.flags.seed if seeded else None,
            "torch_threads": None if self.dtype == "float64" else self.torch_threads,
            "engines": statistics.engines or None,
        }

    # ------------------------------------------------------------------ what is found

    def _findings(
        self, runs: list[Simulated], table: BatchTable, scatter: Population
    ) -> list[Finding]:
        """What the rules say."""
        from bncli.rulebook.batch import outside_findings
        from bncli.rulebook.running import (
            momentum_findings,
            one_value_findings,
            scatter_findings,
            stall_findings,
            trajectory_findings,
        )

        lead = runs[0]
        findings = momentum_findings(lead.convention, lead.momentum)
        findings += outside_findings(lead.momentum)
        findings += one_value_findings(
            [run.convention for run in runs],
            self._one_value_batches(table),
            self.source.number,
            self.source.samples,
            self.source.flags.batch_size,
        )
        finite = bool(np.isfinite(table.mean).all() and np.isfinite(table.var).all())
        for run in runs:
            findings += trajectory_findings(
                run.convention, run.trajectory, finite=finite, trained=self.start.trained
            )
        findings += scatter_findings(scatter)
        if self.dtype in ("float16", "bfloat16"):
            exact = BatchTable(table.count, table.mean, table.var)
            for run in runs:
                walk = Walk(exact, run.convention, self._course(run.momentum, "float64"))
                for _ in walk.pieces(np.zeros(0, np.int64)):
                    pass
                findings += stall_findings(
                    run.convention, self.dtype, run.trajectory.final, walk.final()
                )
        return findings

    def _one_value_batches(self, table: BatchTable) -> list[int]:
        """The batches with one value per channel that training comes to, from 0, ascending."""
        one = table.count == 1
        if self.running.freeze_after is None or not one.any():
            return np.flatnonzero(one).tolist()
        seen = np.zeros_like(one)
        left = self.running.freeze_after
        for order in self.source.order():
            if left <= 0:
                break
            seen[order[:left]] = True
            left -= len(order)
        return np.flatnonzero(one & seen).tolist()
