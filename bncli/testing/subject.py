"""What is judged: a class, a function or a backend, run in all configurations that it can take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from typing import Any

from bncli.backends.interface import Backend
from bncli.backends.users import users_backend
from bncli.backends.users.arrays import arrays_of
from bncli.backends.users.function import FunctionBackend
from bncli.errors import ModelError
from bncli.light import dataclass
from bncli.testing.configurations import SHAPES, SQUARES, Configuration, needs, probe_of
from bncli.testing.layouts import laid_out_for
from bncli.testing.runs import Step, raising, steps_of, told

REFUSALS = (ValueError, TypeError, NotImplementedError, RuntimeError, AssertionError)
"""What an implementation raises where it cannot take a dtype or an argument."""

OF_AXES = (*REFUSALS, IndexError)
"""The same for inputs of another number of axes."""

NEEDED = "which this layer needs"
"""What a ModelError says of an implementation that lacks an argument."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The steps of all configurations that were judged, and why the others were not, by name.

    `moved` is the number of those that were judged with another number of axes.
    """

    steps: tuple[Step, ...]
    skipped: Mapping[str, str]
    moved: int


@dataclass(frozen=True, slots=True)
class Subject:
    """An implementation, called `name`; what it cannot take is found out once."""

    implementation: Any
    name: str
    _backends: dict[str, Backend] = field(default_factory=dict)
    _refused: dict[tuple[int, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, implementation: Callable[..., Any] | Backend) -> Subject:
        """The subject that an object is. Raises ModelError where it is none."""
        if isinstance(implementation, str):
            raise ModelError(
                f"{implementation!r} is a name; give the class or the function itself, such as "
                "torch.nn.BatchNorm2d."
            )
        if not isinstance(implementation, type) and isinstance(implementation, Backend):
            return cls(implementation, implementation.name, {"": implementation})
        backend = users_backend(implementation, raising)
        called = str(getattr(backend, "called", backend.name))
        return cls(implementation, called.rpartition("<locals>.")[2])

    @property
    def hint(self) -> str:
        """What to do where it runs with no input, "" for nothing; it begins with a line break."""
        if "" in self._backends:
            return ""
        backend = users_backend(self.implementation, raising)
        if not (
            isinstance(backend, FunctionBackend)
            and arrays_of(backend.code, backend.taken.first).assumed
        ):
            return ""
        return (
            "\nIt was given NumPy arrays; where it takes others, annotate its first parameter, "
            "such as x: torch.Tensor."
        )

    def steps(self, configuration: Configuration) -> tuple[Step, ...]:
        """The steps of one configuration."""
        backend = self._backends.get("")
        if backend is None:
            backend = self._backends.get(configuration.layout)
        if backend is None:
            relaid = laid_out_for(self.implementation, configuration.layout)
            plain = configuration.layout == "contiguous"
            backend = users_backend(self.implementation if plain else relaid, raising)
            self._backends[configuration.layout] = backend
        return steps_of(backend, configuration)

    def again(self, step: Step) -> Step | None:
        """The same step of its configuration, run once more; None where it does not come to it."""
        steps = self.steps(step.configuration)
        return steps[step.number] if step.number < len(steps) else None

    def refuses(self, ndim: int) -> str:
        """Why inputs of so many axes are not taken, "" where they are.

        One that fails on the usual shape alone is not said to refuse: it confuses the axes.
        """
        key = ndim, ""
        if key not in self._refused:
            shapes = [shapes[ndim] for shapes in (SHAPES, SQUARES) if ndim in shapes]
            probes = [Configuration("probe", "", shape) for shape in shapes]
            raised = [self.steps(probe)[-1].error for probe in probes]
            refused = all(isinstance(error, OF_AXES) for error in raised)
            reason = f"{ndim}-D input is refused ({told(raised[0])})" if refused else ""
            self._refused[key] = reason
        return self._refused[key]

    def ran(self, configurations: Iterable[Configuration], wanted: Collection[int]) -> Ran:
        """All configurations, without those in which the implementation refuses what it lacks.

        They have the `wanted` numbers of axes; by default those that are not refused.
        """
        taken = wanted or [ndim for ndim in SHAPES if not self.refuses(ndim)]
        done, skipped, moved = {}, {}, 0
        for each in configurations:
            fit = _fitting(each, taken)
            if fit is None:
                skipped[each.name] = self._no_axes(each, wanted)
                continue
            moved += fit.ndim != each.ndim
            done[fit] = self.steps(fit)
        fine = {
            need
            for each, steps in done.items()
            for need in needs(each)
            if all(step.error is None for step in steps)
        }
        judged: list[Step] = []
        for each, steps in done.items():
            error = steps[-1].error
            reason = "" if error is None else self._reason(each, error, fine)
            if reason:
                skipped[each.name] = reason
            else:
                judged += steps
        return Ran(tuple(judged), skipped, moved)

    def _no_axes(self, configuration: Configuration, wanted: Collection[int]) -> str:
        """Why no number of axes would do for a configuration."""
        if wanted:
            return f"{configuration.ndim}-D input was not asked for"
        if configuration.fixed or not any(not self.refuses(ndim) for ndim in SHAPES):
            return self.refuses(configuration.ndim)
        return "channels_last is for 4 or 5 axes, which are refused"

    def _reason(self, configuration: Configuration, error: Exception, fine: set[str]) -> str:
        """Why a configuration in which it raised is not judged; "" where it is."""
        if isinstance(error, ModelError) and NEEDED in str(error):
            return str(error).rstrip(".")
        for need in needs(configuration):
            key = configuration.ndim, need
            if need in fine:
                continue
            if key not in self._refused:
                raised = self.steps(probe_of(configuration, need))[-1].error
                refused = isinstance(raised, REFUSALS)
                self._refused[key] = f"{need} is refused ({told(raised)})" if refused else ""
            if self._refused[key]:
                return self._refused[key]
        return ""


def _fitting(configuration: Configuration, taken: Collection[int]) -> Configuration | None:
    """The configuration with a number of axes that is taken, the nearest; None for none."""
    if configuration.ndim in taken:
        return configuration
    least = 4 if configuration.layout == "channels_last" else 2
    others = [ndim for ndim in taken if ndim >= least]
    if configuration.fixed or not others:
        return None
    return configuration.with_axes(min(others, key=lambda ndim: abs(ndim - configuration.ndim)))
