"""Running statistics of a simulation beside those of a backend's module, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bncli.arguments.against import backend_named
from bncli.backends.interface import Averages, IsRepeated, SteppingCall, StepsModule
from bncli.commands.simulate_ema.batches import values_of
from bncli.errors import UsageError
from bncli.light import dataclass
from bncli.rulebook.comparison import comparison_findings
from bncli.running_stats.simulation import Walk
from bncli.sections.answer import closest, counted, listed
from bncli.sections.findings import ComparedSection, backend_facts, full_name
from bncli.sections.tables import differences_answer, differences_table
from bncli.verify.stepping import (
    Allowed,
    compare_average,
    compare_steps,
    derived,
    exactly,
    widened,
)
from bncli.verify.tolerance import fixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.commands.simulate_ema.batches import Batches
    from bncli.commands.simulate_ema.flags import SteppedFlags
    from bncli.model import Closeness
    from bncli.running_stats.batch_table import BatchTable
    from bncli.running_stats.conventions import Convention
    from bncli.running_stats.simulation import Course
    from bncli.verify.closeness import GivenTolerance


@dataclass(frozen=True, slots=True)
class Against:
    """What a simulation is compared with; `tolerance` is what the user allows, if anything."""

    backend: str
    tolerance: GivenTolerance
    threads: int

    @classmethod
    def of(cls, flags: SteppedFlags) -> Against | None:
        """What the flags ask for, None for no comparison; raises as `AgainstFlags.tolerance`."""
        tolerance = flags.tolerance
        if flags.against is None:
            return None
        return cls(flags.against, tolerance, flags.torch_threads)

    def check(self, source: Batches, rows: list[tuple[Convention, float | None]]) -> None:
        """Raise before any work is done if no module can be stepped.

        UsageError, or MissingBackendError without the library.
        """
        library = self._library()
        if source.stored is not None:
            raise UsageError(
                f"--against: {source.label} holds statistics, and the module needs values."
            )
        if all(row.name != "pytorch" for row, _ in rows):
            raise UsageError(
                f"--against {library.name} steps {library.module}: add --convention pytorch."
            )

    def _library(self) -> StepsModule:
        """The backend, its library at hand; raises as `check`."""
        library = backend_named(self.backend)
        if not isinstance(library, StepsModule):
            raise UsageError(
                f"--against {library.name}: it has no module that can be stepped through batches; "
                "choose another backend, or leave the flag out."
            )
        return library

    def compare(
        self, source: Batches, table: BatchTable, row: Convention, course: Course, *, fresh: bool
    ) -> ComparedSection:
        """Step the module through the same batches; `fresh` says that it begins as a new one.

        For the cumulative average of a fresh module, the library's own recomputation of running
        statistics is compared too.
        """
        library = self._library()
        walk = Walk(table, row, course)
        call = SteppingCall(
            num_features=table.num_features,
            ndim=source.given.tensors[0].ndim,
            dtype=table.dtype,
            momentum=course.momentum,
            running=walk.first,
            freeze_after=course.freeze_after,
            threads=self.threads,
        )
        if isinstance(self.tolerance, tuple):
            same = fixed(*self.tolerance, table.num_features)
            allowed = Allowed(same, same)
        elif isinstance(self.tolerance, float):
            allowed = derived(table, walk.first, course.momentum, course.steps)
            allowed = widened(allowed, self.tolerance)
        elif table.dtype != "float64" and isinstance(library, IsRepeated) and library.repeats():
            allowed = exactly(table.num_features)
        else:
            allowed = derived(table, walk.first, course.momentum, course.steps)
        compared = compare_steps(walk, library.step(call, _values(source, table.dtype)), allowed)
        averaged = course.momentum is None and course.freeze_after is None
        if isinstance(library, Averages) and fresh and averaged and bool((table.count > 1).all()):
            average = library.average(call, _values(source, table.dtype))
            compared += compare_average(walk.final(), average, allowed, "update_bn")
        name = full_name(library)
        return ComparedSection(
            differences_table(compared, name),
            comparison_findings(compared, name),
            backend_facts(library, self.tolerance),
            {"": [item.quantity for item in compared]},
            _verdict(name, compared, source.steps),
            differences_answer(compared, name, "step"),
        )


def pytorch_row(
    rows: list[tuple[Convention, float | None]],
) -> tuple[Convention, float | None]:
    """PyTorch's convention among these, and its momentum."""
    return next(each for each in rows if each[0].name == "pytorch")


def _values(source: Batches, dtype: str) -> Iterator[NDArray[Any]]:
    """Every step's batch, in its order."""
    for order in source.order():
        for i in order.tolist():
            yield values_of(source, i, dtype)


def _verdict(name: str, compared: list[Closeness], steps: int) -> str:
    """Whether bncli and the backend `name` agree."""
    failed = [item.quantity for item in compared if not item.passed]
    over = f"over {counted(steps, 'step')}"
    if failed:
        return f"{name} differs {over}: {listed(failed)}"
    if all(item.max_abs_diff == 0 for item in compared):
        return f"{name} agrees bit for bit {over}"
    worst = max(compared, key=lambda item: item.used)
    return f"{name} agrees {over}; {closest(worst.quantity, worst.used)}"
