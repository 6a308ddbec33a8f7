"""`bncli diff`: bncli beside PyTorch, or two stored tensors, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.flags import AgainstFlags, EitherModeFlags, InputFlags
from bncli.arguments.options import argument, option
from bncli.light import dataclass
from bncli.report import Report

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.verify.batch_norm_pass import Path
    from bncli.verify.closeness import GivenTolerance


DEFAULT_TOLERANCE = (
    "from rounding-error bounds; for two stored tensors, as torch.testing.assert_close"
)
"""How close two sides must be without --rtol and --atol, as the help says it."""


@dataclass(frozen=True, slots=True)
class DiffedFlags(AgainstFlags):
    """What INPUT is compared with; the tolerances are for two stored tensors too."""

    against: Annotated[
        str | None,
        options.against_option("The implementation to compare with", options.TORCH),
    ] = None
    rtol: Annotated[
        float | None, options.tolerance_option("Relative", "--atol", DEFAULT_TOLERANCE)
    ] = None
    atol: Annotated[
        float | None, options.tolerance_option("Absolute", "--rtol", DEFAULT_TOLERANCE)
    ] = None

    @property
    def tolerance(self) -> GivenTolerance:
        """What the user allows, None for the tolerance that follows; raises as `AgainstFlags`."""
        return self.allowed(compared=True)


@dataclass(frozen=True, slots=True)
class PathFlags:
    """How the backend computes; None where a flag was not given."""

    device: options.Device = None
    memory_format: options.MemoryFormat = None
    torch_threads: options.TorchThreads = None

    def chosen(self) -> Path:
        """The same as a comparison takes it."""
        from bncli.verify.batch_norm_pass import Path

        memory_format = self.memory_format.value if self.memory_format is not None else None
        device = (self.device or options.DeviceName.CPU).value
        return Path(device, memory_format, self.torch_threads)


def diff(
    tensors: Annotated[
        list[str],
        argument(
            "INPUT | ACTUAL EXPECTED",
            "One tensor, normalised by bncli and by PyTorch; or two stored tensors; or two files, "
            "whose tensors are compared by name.",
        ),
    ] = (),  # type: ignore[assignment]  # of which Typer makes a list
    *,
    reading: InputFlags,
    given_input: Annotated[
        str | None,
        options.tensor_option(
            "The input from which ACTUAL and EXPECTED were both computed; lets diff name the cause "
            "of a difference. Describe the layer with --state or the Layer flags.",
            panel=options.INPUT,
            name="--input",
        ),
    ] = None,
    per_quantity: Annotated[
        bool,
        option("Show a row for each quantity and channel.", options.INPUT, "--per-quantity"),
    ] = False,
    budget: Annotated[
        bool,
        option(
            "Show how far bncli and PyTorch each are from the exact result, in ULPs (units in the "
            "last place); for float32 input only.",
            options.COMPARISON,
            "--budget",
        ),
    ] = False,
    layer: EitherModeFlags,
    comparison: DiffedFlags,
    equal_nan: options.EqualNan = False,
    seed: options.GivenSeed = None,
    path: PathFlags,
    threads: options.Threads = None,
) -> Report:
    """Explain a difference, channel by channel: bncli against PyTorch, or two stored tensors.

    `compute --against torch` checks once; diff explains. It says how much of its tolerance each
    quantity uses and where, what that is in ULPs and in standard deviations, the least tolerance
    that would pass, and in float32 whether PyTorch lost digits or something is wrong.
    """
    from bncli.arguments.flags import KnownFlags
    from bncli.commands.diff.run import RunFlags, diff_run
    from bncli.commands.diff.stored import StoredFlags, diff_stored
    from bncli.errors import UsageError

    tolerance = comparison.tolerance
    known = KnownFlags.of(layer)
    if len(tensors) > 2:
        raise UsageError("diff takes one INPUT, or ACTUAL and EXPECTED.")
    if len(tensors) == 2:
        _refuse(
            {
                "--values": reading.values,
                "--dtype": reading.dtype,
                "--per-quantity": per_quantity or None,
                "--budget": budget or None,
                "--momentum": layer.momentum,
                **_given_switch("--affine", "--no-affine", layer.affine),
                **_given_switch(
                    "--track-running-stats", "--no-track-running-stats", layer.track_running_stats
                ),
                "--against": comparison.against,
                "--tolerance-factor": comparison.tolerance_factor,
                "--seed": seed,
                "--device": path.device,
                "--memory-format": path.memory_format,
                "--torch-threads": path.torch_threads,
                "--threads": threads,
            },
            "a comparison of two stored tensors",
        )
        if given_input is None:
            known.refuse_any("a comparison of two stored tensors without --input")
        axis, _ = reading.axis_of(layer.state)
        fixed = tolerance if isinstance(tolerance, tuple) else None
        stored = StoredFlags(axis, reading.channel, fixed, equal_nan, given_input, known)
        return diff_stored((tensors[0], tensors[1]), stored)
    if given_input is not None:
        raise UsageError("--input is for ACTUAL and EXPECTED; diff INPUT has its input.")
    chosen = RunFlags(
        reading,
        comparison.against or options.TORCH,
        tolerance,
        seed or 0,
        path.chosen(),
        per_quantity=per_quantity,
        budget=budget,
        threads=threads,
    )
    return diff_run(tensors, layer, chosen)


def _given_switch(yes: str, no: str, value: bool | None) -> dict[str, Value]:
    """The flag of a switch as it was typed; None as its value where it was not."""
    return {no if value is False else yes: value}


def _refuse(flags: dict[str, Value], what: str) -> None:
    """Raise UsageError for a given flag that does not apply to `what`."""
    from bncli.errors import UsageError

    for flag, value in flags.items():
        if value is not None:
            raise UsageError(f"{flag} does not apply to {what}; leave it out.")
